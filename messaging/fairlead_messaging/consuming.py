"""The consuming half of a Bus: deliveries of one queue over whatever connection there is."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Refused
from fairlead_daemon.logs import Log
from fairlead_messaging import metrics
from fairlead_messaging.adapters.amqp import Channel, Connection
from fairlead_messaging.decisions.messages import Headers
from fairlead_messaging.decisions.window import Acks

log = Log("bus")
AGAIN = Backoff(first_s=0.2, most_s=5.0)


@dataclass(slots=True)
class Subscription:
    """One channel's consumption. What was delivered on it can be answered on it alone."""

    channel: Channel
    tag: str = ""
    acks: Acks = field(default_factory=Acks)
    flushing: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """`tag` is known, or never will be: the first deliveries may be here before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message, to be answered once by `ack` or `reject`. Unanswered, the broker delivers it again.

    `redelivered`: somebody had it before. Whoever must not act twice looks at `message_id`.
    """

    body: bytes
    routing_key: str
    exchange: str
    headers: Headers
    message_id: str
    content_type: str
    correlation_id: str
    reply_to: str
    redelivered: bool
    tag: int
    consumer: "Consumer"
    subscription: Subscription

    def ack(self) -> bool:
        """False when the connection it came on has ended: it is delivered again, perhaps to somebody else."""
        return self.consumer.answer(self)

    def reject(self, *, requeue: bool = False) -> bool:
        """Back into the queue, or to its dead-letter exchange (without one: gone)."""
        return self.consumer.reject(self, requeue=requeue)


class Consumer:
    """`async for delivery in consumer`; `stop` ends it and lets what was delivered be answered.

    Raises Refused from the iteration when the queue is not there at first; later it is waited for.
    """

    def __init__(self, queue: str, prefetch: int) -> None:
        self.queue = queue
        self._prefetch = prefetch
        self._here: deque[Delivery] = deque()
        self._changed = asyncio.Event()
        self._subscription: Subscription | None = None
        self._unanswered: set[int] = set()
        self._answered = asyncio.Event()
        self._answered.set()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._began = False
        self._error: FairleadError | None = None

    @property
    def unanswered(self) -> int:
        """Deliveries that were handed out and not answered yet."""
        return len(self._unanswered)

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self._deliveries()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    async def _deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            while self._here:
                delivery = self._here.popleft()
                self._unanswered.add(delivery.tag)
                self._answered.clear()
                yield delivery
            if self._error is not None:
                raise self._error
            if self._stopping.is_set():
                return
            self._changed.clear()
            await self._changed.wait()

    async def stop(self) -> None:
        """No more deliveries; what waits here unseen goes back to the queue. What was handed out may be answered still."""
        self._stopping.set()
        self._changed.set()
        subscription = self._subscription
        if subscription is not None:
            await subscription.begun.wait()
            try:
                await subscription.channel.cancel(subscription.tag)
            except FairleadError as error:
                log.debug("consumer ended with its channel", queue=self.queue, why=str(error))
        while self._here:
            delivery = self._here.pop()
            if delivery.subscription is self._subscription:
                self._settle(delivery, requeue=True)
        self._end_if_done()

    async def answered(self) -> None:
        """Returns when everything that was handed out is answered, or can be no more."""
        await self._answered.wait()

    def end(self, error: FairleadError | None = None) -> None:
        """Ends the iteration."""
        self._error = self._error or error
        self._stopping.set()
        self._changed.set()

    # --- answers

    def answer(self, delivery: Delivery) -> bool:
        if not self._current(delivery):
            return False
        delivery.subscription.acks.acknowledge(delivery.tag)
        metrics.ACKNOWLEDGED.inc()
        self._flush_soon(delivery.subscription)
        self._end_if_done()
        return True

    def reject(self, delivery: Delivery, *, requeue: bool) -> bool:
        if not self._current(delivery):
            return False
        self._settle(delivery, requeue=requeue)
        self._end_if_done()
        return True

    def _settle(self, delivery: Delivery, *, requeue: bool) -> None:
        delivery.subscription.channel.reject(delivery.tag, requeue=requeue)
        delivery.subscription.acks.rejected(delivery.tag)
        metrics.REJECTED.inc()

    def _current(self, delivery: Delivery) -> bool:
        """Whether it may be answered: once, and on the channel it came on."""
        if delivery.subscription is not self._subscription or delivery.tag not in self._unanswered:
            return False
        self._unanswered.discard(delivery.tag)
        if not self._unanswered:
            self._answered.set()
        return True

    def _end_if_done(self) -> None:
        """Stopped, and nothing left to answer: its channel may go."""
        if self._stopping.is_set() and not self._unanswered and not self._here:
            if self._subscription is not None:
                self._flush(self._subscription)
            self._ended.set()

    def _flush_soon(self, subscription: Subscription) -> None:
        """Once a turn of the event loop: what was answered in it goes out in few frames."""
        if not subscription.flushing:
            subscription.flushing = True
            asyncio.get_running_loop().call_soon(self._flush, subscription)

    def _flush(self, subscription: Subscription) -> None:
        subscription.flushing = False
        for tag, multiple in subscription.acks.flush():
            subscription.channel.ack(tag, multiple=multiple)

    # --- while there is a connection

    async def follow(self, connection: Connection) -> None:
        """Consumes over it until it ends; again, after a pause, when the broker ended the consumption alone."""
        attempt = 0
        while not connection.closed.done() and not self._stopping.is_set():
            try:
                await self._subscribe(connection)
                attempt = 0
            except Refused as error:
                if not self._began:
                    self.end(error)
                    return
                log.warning("cannot consume", queue=self.queue, why=str(error))
            if not self._stopping.is_set():
                await asyncio.wait((connection.closed,), timeout=AGAIN.delay_s(attempt, chance=1.0))
                attempt += 1

    async def _subscribe(self, connection: Connection) -> None:
        """Returns when the broker ended it, or the connection ended."""
        channel = await connection.channel()
        subscription = Subscription(channel)
        ended = self._ended = asyncio.Event()
        self._subscription = subscription

        def delivered(method: Any, properties: Any, body: bytes) -> None:
            self._take(subscription, method, properties, body)

        try:
            subscription.tag = await channel.consume(self.queue, self._prefetch, delivered, ended.set)
            self._began = True
            subscription.begun.set()
            channel.closed.add_done_callback(lambda _: ended.set())
            connection.closed.add_done_callback(lambda _: ended.set())
            await ended.wait()
            if channel.closed.done() and channel.closed.result().over:
                raise Refused(channel.closed.result().why)
        finally:
            self._forget(subscription)
            await channel.close()

    def _take(self, subscription: Subscription, method: Any, properties: Any, body: bytes) -> None:
        delivery = Delivery(
            body=body,
            routing_key=method.routing_key,
            exchange=method.exchange,
            headers=properties.headers or {},
            message_id=properties.message_id or "",
            content_type=properties.content_type or "",
            correlation_id=properties.correlation_id or "",
            reply_to=properties.reply_to or "",
            redelivered=method.redelivered,
            tag=method.delivery_tag,
            consumer=self,
            subscription=subscription,
        )
        metrics.DELIVERED.inc()
        if self._stopping.is_set():
            self._settle(delivery, requeue=True)
            return
        self._here.append(delivery)
        self._changed.set()

    def _forget(self, subscription: Subscription) -> None:
        """The broker delivers all of it again: answers to it mean nothing now."""
        subscription.begun.set()
        if self._subscription is subscription:
            self._subscription = None
        self._here.clear()
        self._unanswered.clear()
        self._answered.set()

"""`Bus`: messages out, confirmed; messages in, acknowledged; over whichever of its addresses answers."""

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Self

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import BadSettings, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_messaging import metrics
from fairlead_messaging.adapters.amqp import Connection, check_url
from fairlead_messaging.consuming import Consumer, Delivery
from fairlead_messaging.decisions.messages import Declaration, Limits, Message
from fairlead_messaging.publishing import Publisher

log = Log("bus")
Addresses = Sequence[str] | Callable[[], Awaitable[Sequence[str]]]
"""URLs, or a function that finds them afresh before each try: brokers that are tasks move."""
RECONNECT = Backoff(first_s=0.1, most_s=5.0)
FAILED_PAUSE_S = 1.0


class Bus:
    """One client of one broker (or of a cluster's nodes, tried in turn). Use it as `async with Bus([url]) as bus`.

    At least once: what was published and not confirmed when a connection ends is sent again under the same message id,
    in its order. Leaving the block drains: what was taken is answered and what was published confirmed, within `drain_s`.
    """

    def __init__(
        self,
        addresses: Addresses,
        *,
        declare: Iterable[Declaration] = (),
        limits: Limits = Limits(),  # noqa: B008  # frozen
        name: str = "",
        drain_s: float = 10.0,
    ) -> None:
        if not callable(addresses):
            if not addresses:
                raise BadSettings("a bus needs at least one address")
            addresses = [check_url(url) for url in addresses]
        self._addresses = addresses
        self._declare = tuple(declare)
        self._name = name or f"fairlead bus {socket.gethostname()} {os.getpid()}"
        self._drain_s = drain_s
        self._publisher = Publisher(limits)
        self._consumers: list[Consumer] = []
        self._connection: Connection | None = None
        self._following: asyncio.TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._turn = 0
        self.last_error: FairleadError | None = None

    # --- life

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        if kind is None:
            await self.drain()
        await self.close()

    async def connected(self, *, within_s: float = 10.0) -> None:
        """Returns once a broker has answered. Raises Refused as soon as one refuses us, Unavailable at the end."""
        try:
            async with asyncio.timeout(within_s):
                while self._following is None:
                    if isinstance(self.last_error, Refused):
                        raise self.last_error
                    self._check_running()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise self.last_error or Unavailable("no broker answered in time") from error

    async def drain(self) -> bool:
        """No more deliveries; waits until all that was handed out is answered and all that was published is confirmed.

        False when `drain_s` were not enough.
        """
        try:
            async with asyncio.timeout(self._drain_s):
                for consumer in self._consumers:
                    await consumer.stop()
                for consumer in self._consumers:
                    await consumer.answered()
                await asyncio.sleep(0)  # acknowledgements go out at the end of a turn
                await self._publisher.idle()
        except TimeoutError:
            log.warning("not drained in time", unconfirmed=self.unconfirmed, unanswered=self.unanswered)
            return False
        return True

    async def close(self) -> None:
        """At once. What is unconfirmed raises Unavailable for whoever waits for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Closed, or a bug: nobody waits for ever."""
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            log.error("bus crashed", why=repr(bug))
        error = Unavailable("the bus was closed" if bug is None else f"the bus crashed: {bug!r}")
        self._publisher.end(error)
        for consumer in self._consumers:
            consumer.end(error if bug is not None else None)

    # --- state

    @property
    def unconfirmed(self) -> int:
        return self._publisher.unconfirmed

    @property
    def unanswered(self) -> int:
        return sum(consumer.unanswered for consumer in self._consumers)

    @property
    def address(self) -> str:
        """Of the broker that we are connected to, without credentials; "" when we are not."""
        return self._connection.name if self._connection is not None else ""

    @property
    def blocked(self) -> str:
        """Why the broker takes no publishes now (an alarm of memory or disk); "" when it does."""
        return self._connection.blocked if self._connection is not None else ""

    # --- out

    async def publish(self, message: Message) -> "asyncio.Future[None]":
        """Waits for room in the window, sends, and returns a future that is done once the broker has the message.

        The future raises Refused when it never will (no queue takes a mandatory one, no such exchange), Unavailable
        when the bus is closed first. `await (await bus.publish(m))` is one confirmed message at a time.
        """
        self._check_running()
        await self._publisher.room()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def confirmed(error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self._publisher.accept(message, confirmed)
        return future

    async def publish_all(self, messages: Iterable[Message]) -> int:
        """Publishes and waits until all are confirmed; returns how many. Raises the first refusal, after all have ended."""
        self._check_running()
        batch = _Batch()
        for message in messages:
            await self._publisher.room()
            batch.begin()
            self._publisher.accept(message, batch.one_ended)
        return await batch.ended()

    # --- in

    def consume(self, queue: str, *, prefetch: int = 100) -> Consumer:
        """Deliveries of `queue`, at most `prefetch` unanswered at a time; across reconnects, until stopped."""
        self._check_running()
        consumer = Consumer(queue, prefetch)
        self._consumers = [*(c for c in self._consumers if not c.stopped or c.unanswered), consumer]
        if self._following is not None and self._connection is not None:
            self._following.create_task(consumer.follow(self._connection))
        return consumer

    async def handle(
        self, queue: str, handler: Callable[[Delivery], Awaitable[None]], *, prefetch: int = 100, at_once: int = 1
    ) -> None:
        """Calls `handler` for each delivery, `at_once` of them side by side, and acknowledges when it returns.

        One that raises goes back into the queue after a second. Ends when the bus drains.
        """
        consumer = self.consume(queue, prefetch=max(prefetch, at_once))
        deliveries = aiter(consumer)
        lock = asyncio.Lock()

        async def work() -> None:
            while True:
                async with lock:
                    delivery = await anext(deliveries, None)
                if delivery is None:
                    return
                await _handled(delivery, handler)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())

    # --- the connection

    def _check_running(self) -> None:
        if self._task is None:
            raise Unavailable("the bus has not begun: use it as `async with Bus(…) as bus`")
        if self._task.done():
            raise Unavailable("the bus is closed")

    async def _keep_connected(self) -> None:
        attempt = 0
        while True:
            try:
                self._connection = await self._open()
                await self._serve(self._connection)
                attempt = 0
            except FairleadError as error:
                self.last_error = error
                log.warning("no connection", why=str(error), unconfirmed=self.unconfirmed)
            finally:
                await self._leave()
            self._changed.set()
            await asyncio.sleep(RECONNECT.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
            attempt += 1

    async def _open(self) -> Connection:
        found = await _found(self._addresses) if callable(self._addresses) else self._addresses
        if not found:
            raise Unavailable("no address of a broker is known")
        url = found[self._turn % len(found)]
        self._turn += 1  # a broker that takes connections and then fails is not tried twice running
        return await Connection.open(check_url(url), self._name)

    async def _serve(self, connection: Connection) -> None:
        """Returns or raises FairleadError when the connection has ended."""
        await self._declare_on(connection)
        metrics.CONNECTIONS.inc()
        log.info("connected", broker=connection.name, unconfirmed=self.unconfirmed)
        self.last_error = None
        try:
            async with asyncio.TaskGroup() as group:
                self._following = group
                self._changed.set()
                group.create_task(self._publisher.follow(connection))
                for consumer in self._consumers:
                    group.create_task(consumer.follow(connection))
                closed = await asyncio.shield(connection.closed)
                raise Unavailable(f"{connection.name}: {closed.why}")
        except BaseExceptionGroup as group_error:
            if group_error.split(FairleadError)[1] is not None:
                raise  # a bug, or our own end
            raise _first(group_error) from None
        finally:
            self._following = None

    async def _declare_on(self, connection: Connection) -> None:
        if not self._declare:
            return
        channel = await connection.channel()
        for wish in self._declare:
            await channel.declare(wish)
        await channel.close()

    async def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def _found(find: Callable[[], Awaitable[Sequence[str]]]) -> Sequence[str]:
    try:
        return await find()
    except FairleadError:
        raise
    except Exception as error:  # somebody else's function: its failure is a try that failed
        raise Unavailable(f"addresses could not be found: {error!r}") from error


async def _handled(delivery: Delivery, handler: Callable[[Delivery], Awaitable[None]]) -> None:
    try:
        await handler(delivery)
    except Exception:  # the handler is somebody else's: its failure is the message's, not the bus's
        log.exception("handler failed", queue=delivery.consumer.queue, message_id=delivery.message_id)
        await asyncio.sleep(FAILED_PAUSE_S)
        delivery.reject(requeue=True)
    else:
        delivery.ack()


def _first(group: BaseExceptionGroup[BaseException]) -> FairleadError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, FairleadError)
    return error


class _Batch:
    """Counts the ends of many messages; one future for all of them."""

    def __init__(self) -> None:
        self._open = 0
        self._total = 0
        self._error: BaseException | None = None
        self._all = asyncio.Event()

    def begin(self) -> None:
        self._open += 1
        self._total += 1
        self._all.clear()

    def one_ended(self, error: BaseException | None) -> None:
        self._open -= 1
        self._error = self._error or error
        if not self._open:
            self._all.set()

    async def ended(self) -> int:
        if self._open:
            await self._all.wait()
        if self._error is not None:
            raise self._error
        return self._total

"""The publishing half of a Bus: a window of unconfirmed messages over whatever connection there is."""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from itertools import count

from fairlead_daemon.errors import FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_messaging import metrics
from fairlead_messaging.adapters.amqp import SOFT_ERRORS, Channel, Closed, Connection
from fairlead_messaging.decisions.messages import Limits, Message
from fairlead_messaging.decisions.window import Window

log = Log("bus")
OVERHEAD_BYTES = 200  # of a message's own fields and frames, in the window's count


class Parcel:
    """A message, who waits for it, and whether the broker gave it back."""

    __slots__ = ("confirmed", "id", "message", "returned")

    def __init__(self, message: Message, parcel_id: str, confirmed: "Callable[[BaseException | None], None]") -> None:
        self.message = message
        self.id = parcel_id
        self.confirmed = confirmed
        self.returned = ""


class Publisher:
    """`accept` never loses a message: each ends by `confirmed(None)`, or by an error that says why it never will be."""

    def __init__(self, limits: Limits) -> None:
        self._window: Window[Parcel] = Window(limits)
        self._channel: Channel | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._prefix = secrets.token_hex(8)
        self._numbers = count(1)
        self._again = 0
        self._end: FairleadError | None = None

    @property
    def unconfirmed(self) -> int:
        return len(self._window)

    async def room(self) -> None:
        """Returns when there is room in the window. Raises once nothing is taken any more."""
        while self._window.full and self._end is None:
            self._room.clear()
            await self._room.wait()
        if self._end is not None:
            raise self._end

    async def idle(self) -> None:
        """Returns when nothing is unconfirmed."""
        await self._idle.wait()

    def accept(self, message: Message, confirmed: Callable[[BaseException | None], None]) -> None:
        """Sends it now if it can; else as soon as there is a connection."""
        parcel = Parcel(message, message.message_id or f"{self._prefix}-{next(self._numbers)}", confirmed)
        self._window.accept(parcel, len(message.body) + OVERHEAD_BYTES)
        self._idle.clear()
        self._pump()

    def end(self, error: FairleadError) -> None:
        """Nobody will confirm what is unconfirmed, and nothing more is taken."""
        self._end = error
        self._room.set()
        for parcel in list(self._window.unsettled()):
            parcel.confirmed(error)

    # --- while there is a connection

    async def follow(self, connection: Connection) -> None:
        """Publishes over it until it ends, on a fresh channel whenever the broker closed one."""
        connection.on_blocked = self._pump
        while not connection.closed.done():
            channel = await connection.channel()
            try:
                await channel.confirm(partial(self._settled, channel), self._returned)
                self._attach(channel)
                await asyncio.wait((channel.closed, connection.closed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._detach(channel.closed.result() if channel.closed.done() else None)

    def _attach(self, channel: Channel) -> None:
        if self._again:
            log.info("sending again what was not confirmed", messages=self._again)
            metrics.RESENT.inc(self._again)
        self._again = 0
        self._channel = channel
        self._pump()

    def _detach(self, closed: Closed | None) -> None:
        self._channel = None
        suspicious = closed is not None and closed.over in SOFT_ERRORS
        self._again += self._window.in_flight
        culprit = self._window.lost(suspicious=suspicious)
        if culprit is not None and closed is not None:
            self._finish(culprit, Refused(f"{_shown(culprit)}: {closed.why}"))
        elif suspicious and closed is not None:
            log.warning("channel closed over a message; looking for it one by one", why=closed.why)

    def _pump(self) -> None:
        channel = self._channel
        if channel is None or channel.connection.blocked or not channel.is_open:
            return
        while (parcel := self._window.send()) is not None:
            try:
                channel.publish(parcel.message, parcel.id)
            except Unavailable:
                return  # it stands in the window, and is sent again
            except Refused as error:  # it has no form in AMQP: nothing was sent
                self._finish(self._window.withdraw(), Refused(f"{_shown(parcel)}: {error}"))

    def _settled(self, channel: Channel, tag: int, multiple: bool, accepted: bool) -> None:
        if channel is not self._channel:
            return  # a word of a session that has ended for us: its messages are sent again
        for parcel in self._window.settle(tag, multiple=multiple):
            if parcel.returned:
                self._finish(parcel, Refused(f"{_shown(parcel)}: {parcel.returned}"))
            elif accepted:
                self._finish(parcel, None)
            else:
                self._finish(parcel, Refused(f"{_shown(parcel)}: the broker could not take it"))
        self._pump()

    def _returned(self, message_id: str, why: str) -> None:
        reason = "no queue takes it" if why == "NO_ROUTE" else why
        for parcel in self._window.unsettled():
            if parcel.id == message_id:
                parcel.returned = reason

    def _finish(self, parcel: Parcel, error: Refused | None) -> None:
        (metrics.CONFIRMED if error is None else metrics.REFUSED).inc()
        if not self._window.full:
            self._room.set()
        if not len(self._window):
            self._idle.set()
        parcel.confirmed(error)


def _shown(parcel: Parcel) -> str:
    message = parcel.message
    where = f"exchange {message.exchange}" if message.exchange else "the default exchange"
    return f"message {parcel.id} to {where}, routing key {message.routing_key!r}"

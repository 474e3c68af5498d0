"""Replies that are not there yet: so many at most, and the oldest gives way."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from fairlead_daemon.logs import Log
from fairlead_dns.decisions.front import Waiting

log = Log("dns")
Send = Callable[[bytes | None], None]


@dataclass(slots=True)
class Waiters:
    """All waiting queries of all transports. A query that is shed or runs out of time gets what `failed` says. `open` is
    in the order they came.
    """

    most: int
    patience_s: float
    shed: int = 0
    """How many gave way so far."""
    open: dict[asyncio.Future[bytes | None], asyncio.TimerHandle] = field(default_factory=dict)
    _give_ups: dict[asyncio.Future[bytes | None], Callable[[], None]] = field(default_factory=dict)

    def add(self, waiting: Waiting, send: Send) -> asyncio.Future[bytes | None]:
        """`send` is called once, with what goes out, unless the future returned is cancelled first."""
        future = asyncio.ensure_future(waiting.awaitable)
        give_up = partial(self._give_up, future, waiting, send)
        self.open[future] = asyncio.get_running_loop().call_later(self.patience_s, give_up)
        self._give_ups[future] = give_up
        future.add_done_callback(partial(self._done, waiting, send))
        if len(self.open) > self.most:
            self._shed()
        return future

    def _shed(self) -> None:
        """The oldest, unless its reply is there and only waits for its turn."""
        oldest = next((each for each in self.open if not each.done()), None)
        if oldest is not None:
            self.shed += 1
            self._give_ups[oldest]()

    def close(self) -> None:
        for future in tuple(self.open):
            self._forget(future)

    def _done(self, waiting: Waiting, send: Send, future: asyncio.Future[bytes | None]) -> None:
        timer = self.open.pop(future, None)
        self._give_ups.pop(future, None)
        if timer is not None:
            timer.cancel()
        if timer is None or future.cancelled():
            return
        error = future.exception()
        if error is not None:
            log.error("a question could not be answered", why=repr(error))
        send(waiting.failed() if error is not None else waiting.finish(future.result()))

    def _give_up(self, future: asyncio.Future[bytes | None], waiting: Waiting, send: Send) -> None:
        self._forget(future)
        send(waiting.failed())

    def _forget(self, future: asyncio.Future[bytes | None]) -> None:
        self.open.pop(future).cancel()
        self._give_ups.pop(future, None)
        future.cancel()

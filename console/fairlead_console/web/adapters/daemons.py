"""One page of one daemon, asked over HTTP while somebody looks. The last good answer stays, with why it is old."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import aiohttp

from fairlead_console.web import metrics
from fairlead_console.web.decisions.answers import Answer
from fairlead_daemon.errors import FairleadError, Refused, Unavailable

T = TypeVar("T")
ANSWER_S = 2.0
SHARE = 0.1
"""Of the time, a daemon whose page takes long is asked no more than this."""


class Source(Generic[T]):
    """`answer` is replaced at each change, and `changed` called then. An empty `url` is never asked."""

    def __init__(self, name: str, url: str, read: Callable[[bytes], T], changed: Callable[[], None]) -> None:
        self.name = name
        self.answer: Answer[T] = Answer(off=not url)
        self._url = url
        self._read = read
        self._changed = changed
        self._raw: bytes | None = None
        self._asked_s = -1e9
        self._took_s = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def run(
        self, session: aiohttp.ClientSession, *, watched: Callable[[], Awaitable[None]], every_s: float
    ) -> None:
        """For ever. `watched()` returns when somebody looks."""
        while True:
            await watched()
            await self.ask(session)
            await asyncio.sleep(max(every_s, self._took_s / SHARE))

    async def freshen(self, session: aiohttp.ClientSession, *, most_s: float) -> None:
        """Returns when the answer is at most so old, or there is none."""
        if time.monotonic() - self._asked_s > most_s:
            await self.ask(session)

    async def ask(self, session: aiohttp.ClientSession) -> None:
        """Two who ask at once share the answer; one who gives up does not take it from the other."""
        if not self._url:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(session))
        await asyncio.shield(self._asking)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        self._asked_s = time.monotonic()
        try:
            raw = await fetch(session, self._url)
            value = self.answer.value if raw == self._raw else self._read(raw)
        except FairleadError as error:
            metrics.failures.labels(source=self.name).inc()
            answered = isinstance(error, Refused)
            self._set(Answer(value=self.answer.value, why=str(error), seen=self.answer.seen, answered=answered))
        else:
            self._raw = raw
            self._set(Answer(value=value, seen=time.strftime("%H:%M:%S")))
        self._took_s = time.monotonic() - self._asked_s

    def _set(self, answer: Answer[T]) -> None:
        before, self.answer = self.answer, answer
        if answer.value is not before.value or answer.why != before.why:
            self._changed()


async def fetch(session: aiohttp.ClientSession, url: str) -> bytes:
    """The body of a 2xx answer. Raises Unavailable in words for people, Refused for other answers."""
    try:
        async with asyncio.timeout(ANSWER_S), session.get(url) as response:
            raw = await response.read()
            status = response.status
    except TimeoutError as error:
        raise Unavailable(f"no answer within {ANSWER_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(_worded(error)) from error
    if status >= 400:
        raise Refused(f"it answers with status {status}")
    return raw


def _worded(error: Exception) -> str:
    """`connection refused`: the address is known."""
    number = getattr(getattr(error, "os_error", error), "errno", None)
    return os.strerror(number).lower() if isinstance(number, int) and number > 0 else str(error) or type(error).__name__

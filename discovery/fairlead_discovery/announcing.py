"""Announcements: nodes that live as long as our session, and are made again in the next one.

What is wanted stands in one mapping; one task brings the store to it, again after every new session.
"""

import asyncio
import random
from dataclasses import dataclass

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError
from fairlead_daemon.logs import Log
from fairlead_discovery.decisions.ops import AnyOp, Drop, Make
from fairlead_discovery.store import Cell, Store

log = Log("discovery")
FIRST_S = 2.0
BACKOFF = Backoff(first_s=0.1, most_s=2.0)


@dataclass(frozen=True, slots=True)
class Made:
    session: str
    data: bytes


class Announcer:
    """Keeps `wanted` true for as long as it runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wanted: dict[str, bytes] = {}
        self._made: dict[str, Made] = {}
        self._round: Cell[int] = Cell(0)
        """Counts what was asked for."""
        self._served: Cell[int] = Cell(0)
        """The round up to which the store is as asked."""
        self._task: asyncio.Task[None] | None = None

    async def want(self, path: str, data: bytes | None) -> None:
        """Returns when it is so, or after FIRST_S when the registry is out of sight: then it is made so later."""
        if data is None:
            self._wanted.pop(path, None)
        else:
            self._wanted[path] = data
        self._round.set(self._round.value + 1)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        await self._until(self._round.value)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _until(self, number: int) -> None:
        try:
            async with asyncio.timeout(FIRST_S):
                async for served in self._served.changes():
                    if served >= number:
                        return
        except TimeoutError:
            log.warning("announcement waits for the registry")

    async def _run(self) -> None:
        attempt = 0
        while True:
            wanted_changed, connection_changed = self._round.changed, self._store.connection.changed
            number = self._round.value
            if self._store.connection.value.in_sight:
                try:
                    await self._reconcile(self._store.connection.value.session)
                except FairleadError as error:
                    log.warning("announcement failed", why=str(error))
                    await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                    attempt += 1
                    continue
                attempt = 0
                self._served.set(number)
            await first(wanted_changed, connection_changed)

    async def _reconcile(self, session: str) -> None:
        for path in tuple(self._made):
            if path not in self._wanted:
                await self._store.multi((Drop(path=path, missing_ok=True),))
                del self._made[path]
        for path, data in tuple(self._wanted.items()):
            made = Made(session, data)
            if self._made.get(path) != made:
                await self._store.multi(_take_over(path, data))
                self._made[path] = made


def _take_over(path: str, data: bytes) -> tuple[AnyOp, ...]:
    """A node of the same name is our own of an older session, or of our predecessor: it would end with that."""
    return (Drop(path=path, missing_ok=True), Make(path=path, data=data))


async def first(*events: asyncio.Event) -> None:
    """Returns when one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


@dataclass(frozen=True, slots=True)
class Announced:
    """See registry.Announcement."""

    announcer: Announcer
    path: str

    async def update(self, data: bytes) -> None:
        await self.announcer.want(self.path, data)

    async def end(self) -> None:
        await self.announcer.want(self.path, None)

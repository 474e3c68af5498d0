"""Standing for election, the same on every backend.

A candidate is a sequential node of our session. Whoever has the lowest raises the role's epoch in a transaction
that checks its own node: an epoch is given to one leadership only, and a guard with it refuses every earlier one.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Conflict, FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.announcing import first
from fairlead_discovery.decisions.election import lowest, sequence
from fairlead_discovery.decisions.ops import Check, Drop, Make, Set
from fairlead_discovery.registry import NEW, Node, Standing
from fairlead_discovery.store import Cell, Store

log = Log("discovery")
BACKOFF = Backoff(first_s=0.1, most_s=1.0)


class Candidate:
    """One candidacy. `standing` changes until `withdraw`."""

    def __init__(self, store: Store, role: str, data: bytes, *, candidacy: str, claimed: set[str]) -> None:
        self.standing = Cell(Standing(leading=False))
        self._store = store
        self._role = role
        self._data = data
        self._prefix = candidacy or paths.election(role)
        self._folder, _, self._stem = self._prefix.rpartition("/")
        self._claimed = claimed
        self._mine = ""
        self._session = ""
        self._doubtful = False
        """A creation's outcome is unknown: our session may have a node there that we know nothing of."""
        self._epoch = 0
        self._changes: Cell[Mapping[str, Node]] = Cell({})
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._listen()), loop.create_task(self._run()))

    async def withdraw(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._claimed.discard(self._mine)
        if self._mine or self._doubtful:
            with suppress(FairleadError):  # out of sight: the session's end withdraws it
                await self._clean_up()

    async def _clean_up(self) -> None:
        names = (self._mine,) if not self._doubtful else await self._orphans()
        for name in names:
            await self._store.multi((Drop(path=f"{self._folder}/{name}", missing_ok=True),))

    async def _listen(self) -> None:
        async for nodes in self._store.follow(self._folder):
            self._changes.set(nodes)

    async def _run(self) -> None:
        attempt = 0
        while True:
            events = (self._changes.changed, self._store.connection.changed)
            try:
                await self._step()
            except Unavailable:
                self._stand(Standing(leading=False))
            except FairleadError as error:
                log.warning("candidacy failed", role=self._role, why=str(error))
                self._stand(Standing(leading=False))
            else:
                attempt = 0
                await first(*events)
                continue
            await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
            attempt += 1

    async def _step(self) -> None:
        connection = self._store.connection.value
        if not connection.in_sight:
            self._stand(Standing(leading=False))
            return
        await self._be_candidate(connection.session)
        names = await self._store.names(self._folder)
        leader = lowest(names, self._stem)
        if self._mine not in names:
            self._forget()
            self._changes.touch()
        elif leader == self._mine:
            await self._lead()
        else:
            node = await self._store.get(f"{self._folder}/{leader}")
            self._epoch = 0
            self._stand(Standing(leading=False, leader=node.data if node is not None else None))
            if node is None:
                self._changes.touch()

    async def _be_candidate(self, session: str) -> None:
        if self._mine and self._session == session:
            return
        self._forget()
        self._doubtful = self._doubtful or bool(self._session)  # a delayed creation may have landed in this session
        self._session = session
        if self._doubtful:
            names = await self._orphans()
            for name in names[1:]:
                await self._store.multi((Drop(path=f"{self._folder}/{name}", missing_ok=True),))
            self._mine = names[0] if names else ""
        if not self._mine:
            self._doubtful = True
            outcome = await self._store.multi((Make(path=self._prefix, data=self._data, sequential=True),))
            self._mine = str(outcome.results[0]).rpartition("/")[2]
        self._doubtful = False
        self._claimed.add(self._mine)

    async def _orphans(self) -> tuple[str, ...]:
        """Candidates of our session, by age, that no candidacy of this process claims."""
        names = await self._store.owned(self._folder)
        return tuple(n for n in names if sequence(n, self._stem) is not None and n not in self._claimed)

    async def _lead(self) -> None:
        epoch_path = paths.epoch(self._role)
        node = await self._store.get(epoch_path)
        if node is None:
            with suppress(Conflict):  # another candidate made it just now
                await self._store.multi((Set(path=epoch_path, expect=NEW),))
        base = self._store.cluster.epoch_base
        if not self._epoch or node is None or base + node.version != self._epoch:
            check = Check(path=f"{self._folder}/{self._mine}")
            outcome = await self._store.multi((check, Set(path=epoch_path)))
            self._epoch = base + int(outcome.results[1])
            log.info("elected", role=self._role, epoch=self._epoch)
        self._stand(Standing(leading=True, epoch=self._epoch, leader=self._data))

    def _forget(self) -> None:
        self._claimed.discard(self._mine)
        self._mine = ""
        self._epoch = 0

    def _stand(self, standing: Standing) -> None:
        if standing != self.standing.value:
            self.standing.set(standing)

"""The Registry protocol over any Store: sizes checked, guards added, announcements and candidacies kept alive."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from time import perf_counter

from fairlead_daemon.errors import Conflict, FairleadError, Refused, Unavailable
from fairlead_discovery import metrics, paths
from fairlead_discovery.announcing import Announced, Announcer
from fairlead_discovery.decisions.ops import AnyOp, Check, Drop, Set, check_path, check_sizes, of_change
from fairlead_discovery.electing import Candidate
from fairlead_discovery.registry import ANY, Announcement, Change, Guard, Node, Sight, Standing, Tree
from fairlead_discovery.store import Store

OUTCOMES: tuple[tuple[type[FairleadError], str], ...] = (
    (Conflict, "conflict"),
    (Unavailable, "unknown"),
    (Refused, "refused"),
)


class ComposedTree:
    """See registry.Tree."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, path: str) -> Node | None:
        check_path(path)
        return await self._store.get(path)

    async def names(self, path: str) -> tuple[str, ...]:
        if path != "/":
            check_path(path)
        return await self._store.names(path)


class ComposedRegistry:
    """See registry.Registry. Every method raises its errors."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tree: Tree = ComposedTree(store)
        self._announcer = Announcer(store)
        self._candidates: set[Candidate] = set()
        self._claimed: set[str] = set()

    def watch(self) -> AsyncIterator[Sight]:
        return self.store.sights()

    async def commit(self, changes: Sequence[Change], *, guard: Guard | None = None) -> int:
        ops = (*self._guarded(guard), *map(of_change, changes))
        check_sizes(ops)
        start_s = perf_counter()
        try:
            outcome = await self.store.multi(ops, clocked=True)
        except FairleadError as error:
            name = next((text for kind, text in OUTCOMES if isinstance(error, kind)), "failed")
            metrics.commits.labels(outcome=name).inc()
            raise
        metrics.commits.labels(outcome="done").inc()
        metrics.commit_seconds.observe(perf_counter() - start_s)
        return outcome.revision

    async def read(self, path: str) -> Node | None:
        return await self.tree.get(path)

    async def write(self, path: str, data: bytes, *, expect: int = ANY, guard: Guard | None = None) -> int:
        results = await self._document((*self._guarded(guard), Set(path=path, data=data, expect=expect)))
        return int(results[-1])

    async def remove(self, path: str, *, expect: int = ANY, guard: Guard | None = None) -> None:
        await self._document((*self._guarded(guard), Drop(path=path, expect=expect, missing_ok=expect == ANY)))

    async def _document(self, ops: Sequence[AnyOp]) -> Sequence[int | str]:
        check_sizes(ops)
        if paths.clocked_folder(ops[-1].path):
            raise Refused(f"{ops[-1].path} is clocked: it changes by commit, not as a document")
        return (await self.store.multi(ops)).results

    def follow(self, folder: str) -> AsyncIterator[Mapping[str, Node]]:
        check_path(folder)
        return self.store.follow(folder)

    async def announce(self, path: str, data: bytes) -> Announcement:
        """Out of sight it waits 2 s at most and is made later: it never raises Unavailable."""
        check_sizes((Set(path=path, data=data),))
        await self._announcer.want(path, data)
        return Announced(self._announcer, path)

    async def campaign(self, role: str, data: bytes, *, candidacy: str = "") -> AsyncIterator[Standing]:
        candidate = Candidate(self.store, role, data, candidacy=candidacy, claimed=self._claimed)
        self._candidates.add(candidate)
        try:
            async for standing in candidate.standing.changes():
                yield standing
        finally:
            self._candidates.discard(candidate)
            await candidate.withdraw()

    async def close(self) -> None:
        await self._announcer.close()
        await asyncio.gather(*(c.withdraw() for c in tuple(self._candidates)))
        await self.store.close()

    def _guarded(self, guard: Guard | None) -> tuple[Check, ...]:
        if guard is None:
            return ()
        version = guard.epoch - self.store.cluster.epoch_base
        if version < 0:
            raise Conflict(f"epoch {guard.epoch} of {guard.role} is older than this registry")
        return (Check(path=paths.epoch(guard.role), version=version),)

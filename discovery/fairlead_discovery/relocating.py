"""A Store that goes along when its registry moves: `fairlead registry copy` leaves the new place in the old one's record.

Announcements and candidacies are made again in the new registry, because its session is another; readers go on from
the revision they had. The old session is kept for a while, so that who has not gone over yet sees nobody leave.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import metrics, paths
from fairlead_discovery.decisions.ops import AnyOp, Check, Drop, Make, Set
from fairlead_discovery.records import Cluster
from fairlead_discovery.registry import Node, Sight
from fairlead_discovery.store import Cell, Connection, Outcome, Store

log = Log("discovery")
LINGER_S = 30.0
"""The old session lives on so long: who still reads there sees all announcements."""
READERS_LATER_S = 1.5
"""Who only reads goes over later than who announces, so that it finds them there."""
IN_SIGHT_S = 10.0
SETTLE_S = 2.0
"""Versions read in the old registry mean nothing in the new one: so long nothing that names one is written."""
BACKOFF = Backoff(first_s=0.5, most_s=5.0)


class Followed:
    """One folder's nodes, whichever store they come from."""

    def __init__(self) -> None:
        self.cell: Cell[Mapping[str, Node] | None] = Cell(None)
        self.users = 0
        self.pump: asyncio.Task[None] | None = None


class RelocatingStore:
    """See store.Store. `now` is the store of the moment."""

    def __init__(self, store: Store, reopen: Callable[[str], Store]) -> None:
        self.now = store
        self._reopen = reopen
        self._follows = True
        self._was_open = False
        """We have been with this store while nothing went on in its place: what it shows may be told."""
        self._announces = False
        self._moved_s = -SETTLE_S
        self._sights: Cell[Sight] | None = None
        self._sight_pump: asyncio.Task[None] | None = None
        self._folders: dict[str, Followed] = {}
        self._left: list[Store] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        """A bug in one of them: whoever reads gets it."""
        self._run_task = self._spawn(self._run())

    # --- Store

    @property
    def connection(self) -> Cell[Connection]:
        return self.now.connection

    @property
    def cluster(self) -> Cluster:
        return self.now.cluster

    @property
    def admin(self) -> bool:
        return self.now.admin

    @admin.setter
    def admin(self, value: bool) -> None:
        """Who works on a registry itself stays with it."""
        self.now.admin = value
        self.stay()

    def stay(self) -> None:
        self._follows = False
        self._run_task.cancel()

    async def multi(self, ops: Sequence[AnyOp], *, clocked: bool = False) -> Outcome:
        self._check_open()
        self._check_settled(ops)
        self._announces = self._announces or any(isinstance(op, Make) for op in ops)
        store = self.now
        try:
            return await store.multi(ops, clocked=clocked)
        except Refused as error:
            if not (self._follows and store.cluster.moved):
                raise
            raise Unavailable(f"the registry has moved to {store.cluster.moved}, nothing was done") from error

    async def get(self, path: str) -> Node | None:
        self._check_open()
        return await self.now.get(path)

    async def names(self, folder: str) -> tuple[str, ...]:
        self._check_open()
        return await self.now.names(folder)

    async def owned(self, folder: str) -> tuple[str, ...]:
        self._check_open()
        return await self.now.owned(folder)

    async def sights(self) -> AsyncIterator[Sight]:
        if self._sights is None:
            self._sights = Cell(Sight(in_sight=False))
            self._sight_pump = self._spawn(self._pump_sights(self._sights))
        async for sight in self._sights.changes():
            self._check_sound()
            yield sight

    async def follow(self, folder: str) -> AsyncIterator[Mapping[str, Node]]:
        followed = self._folders.setdefault(folder, Followed())
        if not followed.users:
            followed.pump = self._spawn(self._pump_folder(folder, followed))
        followed.users += 1
        try:
            async for nodes in followed.cell.changes():
                self._check_sound()
                if nodes is not None:
                    yield nodes
        finally:
            followed.users -= 1
            if not followed.users:
                self._folders.pop(folder, None)
                await _end(followed.pump)

    async def renew(self) -> None:
        await self.now.renew()

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(store.close() for store in (self.now, *self._left)))

    # --- what must not be done

    def _check_open(self) -> None:
        """Nobody may go by what stands in a registry that has moved: a lease read there would be held here and there.

        Raises Unavailable.
        """
        moved = self.now.cluster.moved
        if moved and self._follows:
            raise Unavailable(f"the registry has moved to {moved}, which is not in sight yet")

    def _check_sound(self) -> None:
        if self._error is not None:
            raise self._error

    def _check_settled(self, ops: Sequence[AnyOp]) -> None:
        if _clock_s() - self._moved_s < SETTLE_S and any(map(_names_a_version, ops)):
            raise Unavailable("the registry has just moved: read again, versions of before are no more")

    # --- pumps: what readers see comes through them, from one store after the other

    async def _pump_sights(self, cell: Cell[Sight]) -> None:
        store = self.now
        fresh = cell.value.revision >= 0
        async with aclosing(store.sights()) as sights:  # type: ignore[type-var]  # every store's is a generator
            async for sight in sights:
                if (self._tells(store) or (sight.why and not sight.in_sight)) and (sight.in_sight or not fresh):
                    fresh = False
                    cell.set(sight)

    async def _pump_folder(self, folder: str, followed: Followed) -> None:
        store = self.now
        async with aclosing(store.follow(folder)) as states:  # type: ignore[type-var]  # see above
            async for nodes in states:
                if self._tells(store):
                    followed.cell.set(nodes)

    def _tells(self, store: Store) -> bool:
        if not self._follows:
            return True
        self._look(store)
        return self._was_open

    def _look(self, store: Store) -> None:
        self._was_open = self._was_open or (store.cluster.uuid != "" and not store.cluster.moved)

    # --- moving

    async def _run(self) -> None:
        attempt = 0
        while True:
            url = await self._told()
            if self._was_open and not self._announces:
                await asyncio.sleep(READERS_LATER_S)
            try:
                await self._go(url)
                attempt = 0
            except (FairleadError, TimeoutError) as error:
                log.warning("not gone along with the registry yet", to=url, why=str(error) or "out of sight")
                self._hide()
            await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
            attempt += 1

    def _hide(self) -> None:
        """Others go on in a place that we do not see: what we have is stale from now on."""
        if self.now.cluster.moved:
            self._was_open = False
            self._lose()

    def _lose(self) -> None:
        if self._sights is not None:
            last = self._sights.value
            out_of_sight = Sight(in_sight=False, cluster=last.cluster, revision=last.revision, folders=last.folders)
            self._sights.set(out_of_sight)

    async def _told(self) -> str:
        """Where the registry has moved to, once it has."""
        async for connection in self.now.connection.changes():
            if connection.in_sight:
                if self.now.cluster.moved:
                    break
                self._was_open = True
        return self.now.cluster.moved

    async def _go(self, url: str) -> None:
        """Raises FairleadError or TimeoutError: then we stay, for now."""
        target = self._reopen(url)
        try:
            async with asyncio.timeout(IN_SIGHT_S), aclosing(target.connection.changes()) as connections:  # type: ignore[type-var]  # see above
                await anext(c async for c in connections if c.in_sight)
            self._check_goes_on(target, url)
        except BaseException:
            await target.close()
            raise
        self._swap(target, url)

    def _check_goes_on(self, target: Store, url: str) -> None:
        if target.cluster.uuid != self.now.cluster.uuid:
            raise Refused(f"{url} is another cluster, {target.cluster.uuid}")
        if self.now.cluster.moved != url:
            raise Refused("it has moved back meanwhile")

    def _swap(self, target: Store, url: str) -> None:
        old, self.now = self.now, target
        self._moved_s = _clock_s()
        self._was_open = not target.cluster.moved
        metrics.moves.inc()
        log.info("gone along with the registry", to=url, cluster=target.cluster.uuid)
        self._left.append(old)
        self._spawn(self._leave(old))
        self._pump_anew()
        old.connection.touch()  # who waits for its changes looks again, at the new one's

    def _pump_anew(self) -> None:
        if self._sights is not None and self._sight_pump is not None:
            self._sight_pump.cancel()
            self._lose()
            self._sight_pump = self._spawn(self._pump_sights(self._sights))
        for folder, followed in self._folders.items():
            if followed.pump is not None:
                followed.pump.cancel()
            followed.pump = self._spawn(self._pump_folder(folder, followed))

    async def _leave(self, store: Store) -> None:
        await asyncio.sleep(LINGER_S)
        self._left.remove(store)
        await store.close()

    def _spawn(self, body: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(body)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            for cell in (self._sights, *(followed.cell for followed in self._folders.values())):
                if cell is not None:
                    cell.touch()


def _names_a_version(op: AnyOp) -> bool:
    """Epochs aside: they are never given twice, in whichever registry."""
    match op:
        case Check(path=path, version=version):
            return version >= 0 and not path.startswith(f"{paths.EPOCHS}/")
        case Set(expect=expect) | Drop(expect=expect):
            return expect >= 0
        case _:
            return False


def _clock_s() -> float:
    return asyncio.get_running_loop().time()


async def _end(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])

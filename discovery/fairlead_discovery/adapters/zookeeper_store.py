"""A Store on ZooKeeper. A commit is one multi: the cluster is ours, the epoch is current, the clock ticks, the changes."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress

import msgspec

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Conflict, FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.adapters.zookeeper import (
    Client,
    Insert,
    Replace,
    Step,
    StepRefused,
    Watch,
    Znode,
)
from fairlead_discovery.adapters.zookeeper_feeds import ClockFeed, FolderFeed
from fairlead_discovery.adapters.zookeeper_place import Place, parse_place
from fairlead_discovery.adapters.zookeeper_session import Session
from fairlead_discovery.decisions.ops import AnyOp, Check, Drop, Make, Set
from fairlead_discovery.records import SCHEMA, Cluster, decode, encode, rewritten
from fairlead_discovery.registry import ANY, Node, Sight
from fairlead_discovery.store import Outcome, check_usable, check_writable

log = Log("discovery")
BACKOFF = Backoff(first_s=0.1, most_s=2.0)
BLINK_S = 1.0
"""How long a request waits for the connection to come back before it is refused."""
TRIES = 5
"""Others may make or remove a node between our look and our transaction; nothing is done then, so we look again."""
REBASE_AT = 2**30
"""A version has 31 bits; before they are full the base takes them over."""
TIDY_S = 2.0
"""Empty service folders are removed so long after their last member."""


def open_store(place: str) -> "ZooKeeperStore":
    return ZooKeeperStore(parse_place(place))


class ZooKeeperStore:
    """See store.Store."""

    def __init__(self, place: Place) -> None:
        self._session = Session(self, place.name)
        self.connection = self._session.connection
        self.cluster = Cluster(uuid="")
        self.admin = False
        self.client = Client(place, self._session.link_changed)
        self._root = place.root
        self._place = place.name
        self._cluster_version = -1
        self._folders_known: set[str] = set()
        self._clock: ClockFeed | None = None
        self._folders: dict[str, FolderFeed] = {}
        self._emptied: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def full(self, path: str) -> str:
        return f"{self._root}{path}" if path != "/" else self._root or "/"

    # --- Store: writing

    async def multi(self, ops: Sequence[AnyOp], *, clocked: bool = False) -> Outcome:
        await self._in_sight()
        for attempt in range(TRIES):
            check_writable(self.cluster, place=self._place, admin=self.admin)
            head = self._head(clocked=clocked)
            steps, skipped = await self._steps(ops, guess=attempt == 0)
            try:
                results = await self.client.transact((*head, *steps))
            except StepRefused as error:
                await self._may_try_again(error, head, steps, ops)
                continue
            self._folders_emptied(ops)
            ticks = int(results[len(head) - 1]) if clocked else 0
            revision = self.cluster.base + ticks if clocked else 0
            if ticks >= REBASE_AT:
                self._spawn(self._rebase)
            tail = iter(results[len(head) :])
            return Outcome(revision, tuple(0 if i in skipped else self._cut(next(tail)) for i in range(len(ops))))
        raise Conflict(f"{ops[0].path if ops else paths.REVISION}: changed under our hands {TRIES} times")

    def _head(self, *, clocked: bool) -> tuple[Step, ...]:
        """It is our cluster, its record is as we know it (open to us, with that base), and the clock ticks."""
        whose = (
            Check(path=self.full(paths.CLUSTER), version=self._cluster_version),
            Check(path=self._mark(self.cluster.uuid)),
        )
        return (*whose, Replace(self.full(paths.REVISION), b"")) if clocked else whose

    async def _steps(self, ops: Sequence[AnyOp], *, guess: bool) -> tuple[tuple[Step, ...], frozenset[int]]:
        """What ZooKeeper has no operation for is decided by what is there now. Also: indices of what need not be done.

        `guess`: what is made once and removed once is taken to be as it should, which saves a round trip.
        """
        guessed = {op.path: isinstance(op, Drop) for op in reversed(ops) if guess and _once(op.path)}
        there = await self._which_exist([op for op in ops if op.path not in guessed]) | guessed
        steps: list[Step] = []
        skipped: set[int] = set()
        for index, op in enumerate(ops):
            path = self.full(op.path)
            match op:
                case Set(data=data, expect=expect) if expect >= 0 or (expect == ANY and there[op.path]):
                    steps.append(Replace(path, data, expect))
                case Set(data=data):
                    steps.append(Insert(path, data))
                case Drop(missing_ok=True) if not there[op.path]:
                    skipped.add(index)
                case Drop(expect=expect):
                    steps.append(Drop(path=path, expect=expect))
                case Make(data=data, sequential=sequential):
                    steps.append(Make(path=path, data=data, sequential=sequential))
                case Check(version=version):
                    steps.append(Check(path=path, version=version))
            there[op.path] = not isinstance(op, Drop)
        await self._ensure({s.path.rpartition("/")[0] for s in steps if isinstance(s, Insert | Make)})
        return tuple(steps), frozenset(skipped)

    async def _which_exist(self, ops: Sequence[AnyOp]) -> dict[str, bool]:
        asked = {o.path for o in ops if isinstance(o, Set) and o.expect == ANY}
        asked |= {o.path for o in ops if isinstance(o, Drop) and o.missing_ok}
        found = await asyncio.gather(*(self.client.stat(self.full(path)) for path in asked))
        return {path: node is not None for path, node in zip(asked, found, strict=True)}

    async def _ensure(self, folders: set[str]) -> None:
        for folder in sorted(folders - self._folders_known):
            segments = folder.split("/")[1:]
            for depth in range(1, len(segments) + 1):
                path = "/" + "/".join(segments[:depth])
                if path not in self._folders_known:
                    await self.client.create(path)
                    self._folders_known.add(path)

    async def _may_try_again(
        self, error: StepRefused, head: Sequence[Step], steps: Sequence[Step], ops: Sequence[AnyOp]
    ) -> None:
        """Returns when the refusal came of an outdated look of ours; else raises Conflict."""
        if error.index < len(head):
            before = self.cluster.uuid
            await self.refresh_cluster()
            if self.cluster.uuid != before:
                raise Conflict(f"{self._place} is another cluster now, {self.cluster.uuid}") from error
            return
        step = steps[error.index - len(head)]
        guessed = {self.full(o.path) for o in ops if isinstance(o, Set) and o.expect == ANY}
        guessed |= {self.full(o.path) for o in ops if isinstance(o, Drop) and o.missing_ok}
        if error.missing and isinstance(step, Insert | Make):
            folder = step.path.rpartition("/")[0]
            self._folders_known = {known for known in self._folders_known if not folder.startswith(known)}
        elif step.path not in guessed or not (error.missing or error.exists):
            raise Conflict(str(error)) from error

    def _cut(self, result: int | str) -> int | str:
        return result[len(self._root) :] if isinstance(result, str) else result

    def _folders_emptied(self, ops: Sequence[AnyOp]) -> None:
        folders = {op.path.rpartition("/")[0] for op in ops if isinstance(op, Drop)}
        emptied = {f for f in folders if f.rpartition("/")[0] in paths.NESTED}
        if emptied and not self._emptied:
            self._spawn(self._tidy)
        self._emptied |= emptied

    async def _tidy(self) -> None:
        """Removes service folders without members; a race with a new member is lost by us, or noticed by its writer."""
        await asyncio.sleep(TIDY_S)
        await self._remove_emptied()

    async def _remove_emptied(self) -> None:
        folders, self._emptied = self._emptied, set()
        for folder in folders:
            path = self.full(folder)
            node = await self.client.stat(path)
            if node is not None and not node.children and await self.client.delete(path):
                self._folders_known.discard(path)

    async def _rebase(self) -> None:
        """The base takes over what the clock's version counts. The revision stays what it is."""
        node = await self.client.get(self.full(paths.REVISION))
        record = await self.client.get(self.full(paths.CLUSTER))
        if node is None or record is None or node.version < REBASE_AT:
            return
        before = decode(Cluster, record.data, place=paths.CLUSTER)
        cluster = msgspec.structs.replace(before, base=before.base + node.version)
        steps: tuple[Step, ...] = (
            Replace(self.full(paths.CLUSTER), rewritten(record.data, cluster), record.version),
            Drop(path=self.full(paths.REVISION), expect=node.version),
            Insert(self.full(paths.REVISION), b""),
        )
        try:
            await self.client.transact(steps)
        except Conflict:
            return  # somebody committed meanwhile: the next commit tries again
        log.info("revision rebased", base=cluster.base)
        await self.refresh_cluster()

    # --- Store: reading

    async def get(self, path: str) -> Node | None:
        await self._in_sight()
        node = await self.client.get(self.full(path))
        return None if node is None or (not node.data and node.children) else node_of(node)

    async def names(self, folder: str) -> tuple[str, ...]:
        await self._in_sight()
        return tuple(sorted(await self.client.children(self.full(folder)) or ()))

    async def owned(self, folder: str) -> tuple[str, ...]:
        names = await self.names(folder)
        nodes = await asyncio.gather(*(self.client.stat(self.full(f"{folder}/{name}")) for name in names))
        session = self.connection.value.session
        return tuple(
            name for name, node in zip(names, nodes, strict=True) if node is not None and node.owner == session
        )

    async def sights(self) -> AsyncIterator[Sight]:
        if self._clock is None:
            self._clock = ClockFeed(self)
        async for sight in self._clock.cell.changes():
            yield sight

    async def follow(self, folder: str) -> AsyncIterator[Mapping[str, Node]]:
        feed = self._folders.get(folder)
        if feed is None:
            feed = self._folders[folder] = FolderFeed(self, folder)
        feed.users += 1
        try:
            async for nodes in feed.cell.changes():
                if nodes is not None:
                    yield nodes
        finally:
            feed.users -= 1
            if not feed.users:
                self._folders.pop(folder, None)
                await feed.close()

    async def renew(self) -> None:
        await self.refresh_cluster()

    async def close(self) -> None:
        feeds = [*self._folders.values(), *([self._clock] if self._clock is not None else [])]
        await asyncio.gather(*(feed.close() for feed in feeds))
        if self._emptied and self.connection.value.in_sight:  # an announcer's last act may be to withdraw
            with suppress(FairleadError, TimeoutError):
                async with asyncio.timeout(TIDY_S):
                    await self._remove_emptied()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        await self.client.close()

    def _mark(self, cluster: str) -> str:
        """A node that only this cluster has: a new one's record may well have the same version."""
        return self.full(f"{paths.CLUSTER}/{paths.escape(cluster)}")

    async def refresh_cluster(self, watch: Watch | None = None) -> None:
        """Reads whose registry this is; makes it one when it is none yet. Raises Refused when we must not use it."""
        path = self.full(paths.CLUSTER)
        while (node := await self.client.get(path, watch)) is None:
            self._folders_known.clear()
            await self._ensure({self.full(p) for p in (paths.ROOT, paths.EPOCHS, *paths.CLOCKED)})
            cluster = Cluster(uuid=str(uuid.uuid4()), schema=SCHEMA, epoch_base=int(time.time()))
            with suppress(Conflict):  # another client makes it at this moment
                await self.client.transact((Insert(path, encode(cluster)), Insert(self._mark(cluster.uuid), b"")))
                log.info("new registry", cluster=cluster.uuid, place=self._place)
        if await self.client.stat(self.full(paths.REVISION)) is None:  # who may only read must not try
            await self.client.create(self.full(paths.REVISION))
        cluster = decode(Cluster, node.data, place=path)
        if not node.children:  # written by hand, or by a copy
            await self.client.create(self._mark(cluster.uuid))
        check_usable(cluster, place=self._place, admin=self.admin)
        self.cluster, self._cluster_version = cluster, node.version

    async def look_again(self, watch: Watch) -> None:
        """The record of our cluster after a change. That it is another cluster, the next commit must find out: what it
        was to write was decided for ours.
        """
        path = self.full(paths.CLUSTER)
        node = await self.client.get(path, watch)
        cluster = decode(Cluster, node.data, place=path) if node is not None else None
        if node is not None and cluster is not None and cluster.uuid == self.cluster.uuid:
            check_usable(cluster, place=self._place, admin=self.admin)
            self.cluster, self._cluster_version = cluster, node.version

    # --- the connection

    def hide(self, why: str = "") -> None:
        if self._clock is not None:
            self._clock.lose(why)

    def forget_folders(self) -> None:
        self._folders_known.clear()

    async def _in_sight(self) -> None:
        if self.connection.value.in_sight:
            return
        try:
            async with asyncio.timeout(BLINK_S):
                async for connection in self.connection.changes():
                    if connection.in_sight:
                        return
        except TimeoutError as error:
            raise Unavailable(f"{self._place} is out of sight") from error

    def _spawn(self, body: Callable[[], Coroutine[None, None, None]]) -> "asyncio.Task[None]":
        async def quiet() -> None:
            try:
                await body()
            except FairleadError as error:
                log.debug("put off", why=str(error))

        task = asyncio.get_running_loop().create_task(quiet())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _once(path: str) -> bool:
    """Members and leaving records: hardly ever is one written that is there, or removed that is not."""
    folder = path.rpartition("/")[0]
    return folder == paths.LEAVING or folder.rpartition("/")[0] in paths.NESTED


def node_of(node: Znode) -> Node:
    return Node(node.data, node.version, bool(node.owner))

"""Reading on ZooKeeper: the clocked tree as sights of one revision, and folders of documents.

A sight of revision R must hold every commit up to R. ZooKeeper shows a client no change before the watch event
about it; so when the answer to "which revision?" comes, all that changed up to it has been marked. What is marked
then is read again, and with that the sight is whole.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.adapters.zookeeper import Client, Watch, Znode
from fairlead_discovery.announcing import first
from fairlead_discovery.decisions.pace import REST_S, rest_s
from fairlead_discovery.records import Cluster
from fairlead_discovery.registry import Folder, Node, Sight
from fairlead_discovery.store import Cell, Connection

log = Log("discovery")
JITTER_S = 0.3
"""After a reconnect all readers of a ZooKeeper come back at once; they spread over so much."""
TRIES = 20
"""So often a folder is read again whose nodes were gone before they could be read."""
AT_ONCE = 64
"""Reads under way at a time."""
BACKOFF = Backoff(first_s=0.1, most_s=2.0)


class Base(Protocol):
    """What feeds need of the store."""

    connection: Cell[Connection]
    cluster: Cluster
    client: Client

    def full(self, path: str) -> str:
        """With the chroot."""
        ...

    async def refresh_cluster(self, watch: Watch | None = None) -> None: ...


class Feed:
    """One task that reads whenever something is marked, and all of it in each new connection."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.wake = asyncio.Event()
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._connections = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def forget(self) -> None:
        """All watches are gone: everything is to be read again."""
        raise NotImplementedError

    async def read(self) -> None:
        raise NotImplementedError

    def lose(self) -> None:
        """Out of sight."""

    async def _run(self) -> None:
        while True:
            await self._in_sight()
            if self._connections:
                await asyncio.sleep(random.random() * JITTER_S)  # noqa: S311  # jitter
            self._connections += 1
            self.forget()
            self.wake.set()
            await self._while_connected(self.base.connection.value)
            self.lose()

    async def _in_sight(self) -> None:
        async for connection in self.base.connection.changes():
            if connection.in_sight:
                return

    async def _while_connected(self, connection: Connection) -> None:
        attempt = 0
        rested_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            changed = self.base.connection.changed
            if self.base.connection.value != connection:
                return
            await first(changed, self.wake)
            if not self.wake.is_set():
                continue
            await asyncio.sleep(max(0.0, rested_s - loop.time()))
            self.wake.clear()
            start_s = loop.time()
            try:
                await self.read()
                attempt = 0
            except FairleadError as error:
                log.debug("registry not read", why=str(error))
                if isinstance(error, Refused):
                    self.lose()  # closed to us: what we know is no longer known to be true
                self.wake.set()
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
            rested_s = loop.time() + rest_s(loop.time() - start_s)

    async def node(self, path: str, watch: Watch | None) -> Znode | None:
        async with self._limit:
            return await self.base.client.get(self.base.full(path), watch)

    async def children(self, folder: str, watch: Watch) -> tuple[str, ...] | None:
        async with self._limit:
            return await self.base.client.children(self.base.full(folder), watch)

    async def appeared(self, folder: str, watch: Watch) -> bool:
        """Whether a folder that was missing just now has been made meanwhile; watches for that, if not."""
        return await self.base.client.stat(self.base.full(folder), watch) is not None

    async def each(self, work: Callable[[str], Awaitable[None]], items: Iterable[str]) -> None:
        await all_of(*map(work, items))


async def all_of(*work: Awaitable[Any]) -> list[Any]:
    """All at once. Raises the first error after all have ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _folders_of(taken: Iterable[str]) -> set[str]:
    return {folder for folder in taken if paths.clocked_folder(f"{folder}/x") == folder}


class Documents:
    """The nodes of one folder: known, marked, read again."""

    def __init__(self, feed: Feed, folder: str, *, immutable: bool, mark: Watch) -> None:
        """`mark` is called when something changed. Nodes that are `immutable` are read once and not watched."""
        self.nodes: dict[str, Node] = {}
        self._feed = feed
        self._folder = folder
        self._immutable = immutable
        self._mark = mark
        self._names: tuple[str, ...] = ()
        self._stale: set[str] = set()

    def forget(self) -> None:
        if not self._immutable:
            self._stale.update(self.nodes)

    async def read(self) -> bool:
        """Brings `nodes` up to date: a new mapping when something changed. False when there is no such folder."""
        there = await self.read_names()
        await self.read_nodes()
        return there

    async def read_names(self) -> bool:
        names = await self._feed.children(self._folder, self._mark)
        self._names = names or ()
        return names is not None

    async def read_nodes(self) -> bool:
        """What `read_names` found, as far as it is not known yet. False when some of it is gone: what came in its
        place is not known then, before the names have been read again.
        """
        names = self._names
        gone = self.nodes.keys() - set(names)
        self._stale -= gone
        wanted = [n for n in names if n not in self.nodes or n in self._stale]
        fresh: dict[str, Node] = {}
        missing: set[str] = set()
        vanished = False

        async def one(name: str) -> None:
            nonlocal vanished
            watch = None if self._immutable else self._watch(name)
            node = await self._feed.node(f"{self._folder}/{name}", watch)
            vanished = vanished or node is None
            if node is None or (not node.data and node.children):
                missing.add(name)  # gone meanwhile, or a mere folder
            else:
                fresh[name] = Node(node.data, node.version)

        self._stale -= set(wanted)  # before they are read: what changes meanwhile is marked again
        try:
            await self._feed.each(one, wanted)
        except BaseException:
            self._stale.update(self.nodes.keys() & set(wanted))
            raise
        after = {name: node for name, node in self.nodes.items() if name not in gone and name not in missing} | fresh
        if after != self.nodes:
            self.nodes = after
        return not vanished

    def _watch(self, name: str) -> Watch:
        def watched() -> None:
            self._stale.add(name)
            self._mark()

        return watched


class FolderFeed(Feed):
    """`follow`: the nodes of a folder with their versions."""

    def __init__(self, base: Base, folder: str) -> None:
        self.cell: Cell[Mapping[str, Node] | None] = Cell(None)
        self.users = 0
        self._folder = folder
        super().__init__(base)
        self._documents = Documents(self, folder, immutable=False, mark=self.wake.set)

    def forget(self) -> None:
        self._documents.forget()

    async def read(self) -> None:
        if not await self._documents.read() and await self.appeared(self._folder, self.wake.set):
            self.wake.set()
        nodes = self._documents.nodes
        if self.cell.value is None or nodes != self.cell.value:
            self.cell.set(nodes)


class ClockFeed(Feed):
    """`watch`: sights of the clocked tree."""

    def __init__(self, base: Base) -> None:
        self.cell = Cell(Sight(in_sight=False))
        self._dirty: set[str] = set()
        self._folders: dict[str, Documents] = {}
        self._data: dict[str, tuple[Mapping[str, Node], Folder]] = {}
        """What a folder's nodes were turned into: the same object as long as they are."""
        self._cluster_dirty = True
        self._ticked = False
        """The clock has ticked since we were told its time last."""
        self._asked = 0
        super().__init__(base)

    def forget(self) -> None:
        self._cluster_dirty = True
        self._dirty = {*paths.CLOCKED, *self._folders}
        for documents in self._folders.values():
            documents.forget()

    def lose(self) -> None:
        last = self.cell.value
        if last.in_sight:
            self.cell.set(Sight(in_sight=False, cluster=last.cluster, revision=last.revision, folders=last.folders))

    async def read(self) -> None:
        """Names are asked for right behind the revision, before it is known: ZooKeeper answers in order, so they are
        no older. What was marked until the revision's answer came, and not asked for by then, is read after it.
        """
        taken, self._dirty = self._dirty, set()
        late: set[str] = set()
        try:
            revision, _ = await all_of(self._revision(), self._read_names(taken))
            late, self._dirty = self._dirty, set()
            if not self._ticked:
                self.wake.clear()
            await self._read_names(late)
            await self._read_nodes(taken | late)
        except BaseException:
            self._dirty |= taken | late
            raise
        folders = {folder: self._view(folder) for folder, documents in self._folders.items() if documents.nodes}
        if self.base.connection.value.in_sight:
            self.cell.set(Sight(in_sight=True, cluster=self.base.cluster.uuid, revision=revision, folders=folders))

    async def _revision(self) -> int:
        """Base and version belong together: a rebase changes both, and its watch event comes first."""
        while True:
            if self._cluster_dirty:
                self._cluster_dirty = False
                try:
                    await self.base.refresh_cluster(self._mark_cluster)
                except FairleadError:
                    self._cluster_dirty = True
                    raise
            node = await self.base.client.get(self.base.full(paths.REVISION), self._clock_watch())
            if node is None:
                self._cluster_dirty = True  # a cluster without a clock is being made, or unmade
                await asyncio.sleep(REST_S)
            elif not self._cluster_dirty:
                return self.base.cluster.base + node.version

    def _clock_watch(self) -> Watch:
        """Its event is news only until we ask again: the answer then tells more."""
        self._asked += 1
        self._ticked = False
        mine = self._asked

        def ticked() -> None:
            if mine == self._asked:
                self._ticked = True
                self.wake.set()

        return ticked

    async def _read_names(self, taken: set[str]) -> None:
        """Adds the folders it finds on its way to `taken`."""
        await self.each(self._read_root, [root for root in paths.NESTED if root in taken])
        found = {folder for folder in self._dirty if folder.rpartition("/")[0] in paths.NESTED}
        self._dirty -= found
        taken |= found
        await self.each(self._read_folder_names, _folders_of(taken) - {paths.LEAVING})

    async def _read_nodes(self, taken: set[str]) -> None:
        folders = [folder for folder in _folders_of(taken) - {paths.LEAVING} if folder in self._folders]
        if not taken:
            return
        *again, _ = await all_of(*map(self._read_folder_nodes, folders), self._read_leaving())
        if any(again):
            await self._read_leaving()

    async def _read_folder_nodes(self, folder: str) -> bool:
        """Whether names had to be read again: a service whose only member was replaced meanwhile is not empty."""
        for tries in range(TRIES):
            if folder not in self._folders or await self._folders[folder].read_nodes():
                return tries > 0
            await self._read_folder_names(folder)
        raise Unavailable(f"{folder} changes faster than it can be read")

    async def _read_leaving(self) -> None:
        """After all other names: whoever is missed there is in it by now, for a record comes in the commit that takes
        away.
        """
        self._dirty.discard(paths.LEAVING)
        await self._read_folder_names(paths.LEAVING)
        await self._folders[paths.LEAVING].read_nodes()  # a record that is gone has no successor

    async def _read_root(self, root: str) -> None:
        names = await self._children(root)
        known = {folder for folder in self._folders if folder.startswith(f"{root}/")}
        now = {f"{root}/{name}" for name in names}
        for folder in known - now:
            self._forget_folder(folder)
        self._dirty |= now - known

    def _forget_folder(self, folder: str) -> None:
        self._folders.pop(folder, None)
        self._data.pop(folder, None)

    async def _children(self, root: str) -> tuple[str, ...]:
        names = await self.children(root, self._marker(root))
        if names is None and await self.appeared(root, self._marker(root)):
            return await self._children(root)
        return names or ()

    async def _read_folder_names(self, folder: str) -> None:
        documents = self._folders.get(folder)
        if documents is None:
            immutable = folder.rpartition("/")[0] in paths.NESTED
            documents = Documents(self, folder, immutable=immutable, mark=self._marker(folder))
            self._folders[folder] = documents
        if await documents.read_names():
            return
        if folder not in paths.CLOCKED:
            self._forget_folder(folder)  # it has no watch: its root's must find it anew, should it come back
        elif await self.appeared(folder, self._marker(folder)):
            self._marker(folder)()

    def _view(self, folder: str) -> Folder:
        nodes = self._folders[folder].nodes
        known = self._data.get(folder)
        if known is None or known[0] is not nodes:
            known = self._data[folder] = (nodes, {name: node.data for name, node in nodes.items()})
        return known[1]

    def _marker(self, folder: str) -> Watch:
        def mark() -> None:
            self._dirty.add(folder)
            self.wake.set()

        return mark

    def _mark_cluster(self) -> None:
        self._cluster_dirty = True
        self.wake.set()

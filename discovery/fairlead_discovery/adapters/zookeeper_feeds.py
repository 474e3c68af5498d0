"""Reading on ZooKeeper: the clocked tree as sights of one revision, and folders of documents.

A sight of revision R must hold every commit up to R. ZooKeeper shows a client no change before the watch event
about it; so when the answer to "which revision?" comes, all that changed up to it has been marked. What is marked
then is read again, and with that the sight is whole.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.adapters.zookeeper import Client, Closed, Watch, Znode
from fairlead_discovery.adapters.zookeeper_folders import Documents, Members, all_of, each
from fairlead_discovery.announcing import first
from fairlead_discovery.decisions.delta import Delta
from fairlead_discovery.decisions.pace import REST_S, Answers, of_registry_s, rest_s
from fairlead_discovery.decisions.sharing import Shared
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
LOOK_AGAIN_S = 5.0
"""A node that we may not read is asked for again so often: a change of its ACL is no event."""


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
        self._warned: frozenset[str] = frozenset()
        self._barred = ""
        """What was warned of last because all depends on it."""
        self._later: asyncio.TimerHandle | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._later is not None:
            self._later.cancel()
        self._task.cancel()
        await asyncio.wait([self._task])

    def forget(self) -> None:
        """All watches are gone: everything is to be read again."""
        raise NotImplementedError

    async def read(self) -> None:
        raise NotImplementedError

    def lose(self, why: str = "") -> None:
        """Out of sight. `why`: the connection stands, but what all depends on cannot be read."""

    def mark_closed(self) -> None:
        """What could not be read for its ACL is to be read again."""

    def tell_closed(self, closed: Mapping[str, str]) -> None:
        """Each once."""
        for path in sorted(closed.keys() - self._warned):
            log.warning("node not readable, it is left out", path=path, why=closed[path])
        for path in sorted(self._warned - closed.keys()):
            log.info("node readable again, or gone", path=path)
        self._warned = frozenset(closed)
        if closed and self._later is None:
            self._later = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._later = None
        self.mark_closed()
        self.wake.set()

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
        rested_s = look_s = 0.0
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
            start_s, client = loop.time(), self.base.client
            answers, answers_s = client.answers, client.answers_s
            try:
                await self.read()
                attempt, self._barred = 0, ""
            except Exception as error:  # noqa: BLE001  # a feed that ended would leave its readers standing, unnoticed
                self._not_read(error)
                self.wake.set()
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
            found = Answers(client.answers - answers, client.answers_s - answers_s)
            before_s, look_s = look_s, of_registry_s(loop.time() - start_s, found)
            rested_s = loop.time() + rest_s(look_s, before_s)

    def _not_read(self, error: Exception) -> None:
        if isinstance(error, Unavailable):
            log.debug("registry not read", why=str(error))
            return
        self.lose(str(error))  # closed to us, or a bug: what we know is no longer known to be true
        if isinstance(error, Closed) and str(error) != self._barred:
            self._barred = str(error)
            log.warning("registry not readable", why=str(error))
        elif isinstance(error, FairleadError):
            log.debug("registry not read", why=str(error))
        else:
            log.error("registry not read", why=repr(error))

    async def node(self, path: str, watch: Watch | None) -> Znode | None:
        async with self._limit:
            return await self.base.client.get(self.base.full(path), watch)

    async def many(self, paths: Sequence[str]) -> Sequence[bytes | Closed | None]:
        async with self._limit:
            return await self.base.client.get_many([*map(self.base.full, paths)])

    async def children(self, folder: str, watch: Watch) -> tuple[str, ...] | None:
        async with self._limit:
            return await self.base.client.children(self.base.full(folder), watch)

    async def appeared(self, folder: str, watch: Watch) -> bool:
        """Whether a folder that was missing just now has been made meanwhile; watches for that, if not."""
        return await self.base.client.stat(self.base.full(folder), watch) is not None


def _folders_of(taken: Iterable[str]) -> set[str]:
    return {folder for folder in taken if paths.clocked_folder(f"{folder}/x") == folder}


class FolderFeed(Feed):
    """`follow`: the nodes of a folder with their versions."""

    def __init__(self, base: Base, folder: str) -> None:
        self.cell: Cell[Mapping[str, Node] | None] = Cell(None)
        self.users = 0
        self._folder = folder
        super().__init__(base)
        self._documents = Documents(self, folder, self.wake.set)

    def forget(self) -> None:
        self._documents.forget()

    async def read(self) -> None:
        if not await self._documents.read() and await self.appeared(self._folder, self.wake.set):
            self.wake.set()
        self.tell_closed(self._documents.closed)
        nodes = self._documents.nodes
        if self.cell.value is None or nodes != self.cell.value:
            self.cell.set(nodes)


class ClockFeed(Feed):
    """`watch`: sights of the clocked tree."""

    def __init__(self, base: Base) -> None:
        self.cell = Cell(Sight(in_sight=False))
        self._dirty: set[str] = set()
        self._folders: dict[str, Documents | Members] = {}
        self._closed: dict[str, Mapping[str, str]] = {}
        """By folder: what we may not read of it."""
        self._cluster_dirty = True
        self._ticked = False
        """The clock has ticked since we were told its time last."""
        self._asked = 0
        self._read: set[str] = set()
        """Folders that were read, or went, since the last sight."""
        self._committed_s = 0.0
        super().__init__(base)

    def forget(self) -> None:
        self._cluster_dirty = True
        self._dirty = {*paths.CLOCKED, *self._folders}
        for documents in self._folders.values():
            documents.forget()

    def lose(self, why: str = "") -> None:
        last = self.cell.value
        if last.in_sight or last.why != why:
            self.cell.set(replace(last, in_sight=False, why=why, delta=None))

    def mark_closed(self) -> None:
        self._dirty.update(self._closed)

    async def read(self) -> None:
        """Names are asked for right behind the revision, before it is known: ZooKeeper answers in order, so they are
        no older. What was marked until the revision's answer came, and not asked for by then, is read after it.
        """
        taken, self._dirty = self._dirty, set()
        late: set[str] = set()
        try:
            revision, _ = await all_of(self._revision(), self._read_names(taken))
            late, self._dirty = self._dirty, set()
            if not self._ticked and not self._cluster_dirty:
                self.wake.clear()
            await self._read_names(late)
            await self._read_nodes(taken | late)
        except BaseException:
            self._dirty |= taken | late
            raise
        if self.base.connection.value.in_sight:
            folders, delta = self._seen()
            unreadable = {path: why for closed in self._closed.values() for path, why in closed.items()}
            self.tell_closed(unreadable)
            uuid = self.base.cluster.uuid
            self.cell.set(
                Sight(
                    in_sight=True,
                    cluster=uuid,
                    revision=revision,
                    folders=folders,
                    committed_s=self._committed_s,
                    delta=delta,
                    unreadable=unreadable,
                )
            )

    def _seen(self) -> tuple[Mapping[str, Folder], Delta]:
        """All folders, and which of them differ from the last sight's."""
        last = self.cell.value.folders
        read, self._read = self._read, set()
        self._note_closed(read)
        now = {folder: self._folders[folder].data if folder in self._folders else {} for folder in read}
        changed = {folder: data for folder, data in now.items() if (data or None) is not last.get(folder)}
        if not changed:
            return last, Delta(last, frozenset())
        there = {folder: data for folder, data in changed.items() if data}
        folders = Shared.of(last).changed(there, changed.keys() - there.keys())
        return folders, Delta(last, frozenset(changed))

    def _note_closed(self, read: Iterable[str]) -> None:
        for folder in read:
            self._closed.pop(folder, None)
            if folder in self._folders and self._folders[folder].closed:
                self._closed[folder] = self._folders[folder].closed

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
                self._committed_s = node.changed_s
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
        await each(self._read_root, [root for root in paths.NESTED if root in taken])
        found = {folder for folder in self._dirty if folder.rpartition("/")[0] in paths.NESTED}
        self._dirty -= found
        taken |= found
        await each(self._read_folder_names, _folders_of(taken) - {paths.LEAVING})

    async def _read_nodes(self, taken: set[str]) -> None:
        """The leaving records too, when they have changed or somebody is missed: what only came has none."""
        folders = _folders_of(taken) - {paths.LEAVING}
        self._read |= folders
        there = [self._folders[folder] for folder in folders if folder in self._folders]
        loses = len(there) < len(folders) or any(folder.loses() for folder in there)
        leaving = [self._read_leaving()] if loses or paths.LEAVING in taken | self._dirty else []
        again = await all_of(*map(self._read_folder_nodes, folders), *leaving)
        if any(again):
            await self._read_leaving()

    async def _read_folder_nodes(self, folder: str) -> bool:
        """Whether names had to be read again: a service whose only member was replaced meanwhile is not empty."""
        for tries in range(TRIES):
            if folder not in self._folders or await self._folders[folder].read_nodes():
                return tries > 0
            await self._read_folder_names(folder)
        raise Unavailable(f"{folder} changes faster than it can be read")

    async def _read_leaving(self) -> bool:
        """After all other names: whoever is missed there is in it by now, for a record comes in the commit that takes
        away. Returns False: nothing else is to be read again for it.
        """
        self._dirty.discard(paths.LEAVING)
        self._read.add(paths.LEAVING)
        try:
            await self._read_folder_names(paths.LEAVING)
            await self._folders[paths.LEAVING].read_nodes()  # a record that is gone has no successor
        except BaseException:
            self._dirty.add(paths.LEAVING)
            raise
        return False

    async def _read_root(self, root: str) -> None:
        names = await self._children(root)
        known = {folder for folder in self._folders if folder.startswith(f"{root}/")}
        now = {f"{root}/{name}" for name in names}
        for folder in known - now:
            self._forget_folder(folder)
        self._dirty |= now - known

    def _forget_folder(self, folder: str) -> None:
        self._folders.pop(folder, None)
        self._read.add(folder)

    async def _children(self, root: str) -> tuple[str, ...]:
        names = await self.children(root, self._marker(root))
        if names is None and await self.appeared(root, self._marker(root)):
            return await self._children(root)
        return names or ()

    async def _read_folder_names(self, folder: str) -> None:
        documents = self._folders.get(folder)
        if documents is None:
            kind = Members if folder.rpartition("/")[0] in paths.NESTED else Documents
            documents = self._folders[folder] = kind(self, folder, self._marker(folder))
        if await documents.read_names():
            return
        if folder not in paths.CLOCKED:
            self._forget_folder(folder)  # it has no watch: its root's must find it anew, should it come back
        elif await self.appeared(folder, self._marker(folder)):
            self._marker(folder)()

    def _marker(self, folder: str) -> Watch:
        def mark() -> None:
            self._dirty.add(folder)
            self.wake.set()

        return mark

    def _mark_cluster(self) -> None:
        self._cluster_dirty = True
        self.wake.set()

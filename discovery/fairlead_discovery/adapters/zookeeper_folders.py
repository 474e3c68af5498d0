"""Folders on ZooKeeper as far as they are known: of documents, which change, and of members, which never do."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from fairlead_daemon.errors import Unavailable
from fairlead_discovery.adapters.zookeeper import Closed, Watch, Znode
from fairlead_discovery.registry import Folder, Node

T = TypeVar("T")
CHUNK = 128
"""Members read in one request, at most."""
PROBE = 16
"""So many are read first: their sizes say how many more go into one answer."""
ANSWER_BYTES = 1024 * 1024
"""Of members in one answer, about: ZooKeeper's server has all of it in memory, for each reader, and may die of it."""
CHUNK_BYTES = 256 * 1024
"""Of paths in one request: ZooKeeper drops the connection over one of 1 MiB."""


class Reads(Protocol):
    """What a folder asks of its feed. Paths are without the chroot."""

    async def node(self, path: str, watch: Watch | None) -> Znode | None: ...

    async def many(self, paths: Sequence[str]) -> Sequence[bytes | Closed | None]: ...

    async def children(self, folder: str, watch: Watch) -> tuple[str, ...] | None: ...


class Documents:
    """Nodes that change: each is watched, and read again when it was marked."""

    def __init__(self, feed: Reads, folder: str, mark: Watch) -> None:
        """`mark` is called when something changed."""
        self.nodes: dict[str, Node] = {}
        """A new mapping whenever something changed, as is `data`."""
        self.data: Folder = {}
        self.closed: Mapping[str, str] = {}
        """What we may not read, by path, with the reason. It is asked for again at each read, and in none of the above."""
        self._feed = feed
        self._folder = folder
        self._mark = mark
        self._names: tuple[str, ...] = ()
        self._stale: set[str] = set()

    def forget(self) -> None:
        """All watches are gone."""
        self._stale.update(self.nodes)

    async def read(self) -> bool:
        """Brings `nodes` up to date. False when there is no such folder."""
        there = await self.read_names()
        await self.read_nodes()
        return there

    async def read_names(self) -> bool:
        """False when there is no such folder: then nothing watches it either."""
        names = await self._feed.children(self._folder, self._mark)
        self._names = names or ()
        return names is not None

    def loses(self) -> bool:
        """Whether nodes that we know are not among the names that were read."""
        return not self.nodes.keys() <= set(self._names)

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
        closed: dict[str, str] = {}
        vanished = False

        async def one(name: str) -> None:
            nonlocal vanished
            path = f"{self._folder}/{name}"
            try:
                node = await self._feed.node(path, self._watch(name))
            except Closed as error:
                closed[path] = f"{path}: {error}"
                missing.add(name)
                return
            vanished = vanished or node is None
            if node is None or (not node.data and node.children):
                missing.add(name)  # gone meanwhile, or a mere folder
            else:
                fresh[name] = Node(node.data, node.version)

        self._stale -= set(wanted)  # before they are read: what changes meanwhile is marked again
        try:
            await each(one, wanted)
        except BaseException:
            self._stale.update(self.nodes.keys() & set(wanted))
            raise
        self.closed = closed
        after = {name: node for name, node in self.nodes.items() if name not in gone and name not in missing} | fresh
        if after != self.nodes:
            self.nodes = after
            self.data = {name: node.data for name, node in after.items()}
        return not vanished

    def _watch(self, name: str) -> Watch:
        def watched() -> None:
            self._stale.add(name)
            self._mark()

        return watched


class Members:
    """Nodes whose names say their content: each is read once, many in a request, and none is watched."""

    def __init__(self, feed: Reads, folder: str, mark: Watch) -> None:
        """See Documents, here and below."""
        self.data: Mapping[str, bytes] = {}
        self.closed: Mapping[str, str] = {}
        """See Documents; the folder itself may be among them."""
        self._feed = feed
        self._folder = folder
        self._mark = mark
        self._names: frozenset[str] = frozenset()
        self._shut: Mapping[str, str] = {}
        self._most = CHUNK
        """Fewer in a request after one without an answer: it may have been too much."""

    def forget(self) -> None:
        """What was read stays true; that names have been read before does not."""

    async def read_names(self) -> bool:
        self._shut = {}
        try:
            names = await self._feed.children(self._folder, self._mark)
        except Closed as error:
            self._shut = {self._folder: f"{self._folder}: {error}"}
            names = ()
        self._names = frozenset(names or ())
        return names is not None

    def loses(self) -> bool:
        return not self.data.keys() <= self._names

    async def read_nodes(self) -> bool:
        names = self._names
        known = self.data
        wanted = tuple(names - known.keys())
        self.closed = self._shut
        if not wanted and len(names) == len(known):
            return True
        answers: dict[str, bytes | Closed | None] = {}

        async def some(chunk: Sequence[str]) -> None:
            found = await self._feed.many([f"{self._folder}/{name}" for name in chunk])
            answers.update(zip(chunk, found, strict=True))

        probe = min(PROBE, self._most)
        around_bytes = len(self._folder.encode()) + 64
        try:
            await each(some, chunks(wanted[:probe], most=probe, around_bytes=around_bytes))
            most = min(self._most, _fitting(answers.values()))
            await each(some, chunks(wanted[probe:], most=most, around_bytes=around_bytes))
        except Unavailable:
            self._most = max(1, self._most // 2)
            raise
        self._most = min(CHUNK, 2 * self._most)
        fresh = {name: data for name, data in answers.items() if isinstance(data, bytes)}
        closed = {f"{self._folder}/{name}": error for name, error in answers.items() if isinstance(error, Closed)}
        self.closed = {**self._shut, **{path: f"{path}: {error}" for path, error in closed.items()}}
        after = dict(known)
        for name in known.keys() - names:
            del after[name]
        after.update(fresh)
        if fresh or len(after) != len(known):
            self.data = after
        return len(fresh) + len(closed) == len(wanted)


def _fitting(answers: Iterable[bytes | Closed | None]) -> int:
    """How many more like the largest of them go into one answer."""
    largest = max((len(data) for data in answers if isinstance(data, bytes)), default=0)
    return max(1, min(CHUNK, ANSWER_BYTES // max(1, largest)))


def chunks(names: Sequence[str], *, most: int, around_bytes: int) -> Iterator[Sequence[str]]:
    """Up to `most` names, and CHUNK_BYTES of them and what is `around` each, or one that is longer by itself."""
    start = size = 0
    for index, name in enumerate(names):
        bytes_ = len(name.encode()) + around_bytes
        if index > start and (index - start == most or size + bytes_ > CHUNK_BYTES):
            yield names[start:index]
            start, size = index, 0
        size += bytes_
    if start < len(names):
        yield names[start:]


async def each(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    await all_of(*map(work, items))


async def all_of(*work: Awaitable[Any]) -> list[Any]:
    """All at once. Raises the first error after all have ended."""
    if len(work) == 1:
        return [await work[0]]
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results

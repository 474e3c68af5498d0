"""What a backend must bring. Everything else of the Registry protocol is made of it once, in `composed.py`."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.ops import AnyOp, Result
from fairlead_discovery.records import SCHEMA, Cluster
from fairlead_discovery.registry import Node, Sight

T = TypeVar("T")


class Cell(Generic[T]):
    """A value and its changes. Whoever is slow misses values in between, never the last one."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._changed = asyncio.Event()

    def set(self, value: T) -> None:
        self.value = value
        self.touch()

    def touch(self) -> None:
        """Wakes all who wait, though the value may be the same."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Take it before you look at the value, then nothing is missed."""
        return self._changed

    async def changes(self) -> AsyncIterator[T]:
        """The value at once, then the newest after each change."""
        while True:
            changed = self._changed
            yield self.value
            await changed.wait()


@dataclass(frozen=True, slots=True)
class Connection:
    """`session` is "" until there has been one; it stays while it may still live, in sight or not."""

    in_sight: bool
    session: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`revision` is that of the clock, for a multi with `clocked`; one result for each operation."""

    revision: int
    results: tuple[Result, ...]


class Importing(Refused):
    """An import or a copy into it is under way, or was killed."""


def check_usable(cluster: Cluster, *, place: str, admin: bool) -> None:
    """Raises Refused when this program must not work with that registry at all."""
    if abs(cluster.schema - SCHEMA) > 1:
        known = f"{max(1, SCHEMA - 1)} to {SCHEMA + 1}"
        raise Refused(f"{place} has schema {cluster.schema}, this program works with {known}: upgrade one at a time")
    if cluster.importing and not admin:
        raise Importing(f"{place}: an import into it is not finished ({cluster.importing})")


def check_writable(cluster: Cluster, *, place: str, admin: bool) -> None:
    """Raises Refused when another registry goes on in its place."""
    if cluster.moved and not admin:
        raise Refused(f"{place} has moved to {cluster.moved}, nothing is written here any more")


class Store(Protocol):
    """One session with a node store. Raises the registry's errors: Conflict, Unavailable, Refused."""

    @property
    def connection(self) -> Cell[Connection]:
        """Ask for it again after each change: a store that moves has another one then."""
        ...

    @property
    def cluster(self) -> Cluster:
        """Whose registry it is; its uuid is "" before the first sight."""
        ...

    admin: bool
    """Set by who moves registries: it works also on one that is closed (see records.Cluster)."""

    async def multi(self, ops: Sequence[AnyOp], *, clocked: bool = False) -> Outcome:
        """All or nothing, in one transaction; parents are made. `clocked` raises the revision with it."""
        ...

    async def get(self, path: str) -> Node | None: ...

    async def names(self, folder: str) -> tuple[str, ...]: ...

    async def owned(self, folder: str) -> tuple[str, ...]:
        """Names of this session's own nodes in the folder."""
        ...

    def sights(self) -> AsyncIterator[Sight]: ...

    def follow(self, folder: str) -> AsyncIterator[Mapping[str, Node]]: ...

    async def renew(self) -> None:
        """Learns the cluster's record again, after it was changed by us."""
        ...

    async def close(self) -> None:
        """Ends the session."""
        ...

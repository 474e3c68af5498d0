"""The Registry protocol: where the parts of fairlead meet. Three backends, one contract (tests/contract).

Words: a *clocked* path lies under `paths.CLOCKED`; each `commit` raises the one revision, and a `Sight` of
revision R holds every commit up to R. *Documents* are everything else: versioned, not clocked. An *announcement*
lives as long as its announcer's session; a session outlives its connection by up to 10 s.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fairlead_discovery.decisions.delta import Delta

SESSION_S = 10.0
ANY = -1
"""`expect`: whatever version is there, or none."""
NEW = -2
"""`expect`: there must be no such node."""


@dataclass(frozen=True, slots=True)
class Create:
    """The path must not exist, else Conflict."""

    path: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace."""

    path: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Delete:
    """Absent is Conflict, unless `missing_ok`."""

    path: str
    missing_ok: bool = False


Change = Create | Put | Delete


@dataclass(frozen=True, slots=True)
class Guard:
    """A leadership's number: what it guards is refused (Conflict) once another has been elected."""

    role: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Node:
    data: bytes
    version: int
    passing: bool = False
    """It ends with its maker's session. Told by `read` and `tree.get` only."""


Folder = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a backend sees of the clocked tree, or that it sees it no more.

    `folders` maps a folder's path (`/fairlead/leaving`, `/fairlead/endpoints/<service>` …) to its nodes' names and
    data; empty folders are left out. An unchanged folder is the very same object as in the sight before: readers
    find what changed by identity. With `in_sight` False the rest repeats the last sight (or is empty at first).
    """

    in_sight: bool
    cluster: str = ""
    revision: int = -1
    folders: Mapping[str, Folder] = field(default_factory=dict)
    committed_s: float = field(default=0.0, compare=False)
    """Unix time of the commit that made `revision`, by the registry's clock; 0: it does not say."""
    delta: Delta | None = field(default=None, compare=False, repr=False)
    """Which folders differ from those of the sight before; None: compare them all."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Nodes and folders that are closed to us, by path, with the reason: they are in none of `folders`."""
    why: str = ""
    """Out of sight though the registry answers: what it lets us not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a candidate stands. `leader` is the data of whoever leads, None when nobody is known to."""

    leading: bool
    epoch: int = 0
    leader: bytes | None = None


class Announcement(Protocol):
    """A node that lives as long as our session; made again by the backend in a new session."""

    async def update(self, data: bytes) -> None: ...

    async def end(self) -> None: ...


class Tree(Protocol):
    """Raw access to any path, for people (`registry tree`) and foreign trees (`/mesos`)."""

    async def get(self, path: str) -> Node | None: ...

    async def names(self, path: str) -> tuple[str, ...]:
        """Names of the children, sorted; () when there is no such path."""
        ...


class Registry(Protocol):
    """Raises Unavailable when out of sight, or when a write's outcome is unknown (then re-read: never retry blindly)."""

    tree: Tree

    def watch(self) -> AsyncIterator[Sight]:
        """Sights of the clocked tree: at once, then coalesced at every change; `in_sight` False when lost."""
        ...

    async def commit(self, changes: Sequence[Change], *, guard: Guard | None = None) -> int:
        """All of it or nothing; returns the new revision. An empty commit raises the revision too.

        Raises Conflict (nothing was done), Unavailable (perhaps done), Refused (a node over 512 KiB, named).
        """
        ...

    async def read(self, path: str) -> Node | None: ...

    async def write(self, path: str, data: bytes, *, expect: int = ANY, guard: Guard | None = None) -> int:
        """Create or replace one document (parents are made); returns its version. Raises Conflict."""
        ...

    async def remove(self, path: str, *, expect: int = ANY, guard: Guard | None = None) -> None:
        """Missing is fine with ANY."""
        ...

    def follow(self, folder: str) -> AsyncIterator[Mapping[str, Node]]:
        """Direct children of a folder, names unescaped as they stand in the tree: at once, then coalesced at every
        change. Out of sight nothing comes: the last answer stands.
        """
        ...

    async def announce(self, path: str, data: bytes) -> Announcement: ...

    def campaign(self, role: str, data: bytes, *, candidacy: str = "") -> AsyncIterator[Standing]:
        """Stands for election (lowest sequence of `candidacy`, default paths.election(role), leads); yields at every
        change, also when leadership may be lost (`leading` False as soon as we are out of sight). Closing the
        iterator withdraws.
        """
        ...

    async def close(self) -> None:
        """Ends the session: announcements and candidacies go at once."""
        ...

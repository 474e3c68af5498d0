"""The node store as a pure state machine: what the `memory` and `local` backends run on.

Nodes have data and a version (0 when new, one more at each set). Folders are implied by what lies in them. A node
made with a session as its owner goes when the session ends. Sequence numbers below a folder never come twice.
The revision is the version of `paths.REVISION`, an epoch that of `paths.epoch(role)`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fairlead_daemon.errors import Conflict
from fairlead_discovery import paths
from fairlead_discovery.decisions.ops import AnyOp, Check, Drop, Make, Result, Set
from fairlead_discovery.registry import ANY, NEW


@dataclass(frozen=True, slots=True)
class Entry:
    """`owner` is a session's id, or "" for a node that stays."""

    data: bytes
    version: int
    owner: str = ""


@dataclass(slots=True)
class Effects:
    """What a transaction changed: what must be on disk before anybody hears of it. None: the node is gone."""

    nodes: dict[str, Entry | None] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, bool] = field(default_factory=dict)
    """By id: opened (True) or ended (False)."""

    def add(self, later: "Effects") -> None:
        self.nodes.update(later.nodes)
        self.counters.update(later.counters)
        self.sessions.update(later.sessions)

    def __bool__(self) -> bool:
        return bool(self.nodes or self.counters or self.sessions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    results: tuple[Result, ...]
    effects: Effects


class Nodes:
    """The whole state. One task owns it."""

    def __init__(self) -> None:
        self.sessions: dict[str, set[str]] = {}
        """Paths that go with the session, by its id."""
        self._entries: dict[str, Entry] = {}
        self._children: dict[str, set[str]] = {}
        self._counters: dict[str, int] = {}

    def load(self, effects: Effects) -> None:
        """Takes stored state as it is."""
        opened = {session for session, is_open in effects.sessions.items() if is_open}
        for session in opened:
            self._mark_session(session, opened=True)
        self._counters.update(effects.counters)
        for path, entry in effects.nodes.items():
            self._place(path, entry)
        for session in effects.sessions.keys() - opened:
            self._mark_session(session, opened=False)

    def everything(self) -> Effects:
        """The whole state, as effects upon nothing."""
        sessions = dict.fromkeys(self.sessions, True)
        return Effects(nodes=dict(self._entries), counters=dict(self._counters), sessions=sessions)

    # --- reading

    def get(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def names(self, folder: str) -> tuple[str, ...]:
        return tuple(sorted(self._children.get(folder, ())))

    def nodes(self, folder: str) -> dict[str, Entry]:
        """Direct children that are nodes themselves, not just folders of others."""
        pairs = ((name, self._entries.get(f"{folder}/{name}")) for name in self._children.get(folder, ()))
        return {name: entry for name, entry in pairs if entry is not None}

    def clocked_folders(self) -> Iterator[str]:
        for root in paths.CLOCKED:
            if root in paths.NESTED:
                yield from (f"{root}/{name}" for name in self._children.get(root, ()))
            elif root in self._children:
                yield root

    @property
    def revision(self) -> int:
        entry = self._entries.get(paths.REVISION)
        return entry.version if entry is not None else 0

    def owned(self, folder: str, session: str) -> tuple[str, ...]:
        """Names of the session's own nodes directly below the folder, sorted."""
        start = f"{folder}/"
        own = (p[len(start) :] for p in self.sessions.get(session, ()) if p.startswith(start))
        return tuple(sorted(name for name in own if "/" not in name))

    # --- changing

    def apply(self, ops: Sequence[AnyOp], *, session: str) -> Applied:
        """All operations or none. Raises Conflict naming the path."""
        undo: dict[str, Entry | None] = {}
        counters: dict[str, int] = {}
        results: list[Result] = []
        try:
            results.extend(self._do(op, session, undo, counters) for op in ops)
        except Conflict:
            for path, entry in undo.items():
                self._place(path, entry)
            raise
        self._counters.update(counters)
        after = {path: self._entries.get(path) for path in undo}
        return Applied(results=tuple(results), effects=Effects(nodes=after, counters=counters))

    def open_session(self, session: str) -> Effects:
        self._mark_session(session, opened=True)
        return Effects(sessions={session: True})

    def end_session(self, session: str) -> Effects:
        """Its nodes go with it. An unknown session ends without effect."""
        if session not in self.sessions:
            return Effects()
        gone = tuple(self.sessions[session])
        for path in gone:
            self._place(path, None)
        self._mark_session(session, opened=False)
        return Effects(nodes=dict.fromkeys(gone), sessions={session: False})

    def _do(self, op: AnyOp, session: str, undo: dict[str, Entry | None], counters: dict[str, int]) -> Result:
        match op:
            case Make():
                return self._make(op, session, undo, counters)
            case Set():
                return self._set(op, undo)
            case Drop():
                return self._drop(op, undo)
            case Check():
                return self._check(op)

    def _make(self, op: Make, session: str, undo: dict[str, Entry | None], counters: dict[str, int]) -> str:
        path = op.path
        if session not in self.sessions:
            raise Conflict(f"{path}: the session has ended")
        if op.sequential:
            folder = path.rpartition("/")[0]
            number = counters.get(folder, self._counters.get(folder, 0))
            counters[folder] = number + 1
            path = f"{path}{number:010d}"
        if path in self._entries:
            raise Conflict(f"{path}: exists already")
        self._change(path, Entry(op.data, 0, session), undo)
        return path

    def _set(self, op: Set, undo: dict[str, Entry | None]) -> int:
        old = self._entries.get(op.path)
        self._expect(op.path, old, op.expect)
        version = old.version + 1 if old is not None else 0
        self._change(op.path, Entry(op.data, version, old.owner if old is not None else ""), undo)
        return version

    def _drop(self, op: Drop, undo: dict[str, Entry | None]) -> int:
        old = self._entries.get(op.path)
        if old is None and op.missing_ok:
            return 0
        if old is None:
            raise Conflict(f"{op.path}: no such node")
        self._expect(op.path, old, op.expect)
        if self._children.get(op.path):
            raise Conflict(f"{op.path}: other nodes lie below it")
        self._change(op.path, None, undo)
        return 0

    def _check(self, op: Check) -> int:
        entry = self._entries.get(op.path)
        if entry is None:
            raise Conflict(f"{op.path}: no such node")
        self._expect(op.path, entry, op.version)
        return entry.version

    @staticmethod
    def _expect(path: str, entry: Entry | None, expect: int) -> None:
        if expect == NEW and entry is not None:
            raise Conflict(f"{path}: exists already")
        if expect >= 0 and (entry is None or entry.version != expect):
            found = "is not there" if entry is None else f"has version {entry.version}"
            raise Conflict(f"{path}: {found}, expected version {expect}")
        assert expect >= 0 or expect in {ANY, NEW}

    def _change(self, path: str, entry: Entry | None, undo: dict[str, Entry | None]) -> None:
        undo.setdefault(path, self._entries.get(path))
        self._place(path, entry)

    def _place(self, path: str, entry: Entry | None) -> None:
        old = self._entries.pop(path, None)
        if old is not None and old.owner:
            self.sessions[old.owner].discard(path)
        if entry is None:
            self._unlink(path)
            return
        self._entries[path] = entry
        if entry.owner:
            self.sessions[entry.owner].add(path)
        self._link(path)

    def _link(self, path: str) -> None:
        while path:
            folder, _, name = path.rpartition("/")
            siblings = self._children.setdefault(folder or "/", set())
            if name in siblings:
                return
            siblings.add(name)
            path = folder

    def _unlink(self, path: str) -> None:
        while path and path not in self._entries and not self._children.get(path):
            self._children.pop(path, None)
            folder, _, name = path.rpartition("/")
            self._children.get(folder or "/", set()).discard(name)
            path = folder

    def _mark_session(self, session: str, *, opened: bool) -> None:
        if opened:
            self.sessions.setdefault(session, set())
        else:
            self.sessions.pop(session, None)


def folder_nodes(entries: Mapping[str, Entry]) -> dict[str, tuple[bytes, int]]:
    """As the wire has them: name -> (data, version)."""
    return {name: (entry.data, entry.version) for name, entry in entries.items()}

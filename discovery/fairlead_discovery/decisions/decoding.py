"""From the clocked tree's bytes to records, each new node once. What cannot be read is left out and named."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Any, Generic, TypeVar

from msgspec.structs import force_setattr

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions.delta import Delta, differing
from fairlead_discovery.decisions.sharing import NOTHING, Shared
from fairlead_discovery.policies import AnyPolicy, Policy, well_placed
from fairlead_discovery.records import Leaving, Member, Portless, Route, TaskRef, decode
from fairlead_discovery.registry import Folder

R = TypeVar("R")
Services = Mapping[str, Mapping[str, R]]
FEW = 16
"""Up to so many nodes that went are looked after one by one."""
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The clocked tree as records. A service's mapping that did not change is the same object as before."""

    members: Services[Member] = field(default_factory=dict)
    portless: Services[Portless] = field(default_factory=dict)
    leaving: Mapping[str, Leaving] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    policies: Mapping[str, AnyPolicy] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By service, by task id: the agent ("" when the member cannot be read). Counted by trust."""
    count: int = 0
    """Of all `tasks`."""
    delta: Delta | None = None
    """Services whose members or tasks differ from those of the contents before; `since` is their `members`."""


@dataclass(frozen=True, slots=True)
class _Folder(Generic[R]):
    source: Folder
    records: Mapping[str, R]
    bad: Mapping[str, str]
    tasks: Mapping[str, str]


_EMPTY: _Folder[Any] = _Folder({}, {}, {}, {})


class Decoder:
    """Keeps what it has decoded: a folder that is the same object is not looked at again, nor is a node."""

    def __init__(self) -> None:
        self._source: Mapping[str, Folder] = {}
        self._folders: dict[str, _Folder[Any]] = {}
        self._last = Contents()

    def contents(self, folders: Mapping[str, Folder], delta: Delta | None = None) -> Contents:
        """`delta` tells what is new in `folders`. The very same contents when nothing is."""
        changed = differing(self._source, folders, delta)
        self._source = folders
        if changed:
            self._last = self._changed(folders, changed)
        return self._last

    def _changed(self, folders: Mapping[str, Folder], changed: Collection[str]) -> Contents:
        last = self._last
        by_root: dict[str, dict[str, _Folder[Any]]] = {root: {} for root in paths.CLOCKED}
        bad, count = dict(last.bad), last.count
        for path in changed:
            parent, _, name = path.rpartition("/")
            root = parent if parent in paths.NESTED else path
            if root in _KINDS:
                now, before = self._folder(path, _KINDS[root], folders.get(path))
                by_root[root][paths.unescape(name)] = now
                for node in before.bad:
                    del bad[node]
                bad.update(now.bad)
                count += len(now.tasks) - len(before.tasks)
        endpoints = by_root[paths.ENDPOINTS]
        return Contents(
            members=_merged(last.members, {s: f.records for s, f in endpoints.items()}),
            portless=_merged(last.portless, {s: f.records for s, f in by_root[paths.PORTLESS].items()}),
            leaving=_named(last.leaving, by_root[paths.LEAVING]),
            routes=_named(last.routes, by_root[paths.ROUTES]),
            policies=_named(last.policies, by_root[paths.POLICIES]),
            bad=bad,
            tasks=_merged(last.tasks, {s: f.tasks for s, f in endpoints.items()}),
            count=count,
            delta=Delta(last.members, frozenset(endpoints)),
        )

    def _folder(self, path: str, kind: type[R], source: Folder | None) -> tuple[_Folder[R], _Folder[R]]:
        """The folder as it is now, and as it was."""
        before: _Folder[R] = self._folders.pop(path, _EMPTY)
        if source is None:
            return _EMPTY, before
        now = self._folders[path] = _decoded(path, kind, source, before)
        return now, before


_KINDS: Mapping[str, Any] = {
    paths.ENDPOINTS: Member,
    paths.PORTLESS: Portless,
    paths.LEAVING: Leaving,
    paths.ROUTES: Route,
    paths.POLICIES: AnyPolicy,
}


def _merged(before: Services[R], changed: Services[R]) -> Services[R]:
    """The same object when nothing changed. Services without any are left out."""
    differ = {service: now for service, now in changed.items() if (now or None) is not before.get(service)}
    if not differ:
        return before
    gone = [service for service, now in differ.items() if not now]
    return Shared.of(before).changed({service: now for service, now in differ.items() if now}, gone)


def _named(last: Mapping[str, R], changed: Mapping[str, _Folder[R]]) -> Mapping[str, R]:
    """A folder that is no folder of folders: its records by their own names."""
    for folder in changed.values():
        named = {paths.unescape(name): record for name, record in folder.records.items()}
        return last if same(named, last) else named
    return last


def _decoded(path: str, kind: type[R], source: Folder, known: _Folder[R]) -> _Folder[R]:
    old = known.source
    fresh = [name for name, data in source.items() if old.get(name) is not data]
    gone = old.keys() - source.keys()
    records, bad = dict(known.records), dict(known.bad)
    for name in gone:
        records.pop(name, None)
        bad.pop(f"{path}/{name}", None)
    like: R | None = None
    for name in fresh:
        if name in records and old.get(name) == source[name]:
            continue
        records.pop(name, None)
        bad.pop(f"{path}/{name}", None)
        try:
            record = decode(kind, source[name], place=f"{path}/{name}")
            if isinstance(record, Policy):
                well_placed(record, f"{path}/{name}")
            like = records[name] = shared(record, like)
        except Refused as error:
            bad[f"{path}/{name}"] = str(error)
    kept = known.records if same(records, known.records) else records
    tasks = _tasks(source, kept, known.tasks, fresh, gone) if kind is Member else {}
    return _Folder(source, kept, bad, known.tasks if tasks == known.tasks else tasks)


def _tasks(
    source: Folder, records: Mapping[str, Any], known: Mapping[str, str], fresh: Collection[str], gone: Collection[str]
) -> Mapping[str, str]:
    """By task id: the agent. A task may have two nodes for a moment, when its member is replaced."""
    if len(gone) > FEW:
        known, fresh, gone = {}, source, ()
    tasks = dict(known)
    for name in gone:
        tasks.pop(paths.task_of(name), None)
    for start in {name.rpartition("_")[0] for name in gone}:
        fresh = [*fresh, *(name for name in source if name.startswith(start) and name.rpartition("_")[0] == start)]
    for name in fresh:
        task, record = paths.task_of(name), records.get(name)
        if record is None:
            tasks[task] = ""
        else:
            tasks[record.task.id if record.task.id == task else task] = record.task.agent
    return tasks


def shared(record: R, like: R | None = None) -> R:
    """The record with what many have in common as one object each, which takes half the memory.

    `like` is another of its service: their discovery and addresses are often the same.
    """
    if isinstance(record, Member):
        _share(record, ("zone", "region", "status"))
        _share(record.serviceEndpoint, ("host",))
        for address in record.additionalEndpoints.values():
            _share(address, ("host",))
        if not record.additionalEndpoints:
            force_setattr(record, "additionalEndpoints", _NOTHING)
    if isinstance(record, Member | Portless):
        _share(record.task, _TASK_TEXTS)
        for name in ("discovery", "ips"):
            if like is not None and getattr(record, name) == getattr(like, name):
                force_setattr(record, name, getattr(like, name))
    return record


_TASK_TEXTS = tuple(name for name in TaskRef.__struct_fields__ if name != "id")


def _share(record: Any, names: Iterable[str]) -> None:
    for name in names:
        text = getattr(record, name)
        if text and type(text) is str:
            force_setattr(record, name, intern(text))


def same(one: Mapping[str, R], other: Mapping[str, R]) -> bool:
    """The same keys with the very same objects."""
    return len(one) == len(other) and all(other.get(key) is value for key, value in one.items())


class Hider:
    """Leaves members out of services; a service's mapping stays the same object while nothing about it changes."""

    def __init__(self) -> None:
        self._before: Contents = Contents()
        self._leaving: Mapping[str, frozenset[str]] = {}
        self._alive: frozenset[str] | None = None
        self._hidden: dict[str, frozenset[str]] = {}
        self._shown: Services[Member] = NOTHING

    def visible(self, contents: Contents, alive: frozenset[str] | None) -> tuple[Services[Member], Delta]:
        """Without what is leaving and, with `alive`, what sits on agents that are not among them (see unleased).
        Services without any are left out whole. The very same object when nothing has changed; the Delta is since the
        one returned before.
        """
        leaving = leaving_members(contents)
        before, self._before = self._before, contents
        if alive != self._alive:
            changed = contents.members.keys() | before.members.keys()
        else:
            changed = {s for s in leaving.keys() | self._leaving.keys() if leaving.get(s) != self._leaving.get(s)}
            changed.update(differing(before.members, contents.members, contents.delta))
        self._leaving, self._alive = leaving, alive
        shown: dict[str, Mapping[str, Member]] = {}
        for service in changed:
            mine = contents.members.get(service, {})
            names = leaving.get(service, frozenset())
            if alive is not None:
                names |= unleased(mine, names, alive)
            if names == self._hidden.get(service, frozenset()) and before.members.get(service) is mine:
                continue
            self._hidden[service] = names
            if not names:
                del self._hidden[service]
            shown[service] = {name: member for name, member in mine.items() if name not in names} if names else mine
        since, self._shown = self._shown, _merged(self._shown, shown) if self._hidden else contents.members
        return self._shown, Delta(since, frozenset(shown))


def leaving_members(contents: Contents) -> Mapping[str, frozenset[str]]:
    """By service, the node names of tasks that have a leaving record and still stand."""
    tasks: dict[str, set[str]] = {}
    for task, record in contents.leaving.items():
        if task in contents.tasks.get(record.service, ()):
            tasks.setdefault(record.service, set()).add(task)
    return {
        service: frozenset(n for n in contents.members.get(service, ()) if paths.task_of(n) in gone)
        for service, gone in tasks.items()
    }


def unleased(members: Mapping[str, Member], leaving: frozenset[str], alive: frozenset[str]) -> frozenset[str]:
    """Members on agents that are not announced. None when nothing would be left: never to zero."""
    names = frozenset(name for name, member in members.items() if member.task.agent not in alive)
    return names if members.keys() - names - leaving else frozenset()

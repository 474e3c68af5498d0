"""From the clocked tree's bytes to records, each new node once. What cannot be read is left out and named."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.records import Leaving, Member, Portless, Route, decode
from fairlead_discovery.registry import Folder

R = TypeVar("R")
Services = Mapping[str, Mapping[str, R]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The clocked tree as records. A service's mapping that did not change is the same object as before."""

    members: Services[Member] = field(default_factory=dict)
    portless: Services[Portless] = field(default_factory=dict)
    leaving: Mapping[str, Leaving] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By service, by task id: the agent ("" when the member cannot be read). Counted by trust."""


@dataclass(frozen=True, slots=True)
class _Folder(Generic[R]):
    source: Folder
    records: Mapping[str, R]
    bad: Mapping[str, str]
    tasks: Mapping[str, str]


class Decoder:
    """Keeps what it has decoded: a folder that is the same object is not looked at again."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder[Any]] = {}
        self._last = Contents()

    def contents(self, folders: Mapping[str, Folder]) -> Contents:
        for gone in self._folders.keys() - folders.keys():
            del self._folders[gone]
        bad: dict[str, str] = {}
        members = self._services(paths.ENDPOINTS, Member, folders, bad)
        contents = Contents(
            members=members,
            portless=self._services(paths.PORTLESS, Portless, folders, bad),
            leaving=self._named(paths.LEAVING, Leaving, folders, bad, self._last.leaving),
            routes=self._named(paths.ROUTES, Route, folders, bad, self._last.routes),
            bad=bad,
            tasks={
                paths.unescape(path[len(paths.ENDPOINTS) + 1 :]): self._folders[path].tasks
                for path in folders
                if path.startswith(f"{paths.ENDPOINTS}/")
            },
        )
        self._last = contents
        return contents

    def _services(
        self, root: str, kind: type[R], folders: Mapping[str, Folder], bad: dict[str, str]
    ) -> dict[str, Mapping[str, R]]:
        out: dict[str, Mapping[str, R]] = {}
        for path, source in folders.items():
            if path.startswith(f"{root}/"):
                folder = self._folder(path, kind, source)
                bad.update(folder.bad)
                if folder.records:
                    out[paths.unescape(path[len(root) + 1 :])] = folder.records
        return out

    def _named(
        self, path: str, kind: type[R], folders: Mapping[str, Folder], bad: dict[str, str], last: Mapping[str, R]
    ) -> Mapping[str, R]:
        source = folders.get(path)
        if source is None:
            return {} if last else last
        folder = self._folder(path, kind, source)
        bad.update(folder.bad)
        named = {paths.unescape(name): record for name, record in folder.records.items()}
        return last if same(named, last) else named

    def _folder(self, path: str, kind: type[R], source: Folder) -> _Folder[R]:
        known: _Folder[R] | None = self._folders.get(path)
        if known is not None and known.source is source:
            return known
        records: dict[str, R] = {}
        bad: dict[str, str] = {}
        for name, data in source.items():
            if known is not None and name in known.records and known.source[name] == data:
                records[name] = known.records[name]
                continue
            try:
                records[name] = decode(kind, data, place=f"{path}/{name}")
            except Refused as error:
                bad[f"{path}/{name}"] = str(error)
        tasks = {paths.task_of(name): _agent(records.get(name)) for name in source}
        kept = known.records if known is not None and same(records, known.records) else records
        folder = _Folder(source, kept, bad, tasks)
        self._folders[path] = folder
        return folder


def _agent(record: object) -> str:
    return record.task.agent if isinstance(record, Member | Portless) else ""


def same(one: Mapping[str, R], other: Mapping[str, R]) -> bool:
    """The same keys with the very same objects."""
    return len(one) == len(other) and all(other.get(key) is value for key, value in one.items())


class Hider:
    """Leaves members out of services; a service's mapping stays the same object while nothing about it changes."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Mapping[str, Member], frozenset[str], Mapping[str, Member]]] = {}

    def visible(
        self, members: Services[Member], hidden: Callable[[str, Mapping[str, Member]], Iterable[str]]
    ) -> dict[str, Mapping[str, Member]]:
        """`hidden(service, members)` names the nodes to leave out. Services without any are left out whole."""
        known: dict[str, tuple[Mapping[str, Member], frozenset[str], Mapping[str, Member]]] = {}
        out: dict[str, Mapping[str, Member]] = {}
        for service, mine in members.items():
            names = frozenset(hidden(service, mine))
            shown = self._shown(service, mine, names) if names else mine
            if names:
                known[service] = (mine, names, shown)
            if shown:
                out[service] = shown
        self._known = known
        return out

    def _shown(self, service: str, mine: Mapping[str, Member], names: frozenset[str]) -> Mapping[str, Member]:
        before = self._known.get(service)
        if before is not None and before[0] is mine and before[1] == names:
            return before[2]
        return {name: member for name, member in mine.items() if name not in names}


def leaving_members(contents: Contents) -> Mapping[str, frozenset[str]]:
    """By service, the node names of tasks that have a leaving record."""
    tasks: dict[str, set[str]] = {}
    for task, record in contents.leaving.items():
        tasks.setdefault(record.service, set()).add(task)
    return {
        service: frozenset(n for n in contents.members.get(service, ()) if paths.task_of(n) in gone)
        for service, gone in tasks.items()
    }


def unleased(members: Mapping[str, Member], leaving: frozenset[str], alive: frozenset[str]) -> frozenset[str]:
    """Members on agents that are not announced. None when nothing would be left: never to zero."""
    names = frozenset(name for name, member in members.items() if member.task.agent not in alive)
    return names if members.keys() - names - leaving else frozenset()

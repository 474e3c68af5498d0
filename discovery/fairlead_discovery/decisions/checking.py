"""What is not as it should be in a registry, and what would mend it. Pure: the time comes as an argument."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions.archive import Image
from fairlead_discovery.policies import AnyPolicy, Policy, well_placed
from fairlead_discovery.records import Leaving, Member, Portless, Progress, Route, decode
from fairlead_discovery.registry import Change, Create, Delete

OVERDUE_S = 600.0
"""A record goes after the task's terminal status: so long past its deadline nobody takes care of it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`repair` is one transaction; empty when a person must decide."""

    path: str
    what: str
    repair: Sequence[Change] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """The image, read as far as it can be. Members by path."""

    image: Image
    members: Mapping[str, Member]
    now_s: float

    def below(self, root: str) -> Iterator[tuple[str, bytes]]:
        start = f"{root}/"
        return ((path, data) for path, data in self.image.nodes.items() if path.startswith(start))


def problems(image: Image, *, now_s: float) -> list[Problem]:
    """Sorted by path; at most one for each rule and node. `now_s` is wall clock."""
    members: dict[str, Member] = {}
    for path, data in image.nodes.items():
        if path.startswith(f"{paths.ENDPOINTS}/"):
            try:
                members[path] = decode(Member, data, place=path)
            except Refused:
                continue  # named by _unreadable
    seen = _Seen(image, members, now_s)
    return sorted((problem for rule in RULES for problem in rule(seen)), key=lambda p: (p.path, p.what))


KINDS: Sequence[tuple[str, Any]] = (
    (paths.ENDPOINTS, Member),
    (paths.PORTLESS, Portless),
    (paths.LEAVING, Leaving),
    (paths.ROUTES, Route),
    (paths.POLICIES, AnyPolicy),
    (paths.PROGRESS, Progress),
)


def _closed(seen: _Seen) -> Iterator[Problem]:
    cluster = seen.image.cluster
    if cluster.importing:
        yield Problem(path=paths.CLUSTER, what=f"an import is not finished: {cluster.importing}")
    if cluster.moved:
        yield Problem(path=paths.CLUSTER, what=f"the registry has moved to {cluster.moved}: nothing is written here")


def _unreadable(seen: _Seen) -> Iterator[Problem]:
    """Of clocked nodes readers say the same (`bad`). A route or a policy may be all that a person has of it: left."""
    for root, kind in KINDS:
        for path, data in seen.below(root):
            try:
                record = decode(kind, data, place=path)
                if isinstance(record, Policy):
                    well_placed(record, path)
            except Refused as error:
                mend = (Delete(path, missing_ok=True),) if kind not in (Route, AnyPolicy) else ()
                yield Problem(path=path, what=str(error).removeprefix(f"{path}: "), repair=mend)


def _closed_to_us(seen: _Seen) -> Iterator[Problem]:
    """Readers say the same, and leave them out. Whose they are, and who may open them, a person must know."""
    for path, why in seen.image.unreadable.items():
        yield Problem(path=path, what=why.removeprefix(f"{path}: "))


def _misnamed(seen: _Seen) -> Iterator[Problem]:
    """A member's name says its content; who trusts a wrong one keeps a wrong address for good."""
    for path, member in seen.members.items():
        folder, _, name = path.rpartition("/")
        data = seen.image.nodes[path]
        right = paths.member_name(member.task.id, data)
        if name == right:
            continue
        there = f"{folder}/{right}" in seen.image.nodes
        mend = (*(() if there else (Create(f"{folder}/{right}", data),)), Delete(path, missing_ok=True))
        yield Problem(path=path, what=f"its content would be called {right}", repair=mend)


def _doubled(seen: _Seen) -> Iterator[Problem]:
    by_task: dict[str, str] = {}
    for path, member in sorted(seen.members.items()):
        other = by_task.setdefault(member.task.id, path)
        if other != path:
            yield Problem(path=path, what=f"task {member.task.id} is published twice, also as {other}")


def _orphaned(seen: _Seen) -> Iterator[Problem]:
    """Members of scheduled tasks on agents that are not there. Never all of a service: then the agents may be unseen."""
    announced = {path.rpartition("/")[2] for path in seen.image.passing if path.startswith(f"{paths.AGENTS}/")}
    left: dict[str, int] = {}
    orphans: list[tuple[str, Member]] = []
    for path, member in seen.members.items():
        alone = bool(member.task.framework_id) and paths.escape(member.task.agent) not in announced
        if alone and not paths.is_announced(member.task.id):
            orphans.append((path, member))
        else:
            left[path.rpartition("/")[0]] = 1
    for path, member in orphans:
        mend = (Delete(path, missing_ok=True),) if path.rpartition("/")[0] in left else ()
        yield Problem(path=path, what=f"its agent {member.task.agent} is not announced", repair=mend)


def _left_behind(seen: _Seen) -> Iterator[Problem]:
    published = {member.task.id: path for path, member in seen.members.items()}
    for path, data in seen.below(paths.LEAVING):
        try:
            record = decode(Leaving, data, place=path)
        except Refused:
            continue  # named by _unreadable
        if record.task in published:
            member = published[record.task]
            yield Problem(path=member, what="published, and leaving", repair=(Delete(member, missing_ok=True),))
        elif seen.now_s - record.deadline_s > OVERDUE_S:
            late = f"task {record.task} was to be gone {seen.now_s - record.deadline_s:.0f} s ago"
            yield Problem(path=path, what=late, repair=(Delete(path, missing_ok=True),))


def _leading_nowhere(seen: _Seen) -> Iterator[Problem]:
    """Routes of services that have neither a task nor a definition."""
    services = {path.split("/")[3] for root in paths.NESTED for path, _ in seen.below(root)}
    apps = {paths.unescape(path.rpartition("/")[2]).rpartition("@")[0] for path, _ in seen.below(paths.APPS)}
    for path, data in seen.below(paths.ROUTES):
        try:
            route = decode(Route, data, place=path)
        except Refused:
            continue  # named by _unreadable
        if path.rpartition("/")[2] not in services and route.app not in apps:
            mend = (Delete(path, missing_ok=True),)
            yield Problem(path=path, what=f"no service {route.service}, no app {route.app or '-'}", repair=mend)


def _stale(seen: _Seen) -> Iterator[Problem]:
    """Progress of balancers that are not registered."""
    for path, _ in seen.below(paths.PROGRESS):
        if f"{paths.BALANCERS}/{path.rpartition('/')[2]}" not in seen.image.nodes:
            yield Problem(path=path, what="progress of no registered balancer", repair=(Delete(path, missing_ok=True),))


def _no_json(seen: _Seen) -> Iterator[Problem]:
    """Documents of the folders whose records discovery does not know: JSON at least, unless they are packed."""
    for root in (paths.BALANCERS, paths.MASTER_FRAMEWORKS, paths.MASTER_AGENTS):
        for path, data in seen.below(root):
            try:
                msgspec.json.decode(data)
            except msgspec.DecodeError as error:
                if data[:1] in {b"{", b"["}:
                    yield Problem(path=path, what=f"no JSON: {error}")


RULES: Sequence[Callable[[_Seen], Iterator[Problem]]] = (
    _closed,
    _unreadable,
    _closed_to_us,
    _misnamed,
    _doubled,
    _orphaned,
    _left_behind,
    _leading_nowhere,
    _stale,
    _no_json,
)

"""Apps of one deployment group as the one service they are: marathon-lb's blue and green, in one backend.

The group's backend stays the same while colours come and go in it, so a deployment is runtime commands alone. As with
marathon-lb, the oldest colour's route counts until it is gone, and of the older ones' tasks as many are drained as new
ones have come, above the target.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from fairlead_discovery import paths
from fairlead_discovery.decisions import colours
from fairlead_discovery.records import Colour, Member, Route
from fairlead_discovery.snapshots import Snapshot

Drained = Mapping[str, Member]
"""By the member's name."""
Derive = Callable[[str, Mapping[str, Member]], tuple[Route, tuple[str, ...]] | None]
"""As in `routes`: a route for a service that nobody wrote one for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """`of`: the group each colour's service is served as; `drained`: by group, who gets no new requests;
    `problems`: by service, what is wrong with its labels, or why it is not served as its group.
    """

    of: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    """Those of the colours, as last read."""
    drained: Mapping[str, Drained] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def merged(snapshot: Snapshot, last: Groups, derived: Derive) -> tuple[Snapshot, Groups]:
    """With one route and one set of members for each group, in place of its colours'."""
    labelled = dict(_labelled(snapshot, derived))
    routes = {service: route for service, (route, _) in labelled.items()} | _written(snapshot, last)
    if not routes:
        return snapshot, Groups()
    by_group: dict[str, dict[str, Colour]] = {}
    for service, route in routes.items():
        assert route.colour is not None
        by_group.setdefault(_key(service, route.colour), {})[service] = route.colour
    alone = dict(_alone(snapshot, by_group, routes))
    kept = {group: mine for group, mine in by_group.items() if not mine.keys() & alone.keys()}
    found: dict[str, tuple[Route, Mapping[str, Member], Drained]] = {}
    for group, mine in kept.items():
        found[group] = _as_one(group, mine, routes, snapshot.members)
    of = {service: group for group, mine in kept.items() for service in mine}
    members = {service: there for service, there in snapshot.members.items() if service not in of}
    after = replace(
        snapshot,
        routes={s: r for s, r in snapshot.routes.items() if s not in of}
        | {g: route for g, (route, _, _) in found.items()},
        members=members | {g: there for g, (_, there, _) in found.items() if there},
        bad={place: why for place, why in snapshot.bad.items() if place not in _places(of)},
        delta=None,
    )
    drained = {g: gone for g, (_, _, gone) in found.items() if gone}
    problems = {service: "; ".join(why) for service, (_, why) in labelled.items() if why and service in of} | alone
    return after, Groups(of=of, routes={s: routes[s] for s in of}, drained=drained, problems=problems)


def _labelled(snapshot: Snapshot, derived: Derive) -> Iterator[tuple[str, tuple[Route, tuple[str, ...]]]]:
    """Colours that only their tasks' labels tell of."""
    for service, members in snapshot.members.items():
        speaker = next(iter(members.values()), None)
        if service in snapshot.routes or speaker is None or colours.GROUP not in speaker.discovery.labels:
            continue
        found = derived(service, members)
        if found is not None and found[0].colour is not None:
            yield service, found


def _written(snapshot: Snapshot, last: Groups) -> dict[str, Route]:
    """Of colours. One that cannot be read any more stays what it was."""
    bad = {s for s in last.routes if s not in snapshot.routes and (paths.route(s) in snapshot.bad or s in snapshot.bad)}
    return {s: last.routes[s] for s in bad} | {s: r for s, r in snapshot.routes.items() if r.colour is not None}


def _places(of: Mapping[str, str]) -> frozenset[str]:
    return frozenset((*of, *map(paths.route, of)))


def _key(service: str, colour: Colour) -> str:
    return paths.service_key(paths.split_service_key(service)[0], colour.group)


def _alone(
    snapshot: Snapshot, by_group: Mapping[str, Mapping[str, Colour]], routes: Mapping[str, Route]
) -> Iterator[tuple[str, str]]:
    """A group that cannot be one service: each of its colours is served for itself, and told why."""
    for group, mine in by_group.items():
        why = ""
        if group not in mine and (group in snapshot.routes or group in snapshot.members):
            why = f"its name is that of another service, {group}"
        elif any(port.mtls for service in mine for port in routes[service].ports):
            why = "with mtls each service has a name of its own"
        if why:
            yield from ((service, f"{colours.GROUP}: not served as one with the others: {why}") for service in mine)


def _as_one(
    group: str, mine: Mapping[str, Colour], routes: Mapping[str, Route], members: Mapping[str, Mapping[str, Member]]
) -> tuple[Route, Mapping[str, Member], Drained]:
    nobody: Mapping[str, Member] = {}
    *older, newest = colours.in_order(mine)
    old = {name: one for service in older for name, one in members.get(service, nobody).items()}
    new = members.get(newest, nobody)
    tasks = {one.task.id: name for name, one in old.items()}
    gone = {tasks[task] for task in colours.drained(tasks, len(new), mine[newest].target)}
    speaker = next((s for s in (*older, newest) if members.get(s)), newest)
    route = msgspec.structs.replace(routes[speaker], service=group, app=mine[newest].backend)
    there = {name: one for name, one in {**old, **new}.items() if name not in gone}
    return route, there, {name: old[name] for name in sorted(gone)}


def heirs(groups: Groups) -> Mapping[str, list[str]]:
    """What is said of who may call a colour counts for its group."""
    found: dict[str, list[str]] = {}
    for service, group in sorted(groups.of.items()):
        if service != group:
            found.setdefault(group, []).append(service)
    return found

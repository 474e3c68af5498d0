"""Which other backends a port's requests may go to: shares of a split or a canary, and who stands in when it is down.

HAProxy decides each request by maps (`templates/split.cfg.j2`): `ways` says how a client is told from another,
`shares` whose bucket it is (see `buckets`), `least` and `falls` when and where to fall over, `pins` that it stays
fallen over though servers are ready again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions.words import shown
from fairlead_discovery.policies import (
    AnyPolicy,
    Canary,
    CanaryStage,
    Failover,
    Resolver,
    Router,
    Share,
    Split,
    of_kind,
    subset_of,
)
from fairlead_discovery.records import Member, Route
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import buckets
from fairlead_lb.decisions.values import Key, Maps

STICKY = ("", "cookie", "source", "header")
MOST_FALLBACKS = 3
MOST_SHARES = 16
MOST_READY = 1000
MOST_BACK_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Of one port. `shares`: to whom how many of 10,000 buckets; `why`: from which policy they come."""

    sticky: str = ""
    shares: tuple[tuple[Key, int], ...] = ()
    falls: tuple[Key, ...] = ()
    min_ready: int = 1
    back_after_s: float = 10.0
    why: str = "split"


Ways = Mapping[Key, Way]
Derive = Callable[[str, Mapping[str, Member]], tuple[Route, tuple[str, ...]] | None]
"""As in `routes`: a route for a service that nobody wrote one for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`problems` by service: what of its policies is not in force."""

    ways: Ways = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def ways(policies: Mapping[str, AnyPolicy], modes: Mapping[Key, str]) -> Found:
    """`modes`: of every port that has a backend. A share that cannot be given stays with the service, and is told."""
    found: dict[Key, Way] = {}
    problems: dict[str, list[str]] = {}
    for service, (split, why) in _splits(policies).items():
        key = Key(service, split.index)
        told = problems.setdefault(service, [])
        if key not in modes:
            told.append(f"{why}: {key} has no route")
            continue
        try:
            checked(split, modes[key])
        except Refused as error:
            told.append(f"{why}: {error}")
            continue
        shares = [(Key(s.service, s.index), buckets.hundredths(s.percent)) for s in split.shares]
        told += _strange("share to", key, [to for to, _ in shares], modes)
        given = tuple((to, size if modes.get(to) == modes[key] else 0) for to, size in shares)
        found[key] = Way(sticky=split.sticky, shares=given, why=why)
    for service, failover in of_kind(policies, Failover).items():
        key = Key(service, failover.index)
        told = problems.setdefault(service, [])
        if key not in modes:
            told.append(f"failover: {key} has no route")
            continue
        try:
            checked_failover(failover)
        except Refused as error:
            told.append(f"failover: {error}")
            continue
        falls = [Key(t.service, t.index) for t in failover.to]
        told += _strange("failover to", key, falls, modes)
        found[key] = _with_falls(found.get(key, Way()), failover, [k for k in falls if modes.get(k) == modes[key]])
    return Found(ways=found, problems={s: "; ".join(told) for s, told in problems.items() if told})


def _with_falls(way: Way, failover: Failover, falls: Iterable[Key]) -> Way:
    return Way(
        sticky=way.sticky,
        shares=way.shares,
        why=way.why,
        falls=tuple(falls),
        min_ready=failover.min_ready,
        back_after_s=failover.back_after_s,
    )


def _strange(what: str, key: Key, targets: Iterable[Key], modes: Mapping[Key, str]) -> Iterator[str]:
    for target in targets:
        if target not in modes:
            yield f"{what} {target}: nothing is known of it"
        elif modes[target] != modes[key]:
            yield f"{what} {target}: it is {modes[target]}, not {modes[key]}"


def checked(split: Split, mode: str) -> None:
    """Raises Refused."""
    if split.sticky not in STICKY:
        raise Refused(f"sticky {shown(split.sticky)}: one of {', '.join(STICKY[1:])}")
    if split.sticky not in ("", "source") and mode != "http":
        raise Refused(f"sticky by {split.sticky} needs mode http, not {mode}; by source would do")
    if len(split.shares) > MOST_SHARES:
        raise Refused(f"{len(split.shares)} shares; at most {MOST_SHARES}")
    for share in split.shares:
        if not 0 <= share.percent <= 100:
            raise Refused(f"share to {share.service}: {share.percent:g} %: not between 0 and 100")
    targets = [(s.service, s.index) for s in split.shares]
    if (split.service, split.index) in targets:
        raise Refused("a service keeps what is left over; it needs no share of its own")
    if len(set(targets)) < len(targets):
        raise Refused("two shares go to one service")
    if sum(buckets.hundredths(s.percent) for s in split.shares) > buckets.BUCKETS:
        raise Refused("the shares are more than 100 %")


def checked_failover(failover: Failover) -> None:
    """Raises Refused."""
    if not 1 <= len(failover.to) <= MOST_FALLBACKS:
        raise Refused(f"{len(failover.to)} fallbacks; between 1 and {MOST_FALLBACKS}")
    if (failover.service, failover.index) in {(t.service, t.index) for t in failover.to}:
        raise Refused("a service cannot stand in for itself")
    if not 1 <= failover.min_ready <= MOST_READY:
        raise Refused(f"min_ready {failover.min_ready}: not between 1 and {MOST_READY}")
    if not 0 <= failover.back_after_s <= MOST_BACK_S:
        raise Refused(f"back_after_s {failover.back_after_s:g}: not between 0 and {MOST_BACK_S:g}")


def refusal(split: Split, modes: Mapping[Key, str] | None) -> str:
    """Why its shares are not in force, "" when they are. `modes`: of every port that has a backend; None: not known."""
    key = Key(split.service, split.index)
    if modes is not None and key not in modes:
        return f"{key} has no route"
    try:
        checked(split, "http" if modes is None else modes[key])
    except Refused as error:
        return str(error)
    targets = [Key(s.service, s.index) for s in split.shares]
    return "" if modes is None else "; ".join(_strange("share to", key, targets, modes))


def _splits(policies: Mapping[str, AnyPolicy]) -> Mapping[str, tuple[Split, str]]:
    """With the policy they come from: while there is a canary's order, it alone decides."""
    stages = of_kind(policies, CanaryStage)
    written = {s: (split, "split") for s, split in of_kind(policies, Split).items()}
    return {**written, **{s: (split_of(c, stages.get(s)), "canary") for s, c in of_kind(policies, Canary).items()}}


def split_of(canary: Canary, stage: CanaryStage | None) -> Split:
    """What a canary comes to at this stage."""
    share = Share(service=canary.to.service, index=canary.to.index, percent=percent_of(canary, stage))
    return Split(service=canary.service, index=canary.index, shares=(share,), sticky=canary.sticky)


def percent_of(canary: Canary, stage: CanaryStage | None) -> float:
    """The operator's last word counts at once, before the leading balancer has said anything."""
    if canary.order == "abort":
        return 0.0
    if canary.order == "promote":
        return 100.0
    if stage is None or stage.id != canary.id or not 0 <= stage.percent <= 100:
        return 0.0
    return stage.percent


# --- maps ----------------------------------------------------------------------------------------------------------


def tables(ways: Ways, names: Mapping[Key, str]) -> dict[str, Mapping[str, str]]:
    """What the maps hold but for `pins`. `names`: of every backend."""
    made: dict[str, dict[str, str]] = {"ways": {}, "shares": {}, "falls": {}, "least": {}}
    for key, way in ways.items():
        name = names[key]
        made["ways"][name] = f"{(way.sticky or 'random') if way.shares else 'none'}:{salt(key)}"
        for (low, high), (to, _) in zip(buckets.intervals([size for _, size in way.shares]), way.shares, strict=True):
            made["shares"] |= {f"{name}:{prefix}": names[to] for prefix in buckets.prefixes(low, high)}
        if way.falls:
            made["least"][name] = str(way.min_ready)
            made["falls"] |= {f"{name}:{place}": names[to] for place, to in enumerate(way.falls, 1)}
    return dict(made)


def with_ways(maps: Maps, ways: Ways, names: Mapping[Key, str]) -> Maps:
    return msgspec.structs.replace(maps, **tables(ways, names)) if ways else maps


def pin_table(pinned: Iterable[Key], names: Mapping[Key, str]) -> dict[str, str]:
    return {names[key]: "down" for key in sorted(pinned) if key in names}


def salt(key: Key) -> str:
    """The same on every balancer, so that a client has one bucket (and cookie) everywhere, and another in each service."""
    return paths.digest(f"{key.service}\0{key.index}".encode())


def moved(maps: Maps, names: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """The tables with every backend under its new name."""
    by_key = {t: {names[b]: v for b, v in getattr(maps, t).items()} for t in ("ways", "least", "pins")}
    return {**by_key, **{t: {_renamed(k, names): names[b] for k, b in getattr(maps, t).items()} for t in BETWEEN}}


def kept(maps: Maps, there: set[str]) -> dict[str, Mapping[str, str]]:
    """What a running HAProxy can serve that has these backends only."""
    by_key = {t: {b: v for b, v in getattr(maps, t).items() if b in there} for t in ("ways", "least", "pins")}
    between = {
        t: {k: b for k, b in getattr(maps, t).items() if b in there and k.partition(":")[0] in there} for t in BETWEEN
    }
    return {**by_key, **between}


BETWEEN = ("shares", "falls")
"""`<backend>:<what>` -> backend."""


def _renamed(key: str, names: Mapping[str, str]) -> str:
    backend, _, what = key.partition(":")
    return f"{names[backend]}:{what}"


# --- targets that nobody wrote a route for ---------------------------------------------------------------------------


def with_targets(snapshot: Snapshot, derived: Derive) -> Snapshot:
    """Whoever gets a share needs a backend, also when nobody routes to it otherwise."""
    named = sources(snapshot.policies)
    if not named:
        return snapshot
    nothing: Mapping[str, Member] = {}
    labelled = {s: found[0] for s in named if (found := derived(s, snapshot.members.get(s, nothing))) is not None}
    more = routed_targets(snapshot.policies, {**labelled, **snapshot.routes}, snapshot.members)
    return replace(snapshot, routes={**more, **snapshot.routes}) if more else snapshot


def routed_targets(
    policies: Mapping[str, AnyPolicy], route_of: Mapping[str, Route], members: Mapping[str, Mapping[str, Member]]
) -> Mapping[str, Route]:
    """Routes for targets that run and have none: as the service's own, without its hosts and ports."""
    found: dict[str, Route] = {}
    for service, index, to, to_index in _pairs(policies):
        source = next((p for p in route_of[service].ports if p.index == index), None) if service in route_of else None
        if source is not None and to not in route_of and to not in found and members.get(to):
            port = msgspec.structs.replace(source, index=to_index, name="", service_port=0, vhosts=(), path="")
            app = next(iter(members[to].values())).task.app
            found[to] = Route(service=to, app=app, ports=(port,), source="split")
    return found


def heirs(
    policies: Mapping[str, AnyPolicy], copied: Collection[str], there: Collection[str]
) -> Mapping[str, list[str]]:
    """Of the targets in `copied`: whose requests they get, of those that are `there`."""
    found: dict[str, list[str]] = {}
    for service, _, to, _ in sorted(_pairs(policies)) if copied else ():
        if to in copied and service in there and service not in found.setdefault(to, []):
            found[to].append(service)
    return found


def _pairs(policies: Mapping[str, AnyPolicy]) -> Iterator[tuple[str, int, str, int]]:
    for split, _ in _splits(policies).values():
        yield from ((split.service, split.index, s.service, s.index) for s in split.shares)
    for failover in of_kind(policies, Failover).values():
        yield from ((failover.service, failover.index, t.service, t.index) for t in failover.to)
    for router in of_kind(policies, Router).values():
        for leg in router.route:
            to = subset_of(leg.destination.service or router.service, leg.destination.service_subset)
            if to != router.service:
                yield router.service, router.index, to, leg.destination.index
    for resolver in of_kind(policies, Resolver).values():
        if resolver.redirect is not None:
            yield resolver.service, 0, subset_of(resolver.redirect.service, resolver.redirect.service_subset), 0


def owners(policies: Mapping[str, AnyPolicy]) -> frozenset[str]:
    """Services whose requests policies speak of."""
    return frozenset(p.service for p in policies.values() if isinstance(p, Split | Failover | Canary | Router))


def sources(policies: Mapping[str, AnyPolicy]) -> frozenset[str]:
    """Services whose requests go elsewhere too, and those they go to."""
    return frozenset(s for pair in _pairs(policies) for s in (pair[0], pair[2]))

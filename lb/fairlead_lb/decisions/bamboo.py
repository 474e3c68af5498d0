"""Bamboo's rules: what an ACL claims for a service, beside what the service's own route asks for.

Hosts and beginnings of paths are entries of a map; all else are lines of the frontend, which take only requests that no
host or path takes. So no rule, however broad, takes requests from a service that has named its host.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.policies import Bamboo, of_kind
from fairlead_discovery.records import Route, RoutePort
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import grammar, map_keys
from fairlead_lb.decisions.acl import Alternative, Grammar, parse
from fairlead_lb.decisions.conditions import Condition

SOURCE = "bamboo"
KEYS_LIMIT = 512
"""Hosts times paths of one rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """Settings that decide over rules."""

    framework: str = "marathon"
    raw: bool = False
    defaults: bool = False
    """Every app without a rule is reached below its id, as in Bamboo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """`keys` as in `map_keys`; `rules` are in the order they were written."""

    keys: tuple[str, ...] = ()
    rules: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """Claims by service, and what is wrong with others."""

    claims: Mapping[str, Claims] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def default_acl(app: str) -> str:
    return f"path_beg -i {app}"


@functools.lru_cache(maxsize=16_384)
def claims_of(acl: str, app: str, grammar_: Grammar) -> Claims:
    """An empty `acl` is Bamboo's default rule. Raises Refused with the column."""
    keys: dict[str, None] = {}
    rules: list[Alternative] = []
    for alternative in parse(acl.strip() or default_acl(app), grammar_):
        found = _keys(alternative)
        if found is None:
            rules.append(tuple(map(_at_segments, alternative)))
        else:
            keys |= dict.fromkeys(found)
    if len(keys) > KEYS_LIMIT:
        raise Refused(f"{len(keys)} hosts times paths: at most {KEYS_LIMIT}")
    return Claims(keys=tuple(keys), rules=tuple(rules))


def ruled(snapshot: Snapshot, last: Ruled, manner: Manner) -> Ruled:
    """A rule that cannot be taken leaves the service its last good one."""
    found: dict[str, Claims] = {}
    refused: dict[str, str] = {}
    for service, acl in _asked(snapshot, manner):
        try:
            found[service] = claims_of(acl, paths.split_service_key(service)[1], Grammar(raw=manner.raw))
        except Refused as error:
            good = last.claims.get(service)
            refused[service] = f"bamboo rule: {error}{'; its last good one stays' if good is not None else ''}"
            if good is not None:
                found[service] = good
    for service, claims in last.claims.items():
        if service not in found and paths.below(paths.POLICIES, f"bamboo~{service}") in snapshot.bad:
            found[service] = claims
    return Ruled(claims=found, refused=refused)


def _asked(snapshot: Snapshot, manner: Manner) -> Iterator[tuple[str, str]]:
    given = of_kind(snapshot.policies, Bamboo)
    yield from ((service, policy.acl) for service, policy in given.items())
    ours = paths.service_key(manner.framework, "/")
    for service in {*snapshot.routes, *snapshot.members} - given.keys() if manner.defaults else ():
        if service.startswith(ours) and _speaks_http(snapshot.routes.get(service)):
            yield service, ""


def _speaks_http(route: Route | None) -> bool:
    """A service that speaks plain TCP gets no rule that it did not ask for."""
    return route is None or any(p.mode == "http" for p in route.ports[:1])


def routed(snapshot: Snapshot, claims: Mapping[str, Claims]) -> Snapshot:
    """The same with HTTP on the ports that rules lead to: a virtual host makes a port HTTP, as in marathon-lb."""
    turned = {
        service: as_http(route) for service in claims if (route := snapshot.routes.get(service)) is not None
    }  # fmt: skip
    return replace(snapshot, routes={**snapshot.routes, **turned}) if turned else snapshot


def derived(
    service: str, found: tuple[Route, tuple[str, ...]] | None, claims: Mapping[str, Claims]
) -> tuple[Route, tuple[str, ...]] | None:
    """A route for a service that nobody wrote one for, when a rule leads to it."""
    if service not in claims:
        return found
    if found is not None:
        return as_http(found[0]), found[1]
    name = paths.split_service_key(service)[1]
    app = name if name.startswith("/") else ""
    return Route(service=service, app=app, ports=(RoutePort(index=0),), source=SOURCE), ()


def as_http(route: Route) -> Route:
    """Its first port with mode http; the very same route when it has that already."""
    first = min(route.ports, key=lambda p: p.index, default=None)
    if first is None or first.mode == "http":
        return route
    http = msgspec.structs.replace(first, mode="http")
    return msgspec.structs.replace(route, ports=tuple(http if p is first else p for p in route.ports))


# --- from conditions to keys


def _keys(alternative: Alternative) -> tuple[str, ...] | None:
    """None when maps cannot hold it."""
    hosts = [c for c in alternative if c.subject == "host"]
    begins = [c for c in alternative if _begins(c)]
    if len(hosts) > 1 or len(begins) > 1 or len(hosts) + len(begins) < len(alternative):
        return None
    try:
        names = [_host(hosts[0].match, p) for p in hosts[0].patterns] if hosts else [map_keys.ANY_HOST]
        places = [grammar.path(p) for p in begins[0].patterns] if begins else [""]
    except Refused:
        return None
    if any(c.negated for c in alternative):
        return None
    folds = [p != p.swapcase() and begins[0].fold for p in places] if begins else [False]
    return tuple(
        map_keys.key(host, place, fold=fold) for host in names for place, fold in zip(places, folds, strict=True)
    )


def _begins(condition: Condition) -> bool:
    return condition.match == "beg" and (
        condition.subject == "path" or (condition.subject == "url" and not any("?" in p for p in condition.patterns))
    )


def _host(match: str, pattern: str) -> str:
    """A virtual host. Raises Refused for what is none."""
    if match == "end" and pattern.startswith("."):
        return grammar.vhost(f"*{pattern}")
    if match != "str":
        raise Refused(f"{match}: no virtual host")
    return grammar.vhost(pattern)


def _at_segments(condition: Condition) -> Condition:
    """A beginning of a path ends at a segment also where a map cannot hold it: `/svc1` is not `/svc10`."""
    if condition.subject != "path" or condition.match != "beg":
        return condition
    ended = tuple(f"{p.removesuffix('/')}/" for p in condition.patterns)
    return msgspec.structs.replace(condition, subject="segment", patterns=ended)

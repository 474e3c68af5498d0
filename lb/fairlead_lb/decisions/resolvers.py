"""Which tasks of a service answer for it: subsets, another service instead, limits and the choice of a server.

The words are Consul's (`service-resolver`). A subset is a service of its own for everything that comes after: it is called
`<service>@<subset>`, has the tasks that its filter takes, and the service's route without its hosts and ports. Its
servers are the service's, and so are the intentions that count for it.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import AnyPolicy, Intentions, LoadBalancer, Resolver, of_kind, subset_of
from fairlead_discovery.records import Member, Route, RoutePort
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import splits
from fairlead_lb.decisions.values import Key, Maps

MOST_SUBSETS = 16
MOST_TERMS = 8
POLICIES = {
    "": "",
    "round_robin": "roundrobin",
    "least_request": "leastconn",
    "random": "random",
    "ring_hash": "",
    "maglev": "",
}
"""In HAProxy's words; a hash of what it is made of."""
HASHED = ("ring_hash", "maglev")
FIELDS = {"header": "hdr({})", "query_parameter": "url_param({})", "cookie": "cookie({})"}
_SUBSET = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_TERM = re.compile(
    r'(?:Service\.Meta\.)?(?P<name>[A-Za-z][A-Za-z0-9_./-]{0,127}) *(?P<sign>==|!=|=) *(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]+))',
    re.ASCII,
)
_AND = re.compile(r"\s+and\s+")
Derive = Callable[[str, Mapping[str, Member]], tuple[Route, tuple[str, ...]] | None]
"""As in `routes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """Of a filter: a label, or else what is known of the task (see `known`), is that value, or is not."""

    name: str
    value: str
    negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """`of`: subsets that somebody names, and whose they are; `instead`: who answers for whom."""

    resolvers: Mapping[str, Resolver] = field(default_factory=dict)
    of: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def checked(resolver: Resolver) -> Resolver:
    """The same, if it makes sense. Raises Refused naming the field."""
    if len(resolver.subsets) > MOST_SUBSETS:
        raise Refused(f"{len(resolver.subsets)} subsets; at most {MOST_SUBSETS}")
    for name, subset in resolver.subsets.items():
        if not _SUBSET.fullmatch(name):
            raise Refused(f"subset {name[:40]!r}: lower case letters, digits and dashes, 32 at most")
        try:
            terms(subset.filter)
        except Refused as error:
            raise Refused(f"subset {name}: {error}") from error
    if resolver.default_subset and resolver.default_subset not in resolver.subsets:
        raise Refused(f"default_subset {resolver.default_subset[:40]!r}: is none of its subsets")
    for what, value, most in (
        ("connect_timeout", resolver.connect_timeout_s, 60.0),
        ("request_timeout", resolver.request_timeout_s, 86_400.0),
    ):
        if value and not 0.01 <= value <= most:
            raise Refused(f"{what} {value:g} s: not between 10 ms and {most:g} s")
    if resolver.redirect is not None:
        _check_redirect(resolver)
    balance(resolver.load_balancer)
    return resolver


def _check_redirect(resolver: Resolver) -> None:
    to = resolver.redirect
    assert to is not None
    if to.service in ("", resolver.service):
        raise Refused("redirect: needs another service; for a subset of its own there is default_subset")
    if resolver.subsets or resolver.default_subset or resolver.load_balancer != LoadBalancer():
        raise Refused("redirect: stands alone, as nobody's tasks answer here")


def terms(text: str) -> tuple[Term, ...]:
    """`version == v2 and zone != north`; empty takes every task. Raises Refused with what cannot be read."""
    parts = _AND.split(text.strip()) if text.strip() else []
    if len(parts) > MOST_TERMS or len(text) > 512:
        raise Refused(f"filter: at most {MOST_TERMS} terms, and 512 characters")
    found = []
    for part in parts:
        one = _TERM.fullmatch(part)
        if one is None:
            raise Refused(f"filter: {part[:60]!r}: only NAME == VALUE and NAME != VALUE, joined by `and`")
        value = one["quoted"] if one["bare"] is None else one["bare"]
        found.append(Term(name=one["name"], value=value, negated=one["sign"] == "!="))
    return tuple(found)


def taken(member: Member, wanted: tuple[Term, ...]) -> bool:
    return all((known(member, term.name) == term.value) is not term.negated for term in wanted)


def known(member: Member, name: str) -> str | None:
    """A label's value; without such a label the task's version, agent, framework or app, or its zone or region."""
    if name in member.discovery.labels:
        return member.discovery.labels[name]
    task = member.task
    of_task = {"version": task.version, "agent": task.agent, "framework": task.framework, "app": task.app}
    return {**of_task, "zone": member.zone, "region": member.region}.get(name)


def balance(how: LoadBalancer) -> str:
    """In HAProxy's words; "" where nothing is said. Raises Refused."""
    if how.policy not in POLICIES:
        raise Refused(f"load_balancer: policy {how.policy[:40]!r}: one of {', '.join(filter(None, POLICIES))}")
    if how.policy not in HASHED:
        if how.hash_policies:
            raise Refused("load_balancer: hash_policies need policy ring_hash or maglev")
        return POLICIES[how.policy]
    if len(how.hash_policies) != 1:
        raise Refused(f"load_balancer: {len(how.hash_policies)} hash_policies; HAProxy hashes by one thing")
    [one] = how.hash_policies
    if one.source_ip and not one.field:
        return "source"
    if one.field == "path" and not one.source_ip:
        return "uri"
    if one.field not in FIELDS or one.source_ip:
        raise Refused("load_balancer: a hash policy says source_ip, or a field of path, " + ", ".join(FIELDS))
    if not _NAME.fullmatch(one.field_value):
        raise Refused(f"load_balancer: field_value {one.field_value[:40]!r}: no name of a {one.field}")
    return FIELDS[one.field].format(one.field_value)


def resolved(snapshot: Snapshot, derived: Derive) -> tuple[Snapshot, Resolved]:
    """With the subsets that are asked for beside their services, and routes as their resolvers say. All resolvers of the
    snapshot have passed `checked`.
    """
    resolvers = of_kind(snapshot.policies, Resolver)
    if not resolvers:
        return snapshot, Resolved()
    nobody: Mapping[str, Member] = {}
    taken_names = {subset_of(s, name): s for s, resolver in resolvers.items() for name in resolver.subsets}
    snapshot, strangers = _without_namesakes(snapshot, taken_names)
    asked = splits.sources(snapshot.policies) | splits.owners(snapshot.policies)
    members, routes = dict(snapshot.members), dict(snapshot.routes)
    of: dict[str, str] = {}
    problems: dict[str, list[str]] = {service: [why] for service, why in strangers.items()}
    for service, resolver in resolvers.items():
        if service in taken_names:
            problems.setdefault(service, []).append(f"resolver: a subset of {taken_names[service]} has none of its own")
            continue
        there = snapshot.members.get(service, nobody)
        found = snapshot.routes.get(service) or _first(derived(service, there))
        route = None if found is None else _tuned(found, resolver, problems.setdefault(service, []))
        if route is not None and route != found:
            routes[service] = route
        for name, subset in resolver.subsets.items():
            key, some = subset_of(service, name), _those(there, subset.filter)
            if key in asked:
                of[key] = service
                members |= {key: some} if some else {}
                routes |= {key: _bare(route, key, name)} if route is not None else {}
            if name == resolver.default_subset:
                members[service] = some
    policies = _without_words_of_their_own(snapshot.policies, of, problems)
    told = {service: "; ".join(why) for service, why in problems.items() if why}
    after = replace(
        snapshot, members={s: m for s, m in members.items() if m}, routes=routes, policies=policies, delta=None
    )
    instead = {
        s: subset_of(r.redirect.service, r.redirect.service_subset)
        for s, r in resolvers.items()
        if r.redirect and s not in taken_names
    }
    return after, Resolved(resolvers=resolvers, of=of, instead=instead, problems=told)


def _without_namesakes(snapshot: Snapshot, subsets: Mapping[str, str]) -> tuple[Snapshot, Mapping[str, str]]:
    """Without services that are called as a subset is, and why: whoever may announce a name would get its requests."""
    found = {s: f"not served: a subset of {subsets[s]} has this name" for s in subsets
             if snapshot.members.get(s) or s in snapshot.routes}  # fmt: skip
    if not found:
        return snapshot, found
    members = {s: m for s, m in snapshot.members.items() if s not in found}
    routes = {s: r for s, r in snapshot.routes.items() if s not in found}
    return replace(snapshot, members=members, routes=routes, delta=None), found


def _without_words_of_their_own(
    policies: Mapping[str, AnyPolicy], of: Mapping[str, str], problems: dict[str, list[str]]
) -> Mapping[str, AnyPolicy]:
    """Who may call a service is said of it alone: an intention of a subset would stand in the place of the service's."""
    own = {name: p.service for name, p in policies.items() if isinstance(p, Intentions) and p.service in of}
    for service in own.values():
        problems.setdefault(of[service], []).append(f"intentions of {service}: those of {of[service]} count")
    return {name: p for name, p in policies.items() if name not in own} if own else policies


def _first(labelled: tuple[Route, tuple[str, ...]] | None) -> Route | None:
    return None if labelled is None else labelled[0]


def _those(members: Mapping[str, Member], text: str) -> Mapping[str, Member]:
    wanted = terms(text)
    return {name: one for name, one in members.items() if taken(one, wanted)}


def _bare(route: Route, key: str, subset: str) -> Route:
    """Nobody comes to a subset but by its service."""
    ports = tuple(
        msgspec.structs.replace(p, service_port=0, vhosts=(), path="") for p in route.ports if p.mode != "tls"
    )
    return msgspec.structs.replace(route, service=key, app=f"{route.app}@{subset}" if route.app else "", ports=ports)


def _tuned(route: Route, resolver: Resolver, problems: list[str]) -> Route:
    ports = tuple(_tuned_port(port, resolver, problems) for port in route.ports)
    return route if ports == route.ports else msgspec.structs.replace(route, ports=ports)


def _tuned_port(port: RoutePort, resolver: Resolver, problems: list[str]) -> RoutePort:
    how = balance(resolver.load_balancer)
    if port.mode != "http" and ("(" in how or how == "uri"):
        problems.append(f"load_balancer: port {port.index} is {port.mode}, where nobody sees headers and paths")
        how = ""
    traffic = port.traffic
    if resolver.connect_timeout_s:
        traffic = msgspec.structs.replace(traffic, connect_timeout_s=resolver.connect_timeout_s)
    return msgspec.structs.replace(
        port,
        balance=how or port.balance,
        timeout_server_s=resolver.request_timeout_s or port.timeout_server_s,
        traffic=traffic,
    )


def services(found: Resolved) -> frozenset[str]:
    """Whose tasks are looked at more than once, or not at all; with every name that a subset has."""
    subsets = (subset_of(s, name) for s, resolver in found.resolvers.items() for name in resolver.subsets)
    return frozenset({*found.resolvers, *found.instead.values(), *subsets})


def heirs(found: Resolved, others: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    """Who may not call a service may not call its subsets; `others`: as known without them."""
    return {
        key: list(dict.fromkeys((service, *others.get(service, ()), *others.get(key, ()))))
        for key, service in found.of.items()
    }


def base(found: Resolved, key: Key) -> Key:
    """Whose servers these are: they show its certificate."""
    return Key(found.of.get(key.service, key.service), key.index)


# --- redirects -------------------------------------------------------------------------------------------------------


def redirects(
    found: Resolved, modes: Mapping[Key, str], busy: Collection[Key]
) -> tuple[Mapping[Key, Key], Mapping[str, str]]:
    """Port -> who answers for it, and by service why not. `busy`: ports with a router, a split or a failover, which counts."""
    made: dict[Key, Key] = {}
    problems: dict[str, str] = {}
    for service, other in found.instead.items():
        keys = [key for key in modes if key.service == service]
        why = "" if keys else f"{service} has no route"
        for key in keys:
            to = Key(other, key.index)
            why = why or _why_not(key, to, found, modes, busy)
            if not why:
                made[key] = to
        if why:
            problems[service] = f"redirect to {other}: {why}"
    return made, problems


def _why_not(key: Key, to: Key, found: Resolved, modes: Mapping[Key, str], busy: Collection[Key]) -> str:
    if key in busy:
        return f"{key} has a router, a split or a failover, which counts instead"
    if to.service in found.instead:
        return "it is redirected itself"
    if to not in modes:
        return f"nothing is known of {to}"
    return "" if modes[to] == modes[key] else f"{to} is {modes[to]}, not {modes[key]}"


def redirected(maps: Maps, instead: Mapping[Key, Key], names: Mapping[Key, str]) -> Maps:
    """Whatever pointed to one's backend points to the other's."""
    if not instead:
        return maps
    moved = {names[key]: names[to] for key, to in instead.items()}
    tables = ("hosts", "ports", "vips", "names", "targets", "shares", "falls", "hops")
    found = {t: {k: moved.get(b, b) for k, b in getattr(maps, t).items()} for t in tables}
    return msgspec.structs.replace(maps, **found)

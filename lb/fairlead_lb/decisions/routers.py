"""Where requests for a port lead by what they say: routers of operators, checked, as values a balancer can hold.

The words are Consul's (`service-router`), and mean what they mean there: the first leg that fits takes the request, a
prefix is one of characters, an expression is of the whole value. A request that no leg takes stays with the service.
The destination's own splits, failovers, intentions and traffic rules count for whatever is led to it; its router does not.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.words import shown
from fairlead_discovery.policies import AnyPolicy, Destination, HeaderChange, Router, RouterLeg, of_kind, subset_of
from fairlead_lb.decisions import router_lines
from fairlead_lb.decisions.intentions import AMBIGUOUS
from fairlead_lb.decisions.router_lines import FrontLeg, FrontRouter, HeaderLine
from fairlead_lb.decisions.router_matches import MOST_REGEXES, conditions, regexes
from fairlead_lb.decisions.values import Key, Maps

MOST_LEGS = 64
"""Of one router: HAProxy looks at them one by one."""
MOST_HEADERS = 16
"""Changed on the way, of each kind."""
MOST_TIMEOUT_S = 86_400.0
_KEPT = re.compile(
    r"(connection|content-length|http2-settings|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|x.fairlead.*)",
    re.ASCII | re.IGNORECASE,
)
"""Headers that frame the message, or by which we speak ourselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """A router in force. `to`: where each leg leads; None: nowhere, as nothing is known of it."""

    front: FrontRouter
    to: tuple[Key | None, ...]


Leads = Mapping[Key, Lead]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`problems` by service: what of its router is not in force."""

    leads: Leads = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def checked(router: Router) -> FrontRouter:
    """As lines can hold it. Raises Refused naming the leg and the field."""
    if not 1 <= len(router.route) <= MOST_LEGS:
        raise Refused(f"{len(router.route)} routes; between 1 and {MOST_LEGS}")
    if sum(regexes(leg.match) for leg in router.route) > MOST_REGEXES:
        raise Refused(f"at most {MOST_REGEXES} regular expressions: HAProxy tries them one by one")
    legs = []
    for number, leg in enumerate(router.route, 1):
        try:
            legs.append(_front(leg))
        except Refused as error:
            raise Refused(f"route {number}: {error}") from error
    text = msgspec.json.encode((router.service, router.index, legs))
    return FrontRouter(id=hashlib.sha256(text).hexdigest()[:16], service=router.service, legs=tuple(legs))


def _front(leg: RouterLeg) -> FrontLeg:
    there = leg.destination
    if there.num_retries not in (-1, 0):
        raise Refused(
            f"num_retries {there.num_retries}: 0 or nothing; how often a service's requests are repeated says its"
            " route (traffic: retries, retry_on)"
        )
    if there.request_timeout_s and not 0.001 <= there.request_timeout_s <= MOST_TIMEOUT_S:
        raise Refused(f"request_timeout {there.request_timeout_s:g} s: not between 1 ms and {MOST_TIMEOUT_S:g} s")
    taken = leg.match.path_exact or leg.match.path_prefix
    if there.prefix_rewrite:
        if not taken:
            raise Refused("prefix_rewrite needs path_prefix or path_exact, in whose place it comes")
        if AMBIGUOUS.search(router_lines.rewrite(there.prefix_rewrite)):
            raise Refused(f"prefix_rewrite {shown(there.prefix_rewrite)}: servers differ in what they take it for")
    return FrontLeg(
        conditions=conditions(leg.match),
        taken=len(taken) if there.prefix_rewrite else 0,
        rewrite=there.prefix_rewrite,
        timeout_ms=round(there.request_timeout_s * 1000),
        once=there.num_retries == 0,
        request=tuple(_headers(there.request_headers, "request_headers")),
        response=tuple(_headers(there.response_headers, "response_headers")),
    )


def _headers(change: HeaderChange, place: str) -> Iterator[HeaderLine]:
    for verb, pairs in (
        ("del-header", dict.fromkeys(change.remove, "")),
        ("set-header", change.set),
        ("add-header", change.add),
    ):
        if len(pairs) > MOST_HEADERS:
            raise Refused(f"{place}: {len(pairs)} headers; at most {MOST_HEADERS}")
        for name, value in sorted(pairs.items()):
            if _KEPT.fullmatch(name):
                raise Refused(f"{place}: {name}: the balancer's own")
            try:
                yield verb, router_lines.header_name(name), router_lines.header_value(value) if value else ""
            except Refused as error:
                raise Refused(f"{place}: {error}") from error
            if not value and verb != "del-header":
                raise Refused(f"{place}: {name}: has no value; `remove` takes it away")


def leads(policies: Mapping[str, AnyPolicy], modes: Mapping[Key, str]) -> Found:
    """Of routers that `last_good` let through. `modes`: of every port that has a backend."""
    found: dict[Key, Lead] = {}
    problems: dict[str, str] = {}
    for service, router in of_kind(policies, Router).items():
        key = Key(service, router.index)
        if modes.get(key) != "http":
            problems[service] = f"router: {key} " + (f"is {modes[key]}, not http" if key in modes else "has no route")
            continue
        to = [destination(router, leg.destination) for leg in router.route]
        told = dict.fromkeys(_strange(to, modes))
        found[key] = Lead(front=checked(router), to=tuple(k if modes.get(k) == "http" else None for k in to))
        if told:
            problems[service] = "; ".join(told)
    return Found(leads=found, problems=problems)


def destination(router: Router, there: Destination) -> Key:
    service, index = (there.service, there.index) if there.service else (router.service, there.index or router.index)
    return Key(subset_of(service, there.service_subset), index)


def _strange(to: Iterable[Key], modes: Mapping[Key, str]) -> Iterator[str]:
    for number, key in enumerate(to, 1):
        if key not in modes:
            yield f"router: route {number} to {key}: nothing is known of it; it is answered with 503"
        elif modes[key] != "http":
            yield f"router: route {number} to {key}: it is {modes[key]}, not http; it is answered with 503"


def timed(leads: Leads) -> frozenset[Key]:
    """Ports that are given requests with a time limit of their own."""
    return frozenset(
        to
        for lead in leads.values()
        for leg, to in zip(lead.front.legs, lead.to, strict=True)
        if leg.timeout_ms and to is not None
    )


def services(leads: Leads) -> frozenset[str]:
    """Those with a router, and those that one leads to."""
    to = {k.service for lead in leads.values() for k in lead.to if k is not None}
    return frozenset(to | {key.service for key in leads})


def fronts(leads: Leads) -> tuple[FrontRouter, ...]:
    """In an order of their own: they do not see each other."""
    return tuple(lead.front for _, lead in sorted(leads.items()))


# --- maps ----------------------------------------------------------------------------------------------------------


def with_leads(maps: Maps, leads: Leads, names: Mapping[Key, str], salt: str = "0") -> Maps:
    """`names`: of every backend. Whoever has a router has a way, or HAProxy would not look for it."""
    if not leads:
        return maps
    there = {names[key]: lead for key, lead in leads.items()}
    hops = {
        router_lines.hop(lead.front, number): names[to]
        for lead in there.values()
        for number, to in enumerate(lead.to, 1)
        if to is not None
    }
    routers = {name: lead.front.id for name, lead in there.items()}
    ways = {**dict.fromkeys(there, f"none:{salt}"), **maps.ways}
    return msgspec.structs.replace(maps, routers=routers, hops=hops, ways=ways)


def moved(maps: Maps, names: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """The tables with every backend under its new name."""
    return {
        "routers": {names[b]: router for b, router in maps.routers.items()},
        "hops": {hop: names[b] for hop, b in maps.hops.items()},
    }


def kept(maps: Maps, there: Collection[str], known: Collection[str]) -> dict[str, Mapping[str, str]]:
    """What a running HAProxy can serve that has these backends and routers only."""
    routers = {b: router for b, router in maps.routers.items() if b in there and router in known}
    hops = {hop: b for hop, b in maps.hops.items() if b in there and _router(hop) in known}
    return {"routers": routers, "hops": hops}


def waiting(now: Maps, target: Maps, wanted: Maps) -> Maps:
    """The target, with routers and destinations that are there as they are, until the reload that brings the new ones."""
    routers = {**{b: r for b, r in now.routers.items() if b in wanted.routers}, **target.routers}
    old = {
        hop: b
        for hop, b in now.hops.items()
        if _router(hop) in routers.values() and (hop in wanted.hops or _router(hop) not in wanted.routers.values())
    }
    return msgspec.structs.replace(target, routers=routers, hops={**old, **target.hops})


def _router(hop: str) -> str:
    return hop.partition(".")[0]

"""Consul's config entries as ours: `service-router`, `service-splitter`, `service-resolver`, `service-intentions`.

What says the same is taken; what has no counterpart is refused by name, with its whole entry where the rest would mean
something else without it. An intention is refused rather than opened by a word.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.identity import ANONYMOUS
from fairlead_discovery.policies import (
    AnyPolicy,
    Destination,
    Failover,
    HashPolicy,
    HeaderChange,
    HeaderMatch,
    Intentions,
    LoadBalancer,
    QueryMatch,
    Redirect,
    Resolver,
    RouteMatch,
    Router,
    RouterLeg,
    Share,
    Source,
    Split,
    Subset,
    Target,
    name_of,
    subset_of,
)
from fairlead_lb.decisions import buckets, intentions, resolvers, routers, splits
from fairlead_lb.decisions.consul_fields import Fields, Names

_ELSEWHERE = ("Namespace", "Partition", "Datacenter", "Datacenters", "Peer", "SamenessGroup")
_NO_ELSEWHERE = "other datacenters, partitions and peers have no counterpart; zones are `locality`, sites `failover`"
_BOOKKEEPING = ("Kind", "Name", "Meta", "CreateIndex", "ModifyIndex", "Hash", "EnterpriseMeta")
_RETRIES = ("NumRetries", "RetryOnConnectFailure", "RetryOn", "RetryOnStatusCodes")


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}", re.ASCII)
NOBODY = Source(name=ANONYMOUS, action=intentions.DENY)
"""In each record that is made: nobody reaches a service of Consul's mesh without an identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """`policies` by their nodes' names. `left`: what of them was not taken over and changes no way; `refused`: entries.

    `closed`: what intentions say beyond their entries' words, as it goes without saying in Consul.
    """

    policies: Mapping[str, AnyPolicy] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One that was read. `place`: its file, kind and name."""

    place: str
    policies: tuple[AnyPolicy, ...]
    left: tuple[str, ...]


def imported(
    files: Iterable[tuple[str, bytes]], names: Names, there: Mapping[str, AnyPolicy] | None = None
) -> Imported:
    """Of files with one entry each or a list of them. Raises Refused for a file that is no JSON.

    `there`: the registry's, by their nodes' names; without it, subsets of services that no entry resolves are believed.
    """
    read: list[_Entry] = []
    refused: list[str] = []
    lost: set[str] = set()
    for place, data in files:
        for entry in _entries(place, data):
            try:
                read.append(_once(_read(entry, place, names), read, place))
            except Refused as error:
                refused.append(str(error))
                lost |= _resolved_by(entry, place, names)
    kept, unfounded = _founded(read, lost, there)
    policies = {name_of(policy): policy for entry in kept for policy in entry.policies}
    return Imported(
        policies=policies,
        left=tuple(text for entry in kept for text in entry.left),
        refused=(*refused, *unfounded),
        closed=tuple(_closed(policy) for policy in policies.values() if isinstance(policy, Intentions)),
    )


def _closed(record: Intentions) -> str:
    what = "every service" if record.service == intentions.ANYBODY else record.service
    to = f"'{record.service}'" if record.service == intentions.ANYBODY else record.service
    return (
        f"{what}: nobody may call without an identity, nor anybody that no source names, as Consul's default policy is"
        f" not known; `fairlead intention allow {ANONYMOUS} {to}` opens it to callers without an identity"
    )


# --- subsets that there are not ----------------------------------------------------------------------------------------


def _founded(
    read: list[_Entry], lost: Collection[str], there: Mapping[str, AnyPolicy] | None
) -> tuple[list[_Entry], list[str]]:
    """The entries that name no subset in vain, and the refusals of the others. `lost`: services whose resolver is refused.

    A resolver that is refused for it takes others with it.
    """
    kept, gone = list(read), set(lost)
    refused: list[str] = []
    while True:
        made = {name_of(policy): policy for entry in kept for policy in entry.policies}
        told = [(entry, why) for entry in kept if (why := _in_vain(entry, made, gone, there))]
        if not told:
            return kept, refused
        refused += [f"{entry.place}: {why}" for entry, why in told]
        kept = [entry for entry in kept if not any(entry is other for other, _ in told)]
        gone |= {p.service for entry, _ in told for p in entry.policies if isinstance(p, Resolver)}


def _in_vain(
    entry: _Entry, made: Mapping[str, AnyPolicy], gone: Collection[str], there: Mapping[str, AnyPolicy] | None
) -> str:
    """Why a subset that it names is none; "": all are, as far as can be known."""
    for key in (key for policy in entry.policies for key in _named(policy) if "@" in key):
        service, _, subset = key.rpartition("@")
        if service in gone:
            return f"{key}: the resolver of {service} is refused"
        node = name_of(Resolver(service=service))
        resolver = made.get(node) or (there or {}).get(node)
        if resolver is None and there is None:
            continue
        if not isinstance(resolver, Resolver) or subset not in resolver.subsets:
            return f"{key}: {service} has no subset {subset[:40]!r}"
    return ""


def _named(policy: AnyPolicy) -> Iterator[str]:
    """To whom it leads."""
    if isinstance(policy, Router):
        for leg in policy.route:
            yield subset_of(leg.destination.service or policy.service, leg.destination.service_subset)
    elif isinstance(policy, Split):
        yield from (share.service for share in policy.shares)
    elif isinstance(policy, Failover):
        yield from (target.service for target in policy.to)
    elif isinstance(policy, Resolver) and policy.redirect is not None:
        yield subset_of(policy.redirect.service, policy.redirect.service_subset)


def _resolved_by(entry: object, place: str, names: Names) -> set[str]:
    """The service that a refused entry is the resolver of, if it is one."""
    try:
        head = Fields(entry, place)
        return {names.ours(head.take("Name", str, ""))} if head.take("Kind", str, "") == RESOLVER else set()
    except Refused:
        return set()


# --- one entry ---------------------------------------------------------------------------------------------------------


def _once(found: _Entry, read: Iterable[_Entry], place: str) -> _Entry:
    made = {name_of(policy) for entry in read for policy in entry.policies}
    if twice := next((p for p in found.policies if name_of(p) in made), None):
        raise Refused(f"{place}: {name_of(twice)} is there twice")
    return found


def _entries(place: str, data: bytes) -> list[object]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{place}: {error} (config entries as JSON: `consul config read`)") from error
    return found if isinstance(found, list) else [found]


def _read(entry: object, place: str, names: Names) -> _Entry:
    head = Fields(entry, place)
    kind, name = head.take("Kind", str, ""), head.take("Name", str, "")
    reader = _READERS.get(kind)
    if reader is None:
        raise Refused(f"{place}: kind {kind[:60]!r}: one of {', '.join(_READERS)}")
    fields = Fields(entry, f"{place}: {kind} {name[:80]}")
    fields.drop(*_BOOKKEEPING)
    fields.must_not(_NO_ELSEWHERE, *_ELSEWHERE)
    service = "*" if kind == INTENTIONS and name == "*" else _ours(fields, names, name)
    told: list[str] = []
    found = reader(fields, service, names, told)
    fields.close()
    return _Entry(place=fields.place, policies=tuple(found), left=tuple(told))


def _ours(fields: Fields, names: Names, name: str) -> str:
    if name not in names.given and not _NAME.fullmatch(name):
        raise Refused(f"{fields.place}: {name[:80]!r}: no service's name")
    try:
        return names.ours(name)
    except Refused as error:
        raise Refused(f"{fields.place}: {error}") from error


def _checked(fields: Fields, check: Callable[[], object]) -> None:
    try:
        check()
    except Refused as error:
        raise Refused(f"{fields.place}: {error}") from error


# --- service-router ----------------------------------------------------------------------------------------------------


def _router(fields: Fields, service: str, names: Names, left: list[str]) -> list[AnyPolicy]:
    legs = tuple(_leg(one, names, left) for one in fields.each("Routes"))
    made = Router(service=service, route=legs)
    if not legs:
        return []
    _checked(fields, lambda: routers.checked(made))
    return [made]


def _leg(fields: Fields, names: Names, left: list[str]) -> RouterLeg:
    outer, to = fields.inner("Match"), fields.inner("Destination")
    http = outer.inner("HTTP")
    match = RouteMatch(
        path_exact=http.take("PathExact", str, ""),
        path_prefix=http.take("PathPrefix", str, ""),
        path_regex=http.take("PathRegex", str, ""),
        case_insensitive=http.take("CaseInsensitive", bool, False),
        header=tuple(_header(one) for one in http.each("Header")),
        query_param=tuple(_query(one) for one in http.each("QueryParam")),
        methods=http.texts("Methods"),
    )
    name = to.take("Service", str, "")
    to.must_not(_NO_ELSEWHERE, *_ELSEWHERE)
    to.leave(left, "HAProxy repeats by service: its route's traffic (retries, retry_on) says it", *_RETRIES)
    to.leave(left, "an idle connection is given up by its service's tunnel_timeout", "IdleTimeout")
    made = Destination(
        service=_ours(to, names, name) if name else "",
        service_subset=to.take("ServiceSubset", str, ""),
        prefix_rewrite=to.take("PrefixRewrite", str, ""),
        request_timeout_s=to.seconds("RequestTimeout"),
        request_headers=_headers(to, "RequestHeaders"),
        response_headers=_headers(to, "ResponseHeaders"),
    )
    for one in (http, outer, to, fields):
        one.close()
    return RouterLeg(match=match, destination=made)


def _header(fields: Fields) -> HeaderMatch:
    texts = {
        what: fields.take(what.title(), str, "") for what in ("name", "exact", "prefix", "suffix", "contains", "regex")
    }
    made = HeaderMatch(
        **texts,
        present=fields.take("Present", bool, False),
        ignore_case=fields.take("IgnoreCase", bool, False),
        invert=fields.take("Invert", bool, False),
    )
    fields.close()
    return made


def _query(fields: Fields) -> QueryMatch:
    texts = {what: fields.take(what.title(), str, "") for what in ("name", "exact", "regex")}
    made = QueryMatch(**texts, present=fields.take("Present", bool, False))
    fields.close()
    return made


def _headers(fields: Fields, name: str) -> HeaderChange:
    inner = fields.inner(name)
    made = HeaderChange(add=inner.take("Add", dict, {}), set=inner.take("Set", dict, {}), remove=inner.texts("Remove"))
    if not all(isinstance(value, str) for value in (*made.add.values(), *made.set.values())):
        raise Refused(f"{inner.place}: not texts")
    inner.close()
    return made


# --- service-splitter --------------------------------------------------------------------------------------------------


def _splitter(fields: Fields, service: str, names: Names, _left: list[str]) -> list[AnyPolicy]:
    """What goes to the service itself is what stays."""
    found: list[tuple[str, float]] = []
    for one in fields.each("Splits"):
        name = one.take("Service", str, "")
        to = subset_of(_ours(one, names, name) if name else service, one.take("ServiceSubset", str, ""))
        one.must_not("headers are changed by routers, not by shares", "RequestHeaders", "ResponseHeaders")
        one.must_not(_NO_ELSEWHERE, *_ELSEWHERE)
        found.append((to, one.take("Weight", float, 0.0)))
        one.close()
    if round(sum(weight for _, weight in found), 2) != buckets.BUCKETS / 100:
        raise Refused(f"{fields.place}: the weights are not 100 together")
    shares = tuple(Share(service=to, percent=weight) for to, weight in found if to != service and weight)
    made = Split(service=service, shares=shares)
    _checked(fields, lambda: splits.checked(made, "http"))
    return [made] if shares else []


# --- service-resolver --------------------------------------------------------------------------------------------------


def _resolver(fields: Fields, service: str, names: Names, left: list[str]) -> list[AnyPolicy]:
    subsets = {name: _subset(Fields(one, f"{fields.place}: Subsets {name}")) for name, one in _pairs(fields, "Subsets")}
    fields.must_not("near servers come first by the setting `locality`", "PrioritizeByLocality")
    balance = fields.inner("LoadBalancer")
    balance.leave(left, "HAProxy has no such number", "RingHashConfig", "LeastRequestConfig")
    made = Resolver(
        service=service,
        default_subset=fields.take("DefaultSubset", str, ""),
        subsets=subsets,
        redirect=_redirect(fields.inner("Redirect"), names),
        connect_timeout_s=fields.seconds("ConnectTimeout"),
        request_timeout_s=fields.seconds("RequestTimeout"),
        load_balancer=LoadBalancer(
            policy=balance.take("Policy", str, ""),
            hash_policies=tuple(_hash(one) for one in balance.each("HashPolicies")),
        ),
    )
    balance.close()
    _checked(fields, lambda: resolvers.checked(made))
    over = list(_failovers(fields, service, tuple(subsets), names))
    return [*([made] if made != Resolver(service=service) else []), *over]


def _pairs(fields: Fields, name: str) -> Iterator[tuple[str, object]]:
    return ((str(key), value) for key, value in fields.take(name, dict, {}).items())


def _subset(fields: Fields) -> Subset:
    """`OnlyPassing` is always so: tasks that fail their checks are withdrawn."""
    fields.drop("OnlyPassing")
    made = Subset(filter=fields.take("Filter", str, ""))
    fields.close()
    return made


def _redirect(fields: Fields, names: Names) -> Redirect | None:
    fields.must_not(_NO_ELSEWHERE, *_ELSEWHERE)
    name, subset = fields.take("Service", str, ""), fields.take("ServiceSubset", str, "")
    fields.close()
    if not name and subset:
        raise Refused(f"{fields.place}: ServiceSubset: without Service it is the DefaultSubset")
    return Redirect(service=_ours(fields, names, name), service_subset=subset) if name else None


def _hash(fields: Fields) -> HashPolicy:
    fields.drop("Terminal")  # there is only one
    fields.must_not("a cookie of the balancer's is `sticky` in the route", "CookieConfig")
    made = HashPolicy(
        field=fields.take("Field", str, ""),
        field_value=fields.take("FieldValue", str, ""),
        source_ip=fields.take("SourceIP", bool, False),
    )
    fields.close()
    return made


def _failovers(fields: Fields, service: str, subsets: tuple[str, ...], names: Names) -> Iterator[Failover]:
    """`*` counts for the service and each of its subsets that has none of its own."""
    found = {
        which: _targets(Fields(one, f"{fields.place}: Failover {which}"), service, subsets, names)
        for which, one in _pairs(fields, "Failover")
    }
    everyone = found.pop("*", ())
    for which in ("", *subsets):
        key = subset_of(service, which)
        to = found.pop(which, ()) if which else ()
        if to := to or tuple(t for t in everyone if t.service != key):
            made = Failover(service=key, to=to)
            _checked(fields, lambda made=made: splits.checked_failover(made))  # type: ignore[misc]  # bound now
            yield made
    if found:
        raise Refused(f"{fields.place}: Failover {next(iter(found))}: is none of its subsets")


def _targets(fields: Fields, service: str, subsets: tuple[str, ...], names: Names) -> tuple[Target, ...]:
    fields.must_not(_NO_ELSEWHERE, *_ELSEWHERE, "Policy")
    listed = list(fields.each("Targets"))
    found = []
    for one in listed or [fields]:
        one.must_not(_NO_ELSEWHERE, *_ELSEWHERE)
        name = one.take("Service", str, "")
        own, subset = _ours(one, names, name) if name else service, one.take("ServiceSubset", str, "")
        if own == service and subset and subset not in subsets:
            raise Refused(f"{one.place}: ServiceSubset {subset[:40]!r}: is none of its subsets")
        found.append(Target(service=subset_of(own, subset)))
        one.close()
    fields.close()
    return tuple(found)


# --- service-intentions ------------------------------------------------------------------------------------------------


def _intentions(fields: Fields, service: str, names: Names, left: list[str]) -> list[AnyPolicy]:
    """Closed to whom no source names: whether Consul's default policy is to allow is in none of its entries."""
    fields.must_not("identities are certificates here", "JWT")
    found = [source for one in fields.each("Sources") for source in _sources(one, names, left)]
    made = Intentions(service=service, sources=(*found, NOBODY), default=intentions.DENY)
    _checked(fields, lambda: intentions.checked(made))
    return [made] if found else []


def _sources(fields: Fields, names: Names, left: list[str]) -> list[Source]:
    name, action = fields.take("Name", str, ""), fields.take("Action", str, "")
    fields.drop("Description", "Precedence", "Type", "LegacyID", "LegacyMeta", "LegacyCreateTime", "LegacyUpdateTime")
    fields.must_not(_NO_ELSEWHERE, *_ELSEWHERE)
    caller = name if name == "*" else _ours(fields, names, name)
    given = [_permission(one, caller, left) for one in fields.each("Permissions")]
    fields.close()
    if bool(given) is bool(action):
        raise Refused(f"{fields.place}: one of Action and Permissions")
    for number, first in enumerate(given):
        if any(_outdone(first, later) for later in given[number + 1 :]):
            raise Refused(
                f"{fields.place}: Permissions {number + 1}: the first that fits counts there, the longest path here"
            )
    return given or [Source(name=caller, action=action)]


def _permission(fields: Fields, caller: str, left: list[str]) -> Source:
    fields.must_not("identities are certificates here", "JWT")
    action, http = fields.take("Action", str, ""), fields.inner("HTTP")
    http.must_not("intentions are of whole branches of paths", "PathExact", "PathRegex")
    http.must_not("intentions do not look at headers", "Header")
    prefix = http.take("PathPrefix", str, "")
    made = Source(
        name=caller, action=action, methods=http.texts("Methods"), paths=(prefix,) if prefix not in ("", "/") else ()
    )
    http.close()
    fields.close()
    if made.paths and (action == intentions.ALLOW) is prefix.endswith("/"):
        raise Refused(
            f"{fields.place}: PathPrefix {prefix}: paths end at segments here, so {action} {prefix} would let more in"
        )
    if made.paths:
        left.append(f"{fields.place}: PathPrefix {prefix}: ends at segments here")
    return made


def _outdone(first: Source, later: Source) -> bool:
    """Whether the later one would count where both fit and say otherwise."""
    ours, theirs = (s.paths[0].rstrip("/") if s.paths else "" for s in (first, later))
    nested = f"{ours}/".startswith(f"{theirs}/") or f"{theirs}/".startswith(f"{ours}/")
    meet = not first.methods or not later.methods or bool({*first.methods} & {*later.methods})
    ranks = [(len(path), bool(s.methods), s.action == intentions.DENY) for path, s in ((ours, first), (theirs, later))]
    return nested and meet and first.action != later.action and ranks[1] > ranks[0]


INTENTIONS = "service-intentions"
RESOLVER = "service-resolver"
_READERS: Mapping[str, Callable[[Fields, str, Names, list[str]], list[AnyPolicy]]] = {
    "service-router": _router,
    "service-splitter": _splitter,
    RESOLVER: _resolver,
    INTENTIONS: _intentions,
}

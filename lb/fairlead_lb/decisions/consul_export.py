"""Our routers, splits, resolvers, failovers and intentions as Consul's config entries. What it has no words for is named."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import (
    AnyPolicy,
    Canary,
    Failover,
    Intentions,
    Resolver,
    Router,
    RouterLeg,
    Source,
    Split,
)
from fairlead_lb.decisions.consul_fields import Names, duration, ordered, without_nothing
from fairlead_lb.decisions.consul_import import NOBODY
from fairlead_lb.decisions.intentions import ANYBODY

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """`entries` by kind and name. `refused`: policies, with the reason."""

    entries: tuple[Entry, ...]
    refused: tuple[str, ...]


def exported(policies: Iterable[AnyPolicy], names: Names) -> Exported:
    """Policies of a service's port beyond its first have no counterpart."""
    given = list(policies)
    found: list[Entry] = []
    refused: list[str] = []
    for policy in given:
        if (write := _WRITERS.get(type(policy))) is None:
            refused += [f"canary of {policy.service}: Consul has none"] if isinstance(policy, Canary) else []
            continue
        try:
            found.append(write(policy, names))
        except Refused as error:
            refused.append(f"{type(policy).__struct_config__.tag} of {policy.service}: {error}")
    entries, more = _with_failovers(found, [p for p in given if isinstance(p, Failover)], names)
    return Exported(entries=tuple(ordered(entries)), refused=(*refused, *more))


def _router(router: Router, names: Names) -> Entry:
    _first(router.index)
    return {
        "Kind": "service-router",
        "Name": names.theirs(router.service),
        "Routes": [_leg(r, names) for r in router.route],
    }


def _leg(leg: RouterLeg, names: Names) -> Entry:
    match, to = leg.match, leg.destination
    _first(to.index)
    if to.num_retries == 0:
        raise Refused("num_retries 0: Consul takes it for nothing said")
    http = {
        "PathExact": match.path_exact,
        "PathPrefix": match.path_prefix,
        "PathRegex": match.path_regex,
        "CaseInsensitive": match.case_insensitive,
        "Header": [_titled(one) for one in match.header],
        "QueryParam": [_titled(one) for one in match.query_param],
        "Methods": list(match.methods),
    }
    service, subset = _split(to.service, names) if to.service else ("", "")
    destination = {
        "Service": service,
        "ServiceSubset": to.service_subset or subset,
        "PrefixRewrite": to.prefix_rewrite,
        "RequestTimeout": duration(to.request_timeout_s) if to.request_timeout_s else "",
        "RequestHeaders": _titled(to.request_headers),
        "ResponseHeaders": _titled(to.response_headers),
    }
    asked = without_nothing(http)
    return without_nothing({"Match": {"HTTP": asked} if asked else None, "Destination": without_nothing(destination)})


def _titled(one: msgspec.Struct) -> dict[str, Any]:
    """`ignore_case` -> `IgnoreCase`, without what is not said."""
    found = msgspec.structs.asdict(one)
    return without_nothing({key.title().replace("_", ""): _listed(value) for key, value in found.items()})


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def _splitter(split: Split, names: Names) -> Entry:
    _first(split.index, *(share.index for share in split.shares))
    if split.sticky:
        raise Refused(f"sticky by {split.sticky}: Consul draws every request")
    rest = round(100 - sum(share.percent for share in split.shares), 2)
    shares = [_target(share.service, names) | {"Weight": share.percent} for share in split.shares]
    return {
        "Kind": "service-splitter",
        "Name": names.theirs(split.service),
        "Splits": [*([{"Weight": rest}] if rest else []), *shares],
    }


def _resolver(resolver: Resolver, names: Names) -> Entry:
    how, to = resolver.load_balancer, resolver.redirect
    hashed = [
        without_nothing({"Field": h.field, "FieldValue": h.field_value, "SourceIP": h.source_ip})
        for h in how.hash_policies
    ]
    redirect = {"Service": names.theirs(to.service), "ServiceSubset": to.service_subset} if to is not None else {}
    found = {
        "DefaultSubset": resolver.default_subset,
        "Redirect": without_nothing(redirect),
        "ConnectTimeout": duration(resolver.connect_timeout_s) if resolver.connect_timeout_s else "",
        "RequestTimeout": duration(resolver.request_timeout_s) if resolver.request_timeout_s else "",
        "LoadBalancer": without_nothing({"Policy": how.policy, "HashPolicies": hashed}),
    }
    subsets = {name: without_nothing({"Filter": subset.filter}) for name, subset in resolver.subsets.items()}
    more = {"Subsets": subsets} if subsets else {}
    return {"Kind": "service-resolver", "Name": names.theirs(resolver.service), **more, **without_nothing(found)}


def _intentions(record: Intentions, names: Names) -> Entry:
    """What the import adds goes without saying in Consul."""
    sources = record.sources
    if record.default == NOBODY.action and NOBODY in sources:
        sources = tuple(source for source in sources if source != NOBODY)
        if not sources:
            raise Refused("no source but who has no identity: Consul wants one")
    elif record.default:
        raise Refused(f"default {record.default}: in Consul it is a source `*`, which is no one without an identity")
    return {
        "Kind": "service-intentions",
        "Name": ANYBODY if record.service == ANYBODY else names.theirs(record.service),
        "Sources": list(_sources(sources, names)),
    }


def _sources(sources: Iterable[Source], names: Names) -> Iterator[Entry]:
    """The most precise first, as the first that fits counts there."""
    by_caller: dict[str, list[Source]] = {}
    for source in sources:
        by_caller.setdefault(source.name, []).append(source)
    for caller, mine in by_caller.items():
        name = ANYBODY if caller == ANYBODY else names.theirs(caller)
        if len(mine) == 1 and not mine[0].paths and not mine[0].methods:
            yield {"Name": name, "Action": mine[0].action}
            continue
        permissions = [(path, s) for s in mine for path in s.paths or ("",)]
        permissions.sort(key=lambda p: (len(p[0].rstrip("/")), bool(p[1].methods), p[1].action == "deny"), reverse=True)
        yield {"Name": name, "Permissions": [_permission(path, s) for path, s in permissions]}


def _permission(path: str, source: Source) -> Entry:
    if path.strip("/"):
        raise Refused(f"path {path}: Consul's prefixes do not end at segments, so it would say something else")
    return {
        "Action": source.action,
        "HTTP": without_nothing({"PathPrefix": path or "/", "Methods": list(source.methods)}),
    }


def _with_failovers(entries: list[Entry], failovers: Iterable[Failover], names: Names) -> tuple[list[Entry], list[str]]:
    """Into the resolver of their service, or one of their own."""
    by_name = {e["Name"]: dict(e) for e in entries if e["Kind"] == "service-resolver"}
    refused: list[str] = []
    for failover in failovers:
        try:
            service, subset, said = _failover(failover, names)
        except Refused as error:
            refused.append(f"failover of {failover.service}: {error}")
            continue
        entry = by_name.setdefault(service, {"Kind": "service-resolver", "Name": service})
        entry["Failover"] = {**entry.get("Failover", {}), subset or "*": said}
    return [*(e for e in entries if e["Kind"] != "service-resolver"), *by_name.values()], refused


def _failover(failover: Failover, names: Names) -> tuple[str, str, Entry]:
    """Of which service and subset, and what. How long it stays fallen over has no word there, and is left out."""
    _first(failover.index, *(target.index for target in failover.to))
    if failover.min_ready != 1:
        raise Refused(f"min_ready {failover.min_ready}: Consul fails over when none is left")
    targets = [_target(target.service, names) for target in failover.to]
    return *_split(failover.service, names), targets[0] if len(targets) == 1 else {"Targets": targets}


def _target(service: str, names: Names) -> dict[str, Any]:
    name, subset = _split(service, names)
    return without_nothing({"Service": name, "ServiceSubset": subset})


def _split(service: str, names: Names) -> tuple[str, str]:
    """`marathon:/web@v2` -> (`web`, `v2`)."""
    own, _, subset = service.rpartition("@") if "@" in service else (service, "", "")
    return names.theirs(own), subset


def _first(*indexes: int) -> None:
    if any(indexes):
        raise Refused(f"port {next(filter(None, indexes))}: Consul's services have one")


_WRITERS: Mapping[type, Callable[[Any, Names], Entry]] = {
    Router: _router,
    Split: _splitter,
    Resolver: _resolver,
    Intentions: _intentions,
}

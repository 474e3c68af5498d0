"""Routers and resolvers that cannot be taken: their last good ones count in their place, or none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.policies import AnyPolicy, Resolver, Router, name_of
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import resolvers, routers

Kept = Router | Resolver
BY_HAPROXY = "HAProxy refused it"
"""In every reason that comes from HAProxy's own check."""
WITHOUT = {
    "router": "requests stay with the service",
    "resolver": "all of the service's tasks answer, and it has no subsets",
}
"""What a missing one means, by the kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """`good`: by the names of nodes (`router~erp:db`), what HAProxy has taken; `refused`: what its own check said against
    which router, by `id`.
    """

    good: Mapping[str, Kept] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def kept(policies: Mapping[str, AnyPolicy]) -> Mapping[str, Kept]:
    """Those that would be needed should others come that cannot be taken."""
    return {name: p for name, p in policies.items() if isinstance(p, Kept) and name == name_of(p)}


def believed(snapshot: Snapshot, past: Past) -> tuple[Snapshot, Mapping[str, str]]:
    """With the last good one in the place of each that cannot be taken, and why not, by service; the very same snapshot
    when all can.
    """
    unfit = {n: why for n, p in kept(snapshot.policies).items() if (why := _why_not(p, past))} | _bad(snapshot)
    if not unfit:
        return snapshot, {}
    good = {n: p for n in unfit if (p := past.good.get(n)) is not None and not _why_not(p, past)}
    others = {n: p for n, p in snapshot.policies.items() if n not in unfit}
    told: dict[str, list[str]] = {}
    for name, why in unfit.items():
        kind, _, service = name.partition("~")
        stays = "its last good one stays" if name in good else WITHOUT[kind]
        told.setdefault(service, []).append(f"{kind}: {why}; {stays}")
    return replace(snapshot, policies={**others, **good}), {s: "; ".join(why) for s, why in told.items()}


def _why_not(policy: Kept, past: Past) -> str:
    try:
        if isinstance(policy, Resolver):
            resolvers.checked(policy)
            return ""
        front = routers.checked(policy)
    except Refused as error:
        return str(error)
    why = past.refused.get(front.id)
    return "" if why is None else f"{BY_HAPROXY}: {why}"


def _bad(snapshot: Snapshot) -> dict[str, str]:
    """By the nodes' names: what stands under a router's or a resolver's, and is none."""
    folder = f"{paths.POLICIES}/"
    named = {paths.unescape(p.rpartition("/")[2]): why for p, why in snapshot.bad.items() if p.startswith(folder)}
    return {name: why for name, why in named.items() if name.partition("~")[0] in WITHOUT}

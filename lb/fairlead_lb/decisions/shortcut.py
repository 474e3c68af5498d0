"""Endpoints come and go a hundred times a second, everything else rarely: what is wanted after a change of members alone.

Only the services whose members changed are looked at. Whatever may touch more, or is in doubt, is decided whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.delta import differing
from fairlead_discovery.records import Reason
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import resolvers, routers, routes, splits
from fairlead_lb.decisions.nearness import Placed, placings
from fairlead_lb.decisions.parts import Parts
from fairlead_lb.decisions.routes import Derive, Rules, Wanted
from fairlead_lb.decisions.values import Backend, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What was decided last, and what of."""

    snapshot: Snapshot
    rules: Rules
    wanted: Wanted
    names: Mapping[Key, str] = field(default_factory=dict)
    """Whose backend is called what."""

    @classmethod
    def whole(cls, snapshot: Snapshot, rules: Rules, wanted: Wanted) -> "Decided":
        names = {b.key: name for name, b in wanted.backends.items()}
        return cls(snapshot=snapshot, rules=rules, wanted=wanted, names=names)


def moved(last: Decided, snapshot: Snapshot, rules: Rules, derived: Derive) -> tuple[Wanted, frozenset[str]] | None:
    """What is wanted now, as `routes.wanted` would say it, and the backends that differ; None: decide the whole.

    `maps` stay the very object they were: nothing but servers differs.
    """
    before = last.snapshot
    if rules.between is not None:
        return None
    if not _same_but_members(before, snapshot) or _deciding(last.rules) != _deciding(rules):
        return None
    parts: dict[str, Parts] = {}
    backends: dict[str, Backend] = {}
    near: dict[Key, Placed] = {}
    apart = {
        *last.wanted.ruled.claims,
        *last.wanted.groups.of,
        *routers.services(last.wanted.leads),
        *resolvers.services(last.wanted.resolved),
        *(splits.sources(snapshot.policies) if snapshot.policies else ()),
    }
    for service in differing(before.members, snapshot.members, snapshot.delta):
        if service in apart or service in last.wanted.refused:
            return None
        made = _plain(service, last, snapshot, rules, derived)
        if made is None:
            return None
        if made.parts:
            parts[service] = made
        for part in made.parts:
            name = last.names[part.key]
            near |= placings([(part.key, part.servers)], last.wanted.near, rules.near)
            backend = routes.backend(name, part, last.wanted, rules, near)
            if backend is not last.wanted.backends[name]:
                backends[name] = backend
    wanted = replace(
        last.wanted,
        revision=snapshot.revision,
        backends={**last.wanted.backends, **backends} if backends else last.wanted.backends,
        parts={**last.wanted.parts, **parts} if parts else last.wanted.parts,
        near={**last.wanted.near, **near} if near else last.wanted.near,
        dead=frozenset(t for t, record in snapshot.leaving.items() if record.reason is Reason.DEAD),
    )
    return wanted, frozenset(backends)


def _plain(service: str, last: Decided, snapshot: Snapshot, rules: Rules, derived: Derive) -> Parts | None:
    """The service's parts, when nothing of them but servers differs; without any when nothing routes to it."""
    before = last.wanted.parts.get(service)
    try:
        made = routes.parts_of(service, snapshot, before, derived, rules)
    except Refused:
        return None
    if made is None or before is None:
        return Parts(route=routes.NO_ROUTE, members={}, parts=()) if made is before else None
    made = routes.of_groups(made, rules.groups)
    if made.problems or before.problems or len(made.parts) != len(before.parts):
        return None
    same = all(replace(a, servers=()) == replace(b, servers=()) for a, b in zip(made.parts, before.parts, strict=True))
    return made if same else None


def _same_but_members(before: Snapshot, now: Snapshot) -> bool:
    return before.routes == now.routes and before.policies == now.policies and before.bad == now.bad


def _deciding(rules: Rules) -> tuple[object, ...]:
    """What of the rules can change a decision over servers, or over services that keep their shapes and names."""
    return (
        rules.forbidden,
        rules.vips,
        rules.aside,
        rules.passthrough,
        rules.https,
        rules.spent,
        rules.broken,
        rules.callers,
        rules.near,
        rules.groups,
        rules.manner,
        rules.between,
    )

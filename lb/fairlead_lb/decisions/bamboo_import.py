"""What importing a Bamboo's rules would do, rule by rule."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.policies import Bamboo
from fairlead_lb.decisions.acl import Grammar
from fairlead_lb.decisions.bamboo import Claims, claims_of
from fairlead_lb.decisions.map_keys import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`what`: add, change, same, kept (another rule of ours is there), refused. `why` says what of it is served how."""

    id: str
    acl: str
    what: str
    why: str
    rule: Bamboo | None = None


def plan(
    found: Mapping[str, Bamboo], skipped: Mapping[str, str], ours: Mapping[str, Bamboo], *, raw: bool, replace: bool
) -> tuple[Step, ...]:
    """Sorted by id; `skipped` are nodes that are no records, with the reason."""
    steps = [_step(rule, ours.get(service), raw=raw, replace=replace) for service, rule in found.items()]
    steps += [Step(id=name, acl="", what="refused", why=why) for name, why in skipped.items()]
    return tuple(sorted(steps, key=lambda s: s.id))


def _step(rule: Bamboo, there: Bamboo | None, *, raw: bool, replace: bool) -> Step:
    app = paths.split_service_key(rule.service)[1]
    try:
        why = "; ".join(_told(claims_of(rule.acl, app, Grammar(raw=raw))))
    except Refused as error:
        return Step(id=app, acl=rule.acl, what="refused", why=str(error))
    if there is None:
        return Step(id=app, acl=rule.acl, what="add", why=why, rule=rule)
    if there == rule:
        return Step(id=app, acl=rule.acl, what="same", why=why)
    if not replace:
        return Step(id=app, acl=rule.acl, what="kept", why=f"a rule of ours is there: {there.acl}")
    return Step(id=app, acl=rule.acl, what="change", why=why, rule=rule)


def _told(claims: Claims) -> Iterator[str]:
    if claims.keys:
        yield f"routes {', '.join(map(shown, claims.keys))}"
    if claims.rules:
        count = len(claims.rules)
        yield f"{count} condition{'s' if count > 1 else ''} of the frontend, for what no host or path takes"

"""Alerts as they are kept: where each stands, what was told of it, and what is still to be told to whom.

Every change of state that is told becomes one `Change` with an id of its own, written down before anyone is called. The
id goes with every call (`Idempotency-Key`), so that a call repeated after a kill is the same call.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_monitoring.decisions.evaluation import Verdict
from fairlead_monitoring.decisions.judging import ACTIVE, Fact, History, Standing, State, judge
from fairlead_monitoring.decisions.rules import Rule, summary_of
from fairlead_monitoring.decisions.samples import Labels

TOLD = frozenset({State.FIRING, State.RESOLVED, State.NO_DATA, State.GONE})
KEEP_ENDED_S = 3600.0
"""How long an ended alert is still listed."""
WAITING_MOST = 100
"""Changes of one alert that wait for a receiver; beyond that the oldest are given up."""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One notification. `to`: the receivers that have not taken it yet."""

    id: str
    state: State
    at_s: float
    value: float = 0.0
    summary: str = ""
    to: tuple[str, ...] = ()


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`told` is the state last told, "" when nothing was; `sequence` counts what was told."""

    id: str
    rule: str
    state: State
    since_s: float
    judged_s: float
    data_s: float
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    well_since_s: float = 0.0
    severity: str = "warning"
    summary: str = ""
    value: float = 0.0
    told: str = ""
    sequence: int = 0
    waiting: tuple[Change, ...] = ()

    @property
    def standing(self) -> Standing:
        return Standing(
            state=self.state,
            since_s=self.since_s,
            judged_s=self.judged_s,
            data_s=self.data_s,
            well_since_s=self.well_since_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What all alerts of one judgement share. `silenced(alert)`: changes are not told now."""

    now_s: float
    receivers: Sequence[str]
    silenced: Callable[[Alert], bool]


def alert_id(rule: str, labels: Labels) -> str:
    return hashlib.sha256(msgspec.json.encode([rule, [list(pair) for pair in labels]])).hexdigest()[:16]


def fact_of(verdict: Verdict | None, until: Verdict | None, *, with_until: bool) -> Fact:
    """`until` is the verdict of the rule's second condition, if it has one."""
    if verdict is None:
        return Fact.NONE
    if verdict.holds:
        return Fact.BAD
    if with_until:
        return Fact.WELL if until is not None and until.holds else Fact.BETWEEN
    return Fact.WELL


def advance(alert: Alert, rule: Rule, fact: Fact, value: float, scene: Scene) -> Alert:
    """Judged, and what follows of it to be told."""
    standing = judge(rule, History(before=alert.standing, seen=fact), now_s=scene.now_s)
    fresh = value if fact is not Fact.NONE else alert.value
    moved = _stand(alert, standing, value=fresh, severity=rule.severity)
    if fact is not Fact.NONE:
        moved = msgspec.structs.replace(moved, summary=summary_of(rule, alert.labels, fresh))
    return tell(moved, scene)


def new_alert(rule: Rule, labels: Labels, *, now_s: float) -> Alert:
    return Alert(
        id=alert_id(rule.name, labels),
        rule=rule.name,
        labels=dict(labels),
        state=State.OK,
        since_s=now_s,
        judged_s=now_s,
        data_s=now_s,
        severity=rule.severity,
    )


def withdraw(alert: Alert, scene: Scene) -> Alert:
    """Its rule is no more."""
    if alert.state not in ACTIVE:
        return alert if alert.state in TOLD else msgspec.structs.replace(alert, state=State.OK)
    gone = Standing(state=State.GONE, since_s=scene.now_s, judged_s=scene.now_s, data_s=alert.data_s)
    moved = _stand(alert, gone, value=alert.value, severity=alert.severity)
    return tell(msgspec.structs.replace(moved, summary=f"{alert.summary} (its rule was taken away)"), scene)


def _stand(alert: Alert, standing: Standing, *, value: float, severity: str) -> Alert:
    return msgspec.structs.replace(
        alert,
        state=standing.state,
        since_s=standing.since_s,
        judged_s=standing.judged_s,
        data_s=standing.data_s,
        well_since_s=standing.well_since_s,
        value=value,
        severity=severity,
    )


def tell(alert: Alert, scene: Scene) -> Alert:
    """Adds the change that is due, if one is. An end is told only to who was told the beginning."""
    state = due(alert)
    if state is None or scene.silenced(alert):
        return alert
    change = Change(
        id=f"{alert.id}-{round(scene.now_s * 1000)}-{alert.sequence + 1}",
        state=state,
        at_s=scene.now_s,
        value=alert.value,
        summary=alert.summary,
        to=tuple(scene.receivers),
    )
    waiting = (*alert.waiting, change)[-WAITING_MOST:] if change.to else alert.waiting
    return msgspec.structs.replace(alert, told=state.value, sequence=alert.sequence + 1, waiting=waiting)


def due(alert: Alert) -> State | None:
    """The state to be told now. One that ended while it was silenced, and is quiet by now, is resolved all the same."""
    if alert.state is State.OK and alert.told in ACTIVE:
        return State.RESOLVED
    if alert.state not in TOLD or alert.state == alert.told:
        return None
    return alert.state if alert.state in ACTIVE or alert.told in ACTIVE else None


def taken(alert: Alert, change_id: str, receiver: str) -> Alert:
    """The receiver has it."""
    left = (
        msgspec.structs.replace(c, to=tuple(r for r in c.to if r != receiver)) if c.id == change_id else c
        for c in alert.waiting
    )
    return msgspec.structs.replace(alert, waiting=tuple(c for c in left if c.to))


def merge(mine: Alert | None, theirs: Alert | None) -> Alert:
    """One alert from two places it was written to: the later one; of the same change what neither has delivered."""
    if mine is None or theirs is None:
        found = mine or theirs
        assert found is not None, "at least one is given"
        return found
    if mine.sequence != theirs.sequence:
        return mine if mine.sequence > theirs.sequence else theirs
    newer = mine if mine.judged_s >= theirs.judged_s else theirs
    other = {c.id: c for c in (theirs if newer is mine else mine).waiting}
    both = (
        msgspec.structs.replace(c, to=tuple(r for r in c.to if r in other[c.id].to))
        for c in newer.waiting
        if c.id in other
    )
    return msgspec.structs.replace(newer, waiting=tuple(c for c in both if c.to))


def worth_keeping(alert: Alert, *, now_s: float) -> bool:
    """Whether anyone would miss it."""
    if alert.waiting or alert.state in ACTIVE or alert.state is State.PENDING:
        return True
    return bool(alert.told) and now_s - alert.since_s < KEEP_ENDED_S


def forget_receivers(alert: Alert, receivers: Iterable[str]) -> Alert:
    """What waits for a receiver that is no longer in the settings is given up."""
    known = frozenset(receivers)
    if all(known.issuperset(c.to) for c in alert.waiting):
        return alert
    left = (msgspec.structs.replace(c, to=tuple(r for r in c.to if r in known)) for c in alert.waiting)
    return msgspec.structs.replace(alert, waiting=tuple(c for c in left if c.to))


def body(alert: Alert, change: Change, *, cluster: str) -> dict[str, Any]:
    """What a webhook gets."""
    return {
        "id": change.id,
        "alert": alert.id,
        "rule": alert.rule,
        "state": change.state.value,
        "severity": alert.severity,
        "labels": dict(alert.labels),
        "summary": change.summary,
        "value": change.value,
        "at_s": change.at_s,
        "cluster": cluster,
    }

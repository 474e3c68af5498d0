"""All rules at one moment: which alerts there are, where they stand, what is to be told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from fairlead_monitoring.decisions.alerts import (
    Alert,
    Scene,
    advance,
    alert_id,
    fact_of,
    merge,
    new_alert,
    withdraw,
    worth_keeping,
)
from fairlead_monitoring.decisions.evaluation import Ambiguous, Moment, Verdict, judge_condition
from fairlead_monitoring.decisions.judging import Fact
from fairlead_monitoring.decisions.rules import Rule
from fairlead_monitoring.decisions.samples import Labels

Verdicts = Mapping[Labels, Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`alerts` by id; `errors` by rule; `seen` counts the label sets that have data, by rule."""

    alerts: Mapping[str, Alert]
    errors: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)


def judge_all(rules: Mapping[str, Rule], alerts: Mapping[str, Alert], at: Moment, scene: Scene) -> Judgement:
    """Alerts that nobody would miss are left out."""
    out: dict[str, Alert] = {}
    errors: dict[str, str] = {}
    seen: dict[str, int] = {}
    for rule in rules.values():
        mine = [alert for alert in alerts.values() if alert.rule == rule.name]
        try:
            verdicts, until = _verdicts(rule, at)
        except Ambiguous as error:
            errors[rule.name] = str(error)
            verdicts, until = {}, {}
        seen[rule.name] = len(verdicts)
        for alert in _of_rule(rule, mine, verdicts, until, scene):
            out[alert.id] = alert
    out.update({a.id: withdraw(a, scene) for a in alerts.values() if a.rule not in rules})
    kept = {key: alert for key, alert in out.items() if worth_keeping(alert, now_s=scene.now_s)}
    return Judgement(alerts=kept, errors=errors, seen=seen)


def _verdicts(rule: Rule, at: Moment) -> tuple[Verdicts, Verdicts]:
    return judge_condition(rule.when, at), judge_condition(rule.until, at) if rule.until is not None else {}


def _of_rule(rule: Rule, mine: list[Alert], verdicts: Verdicts, until: Verdicts, scene: Scene) -> Iterator[Alert]:
    known = {alert.id for alert in mine}
    for alert in mine:
        labels = tuple(sorted(alert.labels.items()))
        verdict = verdicts.get(labels)
        fact = fact_of(verdict, until.get(labels), with_until=rule.until is not None)
        yield advance(alert, rule, fact, verdict.value if verdict is not None else 0.0, scene)
    for labels, verdict in verdicts.items():
        if verdict.holds and alert_id(rule.name, labels) not in known:
            fresh = new_alert(rule, labels, now_s=scene.now_s)
            yield advance(fresh, rule, Fact.BAD, verdict.value, scene)


def adopt(mine: Mapping[str, Alert], others: Mapping[str, Alert], *, now_s: float) -> dict[str, Alert]:
    """What was written down goes on where it stood; patience with missing data begins anew."""
    merged = {key: merge(mine.get(key), others.get(key)) for key in {*mine, *others}}
    return {key: msgspec.structs.replace(a, data_s=now_s, judged_s=now_s) for key, a in merged.items()}

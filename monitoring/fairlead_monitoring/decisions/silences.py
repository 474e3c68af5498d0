"""Silences: for a while, changes of some alerts are not told. They are judged on."""

from collections.abc import Iterable, Mapping

import msgspec

from fairlead_monitoring.decisions.alerts import Alert


class Silence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of the alerts of `rule` ("" any) that have all of `labels`, until wall clock `until_s`."""

    id: str
    until_s: float
    rule: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    by: str = ""
    comment: str = ""


def silenced(alert: Alert, silences: Iterable[Silence], *, now_s: float) -> bool:
    return any(now_s < silence.until_s and _covers(silence, alert) for silence in silences)


def _covers(silence: Silence, alert: Alert) -> bool:
    if silence.rule and silence.rule != alert.rule:
        return False
    return all(alert.labels.get(name) == value for name, value in silence.labels.items())

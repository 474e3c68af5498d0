"""From readings to states: `judge(rule, history, now_s)`. No data is never taken for well.

ok --bad--> pending --bad for `for`--> firing --well for `hold`--> resolved --bad--> pending …
                                         | none for `no_data`   ^
                                         v                      |
                                       no-data --well-----------+      (bad: firing again)
                                         | none for FORGET_S
                                         v
                                        gone
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fairlead_monitoring.decisions.rules import Rule

FORGET_S = 3600.0
"""As long as samples are kept: after that nobody can say any more what it was about."""


class State(enum.StrEnum):
    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"
    NO_DATA = "no-data"
    GONE = "gone"
    """Its rule was taken away, or it had no data for so long that it is no longer looked for. Not resolved."""


class Fact(enum.Enum):
    """What one look says."""

    BAD = "bad"
    WELL = "well"
    BETWEEN = "between"
    """Neither bad nor well again, by a rule with `until`."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`since_s`: in this state since; `data_s`: last time with data; `well_since_s` 0: not well now."""

    state: State
    since_s: float
    judged_s: float
    data_s: float
    well_since_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that the past says: where it stood, and what is seen now."""

    before: Standing | None
    seen: Fact


ACTIVE = frozenset({State.FIRING, State.NO_DATA})


def judge(rule: Rule, history: History, *, now_s: float) -> Standing:
    """The next standing. Judging twice at the same moment changes nothing more."""
    before = history.before or Standing(state=State.OK, since_s=now_s, judged_s=now_s, data_s=now_s)
    seen = history.seen
    now = replace(before, judged_s=now_s, data_s=before.data_s if seen is Fact.NONE else now_s)
    return _STEPS[before.state](rule, now, seen, before.judged_s)


def _enter(now: Standing, state: State) -> Standing:
    return replace(now, state=state, since_s=now.judged_s, well_since_s=0.0)


def _quiet(rule: Rule, now: Standing, seen: Fact, _judged_s: float) -> Standing:
    if seen is Fact.BAD:
        return _enter(now, State.PENDING if rule.for_s > 0 else State.FIRING)
    return now


def _pending(rule: Rule, now: Standing, seen: Fact, judged_s: float) -> Standing:
    if seen is Fact.NONE:  # time without data does not count, neither for nor against it
        longer = replace(now, since_s=now.since_s + now.judged_s - judged_s)
        return longer if now.judged_s - now.data_s < FORGET_S else _enter(now, State.OK)
    if seen is not Fact.BAD:
        return _enter(now, State.OK)
    return _enter(now, State.FIRING) if now.judged_s - now.since_s >= rule.for_s else now


def _active(rule: Rule, now: Standing, seen: Fact, _judged_s: float) -> Standing:
    if seen is Fact.NONE:
        return _silent(rule, replace(now, well_since_s=0.0))
    if seen is Fact.WELL:
        well = replace(now, well_since_s=now.well_since_s or now.judged_s)
        return _enter(well, State.RESOLVED) if well.judged_s - well.well_since_s >= rule.hold_s else well
    return replace(now, well_since_s=0.0) if now.state is State.FIRING else _enter(now, State.FIRING)


def _silent(rule: Rule, now: Standing) -> Standing:
    if now.state is State.FIRING:
        return _enter(now, State.NO_DATA) if now.judged_s - now.data_s >= rule.no_data_s else now
    return _enter(now, State.GONE) if now.judged_s - now.since_s >= FORGET_S else now


_STEPS: Mapping[State, Callable[[Rule, Standing, Fact, float], Standing]] = {
    State.OK: _quiet,
    State.RESOLVED: _quiet,
    State.GONE: _quiet,
    State.PENDING: _pending,
    State.FIRING: _active,
    State.NO_DATA: _active,
}

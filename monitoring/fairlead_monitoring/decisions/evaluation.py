"""What an expression gives at a moment: one number for each set of labels. Sets without data are absent, never zero.

Two sides of an operator are joined on the labels both have. A label compared by `=` is the same for all series of that
metric, so it is left out of the result: `wanted - instances{state="healthy"}` joins on the service alone.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from fairlead_monitoring.decisions.expression import (
    Arithmetic,
    Condition,
    Matcher,
    Metric,
    Number,
    OverSeries,
    OverTime,
    Time,
    Value,
)
from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.samples import Labels, increase

Vector = Mapping[Labels, float]
Points = list[tuple[float, float]]


class Ambiguous(ValueError):  # noqa: N818  # named for what it is
    """Several series of one side fit one of the other: the rule must say which, by `sum by (…)` or a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """`fresh_s`: older values count as absent."""

    ring: Ring
    now_s: float
    fresh_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    value: float
    holds: bool


_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def judge_condition(condition: Condition, at: Moment) -> dict[Labels, Verdict]:
    """The left side's value and whether the comparison holds, for every set of labels that has data. Raises Ambiguous."""
    compare = _COMPARE[condition.op]
    joined = _joined(condition.left, condition.right, at)
    return {labels: Verdict(left, compare(left, right)) for labels, (left, right) in joined.items()}


def evaluate(value: Value, at: Moment) -> Vector:
    """Raises Ambiguous. A number has the empty set of labels."""
    match value:
        case Number():
            return {(): value.value}
        case Time():
            return {(): at.now_s}
        case Metric():
            found = at.ring.now(value.name, at.now_s, fresh_s=at.fresh_s)
            return _unique(value, {s.labels: v for s, v in found if _fits(value.matchers, s.labels)})
        case OverTime():
            return _over_time(value, at)
        case OverSeries():
            return _over_series(value, at)
        case Arithmetic():
            joined = _joined(value.left, value.right, at)
            results = {labels: _ARITHMETIC[value.op](*pair) for labels, pair in joined.items()}
            return {labels: result for labels, result in results.items() if result is not None}


_ARITHMETIC: Mapping[str, Callable[[float, float], float | None]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else None,  # nothing can be said of a share of nothing
}


def _fits(matchers: tuple[Matcher, ...], labels: Labels) -> bool:
    have = dict(labels)
    return all(_holds(m, have.get(m.label, "")) for m in matchers)


def _holds(matcher: Matcher, value: str) -> bool:
    if matcher.op in {"=", "!="}:
        return (value == matcher.value) == (matcher.op == "=")
    return (_pattern(matcher.value).fullmatch(value) is not None) == (matcher.op == "=~")


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _unique(metric: Metric, found: Vector) -> Vector:
    """Without the labels that were compared by `=`."""
    fixed = {m.label for m in metric.matchers if m.op == "="}
    return {tuple(pair for pair in labels if pair[0] not in fixed): v for labels, v in found.items()}


def _over_time(value: OverTime, at: Moment) -> Vector:
    """Only of series that have a value now: what ended has no rate."""
    found: dict[Labels, float] = {}
    for one, _ in at.ring.now(value.metric.name, at.now_s, fresh_s=at.fresh_s):
        if _fits(value.metric.matchers, one.labels):
            result = _TIMED[value.function](at.ring.points(one, at.now_s - value.span_s))
            if result is not None:
                found[one.labels] = result
    return _unique(value.metric, found)


def rate(points: Points) -> float | None:
    """Per second, between the first and the last point."""
    grown = increase(points)
    passed_s = points[-1][0] - points[0][0] if points else 0.0
    return grown / passed_s if grown is not None and passed_s > 0 else None


_TIMED: Mapping[str, Callable[[Points], float | None]] = {
    "rate": rate,
    "increase": increase,
    "average": lambda points: sum(v for _, v in points) / len(points) if points else None,
    "lowest": lambda points: min((v for _, v in points), default=None),
    "highest": lambda points: max((v for _, v in points), default=None),
}
_GROUPED: Mapping[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "min": min,
    "max": max,
    "count": lambda values: float(len(values)),
}


def _over_series(value: OverSeries, at: Moment) -> Vector:
    groups: dict[Labels, list[float]] = {}
    for labels, number in evaluate(value.of, at).items():
        kept = tuple(pair for pair in labels if pair[0] in (value.by or ()))
        groups.setdefault(kept, []).append(number)
    return {labels: _GROUPED[value.function](numbers) for labels, numbers in groups.items()}


def _joined(left: Value, right: Value, at: Moment) -> dict[Labels, tuple[float, float]]:
    """Pairs by the labels both sides have; a side without labels goes with all of the other."""
    one, other = evaluate(left, at), evaluate(right, at)
    if isinstance(right, Number):
        return {labels: (number, right.value) for labels, number in one.items()}
    if not one or not other:
        return {}
    shared = _names(one) & _names(other)
    if _is_key(other, shared):
        return {labels: (a, b) for labels, a, b in _looked_up(one, other, shared)}
    if _is_key(one, shared):
        return {labels: (a, b) for labels, b, a in _looked_up(other, one, shared)}
    raise Ambiguous(f"several series of each side agree on ({', '.join(sorted(shared)) or 'no label'})")


def _names(vector: Vector) -> frozenset[str]:
    """Labels that all sets have."""
    return frozenset.intersection(*(frozenset(name for name, _ in labels) for labels in vector))


def _key(labels: Labels, shared: frozenset[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in shared)


def _is_key(vector: Vector, shared: frozenset[str]) -> bool:
    return len({_key(labels, shared) for labels in vector}) == len(vector)


def _looked_up(many: Vector, one: Vector, shared: frozenset[str]) -> list[tuple[Labels, float, float]]:
    by_key = {_key(labels, shared): number for labels, number in one.items()}
    pairs = ((labels, number, by_key.get(_key(labels, shared))) for labels, number in many.items())
    return [(labels, number, found) for labels, number, found in pairs if found is not None]

"""When a whole service is spared its requests: too many of its servers' answers are errors.

Closed, everything passes. Open, everything is refused at once, for `break_for`. Half-open, a few pass: one error opens
it again, so many good answers close it, or a minute without any. HAProxy itself goes from open to half-open,
by the time that stands in the map, and from there to closed when nobody tells it anything for long: a breaker never outlives whoever watches it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead_discovery.records import Traffic
from fairlead_lb.decisions.values import Key

WINDOW_S = 10.0
"""Requests of so many seconds are looked at."""
TRIALS = 3
"""Good answers that close it."""
FORGOTTEN_S = 60
"""HAProxy lets everything pass so long after `break_for`, unless it hears otherwise."""


@dataclass(frozen=True, slots=True)
class Moment:
    """`now_s` by the clock that is asked for times between, `unix_s` for HAProxy."""

    now_s: float
    unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """`until_s` 0: closed. `looks`: (when, good, errors), since it was closed, or half-open."""

    looks: tuple[tuple[float, int, int], ...] = ()
    until_s: float = 0.0
    until_unix_s: int = 0
    half: bool = False

    @property
    def state(self) -> str:
        if not self.until_s:
            return "closed"
        return "half-open" if self.half else "open"


CLOSED = Breaker()
Breakers = Mapping[Key, Breaker]


def after(last: Breaker, rule: Traffic, good: int, errors: int, now: Moment) -> Breaker:
    """`good`, `errors`: answers of its servers since the last look."""
    if last.until_s and not last.half:  # what was under way when it opened tells nothing new
        return last if now.now_s < last.until_s else Breaker(
            until_s=last.until_s, until_unix_s=last.until_unix_s, half=True
        )  # fmt: skip
    looks = (*(one for one in last.looks if one[0] > now.now_s - WINDOW_S or last.half), (now.now_s, good, errors))
    passed, failed = sum(one[1] for one in looks), sum(one[2] for one in looks)
    if last.half:
        if failed:
            return _opened(rule, now)
        heard_s = now.now_s if good or not last.looks else last.looks[-1][0]
        return CLOSED if passed >= TRIALS or now.now_s - heard_s >= FORGOTTEN_S else Breaker(
            looks=((heard_s, passed, 0),), until_s=last.until_s, until_unix_s=last.until_unix_s, half=True
        )  # fmt: skip
    many = passed + failed
    if failed and many >= rule.break_least and failed * 100 >= rule.break_at_percent * many:
        return _opened(rule, now)
    return Breaker(looks=looks)


def _opened(rule: Traffic, now: Moment) -> Breaker:
    return Breaker(until_s=now.now_s + rule.break_s, until_unix_s=round(now.unix_s + rule.break_s))


def tripped(breakers: Breakers) -> Mapping[Key, int]:
    """Those that are not closed, and until when HAProxy refuses everything, Unix time."""
    return {key: one.until_unix_s for key, one in breakers.items() if one.until_s}

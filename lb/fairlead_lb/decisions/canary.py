"""How far a canary may go: one step on, none, or all back. Every `tick` says so from what was seen since the step began."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.words import shown
from fairlead_discovery.policies import Canary, CanaryStage
from fairlead_discovery.records import Record
from fairlead_lb.decisions.windows import Counts, error_percent, p99_ms

RUNNING, PROMOTED, ABORTED = "running", "promoted", "aborted"
LEAST_EVERY_S = 1.0
MOST_EVERY_S = 30 * 86_400.0
MOST_REQUESTS = 1_000_000_000
MOST_STEPS = 50
FULL_PERCENT = 100.0


class Watched(Record, frozen=True, kw_only=True):
    """What one balancer has counted since it runs; a document, written every second while a canary is under way."""

    boot: str
    """Another one: its counts began anew."""
    turn: int
    """Grows with each writing: who does not write is silent."""
    ports: Mapping[str, Counts] = {}
    """By `<service>#<index>`."""


class Look(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What the leading balancer thinks of a canary now; a document, for people."""

    id: str
    why: str
    own_requests: int = 0
    own_5xx_percent: float = 0.0
    own_p99_ms: float | None = None
    canary_requests: int = 0
    canary_5xx_percent: float = 0.0
    canary_p99_ms: float | None = None


def look_of(canary: Canary, seen: "Seen", why: str) -> Look:
    return Look(
        id=canary.id,
        why=why,
        own_requests=seen.own.requests,
        own_5xx_percent=round(error_percent(seen.own), 2),
        own_p99_ms=p99_ms(seen.own),
        canary_requests=seen.canary.requests,
        canary_5xx_percent=round(error_percent(seen.canary), 2),
        canary_p99_ms=p99_ms(seen.canary),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What all balancers together saw since this step began, or since this leader began to look."""

    watched_s: float
    """Without a gap."""
    own: Counts
    """Of the service itself."""
    canary: Counts
    silent: Sequence[str] = ()
    """Balancers that do not tell."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing changes, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Go:
    """The stage to be written; `since_s` is the writer's."""

    stage: CanaryStage


def judge(canary: Canary, stage: CanaryStage | None, seen: Seen) -> Hold | Go:
    """`stage` None, or of another id: it has not begun."""
    if stage is not None and stage.id == canary.id and stage.state != RUNNING and not _overruled(canary, stage):
        return Hold(f"it is {stage.state}: {stage.reason}")
    if canary.order == "abort":
        return _ended(canary, stage, ABORTED, 0.0, "by an operator")
    if canary.order == "promote":
        return _ended(canary, stage, PROMOTED, 100.0, "by an operator")
    try:
        checked(canary)
    except Refused as error:
        return Hold(str(error))
    if stage is None or stage.id != canary.id or not 0 <= stage.step < len(canary.steps):
        return _at(canary, 0)
    if why := harm(canary, seen):
        return _ended(canary, stage, ABORTED, 0.0, why)
    if why := _not_yet(canary, stage, seen):
        return Hold(why)
    if why := slower(canary, seen):
        return _ended(canary, stage, ABORTED, 0.0, why)
    if stage.step + 1 < len(canary.steps):
        return _at(canary, stage.step + 1)
    return _ended(canary, stage, PROMOTED, canary.steps[-1], f"it did well at {canary.steps[-1]:g} %")


def harm(canary: Canary, seen: Seen) -> str:
    """Errors count as soon as they are too many for the least number of answers, whatever the others will be."""
    asked = max(seen.canary.requests, canary.min_requests)
    if canary.max_5xx_percent >= 100 or seen.canary.errors * 100 <= canary.max_5xx_percent * asked:
        return ""
    own = error_percent(seen.own)
    return (
        f"{seen.canary.errors} of {seen.canary.requests} answers were 5xx, more than {canary.max_5xx_percent:g} %"
        f" (the service itself: {own:.2g} %)"
    )


def slower(canary: Canary, seen: Seen) -> str:
    """At 100 %, and over TCP, there is nothing to compare."""
    own, other = p99_ms(seen.own), p99_ms(seen.canary)
    if not canary.max_p99_ratio or own is None or other is None or other <= own * canary.max_p99_ratio:
        return ""
    return f"its 99th percentile is {other:g} ms, more than {canary.max_p99_ratio:g} times {own:g} ms of the service itself"


def checked(canary: Canary) -> None:
    """Raises Refused."""
    if not 1 <= len(canary.steps) <= MOST_STEPS:
        raise Refused(f"{len(canary.steps)} steps; between 1 and {MOST_STEPS}")
    if not all(0 < step <= 100 for step in canary.steps):
        raise Refused(f"steps {_listed(canary.steps)}: not all between 0 and 100")
    if any(later <= sooner for sooner, later in zip(canary.steps, canary.steps[1:], strict=False)):
        raise Refused(f"steps {_listed(canary.steps)}: each must be more than the one before")
    if not LEAST_EVERY_S <= canary.every_s <= MOST_EVERY_S:
        raise Refused(f"every {canary.every_s:g} s: not between {LEAST_EVERY_S:g} and {MOST_EVERY_S:g} s")
    if not 1 <= canary.min_requests <= MOST_REQUESTS:
        raise Refused(f"min_requests {canary.min_requests}: not between 1 and {MOST_REQUESTS}")
    if not 0 <= canary.max_5xx_percent <= 100:
        raise Refused(f"max_5xx {canary.max_5xx_percent:g} %: not between 0 and 100")
    if canary.max_p99_ratio and canary.max_p99_ratio < 1:
        raise Refused(f"max_p99_ratio {canary.max_p99_ratio:g}: at least 1, or 0 for none")
    if canary.order not in ("run", "abort", "promote"):
        raise Refused(f"order {shown(canary.order)}: run, abort or promote")


def _not_yet(canary: Canary, stage: CanaryStage, seen: Seen) -> str:
    if seen.silent:
        return f"balancers do not tell what they see: {', '.join(seen.silent)}"
    if seen.watched_s < canary.every_s:
        return f"watched for {seen.watched_s:.0f} of {canary.every_s:g} s"
    if seen.canary.requests < canary.min_requests:
        return f"{seen.canary.requests} of {canary.min_requests} answers"
    timed = bool(canary.max_p99_ratio and seen.canary.times and stage.percent < FULL_PERCENT)
    for whose, counts in (("", seen.canary), (" of the service itself", seen.own)) if timed else ():
        if (known := sum(counts.times.values())) < canary.min_requests:
            return f"{known} of {canary.min_requests} answer times{whose}"
    return ""


def _overruled(canary: Canary, stage: CanaryStage) -> bool:
    """An operator may promote what was aborted, and abort what was promoted."""
    return canary.order in ("abort", "promote") and stage.state != (ABORTED if canary.order == "abort" else PROMOTED)


def _at(canary: Canary, step: int) -> Go:
    percent = canary.steps[step]
    reason = f"step {step + 1} of {len(canary.steps)}"
    return Go(CanaryStage(service=canary.service, id=canary.id, step=step, percent=percent, reason=reason))


def _ended(canary: Canary, stage: CanaryStage | None, state: str, percent: float, why: str) -> Go:
    step = stage.step if stage is not None and stage.id == canary.id else 0
    return Go(CanaryStage(service=canary.service, id=canary.id, state=state, step=step, percent=percent, reason=why))


def _listed(steps: Sequence[float]) -> str:
    return ",".join(f"{s:g}" for s in steps)

"""When to check a task's health, and what a check's outcome means."""

from dataclasses import dataclass

from fairlead_core.agent.decisions.tasks import HealthCheck

QUICK_FIRST_S = 0.02
QUICK_LAST_S = 0.2
QUICK_COMMAND_S = 0.5  # starts a process each time


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`healthy` None: never checked successfully, and not given up."""

    healthy: bool | None = None
    failures: int = 0


def indulgent_s(check: HealthCheck) -> float:
    """Seconds after the start in which failures of a task that was never healthy do not count."""
    return max(check.delay_seconds, check.grace_period_seconds)


def judge(standing: Standing, check: HealthCheck, *, ok: bool, since_start_s: float) -> Standing:
    """`healthy` turns False when failures in a row reach the check's number; the first success turns it True."""
    if ok:
        return Standing(healthy=True)
    if standing.healthy is None and since_start_s < indulgent_s(check):
        return standing
    failures = standing.failures + 1
    healthy = False if failures >= max(1, check.consecutive_failures) else standing.healthy
    return Standing(healthy=healthy, failures=failures)


def pause_s(standing: Standing, check: HealthCheck, *, since_start_s: float) -> float:
    """Until the next check: quick while a first success would publish the task, then the interval as given.

    A success counts also before `delay_seconds` are over; the delay only keeps failures from counting. Commands, which
    may have effects, do wait for it.
    """
    if check.kind() == "COMMAND" and since_start_s < check.delay_seconds:
        return check.delay_seconds - since_start_s
    if standing.healthy is None and since_start_s < indulgent_s(check):
        quick_s = min(QUICK_LAST_S, max(QUICK_FIRST_S, since_start_s / 4))
        return max(quick_s, QUICK_COMMAND_S) if check.kind() == "COMMAND" else quick_s
    return max(QUICK_FIRST_S, check.interval_seconds)

"""Why an app does not run, or not as asked: one value, and the same in sentences."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_core.services.decisions.app import App
from fairlead_core.services.decisions.matching import Reason, Refusal, available
from fairlead_core.services.decisions.offers import Offer, port_count
from fairlead_core.services.decisions.reconciling import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one app. Texts are "" and `failure` None where there is nothing to tell."""

    app: App
    counts: Mapping[str, int]
    ready: int = 0
    """Instances of this version that run and, if checked, are healthy."""
    older: int = 0
    """Instances of other versions that are still there."""
    launch: int = 0
    """Instances still to be launched."""
    holds: str = ""
    backoff_s: float = 0.0
    waits_for: str = ""
    deployments: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    looked_at: int = 0
    waiting_s: float = 0.0
    failure: Mapping[str, Any] | None = None
    draining: tuple[str, ...] = ()
    """Agents that are being emptied and hold instances."""
    fault: str = ""
    """Why the app is excluded."""
    troubles: tuple[str, ...] = field(default=())
    """What stops the whole scheduler: no master, a registry that is not to be believed."""


def explain(facts: Facts) -> dict[str, Any]:
    """The answer of `/fairlead/explain`; `reasons` are sentences, most important first."""
    counts = facts.counts
    return {
        "app": facts.app.id,
        "version": facts.app.version,
        "wanted": facts.app.instances,
        "running": counts["tasksRunning"],
        "healthy": counts["tasksHealthy"],
        "unhealthy": counts["tasksUnhealthy"],
        "staged": counts["tasksStaged"],
        "ready_of_this_version": facts.ready,
        "of_other_versions": facts.older,
        "to_launch": facts.launch,
        "waiting_s": round(facts.waiting_s, 1),
        "backoff_s": round(facts.backoff_s, 1),
        "deployments": list(facts.deployments),
        "waits_for": facts.waits_for,
        "offers_considered": facts.looked_at,
        "refusals": {reason.value: count for reason, count in funnel(facts.refusals)},
        "agents": [
            {"agent": r.offer.agent, "host": r.offer.place.hostname, "reason": r.reason.value, "detail": r.detail}
            for r in facts.refusals
        ],
        "smallest_change": smallest_change(facts.app, facts.refusals),
        "last_failure": facts.failure,
        "reasons": list(_sentences(facts)),
    }


def funnel(refusals: Iterable[Refusal]) -> list[tuple[Reason, int]]:
    """Counts in the order of the funnel."""
    counted = Counter(r.reason for r in refusals)
    return [(reason, counted[reason]) for reason in Reason if counted[reason]]


def _sentences(facts: Facts) -> Iterator[str]:
    yield from facts.troubles
    if facts.fault:
        yield f"excluded: {facts.fault}; nothing is started or ended until its definition is changed"
    elif facts.launch and facts.holds:
        yield f"{number(facts.launch)} to be launched, held by {facts.holds}"
    elif facts.launch:
        yield from _placing(facts)
    elif facts.waits_for:
        yield f"waits for {facts.waits_for}"
    if facts.older:
        others = number(facts.older)
        yield f"{facts.ready} of {number(facts.app.instances)} of this version ready; {others} of other versions still there"
    for agent in facts.draining:
        yield f"agent {agent} is being drained: its instances are replaced elsewhere first"
    if facts.failure is not None and (facts.launch or facts.ready < facts.app.instances):
        place = f"; its output is in the sandbox of {facts.failure['taskId']} on {facts.failure['host']}"
        message = facts.failure["message"] or facts.failure["state"]
        yield f"the last instance to fail ended at {facts.failure['timestamp']}: {message}{place}"
    if not facts.launch and not facts.waits_for and not facts.fault and not facts.troubles:
        yield f"{facts.counts['tasksRunning']} of {number(facts.app.instances)} running, as asked"


def _placing(facts: Facts) -> Iterator[str]:
    if not facts.refusals:
        yield f"{number(facts.launch)} to be launched, but no offer has come for {facts.waiting_s:.0f} s"
        return
    yield f"{number(facts.launch)} to be launched, but no place on {number(len(facts.refusals), 'agent')}"
    for reason, count in funnel(facts.refusals):
        example = next(r for r in facts.refusals if r.reason is reason)
        yield f"{reason.value} on {count}: {example.detail} ({example.offer.place.hostname})"
    change = smallest_change(facts.app, facts.refusals)
    if change:
        yield change


def smallest_change(app: App, refusals: Sequence[Refusal]) -> str:
    """What would make the app fit where it misses least; "" when no single number would.

    `needs 4 cpus; the largest offer has 1.5 on agent S1 (host-a)`.
    """
    by_reason: tuple[tuple[Reason, str, float, str], ...] = (
        (Reason.CPUS, "cpus", app.cpus, "cpus"),
        (Reason.MEM, "mem", app.mem, "MB of memory"),
        (Reason.DISK, "disk", app.disk, "MB of disk"),
    )
    found: list[tuple[float, str]] = []
    for reason, name, needed, unit in by_reason:
        missing = [r.offer for r in refusals if r.reason is reason]
        if missing:
            best = max(missing, key=lambda offer: _has(offer, name, app))
            has = _has(best, name, app)
            text = (
                f"needs {needed:g} {unit}; the largest offer has {has:g} on agent {best.agent} ({best.place.hostname})"
            )
            found.append((has / needed if needed else 1.0, text))
    portless = [r.offer for r in refusals if r.reason is Reason.PORTS]
    if portless and not found:
        best = max(portless, key=lambda offer: port_count(offer.resources.ports()))
        return (
            f"needs {len(app.port_definitions)} host ports; agent {best.agent} ({best.place.hostname}) cannot give them"
        )
    if not found and any(r.reason is Reason.CONSTRAINT for r in refusals):
        return next(r.detail for r in refusals if r.reason is Reason.CONSTRAINT)
    return max(found, default=(0.0, ""))[1]


def _has(offer: Offer, name: str, app: App) -> float:
    return available(offer.resources, name, app.accepted_resource_roles or (offer.role, "*"))


def queue_reasons(facts: Facts) -> dict[str, Any]:
    """Marathon's processedOffersSummary."""
    counted = dict(funnel(facts.refusals))
    left = len(facts.refusals)
    total = left
    summary = []
    for reason in Reason:
        summary.append({"reason": reason.value, "declined": counted.get(reason, 0), "processed": left})
        left -= counted.get(reason, 0)
    return {
        "processedOffersCount": facts.looked_at,
        "unusedOffersCount": total,
        "rejectSummaryLastOffers": summary,
        "rejectSummaryLaunchAttempt": summary,
    }

"""`fairlead status` in a few lines, from what the daemons answered. What did not answer is {}."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_console.decisions.balancers import Registration
from fairlead_console.decisions.nodes import condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Answers of master /state and /slaves, services /v2/apps, lb /status, dns /v1/axfr and /metrics (its text)."""

    master: Mapping[str, Any]
    agents: Mapping[str, Any]
    apps: Mapping[str, Any]
    balancer: Mapping[str, Any]
    names: Mapping[str, Any]
    alerts: Mapping[str, Any] = field(default_factory=dict)
    """The monitor's /api/alerts."""
    name_metrics: str = ""
    registry: str = ""
    revision: int | None = None
    """The registry's own, read from it."""
    balancers: Sequence[Registration] = ()
    """As registered there."""


def summary(facts: Facts) -> list[tuple[str, str]]:
    """(what, now), in the way of an endpoint."""
    return [
        ("registry", _registry(facts)),
        ("leader", str(facts.master.get("leader") or "unknown")),
        ("agents", _agents(facts)),
        ("frameworks", _frameworks(facts)),
        ("apps", _apps(facts)),
        ("names", _names(facts)),
        ("balancer", _balancer(facts.balancer)),
        ("alerts", _alerts(facts.alerts)),
    ]


def _registry(facts: Facts) -> str:
    return f"revision {facts.revision}; {facts.registry}" if facts.revision is not None else "unknown"


_TRUST = re.compile(r'^fairlead_discovery_snapshot_trust\{trust="(\w+)"\} 1(?:\.0)?$', re.MULTILINE)
_BAD = re.compile(r"^fairlead_discovery_snapshot_bad_nodes ([0-9.e+]+)$", re.MULTILINE)
_REVISION = re.compile(r"^fairlead_discovery_snapshot_revision ([0-9.e+]+)$", re.MULTILINE)


def read_metrics(text: str) -> tuple[str, str]:
    """Trust and revision of a reader's newest snapshot, from its `/metrics`."""
    trust, revision = _TRUST.search(text), _REVISION.search(text)
    return trust[1] if trust else "unknown", str(int(float(revision[1]))) if revision else "unknown"


def unreadable(metrics_text: str) -> int:
    """How many records a reader cannot read, from its `/metrics`."""
    found = _BAD.search(metrics_text)
    return int(float(found[1])) if found else 0


def _agents(facts: Facts) -> str:
    found = facts.agents.get("slaves")
    if found is None:
        return "unknown"
    cpus = _used(found, "cpus")
    return f"{_counted(condition(a) for a in found)}; cpus {cpus}; mem {_used(found, 'mem')} MB"


def _used(agents: Iterable[Mapping[str, Any]], name: str) -> str:
    pairs = [((a.get("used_resources") or {}).get(name, 0), (a.get("resources") or {}).get(name, 0)) for a in agents]
    return f"{sum(float(u) for u, _ in pairs):g} of {sum(float(t) for _, t in pairs):g}"


def _frameworks(facts: Facts) -> str:
    names = [
        str(f.get("name", "?")) + ("" if f.get("active", True) else " (inactive)")
        for f in facts.master.get("frameworks", ())
    ]
    return ", ".join(names) or ("none" if facts.master else "unknown")


def _apps(facts: Facts) -> str:
    found = facts.apps.get("apps")
    if found is None:
        return "unknown"
    wanted = sum(int(a.get("instances", 0)) for a in found)
    running = sum(int(a.get("tasksRunning", 0)) for a in found)
    deploying = sum(1 for a in found if a.get("deployments"))
    return f"{len(found)}; {running} of {wanted} instances running; {deploying} deploying"


def _names(facts: Facts) -> str:
    if not facts.names:
        return "unknown"
    records = facts.names.get("Records", {})
    trust, revision = read_metrics(facts.name_metrics)
    counted = f"{len(records.get('As', ()))} with addresses"
    return f"revision {revision}; trust {trust}; {counted}; TTL {facts.names.get('TTL', '?')} s"


def _balancer(status: Mapping[str, Any]) -> str:
    """Applied beside the registry's revision: the same when it has caught up."""
    if not status:
        return "off, or unknown"
    haproxy = status.get("haproxy") or {}
    applied, revision = status.get("applied_revision", "?"), status.get("revision", "?")
    parts = [
        f"applied revision {applied} of {revision}",
        f"trust {status.get('trust', '?')}",
        f"{sum(1 for s in status.get('services', ()) if s.get('wanted', True))} services",
        f"haproxy pid {haproxy.get('master_pid', '?')}",
    ]
    return "; ".join(parts)


def _alerts(page: Mapping[str, Any]) -> str:
    """What is wrong now; `fairlead alert list` says more."""
    if not page:
        return "unknown"
    return _counted(a["state"] for a in page.get("alerts", ()) if a["state"] not in {"resolved", "gone"})


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{n} {word}" for word, n in sorted(Counter(words).items())) or "none"

"""What `fairlead top` shows, from the samples of this moment."""

from collections.abc import Mapping
from typing import Any

from fairlead_monitoring.decisions import houses
from fairlead_monitoring.decisions.evaluation import rate
from fairlead_monitoring.decisions.ring import Ring

CPU_SPAN_S = 30.0


def top(ring: Ring, *, now_s: float, fresh_s: float) -> dict[str, Any]:
    """`services`, `daemons` and `agents`, each sorted by name. A value nobody gave is None."""
    look = _Look(ring, now_s, fresh_s)
    return {"at_s": now_s, "services": _services(look), "daemons": _daemons(look), "agents": _agents(look)}


class _Look:
    """Sums of a metric by one label."""

    def __init__(self, ring: Ring, now_s: float, fresh_s: float) -> None:
        self.ring = ring
        self.now_s = now_s
        self._fresh_s = fresh_s

    def by(self, label: str, name: str, **wanted: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for one, value in self.ring.now(name, self.now_s, fresh_s=self._fresh_s):
            labels = dict(one.labels)
            if label in labels and all(labels.get(k) == v for k, v in wanted.items()):
                found[labels[label]] = found.get(labels[label], 0.0) + value
        return found

    def labels(self, key: str, label: str, name: str) -> dict[str, str]:
        """One label's value by another's."""
        found = (dict(one.labels) for one, _ in self.ring.now(name, self.now_s, fresh_s=self._fresh_s))
        return {labels[key]: labels[label] for labels in found if key in labels and label in labels}

    def cpu(self) -> dict[str, float]:
        """Percent of one core, by source."""
        found: dict[str, float] = {}
        for one, _ in self.ring.now("process_cpu_seconds_total", self.now_s, fresh_s=self._fresh_s):
            used = rate(self.ring.points(one, self.now_s - CPU_SPAN_S))
            if used is not None:
                found[dict(one.labels).get("source", "")] = used * 100
        return found


def _services(look: _Look) -> list[dict[str, Any]]:
    columns = {
        "wanted": look.by("service", houses.WANTED),
        "running": look.by("service", houses.INSTANCES, state="running"),
        "healthy": look.by("service", houses.INSTANCES, state="healthy"),
        "endpoints": look.by("service", houses.ENDPOINTS),
        "routed": look.by("service", houses.SERVERS, state="ready"),
        "requests_per_s": look.by("service", houses.REQUESTS_PER_S),
        "errors_per_s": look.by("service", houses.ERRORS_PER_S),
        "sessions": look.by("service", houses.SESSIONS),
    }
    names = {name for name, wanted in columns["wanted"].items() if wanted} | {
        n for n, v in columns["running"].items() if v
    }
    names |= {name for name, count in columns["endpoints"].items() if count}
    return _table("service", names, columns)


def _daemons(look: _Look) -> list[dict[str, Any]]:
    up = look.by("source", houses.UP, page="metrics")
    columns = {
        "up": up,
        "cpu_percent": look.cpu(),
        "memory_bytes": look.by("source", "process_resident_memory_bytes"),
    }
    roles = look.labels("source", "role", houses.UP)
    return [{**row, "role": roles.get(row["daemon"], "")} for row in _table("daemon", up.keys(), columns)]


def _agents(look: _Look) -> list[dict[str, Any]]:
    lost = look.by("agent", houses.AGENT_LOST)
    columns = {"lost": lost}
    for name in houses.RESOURCES:
        columns[f"{name}_used"] = look.by("agent", houses.AGENT_USED, resource=name)
        columns[f"{name}_total"] = look.by("agent", houses.AGENT_CAPACITY, resource=name)
    return _table("agent", lost.keys(), columns)


def _table(key: str, names: Any, columns: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    return [{key: name, **{c: values.get(name) for c, values in columns.items()}} for name in sorted(names)]

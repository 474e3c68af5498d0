"""Samples about services, agents, balancers and links, made of what the daemons' own pages say.

All their names are made here. Subjects that ended in order (an app deleted, an agent marked gone) give zeros: so an
alert about them is resolved by data, and never for want of it.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fairlead_monitoring.decisions.samples import Series, series

WANTED = "fairlead_service_wanted"
INSTANCES = "fairlead_service_instances"
ENDPOINTS = "fairlead_service_endpoints"
SERVERS = "fairlead_service_servers"
REQUESTS = "fairlead_service_requests_total"
REQUESTS_PER_S = "fairlead_service_requests_per_second"
ERRORS = "fairlead_service_errors_total"
ERRORS_PER_S = "fairlead_service_errors_per_second"
SESSIONS = "fairlead_service_sessions"
RESPONSE_S = "fairlead_service_response_seconds"
AGENT_LOST = "fairlead_agent_lost"
AGENT_USED = "fairlead_agent_used"
AGENT_CAPACITY = "fairlead_agent_capacity"
LINK_RUNNING = "fairlead_link_running"
BEHIND = "fairlead_balancer_behind_seconds"
REGISTRY_AGE = "fairlead_registry_age_seconds"
REGISTRY_REVISION = "fairlead_registry_seen_revision"
REGISTRY_LEAVING = "fairlead_registry_leaving_tasks"
UP = "fairlead_up"
HELP: Mapping[str, str] = {
    WANTED: "Instances a service should have",
    INSTANCES: "Instances a service has, by state; without a health check a running one counts as healthy",
    ENDPOINTS: "Members a service has in the registry",
    SERVERS: "Servers a service has in the balancer, by state",
    REQUESTS: "Requests (HTTP) or connections (TCP) of a service through the balancer",
    REQUESTS_PER_S: "The same per second, between the last two looks",
    ERRORS: "5xx answers and connections that failed",
    ERRORS_PER_S: "The same per second",
    SESSIONS: "Open sessions of a service in the balancer",
    RESPONSE_S: "Time to the answer, mean of the last 1,024 requests",
    AGENT_LOST: "1 while an agent should be there and is not",
    AGENT_USED: "Taken by tasks",
    AGENT_CAPACITY: "What an agent offers",
    LINK_RUNNING: "1 while an expected federation link runs, 0 while it is missing or does not run",
    BEHIND: "How long the oldest revision that the balancer has not applied has been there",
    REGISTRY_AGE: "How long ago what is read of the registry was known to be true",
    REGISTRY_REVISION: "The registry's revision, as read",
    REGISTRY_LEAVING: "Tasks that are leaving",
    UP: "1 when the source answered the last look",
}
"""What `/metrics` shows of other parts."""
LINGER_S = 60.0

Values = dict[Series, float]


def of_apps(page: Mapping[str, Any], *, framework: str) -> Values:
    """From `/v2/apps`."""
    found: Values = {}
    for app in page["apps"]:
        service = f"{framework}:{app['id']}"
        running = float(app.get("tasksRunning", 0))
        states = {
            "staged": float(app.get("tasksStaged", 0)),
            "running": running,
            "healthy": float(app.get("tasksHealthy", 0)) if app.get("healthChecks") else running,
            "unhealthy": float(app.get("tasksUnhealthy", 0)),
        }
        found[series(WANTED, service=service)] = float(app.get("instances", 0))
        found.update({series(INSTANCES, service=service, state=s): n for s, n in states.items()})
    return found


RESOURCES = ("cpus", "mem", "disk")


def of_agents(page: Mapping[str, Any]) -> Values:
    """From `/slaves`, which leaves out unreachable agents: those stand in the master's documents (`of_documents`)."""
    found: Values = {}
    for agent in page["slaves"]:
        about = {"agent": str(agent["id"]), "host": str(agent.get("hostname", ""))}
        found[series(AGENT_LOST, **about)] = float(bool(agent.get("suspect")))
        for name in RESOURCES:
            for metric, key in ((AGENT_USED, "used_resources"), (AGENT_CAPACITY, "resources")):
                found[series(metric, **about, resource=name)] = float((agent.get(key) or {}).get(name, 0))
    return found


def of_documents(documents: Iterable[Mapping[str, Any]], listed: Values, before: Values) -> Values:
    """What the master wrote down of agents that `/slaves` (`listed`) does not show: unreachable is lost, gone is not.

    `before` is the last look: of agents that are gone only those we knew are told.
    """
    found: Values = {}
    for document in documents:
        one = series(AGENT_LOST, agent=str(document.get("id", "")), host=str(document.get("hostname", "")))
        if document.get("gone") and one in before:
            found[one] = 0.0
        elif float(document.get("unreachable_s") or 0) > 0 and one not in listed and not document.get("gone"):
            found[one] = 1.0
    return found


_SERVER_STATES = ("ready", "down", "drain", "maint")


def of_balancer(status: Mapping[str, Any], statistics: str, *, balancer: str) -> Values:
    """From the balancer's `/status` and HAProxy's CSV; a service's ports are added up."""
    rows = {row["pxname"]: row for row in _rows(statistics) if row.get("svname") == "BACKEND"}
    found: Values = {}
    for entry in status["services"]:
        about = {"service": str(entry["service"]), "balancer": balancer}
        for state in _SERVER_STATES:
            count = sum(1 for server in entry["servers"] if server["state"] == state)
            _add(found, series(SERVERS, **about, state=state), count)
        row = rows.get(entry["backend"])
        if row is not None:
            requests = row.get("req_tot") or row.get("stot") if entry.get("mode") == "http" else row.get("stot")
            _add(found, series(REQUESTS, **about), _number(requests))
            errors = sum(_number(row.get(column)) for column in ("hrsp_5xx", "econ", "eresp"))
            _add(found, series(ERRORS, **about), errors)
            _add(found, series(SESSIONS, **about), _number(row.get("scur")))
            slowest = max(found.get(series(RESPONSE_S, **about), 0.0), _number(row.get("rtime")) / 1000)
            found[series(RESPONSE_S, **about)] = slowest
    return found


def _add(found: Values, one: Series, value: float) -> None:
    found[one] = found.get(one, 0.0) + value


def _rows(statistics: str) -> list[dict[str, str]]:
    return list(csv.DictReader(statistics.lstrip("# ").splitlines()))


def _number(text: str | None) -> float:
    return float(text) if text and text.replace(".", "", 1).isdigit() else 0.0


PER_SECOND: Mapping[str, str] = {REQUESTS: REQUESTS_PER_S, ERRORS: ERRORS_PER_S}


def per_second(before: Values, now: Values, passed_s: float) -> Values:
    """Speeds of the counters in PER_SECOND; one that fell began again at zero."""
    found: Values = {}
    for one, value in now.items():
        last = before.get(one)
        if one.name in PER_SECOND and last is not None and passed_s > 0:
            grown = value - last if value >= last else value
            found[Series(PER_SECOND[one.name], one.labels)] = grown / passed_s
    return found


def of_snapshot_page(page: Mapping[str, Any]) -> Values:
    """The master's `/metrics/snapshot`: `master/tasks_running` -> `mesos_master_tasks_running`."""
    return {
        series("mesos_" + re.sub(r"[^A-Za-z0-9_]", "_", name)): float(value)
        for name, value in page.items()
        if isinstance(value, int | float)
    }


LINK_LABELS = ("broker", "upstream", "vhost", "kind", "name")
UNEXPECTED = frozenset({"stray"})
UNKNOWN = frozenset({"unknown"})


def of_links(page: Mapping[str, Any]) -> Values:
    """From the broker topology's `/status`: every expected link, and whether it runs. What nobody knows is absent."""
    found: Values = {}
    for link in page["links"]:
        state = str(link["state"])
        if state not in UNEXPECTED | UNKNOWN:
            about = {key: str(link.get(key, "")) for key in LINK_LABELS}
            found[series(LINK_RUNNING, **about)] = float(state == "running")
    return found


class Lingering:
    """Adds zeros for what the page does not show any more, for LINGER_S."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._seen_s: dict[Series, float] = {}

    def of(self, values: Values, now_s: float) -> Values:
        """Only series of the names given at the start linger."""
        for one in values:
            if one.name in self._names:
                self._seen_s[one] = now_s
        ended = {one: seen_s for one, seen_s in self._seen_s.items() if one not in values}
        for one, seen_s in ended.items():
            if now_s - seen_s > LINGER_S:
                del self._seen_s[one]
        return {one: 0.0 for one in ended if one in self._seen_s}


class Lag:
    """How long the oldest revision that a balancer has not applied has been there."""

    def __init__(self, *, most: int = 10_000) -> None:
        self._most = most
        self._seen: list[tuple[int, float]] = []

    def see(self, revision: int, now_s: float) -> None:
        if self._seen and revision < self._seen[-1][0]:  # another registry, or one restored from elsewhere
            self._seen.clear()
        if not self._seen or revision > self._seen[-1][0]:
            self._seen.append((revision, now_s))
            del self._seen[: -self._most]

    def behind_s(self, applied: int, now_s: float) -> float:
        """0 when all that was seen is applied."""
        return next((now_s - seen_s for revision, seen_s in self._seen if revision > applied), 0.0)

    def forget(self, applied: int) -> None:
        """Everybody has applied it."""
        while len(self._seen) > 1 and self._seen[0][0] <= applied:
            del self._seen[0]

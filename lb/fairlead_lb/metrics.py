"""Every metric of the balancer: `fairlead_lb_…`."""

from collections import Counter as Counted
from collections.abc import Collection, Iterable, Mapping
from itertools import islice

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead_discovery.records import Progress
from fairlead_lb.decisions import spares
from fairlead_lb.decisions.breaking import Breakers
from fairlead_lb.decisions.counters import COLUMNS, GAUGES, Counts, Label, Row
from fairlead_lb.decisions.last_good import BY_HAPROXY
from fairlead_lb.decisions.rails import Ruled
from fairlead_lb.decisions.splits import Ways
from fairlead_lb.decisions.values import Admin, Key, Slot, Structure
from fairlead_lb.state import State

APPLIED = Gauge("fairlead_lb_applied_revision", "Registry revision that HAProxy serves, read back from it")
SNAPSHOT_AGE = Gauge("fairlead_lb_snapshot_age_seconds", "How long ago what is served was last known to be true")
RELOADS = Counter("fairlead_lb_reloads_total", "Structural changes by result", ["result"])
STARTS = Counter("fairlead_lb_haproxy_starts_total", "Times HAProxy was started")
COMMANDS = Counter("fairlead_lb_runtime_commands_total", "Changes made without a reload")
REPAIRS = Counter(
    "fairlead_lb_repairs_total", "What differed from what was last read back, and was put right", ["kind"]
)
HELD = Gauge(
    "fairlead_lb_held_endpoints", "Endpoints served though they have vanished from the registry without a record"
)
DAMPED = Gauge("fairlead_lb_damped_endpoints", "Endpoints held down because they come and go")
PANICKING = Gauge("fairlead_lb_panicking_backends", "Backends served in spite of their checks, most of which fail")
APPLY = Histogram(
    "fairlead_lb_apply_seconds",
    "From a snapshot's arrival to HAProxy serving it, read back",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
BACKENDS = Gauge("fairlead_lb_backends", "Backends HAProxy has")
SPARES = Gauge("fairlead_lb_spare_backends", "Backends that stand empty for new services")
SLOTS = Gauge("fairlead_lb_slots", "Server slots by state", ["state"])
MOST_NAMED = 50
BAD_FRAGMENTS = Gauge(
    "fairlead_lb_bad_fragments", "1: HAProxy's own check has turned down what this service asks for", ["service"]
)
CHECKS = Counter("fairlead_lb_config_checks_total", "Runs of `haproxy -c`")
ROLLOUT_STOPPED = Gauge("fairlead_lb_rollout_stopped", "1: a reload waits because it did harm to another balancer")
REFUSED = Gauge("fairlead_lb_refused_routes", "Services whose route is refused, wholly or in part")
TAKEN_PORTS = Gauge("fairlead_lb_taken_ports", "Service ports that another process holds")
OLD_WORKERS = Gauge("fairlead_lb_old_workers", "HAProxy workers that finish old sessions")
BUSY = Gauge("fairlead_lb_busy_tasks", "Leaving tasks that still have sessions")
SPILLED = Gauge("fairlead_lb_spilled_services", "Ports of services whose near servers do not suffice")
EJECTED = Gauge("fairlead_lb_ejected_servers", "Servers put aside for their errors")
EJECTIONS = Counter("fairlead_lb_ejections_total", "Times a server was put aside for its errors")
EJECTIONS_CAPPED = Gauge("fairlead_lb_ejections_capped", "Servers with errors that stay, for too many are put aside")
BUDGETS_SPENT = Gauge("fairlead_lb_retry_budgets_spent", "Ports of services whose requests are not repeated now")

TRAEFIK_STEPS = Counter("fairlead_lb_traefik_steps_total", "Nodes of Traefik's tree that were written or removed")
TEMPLATES = Counter(
    "fairlead_lb_template_total", "Outputs of the Bamboo template by result: written, failed", ["result"]
)
BAD_CERTIFICATES = Gauge("fairlead_lb_bad_certificates", "Certificate files, and the registry's, that are not taken")
IDENTITY_EXPIRY = Gauge(
    "fairlead_lb_identity_expiry_timestamp_seconds", "When our own identity ends, as HAProxy has it; renewed at half"
)
IDENTITY_LIFE = Gauge("fairlead_lb_identity_life_seconds", "Whole life of our own identity; 0 while there is none")
CERTIFICATE_EXPIRY = Gauge(
    "fairlead_lb_certificate_expiry_timestamp_seconds", "When a served certificate ends, Unix time", ["certificate"]
)

COUNTED = {"stot": "sessions", "req_tot": "requests", "hrsp_5xx": "responses_5xx", "eresp": "response_errors"}
GAUGED = {
    "scur": "sessions_current",
    "act": "servers_active",
    "rtime": "response_average_seconds",
    "ttime": "total_average_seconds",
}
AVERAGES = ("rtime", "ttime")
"""Milliseconds, over the last 1,024 requests; told of backends alone."""


SHARES_FALLEN_BACK = Gauge("fairlead_lb_shares_fallen_back", "Shares of splits whose service has no ready server")
FAILED_OVER = Gauge("fairlead_lb_failed_over", "Ports whose requests go to a fallback")
CANARY_PERCENT = Gauge("fairlead_lb_canary_percent", "Requests that go to the canary", ["service"])
CANARIES = Gauge("fairlead_lb_canaries", "Canaries by state; `aborted` is worth an alert", ["state"])


BREAKERS = Gauge("fairlead_lb_breakers", "Circuit breakers by state; `open` is worth an alert", ["state"])
BREAKER_TRIPS = Counter("fairlead_lb_breaker_trips_total", "Times a circuit breaker has opened", ["service"])


def count_breakers(last: Breakers, now: Breakers) -> None:
    states = Counted(breaker.state for breaker in now.values())
    for state in ("open", "half-open", "closed"):
        BREAKERS.labels(state).set(states[state])
    for key, breaker in now.items():
        if breaker.state == "open" and breaker != last.get(key):
            BREAKER_TRIPS.labels(key.service).inc()


def count_splits(ways: Ways, ready: Mapping[Key, int], down: Collection[Key]) -> None:
    given = [to for way in ways.values() for to, size in way.shares if size]
    SHARES_FALLEN_BACK.set(sum(not ready.get(to) for to in given))
    FAILED_OVER.set(len(down))


def count_canaries(percents: Mapping[str, float], states: Iterable[str]) -> None:
    CANARY_PERCENT.clear()
    for service, percent in percents.items():
        CANARY_PERCENT.labels(service).set(percent)
    counts = Counted(states)
    for state in ("running", "promoted", "aborted"):
        CANARIES.labels(state).set(counts[state])


def states_of(slots: Iterable[Slot]) -> "Counted[str]":
    return Counted("empty" if slot.empty else str(slot.admin) for slot in slots)


def count_slots(counts: "Counted[str]") -> None:
    for state in ("empty", *Admin):
        SLOTS.labels(str(state)).set(counts[str(state)])


def count_refused(refused: Mapping[str, str]) -> None:
    REFUSED.set(len(refused))
    BAD_FRAGMENTS.clear()
    for service in islice((s for s, why in sorted(refused.items()) if BY_HAPROXY in why), MOST_NAMED):
        BAD_FRAGMENTS.labels(service).set(1)


def measure_rails(ruled: Iterable[Ruled]) -> None:
    there = list(ruled)
    HELD.set(sum(len(r.held) for r in there))
    DAMPED.set(sum(len(r.damped) for r in there))


def count_backends(structure: Structure) -> None:
    SPARES.set(len(spares.free(structure)))


def measure(state: State, progress: Progress, old_workers: int) -> None:
    """After each turn of the loop."""
    APPLIED.set(progress.applied_revision)
    BUSY.set(len(progress.busy))
    OLD_WORKERS.set(old_workers)
    serving = state.serving
    BACKENDS.set(len(serving.slots) if serving else 0)


def count_certificates(not_after_s: Mapping[str, float]) -> None:
    CERTIFICATE_EXPIRY.clear()
    for name, time_s in not_after_s.items():
        CERTIFICATE_EXPIRY.labels(name).set(time_s)


class Haproxy(Collector):
    """HAProxy's own counters per proxy and per task, as last read; they do not start again with a worker."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.sums: Mapping[Label, Counts] = {}

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        sums = list(self.sums.items())
        for place, column in enumerate(COLUMNS):
            name = f"fairlead_lb_haproxy_{COUNTED[column]}"
            by_proxy = CounterMetricFamily(name, f"HAProxy's {column}", labels=["proxy", "kind", "service"])
            by_task = CounterMetricFamily(
                f"fairlead_lb_task_{COUNTED[column]}", f"HAProxy's {column} by task", labels=["service", "task"]
            )
            for label, counts in sums:
                (by_task if len(label) == 2 else by_proxy).add_metric(list(label), float(counts[place]))
            yield by_proxy
            yield by_task
        for place, column in enumerate(GAUGES):
            gauge = GaugeMetricFamily(
                f"fairlead_lb_haproxy_{GAUGED[column]}", f"HAProxy's {column}", labels=["proxy", "kind"]
            )
            average = column in AVERAGES
            for row in self.rows:
                if not average or row.kind == "backend":
                    gauge.add_metric([row.proxy, row.kind], row.gauges[place] / (1000 if average else 1))
            yield gauge


HAPROXY = Haproxy()
REGISTRY.register(HAPROXY)

"""Prometheus metrics of core. The master's are read from the leader's cluster when they are asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Metric = CounterMetricFamily | GaugeMetricFamily
COUNTERS: Mapping[str, str] = {
    "launches": "Tasks launched",
    "offers": "Offers sent to frameworks",
    "allocation_runs": "Allocation cycles",
    "status_updates": "Status updates received from agents",
    "kills": "Kill orders sent to agents",
    "tasks_refused": "Tasks refused by validation",
    "subscriptions": "Framework subscriptions",
    "agent_registrations": "Agent registrations",
    "identities_issued": "Certificates given to agents for their tasks",
    "identities_refused": "Certificates that agents asked for and did not get",
    "agents_suspected": "Times an agent's endpoints were withdrawn for its silence",
}


class MasterCollector(Collector):
    """`fairlead_core_master_…`; only `leading` while this process does not lead."""

    def __init__(
        self, counts: Callable[[], Mapping[str, int] | None], gauges: Callable[[], Mapping[str, float]]
    ) -> None:
        self._counts = counts
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        """No names are claimed: what there is changes with leading, and tests run two masters in one process."""
        return ()

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        yield GaugeMetricFamily(
            "fairlead_core_master_leading", "1 while this master leads", value=0.0 if counts is None else 1.0
        )
        if counts is None:
            return
        for name, help_text in COUNTERS.items():
            yield CounterMetricFamily(f"fairlead_core_master_{name}", help_text, value=counts.get(name, 0))
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"fairlead_core_master_{name}", name.replace("_", " "), value=value)


def serve_master(
    counts: Callable[[], Mapping[str, int] | None], gauges: Callable[[], Mapping[str, float]]
) -> Callable[[], None]:
    """Adds the master's metrics to the metrics page; returns what takes them off again."""
    collector = MasterCollector(counts, gauges)
    REGISTRY.register(collector)
    return lambda: REGISTRY.unregister(collector)

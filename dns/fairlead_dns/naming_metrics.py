"""What is counted of names: those that are shared or were cut, the TTL we are announced with, readings of a master."""

from collections.abc import Iterator

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead_dns.names import Names

mesos_states = Counter(
    "fairlead_dns_mesos_states", "States of a Mesos master: taken, unchanged, held (not believed), failed", ["outcome"]
)


class NamingCollector(Collector):
    """Reads the names when the page is asked for."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def collect(self) -> Iterator[Metric]:
        names = self._names
        for name, text, value in (
            (
                "shared_names",
                "Names that more than one service, framework or agent has",
                names.sources.claims.shared_count,
            ),
            ("rival_services", "Services that have such a name", len(names.sources.rivals)),
            (
                "cut_services",
                "Services, frameworks and agents with a name that was cut",
                names.sources.claims.cut_count,
            ),
            ("prepared_queries", "Prepared queries served", len(names.queries.known)),
            ("longest_ttl_seconds", "Largest TTL given out, which kills wait for", names.zone.longest_ttl_s),
        ):
            yield GaugeMetricFamily(f"fairlead_dns_{name}", text, value=value)

"""What `fairlead dns` counts, and the page Prometheus reads. The packet path only adds to plain integers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead_dns.decisions.asked import Transport
from fairlead_dns.decisions.wire import RCODE_NAMES

CODES = 4096  # twelve bits, with those in OPT

apply_seconds = Histogram(
    "fairlead_dns_apply_seconds",
    "From a snapshot's arrival until its names are answered",
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
)


publish_seconds = Histogram(
    "fairlead_dns_publish_seconds",
    "From a commit, by the registry's clock (a snapshot's arrival where it tells none), until its names are answered",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)


Elsewhere = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""What other processes of this server count: sample and its labels, sorted -> sum."""


def with_elsewhere(families: Iterable[Metric], elsewhere: Elsewhere) -> Iterator[Metric]:
    """The same, with what is counted elsewhere added to each sample."""
    for family in families:
        family.samples = [
            each._replace(value=each.value + elsewhere.get((each.name, tuple(sorted(each.labels.items()))), 0))
            for each in family.samples
        ]
        yield family


@dataclass(slots=True)
class Counts:
    """Since the start. `replies` by reply code, one list a transport."""

    replies: dict[Transport, list[int]] = field(default_factory=lambda: {t: [0] * CODES for t in Transport})
    cache_hits: int = 0
    silences: int = 0
    """Packets that got no reply: junk, and replies."""
    socket_errors: int = 0
    shed: int = 0
    """Datagrams dropped unanswered, the oldest first, because more came than can be answered."""
    tcp_refused: int = 0
    """Connections refused or closed for a limit's sake."""
    elsewhere: Elsewhere = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """Gauges at this moment."""

    serial: int
    names: int
    cached: int
    tcp_connections: int
    trust: str
    """"none" before the first snapshot."""


class DnsCollector(Collector):
    """Reads the counts when the page is asked for."""

    def __init__(self, counts: Counts, state: Callable[[], State]) -> None:
        self._counts = counts
        self._state = state

    def collect(self) -> Iterator[Metric]:
        return with_elsewhere(self._own(), self._counts.elsewhere)

    def _own(self) -> Iterator[Metric]:
        yield self._queries()
        counts, state = self._counts, self._state()
        for name, text, value in (
            ("cache_hits", "Replies served from the cache of whole packets", counts.cache_hits),
            ("silences", "Packets that deserved no reply", counts.silences),
            ("socket_errors", "Packets lost to an error of the socket", counts.socket_errors),
            ("shed", "Datagrams dropped unanswered under overload, the oldest first", counts.shed),
            ("tcp_refused", "TCP connections refused or closed for a limit's sake", counts.tcp_refused),
        ):
            yield CounterMetricFamily(f"fairlead_dns_{name}", text, value=value)
        for name, text, value in (
            ("zone_serial", "The registry's revision that is answered, mod 2^32", state.serial),
            ("zone_names", "Names with records", state.names),
            ("cache_entries", "Prepared answers", state.cached),
            ("tcp_connections", "Open TCP connections", state.tcp_connections),
        ):
            yield GaugeMetricFamily(f"fairlead_dns_{name}", text, value=value)
        trust = GaugeMetricFamily("fairlead_dns_trust", "1 for how far the names may be believed", labels=["trust"])
        for known in ("none", "live", "stale", "held"):
            trust.add_metric([known], known == state.trust)
        yield trust

    def _queries(self) -> Metric:
        family = CounterMetricFamily(
            "fairlead_dns_queries", "Queries answered, by transport and reply code", labels=["transport", "rcode"]
        )
        for transport, replies in self._counts.replies.items():
            for code, name in RCODE_NAMES.items():
                family.add_metric([transport.value, name], replies[code])
        return family


@dataclass(frozen=True, slots=True)
class ForwardState:
    """The forwarder at this moment. `counters` and `gauges` by the last part of their names."""

    counters: Mapping[str, int]
    gauges: Mapping[str, int]
    upstreams: Mapping[tuple[str, str], tuple[str, float]]
    """Zone and place -> circuit, smoothed round trip in seconds."""


FORWARD_COUNTERS = {
    "hits": "Forwarded names answered from the cache, prepared packets not counted",
    "misses": "Questions that had to be asked",
    "merged": "Questions that joined an identical one under way",
    "stale": "Answers given past their time",
    "prefetches": "Popular answers asked for again before their time was over",
    "local": "Questions for names that are never sent on",
    "failures": "Questions no upstream answered",
    "shed": "Questions that gave way to newer ones because too many waited, the oldest first",
    "loops": "Questions of our own that came back to us",
    "upstream_queries": "Queries sent to upstreams, retries and probes included",
    "evicted": "Answers forgotten for want of room",
}
FORWARD_GAUGES = {
    "in_flight": "Questions at upstreams",
    "queued": "Questions that wait for their turn",
    "waiting": "Clients that wait",
    "cached": "Answers kept",
    "cached_bytes": "Their memory, estimated",
}


class ForwardCollector(Collector):
    """Reads the forwarder when the page is asked for."""

    def __init__(self, state: Callable[[], ForwardState], elsewhere: Elsewhere) -> None:
        self._state = state
        self._elsewhere = elsewhere

    def collect(self) -> Iterator[Metric]:
        return with_elsewhere(self._own(), self._elsewhere)

    def _own(self) -> Iterator[Metric]:
        state = self._state()
        for name, text in FORWARD_COUNTERS.items():
            yield CounterMetricFamily(f"fairlead_dns_forward_{name}", text, value=state.counters[name])
        for name, text in FORWARD_GAUGES.items():
            yield GaugeMetricFamily(f"fairlead_dns_forward_{name}", text, value=state.gauges[name])
        labels = ["zone", "upstream"]
        trip = GaugeMetricFamily("fairlead_dns_upstream_trip_seconds", "Smoothed round trip", labels=labels)
        circuit = GaugeMetricFamily(
            "fairlead_dns_upstream_circuit",
            "1 for closed (used), suspect or open (not used)",
            labels=[*labels, "circuit"],
        )
        for (zone, place), (now, trip_s) in state.upstreams.items():
            trip.add_metric([zone, place], trip_s)
            for known in ("closed", "suspect", "open"):
                circuit.add_metric([zone, place, known], known == now)
        yield trip
        yield circuit

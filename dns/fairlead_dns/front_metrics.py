"""What the front decided and what waits, as Prometheus reads it."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions.front import Front
from fairlead_dns.decisions.rate import Verdict
from fairlead_dns.metrics import Elsewhere, with_elsewhere


class FrontCollector(Collector):
    """Reads the counts when the page is asked for."""

    def __init__(
        self, front: Front, waiters: Waiters, turned_away: Callable[[], int], elsewhere: Elsewhere
    ) -> None:  # what it reads, each of another owner
        self._elsewhere = elsewhere
        self._front = front
        self._waiters = waiters
        self._turned_away = turned_away

    def collect(self) -> Iterator[Metric]:
        return with_elsewhere(self._own(), self._elsewhere)

    def _own(self) -> Iterator[Metric]:
        tally = self._front.tally
        yield _labelled(
            "refused",
            "Queries refused by the front",
            "why",
            {"access": tally.denied, "recursion": tally.unrecursed, "tsig": tally.unsigned, "cookie": tally.uncookied},
        )
        yield _labelled(
            "cookies",
            "Client cookies seen: valid ones, and those new, old or forged",
            "cookie",
            {"valid": tally.cookies_valid, "other": tally.cookies_other},
        )
        yield _labelled("rate_verdicts", "Replies judged by the rate limit", "verdict", self._verdicts())
        yield CounterMetricFamily(
            "fairlead_dns_waiting_shed", "Waiting queries that gave way to newer ones", value=self._waiters.shed
        )
        yield CounterMetricFamily(
            "fairlead_dns_turned_away",
            "Connections that ended before a query: no handshake, no PROXY header, too slow",
            value=self._turned_away(),
        )
        yield GaugeMetricFamily(
            "fairlead_dns_waiting", "Queries that wait for another server", value=len(self._waiters.open)
        )

    def _verdicts(self) -> dict[str, int]:
        limiter = self._front.limiter
        return {v.value: limiter.counts[v] if limiter else 0 for v in Verdict}


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"fairlead_dns_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family

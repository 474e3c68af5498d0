"""What is counted of zone files and secondaries, for Prometheus' page."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead_dns.adapters.notifier import NotifyCounts
from fairlead_dns.decisions.journal import Journal
from fairlead_dns.decisions.transfer import Counts


@dataclass(frozen=True, slots=True)
class TransferState:
    """At this moment. `serials`, `journals` and `hidden` by zone as text; `broken` counts zone files that were refused,
    `hidden` the names of endpoints that a zone file hides.
    """

    transfers: Counts
    notifies: NotifyCounts
    serials: Mapping[str, int]
    journals: Mapping[str, Journal]
    zones: int
    broken: int
    hidden: Mapping[str, int]


class TransferCollector(Collector):
    """Reads the counts when the page is asked for."""

    def __init__(self, state: Callable[[], TransferState]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        yield _counters(
            "fairlead_dns_transfers",
            "Zone transfers: whole, only what changed, refused, put off because too many ran",
            {
                "whole": state.transfers.whole,
                "changes": state.transfers.incremental,
                "refused": state.transfers.refused,
                "put_off": state.transfers.put_off,
            },
        )
        yield _counters(
            "fairlead_dns_notifies",
            "NOTIFY messages: sent, heard by their secondary, given up",
            {"sent": state.notifies.sent, "heard": state.notifies.heard, "given_up": state.notifies.given_up},
        )
        serials = GaugeMetricFamily("fairlead_dns_serial", "Serial that secondaries may fetch", labels=["zone"])
        changes = GaugeMetricFamily("fairlead_dns_journal_changes", "Changes remembered of a zone", labels=["zone"])
        for zone, serial in state.serials.items():
            serials.add_metric([zone], serial)
        for zone, journal in state.journals.items():
            changes.add_metric([zone], len(journal.changes))
        yield serials
        yield changes
        yield GaugeMetricFamily("fairlead_dns_zone_files", "Zones served from files", value=state.zones)
        text = "Zone files that are wrong: their zones are served as they were before, or not at all"
        yield GaugeMetricFamily("fairlead_dns_zone_files_refused", text, value=state.broken)
        hidden = GaugeMetricFamily(
            "fairlead_dns_hidden_names", "Names of endpoints that a zone file of a longer name hides", labels=["zone"]
        )
        for zone, count in state.hidden.items():
            hidden.add_metric([zone], count)
        yield hidden


def _counters(name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["result"])
    for result, value in values.items():
        family.add_metric([result], value)
    return family

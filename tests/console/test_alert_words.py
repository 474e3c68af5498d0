"""`fairlead alert` and `fairlead top`, in the words people read."""

import pytest

from fairlead_console.decisions.overview import Facts, summary
from fairlead_console.verbs.alert import ago
from fairlead_console.verbs.top import headline, tables

PAGE = {
    "alerts": 2,
    "trust": "live",
    "services": [
        {
            "service": "marathon:/web",
            "wanted": 3.0,
            "healthy": 2.0,
            "routed": 2.0,
            "requests_per_s": 12.34,
            "errors_per_s": None,
            "sessions": 120.0,
        }
    ],
    "daemons": [{"daemon": "lb", "role": "lb", "up": 0.0, "cpu_percent": None, "memory_bytes": 50 * 1024 * 1024}],
    "agents": [
        {"agent": "a1", "lost": 1.0, "cpus_used": 0.5, "cpus_total": 4.0, "mem_used": None, "mem_total": 2048.0}
    ],
}


@pytest.mark.parametrize(("span_s", "text"), [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (5400, "1.5 h"), (-3, "0 s")])
def test_a_span_is_told_in_one_unit(span_s: float, text: str):
    """Seconds, minutes or hours."""
    assert text == ago(span_s)


def test_bad_news_in_top_ends_in_an_exclamation_mark():
    """Fewer than wanted, a daemon that does not answer, a lost agent; what nobody told is a dash."""
    (_, _, services), (_, _, daemons), (_, _, agents) = tables(PAGE)

    assert [("marathon:/web", "2/3!", "2", "12.3", "-", "120")] == services
    assert [("lb does not answer!", "lb", "-", "50")] == daemons
    assert [("a1", "0.5/4", "-/2048", "lost!")] == agents


def test_the_headline_counts_alerts():
    """And says how to see them."""
    assert "2 alerts firing: fairlead alert list; registry live" == headline(PAGE)
    assert "no alerts; registry unknown" == headline({})


def test_the_overview_counts_alerts_by_state():
    """Resolved ones are no news."""
    alerts = {"alerts": [{"state": s} for s in ("firing", "firing", "resolved", "no-data")]}
    facts = Facts(master={}, agents={}, apps={}, balancer={}, names={}, alerts=alerts)

    assert "2 firing, 1 no-data" == dict(summary(facts))["alerts"]

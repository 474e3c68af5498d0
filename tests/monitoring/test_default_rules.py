"""fairlead's own rules: each is readable, and those that meet one another tell one cause once."""

import tomllib

import pytest

from fairlead_monitoring.decisions.evaluation import Moment, judge_condition
from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.rules import Rule, read_rules
from fairlead_monitoring.decisions.samples import series
from fairlead_monitoring.rule_files import DEFAULTS

NOW_S = 1000.0
RULES = read_rules(tomllib.loads(DEFAULTS.read_text()), place=DEFAULTS.name)


def rule(name: str) -> Rule:
    found = RULES[name]
    assert found is not None
    return found


def firing(name: str, *, live: float, age_s: float) -> set[str]:
    """Sources for which the rule's condition holds, when dns-1's trust is so and dns-2's is live."""
    ring = Ring(keep_s=3600, forget_s=300, most_series=100)
    for source, value in (("dns-1", live), ("dns-2", 1.0)):
        trust = {series("fairlead_dns_trust", source=source, trust="live"): value}
        trust[series("fairlead_dns_trust", source=source, trust="held")] = 1.0 - value
        ring.add(source, NOW_S, trust)
    ring.add("monitor", NOW_S, {series("fairlead_registry_age_seconds", cluster="c1"): age_s})
    verdicts = judge_condition(rule(name).when, Moment(ring=ring, now_s=NOW_S, fresh_s=10))
    return {dict(labels).get("source", "monitor") for labels, verdict in verdicts.items() if verdict.holds}


@pytest.mark.parametrize(
    ("live", "age_s", "names", "registry"),
    [
        (1.0, 0.0, set(), set()),
        (0.0, 0.0, {"dns-1"}, set()),
        (0.0, 60.0, set(), {"monitor"}),
        (1.0, 60.0, set(), {"monitor"}),
    ],
)
def test_a_name_server_that_answers_old_names_is_told_once(
    live: float, age_s: float, names: set[str], registry: set[str]
) -> None:
    """By itself when it alone is blind or does not believe; with the registry's own alert when everyone is."""
    assert (names, registry) == (
        firing("names-not-live", live=live, age_s=age_s),
        firing("registry-stale", live=live, age_s=age_s),
    )


def test_an_upstream_that_is_not_asked_any_more_is_told() -> None:
    """That one, not its neighbour, nor one that is only suspected."""
    ring = Ring(keep_s=3600, forget_s=300, most_series=100)
    states = {"10.0.0.1:53": "open", "10.0.0.2:53": "suspect", "10.0.0.3:53": "closed"}
    every = {
        series("fairlead_dns_upstream_circuit", upstream=upstream, zone=".", circuit=circuit): float(circuit == state)
        for upstream, state in states.items()
        for circuit in ("closed", "suspect", "open")
    }
    ring.add("dns-1", NOW_S, every)
    verdicts = judge_condition(rule("upstream-out-of-order").when, Moment(ring=ring, now_s=NOW_S, fresh_s=10))

    assert {"10.0.0.1:53"} == {dict(labels)["upstream"] for labels, verdict in verdicts.items() if verdict.holds}


def test_every_default_rule_says_what_is_wrong() -> None:
    """A summary and a severity."""
    assert [] == [name for name in RULES if not rule(name).summary or not rule(name).severity]

"""fairlead's own rules: each is readable, and those that meet one another tell one cause once."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from fairlead_monitoring.decisions.evaluation import Moment, judge_condition
from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.rules import Rule, read_rules
from fairlead_monitoring.decisions.samples import series
from fairlead_monitoring.rule_files import DEFAULTS

NOW_S = 1e9
DAY_S = 86_400.0
ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"fairlead_[a-z_]+")
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


@pytest.mark.parametrize(
    ("age_s", "registry_s", "told"), [(0.0, 0.0, False), (60.0, 0.0, True), (60.0, 60.0, False), (200.0, 60.0, True)]
)
def test_a_balancer_that_serves_old_routes_is_told_once(age_s: float, registry_s: float, told: bool) -> None:
    """When it alone is blind or does not believe; else the registry's own alert says it."""
    ring = Ring(keep_s=3600, forget_s=300, most_series=100)
    ring.add("lb-1", NOW_S, {series("fairlead_lb_snapshot_age_seconds", source="lb-1"): age_s})
    ring.add("monitor", NOW_S, {series("fairlead_registry_age_seconds", cluster="c1"): registry_s})
    verdicts = judge_condition(rule("routes-not-live").when, Moment(ring=ring, now_s=NOW_S, fresh_s=10))

    assert told == any(verdict.holds for verdict in verdicts.values())


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


def holding(name: str, values: Mapping[str, float], *, labels: Mapping[str, str] | None = None) -> set[str]:
    """Sources whose one metric of the rule fires: `values` are by source."""
    ring = Ring(keep_s=3600, forget_s=300, most_series=100)
    for source, value in values.items():
        ring.add(source, NOW_S, {series(one_metric(name), source=source, **(labels or {})): value})
    verdicts = judge_condition(rule(name).when, Moment(ring=ring, now_s=NOW_S, fresh_s=10))
    return {dict(found).get("source", "all") for found, verdict in verdicts.items() if verdict.holds}


def one_metric(name: str) -> str:
    (found,) = set(METRIC.findall(rule(name).when_text))
    return str(found)


COUNTS = (
    "route-refused",
    "fragment-refused",
    "endpoints-held",
    "backend-panicking",
    "rollout-stopped",
    "certificate-refused",
    "retries-spent",
    "name-workers-behind",
)


@pytest.mark.parametrize("name", COUNTS)
def test_trouble_of_one_daemon_is_told_of_that_one(name: str) -> None:
    """Not of its neighbour."""
    assert {"lb-1"} == holding(name, {"lb-1": 2.0, "lb-2": 0.0})


def test_a_canary_that_every_balancer_counts_as_aborted_is_told_once() -> None:
    """Running and promoted ones are not."""
    found = [holding("canary-aborted", {"lb-1": 1.0, "lb-2": 1.0}, labels={"state": s}) for s in ("aborted", "running")]

    assert [{"all"}, set()] == found


@pytest.mark.parametrize(("name", "days"), [("certificate-ends", 14), ("root-ends", 30)])
def test_what_ends_is_told_in_time(name: str, days: int) -> None:
    """And what has ended already; not what has longer."""
    ends = {"near": (days - 1) * DAY_S, "ended": -DAY_S, "far": (days + 1) * DAY_S}

    assert {"near", "ended"} == holding(name, {source: NOW_S + left_s for source, left_s in ends.items()})


def test_an_identity_is_told_when_its_renewal_is_late() -> None:
    """By its own life, be that a day or ten minutes; not while there is none."""
    ring = Ring(keep_s=3600, forget_s=300, most_series=100)
    for source, life_s, left_s in (
        ("day", DAY_S, DAY_S / 5),
        ("short", 600.0, 290.0),
        ("late", 600.0, 100.0),
        ("none", 0.0, -NOW_S),
    ):
        ends = {series("fairlead_lb_identity_expiry_timestamp_seconds", source=source): NOW_S + left_s}
        ring.add(source, NOW_S, {**ends, series("fairlead_lb_identity_life_seconds", source=source): life_s})
    verdicts = judge_condition(rule("identity-ends").when, Moment(ring=ring, now_s=NOW_S, fresh_s=10))

    assert {"day", "late"} == {dict(labels)["source"] for labels, verdict in verdicts.items() if verdict.holds}


def test_workers_that_keep_dying_are_told() -> None:
    """One that was killed once is not."""
    ring = Ring(keep_s=3600, forget_s=300, most_series=100)
    for source, restarts in (("often", 3.0), ("once", 1.0)):
        for at_s, value in ((NOW_S - 60, 0.0), (NOW_S, restarts)):
            ring.add(source, at_s, {series("fairlead_dns_worker_restarts_total", source=source): value})
    verdicts = judge_condition(rule("name-workers-dying").when, Moment(ring=ring, now_s=NOW_S, fresh_s=10))

    assert {"often"} == {dict(labels)["source"] for labels, verdict in verdicts.items() if verdict.holds}


def test_every_metric_of_a_default_rule_is_one_that_a_daemon_makes() -> None:
    """By its name in the sources: whole, or put together from the subsystem and its last part."""
    sources = [file.read_text() for folder in ROOT.glob("*/fairlead_*") for file in folder.rglob("*.py")]
    strings = {found for text in sources for found in re.findall(r"[\"']([a-z_]+)[\"']", text)}
    asked = {metric for name in RULES for metric in METRIC.findall(rule(name).when_text)}
    parts = {m: {m, m.removesuffix("_total"), m.removeprefix("fairlead_dns_")} for m in asked}

    assert set() == {metric for metric in asked if not parts[metric] & strings}


def test_every_default_rule_says_what_is_wrong() -> None:
    """A summary and a severity."""
    assert [] == [name for name in RULES if not rule(name).summary or not rule(name).severity]

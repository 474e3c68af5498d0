"""Definitions in, apps or problems out: each problem with Marathon's path."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core.services.decisions.app import App, definition_json
from fairlead_core.services.decisions.parsing import House, parse
from fairlead_core.services.decisions.problems import Invalid, Problem

MARATHONS_OWN = {
    "id": "/web",
    "cmd": "python3 -m http.server $PORT0",
    "cpus": 0.1,
    "mem": 64,
    "instances": 3,
    "constraints": [["hostname", "UNIQUE"]],
    "portDefinitions": [{"port": 0, "name": "http"}],
    "healthChecks": [
        {
            "protocol": "MESOS_HTTP",
            "path": "/",
            "portIndex": 0,
            "gracePeriodSeconds": 5,
            "intervalSeconds": 10,
            "timeoutSeconds": 5,
            "maxConsecutiveFailures": 3,
        }
    ],
    "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.2},
}
SMALL = {"id": "/web", "cmd": "sleep 9"}


def problems(raw: Any, **more: Any) -> dict[str, list[str]]:
    with pytest.raises(Invalid) as error:
        parse(raw, **more)
    return {d["path"]: d["errors"] for d in error.value.body()["details"]}


def test_marathons_own_example_is_taken_with_its_defaults():
    """What is not given is Marathon's default."""
    app = parse(MARATHONS_OWN)

    assert (3, 0.1, 64.0, 0.0) == (app.instances, app.cpus, app.mem, app.disk)
    assert (1.0, 1.15, 300.0) == (app.backoff_seconds, app.backoff_factor, app.max_launch_delay_seconds)
    assert "YOUNGEST_FIRST" == app.kill_selection


def test_an_app_that_is_shown_can_be_put_back():
    """GET, then PUT of the very answer: nothing changes. Read-only keys are taken and mean nothing."""
    app = parse(MARATHONS_OWN)
    shown = {**definition_json(app), "tasks": [], "tasksRunning": 3, "deployments": [], "lastTaskFailure": {}}

    assert app == parse(shown, base=app)


def test_without_ports_there_is_one():
    """Marathon's default: one random port."""
    assert (0,) == parse(SMALL).service_ports
    assert () == parse({**SMALL, "portDefinitions": []}).service_ports


def test_deprecated_spellings_are_understood():
    """`ports` and `uris`, and a health command as plain text."""
    app = parse(
        {**SMALL, "ports": [8080, 0], "uris": ["/a.tgz"], "healthChecks": [{"protocol": "COMMAND", "command": "true"}]}
    )

    assert ((8080, 0), "/a.tgz") == (app.service_ports, app.fetch[0].uri)
    assert app.health_checks[0].command is not None


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": "/Bad Name"}, "/id"),
        ({"id": "web"}, "/id"),
        ({"id": "/"}, "/id"),
        ({"id": "/a/restart"}, "/id"),
        ({"id": "/" + "a" * 200}, "/id"),
        ({"cmd": None}, "/"),
        ({"args": ["x"]}, "/"),
        ({"cmd": "  "}, "/cmd"),
        ({"cmd": "a\x00b"}, "/cmd"),
        ({"user": "root; rm"}, "/user"),
        ({"executor": "/bin/x"}, "/executor"),
        ({"cpus": 0}, "/cpus"),
        ({"mem": -1}, "/mem"),
        ({"disk": -1}, "/disk"),
        ({"gpus": 1}, "/gpus"),
        ({"instances": -1}, "/instances"),
        ({"instances": 2, "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"}}, "/instances"),
        ({"backoffFactor": 0.5}, "/backoffFactor"),
        ({"backoffSeconds": -1}, "/backoffSeconds"),
        ({"maxLaunchDelaySeconds": -1}, "/maxLaunchDelaySeconds"),
        ({"taskKillGracePeriodSeconds": -1}, "/taskKillGracePeriodSeconds"),
        ({"upgradeStrategy": {"minimumHealthCapacity": 2}}, "/upgradeStrategy/minimumHealthCapacity"),
        ({"upgradeStrategy": {"maximumOverCapacity": -0.1}}, "/upgradeStrategy/maximumOverCapacity"),
        (
            {"unreachableStrategy": {"inactiveAfterSeconds": 9, "expungeAfterSeconds": 3}},
            "/unreachableStrategy/expungeAfterSeconds",
        ),
        ({"unreachableStrategy": "sometimes"}, "/unreachableStrategy"),
        ({"killSelection": "ANY"}, "/killSelection"),
        ({"portDefinitions": [{"port": 70000}]}, "/portDefinitions(0)/port"),
        ({"portDefinitions": [{"port": 1}, {"port": 1}]}, "/portDefinitions"),
        ({"portDefinitions": [{"name": "a"}, {"name": "a"}]}, "/portDefinitions"),
        ({"portDefinitions": [{"name": "A b"}]}, "/portDefinitions(0)/name"),
        ({"portDefinitions": [{"protocol": "sctp"}]}, "/portDefinitions(0)/protocol"),
        ({"networks": [{"mode": "container", "name": "x"}]}, "/networks(0)/mode"),
        ({"healthChecks": [{"protocol": "SMOKE"}]}, "/healthChecks(0)/protocol"),
        ({"healthChecks": [{}, {}]}, "/healthChecks(1)"),
        ({"healthChecks": [{"portIndex": 3}]}, "/healthChecks(0)/portIndex"),
        ({"healthChecks": [{"path": "no-slash"}]}, "/healthChecks(0)/path"),
        ({"healthChecks": [{"path": "/a b"}]}, "/healthChecks(0)/path"),
        ({"healthChecks": [{"protocol": "COMMAND"}]}, "/healthChecks(0)/command"),
        ({"healthChecks": [{"intervalSeconds": 0}]}, "/healthChecks(0)/intervalSeconds"),
        ({"healthChecks": [{"intervalSeconds": "x"}]}, "/healthChecks(0)/intervalSeconds"),
        ({"portDefinitions": [], "healthChecks": [{"protocol": "TCP"}]}, "/healthChecks(0)"),
        ({"constraints": [["hostname"]]}, "/constraints(0)"),
        ({"constraints": [["hostname", "NEAR"]]}, "/constraints(0)"),
        ({"constraints": [["hostname", "LIKE", "("]]}, "/constraints(0)"),
        ({"constraints": [["hostname", "MAX_PER", "x"]]}, "/constraints(0)"),
        ({"constraints": [["hostname", "UNIQUE"], ["rack", "GROUP_BY", "x"]]}, "/constraints(1)"),
        ({"constraints": "hostname"}, "/constraints"),
        ({"fetch": [{"uri": "http://x/y"}]}, "/fetch(0)/uri"),
        ({"fetch": [{"uri": "/x", "destPath": "../y"}]}, "/fetch(0)/destPath"),
        ({"dependencies": ["/web"]}, "/dependencies(0)"),
        ({"dependencies": ["x y"]}, "/dependencies(0)"),
        ({"labels": {"a": 1}}, "/labels/a"),
        ({"labels": []}, "/labels"),
        ({"env": {"A": {"secret": "s"}}}, "/env/A"),
        ({"env": {"A=B": "x"}}, "/env/A=B"),
        ({"acceptedResourceRoles": []}, "/acceptedResourceRoles"),
        ({"acceptedResourceRoles": ["other"]}, "/acceptedResourceRoles"),
        ({"role": "other"}, "/role"),
        ({"container": {"type": "DOCKER", "docker": {"image": "x"}}}, "/container"),
        ({"residency": {"taskLostBehavior": "WAIT_FOREVER"}}, "/residency"),
        ({"secrets": {"a": {"source": "b"}}}, "/secrets"),
        ({"readinessChecks": [{}]}, "/readinessChecks"),
        ({"check": {"exec": {}}}, "/check"),
        ({"ipAddress": {"groups": ["x"]}}, "/ipAddress"),
        ({"resourceLimits": {"cpus": 1}}, "/resourceLimits"),
        ({"tty": True}, "/tty"),
        ({"colour": "blue"}, "/colour"),
        ({"cpus": "many"}, "/cpus"),
        ({"cpus": 1e308}, "/cpus"),
        ({"mem": 1e308}, "/mem"),
        ({"disk": 1e300}, "/disk"),
        ({"cpus": float("nan")}, "/cpus"),
        ({"instances": 10**30}, "/instances"),
        ({"gpus": 10**30}, "/gpus"),
        ({"backoffSeconds": 1e300}, "/backoffSeconds"),
        ({"backoffFactor": 1e300}, "/backoffFactor"),
        ({"maxLaunchDelaySeconds": 1e300}, "/maxLaunchDelaySeconds"),
        ({"taskKillGracePeriodSeconds": 1e300}, "/taskKillGracePeriodSeconds"),
        ({"unreachableStrategy": {"expungeAfterSeconds": 10**30}}, "/unreachableStrategy/expungeAfterSeconds"),
        ({"upgradeStrategy": {"maximumOverCapacity": float("nan")}}, "/upgradeStrategy/maximumOverCapacity"),
        ({"healthChecks": [{"gracePeriodSeconds": 10**30}]}, "/healthChecks(0)/gracePeriodSeconds"),
        ({"healthChecks": [{"intervalSeconds": 10**30}]}, "/healthChecks(0)/intervalSeconds"),
        ({"healthChecks": [{"timeoutSeconds": 10**30}]}, "/healthChecks(0)/timeoutSeconds"),
        ({"healthChecks": [{"delaySeconds": 10**30}]}, "/healthChecks(0)/delaySeconds"),
        ({"healthChecks": [{"maxConsecutiveFailures": 10**30}]}, "/healthChecks(0)/maxConsecutiveFailures"),
        ({"constraints": [["rack", "GROUP_BY", "²"]]}, "/constraints(0)"),
        ({"constraints": [["rack", "MAX_PER", "9" * 5000]]}, "/constraints(0)"),
        ({"constraints": [["rack", "LIKE", "a{99999999999999999999}"]]}, "/constraints(0)"),
        ({"constraints": [["rack", "LIKE", "(" * 500 + ")" * 500]]}, "/constraints(0)"),
        ({"cmd": "x" * 131072}, "/cmd"),
        ({"cmd": None, "args": ["a", "x" * 131072]}, "/args(1)"),
        ({"cmd": None, "args": ["x" * 131000] * 9}, "/args"),
        ({"env": {"A": "x" * 131070}}, "/env/A"),
        ({"env": {f"A{n}": "x" * 131000 for n in range(9)}}, "/env"),
        (
            {"healthChecks": [{"protocol": "COMMAND", "command": "x" * 131072}]},
            "/healthChecks(0)/command/value",
        ),
        ({"instances": 1.5}, "/instances"),
    ],
)
def test_a_broken_rule_is_named_by_its_path(change: dict[str, Any], path: str):
    """422 details; nothing unknown or unsupported is ignored."""
    assert path in problems({**SMALL, **change})


def test_wrong_types_are_worded_as_by_marathon():
    """Play's words, and another message than for broken rules."""
    with pytest.raises(Invalid) as error:
        parse({**SMALL, "cpus": "many", "env": {"A": 7}})

    assert {
        "message": "Invalid JSON",
        "details": [
            {"path": "/cpus", "errors": ["error.expected.jsnumber"]},
            {"path": "/env/A", "errors": ["error.expected.jsstring"]},
        ],
    } == error.value.body()


def test_all_problems_are_told_at_once():
    """One answer, every path."""
    found = problems({**SMALL, "instances": -1, "cpus": 0, "backoffFactor": 0})

    assert ["/cpus", "/instances", "/backoffFactor"] == list(found)


def test_a_drain_shorter_than_names_live_is_refused_with_the_reason():
    """Clients may go on asking for as long as name servers' answers are kept."""
    raw = {**SMALL, "labels": {"FAIRLEAD_DRAIN_SECONDS": "5"}}

    assert "5" == parse(raw, house=House(largest_ttl_s=5)).labels["FAIRLEAD_DRAIN_SECONDS"]
    assert "at least 60" in problems(raw, house=House(largest_ttl_s=60))["/labels/FAIRLEAD_DRAIN_SECONDS"][0]
    assert (
        "whole seconds"
        in problems({**SMALL, "labels": {"FAIRLEAD_DRAIN_SECONDS": "soon"}})["/labels/FAIRLEAD_DRAIN_SECONDS"][0]
    )


def test_a_ttl_that_is_no_number_is_refused():
    """Name servers would pass over it, and nobody would know."""
    raw = {**SMALL, "labels": {"FAIRLEAD_DNS_TTL": "20"}}

    assert "20" == parse(raw).labels["FAIRLEAD_DNS_TTL"]
    for wrong in ("soon", "-1", "3601"):
        found = problems({**SMALL, "labels": {"FAIRLEAD_DNS_TTL": wrong}})
        assert "whole seconds, at most 3600" in found["/labels/FAIRLEAD_DNS_TTL"][0]


def test_a_partial_update_changes_what_it_names_and_keeps_service_ports():
    """Port 0 in an update is "as before"."""
    base = parse({**MARATHONS_OWN, "portDefinitions": [{"port": 10100, "name": "http"}]})

    assert 7 == parse({"instances": 7}, base=base).instances
    assert (10100,) == parse({"portDefinitions": [{"port": 0, "name": "web"}]}, base=base).service_ports


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70000)
    | st.sampled_from([10**30, -(10**30), 1e308])
    | st.floats()
    | st.sampled_from(["", "/a", "x", "\x00", "HTTP"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["uri", "port", "name", "command", "value", "protocol", "path"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*definition_json(App(id="/x")), "uris", "container", "cmd", "args", "nonsense"])


@given(st.dictionaries(KEYS, JSON, max_size=5))
def test_whatever_is_sent_is_an_app_or_problems_with_paths(change: dict[str, Any]):
    """Never another error, and every path begins with a slash."""
    found: tuple[Problem, ...] = ()
    try:
        parse({**SMALL, **change})
    except Invalid as error:
        found = error.problems

    assert all(p.path.startswith("/") for p in found), found

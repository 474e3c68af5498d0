"""Names, nodes, deployments and the overview, in the words people read."""

import pytest

from fairlead_console.decisions.balancers import Registration, problems
from fairlead_console.decisions.deployment import last_failure, state
from fairlead_console.decisions.names import dns_name, nearest, srv_name
from fairlead_console.decisions.nodes import address, condition, find, used
from fairlead_console.decisions.overview import Facts, read_metrics, summary, unreadable
from fairlead_console.decisions.visible import cut, visible
from fairlead_daemon.errors import Refused

AGENTS = [
    {"id": "a1b2-S0", "hostname": "agent-1", "pid": "slave(1)@127.0.0.1:5051", "active": True},
    {"id": "a1b2-S1", "hostname": "agent-2", "pid": "slave(1)@127.0.0.1:5052", "active": False},
]


def test_trust_and_revision_are_read_from_the_metrics_page():
    """As Prometheus' client writes them."""
    text = (
        'fairlead_discovery_snapshot_trust{trust="live"} 0.0\n'
        'fairlead_discovery_snapshot_trust{trust="stale"} 1.0\n'
        "fairlead_discovery_snapshot_revision 1.234567e+06\n"
    )

    assert ("stale", "1234567") == read_metrics(text)
    assert ("unknown", "unknown") == read_metrics("")


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("/shop/web", "web-shop.marathon.mesos"),
        ("/web", "web.marathon.mesos"),
        ("/a.b", "a-b.marathon.mesos"),
        ("web-shop.marathon.mesos.", "web-shop.marathon.mesos"),
        ("leader.mesos", "leader.mesos"),
    ],
)
def test_app_ids_become_their_dns_names(typed: str, name: str):
    """What is no app id is asked for as it stands."""
    assert name == dns_name(typed)


@pytest.mark.parametrize(
    ("name", "srv"),
    [
        ("web-shop.marathon.mesos", "_web-shop._tcp.marathon.mesos"),
        ("_web._udp.marathon.mesos", "_web._udp.marathon.mesos"),
        ("mesos", "mesos"),
    ],
)
def test_the_srv_name_beside_a_name(name: str, srv: str):
    """Ports are asked for under Mesos-DNS' SRV name."""
    assert srv == srv_name(name)


def test_a_mistyped_name_brings_those_most_alike():
    """A letter too much, or only a part of it."""
    known = ["web-shop.marathon.mesos", "db-shop.marathon.mesos", "leader.mesos"]

    assert "web-shop.marathon.mesos" == nearest("wep-shop.marathon.mesos", known)[0]
    assert ["leader.mesos"] == nearest("leader", known)
    assert [] == nearest("zzz", known)


@pytest.mark.parametrize("typed", ["a1b2-S0", "agent-1"])
def test_a_node_is_found_by_id_or_host_name(typed: str):
    """As an operator knows it."""
    assert "a1b2-S0" == find(AGENTS, typed)["id"]


def test_a_beginning_that_fits_two_nodes_names_both():
    """Draining the wrong machine is no small mistake."""
    with pytest.raises(Refused, match=r"agent-: more than one node.*a1b2-S0 \(agent-1\), a1b2-S1 \(agent-2\)"):
        find(AGENTS, "agent-")


def test_an_unknown_node_names_those_there_are():
    """None of them is guessed."""
    with pytest.raises(Refused, match="x: no such node; there are: a1b2-S0"):
        find(AGENTS, "x")


@pytest.mark.parametrize(
    ("agent", "word"),
    [
        ({"active": True}, "active"),
        ({"active": False}, "unreachable"),
        ({"active": True, "deactivated": True}, "deactivated"),
        ({"active": True, "deactivated": True, "drain_info": {"state": "DRAINING"}}, "draining"),
        ({"active": True, "drain_info": {"state": "DRAINED"}}, "drained"),
    ],
)
def test_the_state_of_a_node_is_one_word(agent: dict[str, object], word: str):
    """Draining says more than deactivated."""
    assert word == condition(agent)


def test_what_a_node_has_and_gave_away():
    """Taken of what there is, without needless digits."""
    agent = {"resources": {"cpus": 4.0}, "used_resources": {"cpus": 0.5}}

    assert ("0.5/4", "0/0") == (used(agent, "cpus"), used(agent, "mem"))
    assert "127.0.0.1:5051" == address(AGENTS[0])


def test_a_deployment_under_way_says_how_far():
    """Step, instances, and those that start."""
    app = {"instances": 4, "tasksRunning": 3, "tasksHealthy": 2, "tasksStaged": 1, "healthChecks": [{}]}
    now = state(app, [{"id": "d1", "currentStep": 1, "totalSteps": 2}], "d1")

    assert (False, False) == (now.over, now.done)
    assert "step 1 of 2, 2 of 4 healthy, 1 starting" == now.text


def test_a_deployment_that_ended_short_is_not_done():
    """It was taken over or cancelled: the app is not as asked."""
    now = state({"instances": 4, "tasksRunning": 2}, [], "d1")

    assert (True, False, "2 of 4 running") == (now.over, now.done, now.text)


def test_a_removed_app_is_done():
    """Nothing is wanted of it any more."""
    assert state({}, [], "d1").done


def test_why_the_last_task_ended():
    """As the executor told it."""
    failure = {"state": "TASK_FAILED", "message": "Command exited with status 1"}

    assert "last task: TASK_FAILED: Command exited with status 1" == last_failure({"lastTaskFailure": failure})
    assert "" == last_failure({})


def test_the_overview_bears_with_everything_away():
    """`fairlead status` is for when things are broken."""
    nothing = Facts(master={}, agents={}, apps={}, balancer={}, names={})

    assert {"unknown", "off, or unknown"} == {text for _, text in summary(nothing)}


def test_unreadable_records_are_counted_where_no_balancer_names_them():
    """From a name server's metrics."""
    found = unreadable("fairlead_discovery_snapshot_bad_nodes 3.0\n")

    assert (3, 0) == (found, unreadable(""))
    expected = [("registry", "3 unreadable records; `fairlead registry check` names them")]
    assert expected == problems({}, (), unreadable_by_dns=found)
    assert [("registry", "1 unreadable records: /x")] == problems(
        {"unreadable": {"/x": "why"}}, (), unreadable_by_dns=3
    )


@pytest.mark.parametrize(("age_s", "state"), [(None, "unknown"), (3.0, "ok"), (34.0, "ok"), (36.0, "silent")])
def test_a_balancer_is_silent_after_three_missed_words(age_s: float | None, state: str):
    """It says something every 10 s, whether there is news or not."""
    assert state == Registration(id="a", admin="", age_s=age_s).state


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 字 é", "plain 字 é"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31m\x00\x9b", "\\x1b[31m\\x00\\x9b"),
        ("\u202egnp", "\\u202egnp"),
    ],
)
def test_text_of_others_is_shown_not_done(text: str, shown: str):
    """No line break, no colour, no turned direction."""
    assert shown == visible(text)


def test_a_cut_is_marked():
    """So that nobody takes it for the whole."""
    assert ("abc", "ab…", "") == (cut("abc", 3), cut("abcd", 3), cut("", 3))

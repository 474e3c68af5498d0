"""The master's pure rules, by table."""

from typing import Any

import pytest

from fairlead_core.master.decisions import calls, liveness, publishing, reconciliation, tasks
from fairlead_core.master.decisions.allocation import refuse_s, share, usable
from fairlead_core.master.decisions.liveness import Signs, judge
from fairlead_core.master.decisions.model import Agent, Framework, Task
from fairlead_core.master.decisions.publishing import Candidate, Publication, discovery_of, plan_service
from fairlead_core.master.decisions.reconciliation import Question
from fairlead_core.resources import Resources, parse
from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import leaving
from fairlead_discovery.decisions.leaving import Departure, NameServers, Readers, is_due, seen
from fairlead_discovery.records import Progress, Reason

# --- leaving ---------------------------------------------------------------------------------------------------------

LEFT = Departure(task="t", reason=Reason.SCALE, deadline_s=130.0, revision=7, committed_s=100.0)
DONE = Progress(applied_revision=7)


@pytest.mark.parametrize(
    ("readers", "now_s", "expected"),
    [
        (Readers(), 100.5, False),
        (Readers(), 101.0, True),
        (Readers(largest_ttl_s=5), 105.9, False),
        (Readers(largest_ttl_s=5), 106.0, True),
        (Readers(balancers=frozenset({"b"}), progress={}), 129.9, False),
        (Readers(balancers=frozenset({"b"}), progress={}), 130.0, True),
        (Readers(balancers=frozenset({"b"}), progress={"b": Progress(applied_revision=6)}), 129.0, False),
        (Readers(balancers=frozenset({"b"}), progress={"b": DONE}), 101.0, True),
        (Readers(balancers=frozenset({"b"}), progress={"b": Progress(applied_revision=9, busy=("t",))}), 129.0, False),
        (Readers(balancers=frozenset({"b"}), progress={"b": Progress(applied_revision=9, busy=("u",))}), 129.0, True),
        (
            Readers(balancers=frozenset({"b"}), progress={"b": Progress(applied_revision=9, busy_more=True)}),
            129.0,
            False,
        ),
        (Readers(balancers=frozenset({"b", "c"}), progress={"b": DONE}), 129.0, False),
        (Readers(balancers=frozenset(), progress={"gone": Progress(applied_revision=1)}), 101.0, True),
    ],
)
def test_a_task_is_killed_when_nobody_can_be_sent_to_it_or_at_its_deadline(readers, now_s, expected):
    """TTL and a second are over and every registered balancer has applied its revision and drained it."""
    assert expected == is_due(LEFT, readers, now_s=now_s)


@pytest.mark.parametrize(("reason", "expected"), [(Reason.UNHEALTHY, True), (Reason.DEAD, True), (Reason.DRAIN, False)])
def test_what_serves_nobody_is_killed_at_once(reason, expected):
    """Unhealthy and dead tasks wait for nothing."""
    departure = Departure(task="t", reason=reason, deadline_s=130.0)

    assert expected == is_due(departure, Readers(largest_ttl_s=60), now_s=100.0)


def test_an_uncommitted_withdrawal_waits_for_its_deadline():
    """As long as readers may not know, time does not run."""
    departure = Departure(task="t", reason=Reason.KILL, deadline_s=130.0)

    assert leaving.due([departure], Readers(), now_s=129.9) == frozenset()
    assert leaving.due([departure], Readers(), now_s=130.0) == {"t"}


def test_the_ttl_of_a_name_server_that_went_counts_until_its_answers_are_stale():
    """A server that answered with TTL 60 and died a second ago is still believed."""
    before = NameServers(announced={"a": 60.0, "b": 5.0})
    after = seen(before, {"b": 5.0}, now_s=10.0)

    assert after.largest_ttl_s(now_s=69.0) == 60.0
    assert after.largest_ttl_s(now_s=70.0) == 5.0


# --- liveness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signs", "now_s", "expected"),
    [
        (Signs(heard_s=100.0), 103.9, (False, False)),
        (Signs(heard_s=100.0), 104.0, (True, False)),
        (Signs(heard_s=100.0, closed=True), 129.9, (False, False)),
        (Signs(heard_s=100.0, closed=True), 130.0, (True, False)),
        (Signs(heard_s=100.0, suspect=True), 101.0, (True, False)),
        (Signs(heard_s=100.0), 175.0, (True, True)),
    ],
)
def test_silence_makes_suspect_then_unreachable(signs, now_s, expected):
    """4 s of silence, 30 s after a reset or a goodbye, 75 s for the tasks' state."""
    verdict = judge(signs, now_s=now_s, leading_since_s=0.0)

    assert expected == (verdict.suspect, verdict.unreachable)


def test_a_new_leader_suspects_nobody_in_its_first_four_seconds():
    """Whatever was heard before it led."""
    assert not judge(Signs(heard_s=0.0, suspect=True), now_s=50.0, leading_since_s=46.1).suspect
    assert liveness.judge(Signs(heard_s=0.0), now_s=50.0, leading_since_s=46.0).suspect


# --- reconciliation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question(task_state="TASK_RUNNING", agent="unreachable"), "latest"),
        (Question(agent="returning"), ""),
        (Question(agent="", anyone_returning=True), ""),
        (Question(agent="registered", anyone_returning=True), "TASK_GONE"),
        (Question(agent="unreachable"), "TASK_UNREACHABLE"),
        (Question(agent="gone"), "TASK_GONE_BY_OPERATOR"),
        (Question(agent="unknown"), "TASK_UNKNOWN"),
        (Question(agent=""), "TASK_UNKNOWN"),
    ],
)
def test_reconciliation_answers_as_mesos(question, expected):
    """The table of Mesos' master, first match wins; "" is no answer yet."""
    assert expected == reconciliation.decide(question)


# --- task validation -------------------------------------------------------------------------------------------------

CPU = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}


def info(**changes: Any) -> dict[str, Any]:
    """A good TaskInfo with changes; None takes a key away."""
    good: dict[str, Any] = {
        "name": "t",
        "task_id": {"value": "t1"},
        "agent_id": {"value": "S0"},
        "command": {"value": "true"},
        "resources": [CPU],
    }
    return {k: v for k, v in {**good, **changes}.items() if v is not None}


def ground(largest_ttl_s: float = 5.0) -> tasks.Ground:
    framework = Framework(id="F", name="f", info={})
    for task_id, state in (("dup", "TASK_RUNNING"), ("away", "TASK_UNREACHABLE")):
        framework.tasks[task_id] = Task(
            id=task_id, framework_id="F", agent_id="S0", info={}, resources=Resources(), state=state
        )
    return tasks.Ground(
        framework=framework,
        agent=Agent(id="S0"),
        available=parse("cpus:2;ports:[31000-31009]"),
        largest_ttl_s=largest_ttl_s,
    )


def labelled(seconds: str) -> dict[str, Any]:
    return {"labels": [{"key": "FAIRLEAD_DRAIN_SECONDS", "value": seconds}]}


PORTS = {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31010, "end": 31010}]}}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (info(task_id={"value": ""}), "ID must not be empty"),
        (info(task_id={"value": "a/b"}), "'a/b' contains invalid characters"),
        (info(task_id={"value": ".."}), "'..' is disallowed"),
        (info(name=None), "Task has no 'name'"),
        (info(task_id={"value": "dup"}), "Task has duplicate ID: dup"),
        (info(task_id={"value": "away"}), "Task reuses the ID of an unreachable task: away"),
        (info(agent_id={"value": "S1"}), "Task uses invalid agent S1 while agent S0 is expected"),
        (
            info(kill_policy={"grace_period": {"nanoseconds": -1}}),
            "Task's 'kill_policy.grace_period' must be non-negative",
        ),
        (
            info(max_completion_time={"nanoseconds": -1}),
            "Task's `max_completion_time` must be non-negative",
        ),
        (
            info(command=None),
            "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present",
        ),
        (info(resources=[]), "Task uses no resources"),
        (
            info(resources=[{**CPU, "scalar": {"value": -1}}]),
            "Task uses invalid resources: resources[0]: -1 is negative",
        ),
        (
            info(resources=[{**CPU, "scalar": {"value": 3}}]),
            "Total resources cpus:3 required by task and its executor is more than available cpus:2; ports:[31000-31009]",
        ),
        (
            info(resources=[CPU, PORTS]),
            (
                "Total resources cpus:1; ports:[31010-31010] required by task and its executor is more than available "
                "cpus:2; ports:[31000-31009]"
            ),
        ),
        (
            info(labels=labelled("4")),
            "label FAIRLEAD_DRAIN_SECONDS: 4 s is less than the 5 s for which name servers may still hand the task out",
        ),
        (info(labels=labelled("soon")), "label FAIRLEAD_DRAIN_SECONDS: 'soon' is not a number of seconds"),
        (
            info(command=None, executor={"executor_id": {"value": "e"}}),
            "'ExecutorInfo.command' must be set for 'CUSTOM' executor",
        ),
        (
            info(discovery={"name": "x" * 200_000}),
            "Task's 'discovery' is over 128 KiB: it would not fit into the registry",
        ),
    ],
)
def test_a_bad_task_is_refused_with_its_reason(task, message):
    """Mesos' words where Mesos has some."""
    with pytest.raises(Refused) as refused:
        tasks.check(task, ground())

    assert message == str(refused.value)


@pytest.mark.parametrize(
    "task", [info(), info(labels=labelled("5")), info(kill_policy={"grace_period": {"nanoseconds": 0}})]
)
def test_a_good_task_is_launched(task):
    """With what it takes."""
    assert tasks.check(task, ground()).needed == parse("cpus:1")


def test_a_new_executor_is_paid_for_once():
    """Its own resources count for the first task only."""
    place = ground()
    task = info(command=None, executor={"executor_id": {"value": "e"}, "command": {"value": "x"}, "resources": [CPU]})
    first = tasks.check(task, place).needed
    place.agent.executors["F", "e"] = object()  # type: ignore[assignment]  # any will do

    assert (first, tasks.check(task, place).needed) == (parse("cpus:2"), parse("cpus:1"))


# --- calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "Failed to parse body into JSON: Input data was truncated"),
        (b'{"type": 3}', "Failed to convert JSON into Call protobuf: Expected `str`, got `int` - at `$.type`"),
        (b"{}", "Failed to validate scheduler::Call: Expecting 'type' to be present"),
        (b'{"type":"DANCE"}', "Failed to validate scheduler::Call: 'DANCE' is not a call type"),
        (b'{"type":"SUBSCRIBE"}', "Failed to validate scheduler::Call: Expecting 'subscribe' to be present"),
        (
            b'{"type":"TEARDOWN"}',
            "Failed to validate scheduler::Call: Expecting 'framework_id' to be present",
        ),
        (
            b'{"type":"ACCEPT","framework_id":{"value":"F"}}',
            "Failed to validate scheduler::Call: Expecting 'accept' to be present",
        ),
        (
            b'{"type":"ACCEPT","framework_id":{"value":"F"},"accept":{"offer_ids":[{"value":1}]}}',
            "Failed to convert JSON into Call protobuf: Expected `str`, got `int` - at `$.accept.offer_ids[0].value`",
        ),
        (
            b'{"type":"SUBSCRIBE","framework_id":{"value":"F"},"subscribe":{"framework_info":{"name":"n","user":"u"}}}',
            "Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'",
        ),
        (
            b'{"type":"SUBSCRIBE","subscribe":{"framework_info":{"name":"n","user":"u","roles":["a"]}}}',
            (
                "Failed to validate scheduler::Call: 'FrameworkInfo.roles' must not be set when the framework is not "
                "MULTI_ROLE capable"
            ),
        ),
        (
            b'{"type":"SUBSCRIBE","subscribe":{"framework_info":{"name":"n","user":"u","role":"-a"}}}',
            (
                "Failed to validate scheduler::Call: Role '-a' is invalid: a part may not be empty, '.', '..' or start "
                "with '-'"
            ),
        ),
    ],
)
def test_a_bad_call_is_refused_in_mesos_words_and_with_the_place(body, message):
    """400, and what was wrong where."""
    with pytest.raises(Refused) as refused:
        calls.validate(calls.parse(body))

    assert message == str(refused.value)


def test_unknown_keys_and_null_are_passed_over():
    """Clients of newer versions send more than we know."""
    call = calls.parse(b'{"type":"REVIVE","framework_id":{"value":"F"},"new":1,"revive":null}')
    calls.validate(call)

    assert call.revive is None


# --- allocation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, 5.0), (-1.0, 5.0), (float("nan"), 5.0), (0.0, 0.0), (3.5, 3.5), (1e12, 31_536_000.0)],
)
def test_refuse_seconds_are_read_as_mesos_reads_them(given, expected):
    """Absent or negative is the default, a year is the most."""
    assert expected == refuse_s(given)


def test_the_dominant_share_is_the_largest_part_of_any_resource():
    """Of two thirds of the memory and a tenth of the processors, two thirds."""
    assert share({"cpus": 1, "mem": 4}, {"cpus": 10, "mem": 6, "gpus": 0}) == pytest.approx(2 / 3)


def test_a_role_is_offered_what_is_reserved_for_it_or_above_it():
    """`eng/dev` gets `eng`'s and the unreserved, not `ops`'."""
    free = parse("cpus:1;cpus(eng):2;cpus(eng/dev):3;cpus(ops):4")

    assert usable(free, "eng/dev") == parse("cpus:1;cpus(eng):2;cpus(eng/dev):3")


# --- publishing ------------------------------------------------------------------------------------------------------


def node(name: str, *, suspect: bool = False) -> Candidate:
    made = Publication(service="f:s", name=name, data=b"", member=True)
    return Candidate(name=name, member=True, suspect=suspect, publication=made)


def stored(*names: str) -> list:
    return [publishing.Stored(service="f:s", name=n, member=True, task_id=n) for n in names]


@pytest.mark.parametrize(
    ("standing", "candidates", "create", "delete"),
    [
        ((), (node("a"),), ["a"], []),
        (("a",), (node("a"),), [], []),
        (("a",), (), [], ["a"]),
        (("a", "b"), (node("a", suspect=True), node("b")), [], ["a"]),
        (("a", "b"), (node("a", suspect=True), node("b", suspect=True)), [], []),
        (("b",), (node("a", suspect=True), node("b", suspect=True)), [], []),
        (("a",), (node("a", suspect=True), node("b")), ["b"], ["a"]),
        (("old",), (node("new"),), ["new"], ["old"]),
    ],
)
def test_suspects_are_withdrawn_but_never_to_zero(standing, candidates, create, delete):
    """While any member is not suspect the suspects go; when all are, those that stand stay."""
    plan = plan_service(stored(*standing), list(candidates))

    assert (create, delete) == ([c.name for c in plan.create], [d.name for d in plan.delete])


def test_ports_come_from_discovery_with_the_host_port_of_a_bridge():
    """Number as the framework said, host port where it is reached."""
    task = info(
        discovery={
            "ports": {
                "ports": [{"number": 80, "name": "http", "protocol": "TCP"}, {"number": 5353, "protocol": "udp,tcp"}]
            }
        },
        container={"docker": {"port_mappings": [{"container_port": 80, "host_port": 31007}]}},
    )

    assert [(p.index, p.number, p.host_port, p.name, p.protocols) for p in publishing.ports_of(task)] == [
        (0, 80, 31007, "http", ("tcp",)),
        (1, 5353, 5353, "", ("udp", "tcp")),
    ]


def test_labels_of_ports_are_published():
    """`VIP_0` of DC/OS stands there: balancers and name servers go by it."""
    labels = {"labels": [{"key": "VIP_0", "value": "/web:80"}]}
    [port] = publishing.ports_of({"discovery": {"ports": {"ports": [{"number": 8080, "labels": labels}]}}})

    assert {"VIP_0": "/web:80"} == port.labels


def test_ports_come_from_resources_in_their_order_when_discovery_names_none():
    """Marathon's order is the order of its portDefinitions."""
    ranges = [{"begin": 31005, "end": 31005}, {"begin": 31001, "end": 31002}]
    task = info(resources=[CPU, {"name": "ports", "type": "RANGES", "ranges": {"range": ranges}}])

    assert [p.host_port for p in publishing.ports_of(task)] == [31005, 31001, 31002]
    assert publishing.ports_of(task)[0].protocols == ("tcp",)


@pytest.mark.parametrize(
    ("framework", "task", "key"),
    [
        ("etl", info(name="worker"), "etl:worker"),
        ("etl", info(discovery={"name": "disc"}), "etl:disc"),
        ("marathon", info(labels={"labels": [{"key": "FAIRLEAD_APP_ID", "value": "/shop/web"}]}), "marathon:/shop/web"),
    ],
)
def test_a_service_is_framework_and_full_app_id_or_discovery_name(framework, task, key):
    """The key tells `/a.b` and `/b/a` apart."""
    assert key == publishing.service_of(framework, task)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"state": "TASK_STARTING"}, False),
        ({"healthy": False}, False),
        ({"info": info(health_check={"type": "HTTP"})}, False),
        ({"info": info(health_check={"type": "HTTP"}), "healthy": True}, True),
        ({"kill_sent": True}, False),
    ],
)
def test_a_task_counts_when_it_runs_and_is_healthy_if_it_is_checked(changes, expected):
    """And not while it is leaving."""
    values = {"id": "t", "framework_id": "F", "agent_id": "S0", "info": info(), "resources": Resources()}
    task = Task(**{**values, "state": "TASK_RUNNING", **changes})

    assert expected == publishing.is_up(task)


def labelled(**labels: str) -> dict[str, object]:
    return {"labels": [{"key": key, "value": value} for key, value in labels.items()]}


def test_name_servers_are_told_the_labels_meant_for_them():
    """FAIRLEAD_DNS_* of the task, below those of its DiscoveryInfo; no other label of the task."""
    info = {"labels": labelled(FAIRLEAD_DNS_TTL="9", FAIRLEAD_DNS_TAGS="a", HAPROXY_0_VHOST="x")}
    both = {**info, "discovery": {"name": "web", "labels": labelled(FAIRLEAD_DNS_TAGS="b", dc="de1")}}

    assert {"FAIRLEAD_DNS_TTL": "9", "FAIRLEAD_DNS_TAGS": "a"} == discovery_of(info).labels
    assert {"FAIRLEAD_DNS_TTL": "9", "FAIRLEAD_DNS_TAGS": "b", "dc": "de1"} == discovery_of(both).labels

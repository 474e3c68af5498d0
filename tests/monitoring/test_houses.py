"""Samples about services, agents and balancers; Prometheus' targets; Graphite's lines."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.records import Address, Discovery, Member, Port, TaskRef
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_monitoring.decisions import graphite, houses
from fairlead_monitoring.decisions.houses import Lag, Lingering
from fairlead_monitoring.decisions.samples import Sample, series
from fairlead_monitoring.decisions.sources import Known, Pace, sources
from fairlead_monitoring.decisions.targets import targets

WEB = "marathon:/shop/web"


def test_healthy_instances_are_counted_by_the_health_check():
    """Without a check a running instance counts as healthy; with one only what passes it."""
    page = {
        "apps": [
            {"id": "/shop/web", "instances": 3, "tasksRunning": 2, "tasksHealthy": 1, "healthChecks": [{}]},
            {"id": "/job", "instances": 1, "tasksRunning": 1, "tasksHealthy": 0, "healthChecks": []},
        ]
    }
    found = houses.of_apps(page, framework="marathon")

    assert 3.0 == found[series(houses.WANTED, service=WEB)]
    assert 1.0 == found[series(houses.INSTANCES, service=WEB, state="healthy")]
    assert 1.0 == found[series(houses.INSTANCES, service="marathon:/job", state="healthy")]


def test_a_deleted_app_gives_zeros_for_a_while():
    """So that its alert is resolved by data; after a minute nothing is left of it."""
    lingering, wanted = Lingering((houses.WANTED,)), series(houses.WANTED, service=WEB)
    lingering.of({wanted: 3.0, series("other"): 1.0}, 0.0)

    assert {wanted: 0.0} == lingering.of({}, 1.0)
    assert {} == lingering.of({}, houses.LINGER_S + 1)
    assert {} == lingering.of({wanted: 1.0}, houses.LINGER_S + 2)


def lost(agent: str) -> object:
    return series(houses.AGENT_LOST, agent=agent, host=agent)


def test_an_agent_is_lost_when_suspect_or_unreachable():
    """Suspects stand in the list, unreachable ones only in the master's documents; what is gone is not lost."""
    listed = houses.of_agents({"slaves": [{"id": "a", "hostname": "a"}, {"id": "b", "hostname": "b", "suspect": True}]})
    documents = [
        {"id": "c", "hostname": "c", "unreachable_s": 5.0},
        {"id": "d", "hostname": "d", "unreachable_s": 5.0, "gone": True},
        {"id": "e", "hostname": "e", "gone": True},
        {"id": "a", "hostname": "a", "unreachable_s": 5.0},
    ]
    noted = houses.of_documents(documents, listed, {lost("d"): 1.0})

    assert (0.0, 1.0) == (listed[lost("a")], listed[lost("b")])
    assert {lost("c"): 1.0, lost("d"): 0.0} == noted


STATUS = {
    "services": [
        {"service": WEB, "backend": "web_1", "mode": "http", "servers": [{"state": "ready"}, {"state": "drain"}]},
        {"service": WEB, "backend": "web_2", "mode": "tcp", "servers": [{"state": "ready"}]},
    ]
}
STATISTICS = """# pxname,svname,scur,stot,req_tot,hrsp_5xx,econ,eresp,rtime,
web_1,s1,1,9,9,0,0,0,1,
web_1,BACKEND,2,10,30,1,1,0,250,
web_2,BACKEND,1,5,,,2,,0,
"""


def test_a_services_ports_are_added_up():
    """HTTP counts requests, TCP connections."""
    found = houses.of_balancer(STATUS, STATISTICS, balancer="lb")
    about = {"service": WEB, "balancer": "lb"}

    assert 35.0 == found[series(houses.REQUESTS, **about)]
    assert 4.0 == found[series(houses.ERRORS, **about)]
    assert 3.0 == found[series(houses.SESSIONS, **about)]
    assert 0.25 == found[series(houses.RESPONSE_S, **about)]
    assert (2.0, 1.0) == tuple(found[series(houses.SERVERS, **about, state=s)] for s in ("ready", "drain"))


def test_requests_per_second_bear_a_new_worker():
    """A counter that fell began again at zero."""
    one = series(houses.REQUESTS, service=WEB)
    speed = series(houses.REQUESTS_PER_S, service=WEB)

    assert {speed: 5.0} == houses.per_second({one: 10.0}, {one: 20.0}, 2.0)
    assert {speed: 2.0} == houses.per_second({one: 10.0}, {one: 4.0}, 2.0)
    assert {} == houses.per_second({}, {one: 4.0}, 2.0)


def test_a_balancer_is_behind_since_the_oldest_change_it_lacks():
    """A busy registry whose balancer keeps up is not behind, however often it is looked at between two changes."""
    lag = Lag()
    for second in range(10):
        lag.see(second, float(second))

    assert 0.0 == lag.behind_s(9, 20.0)
    assert 15.0 == lag.behind_s(4, 20.0)
    lag.see(3, 30.0)  # another registry
    assert 0.0 == lag.behind_s(3, 40.0)


def test_links_that_do_not_run_are_zero():
    """Expected ones only; of a broker that does not answer nobody knows, and that is no zero."""
    about = {"broker": "west", "upstream": "east", "vhost": "/", "kind": "exchange"}
    states = {"a": "running", "b": "missing", "c": "starting", "d": "stray", "e": "unknown"}
    found = houses.of_links({"links": [{**about, "name": name, "state": state} for name, state in states.items()]})

    assert {"a": 1.0, "b": 0.0, "c": 0.0} == {dict(one.labels)["name"]: value for one, value in found.items()}


def member(task: str, *ports: Port, host: str = "10.0.0.1", **labels: str) -> Member:
    return Member(
        serviceEndpoint=Address(host=host, port=ports[0].host_port),
        task=TaskRef(id=task, name="web", framework="marathon", framework_id="f", agent="a1", app="/shop/web"),
        discovery=Discovery(labels=labels),
        ports=ports,
        status="ALIVE",
    )


def test_every_tcp_port_of_every_task_is_a_target():
    """With labels that say whose it is; a UDP port is none; a task may say where its metrics are."""
    seen = Snapshot(
        revision=1,
        trust=Trust.LIVE,
        members={
            WEB: {
                "m1": member("t1", Port(index=0, number=80, host_port=31000, name="http"), metrics_path="/stats"),
                "m2": member(
                    "t2",
                    Port(index=0, number=0, host_port=31001),
                    Port(index=1, number=0, host_port=31002, protocols=("udp",)),
                    host="fd00::1",
                ),
            }
        },
    )
    about = {"service": WEB, "app": "/shop/web", "framework": "marathon", "agent": "a1"}

    assert [
        {
            "targets": ["10.0.0.1:31000"],
            "labels": {**about, "task": "t1", "port": "http", "__metrics_path__": "/stats"},
        },
        {"targets": ["[fd00::1]:31001"], "labels": {**about, "task": "t2", "port": "0"}},
    ] == targets(seen)
    assert [] == targets(seen, {"app": "/other"})


def test_a_line_is_path_value_and_time():
    """The label's value stands in the path, with a digest where it had to be changed."""
    samples = [
        Sample(series(houses.INSTANCES, service=WEB, state="healthy"), 2.0, 99.5),
        Sample(series("process_cpu_seconds_total", source="lb"), 0.25, 99.5),
        Sample(series("x"), float("inf"), 99.5),
    ]

    assert (
        b"fairlead.service_instances.marathon_shop_web-89d2b4.healthy 2 100\n"
        b"fairlead.process_cpu_seconds_total.lb 0.25 100\n"
    ) == re.sub(rb"-[0-9a-f]{6}\.", b"-89d2b4.", graphite.lines(samples, prefix="fairlead", now_s=100))


TEXT = st.text(alphabet="a./_-é \n;", max_size=4)


@given(TEXT, TEXT)
def test_two_values_never_share_a_path(one: str, other: str):
    """And each is one clean segment: no dot, blank or line end can break a line."""
    left, right = graphite.part(one), graphite.part(other)

    assert re.fullmatch(r"[A-Za-z0-9_-]+", left)
    assert (one == other) == (left == right) or {one, other} == {"", "none"}


@pytest.mark.parametrize("text", ["x" * 1000, "é" * 500])
def test_a_long_value_still_makes_a_file_name(text: str):
    """Whisper's files take 255 bytes."""
    assert len(graphite.part(text)) < 200


def test_sources_are_named_and_paced():
    """Pages every five seconds, what alerts wait for every second; a peer that is not configured is no source."""
    known = Known(
        master="http://m:1",
        services="http://s:1",
        balancers={"lb1": "http://l:1"},
        agents={"a1": "http://a:1"},
        dns=("http://d:1", "http://d:2"),
        brokers=("http://r:1/metrics/per-object",),
        others={"node": "http://n:1/metrics"},
    )
    found = sources(known, Pace(page_s=5, quick_s=1))

    assert {"dns-1 metrics", "dns-2 metrics", "rabbitmq metrics", "node metrics", "a1 metrics"} < found.keys()
    assert "messaging links" not in found
    assert (1, 5) == (found["services apps"].every_s, found["services metrics"].every_s)
    assert ("http://r:1", "/metrics/per-object") == (found["rabbitmq metrics"].base, found["rabbitmq metrics"].path)

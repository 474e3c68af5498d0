"""What the page shows, from what the registry and the daemons said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_console.web.decisions import reports
from fairlead_console.web.decisions.answers import (
    AlertEntry,
    AlertsPage,
    Answer,
    App,
    Apps,
    Backend,
    Balancer,
    Health,
    LinkEntry,
    LinksPage,
    Node,
    Nodes,
    Server,
    Task,
)
from fairlead_console.web.decisions.graph import Point, ceiling, graph, rate, requests, summed
from fairlead_console.web.decisions.header import duration, header
from fairlead_console.web.decisions.nodes import node_views
from fairlead_console.web.decisions.page import SECTIONS, Facts, page
from fairlead_console.web.decisions.services import Known, Service, condition, services
from fairlead_discovery.records import Leaving, Portless, Reason
from fairlead_discovery.snapshots import Snapshot, Trust
from harness.names import member, snapshot, task

LIVE = Snapshot(revision=1, trust=Trust.LIVE)


def only(known: Known) -> Service:
    (found,) = services(known)
    return found


def test_a_service_is_joined_from_what_four_parts_know():
    """Published by the master, wanted by the scheduler, routed by the balancer, on a node with a name."""
    made = member(name="web")
    known = Known(
        snapshot=Snapshot(revision=1, trust=Trust.LIVE, members={"marathon:/shop/web": {"m": made}}),
        apps=(App(id="/shop/web", instances=2, running=2, healthy=2, checks=({},)),),
        tasks=(
            Task(id=made.task.id, app="/shop/web", state="TASK_RUNNING", checks=(Health(True),)),
            Task(id="web.9", app="/shop/web", host="n2", state="TASK_STAGING", ports=(31009,)),
        ),
        nodes=(Node(id=made.task.agent, hostname="n1"),),
        balancer=Balancer(
            services=(
                Backend(
                    service="marathon:/shop/web",
                    backend="shop_web_10100",
                    service_port=10100,
                    hosts=("shop.example",),
                    servers=(Server(task=made.task.id, state="ready"), Server(task="web.8", state="drain")),
                ),
            )
        ),
    )
    found = only(known)
    serving, staging = found.instances
    (route,) = found.routes

    assert ("/shop/web", "marathon", 2, 1) == (found.title, found.framework, found.wanted, found.serving)
    assert ("web.marathon.mesos", "_web._tcp.marathon.mesos") == found.names
    assert ("serving", "10.0.0.1:31000", "n1", "ready") == (
        serving.state,
        serving.address,
        serving.node,
        serving.server,
    )
    assert ("staging", "n2:31009", "n2", "") == (staging.state, staging.address, staging.node, staging.server)
    assert ("shop_web_10100", 10100, ("shop.example",), 1, 2) == (
        route.backend,
        route.port,
        route.hosts,
        route.ready,
        route.servers,
    )


def test_a_leaving_task_is_shown_with_its_reason_until_it_is_gone():
    """It is no longer published, and its server drains."""
    known = Known(
        snapshot=Snapshot(
            revision=1,
            trust=Trust.LIVE,
            leaving={"t1": Leaving(task="t1", service="etl:worker", member="", reason=Reason.DRAIN, deadline_s=0)},
        ),
        balancer=Balancer(
            services=(Backend(service="etl:worker", backend="b", servers=(Server(task="t1", state="drain"),)),)
        ),
    )
    (instance,) = only(known).instances

    assert ("leaving (drain)", "drain") == (instance.state, instance.server)


def test_an_unhealthy_task_says_so_published_or_not():
    """The scheduler knows health, the registry knows who is reached."""
    made = member(name="web")
    ill = (Health(False),)
    known = Known(
        snapshot=Snapshot(revision=1, trust=Trust.LIVE, members={"marathon:/web": {"m": made}}),
        tasks=(
            Task(id=made.task.id, app="/web", state="TASK_RUNNING", checks=ill),
            Task(id="web.1", app="/web", state="TASK_RUNNING", checks=ill),
        ),
    )

    assert {"unhealthy"} == {instance.state for instance in only(known).instances}


def test_a_task_without_ports_has_a_name_but_no_srv():
    """Mesos-DNS' rule."""
    portless = Portless(task=task(0, name="worker", framework="etl"))
    known = Known(snapshot=Snapshot(revision=1, trust=Trust.LIVE, portless={"etl:worker": {"t": portless}}))

    assert ("worker.etl.mesos",) == only(known).names


def test_same_dns_names_are_two_services():
    """`/a.b` and `/b/a` are told apart."""
    known = Known(snapshot=LIVE, apps=(App(id="/a.b"), App(id="/b/a")))

    assert ["/a.b", "/b/a"] == [service.title for service in services(known)]


def test_a_refused_route_says_why():
    """In the balancer's words."""
    known = Known(snapshot=LIVE, apps=(App(id="/x"),), balancer=Balancer(refused={"marathon:/x": ["port 0: bad host"]}))

    assert "port 0: bad host" == only(known).refused


def test_more_instances_than_fit_are_counted():
    """The rest is a number, not a page of megabytes."""
    known = Known(snapshot=snapshot(*(member(n) for n in range(60))))
    found = only(known)

    assert (60, 50, 10) == (found.serving, len(found.instances), found.more)


@pytest.mark.parametrize(
    ("app", "serving", "said"),
    [
        (None, 1, "published"),
        (None, 0, "not published"),
        (App(id="/x", instances=2, running=2), 2, "running"),
        (App(id="/x", instances=2, running=2, healthy=2, checks=({},)), 2, "healthy"),
        (App(id="/x", instances=2, running=2, healthy=1, unhealthy=1, checks=({},)), 1, "1 unhealthy"),
        (App(id="/x", instances=3, running=1), 1, "2 missing"),
        (App(id="/x", instances=2, running=2), 1, "1 out of reach"),
        (App(id="/x", instances=3, running=1, deployments=({},)), 1, "deploying"),
        (App(id="/x", instances=0), 0, "suspended"),
    ],
)
def test_a_service_is_said_in_a_word_or_two(app: App | None, serving: int, said: str):
    """What is wrong comes before what is well."""
    assert said == condition(app, serving)[0]


def test_a_node_shows_what_is_used_and_offered():
    """And the published instances on it."""
    node = Node(
        id="S0",
        hostname="n1",
        pid="slave(1)@10.0.0.1:5051",
        resources={"cpus": 4.0, "mem": 1024.0, "disk": 10.0, "ports": "[1-2]"},
        used_resources={"cpus": 0.5},
        offered_resources={"cpus": 3.5},
        attributes={"rack": "r1"},
    )
    (view,) = node_views((node,), {"S0": 3})

    assert ("n1", "10.0.0.1:5051", "active", 3, "rack=r1") == (
        view.name,
        view.address,
        view.state,
        view.instances,
        view.attributes,
    )
    assert "0.5 of 4, 3.5 offered" == view.measures[0].text


@pytest.mark.parametrize(
    ("node", "state"),
    [
        (Node(id="S", suspect=True), "suspect"),
        (Node(id="S", active=False), "unreachable"),
        (Node(id="S", deactivated=True, drain_info={"state": "DRAINING"}), "draining"),
        (Node(id="S", suspect=True, drain_info={"state": "DRAINING"}), "suspect"),
        (Node(id="S", deactivated=True), "deactivated"),
    ],
)
def test_a_node_says_why_no_work_goes_there(node: Node, state: str):
    """The worst first: a suspect that drains is suspect."""
    assert state == node_views((node,), {})[0].state


def test_the_top_says_how_far_the_page_is_to_be_believed():
    """Live has no age; what is not believed names its reason and its way out."""
    live = header(Snapshot(revision=7, trust=Trust.LIVE), age_s=3)
    held = header(Snapshot(revision=7, trust=Trust.HELD, why="another cluster"), age_s=125)

    assert ("live", "7", "current") == (live.trust, live.revision, live.age)
    assert ("held", "2 min old") == (held.trust, held.age)
    assert "another cluster" in held.meaning
    assert "fairlead registry confirm" in held.meaning


@pytest.mark.parametrize(("seconds", "said"), [(0.9, "0 s"), (59, "59 s"), (60, "1 min"), (7500, "2 h 5 min")])
def test_ages_are_said_shortly(seconds: float, said: str):
    assert said == duration(seconds)


def test_who_is_absent_is_said_in_words():
    """Never asked, switched off, gone, and gone after an answer are four things."""
    gone = Answer(value=Nodes(), why="connection refused", seen="10:14:08")
    views = page(
        Facts(snapshot=LIVE, nodes=gone, links=Answer(why="connection refused"), alerts=Answer(off=True), apps=Answer())
    )

    assert SECTIONS == tuple(views)
    assert ("The master does not answer: connection refused; this is what it said at 10:14:08",) == views["nodes"].notes
    odd = page(Facts(snapshot=LIVE, links=Answer(why="it answers with status 404", answered=True)))
    assert "Messaging is no help: it answers with status 404" == odd["links"].absent
    assert "Messaging is not running" == views["links"].absent
    assert "The monitor is switched off by setting" == views["alerts"].absent
    assert "The master has not answered yet" == page(Facts(snapshot=LIVE))["nodes"].absent


def test_a_change_the_balancer_could_not_apply_is_said():
    """In its own words."""
    views = page(Facts(snapshot=LIVE, balancer=Answer(value=Balancer(last_error="haproxy refused line 3"))))

    assert ("The balancer could not apply a change: haproxy refused line 3",) == views["services"].notes


def test_a_view_is_equal_when_nothing_changed():
    """Which is how the page knows what to send."""
    facts = Facts(snapshot=snapshot(member()), apps=Answer(value=Apps((App(id="/x"),)), seen="10:00:00"))
    later = Facts(snapshot=snapshot(member()), apps=Answer(value=Apps((App(id="/x"),)), seen="10:00:09"))

    assert page(facts) == page(later)


def test_the_worst_alert_comes_first_and_what_is_well_is_left_out():
    """Firing, then pending and no-data, then resolved."""
    told = AlertsPage((
        AlertEntry("d", "ok"),
        AlertEntry("c", "resolved", since_s=1.0),
        AlertEntry("b", "no-data"),
        AlertEntry("a", "firing", labels={"service": "x", "agent": "y"}, silenced=True),
    ))  # fmt: skip
    found = reports.alerts(told)

    assert ["a", "b", "c"] == [alert.rule for alert in found]
    assert ("agent=y, service=x", True) == (found[0].labels, found[0].silenced)


def test_a_missing_link_is_bad_and_comes_first():
    """In the words of the messaging daemon."""
    runs = LinkEntry(broker="b", upstream="a", vhost="/", kind="exchange", name="x", state="running")
    gone = LinkEntry(broker="a", upstream="b", vhost="v", kind="queue", name="q", state="missing", why="no policy")
    first, second = reports.links(LinksPage((runs, gone)))

    assert ("queue q in v", "missing", "bad", "no policy") == (first.what, first.state, first.tone, first.why)
    assert ("a", "b", "exchange x", "good") == (second.source, second.target, second.what, second.tone)


CSV = "# pxname,svname,req_tot,\nshop_web,s1,5,\nshop_web,BACKEND,9,\nfairlead_no_route,BACKEND,3,\ntcp,BACKEND,,\n"


def test_requests_are_counted_once_at_the_backends():
    """Not at servers and front ends too; the balancer's own do not count."""
    assert {"shop_web": 9.0} == requests(CSV)
    assert {} == requests("")


def test_a_counter_that_began_anew_is_no_negative_rate():
    """HAProxy counts from 0 after a reload."""
    assert 3.0 == rate({"a": 100.0}, {"a": 4.0, "b": 2.0}, seconds=2.0)


@given(st.lists(st.tuples(st.integers(0, 2000), st.sampled_from([0.0, 1.0, 7.5, 1e6])), min_size=2, max_size=900))
def test_the_line_stays_in_its_frame(drawn: list[tuple[int, float]]):
    """Whatever was measured; and is never longer than a page can take."""
    points = [Point(float(at), value) for at, value in sorted(drawn)]
    made = graph(points)
    assert made is not None
    pairs = [tuple(map(float, pair.split(","))) for pair in made.line.split()]

    assert all(0 <= x <= 600 and 0 <= y <= 120 for x, y in pairs)
    assert [x for x, _ in pairs] == sorted(x for x, _ in pairs)
    assert len(pairs) <= 302


@given(st.floats(0, 1e9))
def test_the_upper_edge_is_a_round_number_above_the_line(value: float):
    top = ceiling(value)

    assert max(value, 1.0) <= top <= max(2.5 * value, 1.0)


def test_lines_of_several_services_are_added_though_measured_at_other_moments():
    """Means over five seconds; the newest stretch waits until all have a point in it."""
    one = [Point(t + 0.1, 2.0) for t in range(12)]
    other = [Point(t + 0.7, 3.0) for t in range(0, 12, 2)]

    assert (Point(0.0, 5.0), Point(5.0, 5.0)) == summed([one, other])


def test_a_line_needs_two_points():
    assert graph([Point(1.0, 1.0)]) is None

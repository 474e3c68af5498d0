"""Apps of one deployment group, as marathon-lb's labels have them: one service to the balancer, blue and green in it."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery import paths
from fairlead_discovery.decisions import colours, labels
from fairlead_discovery.decisions.words import BadLabel
from fairlead_discovery.policies import Intentions, name_of
from fairlead_discovery.records import Colour, Member, Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import marathon_csv, routes, shortcut
from fairlead_lb.decisions.derived import route_from_labels
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.shortcut import Decided
from fairlead_lb.decisions.values import Key
from harness.balancer import member
from harness.haproxy_model import Model

PORT = 10100
BLUE, GREEN, GROUP = "marathon:/web-blue", "marathon:/web-green", "marathon:/web"


def labelled(colour: str, started: int, **more: str) -> dict[str, str]:
    return {
        "HAPROXY_0_PORT": str(PORT),
        "HAPROXY_0_VHOST": "web.example",
        colours.GROUP: "web",
        colours.COLOUR: colour,
        colours.STARTED_AT: f"2026-11-20T10:00:0{started}.000001",
        colours.TARGET: "2",
        colours.NEW: "0",
        colours.ALT_PORT: "10101",
        colours.APP_ID: "web",
    } | {f"{colours.HEAD}{k}": v for k, v in more.items()}


def app_route(app: str, given: Mapping[str, str], *, scaled_at: str = "") -> Route:
    made, problems = labels.route_of(f"marathon:{app}", given, (RoutePort(index=0, mode="http"),), app=app)
    assert not problems
    assert made.colour is not None
    return Route(
        service=made.service,
        app=app,
        ports=made.ports,
        colour=Colour(**_fields(made.colour) | {"scaled_at": scaled_at}),
    )


def _fields(colour: Colour) -> dict[str, object]:
    return {name: getattr(colour, name) for name in colour.__struct_fields__}


def tasks(app: str, *names: str) -> dict[str, Member]:
    return {f"member_{n}": member(n, 31000 + i, app=app) for i, n in enumerate(names)}


def sight(blue: tuple[str, ...], green: tuple[str, ...], **of_green: str) -> Snapshot:
    found = {
        BLUE: app_route("/web-blue", labelled("blue", 1)),
        GREEN: app_route("/web-green", labelled("green", 2, **of_green)),
    }
    members = {BLUE: tasks("/web-blue", *blue), GREEN: tasks("/web-green", *green)}
    return Snapshot(revision=1, trust=Trust.LIVE, routes=found, members={s: m for s, m in members.items() if m})


def wanted(snapshot: Snapshot, last: Wanted | None = None) -> Wanted:
    return routes.wanted(snapshot, last or Wanted(), Rules(), route_from_labels)


def serving(found: Wanted) -> dict[str, list[str]]:
    return {name: [s.task for s in backend.servers] for name, backend in found.backends.items()}


def test_both_colours_stand_in_one_backend_under_marathon_lbs_name():
    """Nothing is left of their own: one name, one port, one host; so many blue ones rest as green ones have come."""
    found = wanted(sight(("b1", "b2"), ("g1",)))

    assert {"web_10100": ["b2", "g1"]} == serving(found)
    assert ({str(PORT): "web_10100"}, {"web.example/": "web_10100"}) == (found.maps.ports, found.maps.hosts)
    assert {Key(GROUP, 0)} == {b.key for b in found.backends.values()}
    assert {} == found.refused
    assert ["b1"] == [one.task.id for one in found.groups.drained[GROUP].values()]


def test_a_deployment_from_its_begin_to_its_end_needs_no_reload():
    """Blue alone, green beside it, green alone: the backend stays, HAProxy is only told at run time."""
    model, steps = Model(), (("b1 b2", ""), ("b1 b2", "g1"), ("b2", "g1"), ("b2", "g1 g2"), ("", "g1 g2"))
    last = model.follow(wanted(sight(("b1", "b2"), ())))
    structure = model.serving.structure
    for blue, green in steps:
        last = wanted(sight(tuple(blue.split()), tuple(green.split())), last)
        model.follow(last)

    assert structure is model.serving.structure
    assert {"g1", "g2"} == set(model.ready("web_10100"))


def test_the_oldest_colours_labels_count_until_it_is_gone():
    """As with marathon-lb."""
    both = sight(("b1",), ("g1",))
    other = labelled("green", 2) | {"HAPROXY_0_VHOST": "new.example"}
    both = replace(both, routes={**both.routes, GREEN: app_route("/web-green", other)})
    gone = replace(both, members={GREEN: both.members[GREEN]})

    assert [["web.example/"], ["new.example/"]] == [list(wanted(s).maps.hosts) for s in (both, gone)]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_never_fewer_serve_than_the_target_or_than_there_are(old: int, new: int, target: int):
    """And one old task rests for each new one at the most, however often it is asked the same ones."""
    names = [f"t{n}" for n in range(old)]
    gone = colours.drained(names, new, target)

    assert old + new - len(gone) >= min(target, old + new)
    assert len(gone) <= new
    assert list(gone) == sorted(names)[: len(gone)]


def test_where_both_colours_stay_the_one_scaled_last_is_the_newer():
    """So `zdd.py --complete-prev` finds its way back, and `--complete-cur` on."""
    now = sight(("b1", "b2", "b3"), ("g1", "g2"), NEW_INSTANCES="2", TARGET_INSTANCES="4")

    def scaled(blue: str, green: str) -> list[str]:
        given = {s: replace_colour(r, blue if s == BLUE else green) for s, r in now.routes.items()}
        return [t for there in serving(wanted(replace(now, routes=given))).values() for t in there]

    assert ["b2", "b3", "g1", "g2"] == scaled("2026-11-20T10:00:01Z", "2026-11-20T10:00:02Z")
    back = {BLUE: "4"}
    more = {s: app_route(r.app, labelled("blue", 1, NEW_INSTANCES="2", TARGET_INSTANCES="4"), scaled_at="2026-11-20T10:00:03Z")
            if s in back else replace_colour(r, "2026-11-20T10:00:02Z") for s, r in now.routes.items()}  # fmt: skip
    found = [t for there in serving(wanted(replace(now, routes=more))).values() for t in there]
    assert ["b1", "b2", "b3", "g2"] == found


def replace_colour(route: Route, scaled_at: str) -> Route:
    assert route.colour is not None
    colour = Colour(**_fields(route.colour) | {"scaled_at": scaled_at})
    return Route(service=route.service, app=route.app, ports=route.ports, colour=colour)


@pytest.mark.parametrize(
    ("app", "group"),
    [
        ("/team/a-blue", "/shop/web"),
        ("/team/a-blue", "other/web"),
        ("/a-blue", "x/web"),
        ("/a", ""),
        ("/a", "../x"),
        ("/a", "a\nb"),
    ],
)
def test_nobody_joins_a_group_from_elsewhere(app: str, group: str):
    """A group's apps have one parent with it, and its name is a plain word."""
    with pytest.raises(BadLabel, match=colours.GROUP):
        colours.of_labels(app, {colours.GROUP: group})


@pytest.mark.parametrize(
    ("app", "group", "key"),
    [
        ("/web-blue", "web", "/web"),
        ("/web-blue", "/web", "/web"),
        ("/shop/w-blue", "w", "/shop/w"),
        ("/shop/w-blue", "/shop/w", "/shop/w"),
    ],
)
def test_a_group_stands_beside_its_apps(app: str, group: str, key: str):
    """With or without the path before it; HAProxy's name is made of the label as it is."""
    found = colours.of_labels(app, {colours.GROUP: group})

    assert found is not None
    assert (key, f"/{group.strip('/')}") == (found.group, found.backend)


def test_a_group_named_as_another_service_is_not_formed():
    """The other keeps all it has; the colours serve for themselves, and are told."""
    given = sight(("b1",), ("g1",))
    other = Route(service=GROUP, app="/web", ports=(RoutePort(index=0, service_port=10105),))
    found = wanted(
        replace(given, routes={**given.routes, GROUP: other}, members={**given.members, GROUP: tasks("/web", "w1")})
    )

    assert ["w1"] == serving(found)["web_10105"]
    assert {"b1"} <= {t for there in serving(found).values() for t in there}
    assert "another service" in found.refused[BLUE]


def test_an_app_may_have_its_groups_name():
    """As whoever ran as one app before: it is the oldest colour."""
    plain = app_route("/web", labelled("", 0) | {colours.COLOUR: "blue"})
    given = {GROUP: plain, GREEN: app_route("/web-green", labelled("green", 2))}
    members = {GROUP: tasks("/web", "w1", "w2"), GREEN: tasks("/web-green", "g1")}
    found = wanted(Snapshot(revision=1, trust=Trust.LIVE, routes=given, members=members))

    assert ({"web_10100": ["g1", "w2"]}, {}) == (serving(found), found.refused)


def test_a_colour_that_cannot_be_read_any_more_stays_in_its_group():
    """Its last route does; its tasks serve on."""
    first = sight(("b1", "b2"), ())
    last = wanted(first)
    broken = replace(first, routes={GREEN: first.routes[GREEN]}, bad={paths.route(BLUE): "no JSON"})

    assert {"web_10100": ["b1", "b2"]} == serving(wanted(broken, last))


def test_tasks_of_another_framework_are_grouped_by_their_labels():
    """Nobody wrote a route for them."""

    def one(name: str, colour: str, started: int) -> Member:
        made = member(name, 31001, app="")
        return Member(
            serviceEndpoint=made.serviceEndpoint, task=made.task, ports=made.ports, status="ALIVE",
            discovery=type(made.discovery)(labels=labelled(colour, started)),
        )  # fmt: skip

    members = {"etl:web-blue": {"m1": one("b1", "blue", 1)}, "etl:web-green": {"m2": one("g1", "green", 2)}}
    found = wanted(Snapshot(revision=1, trust=Trust.LIVE, members=members))

    assert {"web_10100": ["b1", "g1"]} == serving(found)


def test_who_may_not_call_a_colour_may_not_call_its_group():
    """Until the group has intentions of its own."""
    given = sight(("b1",), ("g1",))
    closed = Intentions(service=GREEN, default="deny")
    found = wanted(replace(given, policies={name_of(closed): closed}))

    assert {"web_10100"} == found.maps.guarded.keys()


def test_a_change_of_a_colours_tasks_is_decided_whole():
    """The shortcut looks at single services; a group is two."""
    first = sight(("b1", "b2"), ())
    last = Decided.whole(first, Rules(), wanted(first))

    assert None is shortcut.moved(last, sight(("b1", "b2"), ("g1",)), Rules(), route_from_labels)


def test_statistics_are_told_as_marathon_lb_did():
    """Servers by host and port, resting ones `MAINT`, also those that left their slot; no empty slot, no spare."""
    found = wanted(sight(("b1", "b2"), ("g1",)))
    model = Model()
    model.follow(found)
    slots = model.serving.slots["web_10100"]
    csv = "# pxname,svname,qcur,scur,status,type,\nfairlead_hosts,FRONTEND,,1,OPEN,0,\n"
    csv += "".join(f"web_10100,{place},0,{slot.used},UP,2,\n" for place, slot in slots.items())
    csv += "web_10100,BACKEND,0,0,UP,1,\nfairlead_g1s1,s1,0,0,MAINT,2,\n\n"
    told = marathon_csv.as_marathon_lb(csv, marathon_csv.listed(found, model.serving, {}))

    assert "# pxname,svname,qcur,scur,status,type,\nfairlead_hosts,FRONTEND,,1,OPEN,0,\n" in told
    rows = {tuple(line.split(",")[i] for i in (0, 1, 4)) for line in told.splitlines()[2:]}
    assert {
        ("web_10100", "127_0_0_1_31001", "UP"),
        ("web_10100", "127_0_0_1_31000", "UP"),
        ("web_10100", "127_0_0_1_31000", "MAINT"),
        ("web_10100", "BACKEND", "UP"),
    } == rows

"""Whatever was served, and whatever is wanted: HAProxy comes to serve it, by commands that cost no request."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.records import Check, Leaving, Reason, Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import naming, picture, routes, spares
from fairlead_lb.decisions import slots as slot_plans
from fairlead_lb.decisions.change import Nothing, Reload, RuntimeCommands, Serving, Surroundings
from fairlead_lb.decisions.commands import MapEntry, SetState, Shutdown
from fairlead_lb.decisions.dials import casing
from fairlead_lb.decisions.forbidden import Forbidden
from fairlead_lb.decisions.problems import problems
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.slots import plan as slot_plan
from fairlead_lb.decisions.values import DIALS, LAYOUT, Admin, Key, Maps, Shape, Slot, Structure
from harness.balancer import member
from harness.haproxy_model import AROUND, FRAME, Model

APPS = ("/a_b", "/a/b", "/b/a")
HOSTS = ("x.example", "*.example", "y.example")


SPARED = replace(AROUND, spare_backends=2)


def only_wanted(maps: Maps, wanted: Wanted) -> Maps:
    """Without the dials of backends that are emptied."""
    dials = {name: {b: v for b, v in getattr(maps, name).items() if b in wanted.backends} for name in DIALS}
    return msgspec.structs.replace(maps, **dials)


def underived(_service: str, _members: object) -> None:
    return None


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Few apps, tasks, hosts and ports: ties and clashes are common."""
    members, given_routes = {}, {}
    for app in draw(st.lists(st.sampled_from(APPS), unique=True)):
        service = f"marathon:{app}"
        tasks = draw(st.dictionaries(st.sampled_from("tuvw"), st.integers(1, 3), max_size=4))
        here = [member(f"{app}{t}", 31000 + port, app=app, weight=port / 2) for t, port in tasks.items()]
        if here:
            members[service] = {f"member_{m.task.id}_{m.serviceEndpoint.port}": m for m in here}
        port = RoutePort(
            index=0,
            service_port=draw(st.sampled_from((0, 10100, 10101, 10200))),
            vhosts=tuple(draw(st.lists(st.sampled_from(HOSTS), unique=True, max_size=2))),
            sticky=draw(st.booleans()),
        )
        given_routes[service] = Route(service=service, app=app, ports=(port,))
    dead = draw(st.lists(st.sampled_from([f"{a}{t}" for a in APPS for t in "tuvw"]), max_size=2))
    leaving = {
        t: Leaving(task=t, service="s", member="m", reason=Reason.DEAD, deadline_s=0)
        for t in dead
        if not any(m.task.id == t for there in members.values() for m in there.values())
    }
    return Snapshot(revision=1, trust=Trust.LIVE, members=members, routes=given_routes, leaving=leaving)


def wanted_of(snapshot: Snapshot, last: Wanted, model: Model) -> Wanted:
    structure = changes.lent(model.serving, last)
    rules = Rules(forbidden=Forbidden(own={80}), names_in_use=set(structure.owners), spares=spares.free(structure))
    return routes.wanted(snapshot, last, rules, underived)


@settings(max_examples=80, deadline=None)
@given(st.lists(snapshots(), min_size=1, max_size=5), st.sampled_from((AROUND, SPARED)), st.data())
def test_haproxy_comes_to_serve_what_is_wanted(sights: list[Snapshot], around: Surroundings, data: st.DataObject):
    """Through any row of snapshots, with sessions coming and going: ready servers, maps and owners are the wanted."""
    model, last = Model(around), Wanted()
    for snapshot in sights:
        last = model.follow(wanted_of(snapshot, last, model))
        for name, backend in last.backends.items():
            expected = {s.task: (s.host, s.port, s.weight) for s in backend.servers}
            assert expected == model.ready(name)
            assert backend.key == model.serving.structure.owners[name]
        unwanted = set(model.serving.slots) - set(last.backends)
        assert not any(model.ready(name) for name in unwanted)
        assert only_wanted(last.maps, last) == only_wanted(model.serving.maps, last)
        for name, slots in model.serving.slots.items():
            for place in slots:
                if not slots[place].empty and data.draw(st.booleans()):
                    model.use(name, place, data.draw(st.integers(0, 2)))


@settings(max_examples=50, deadline=None)
@given(snapshots(), snapshots(), st.sampled_from((AROUND, SPARED)))
def test_what_is_served_needs_no_change(first: Snapshot, second: Snapshot, around: Surroundings):
    """Deciding again changes nothing, and endpoint changes alone need no reload while slots suffice."""
    model = Model(around)
    wanted = model.follow(wanted_of(second, wanted_of(first, Wanted(), model), model))
    reloads = model.reloads
    model.follow(wanted)

    assert reloads == model.reloads
    assert isinstance(changes.change(model.serving, wanted, around, changes.plans(model.serving, wanted)), Nothing)


def test_quarantine_alone_is_not_planned_anew():
    """Its next step follows a look at the connections, whose slots are others then."""
    model, wanted = served("t1", "t2")
    after = wanted_of(sight("t1"), wanted, model)
    first = changes.plans(model.serving, after)
    for command in changes.change(model.serving, after, AROUND, first).routing_commands:  # type: ignore[union-attr]  # it has some
        model.perform(command)
    again = changes.plans(model.serving, after)

    assert set(first) == changes.unsettled(first)
    assert [1] == [len(plan.tidies) for plan in again.values() if plan.commands]
    assert set() == changes.unsettled(again)


@given(snapshots(), snapshots())
def test_two_services_never_share_a_backend(first: Snapshot, second: Snapshot):
    """`/a_b` and `/a/b` have the same flat name, and come and go in any order."""
    one = routes.wanted(first, Wanted(), Rules(), underived)
    two = routes.wanted(second, one, Rules(names_in_use=set(one.backends)), underived)
    keys = {name: b.key for name, b in one.backends.items()}

    assert len(two.backends) == len({b.key for b in two.backends.values()})
    assert all(keys.get(name, b.key) == b.key for name, b in two.backends.items())


def served(*tasks: str, **port: object) -> tuple[Model, Wanted]:
    model = Model()
    return model, model.follow(wanted_of(sight(*tasks, **port), Wanted(), model))


def sight(*tasks: str, leaving: dict[str, Reason] | None = None, **port: object) -> Snapshot:
    service = "marathon:/a.b"
    made = [member(t, 31000 + n, app="/a.b") for n, t in enumerate(tasks)]
    route = Route(service=service, app="/a.b", ports=(RoutePort(index=0, vhosts=("x.example",), **port),))
    gone = {
        t: Leaving(task=t, service=service, member="m", reason=why, deadline_s=0) for t, why in (leaving or {}).items()
    }
    members = {service: {f"m_{m.task.id}_{m.serviceEndpoint.port}": m for m in made}}
    return Snapshot(revision=2, trust=Trust.LIVE, members=members, routes={service: route}, leaving=gone)


def test_another_endpoint_is_a_runtime_command():
    """No reload for what slots can hold."""
    model, last = served("t")
    wanted = wanted_of(sight("t", "u"), last, model)
    found = changes.change(model.serving, wanted, AROUND, changes.plans(model.serving, wanted))

    assert isinstance(found, RuntimeCommands)


def test_a_new_service_without_spares_is_a_reload_that_says_why():
    """HAProxy 2.6 has no `add backend`."""
    wanted = wanted_of(sight("t"), Wanted(), Model())
    found = changes.change(Model().serving, wanted, AROUND, {})

    assert Reload(reasons=("backend a.b_p0 is new",)) == found


def test_the_first_service_of_an_unusual_kind_is_a_reload_that_names_the_kind():
    """Though there are spares of the usual ones."""
    model = Model(SPARED)
    wanted = wanted_of(many(1, sticky=True, check=Check(path="/x", interval_s=7)), Wanted(), model)
    found = changes.change(model.serving, wanted, SPARED, {})

    kind = "http, checked by http every 7 s, 2 s long, 3 times, roundrobin, sticky"
    assert Reload(reasons=(f"backend n0_10100 is new: no spare is left that is {kind}",)) == found


def many(count: int, **port: object) -> Snapshot:
    """So many services of one task each."""
    names = [f"/n{number}" for number in range(count)]
    members = {f"marathon:{n}": {"m": member(f"{n}t", 31000 + i, app=n)} for i, n in enumerate(names)}
    given_routes = {
        f"marathon:{n}": Route(
            service=f"marathon:{n}",
            app=n,
            ports=(RoutePort(index=0, service_port=10100 + i, vhosts=(f"n{i}.example",), **port),),
        )
        for i, n in enumerate(names)
    }
    return Snapshot(revision=3, trust=Trust.LIVE, members=members, routes=given_routes)


@pytest.mark.parametrize("balance", ["roundrobin", "leastconn"])
def test_new_services_with_spares_need_no_reload(balance: str):
    """Each stands in a spare: its host, port, check path and timeout are entries of maps."""
    model = Model(SPARED)
    asked = many(2, check=Check(path="/ping"), timeout_server_s=7, balance=balance)
    wanted = model.follow(wanted_of(asked, Wanted(), model))

    assert 0 == model.reloads
    assert all(naming.is_spare(name) for name in wanted.backends)
    assert dict.fromkeys(wanted.backends, "/ping") == model.serving.maps.checks
    assert dict.fromkeys(wanted.backends, "7000") == model.serving.maps.timeouts
    assert [{"/n0t"}, {"/n1t"}] == [set(model.ready(name)) for name in wanted.backends]


def test_check_path_and_timeout_of_a_running_service_change_without_a_reload():
    """They are dials."""
    model, last = served("t", check=Check(path="/a"))
    reloads = model.reloads
    model.follow(wanted_of(sight("t", check=Check(path="/b"), timeout_server_s=1), last, model))

    assert reloads == model.reloads
    assert ({"a.b_p0": "/b"}, {"a.b_p0": "1000"}) == (model.serving.maps.checks, model.serving.maps.timeouts)


def test_the_next_reload_brings_those_in_spares_home():
    """To backends of their own names, with their slots as they are, and makes new spares."""
    model = Model(SPARED)
    wanted = model.follow(wanted_of(many(3), Wanted(), model))

    assert 1 == model.reloads
    assert {"n0_10100", "n1_10101", "n2_10102"} == set(wanted.backends)
    assert wanted.maps.hosts == model.serving.maps.hosts
    assert 3 == sum(s == casing(Shape()) for s in spares.free(model.serving.structure).values())


def test_a_hundred_new_services_take_few_reloads():
    """Each reload doubles the spares of their kind."""
    model, last = Model(replace(SPARED, service_ports=(10100, 10300))), Wanted()
    for count in range(101):
        last = model.follow(wanted_of(many(count), last, model))

    assert 5 == model.reloads


def test_a_spare_is_free_again_when_its_service_is_gone_and_its_sessions_are_over():
    """Not before: its sessions are still those of that service."""
    model = Model(SPARED)
    last = model.follow(wanted_of(many(1), Wanted(), model))
    (name,) = last.backends
    model.use(name, "s1", 1)
    last = model.follow(wanted_of(many(0), last, model))
    held = changes.lent(model.serving, last)
    model.use(name, "s1", 0)
    last = model.follow(wanted_of(many(0), last, model))

    assert (Key("marathon:/n0", 0), False) == (held.owners.get(name), name in spares.free(held))
    assert name in spares.free(changes.lent(model.serving, last))


def test_few_spares_are_a_reason_for_a_reload_that_has_time():
    """Before the last one is used."""
    model = Model(replace(AROUND, spare_backends=8))
    last = model.follow(wanted_of(many(6), Wanted(), model))
    enough = changes.leftovers(model.serving.structure, last, model.around, {})
    last = model.follow(wanted_of(many(7), last, model))

    assert (0, ()) == (model.reloads, enough)
    expected = ("1 of 8 spare backends are left for http, unchecked",)
    assert expected == changes.leftovers(model.serving.structure, last, model.around, {})


@pytest.mark.parametrize(
    ("servers", "count", "soon_full"),
    [(1, 8, False), (6, 8, False), (7, 8, True), (19, 24, False), (20, 24, True), (0, 1, True), (40, 51, False)],
)
def test_a_pool_that_is_full_soon_is_told(servers: int, count: int, soon_full: bool):
    """Before a server finds no slot: a reload that has time."""
    assert soon_full == slot_plans.low(servers, count)


def test_a_pool_grows_ahead_of_need_by_one_reload():
    """After it the pool holds twice the servers, so that growing to that takes no other."""
    model = Model(SPARED)
    last = model.follow(wanted_of(sight(*(f"t{n}" for n in range(7))), Wanted(), model))
    reasons = changes.leftovers(model.serving.structure, last, model.around, model.serving.slots)
    (name,) = last.backends
    last = model.reload(last)

    assert (f"backend {name} has few empty slots",) == reasons
    assert 1 == model.reloads
    assert () == changes.leftovers(model.serving.structure, last, model.around, model.serving.slots)
    model.follow(wanted_of(sight(*(f"t{n}" for n in range(14))), last, model))
    assert 1 == model.reloads


def test_a_haproxy_of_an_older_fairlead_is_reloaded_before_its_dials_are_turned():
    """It has no such maps."""
    model, last = served("t", check=Check(path="/a"))
    old = replace(model.serving, structure=msgspec.structs.replace(model.serving.structure, layout=0), maps=Maps())
    found = changes.change(old, last, AROUND, changes.plans(old, last))

    assert isinstance(found, Reload)
    assert not [c for c in found.routing_commands if isinstance(c, MapEntry) and c.map in DIALS]


def test_a_leaving_server_is_drained_and_a_dead_one_cut():
    """In-flight requests of a live one end by themselves; nothing answers those of a dead one."""
    model, last = served("t", "u")
    wanted = wanted_of(sight(leaving={"t": Reason.SCALE, "u": Reason.DEAD}), last, model)
    found = changes.change(model.serving, wanted, AROUND, changes.plans(model.serving, wanted))

    assert isinstance(found, RuntimeCommands)
    backend = "a.b_p0"
    assert {SetState(backend, "s1", Admin.DRAIN), SetState(backend, "s2", Admin.MAINT)} == set(found.routing_commands)


def test_sessions_that_hang_on_a_dead_server_end_at_the_second_look():
    """Not at the first: HAProxy is just sending their requests to another server."""
    dead = Slot(task="u", host="10.0.0.1", port=80, admin=Admin.MAINT, used=1)

    dead_and_idle = Slot(task="u", host="10.0.0.1", port=80, admin=Admin.MAINT)

    assert Shutdown("a.b_p0", "s2") in slot_plan(None, "a.b_p0", {"s2": dead}, {"u"}).takes
    assert () == slot_plan(None, "a.b_p0", {"s2": dead_and_idle}, {"u"}).takes


def test_a_drained_server_that_comes_back_is_ready_again_in_its_slot():
    """A suspect agent's beat returned."""
    model, last = served("t", "u")
    model.follow(gone := wanted_of(sight("t"), last, model), tidy=False)
    model.follow(wanted_of(sight("t", "u"), gone, model))

    assert {"t", "u"} == set(model.ready("a.b_p0"))


def test_a_slot_with_sessions_waits_and_another_task_on_its_address_gets_another_slot():
    """An agent gives a dead task's port to the next one: its slot must not look settled."""
    model, last = served("t")
    model.use("a.b_p0", "s1", 1)
    model.follow(wanted_of(sight("u"), last, model))
    slots = model.serving.slots["a.b_p0"]

    assert {"u"} == set(model.ready("a.b_p0"))
    assert Admin.DRAIN is slots["s1"].admin
    assert slots["s2"].port == slots["s1"].port


RESERVED = replace(AROUND, forbidden=Forbidden(own={9080}, reserved=((5050, 5052), (31000, 32000))))


@pytest.mark.parametrize(
    ("port", "told"),
    [
        (9080, "the balancer's own"),
        (5052, "reserved for others"),
        (31200, "reserved for others"),
        (22, "below 1024"),
        (5053, ""),
        (10100, ""),
    ],
)
def test_ports_of_others_are_refused_alone(port: int, told: str):
    """The service keeps its virtual host, says why it has no port, and HAProxy never binds it."""
    rules = Rules(forbidden=RESERVED.forbidden)
    wanted = routes.wanted(sight("t", service_port=port), Wanted(), rules, underived)

    assert told in wanted.refused.get("marathon:/a.b", "")
    assert (not told) == bool(wanted.maps.ports)
    assert {"x.example/"} == set(wanted.maps.hosts)
    assert (not told) == (port in picture.ports_to_bind(Maps(ports={str(port): "a.b_p0"}), RESERVED))


def test_low_ports_are_a_setting():
    """Who runs HAProxy on port 80 of a machine of its own may."""
    assert "" == Forbidden(low_allowed=True).why(22)


def test_a_reserved_port_that_is_bound_is_given_up():
    """By an older balancer, or before the setting was made: a reload at once."""
    structure = Structure(frame=FRAME, layout=LAYOUT, binds=((31200, 31200),))
    found = changes.change(Serving(structure=structure), Wanted(), RESERVED, {})

    assert isinstance(found, Reload)
    assert ("service port 31200 is reserved for others (reserved_ports), but bound",) == found.reasons


def test_a_port_bound_for_nobody_is_a_leftover_unless_it_is_of_the_range():
    """The range stays held; a port beyond it may be wanted by anybody once its service is gone."""
    structure = Structure(frame=FRAME, binds=((10100, 10119), (12000, 12001)))
    wanted = Wanted(maps=Maps(ports={"12001": "b"}))

    assert ("service port 12000 is bound for nobody",) == changes.leftovers(structure, wanted, AROUND, {})


def test_problems_name_what_a_service_does_not_get():
    """A refused port, and one that another process holds."""
    rules = Rules(forbidden=RESERVED.forbidden)
    refused = routes.wanted(sight("t", service_port=5050), Wanted(), rules, underived)
    taken = routes.wanted(sight("t", service_port=7000), Wanted(), rules, underived)

    told = problems(refused, {})["marathon:/a.b"]
    assert ("service port 5050 is reserved for others (reserved_ports)",) == told
    expected = {"marathon:/a.b": ("service port 7000 is held by another process: address in use",)}
    assert expected == problems(taken, {7000: "Address in use"})
    assert {} == problems(taken, {7001: "Address in use"})

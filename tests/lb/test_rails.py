"""What may vanish at once, and how often an endpoint may come and go. Time is an argument."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.records import Check, Leaving, Member, Reason, Route, TaskRef
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import panic
from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.commands import SetChecked, SetUp, apply_to_slots
from fairlead_lb.decisions.flapping import FlapLimits
from fairlead_lb.decisions.panic import PANIC_S, Panic
from fairlead_lb.decisions.rails import EMPTY, PACED, Limits, Rails
from fairlead_lb.decisions.values import Admin, Shape, Slot, Structure
from harness.balancer import member, route
from harness.haproxy_model import FRAME

APP = "/shop/web"
SERVICE = "marathon:/shop/web"
OTHERS = {"marathon:/other": {"o": member("o", 40000, app="/other")}}


def web(*numbers: int, agent: str = "a") -> dict[str, Member]:
    found = {}
    for number in numbers:
        made = member(f"t{number}", 31000 + number)
        found[f"m{number}"] = Member(
            serviceEndpoint=made.serviceEndpoint,
            task=TaskRef(id=f"t{number}", name="web", framework="marathon", framework_id="f", agent=agent, app=APP),
            discovery=made.discovery,
            ports=made.ports,
        )
    return found


def sight(
    here: Mapping[str, Member], leaving: Mapping[str, Reason] | None = None, routes: Mapping[str, Route] | None = None
) -> Snapshot:
    records = {
        t: Leaving(task=t, service=SERVICE, member="m", reason=why, deadline_s=0) for t, why in (leaving or {}).items()
    }
    members = {**OTHERS, SERVICE: dict(here)} if here else dict(OTHERS)
    return Snapshot(
        revision=1, trust=Trust.LIVE, members=members, leaving=records, routes=routes if routes is not None else {}
    )


def tasks(snapshot: Snapshot) -> set[str]:
    return {m.task.id for m in snapshot.members.get(SERVICE, {}).values()}


def begun(here: Mapping[str, Member], **limits: object) -> Rails:
    rails = Rails(Limits(**limits))  # type: ignore[arg-type]  # a test's table
    rails.let_through(sight(here), now_s=0)
    return rails


def test_a_service_that_would_be_empty_without_a_record_is_served_on():
    """Until `hold_s` is over; it says so, and nobody else is touched."""
    rails = begun(web(1, 2), hold_s=60)
    found = rails.let_through(sight({}), now_s=10)

    assert {"t1", "t2"} == tasks(found)
    assert {EMPTY} == {h.why for h in rails.ruled[SERVICE].held.values()}
    assert found.members["marathon:/other"] is OTHERS["marathon:/other"]
    assert 60 == rails.due_s(now_s=10)
    assert set() == tasks(rails.let_through(sight({}), now_s=70))
    assert {} == rails.ruled


def test_what_leaves_with_a_record_goes_at_once():
    """Also the last one; a record that comes later lets go what was held."""
    rails = begun(web(1, 2))

    assert {"t1", "t2"} == tasks(rails.let_through(sight({}, {}), now_s=1))
    assert {"t2"} == tasks(rails.let_through(sight({}, {"t1": Reason.SCALE}), now_s=2))
    assert set() == tasks(rails.let_through(sight({}, {"t2": Reason.KILL}), now_s=3))


def test_a_service_whose_route_was_taken_away_goes():
    """Somebody wanted that."""
    rails = Rails(Limits())
    rails.let_through(sight(web(1), routes={SERVICE: route(APP)}), now_s=0)

    assert set() == tasks(rails.let_through(sight({}), now_s=1))


def test_a_persons_word_lets_go_what_vanished_before_it():
    """What vanishes later is held again."""
    rails = begun(web(1, 2))
    rails.let_through(sight({}), now_s=5)
    rails.confirm(said_s=6)

    assert 0 == rails.due_s(now_s=7)
    assert set() == tasks(rails.let_through(sight({}), now_s=7))
    rails.let_through(sight(web(3)), now_s=8)
    assert {"t3"} == tasks(rails.let_through(sight({}), now_s=9))


def test_many_at_once_go_at_a_pace():
    """Of ten, eight vanish: five go now, the other three after the interval."""
    rails = begun(web(*range(10)), removed_percent=50, interval_s=10)
    first = rails.let_through(sight(web(0, 1)), now_s=1)

    assert 5 == len(tasks(first))
    assert {PACED} == {h.why for h in rails.ruled[SERVICE].held.values()}
    assert first.members[SERVICE] is rails.let_through(sight(web(0, 1)), now_s=2).members[SERVICE]
    assert 9 == rails.due_s(now_s=2)
    later = rails.let_through(sight(web(0, 1)), now_s=11)
    assert 3 == len(tasks(later))
    assert {"t0", "t1"} == tasks(rails.let_through(sight(web(0, 1)), now_s=21))


def test_as_many_as_came_new_may_go():
    """Another framework replaces all of its tasks and writes no records."""
    rails = begun(web(*range(8)))

    assert {f"t{n}" for n in range(20, 28)} == tasks(rails.let_through(sight(web(*range(20, 28))), now_s=1))


def test_a_vanished_machines_tasks_go_at_once():
    """Three of four stood on it; holding them would send requests into the void."""
    rails = begun({**web(1, 2, 3, agent="gone"), **web(4, agent="a")})

    assert {"t4"} == tasks(rails.let_through(sight(web(4, agent="a")), now_s=1))


def test_an_address_that_somebody_else_has_now_is_not_held():
    """An agent gives a dead task's port to the next one."""
    rails = begun(web(1))
    here = sight({})
    stranger = member("x", 31001, app="/new")
    found = rails.let_through(replace(here, members={**here.members, "marathon:/new": {"x": stranger}}), now_s=1)

    assert SERVICE not in found.members


def test_an_endpoint_that_flaps_is_held_down_longer_each_time():
    """Five disorderly departures in a minute: ten seconds, then twenty; another address is not touched."""
    rails = begun(web(1, 2))
    now = 0.0

    def flap(times: int) -> Snapshot:
        nonlocal now
        for _ in range(times):
            now += 1
            rails.let_through(sight(web(1), {"t2": Reason.UNHEALTHY}), now_s=now)
            now += 1
            found = rails.let_through(sight(web(1, 2)), now_s=now)
        return found

    assert {"t1", "t2"} == tasks(flap(4))
    assert {"t1"} == tasks(flap(1))
    assert 10 == rails.due_s(now_s=now)
    now += 10
    assert {"t1", "t2"} == tasks(rails.let_through(sight(web(1, 2)), now_s=now))
    flap(5)
    assert 20 == rails.due_s(now_s=now)


def test_departures_in_order_are_no_flapping():
    """A deployment may use an address as often as it likes."""
    rails = begun(web(1, 2))
    for now in range(1, 40, 2):
        rails.let_through(sight(web(1), {"t2": Reason.SCALE}), now_s=now)
        found = rails.let_through(sight(web(1, 2)), now_s=now + 1)

    assert {"t1", "t2"} == tasks(found)


def test_a_services_last_endpoint_is_never_held_down():
    """Rather one that flaps than none."""
    rails = begun(web(2))
    for now in range(1, 40, 2):
        rails.let_through(sight({}, {"t2": Reason.DEAD}), now_s=now)
        found = rails.let_through(sight(web(2)), now_s=now + 1)

    assert {"t2"} == tasks(found)


def test_what_is_in_order_is_the_very_snapshot():
    """So that nothing is worked out again."""
    rails = begun(web(1, 2))
    second = sight(web(1, 2, 3))
    third = sight(web(1, 3), {"t2": Reason.SCALE})

    assert second is rails.let_through(second, now_s=1)
    assert third is rails.let_through(third, now_s=2)


numbers = st.frozensets(st.integers(0, 5))
steps = st.lists(st.tuples(numbers, numbers, st.integers(0, 4)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(numbers, steps, st.sampled_from((20.0, 50.0, 100.0)))
def test_never_to_zero_and_never_too_many_without_records(
    first: frozenset[int], steps: list[tuple[frozenset[int], frozenset[int], int]], percent: float
):
    """Whatever comes and goes: all that is there is served; a service is empty only when records, or `hold_s`, say so;
    and what is served is never of a task that left with a record.
    """
    rails = begun(web(*first), hold_s=9, removed_percent=percent, interval_s=3, flaps=FlapLimits(most=0))
    now, served, gone = 0.0, {f"t{n}" for n in first}, set()
    vanished: dict[str, float] = {}
    for here, drawn, wait in steps:
        now += wait + 0.1
        left = drawn - here
        gone = (gone | {f"t{n}" for n in left}) - {f"t{n}" for n in here}
        given_ = tasks(rails.let_through(sight(web(*here), {f"t{n}": Reason.KILL for n in left}), now_s=now))
        raw = {f"t{n}" for n in here}
        vanished = {t: vanished.get(t, now) for t in served - raw if t not in gone}
        assert raw <= given_ <= raw | vanished.keys()
        if not raw and any(now - since < 9 for since in vanished.values()):
            assert {t for t, since in vanished.items() if now - since < 9} == given_
        served = given_


READY = Slot(host="10.0.0.1", port=80, admin=Admin.READY, up=True)
DOWN = Slot(host="10.0.0.2", port=80, admin=Admin.READY, up=False)


def checked(*slots: Slot) -> Serving:
    structure = Structure(frame=FRAME, shapes={"b": Shape(check=Check())})
    return Serving(structure=structure, slots={"b": {f"s{n}": slot for n, slot in enumerate(slots)}})


def test_when_most_fail_their_checks_all_are_served():
    """At the second look, not the first: a killed server is down before the registry tells."""
    serving = checked(READY, DOWN, DOWN)
    once, nothing = panic.look(serving, Panic(), percent=50, now_s=1)
    twice, commands = panic.look(serving, once, percent=50, now_s=6)
    after = apply_to_slots(serving.slots["b"], commands)

    assert () == nothing
    assert {SetChecked("b", "s1", checked=False), SetUp("b", "s1")} <= set(commands)
    assert all(slot.up for slot in after.values())
    assert {"b": 6} == twice.since_s
    still, more = panic.look(checked(*after.values()), twice, percent=50, now_s=11)
    assert (twice.since_s, ()) == (still.since_s, more)


def test_panic_ends_by_asking_the_checks_again():
    """They decide; a predecessor's stopped checks are asked at once."""
    stopped = Slot(host="10.0.0.2", port=80, admin=Admin.READY, up=True, unchecked=True)
    serving = checked(READY, stopped, READY)
    commands = panic.look(serving, Panic(since_s={"b": 1}), percent=50, now_s=1 + PANIC_S)[1]

    assert (SetChecked("b", "s1", checked=True),) == commands
    assert commands == panic.look(serving, Panic(), percent=50, now_s=2)[1]
    left = checked(READY, Slot(unchecked=True), READY)
    assert commands == panic.look(left, Panic(since_s={"b": 1}), percent=50, now_s=2)[1]


@pytest.mark.parametrize("slots", [(READY, DOWN), (READY, READY, DOWN), (DOWN,)])
def test_half_or_more_up_is_no_panic(slots: tuple[Slot, ...]):
    """Nor is a service of one server, which has nothing to overload."""
    once = panic.look(checked(*slots), Panic(), percent=50, now_s=1)[0]

    assert (Panic(), ()) == panic.look(checked(*slots), once, percent=50, now_s=6)

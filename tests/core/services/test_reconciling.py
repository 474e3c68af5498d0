"""What reconciling promises an operator, as properties over a simulated fleet, and a few cases by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core.services.decisions.reconciling import Kill, Plan, Seen, Wanted, reconcile

SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
WANTED = st.builds(
    Wanted,
    instances=st.integers(0, 5),
    minimum_health_capacity=SHARES,
    maximum_over_capacity=SHARES,
    oldest_first=st.booleans(),
    replace=st.booleans(),
)
SEEN = st.lists(
    st.builds(
        Seen,
        id=st.sampled_from("abcdefgh"),
        current=st.booleans(),
        ready=st.booleans(),
        confirmed=st.booleans(),
        going=st.booleans(),
        draining=st.booleans(),
        staged_s=st.integers(0, 3).map(float),
    ),
    max_size=8,
    unique_by=lambda one: one.id,
)


def ready(seen: list[Seen]) -> int:
    return sum(one.ready and one.confirmed and not one.going for one in seen)


@given(WANTED, SEEN)
def test_healthy_instances_never_fall_below_the_minimum_by_our_kills(wanted: Wanted, seen: list[Seen]):
    """What is killed leaves the floor standing, or was not ready and cost nothing."""
    plan = reconcile(wanted, seen)
    killed = {kill.id for kill in plan.kills}
    after = ready([one for one in seen if one.id not in killed])

    assert after >= min(wanted.floor, ready(seen))


@given(WANTED, SEEN)
def test_placements_never_exceed_the_count(wanted: Wanted, seen: list[Seen]):
    """Launches fill up what is wanted and no more; while something is replaced, never over the ceiling."""
    plan = reconcile(wanted, seen)
    staying = [o for o in seen if not o.going and not o.draining and (o.current or not wanted.replace)]
    replacing = any(not o.going and (o.draining or (wanted.replace and not o.current)) for o in seen)

    assert plan.launch + len(staying) <= max(wanted.instances, len(staying))
    if replacing and plan.launch:
        assert plan.launch + len(seen) <= wanted.ceiling


@given(WANTED, SEEN)
def test_only_what_the_master_confirmed_is_killed_and_nothing_twice(wanted: Wanted, seen: list[Seen]):
    """An unconfirmed instance may be healthy or gone: it is left alone. What is going is not asked again."""
    plan = reconcile(wanted, seen)
    by_id = {one.id: one for one in seen}

    assert len({kill.id for kill in plan.kills}) == len(plan.kills)
    assert all(by_id[kill.id].confirmed and not by_id[kill.id].going for kill in plan.kills)


@given(WANTED, SEEN)
def test_without_anything_to_replace_enough_stay(wanted: Wanted, seen: list[Seen]):
    """A surplus is cut down to the count, never below."""
    seen = [replace(one, current=True, draining=False) for one in seen]
    plan = reconcile(wanted, seen)
    left = sum(not one.going for one in seen) - len(plan.kills)

    assert left >= min(wanted.instances, sum(not one.going for one in seen))


@given(WANTED, SEEN)
def test_every_change_comes_to_its_end(wanted: Wanted, seen: list[Seen]):
    """When launches become healthy and kills end, the fleet settles at the count, all current, none on a drained agent."""
    for turn in range(40):
        seen = [replace(one, confirmed=True, ready=True) for one in seen if not one.going]
        plan = reconcile(wanted, seen)
        if plan.settled:
            break
        killed = {kill.id for kill in plan.kills}
        seen = [replace(one, going=True) if one.id in killed else one for one in seen]
        seen += [Seen(id=f"new-{turn}-{n}", ready=False) for n in range(plan.launch)]
    else:
        raise AssertionError(f"still {plan} after 40 turns")

    assert wanted.instances == len(seen)
    assert all(not one.draining and (one.current or not wanted.replace) for one in seen)


@given(WANTED, SEEN)
def test_a_drained_machine_with_every_instance_never_stops_the_service(wanted: Wanted, seen: list[Seen]):
    """With the whole capacity demanded, no drained instance goes before its replacement is healthy."""
    wanted = replace(wanted, minimum_health_capacity=1.0)
    seen = [
        replace(one, draining=True, current=True, ready=True, confirmed=True, going=False)
        for one in seen[: wanted.instances]
    ]

    assert () == reconcile(wanted, seen).kills


def up(*names: str, **more: object) -> list[Seen]:
    return [Seen(id=name, staged_s=float(n), **more) for n, name in enumerate(names)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "seen", "launch", "kills"),
    [
        (Wanted(instances=2), [], 2, ()),
        (Wanted(instances=2), up("a", "b"), 0, ()),
        (Wanted(instances=1), up("a", "b"), 0, ("b",)),
        (Wanted(instances=1, oldest_first=True), up("a", "b"), 0, ("a",)),
        (Wanted(instances=0), up("a", "b"), 0, ("b", "a")),
        (Wanted(instances=2), up("a", "b", current=False), 2, ()),
        (Wanted(instances=2), [*up("a", "b", current=False), *up("c")], 1, ("b",)),
        (Wanted(instances=2, maximum_over_capacity=0.0), up("a", "b", current=False), 1, ()),
        (
            Wanted(instances=2, minimum_health_capacity=0.5, maximum_over_capacity=0.0),
            up("a", "b", current=False),
            0,
            ("b",),
        ),
        (Wanted(instances=2, replace=False), up("a", "b", current=False), 0, ()),
        (Wanted(instances=2), up("a", "b", current=False, ready=False), 2, ("b", "a")),
        (Wanted(instances=2), up("a", "b", confirmed=False), 0, ()),
        (Wanted(instances=2), up("a", "b", going=True), 2, ()),
        (Wanted(instances=10, minimum_health_capacity=0.7), up(*"abcdefghij", current=False), 10, ("j", "i", "h")),
    ],
)
def test_cases(wanted: Wanted, seen: list[Seen], launch: int, kills: tuple[str, ...]):
    """Launches and kills of typical moments."""
    plan = reconcile(wanted, seen)

    assert (launch, kills) == (plan.launch, tuple(kill.id for kill in plan.kills))


def test_the_reason_of_a_kill_says_why():
    """Scale for a surplus, drain for a machine that is emptied, kill for an old version."""
    seen = [*up("s1", "s2", "s3"), Seen(id="d", draining=True), Seen(id="o", current=False)]

    plan = reconcile(Wanted(instances=2, minimum_health_capacity=0.0), seen)

    assert {"s3": "scale", "d": "drain", "o": "kill"} == {k.id: k.reason for k in plan.kills}
    assert Plan() != plan
    assert Kill(id="s3", reason="scale") in plan.kills


def test_what_it_waits_for_is_told():
    """In the order in which a person would ask."""
    assert "1 of 1 instance to be launched" == reconcile(Wanted(instances=1), []).waits_for
    assert "1 of 1 instance to be running and healthy" == reconcile(Wanted(instances=1), up("a", ready=False)).waits_for
    assert "1 instance to leave" == reconcile(Wanted(instances=0), up("a", going=True)).waits_for
    assert "" == reconcile(Wanted(instances=1), up("a")).waits_for

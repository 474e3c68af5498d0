"""`fairlead app zdd`: what to do next follows from the two apps, whoever asks and however often."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_console.decisions import zdd
from fairlead_console.decisions.zdd import Plan, Remove, Retire, Scale
from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import colours

WEB = {"id": "/shop/web", "instances": 4, "portDefinitions": [{"port": 0, "name": "http"}], "labels": {"a": "b"}}
NOW = "2026-11-20T10:00:00.000000Z"


def begun(**how: Any) -> tuple[dict[str, Any], Plan]:
    first, _ = zdd.prepared(WEB, None, initial=1, keep=0, started_at=NOW)
    first["portDefinitions"] = [{"port": 10100, "name": "http"}]
    return zdd.prepared({**WEB, **how.pop("changes", {})}, first, **{"initial": 1, "keep": 0, "started_at": NOW, **how})


def test_the_first_version_is_blue_and_whole():
    """There is nobody to take over from."""
    made, plan = zdd.prepared(WEB, None, initial=1, keep=2, started_at=NOW)

    assert ("/shop/web-blue", 4, Plan(new="/shop/web-blue", target=4)) == (made["id"], made["instances"], plan)
    assert {"a": "b", colours.GROUP: "web", colours.APP_ID: "/shop/web"}.items() <= made["labels"].items()
    assert None is zdd.next_step(plan, 4, [])


def test_the_next_version_has_the_other_colour_and_the_same_port():
    """It begins small."""
    made, plan = begun()

    assert ("/shop/web-green", 1, [10100]) == (
        made["id"],
        made["instances"],
        [p["port"] for p in made["portDefinitions"]],
    )
    assert Plan(new="/shop/web-green", old="/shop/web-blue", target=4) == plan


def played(plan: Plan, new: int, old: list[str]) -> list[object]:
    """Every step until nothing is left to do, as they change the apps."""
    steps: list[object] = []
    while step := zdd.next_step(plan, new, old):
        steps.append(step)
        assert len(steps) < 100
        match step:
            case Scale(_, new):
                pass
            case Retire(_, gone):
                old = [t for t in old if t not in gone]
            case Remove():
                old, plan = [], Plan(new=plan.new, target=plan.target, keep=plan.keep)
    return steps


def test_it_takes_over_step_by_step():
    """Grown by half each time; an old one ends for each new one; the last ones go with their app."""
    plan = Plan(new="g", old="b", target=4)

    assert [
        Retire("b", ("b1",)),
        Scale("g", 2),
        Retire("b", ("b2",)),
        Scale("g", 4),
        Remove("b"),
    ] == played(plan, 1, ["b1", "b2", "b3", "b4"])


def test_it_stops_where_both_shall_stay():
    """Two new ones beside two old ones."""
    plan = Plan(new="g", old="b", target=4, keep=2)

    assert [Retire("b", ("b1",)), Scale("g", 2), Retire("b", ("b2",))] == played(plan, 1, ["b1", "b2", "b3", "b4"])


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8), st.integers(0, 8))
def test_it_comes_to_its_end_from_wherever_it_was_left_and_serves_meanwhile(target: int, old: int, new: int, keep: int):
    """Never fewer than the target, or than there were; at the end as many as were asked for."""
    plan, there = Plan(new="g", old="b", target=target, keep=min(keep, target)), [f"b{n}" for n in range(old)]
    least, now = min(target, old + new), new
    for step in played(plan, new, list(there)):
        match step:
            case Scale(_, many):
                assert many > now
                now = many
            case Retire(_, gone):
                there = [t for t in there if t not in gone]
            case Remove():
                there = []
        assert now + len(there) >= least

    assert now >= (plan.keep or target)
    assert not there or plan.keep


def test_who_comes_later_goes_on_goes_through_or_goes_back():
    """All that is known stands in the labels."""
    green, _ = begun(keep=2)
    blue = {"id": "/shop/web-blue", "instances": 2, "labels": {colours.GROUP: "web", colours.COLOUR: "blue"}}
    there = zdd.previous([green, {"id": "/other", "labels": {}}, blue], "/shop/web")

    assert Plan(new=green["id"], old=blue["id"], target=4, keep=2) == zdd.resumed(there, complete="")
    assert Plan(new=green["id"], old=blue["id"], target=4) == zdd.resumed(there, complete="cur")
    assert Plan(new=blue["id"], old=green["id"], target=4) == zdd.resumed(there, complete="prev")
    with pytest.raises(Refused, match="nothing to go on with"):
        zdd.resumed(there[:1], complete="")


def test_an_app_that_has_the_groups_name_joins_it_first():
    """By its label; then it is what the new version takes over from, and balancers form the group."""
    plain = {"id": "/shop/web", "instances": 4, "labels": {}}
    with pytest.raises(Refused, match="HAPROXY_DEPLOYMENT_GROUP=web"):
        zdd.check_alone([plain], "/shop/web")

    joined = {**plain, "labels": {colours.GROUP: "web"}}
    zdd.check_alone([joined], "/shop/web")
    assert [joined] == list(zdd.previous([joined], "/shop/web"))


def test_a_group_from_elsewhere_is_refused():
    """As the scheduler would."""
    with pytest.raises(Refused, match="not beside"):
        zdd.group_of({"id": "/shop/web", "labels": {colours.GROUP: "/other/web"}})

"""Who is near, when the near ones do not suffice, and that servers move between near and far without a loss."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.decisions.localities import ELSEWHERE, Place, merged, tier
from fairlead_discovery.records import Check
from fairlead_lb.decisions import render
from fairlead_lb.decisions.nearness import HOLD_S, Load, Seen, Spilling, Standing, is_far, loads, placed, spill
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.values import Admin, Backend, Key, Server, Shape, Slot
from harness.haproxy_model import AROUND, FRAME, Model

HERE = Standing(place=Place("a", "eu"), machine=frozenset({"10.0.0.1"}))
KEY = Key("marathon:/web", 0)
FAR_AROUND = replace(AROUND, frame=msgspec.structs.replace(FRAME, far_slots=True))
SERVERS = {
    "own": Server(task="own", host="10.0.0.1", port=1, zone="a", region="eu"),
    "zone": Server(task="zone", host="10.0.0.2", port=1, zone="a", region="eu"),
    "region": Server(task="region", host="10.0.0.3", port=1, zone="b", region="eu"),
    "other": Server(task="other", host="10.0.0.4", port=1, zone="a", region="us"),
    "nowhere": Server(task="nowhere", host="10.0.0.5", port=1),
}


def near(*tasks: str, level: int = 0, standing: Standing | None = HERE) -> set[str]:
    return {s.task for s in placed(tuple(SERVERS[t] for t in tasks), standing, level) if not s.far}


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (("own", "zone", "region", "other"), {"own"}),
        (("zone", "region", "other"), {"zone"}),
        (("region", "other", "nowhere"), {"region"}),
        (("other", "nowhere"), {"other", "nowhere"}),
        (("own",), {"own"}),
        ((), set()),
    ],
)
def test_the_nearest_tier_that_there_is_is_near(tasks: tuple[str, ...], expected: set[str]):
    """Own machine, zone, region, all others."""
    assert expected == near(*tasks)


def test_each_level_makes_one_more_tier_near():
    """In order; a level beyond the last one is no harm."""
    tasks = ("own", "zone", "region", "other")

    assert [{"own"}, {"own", "zone"}, {"own", "zone", "region"}, set(tasks), set(tasks)] == [
        near(*tasks, level=level) for level in range(5)
    ]


def test_without_locality_nobody_is_far():
    """And without the machine as a tier its own tasks are the zone's."""
    assert {"own", "other"} == near("own", "other", standing=None)
    assert {"own", "zone"} == near("own", "zone", "region", standing=replace(HERE, machine=frozenset()))


def test_a_tier_that_is_too_small_counts_as_the_next():
    """With two servers at the least one of the own machine is not enough."""
    assert {"own", "zone"} == near("own", "zone", "region", standing=replace(HERE, least=2))


@given(st.dictionaries(st.integers(0, 3), st.integers(1, 4)), st.integers(1, 5))
def test_merged_tiers_keep_their_order_and_are_big_enough(sizes: dict[int, int], least: int):
    """But for all together being too few."""
    found = merged(sizes, least)

    assert sizes.keys() == found.keys()
    assert list(found.values()) == sorted(found.values())
    gathered = {t: sum(n for k, n in sizes.items() if found[k] == t) for t in found.values()}
    assert all(n >= least for t, n in gathered.items() if t != max(gathered))


def test_zones_of_one_name_in_two_regions_are_two():
    """What is in another region is not near by its zone's name."""
    assert ELSEWHERE == tier(Place("a", "eu"), Place("a", "us"), own=False)


def backend(*tasks: str, level: int = 0) -> Backend:
    servers = placed(tuple(SERVERS[t] for t in sorted(tasks)), HERE, level)
    return Backend(name="web", key=KEY, app="/web", shape=Shape(), servers=servers)


def look(last: Spilling, now_s: float, *tasks: str, up: int, queued: int = 0) -> Spilling:
    """Three near ones of the own machine's tier are in service, whatever `tasks` are beside."""
    own = tuple(msgspec.structs.replace(SERVERS["own"], task=f"own{n}") for n in range(3))
    servers = placed((*own, *(SERVERS[t] for t in tasks)), HERE, last.levels.get(KEY, 0))
    slots = {f"s{n}": Slot(host="10.0.0.1", port=1, admin=Admin.READY, task=f"own{n}") for n in range(3)}
    here = Backend(name="web", key=KEY, app="/web", shape=Shape(), servers=servers)
    seen = Seen(loads={"web": Load(up=up, queued=queued)}, backends={"web": here}, slots={"web": slots})
    return spill(last, seen, HERE, now_s)


@pytest.mark.parametrize(("up", "level"), [(3, 0), (2, 1), (1, 1)])
def test_too_few_near_servers_make_the_next_tier_near(up: int, level: int):
    """Fewer than 70 %."""
    assert level == look(Spilling(), 0.0, "zone", up=up).levels.get(KEY, 0)


@pytest.mark.parametrize(("tasks", "level"), [(("zone",), 0), (("zone", "other"), 1)])
def test_with_no_near_server_up_only_a_choice_of_tiers_needs_a_decision(tasks: tuple[str, ...], level: int):
    """HAProxy has turned to all far ones by itself."""
    assert level == look(Spilling(), 0.0, *tasks, up=0).levels.get(KEY, 0)


def test_a_queue_counts_when_it_stays():
    """One look is a moment."""
    once = look(Spilling(), 0.0, "zone", up=3, queued=5)
    twice = look(once, 1.0, "zone", up=3, queued=5)

    assert (0, 1) == (once.levels.get(KEY, 0), twice.levels.get(KEY, 0))


def test_it_goes_back_after_a_pause_which_grows_when_that_was_too_early():
    """Not to and fro with every check."""
    spilled = look(Spilling(), 0.0, "zone", up=1)
    held = look(spilled, HOLD_S - 1, "zone", up=3)
    back = look(held, HOLD_S, "zone", up=3)
    again = look(back, HOLD_S + 1, "zone", up=1)
    forgotten = look(look(back, 2 * HOLD_S, "zone", up=3), 2 * HOLD_S, "zone", up=3)

    assert [1, 1, 0, 1, 0] == [s.levels.get(KEY, 0) for s in (spilled, held, back, again, forgotten)]
    assert 2 * HOLD_S == again.spills[KEY].until_s - (HOLD_S + 1)
    assert {} == forgotten.spills


def test_other_tasks_on_the_nearest_tier_are_judged_anew():
    """A new task stands where a dead one stood: nothing is held against it."""
    spilled = look(Spilling(), 0.0, "zone", up=1)

    assert {} == look(spilled, 1.0, "zone", "own", up=3).levels


def test_nothing_further_is_nothing_to_spill_to():
    """Whatever fails."""
    assert {} == look(Spilling(), 0.0, up=1, queued=9).spills


def test_loads_are_read_from_haproxys_table():
    """Backends by name."""
    csv = "# pxname,svname,qcur,qmax,scur,act,bck,x\nweb,BACKEND,3,9,1,2,1,\ndb,BACKEND,0,0,0,,0,\n\n"

    assert {"web": Load(up=2, queued=3), "db": Load(up=0, queued=0)} == loads(csv)


@given(st.lists(st.tuples(st.sets(st.sampled_from(sorted(SERVERS))), st.integers(0, 3)), min_size=1, max_size=6))
def test_servers_stand_where_they_belong_whatever_came_before(steps: list[tuple[set[str], int]]):
    """Each in a slot of its kind, and in one only; far slots are backups."""
    model = Model(FAR_AROUND)
    for revision, (tasks, level) in enumerate(steps):
        here = backend(*tasks, level=level)
        model.follow(Wanted(revision=revision, backends={"web": here}, names={"web": KEY}))
        slots = model.serving.slots["web"]
        standing = sorted((slot.task, is_far(place)) for place, slot in slots.items() if slot.serves)
        assert sorted((s.task, s.far) for s in here.servers) == standing


def test_far_slots_are_backups_and_every_server_is_checked():
    """A service without a check too, seldom; one failed connection puts a server aside."""
    frame = msgspec.structs.replace(FRAME, far_slots=True, passive_s=30.0)
    slots = {"s1": Slot(host="10.0.0.1", port=80, admin=Admin.READY), "f1": Slot()}
    text = render.backend_text("web", Shape(), slots, frame)
    checked = render.backend_text("web", Shape(check=Check(path="/h", interval_s=60.0)), slots, frame)

    assert "    server s1 10.0.0.1:80 weight 100\n    server f1 127.0.0.1:1 weight 100 backup disabled" in text
    assert "    option allbackups" in text
    assert "inter 30000ms fastinter 1000ms" in text
    assert "error-limit 1 on-error mark-down" in text
    assert "inter 60000ms" in checked


def test_locality_comes_and_goes_by_a_reload():
    """The setting is turned on, and off again, over a backend that serves."""
    model = Model(AROUND)
    flat = msgspec.structs.replace(backend("own"), servers=(SERVERS["own"], SERVERS["zone"]))
    model.follow(Wanted(revision=1, backends={"web": flat}, names={"web": KEY}))
    model.around = FAR_AROUND
    model.follow(Wanted(revision=2, backends={"web": backend("own", "zone")}, names={"web": KEY}))
    on = {s.task: is_far(place) for place, s in model.serving.slots["web"].items() if s.serves}
    model.around = AROUND
    model.follow(Wanted(revision=3, backends={"web": flat}, names={"web": KEY}))
    off = {s.task: is_far(place) for place, s in model.serving.slots["web"].items() if s.serves}

    assert {"own": False, "zone": True} == on
    assert {"own": False, "zone": False} == off

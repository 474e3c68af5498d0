"""When a reading is believed, and when the last good state is kept until a person says so."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.decisions.trust import (
    GAP_S,
    MASS_TASKS,
    Cause,
    Comparison,
    Confirmed,
    Doubt,
    Reading,
    Tasks,
    judge,
    missing,
    settles,
)


def service(count: int, *, agents: int = 4, first: int = 0) -> dict[str, str]:
    """Tasks t<first>… on `agents` agents in turn."""
    return {f"t{n}": f"agent{n % agents}" for n in range(first, first + count)}


def reading(tasks: Tasks, *, cluster: str = "c", revision: int = 10, bare: bool = False) -> Reading:
    return Reading(cluster=cluster, revision=revision, tasks=tasks, bare=bare)


def cause(good: Reading, new: Reading, **more: object) -> Cause | None:
    doubt = judge(Comparison(good=good, new=new, **{"recorded": (), **more}))  # type: ignore[arg-type]
    return doubt.cause if doubt is not None else None


GOOD = reading({"web": service(10)})


def test_ordinary_changes_are_believed():
    """More tasks, fewer tasks that left in order, other tasks, none at all."""
    assert cause(GOOD, GOOD) is None
    assert cause(GOOD, reading({"web": service(12)}, revision=11)) is None
    assert cause(GOOD, reading({}, revision=11), recorded=set(service(10))) is None
    assert cause(reading({}), GOOD) is None


def test_another_cluster_is_not_believed():
    """Whatever stands in it; a reader that has known none takes any."""
    assert cause(GOOD, replace(GOOD, cluster="d")) is Cause.CLUSTER
    assert cause(replace(GOOD, cluster=""), GOOD) is None


def test_a_revision_that_went_back_is_not_believed():
    """A restored copy looks like this. It is not believed either when new commits have caught up, until all is there."""
    assert cause(GOOD, replace(GOOD, revision=9)) is Cause.REVISION
    fewer = reading({"web": service(9)}, revision=12)
    assert cause(GOOD, fewer, held=Cause.REVISION) is Cause.REVISION
    assert cause(GOOD, fewer) is None
    assert cause(GOOD, replace(GOOD, revision=12), held=Cause.REVISION) is None


def test_an_empty_tree_is_not_believed():
    """Where there was but one task, and however long ago; what left in order is no loss."""
    one = reading({"web": service(1)})
    gone = reading({}, bare=True, revision=11)
    assert cause(one, gone) is Cause.EMPTY
    assert cause(one, gone, gap_s=10 * GAP_S) is Cause.EMPTY
    assert cause(one, gone, recorded={"t0"}) is None
    assert cause(reading({}), gone) is None


@pytest.mark.parametrize(("left", "doubted"), [(10, False), (5, False), (4, True), (0, True)])
def test_more_than_half_of_the_tasks_gone_at_once_is_not_believed(left: int, doubted: bool):
    """Without leaving records, replacements, or whole agents to explain it."""
    assert (Cause.MASS if doubted else None) is cause(GOOD, reading({"web": service(left)}, revision=11))


def test_leaving_records_account_for_tasks():
    """Only what has none is suspicious: 4 of 10 here."""
    recorded = {f"t{n}" for n in range(6)}

    assert 4 == missing(GOOD.tasks, {}, recorded)
    assert cause(GOOD, reading({}, revision=11), recorded=recorded) is None


def test_small_services_may_go():
    """With three tasks in all nobody can tell a disaster from an ordinary day."""
    few = reading({"a": service(2), "b": service(1, first=5)})
    assert MASS_TASKS > 3
    assert cause(few, reading({}, revision=11)) is None
    assert (
        cause(reading({"web": service(10), "b": {"x": "agent1"}}), reading({"web": service(10)}, revision=11)) is None
    )


def test_replaced_tasks_are_not_missing():
    """Other ids, as many: a registry that was copied by services' restart, or an upgrade seen late."""
    assert cause(GOOD, reading({"web": service(10, first=100)}, revision=11)) is None
    assert 7 == missing(GOOD.tasks, {"web": service(3, first=100)}, ())


def test_names_do_not_count_but_tasks():
    """A changed encoding gives every node another name; the tasks are the same."""
    assert 0 == missing(GOOD.tasks, {"web": dict(GOOD.tasks["web"])}, ())


def test_a_whole_agent_may_be_withdrawn():
    """A machine that vanished (architecture 3.5): all of its tasks at once, no leaving records, one of two agents."""
    good = {"web": {"t1": "a", "t2": "a", "t3": "a", "t4": "a", "t5": "b"}, "db": {"d1": "a"}}

    assert 0 == missing(good, {"web": {"t5": "b"}, "db": {"d1": "a"}}, ())
    assert 5 == missing(good, {}, ()) - 1
    assert 3 == missing(good, {"web": {"t4": "a", "t5": "b"}, "db": {"d1": "a"}}, ())


def test_most_agents_at_once_are_not_withdrawn_in_order():
    """Three of four machines: rather a leader that has lost its memory."""
    assert (
        cause(GOOD, reading({"web": {t: a for t, a in service(10).items() if a == "agent0"}}, revision=11))
        is Cause.MASS
    )


def test_who_has_not_looked_for_long_is_not_surprised():
    """Ten minutes' departures are many, and their records are gone."""
    fewer = reading({"web": service(2)}, revision=99)
    assert cause(GOOD, fewer, gap_s=GAP_S - 1) is Cause.MASS
    assert cause(GOOD, fewer, gap_s=GAP_S) is None


def test_a_word_settles_doubts_of_its_cluster_and_time():
    """It is about what was there when it was said, not about later disasters."""
    word = Confirmed(cluster="c", revision=5, time_s=1000)
    mass, other = Doubt(cause=Cause.MASS, why=""), Doubt(cause=Cause.CLUSTER, why="")

    assert settles(word, mass, GOOD, good_s=999)
    assert not settles(word, mass, GOOD, good_s=1001)
    assert not settles(None, mass, GOOD, good_s=0)
    assert not settles(word, mass, replace(GOOD, cluster="d"), good_s=0)
    assert settles(word, other, GOOD, good_s=2000)


TASKS = st.dictionaries(
    st.sampled_from(("web", "db")),
    st.dictionaries(st.sampled_from([f"t{n}" for n in range(5)]), st.sampled_from(("a", "b", "c")), max_size=5),
)


@given(TASKS, TASKS, st.sets(st.sampled_from([f"t{n}" for n in range(5)])))
def test_missing_is_never_more_than_what_vanished(good: Tasks, new: Tasks, recorded: set[str]):
    """Nor less than nothing; what is recorded or still there is never missing; more records never make more missing."""
    vanished = sum(t not in new.get(s, {}) and t not in recorded for s, ts in good.items() for t in ts)

    assert 0 <= missing(good, new, recorded) <= vanished
    assert 0 == missing(good, good, recorded)
    assert 0 == missing(good, new, {t for ts in good.values() for t in ts})


@given(TASKS, TASKS)
def test_what_comes_back_heals(good: Tasks, new: Tasks):
    """A tree that has all tasks of before, and perhaps others, is believed."""
    healed = {s: {**new.get(s, {}), **good.get(s, {})} for s in good.keys() | new.keys()}

    assert cause(reading(good), reading(healed, revision=11)) is None

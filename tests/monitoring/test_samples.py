"""Reading Prometheus' text, and an hour of samples in memory."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.samples import Page, increase, series

A, B = series("a", source="x"), series("b", source="x")


def ring(**changes: float) -> Ring:
    return Ring(**{"keep_s": 60.0, "forget_s": 30.0, "most_series": 100, **changes})


def page(**labels: str) -> Page:
    return Page(labels, most=100)


def test_a_page_gives_its_series_with_the_sources_name():
    """Labels are read with their escapes; the source is added."""
    found = page(source="lb").read('# HELP x y\nx{p="a\\"b\\\\c",q=""} 1.5\nup 1 1700000000\n')

    assert {series("x", p='a"b\\c', q="", source="lb"): 1.5, series("up", source="lb"): 1.0} == found


def test_labels_of_the_page_win():
    """A page that says itself whose value it is, is believed."""
    assert {series("x", source="other"): 1.0} == page(source="lb").read('x{source="other"} 1\n')


def test_unwanted_series_and_nan_are_left_out():
    """Buckets, creation times and Python's own counters fill no memory; NaN is no value."""
    text = 'a_bucket{le="1"} 1\na_created 1\npython_gc_x 1\nb NaN\nc_sum 2\n'

    assert {series("c_sum"): 2.0} == page().read(text)


def test_a_second_page_is_read_as_the_first():
    """What is remembered of the last page changes nothing."""
    reader = page()
    reader.read('x{a="1"} 1\ny 2\n')

    assert {series("x", a="1"): 3.0, series("z"): 4.0} == reader.read('x{a="1"} 3\nz 4\n')


@pytest.mark.parametrize("line", ["what", "x notanumber", '{a="b"} 1'])
def test_nonsense_is_named(line: str):
    """The error shows the line."""
    with pytest.raises(ValueError, match="no metric"):
        page().read(f"ok 1\n{line}\n")


def test_a_page_with_too_many_series_is_cut():
    """A source cannot fill our memory; what was left out is counted."""
    reader = Page({}, most=2)

    assert 2 == len(reader.read("a 1\nb 1\nc 1\n"))
    assert 1 == reader.left_out


def test_what_is_not_in_the_newest_round_has_no_value_now():
    """The series of an ended task ends with the next look."""
    kept = ring()
    kept.add("x", 100.0, {A: 1.0, B: 2.0})
    kept.add("x", 101.0, {B: 3.0})

    assert [] == list(kept.now("a", 101.0, fresh_s=10))
    assert [(B, 3.0)] == list(kept.now("b", 101.0, fresh_s=10))
    assert [(100.0, 1.0)] == kept.points(A, 0.0)


def test_an_old_round_is_no_value():
    """A source that is not looked at any more says nothing about now."""
    kept = ring()
    kept.add("x", 100.0, {A: 1.0})

    assert [] == list(kept.now("a", 111.0, fresh_s=10))


def test_absent_series_are_forgotten():
    """After `forget_s` nothing of them is left, and the source itself goes."""
    kept = ring()
    kept.add("x", 100.0, {A: 1.0, B: 1.0})
    kept.add("x", 120.0, {B: 1.0})
    kept.sweep(131.0)

    assert ["b"] == kept.names()
    kept.sweep(200.0)
    assert ([], 0) == (kept.names(), len(kept))


def test_the_number_of_series_is_bounded():
    """More are left out and counted; those that are there go on."""
    kept = ring(most_series=1)
    kept.add("x", 100.0, {A: 1.0})
    kept.add("x", 101.0, {A: 2.0, B: 1.0})

    assert ([(100.0, 1.0), (101.0, 2.0)], [], 1) == (kept.points(A, 0), kept.points(B, 0), kept.left_out)


@given(
    st.lists(st.tuples(st.sampled_from([1.0, 5.0, 40.0]), st.dictionaries(st.sampled_from([A, B]), st.integers(0, 3))))
)
def test_the_ring_holds_what_a_plain_list_would(rounds: list[tuple[float, Mapping]]):
    """Whatever comes and goes, points are those of the last `keep_s`, in order."""
    kept, plain, now_s = ring(forget_s=1e9), [], 0.0
    for gap_s, values in rounds:
        now_s += gap_s
        kept.add("x", now_s, {one: float(v) for one, v in values.items()})
        plain.append((now_s, values))
    for one in (A, B):
        wanted = [(t, float(v[one])) for t, v in plain if one in v and t >= now_s - 60]
        assert wanted == kept.points(one, now_s - 60)
        last = plain[-1][1].get(one) if plain else None
        assert ([] if last is None else [(one, float(last))]) == list(kept.now(one.name, now_s, fresh_s=1))


def test_times_never_go_back():
    """A clock that is set back does not disorder a source's rounds."""
    kept = ring()
    kept.add("x", 100.0, {A: 1.0})
    kept.add("x", 90.0, {A: 2.0})

    assert [(100.0, 1.0), (100.0, 2.0)] == kept.points(A, 0.0)


def test_a_counter_that_begins_again_goes_on_growing():
    """A restart is no negative growth; one point alone is none at all."""
    assert 7.0 == increase([(0, 10), (1, 12), (2, 3), (3, 5)])
    assert increase([(0, 10)]) is None


def test_memory_is_given_back():
    """After long the columns are cut: a ring of a minute holds about a minute."""
    kept = ring()
    for second in range(2000):
        kept.add("x", float(second), {A: math.sin(second)})

    assert len(kept._tracks["x"].columns[A]) < 130
    assert 61 == len(kept.points(A, 1939.0))

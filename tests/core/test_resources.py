"""Resources as values: nothing is ever counted twice, nothing is ever negative."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core.resources import Resources, covers, from_mesos, merge, parse, to_mesos, without
from fairlead_daemon.errors import Refused

NAMES = st.sampled_from([("cpus", "*"), ("mem", "*"), ("cpus", "a")])
RANGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)).map(lambda p: (p[0], p[0] + p[1])), max_size=4)
BUNDLES = st.builds(
    lambda s, r: Resources({k: v for k, v in s.items() if v}, {("ports", "*"): merge(r)} if r else {}),
    st.dictionaries(NAMES, st.integers(0, 5)),
    RANGES,
)


def numbers(ranges: object) -> set[int]:
    return {n for begin, end in ranges for n in range(begin, end + 1)}  # type: ignore[attr-defined]


@given(RANGES, RANGES)
def test_ranges_behave_as_sets_of_numbers(left: list[tuple[int, int]], right: list[tuple[int, int]]):
    """Merging is union, without is difference, covers is superset."""
    assert numbers(left) | numbers(right) == numbers(merge((*left, *right)))
    assert numbers(left) - numbers(right) == numbers(without(left, right))
    assert (numbers(right) <= numbers(left)) == covers(left, right)


@given(BUNDLES, BUNDLES)
def test_what_is_contained_can_be_taken_and_given_back(whole: Resources, part: Resources):
    """Taking and giving back is nothing done; what is left never holds what was taken."""
    if whole.contains(part):
        assert whole == (whole - part) + part
        assert not (whole - part).contains(whole) or not part


@given(BUNDLES)
def test_mesos_json_round_trip(bundle: Resources):
    """To Mesos' objects and back."""
    assert bundle == from_mesos(to_mesos(bundle, allocated_to="a"))


def test_the_text_form_of_mesos():
    """As `--resources` has it."""
    got = parse("cpus:24;mem:24576.5; ports:[21000-24000,30000-34000];cpus(role):8")

    assert {("cpus", "*"): 24000, ("mem", "*"): 24576500, ("cpus", "role"): 8000} == got.scalars
    assert ((21000, 24000), (30000, 34000)) == got.ports()
    assert 32.0 == got.total("cpus")


@pytest.mark.parametrize("text", ["cpus", "cpus:many", "cpus:-1", "ports:[5-1]", "ports:[a-b]", ":1", "cpus(:1"])
def test_what_is_no_resource_is_named(text: str):
    """The item stands in the message."""
    with pytest.raises(Refused, match="resources"):
        parse(text)

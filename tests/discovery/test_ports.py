"""Ranges of ports in settings."""

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions.ports import holds, parse_ranges


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", ()),
        (" , ", ()),
        ("5050", ((5050, 5050),)),
        ("31000-32000, 5050,5051-5060", ((5050, 5060), (31000, 32000))),
        ("1-65535,80", ((1, 65535),)),
    ],
)
def test_ranges_are_sorted_and_joined(text, ranges):
    """Order, blanks, overlaps and neighbours in the text make no difference."""
    assert ranges == parse_ranges(text, place="reserved_ports")


@pytest.mark.parametrize("text", ["0", "65536", "a", "1-", "-1", "9-8", "1-2-3", "²", "9" * 5000])
def test_what_is_no_range_is_named(text):
    """The setting's name leads the error."""
    with pytest.raises(BadSettings, match=r"^reserved_ports: "):
        parse_ranges(text, place="reserved_ports")


def test_both_ends_belong_to_a_range():
    """A range holds its first and its last port."""
    ranges = parse_ranges("10-12", place="x")

    assert [False, True, True, False] == [holds(ranges, n) for n in (9, 10, 12, 13)]

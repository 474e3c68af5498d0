"""ZooKeeper's bytes for many names and many nodes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.adapters.zookeeper_bulk import ReadMany, names

NAMES = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=("Cs",)), min_size=1, max_size=3)
LONG = st.builds(lambda name, times: name * times, NAMES, st.sampled_from((1, 42, 127, 128, 255, 256, 300)))


def vector(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return struct.pack("!i", len(encoded)) + b"".join(struct.pack("!i", len(text)) + text for text in encoded)


@given(st.lists(LONG, max_size=5))
def test_names_come_back_as_they_went(texts: list[str]):
    """Whatever their lengths and letters; from the middle of a reply."""
    assert texts == names(b"head" + vector(texts), 4)


def test_no_vector_is_no_names():
    """A length of -1 is jute's null."""
    assert [] == names(struct.pack("!i", -1), 0)


def answer(data: bytes, children: int = 0) -> bytes:
    stat = struct.pack("!qqqqiiiqiiq", 1, 2, 3, 4, 5, 6, 7, 8, len(data), children, 11)
    return struct.pack("!iBi", 4, 0, 0) + struct.pack("!i", len(data)) + data + stat


def error(number: int) -> bytes:
    return struct.pack("!iBi", -1, 0, number) + struct.pack("!i", number)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (answer(b"data"), b"data"),
        (answer(b"data", children=2), b"data"),
        (answer(b""), b""),
        (answer(b"", children=2), b""),
        (error(-101), None),
        (error(-102), -102),
    ],
)
def test_each_node_has_its_answer(raw: bytes, expected: bytes | int | None):
    """Data, also of a mere folder; None where there is no node; else the error's number."""
    end = struct.pack("!iBi", -1, 1, -1)

    assert [b"first", expected, b"last"] == ReadMany(("/1", "/2", "/3")).deserialize(
        b"head" + answer(b"first") + raw + answer(b"last") + end, 4
    )

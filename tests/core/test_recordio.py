"""RecordIO: the same records come out however the bytes were cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core.recordio import Unframer, frame
from fairlead_daemon.errors import Refused


@given(st.lists(st.binary(max_size=30), max_size=5), st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_records_come_out_however_the_bytes_were_cut(records: list[bytes], cuts: list[int]):
    """Whole, and byte by byte."""
    data = b"".join(frame(r) for r in records)
    unframer, out, position, turn = Unframer(), [], 0, 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        out += unframer.feed(data[position : position + size])
        position, turn = position + size, turn + 1

    assert records == out


@pytest.mark.parametrize("data", [b"x\n", b"-1\nab", b"1 \na", b"9" * 30, b"99999999999\n", b"\n"])
def test_what_is_no_length_is_refused(data: bytes):
    """No endless buffer, no guess."""
    with pytest.raises(Refused, match="record length expected"):
        list(Unframer().feed(data))

"""The spool: whatever moment a kill comes at, what was accepted is there, whole, in order, once."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_monitoring.adapters import spool as module
from fairlead_monitoring.adapters.spool import Spool
from fairlead_monitoring.decisions import segments
from fairlead_monitoring.decisions.segments import Ledger, Place, too_much

MUCH = 1 << 20


def batch(number: int) -> bytes:
    return b"".join(f"p{n} {number} {n}\n".encode() for n in range(3))


def content(spool: Spool, chunk_bytes: int = 1000) -> bytes:
    place, out = spool.begin(), b""
    while True:
        data, after = spool.read(place, chunk_bytes)
        if not data and after == place:
            return out
        out, place = out + data, after


def test_what_was_appended_is_read_in_order(tmp_path: Path):
    """Over several segments, in chunks that cut through lines."""
    spool = Spool(tmp_path, most_bytes=MUCH)
    for number in range(10):
        spool.append(batch(number), now_s=number * 30.0)

    assert b"".join(map(batch, range(10))) == content(spool, chunk_bytes=20)
    assert 10 == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("cut_bytes", range(len(batch(0)) + 1))
def test_a_kill_in_the_middle_of_a_write_loses_only_that_batch(tmp_path: Path, cut_bytes: int):
    """At every byte: the batches before are whole, of the torn one whole lines are left, the next one is whole."""
    Spool(tmp_path, most_bytes=MUCH).append(batch(1), now_s=0)
    file = next(tmp_path.iterdir())
    with file.open("ab") as stream:
        stream.write(batch(2)[:cut_bytes])
    again = Spool(tmp_path, most_bytes=MUCH)
    again.append(batch(3), now_s=0)
    whole = batch(2)[:cut_bytes]

    assert batch(1) + whole[: whole.rfind(b"\n") + 1] + batch(3) == content(again)


def test_a_failing_disk_tears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Half a batch is written, then the disk is full: the loss is counted, and what comes later is read whole."""
    spool = Spool(tmp_path, most_bytes=MUCH)
    spool.append(batch(1), now_s=0)
    write = os.write
    calls = iter([5])

    def failing(handle: int, data: bytes) -> int:
        if (size := next(calls, None)) is None:
            raise OSError(28, "no space left on device")
        return write(handle, bytes(data)[:size])

    monkeypatch.setattr(module.os, "write", failing)
    with pytest.raises(OSError, match="no space"):
        spool.append(batch(2), now_s=0)
    monkeypatch.undo()
    spool.append(batch(3), now_s=0)

    assert batch(1) + batch(3) == content(spool)
    assert 3 == spool.lost_points


def test_the_oldest_goes_when_there_is_no_room(tmp_path: Path):
    """The bound holds; what was lost is counted, what carbon had is not."""
    spool = Spool(tmp_path, most_bytes=5 * len(batch(0)))
    spool.handed = 3
    for number in range(1, 9):
        spool.append(batch(number), now_s=number * 30.0)

    assert b"".join(map(batch, range(4, 9))) == content(spool)
    assert 3 == spool.lost_points


def test_a_segment_is_given_up_after_it_has_settled():
    """Handed over, and so long on the same connection that carbon has written it."""
    ledger = Ledger(10.0)
    ledger.sent(100, Place(1, 100))
    ledger.sent(100, Place(2, 50))
    ledger.look(150, now_s=0.0)
    assert ledger.handed <= 1

    ledger.look(0, now_s=5.0)
    assert 2 == ledger.handed
    assert [] == ledger.settled([1, 2], now_s=14.0)
    assert [1] == ledger.settled([1, 2], now_s=15.0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 250), st.sampled_from([0.0, 1.0, 12.0])), max_size=20))
def test_nothing_is_given_up_early(steps: list):
    """Never a segment of which a byte was on its way within the settling time."""
    ledger, total, handed, segment, now_s = Ledger(10.0), 0, 0, 1, 0.0
    ends: dict[int, int] = {}
    on_its_way_s: dict[int, float] = {}
    for forward, pending, gap_s in steps:
        now_s += gap_s
        total += 100
        ends[segment], on_its_way_s[segment] = total, now_s
        segment += forward
        ledger.sent(100, Place(segment, 0 if forward else total))
        handed = max(handed, total - pending)
        ledger.look(total - handed, now_s)
        on_its_way_s.update({s: now_s for s, end in ends.items() if end > handed})
        early = [s for s in ledger.settled(list(ends), now_s) if now_s - on_its_way_s[s] < 10.0]
        assert [] == early


def test_names_of_segments():
    """Twelve digits, so that the order of names is the order of numbers; other files are none."""
    assert 7 == segments.number(segments.name(7))
    assert segments.number("x.lines") is None


def test_the_newest_segment_is_never_given_up_for_room():
    """It is being written to."""
    assert [1] == too_much({1: 10, 2: 10}, 5)

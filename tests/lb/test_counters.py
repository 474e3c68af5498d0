"""HAProxy's counters over reloads: whatever workers come, count and end, sums only grow and lose nothing they were told."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fairlead_lb.decisions.counters import FORGET_S, PIECE_CHARS, Counts, Kept, Label, Row, Totals, pieces, rows

CSV = """# pxname,svname,qcur,qmax,scur,smax,slim,stot,eresp,hrsp_5xx,req_tot,act,rtime,ttime,
web,s1,0,0,2,2,,7,1,0,6,1,3,4,
web,BACKEND,0,0,2,2,,7,,3,9,2,5,6,
"""
UNUSED = "web,s2,0,0,0,0,,0,0,0,0,1,0,0,\nweb,s3,0,0,0,0,,,0,0,0,1,0,0,\n"
"""Slots that nobody was ever sent to."""


def test_show_stat_is_read_by_its_columns_names():
    """They differ between versions; empty ones count nothing."""
    expected = [
        Row(proxy="web", kind="s1", counts=(7, 6, 0, 1), gauges=(2, 1, 3, 4)),
        Row(proxy="web", kind="backend", counts=(7, 9, 3, 0), gauges=(2, 2, 5, 6)),
    ]

    assert expected == rows(CSV)
    assert [] == rows("")
    assert expected == rows(CSV + UNUSED)
    assert [] == rows("Unknown command.")


def test_a_large_answer_is_read_in_pieces():
    """Which say together what it says; a line is never cut."""
    line = "web,s1,0,0,2,2,,7,1,0,6,1,\n"
    csv = CSV.partition("\n")[0] + "\n" + line * (3 * PIECE_CHARS // len(line))
    found = [rows(piece) for piece in pieces(csv)]

    assert rows(csv) == [row for read in found for row in read]
    assert 3 <= len(found) <= 4
    assert [] == list(pieces(""))


def of_web(row: Row) -> Label:
    return (row.proxy,)


def one(count: int) -> Row:
    return Row(proxy="web", kind="backend", counts=(count, 0, 0, 0))


looks = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=20)


@given(looks, st.integers(0, 20))
def test_sums_are_what_all_workers_have_counted(steps: list[tuple[str, int]], restart_at: int):
    """Each worker counts on from where it was, one after the other or at once, also over a restart of this daemon."""
    totals, counted, told = Totals(), {"a": 0, "b": 0, "c": 0}, 0
    for step, (worker, more) in enumerate(steps):
        counted[worker] += more
        told += more
        totals.saw(worker, [one(counted[worker])], of_web, now_s=step)
        totals.forget(counted, now_s=step)
        if step == restart_at:
            kept = msgspec.json.decode(msgspec.json.encode(totals.kept()), type=Kept)
            totals = Totals.of(kept, now_s=step)

    assert ((told, 0, 0, 0) if steps else None) == totals.sums.get(("web",))


def counts_of(totals: Totals) -> Counts:
    return totals.sums[("web",)]


def test_a_workers_counts_stay_when_it_has_ended_and_those_of_another_come_on_top():
    """That is a reload."""
    totals = Totals()
    totals.saw("old", [one(5)], of_web, now_s=1)
    totals.forget({"new"}, now_s=2)
    totals.saw("new", [one(2)], of_web, now_s=2)

    assert (7, 0, 0, 0) == counts_of(totals)


def test_counters_cleared_by_hand_do_not_make_sums_smaller():
    """`clear counters all` on HAProxy's socket."""
    totals = Totals()
    totals.saw("w", [one(5)], of_web, now_s=1)
    totals.saw("w", [one(2)], of_web, now_s=2)

    assert (7, 0, 0, 0) == counts_of(totals)


def test_a_slots_counts_belong_to_whoever_had_it():
    """And what nobody has had for long is forgotten."""
    totals = Totals()
    totals.saw("w", [one(5)], lambda _: ("first",), now_s=1)
    totals.saw("w", [one(8)], lambda _: ("second",), now_s=2)

    assert {("first",): (5, 0, 0, 0), ("second",): (3, 0, 0, 0)} == totals.sums
    totals.forget({"w"}, now_s=FORGET_S + 1.5)
    assert {("second",)} == totals.sums.keys()

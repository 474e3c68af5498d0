"""Replies of upstreams: which are ours, what is read out of them."""

import random
import struct
from typing import Any

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.forward_wire import Asked, mixed_case, read_reply
from harness.forwarding import QUESTION, read, replied
from harness.names import query
from harness.upstreams import answer, negative

# --- which packet is our reply ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("another id", lambda p: b"\xff\xff" + p[2:]),
        ("a query, not a reply", lambda p: p[:2] + b"\x01" + p[3:]),
        ("another opcode", lambda p: p[:2] + b"\xa1" + p[3:]),
        ("another name", lambda p: p.replace(b"\3wWw", b"\3wWx")),
        ("another type", lambda p: p.replace(b"\0\0\1\0\1", b"\0\0\x1c\0\1", 1)),
        ("another class", lambda p: p.replace(b"\0\0\1\0\1", b"\0\0\1\0\3", 1)),
        ("two questions", lambda p: p[:5] + b"\2" + p[6:]),
        ("the name in another case", lambda p: p.replace(b"\3wWw", b"\3www")),
        ("a header alone", lambda p: p[:12]),
        ("less than a header", lambda p: p[:5]),
    ],
)
def test_a_reply_to_something_else_is_none(what: str, changed: Any) -> None:
    """Id, question, type, class and case: all of them."""
    ours = Asked(7, b"\3wWw\7example\0\0\1\0\1")
    reply = answer(ours.packet(do=False, cd=False), "192.0.2.1")

    assert (True, False) == (ours.is_answered_by(reply), ours.is_answered_by(changed(reply))), what


def test_a_reply_in_another_case_is_told_apart() -> None:
    """An upstream that folds names is no liar, and is asked over TCP."""
    ours = Asked(7, b"\3wWw\7example\0\0\1\0\1")
    folded = answer(Asked(7, QUESTION).packet(do=False, cd=False), "192.0.2.1")

    assert (False, True) == (ours.is_answered_by(folded), ours.is_answered_but_for_case(folded))


def test_mixed_case_changes_letters_only() -> None:
    """Digits, dashes, lengths, type and class stay; over many draws every letter has both cases."""
    question = b"\5a-1bz\3com\0\0A\0\1"
    chance = random.Random(4)
    drawn = {mixed_case(question, chance.randbytes(len(question))) for _ in range(1000)}

    assert {question.lower()[:-4]} == {each.lower()[:-4] for each in drawn}
    assert (2**6, {b"\0A\0\1"}) == (len(drawn), {each[-4:] for each in drawn})


def test_a_query_to_an_upstream_has_nothing_of_the_clients_options() -> None:
    """RD, an OPT without options; DO and CD as asked."""
    sent = dnslib.DNSRecord.parse(Asked(7, QUESTION).packet(do=True, cd=True))

    assert (1, 0x8000, []) == (sent.header.rd, sent.ar[0].ttl, sent.ar[0].rdata)


def test_a_query_over_tls_is_padded() -> None:
    """To a multiple of 128 bytes (RFC 8467)."""
    sizes = {
        len(Asked(7, bytes((n,)) + b"x" * n + b"\0\0\1\0\1").packet(do=False, cd=False, padded=True))
        for n in range(1, 64)
    }

    assert {0} == {size % 128 for size in sizes}


# --- reading replies --------------------------------------------------------------------------------------------------


def test_what_concerns_one_hop_is_left_out() -> None:
    """OPT with a cookie, and TSIG after it: neither is kept."""
    packet = answer(query("www.example"), "192.0.2.1")
    tsig = b"\0" + struct.pack("!HHIH", 250, 255, 0, 4) + b"sign"
    signed = packet[:10] + b"\0\2" + packet[12:] + tsig

    assert (1, 0, 0) == read(signed).counts == read(packet).counts
    assert b"COOKIE" not in read(signed).records


def test_records_behind_an_opt_in_the_middle_are_left_out() -> None:
    """Pointers into what stays remain true."""
    packet = answer(query("www.example"), "192.0.2.1")
    extra = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + bytes(4)
    reply = read(packet[:10] + b"\0\2" + packet[12:] + extra)

    assert ((1, 0, 0), 16) == (reply.counts, len(reply.records))


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (answer(query("a"), "1.1.1.1", "1.1.1.2", ttl_s=40), 40),
        (answer(query("a"), "1.1.1.1", ttl_s=2**31), 0),
        (negative(query("a"), soa_ttl_s=300, minimum_s=60), 60),
        (negative(query("a"), soa_ttl_s=30, minimum_s=60), 30),
        (negative(query("a"), rcode=0), 60),
        (negative(query("a"), soa=False), None),
        (negative(query("a"), rcode=0, soa=False), None),
    ],
)
def test_how_long_a_reply_may_be_kept(packet: bytes, expected: int | None) -> None:
    """The least TTL of the answer; what the SOA says of a negative one; nothing without SOA (RFC 2308)."""
    assert expected == read(packet).keep_s


def test_a_referral_is_no_answer() -> None:
    """NS alone, without AA: the upstream does not resolve for us."""
    packet = query("www.example")
    ns = b"\7example\0" + struct.pack("!HHIH", 2, 1, 300, 3) + b"\1a\0"
    reply = read(packet[:2] + b"\x81\x80\0\1\0\0\0\1\0\0" + packet[12:] + ns)

    assert (True, False) == (reply.referral, reply.useful)


def test_ttls_count_down_and_never_below_zero() -> None:
    """The records' bytes are else the same."""
    reply = replied("192.0.2.1", ttl_s=100)

    assert [100, 58, 0] == [int.from_bytes(reply.aged(age)[6:10], "big") for age in (0, 42, 1000)]
    assert reply.records[10:] == reply.aged(42)[10:]


@pytest.mark.parametrize(
    "name", [b"\xc0\x40", b"\xc0\x21", b"\xc0\xff", b"\x40a\0", b"\x3f" + b"a" * 10, b"\xc0", b"\xc0\x02"]
)
def test_broken_names_are_refused(name: bytes) -> None:
    """Pointers forwards, to themselves, past the end, into the header; unknown labels; names cut."""
    packet = query("www.example")
    record = name + struct.pack("!HHIH", 1, 1, 5, 4) + bytes(4)

    with pytest.raises(wire.MalformedError):
        read(packet[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + packet[12:] + record)


def test_a_broken_name_in_the_data_is_refused() -> None:
    """A CNAME that points to itself would reach every client."""
    packet = query("www.example")
    at = len(packet) + 12
    record = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 5, 2) + (0xC000 | at).to_bytes(2, "big")

    with pytest.raises(wire.MalformedError):
        read(packet[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + packet[12:] + record)


@given(st.binary(max_size=80), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_reading_any_bytes_gives_a_reply_or_malformed(tail: bytes, an: int, ns: int, ar: int) -> None:
    """No other exception, whatever the counts say."""
    head = query("a.b")
    packet = head[:2] + struct.pack("!HHHHH", 0x8180, 1, an, ns, ar) + head[12:] + tail
    try:
        reply = read(packet)
    except wire.MalformedError:
        return

    assert len(reply.ttls) == sum(reply.counts)


@given(st.lists(st.tuples(st.integers(12, 200), st.integers(0, 255)), max_size=6), st.booleans())
def test_true_replies_with_bytes_changed_give_a_reply_or_malformed(changes: list[tuple[int, int]], no: bool) -> None:
    """Flags, counts, pointers, lengths, TTLs: what is read can be aged and has its TTLs inside."""
    start = query("www.example")
    packet = bytearray(negative(start) if no else answer(start, "192.0.2.1", "192.0.2.2"))
    for at, value in changes:
        packet[at % len(packet)] = value
    try:
        reply = read_reply(bytes(packet), start[12:])
    except wire.MalformedError:
        return

    assert len(reply.records) == len(reply.aged(7)) == len(reply.stale(30))
    assert all(0 <= at <= len(reply.records) - 4 for at, _ in reply.ttls)

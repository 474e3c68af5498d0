"""The forwarder's decisions: reading replies, keeping them, health of upstreams, local zones, who waits for what."""

import random
import struct
from typing import Any

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import BadSettings
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Asked as Query
from fairlead_dns.decisions.asked import Came, Transport, View
from fairlead_dns.decisions.forward import SILENT, UNREACHABLE, Forwarding, Limits, Wait, Waiter, outcome_of
from fairlead_dns.decisions.forward_cache import Cache, Entry, Key, Policy
from fairlead_dns.decisions.forward_upstreams import (
    LONGEST_PAUSE_S,
    Circuit,
    Group,
    Place,
    Upstream,
    Zones,
    parse_place,
    resolv_conf,
    without_ourselves,
)
from fairlead_dns.decisions.forward_wire import Asked, Reply, mixed_case, read_reply
from harness.names import ede, opt, option, query, rcode
from harness.upstreams import answer, negative

WWW = wire.parse_text("www.example") or b""
KEY = Key(WWW, wire.A, False, False)
QUESTION = WWW + b"\0\1\0\1"
UP = Place("127.0.0.1", 5300)
VIEW = View(recursion=True)


def asked(
    name: str = "www.example", kind: str | int = "A", *, room: int = 1232, view: View = VIEW, **how: Any
) -> Query:
    packet = query(name, kind, **how)
    parsed = wire.parse_query(packet)
    flags = (packet[2] << 8 | packet[3]) & wire.RD | wire.RA
    return Query(packet, parsed, Came(Transport.UDP, "10.0.0.9"), view, flags, room if parsed.edns else 512)


def forwarding(*, policy: Policy | None = None, limits: Limits | None = None, **zones: Place) -> Forwarding:
    groups = {b"\0": Group(b"\0", [Upstream(UP)])}
    for name, place in zones.items():
        zone = wire.parse_text(name.replace("_", ".")) or b""
        groups[zone] = Group(zone, [Upstream(place)])
    return Forwarding(Zones(groups), Cache(policy or Policy()), limits or Limits())


def read(packet: bytes) -> Reply:
    return read_reply(packet, packet[12 : packet.index(b"\0", 12) + 5])


def replied(*addresses: str, **how: Any) -> Reply:
    return read(answer(query("www.example"), *addresses, **how))


def fly(made: Forwarding, question: Query, outcome: Any, now_s: float = 0.0) -> dnslib.DNSRecord:
    """Asks, and brings back `outcome` as the adapter would."""
    given: list[bytes] = []
    verdict = made.ask(question, now_s)
    assert isinstance(verdict, Wait), "answered at once"
    made.join(verdict.flight, Waiter(question, given.append))
    assert made.start(verdict.flight)
    made.end(verdict.flight, outcome, now_s)
    return dnslib.DNSRecord.parse(given[0])


def at_once(made: Forwarding, question: Query, now_s: float = 0.0) -> dnslib.DNSRecord:
    verdict = made.ask(question, now_s)
    assert isinstance(verdict, bytes), "has to wait"
    return dnslib.DNSRecord.parse(verdict)


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


# --- the cache --------------------------------------------------------------------------------------------------------


def key(number: int) -> Key:
    return Key(bytes((1, 97 + number, 0)), 1, False, False)


def test_an_answer_is_kept_for_its_time_and_then_stale() -> None:
    """Fresh, then still there to be given stale, then gone."""
    cache = Cache(Policy(stale_s=100))
    cache.keep(KEY, replied("192.0.2.1", ttl_s=10), 0.0)

    found = [cache.find(KEY, now_s) for now_s in (9.9, 10.0, 109.9, 110.0)]
    assert [True, False, False, None] == [
        None if e is None else e.fresh(n) for e, n in zip(found, (9.9, 10.0, 109.9, 110.0), strict=True)
    ]
    assert (0, 0) == (len(cache.entries), cache.used_bytes)


def test_type_do_and_cd_are_questions_of_their_own() -> None:
    """Each is kept apart."""
    cache = Cache(Policy())
    keys = [Key(WWW, k, do, cd) for k in (1, 28) for do in (False, True) for cd in (False, True)]
    cache.keep(keys[0], replied("192.0.2.1"), 0.0)

    assert [True] + [False] * 7 == [cache.find(k, 1.0) is not None for k in keys]


def test_longest_times_are_the_settings() -> None:
    """A year becomes a day, a negative answer's day an hour."""
    cache = Cache(Policy(longest_s=86_400, negative_longest_s=3_600))
    long, no = (
        cache.keep(KEY, replied("192.0.2.1", ttl_s=10**7), 0),
        cache.keep(key(1), read(negative(query("a"), soa_ttl_s=10**6, minimum_s=10**6)), 0),
    )

    assert (86_400, 3_600) == (long and long.keep_s, no and no.keep_s)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(wire.SERVFAIL, keep_s=10),
        Reply(wire.REFUSED, keep_s=10),
        Reply(0, keep_s=None),
        Reply(0, keep_s=0),
        Reply(0, cut=True, keep_s=9),
    ],
)
def test_what_may_not_be_kept_is_not(reply: Reply) -> None:
    """Errors, cut replies, TTL 0, negative ones without SOA; an older answer goes too."""
    cache = Cache(Policy())
    cache.keep(KEY, replied("192.0.2.1"), 0.0)

    assert (None, None) == (cache.keep(KEY, reply, 1.0), cache.find(KEY, 1.0))


def test_entries_are_bounded_and_what_is_asked_for_stays() -> None:
    """Five into four: the one nobody has asked for goes."""
    cache = Cache(Policy(entries=4))
    for number in range(4):
        cache.keep(key(number), replied("192.0.2.1"), 0.0)
    for number in (0, 1, 3):
        cache.find(key(number), 1.0)
    cache.keep(key(4), replied("192.0.2.1"), 1.0)

    assert [True, True, False, True, True] == [key(n) in cache.entries for n in range(5)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60), st.booleans()), max_size=80))
def test_bytes_are_bounded_whatever_comes(steps: list[tuple[int, int, bool]]) -> None:
    """And the book-keeping is the truth."""
    cache = Cache(Policy(entries=6, bytes=20_000))
    for number, size, look in steps:
        cache.keep(key(number), replied(*(["192.0.2.1"] * size)), 0.0)
        if look:
            cache.find(key(number), 0.0)

    assert sum(e.cost for e in cache.entries.values()) == cache.used_bytes <= 20_000
    assert len(cache.entries) <= 6


def test_a_failure_never_replaces_a_good_answer() -> None:
    """The older one is given, and upstreams are left alone for 30 s."""
    cache = Cache(Policy())
    cache.keep(KEY, replied("192.0.2.1", ttl_s=10), 0.0)
    entry = cache.keep_failure(KEY, SILENT, 20.0)

    assert (None, 50.0, wire.NOERROR) == (entry.failure, entry.quiet_until_s, entry.reply.rcode)


def test_popular_answers_are_wanted_again_shortly_before_their_time() -> None:
    """Three hits and the last tenth; not the others."""
    cache = Cache(Policy())
    entry = Entry(KEY, replied("192.0.2.1"), 0.0, 100, hits=3)

    assert [False, True] == [cache.wants_prefetch(entry, now_s) for now_s in (89.0, 90.0)]
    assert not cache.wants_prefetch(Entry(KEY, replied(), 0.0, 100, hits=2), 95.0)
    assert not cache.wants_prefetch(Entry(KEY, replied(), 0.0, 5, hits=9), 4.9)


# --- upstreams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", Place("10.0.0.1", 53)),
        ("10.0.0.1:5300", Place("10.0.0.1", 5300)),
        ("fd00::1", Place("fd00::1", 53)),
        ("[fd00::1]:5300", Place("fd00::1", 5300)),
        ("tcp://10.0.0.1", Place("10.0.0.1", 53, "tcp")),
        ("tls://10.0.0.1#dns.example", Place("10.0.0.1", 853, "tls", "dns.example")),
        ("tls://[fd00::1]:8853", Place("fd00::1", 8853, "tls")),
    ],
)
def test_how_upstreams_are_written(text: str, expected: Place) -> None:
    """And read back."""
    assert (expected, expected) == (parse_place("x", text), parse_place("x", str(expected)))


@pytest.mark.parametrize(
    "text",
    ["", "dns.example", "10.0.0.1:x", "10.0.0.1:70000", "http://10.0.0.1", "10.0.0.1#a", "tls://10.0.0.1#", "10.0.0"],
)
def test_what_is_no_upstream_names_the_key(text: str) -> None:
    """No host names: they would have to be resolved first."""
    with pytest.raises(BadSettings, match=r"resolvers: .*is no upstream"):
        parse_place("resolvers", text)


def test_resolv_conf_without_ourselves() -> None:
    """Comments, options and what cannot be read are passed over, our own address too."""
    places = resolv_conf(
        "# x\nsearch a\nnameserver 127.0.53.53\nnameserver 10.0.0.2 # y\nnameserver fe80::1%eth0\nnameserver x\n"
    )

    assert [Place("10.0.0.2", 53)] == without_ourselves(places, [("127.0.53.53", 53)])


def test_three_failures_make_suspect_and_a_failed_probe_opens() -> None:
    """Suspect is probed at once; open not before the pause, which doubles up to five seconds; one probe at a time."""
    upstream = Upstream(UP)
    for _ in range(3):
        upstream.failed(1.0)
    was = (upstream.circuit, upstream.due(1.0))
    pauses = []
    for _ in range(6):
        upstream.probe_failed(10.0)
        pauses.append(upstream.probe_at_s - 10.0)

    assert ((Circuit.SUSPECT, True), Circuit.OPEN) == (was, upstream.circuit)
    assert [0.5, 1.0, 2.0, 4.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S] == pauses
    assert [False, True] == [upstream.due(now_s) for now_s in (14.9, 15.0)]
    upstream.probing = True
    assert not upstream.due(15.0)


def test_one_reply_closes_the_circuit() -> None:
    """And the next trouble begins with the shortest pause."""
    upstream = Upstream(UP)
    upstream.probe_failed(1.0)
    upstream.probe_answered(0.01)

    assert (Circuit.CLOSED, 0, 0.0) == (upstream.circuit, upstream.failures, upstream.pause_s)


def test_an_upstream_that_leads_back_stays_open() -> None:
    """Although it answers; until a probe does not come round."""
    upstream = Upstream(UP)
    upstream.looped(1.0)
    upstream.answered(0.01)
    still = upstream.circuit
    upstream.probe_answered(0.01)

    assert (Circuit.OPEN, Circuit.CLOSED) == (still, upstream.circuit)


def test_the_fastest_comes_first_in_a_race_and_the_written_order_otherwise() -> None:
    """Open ones are not asked; suspect ones only when there is no other."""
    slow, fast, dead, shaky = (Upstream(Place("10.0.0.1", n)) for n in range(1, 5))
    slow.answered(0.2)
    fast.answered(0.01)
    dead.probe_failed(0.0)
    for _ in range(3):
        shaky.failed(0.0)
    all_four = (slow, fast, dead, shaky)

    assert [fast, slow] == Group(b"\0", all_four).order()
    assert [slow, fast] == Group(b"\0", all_four, race=False).order()
    assert [shaky] == Group(b"\0", (dead, shaky)).order()
    assert [] == Group(b"\0", (dead,)).order()


def test_a_slow_upstream_is_tried_again_by_and_by() -> None:
    """Its round trip is forgotten with every answer of another."""
    slow, fast = Upstream(UP), Upstream(Place("10.0.0.1", 2))
    slow.answered(0.4)
    fast.answered(0.05)
    group = Group(b"\0", (slow, fast))
    for _ in range(200):
        group.answered_by(fast)

    assert [slow, fast] == group.order()


def test_the_longest_zone_counts() -> None:
    """A name at, below and beside zones with upstreams of their own."""
    made = forwarding(example=Place("10.0.0.1", 1), deep_example=Place("10.0.0.1", 2))

    def port(name: str) -> int:
        parsed = wire.parse_query(query(name))
        group = made.zones.find(parsed.name, parsed.starts)
        return group.upstreams[0].place.port if group else 0

    assert [1, 1, 2, 2, 5300, 5300] == [
        port(n) for n in ("example", "www.example", "deep.example", "x.deep.example", "notexample", "")
    ]


# --- local zones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("localhost", "A", ("NOERROR", ["127.0.0.1"])),
        ("x.LocalHost", "A", ("NOERROR", ["127.0.0.1"])),
        ("localhost", "AAAA", ("NOERROR", ["::1"])),
        ("localhost", "TXT", ("NOERROR", [])),
        ("1.0.0.127.in-addr.arpa", "PTR", ("NOERROR", ["localhost."])),
        ("0.0.127.in-addr.arpa", "PTR", ("NOERROR", [])),
        ("2.0.0.127.in-addr.arpa", "PTR", ("NXDOMAIN", [])),
        ("1." + "0." * 31 + "ip6.arpa", "PTR", ("NOERROR", ["localhost."])),
        ("a.invalid", "A", ("NXDOMAIN", [])),
        ("invalid", "A", ("NOERROR", [])),
        ("a.test", "A", ("NXDOMAIN", [])),
        ("a.onion", "A", ("NXDOMAIN", [])),
        ("printer.local", "A", ("NXDOMAIN", [])),
        ("4.3.2.10.in-addr.arpa", "PTR", ("NXDOMAIN", [])),
        ("1.1.16.172.in-addr.arpa", "PTR", ("NXDOMAIN", [])),
        ("1.1.168.192.in-addr.arpa", "PTR", ("NXDOMAIN", [])),
        ("1.1.64.100.in-addr.arpa", "PTR", ("NXDOMAIN", [])),
        ("1.d.f.ip6.arpa", "PTR", ("NXDOMAIN", [])),
    ],
)
def test_local_names_are_answered_here(name: str, kind: str, expected: tuple[str, list[str]]) -> None:
    """RFC 6303 and 6761; a negative answer has the zone's SOA; AA, for we are their authority."""
    reply = at_once(forwarding(), asked(name, kind))

    assert expected == (rcode(reply), [str(rr.rdata) for rr in reply.rr])
    assert (1, bool(not reply.rr)) == (reply.header.aa, bool(reply.auth))


@pytest.mark.parametrize(
    "name",
    [
        "1.1.32.172.in-addr.arpa",
        "1.1.15.172.in-addr.arpa",
        "1.1.128.100.in-addr.arpa",
        "8.8.8.8.in-addr.arpa",
        "notlocalhost",
        "localhost.example",
    ],
)
def test_their_neighbours_are_sent_on(name: str) -> None:
    """Names that only look like them."""
    assert isinstance(forwarding().ask(asked(name, "PTR"), 0.0), Wait)


def test_a_zone_with_upstreams_of_its_own_is_no_local_zone() -> None:
    """10.in-addr.arpa that the site serves itself: what is at or below it is sent on, what is beside it is not."""
    made = forwarding(**{"5_10_in-addr_arpa": Place("10.0.0.1", 53)})

    assert isinstance(made.ask(asked("1.0.5.10.in-addr.arpa", "PTR"), 0.0), Wait)
    assert isinstance(made.ask(asked("1.0.6.10.in-addr.arpa", "PTR"), 0.0), bytes)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_an_answer_is_given_from_the_cache_with_less_ttl() -> None:
    """The question's case as asked this time, no AA, RA, the client's id."""
    made = forwarding()
    fly(made, asked(), replied("192.0.2.1", ttl_s=100))
    reply = at_once(made, asked("WwW.Example", number=9), 40.0)

    assert (9, 0, 1, 60) == (reply.header.id, reply.header.aa, reply.header.ra, reply.rr[0].ttl)
    assert "WwW.Example." == str(reply.rr[0].rname)


def test_a_negative_answer_is_given_from_the_cache() -> None:
    """NXDOMAIN with its SOA, whose TTL counts down too."""
    made = forwarding()
    fly(made, asked(), read(negative(query("www.example"), soa_ttl_s=60)))
    reply = at_once(made, asked(), 20.0)

    assert ("NXDOMAIN", 40) == (rcode(reply), reply.auth[0].ttl)


def test_a_question_without_rd_is_never_sent_on() -> None:
    """REFUSED; what is in the cache is given."""
    made = forwarding()
    refused = at_once(made, asked(flags=0, opt=opt()))
    fly(made, asked(), replied("192.0.2.1"))

    assert ("REFUSED", 20) == (rcode(refused), ede(refused))
    assert ["192.0.2.1"] == [str(rr.rdata) for rr in at_once(made, asked(flags=0)).rr]


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", 128, 249, 254, 0])
def test_what_is_no_records_type_is_refused(kind: str | int) -> None:
    """Transfers and meta types are between neighbours."""
    assert "REFUSED" == rcode(at_once(forwarding(), asked(kind=kind)))


def test_any_gets_one_small_record() -> None:
    """RFC 8482."""
    assert [13] == [rr.rtype for rr in at_once(forwarding(), asked(kind=255)).rr]


def test_identical_questions_make_one_flight() -> None:
    """Whatever their case, id and offered size; each gets a reply of its own."""
    made, given = forwarding(), []
    questions = [asked(number=1), asked("WWW.example", number=2, opt=opt(4096)), asked(number=3)]
    verdicts = [made.ask(q, 0.0) for q in questions]
    for question, verdict in zip(questions, verdicts, strict=True):
        assert isinstance(verdict, Wait)
        made.join(verdict.flight, Waiter(question, given.append))
    made.start(verdicts[0].flight)
    waiting = made.waiting
    made.end(verdicts[0].flight, replied("192.0.2.1"), 0.1)

    assert ([True, False, False], 3, 0) == ([v.new for v in verdicts], waiting, made.waiting)
    assert [(1, 0), (2, 1), (3, 0)] == [(g[1], dnslib.DNSRecord.parse(g).header.ar) for g in given]


def test_do_is_a_flight_of_its_own() -> None:
    """Its answer holds signatures."""
    made = forwarding()
    verdicts = [made.ask(asked(opt=opt(flags=flags)), 0.0) for flags in (0, 0x8000)]

    assert [True, True] == [isinstance(v, Wait) and v.new for v in verdicts]


def test_flights_past_the_limit_are_queued_and_clients_past_theirs_refused() -> None:
    """SERVFAIL with the reason, at once; the queue goes out in order as room comes."""
    made = forwarding(limits=Limits(in_flight=1, waiting=2))
    flights = []
    for name in ("a.example", "b.example"):
        verdict = made.ask(asked(name), 0.0)
        assert isinstance(verdict, Wait)
        made.join(verdict.flight, Waiter(asked(name), lambda _: None))
        flights.append((verdict.flight, made.start(verdict.flight)))
    shed = at_once(made, asked("c.example", opt=opt()))
    following = made.end(flights[0][0], replied("192.0.2.1"), 0.1)

    assert [True, False] == [started for _, started in flights]
    assert ("SERVFAIL", 0, 1) == (rcode(shed), ede(shed), made.tally.shed)
    assert (flights[1][0], True, 1) == (following, flights[1][0].started, made.running)


def test_a_failure_is_given_with_its_reason_and_kept_shortly() -> None:
    """Five seconds from the cache, then asked again (RFC 9520)."""
    made = forwarding()
    first = fly(made, asked(opt=opt()), SILENT)
    again = at_once(made, asked(opt=opt()), 4.9)

    assert [("SERVFAIL", 22)] * 2 == [(rcode(r), ede(r)) for r in (first, again)]
    assert isinstance(made.ask(asked(), 5.0), Wait)


def test_after_a_failure_the_old_answer_is_given_stale() -> None:
    """TTL 30 and extended error 3; for the next 30 s at once and without asking (RFC 8767)."""
    made = forwarding()
    fly(made, asked(), replied("192.0.2.1", ttl_s=10))
    first = fly(made, asked(opt=opt()), SILENT, 20.0)
    again = at_once(made, asked(opt=opt()), 49.0)

    assert [("NOERROR", 3, 30)] * 2 == [(rcode(r), ede(r), r.rr[0].ttl) for r in (first, again)]
    assert isinstance(made.ask(asked(), 50.5), Wait)


def test_a_stale_negative_answer_has_its_own_code() -> None:
    """Extended error 19."""
    made = forwarding()
    fly(made, asked(), read(negative(query("www.example"), minimum_s=10)))

    assert 19 == ede(fly(made, asked(opt=opt()), SILENT, 20.0))


def test_a_popular_name_is_asked_for_again_before_its_time_is_over() -> None:
    """While the client gets the old answer at once; only one flight."""
    made = forwarding()
    fly(made, asked(), replied("192.0.2.1", ttl_s=100))
    for now_s in (1.0, 2.0, 91.0, 92.0):
        at_once(made, asked(), now_s)

    assert (1, 1) == (len(made.wanted), made.tally.prefetches)


def test_prepared_packets_go_into_the_clients_view() -> None:
    """The transport gives them by itself; after a tick with the TTL of then; shortly before their time they are gone."""
    view, made = View(recursion=True), forwarding()
    fly(made, asked(), replied("192.0.2.1", ttl_s=100))
    question = asked(view=view, opt=opt())
    rest = question.packet[2:]
    reply = made.ask(question, 1.0)
    given = view.fast[rest]()
    made.tick(41.0)
    later = dnslib.DNSRecord.parse(b"\0\7" + view.fast[rest]())
    made.tick(87.9)
    still = rest in view.fast
    made.tick(88.1)

    assert (reply[2:] if isinstance(reply, bytes) else b"", 59, 1) == (given, later.rr[0].ttl, len(later.ar))
    assert (True, {}) == (still, view.fast)


def test_a_prepared_packet_counts_as_asked_for() -> None:
    """Once a tick: a popular name is fetched in time and not evicted, although nobody asks us for it."""
    view, made = View(recursion=True), forwarding()
    fly(made, asked(), replied("192.0.2.1", ttl_s=100))
    question = asked(view=view)
    for now_s in (1.0, 2.0, 3.0):
        made.ask(question, now_s)
        made.tick(now_s)
        view.fast[question.packet[2:]]()
    (entry,) = made.cache.entries.values()

    assert (6, True) == (entry.hits, made.cache.wants_prefetch(entry, 90.0))


def test_a_cut_reply_is_not_prepared() -> None:
    """Nor one near its end, which would be given after its time, nor to a client whose packets never repeat."""
    view, made = View(recursion=True), forwarding()
    fly(made, asked(), replied(*(f"192.0.2.{n}" for n in range(40))))
    fly(made, asked("short.example"), replied("192.0.2.1", ttl_s=3))
    at_once(made, asked(view=view), 0.5)
    at_once(made, asked("short.example", view=view), 1.5)
    at_once(made, asked("SHORT.example", view=view), 0.1)
    at_once(made, asked("short.example", view=view, opt=opt(options=option(10, b"cookie!!"))), 0.1)

    assert {} == view.fast


def test_the_clients_own_size_decides_what_is_cut() -> None:
    """The same answer of 40 addresses: cut with TC for 512 bytes, whole for 1232 and over TCP; the OPT is always there."""
    made = forwarding()
    fly(made, asked(), replied(*(f"192.0.2.{n}" for n in range(40))))
    small, large = at_once(made, asked()), at_once(made, asked(opt=opt(1232)))

    assert [(1, 0, 0), (0, 40, 1)] == [(r.header.tc, len(r.rr), len(r.ar)) for r in (small, large)]


def test_additional_records_are_dropped_without_tc() -> None:
    """RFC 2181, 9."""
    question = query("www.example")
    one = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes(4)
    packet = question[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 60) + question[12:] + one * 61
    made = forwarding()
    reply = fly(made, asked(), read(packet))

    assert (0, 1, 0) == (reply.header.tc, len(reply.rr), len(reply.ar))


def test_cd_is_echoed() -> None:
    """RFC 4035, 3.2.2."""
    raw = forwarding().ask(asked("localhost", flags=0x0110), 0.0)

    assert isinstance(raw, bytes)
    assert 0x10 == raw[3] & 0x10


def test_our_own_query_that_comes_back_is_a_loop() -> None:
    """Same id, same question, case included: nobody else sends that. The upstream is left alone."""
    made = forwarding()
    upstream = made.zones.upstreams()[0]
    back = asked("wWw.eXample", number=77, opt=opt())
    made.sent[77, back.query.question] = upstream
    reply = at_once(made, back)

    assert ("SERVFAIL", 0, Circuit.OPEN, 1) == (rcode(reply), ede(reply), upstream.circuit, made.tally.loops)


def test_a_probes_name_that_comes_back_is_a_loop() -> None:
    """Whoever forwarded it, with whatever id and case."""
    made = forwarding()
    upstream = made.zones.upstreams()[0]
    made.tokens[WWW] = upstream

    assert "SERVFAIL" == rcode(at_once(made, asked("WWW.example")))
    assert upstream.looping


def test_what_a_flight_ends_in_when_nobody_answers() -> None:
    """An upstream that refused is told before one that is silent, silence before an unreachable network."""
    assert [22, 22, 23, 22] == [
        why.ede if not isinstance(why := outcome_of(replies, errors), Reply) else -1
        for replies, errors in (
            ([Reply(wire.REFUSED)], [SILENT]),
            ([], [UNREACHABLE, SILENT]),
            ([], [UNREACHABLE, UNREACHABLE]),
            ([], []),
        )
    ]


def test_unknown_client_options_make_no_difference() -> None:
    """They are neither sent on nor cached: one flight, one answer."""
    made = forwarding()
    fly(made, asked(opt=opt(options=option(65001, b"x"))), replied("192.0.2.1"))

    assert [] == at_once(made, asked(opt=opt(options=option(10, b"cookie!!")))).ar[0].rdata

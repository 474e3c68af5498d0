"""The forwarder's decisions: local zones, who gets what at once, who waits for what."""

import struct
from functools import partial

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import View
from fairlead_dns.decisions.forward import SILENT, UNREACHABLE, Limits, Wait, Waiter, outcome_of
from fairlead_dns.decisions.forward_upstreams import (
    Circuit,
    Place,
)
from fairlead_dns.decisions.forward_wire import Reply
from harness.forwarding import WWW, asked, at_once, fly, forwarding, read, replied
from harness.names import ede, opt, option, query, rcode
from harness.upstreams import negative

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


def test_of_too_many_clients_that_wait_the_first_gives_way() -> None:
    """SERVFAIL with the reason; a question nobody waits for any more is not sent. The queue goes out in order."""
    made = forwarding(limits=Limits(in_flight=1, waiting=2))
    flights, told = [], {}
    for name in ("a.example", "b.example", "c.example", "d.example"):
        verdict = made.ask(asked(name), 0.0)
        assert isinstance(verdict, Wait)
        made.join(verdict.flight, Waiter(asked(name, opt=opt()), partial(told.setdefault, name)))
        flights.append((verdict.flight, made.start(verdict.flight)))
    shed = [dnslib.DNSRecord.parse(told[name]) for name in ("a.example", "b.example")]
    left = len(made.queue)
    following = made.end(flights[0][0], replied("192.0.2.1"), 0.1)

    assert [True, False, False, False] == [started for _, started in flights]
    assert [("SERVFAIL", 0)] * 2 == [(rcode(reply), ede(reply)) for reply in shed]
    assert (["a.example", "b.example"], 2, 2) == ([*told], made.tally.shed, left)
    assert (flights[2][0], True, 1) == (following, flights[2][0].started, made.running)


def test_who_joins_the_question_of_the_first_is_answered_with_it() -> None:
    """The first gives way, its question stays for the other."""
    made, told = forwarding(limits=Limits(in_flight=1, waiting=1)), []
    for number in (1, 2):
        verdict = made.ask(asked(number=number), 0.0)
        assert isinstance(verdict, Wait)
        made.join(verdict.flight, Waiter(asked(number=number), told.append))
        if verdict.new:
            made.start(verdict.flight)
    made.end(verdict.flight, replied("192.0.2.1"), 0.1)

    assert [(1, "SERVFAIL"), (2, "NOERROR")] == [(g[1], rcode(dnslib.DNSRecord.parse(g))) for g in told]


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


@given(
    st.lists(st.sampled_from(["www", "localhost", "local", "in-addr", "arpa", "10", "127", "0", "1"]), max_size=5),
    st.integers(0, 65535),
    st.integers(0, 0xFFFF).map(lambda flags: flags & 0x07FF),
    st.integers(0, 65535),
)
def test_every_question_is_answered_at_once_or_waits(labels: list[str], kind: int, flags: int, size: int) -> None:
    """Never an exception; a reply has the question as asked, fits, and ends with an OPT."""
    question = asked(".".join(labels), kind, flags=flags, opt=opt(size))
    verdict = forwarding().ask(question, 0.0)

    if isinstance(verdict, bytes):
        assert verdict.startswith(question.query.question, 12)
        assert len(verdict) <= 1232
        assert 1 == len([rr for rr in dnslib.DNSRecord.parse(verdict).ar if rr.rtype == wire.OPT])


def test_a_probe_of_a_sibling_that_comes_back_is_a_loop() -> None:
    """It is told to who sent it, and not sent on; a probe of anybody else is a question like others."""
    made, told = forwarding(), []
    made.mark, made.sibling_looped = b"0123456789abcdef", told.append
    ours, theirs = (f"{mark}{'0' * 16}.fairlead-loop" for mark in ("0123456789abcdef", "fedcba9876543210"))
    reply = at_once(made, asked(ours))
    upstream = made.zones.groups[b"\0"].upstreams[0]
    made.tokens[told[0]] = upstream
    made.looped(told[0], 0.0)

    assert ("SERVFAIL", True) == (rcode(reply), upstream.looping)
    assert isinstance(made.ask(asked(theirs), 0.0), Wait)

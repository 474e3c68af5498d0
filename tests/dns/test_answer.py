"""Replies: what a resolver may rely on."""

import random

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.records import Discovery, Ips, Member
from fairlead_discovery.snapshots import Trust
from fairlead_dns.decisions import prepared, wire
from fairlead_dns.decisions.asked import EDE_NOT_AUTHORITATIVE, EDE_NOT_READY, Came, Transport
from fairlead_dns.decisions.naming import Rules
from fairlead_dns.names import Names
from harness.names import (
    ask,
    authority,
    data,
    ede,
    member,
    names,
    opt,
    opt_of,
    option,
    query,
    raw_reply,
    rcode,
    snapshot,
)

CAME = Came(Transport.UDP, "10.0.0.9")
WEB = "web.marathon.mesos"
SRV = "_web._tcp.marathon.mesos"
INFO = Discovery(name="web")


def many(count: int, *, discovery: Discovery = INFO) -> list[Member]:
    return [member(n, discovery=discovery) for n in range(count)]


def test_an_address_is_answered_with_authority() -> None:
    """AA is set, RA is not, the TTL is ours."""
    reply = ask(names(member(), ttl_s=3).answers, WEB)

    assert (["10.0.0.1"], "NOERROR", 1, 0, 3) == (
        data(reply),
        rcode(reply),
        reply.header.aa,
        reply.header.ra,
        reply.rr[0].ttl,
    )


@pytest.mark.parametrize("flags", [0x0100, 0])
def test_rd_is_copied(flags: int) -> None:
    """RD comes back as it was sent."""
    assert bool(flags) == bool(ask(names(member()).answers, WEB, flags=flags).header.rd)


def test_the_question_comes_back_byte_for_byte() -> None:
    """0x20: the case that was asked, in the question and in the owner, and the same address."""
    made = names(member())
    asked = "wEb.MaraTHon.MESOS"
    raw = [raw_reply(made.answers, query(asked, number=n)) for n in range(3)]

    replies = [dnslib.DNSRecord.parse(r) for r in raw if r]
    assert [(n, f"{asked}.", f"{asked}.", "10.0.0.1") for n in range(3)] == [
        (r.header.id, str(r.q.qname), str(r.rr[0].rname), str(r.rr[0].rdata)) for r in replies
    ]


def test_srv_brings_the_addresses_of_all_targets() -> None:
    """Each target's address is in ADDITIONAL; the target exists in DNS; weight and priority are ours."""
    made = names(*many(3))

    reply = ask(made.answers, SRV, "SRV", opt=opt())

    targets = {str(rr.rdata).split()[3] for rr in reply.rr}
    extra = {str(rr.rname): str(rr.rdata) for rr in reply.ar if rr.rtype == wire.A}
    assert targets == set(extra)
    assert {"10.0.0.1", "10.0.0.2", "10.0.0.3"} == set(extra.values())
    assert {("0", "1", "80")} == {tuple(str(rr.rdata).split()[:3]) for rr in reply.rr}
    assert extra == {name: data(ask(made.answers, name.rstrip(".")))[0] for name in targets}


def test_srv_targets_are_not_compressed() -> None:
    """RFC 2782: the target stands in full."""
    raw = raw_reply(names(member(discovery=INFO)).answers, query(SRV, "SRV"))

    assert raw is not None
    assert raw.count(b"\10marathon\5mesos\0") == 2


def test_missing_names_are_nxdomain_with_soa() -> None:
    """The apex' SOA with the negative TTL, so that resolvers know how long to remember."""
    reply = ask(names(member(), negative_ttl_s=2).answers, "nope.marathon.mesos")

    soa = reply.auth[0]
    assert ("NXDOMAIN", 1, "mesos.", 2, 2) == (
        rcode(reply),
        reply.header.aa,
        str(soa.rname),
        soa.ttl,
        soa.rdata.times[4],
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [(WEB, "AAAA"), (WEB, "TXT"), (WEB, 1000), ("_tcp.marathon.mesos", "A"), ("marathon.mesos", "SRV"), (SRV, "A")],
)
def test_existing_names_without_the_type_are_nodata(name: str, kind: str | int) -> None:
    """NOERROR with the apex' SOA: also for unknown types, and for names that only have names below them."""
    reply = ask(names(member()).answers, name, kind)

    assert ("NOERROR", [], ["mesos."]) == (rcode(reply), reply.rr, [str(rr.rname) for rr in reply.auth])


@pytest.mark.parametrize("kind", ["SOA", "ANY"])
def test_soa_stands_at_the_apex(kind: str) -> None:
    """In ANSWER, owned by the apex, with the revision as serial."""
    made = names(member())
    made.take_snapshot(snapshot(member(), revision=2**32 + 7))

    reply = ask(made.answers, "mesos", kind)

    assert ("mesos.", 7, 0) == (str(reply.rr[0].rname), reply.rr[0].rdata.times[0], len(reply.auth))


def test_ns_stands_at_the_apex_with_its_address() -> None:
    """The name server's own name resolves."""
    reply = ask(names().answers, "mesos", "NS")

    assert (["ns1.mesos."], ["127.0.0.1"]) == (data(reply), [str(rr.rdata) for rr in reply.ar])


def test_soa_is_not_below_the_apex() -> None:
    """Asked elsewhere, SOA is NODATA with the apex' SOA in AUTHORITY."""
    reply = ask(names(member()).answers, WEB, "SOA")

    assert (0, "mesos.") == (len(reply.rr), str(reply.auth[0].rname))


@pytest.mark.parametrize("name", ["example.com", "mesos.example", "xmesos", "com", ""])
def test_foreign_names_are_refused(name: str) -> None:
    """Without authority, so that libc asks the next server."""
    reply = ask(names(member()).answers, name, opt=opt())

    assert ("REFUSED", 0, EDE_NOT_AUTHORITATIVE) == (rcode(reply), reply.header.aa, ede(reply))


@pytest.mark.parametrize("klass", [3, 4, 254, 255, 999])
def test_unknown_classes_are_refused(klass: int) -> None:
    """CH, HS, NONE, ANY: not ours."""
    assert "REFUSED" == rcode(ask(names(member()).answers, WEB, klass=klass))


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
def test_transfers_are_refused(kind: str) -> None:
    """Of these answers alone: transfers are the front's, for those whom `transfers` admits."""
    assert "REFUSED" == rcode(ask(names(member()).answers, "mesos", kind, tcp=True))


def test_any_gives_one_type() -> None:
    """RFC 8482: no amplification by ANY."""
    reply = ask(names(member(ips=Ips(host=("10.0.0.1", "fd00::1")))).answers, WEB, "ANY")

    assert {wire.A} == {rr.rtype for rr in reply.rr}


def test_before_the_first_snapshot_nothing_is_denied() -> None:
    """SERVFAIL and "not ready", never NXDOMAIN; foreign names are refused as ever."""
    made = Names(Rules(), authority())

    reply = ask(made.answers, WEB, opt=opt())

    assert ("SERVFAIL", EDE_NOT_READY) == (rcode(reply), ede(reply))
    assert "REFUSED" == rcode(ask(made.answers, "example.com"))


@pytest.mark.parametrize("trust", [Trust.STALE, Trust.HELD])
def test_old_answers_say_so(trust: Trust) -> None:
    """The last good state, marked: EDE 3, and 19 for what it does not know."""
    made = names(member())
    made.take_snapshot(snapshot(member(), trust=trust))

    found, missing = ask(made.answers, WEB, opt=opt()), ask(made.answers, "nope.mesos", opt=opt())

    assert (["10.0.0.1"], 3, "NXDOMAIN", 19) == (data(found), ede(found), rcode(missing), ede(missing))


def test_the_mark_goes_when_the_registry_is_back() -> None:
    """Trust is part of what cached answers depend on."""
    made = names(member())
    marks = []
    for trust in (Trust.LIVE, Trust.STALE, Trust.LIVE):
        made.take_snapshot(snapshot(member(), trust=trust))
        marks.append(ede(ask(made.answers, WEB, opt=opt())))

    assert [None, 3, None] == marks


def test_large_answers_are_cut_with_tc() -> None:
    """Plain DNS gets 512 bytes, EDNS what it offered up to 1232, TCP all of it."""
    made = names(*many(100))
    sizes = [len(raw_reply(made.answers, query(WEB, opt=o)) or b"") for o in (b"", opt(800), opt(4096))]

    replies = [ask(made.answers, WEB), ask(made.answers, WEB, opt=opt(4096)), ask(made.answers, WEB, tcp=True)]

    assert [True, True, True] == [s <= most for s, most in zip(sizes, (512, 800, 1232), strict=True)]
    assert [1, 1, 0] == [r.header.tc for r in replies]
    assert (100, 0) == (len(set(data(replies[2]))), len(replies[0].ar))


def test_dropping_additional_sets_no_tc() -> None:
    """RFC 2181: an answer that is whole needs no second try over TCP."""
    made = names(*many(8))

    reply = ask(made.answers, SRV, "SRV")

    assert (8, 0) == (len(reply.rr), reply.header.tc)
    assert 8 > len(reply.ar) > 0


def test_a_cut_answer_has_its_opt() -> None:
    """RFC 8906: @512, truncated, and still EDNS."""
    reply = ask(names(*many(100)).answers, WEB, opt=opt(512))

    assert (1, True) == (reply.header.tc, opt_of(reply) is not None)


@pytest.mark.parametrize("size", [0, 100, 511])
def test_offers_below_512_count_as_512(size: int) -> None:
    """RFC 6891."""
    assert len(ask(names(*many(20)).answers, WEB, opt=opt(size)).rr) == 20


def test_every_instance_comes_first_equally_often() -> None:
    """Twenty addresses over a thousand questions: each first fifty times."""
    made = names(*many(20))

    first = [str(ask(made.answers, WEB, number=n).rr[0].rdata) for n in range(1000)]

    assert {50} == {first.count(ip) for ip in set(first)}
    assert 20 == len(set(first))


def test_srv_answers_rotate() -> None:
    """Clients that take the first SRV spread."""
    made = names(*many(4))

    assert 4 == len({str(ask(made.answers, SRV, "SRV").rr[0].rdata) for _ in range(8)})


def test_all_records_of_a_set_have_one_ttl() -> None:
    """RFC 2181."""
    assert {5} == {rr.ttl for rr in ask(names(*many(5)).answers, WEB).rr}


def test_pointers_are_answered_in_reverse_zones() -> None:
    """A reverse zone of ours has its own apex."""
    rules = Rules(reverse_zones=("16.172.in-addr.arpa",))
    zones = (b"\5mesos\0", wire.parse_text("16.172.in-addr.arpa") or b"")
    made = names(member(ips=Ips(host=("10.0.0.1",), netinfo=("172.16.0.2",))), rules=rules, apexes=zones)

    found, missing = (ask(made.answers, f"{n}.0.16.172.in-addr.arpa", "PTR") for n in (2, 3))

    assert (1, "NXDOMAIN", "16.172.in-addr.arpa.") == (len(found.rr), rcode(missing), str(missing.auth[0].rname))


# --- the caches -------------------------------------------------------------------------------------------------------


def test_repeated_packets_are_prebuilt() -> None:
    """The second time the whole packet is found, and the reply is as good."""
    made = names(member())
    packet = query(WEB)
    slow = made.front.reply(packet, CAME)

    fast = made.front.views.tables["10.0.0.9"][packet[2:]]

    assert slow == packet[:2] + fast()


def test_cookies_and_odd_case_do_not_fill_the_packet_cache() -> None:
    """What never repeats is not kept by its bytes."""
    made = names(member())
    for n in range(100):
        made.front.reply(query(WEB, opt=opt(options=option(10, n.to_bytes(8, "big")))), CAME)
    made.front.reply(query("WEB.marathon.mesos"), CAME)

    assert ({}, 2) == (made.front.views.tables["10.0.0.9"], made.answers.cached)


def test_random_names_and_types_are_not_kept() -> None:
    """A flood of names that do not exist, or of types, leaves the caches alone."""
    made = names(member())
    for n in range(300):
        made.front.reply(query(f"x{n}.marathon.mesos"), CAME)
        made.front.reply(query(WEB, 20000 + n), CAME)

    assert ({}, 0) == (made.front.views.tables["10.0.0.9"], made.answers.cached)


def test_the_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit they begin anew, and answers stay right."""
    monkeypatch.setattr(prepared, "ENTRIES", 10)
    made = names(*(member(n, name=f"web{n}") for n in range(40)))

    found = [data(ask(made.answers, f"web{n}.marathon.mesos")) for n in range(40)]

    assert [[f"10.0.0.{n + 1}"] for n in range(40)] == found
    assert made.answers.cached <= 10


few = st.lists(
    st.builds(lambda n, s, ip: member(n, name=s, discovery=INFO if s == "web" else None, ips=Ips(host=(ip,))),
              st.integers(0, 2), st.sampled_from(["web", "db"]), st.sampled_from(["10.0.0.1", "10.0.0.2"])),
    max_size=3,
)  # fmt: skip
trusts = st.sampled_from([Trust.LIVE, Trust.LIVE, Trust.LIVE, Trust.STALE])
ASKED = (
    (WEB, "A"),
    (WEB, "AAAA"),
    (SRV, "SRV"),
    ("db.marathon.mesos", "A"),
    ("marathon.mesos", "A"),
    ("slave.marathon.mesos", "A"),
    ("mesos", "SOA"),
    ("mesos", "NS"),
    ("x.mesos", "A"),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(few, trusts), min_size=2, max_size=3))
def test_cached_answers_never_outlive_their_truth(history: list[tuple[list[Member], Trust]]) -> None:
    """After every change every answer is that of a server that saw only the last state."""
    made = Names(Rules(), authority())
    for revision, (members, trust) in enumerate(history):
        made.take_snapshot(snapshot(*members, revision=revision, trust=trust))
        seen = [_content(ask(made.answers, *question, opt=opt())) for question in ASKED]

    fresh = Names(Rules(), authority())
    fresh.take_snapshot(snapshot(*history[-1][0], revision=len(history) - 1, trust=history[-1][1]))
    assert [_content(ask(fresh.answers, *question, opt=opt())) for question in ASKED] == seen


def test_a_targets_new_address_reaches_cached_srv_answers() -> None:
    """The SRV record stays the same, the address beside it changes: the prepared answer is dropped."""
    made = names(member(discovery=INFO))
    ask(made.answers, SRV, "SRV")

    made.take_snapshot(snapshot(member(discovery=INFO, ips=Ips(host=("10.9.9.9",))), revision=2))

    assert ["10.9.9.9"] == [str(rr.rdata) for rr in ask(made.answers, SRV, "SRV").ar]


def _content(reply: dnslib.DNSRecord) -> object:
    sections = [sorted(str(rr) for rr in section) for section in (reply.rr, reply.auth, reply.ar)]
    return reply.header.rcode, reply.header.tc, sections, ede(reply)


# --- anything at all --------------------------------------------------------------------------------------------------

packets = st.one_of(
    st.binary(max_size=100),
    st.builds(
        lambda head, rest: bytes(head) + rest,
        st.lists(st.sampled_from([0, 1, 2, 41, 0x80, 0xC0, 0xFF]), min_size=12, max_size=12),
        st.binary(max_size=60),
    ),
    st.builds(
        lambda kind, at, byte, more: (
            _mutated(query(WEB, kind, opt=opt(options=option(10, b"12345678"))), at, byte) + more
        ),
        st.integers(0, 65535),
        st.integers(0, 70),
        st.sampled_from([0, 1, 12, 63, 64, 0xC0, 0xFF]),
        st.binary(max_size=3),
    ),
)


def _mutated(packet: bytes, at: int, byte: int) -> bytes:
    at %= len(packet)
    return packet[:at] + bytes((byte,)) + packet[at + 1 :]


@settings(max_examples=400, deadline=None)
@given(packets, st.booleans())
def test_whatever_bytes_there_is_no_exception(packet: bytes, tcp: bool) -> None:
    """A reply that an independent codec reads, with our id, or silence."""
    reply = raw_reply(FUZZED.answers, packet, tcp=tcp)

    if reply is not None:
        assert packet[:2] == reply[:2]
        assert reply[2] & 0x80
        assert len(reply) <= (65535 if tcp else 1232)
        if reply[3] & 15 not in {wire.FORMERR, wire.NOTIMP} and wire.parse_query(packet).name.isascii():
            dnslib.DNSRecord.parse(reply)  # it reads no names beyond ASCII


FUZZED = names(*many(3))


@pytest.mark.parametrize(
    "packet", [b"", b"x", b"\0" * 11, query(WEB, flags=0x8100), query(WEB, flags=0x8000 | 4 << 11)]
)
def test_junk_and_replies_get_silence(packet: bytes) -> None:
    """Nothing that two servers could play ball with."""
    assert raw_reply(names(member()).answers, packet) is None


@pytest.mark.parametrize(
    "broken",
    [
        query(WEB)[:-1],
        query(WEB) + b"\0",
        query(WEB)[:5] + b"\2" + query(WEB)[6:],
        query(WEB)[:5] + b"\0" + query(WEB)[6:],
        query(WEB)[:12] + b"\xc0\x0c\0\1\0\1",
        query(WEB)[:12] + b"\x41" + query(WEB)[13:],
        query(WEB, opt=opt())[:-3],
        query(WEB, opt=opt(options=b"\0\x0a\0\x08abc")),
        query(WEB, opt=b"\1x" + opt()),
        query("x." * 127 + "x"),
    ],
)
def test_malformed_queries_are_formerr(broken: bytes) -> None:
    """Cut, too long, compressed, wrong counts: one word, a bare header."""
    reply = raw_reply(names(member()).answers, broken)

    assert reply is not None
    assert (12, wire.FORMERR) == (len(reply), reply[3] & 15)


def test_chance_decides_the_order() -> None:
    """The same chance gives the same replies: nothing else is random."""
    replies = []
    for _ in range(2):
        made = names(*many(10))
        made.answers.chance = random.Random(7).random
        replies.append([raw_reply(made.answers, query(WEB)) for _ in range(5)])

    assert replies[0] == replies[1]


def test_a_thousand_targets_over_tcp_are_read_by_others() -> None:
    """Beyond 16 KiB no compression pointer reaches: owners stand in full, and the message is whole."""
    reply = ask(names(*many(1000)).answers, SRV, "SRV", tcp=True)

    targets = {str(rr.rdata).split()[3] for rr in reply.rr}
    assert (1000, 0) == (len(reply.rr), reply.header.tc)
    assert targets >= {str(rr.rname) for rr in reply.ar}
    assert len(reply.ar) > 0


def test_more_than_a_message_holds_is_cut_over_tcp() -> None:
    """65,535 bytes are the end of DNS: TC, and as much as fits."""
    made = names(*many(4200))
    raw = raw_reply(made.answers, query(WEB), tcp=True)

    assert raw is not None
    assert (True, 2) == (60_000 < len(raw) <= 65_535, raw[2] & 2)

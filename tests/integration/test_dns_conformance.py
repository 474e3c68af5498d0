"""The authoritative must-list (RFC 1034 to 9660) against a real process, asked by dig, kdig, drill and dnspython, and
resolved through by an unbound in its strictest settings. Each docstring begins with its point; RFC 8906's are next door.
"""

import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rdatatype
import dns.tsigkeyring
import dns.zone
import pytest

from harness import secondaries
from harness.conforming import BIG, IDLE_S, WIDE, Conforming, ask_each, asks
from harness.dns_clients import Question, Seen, able, run
from harness.names import ask_udp, opt, query
from harness.servers import require

pytestmark = [pytest.mark.needs("dig", "kdig", "drill", "delv", "unbound")]
WEB, SRV, BIG_NAME = "web.marathon.mesos", "_web._tcp.marathon.mesos", "big.marathon.mesos"
SOA = "ns1.mesos. root.ns1.mesos."
KEY = f"{secondaries.ALGORITHM}:{secondaries.KEY}:{secondaries.SECRET}"


def header(reply: bytes) -> tuple[int, int]:
    """RCODE and length."""
    return reply[3] & 15, len(reply)


# --- 1034, 1035 -------------------------------------------------------------------------------------------------------


@asks(WEB)
def test_own_names_are_answered_with_authority(seen: Seen) -> None:
    """1034/1035: AA set, the addresses in ANSWER."""
    assert ("NOERROR", frozenset({"qr", "aa"}), ["10.0.0.1", "10.0.0.2"]) == (seen.rcode, seen.flags, seen.data)


def test_the_question_comes_back_byte_for_byte(served_names: Conforming) -> None:
    """1034/1035: QNAME echoed as sent, for an answer, a missing name, a refusal and an error."""
    for name, kind in (
        (WEB, "A"),
        ("nOpe.Mesos", "A"),
        ("eXample.com", "A"),
        ("MESOS", "SOA"),
        ("wEb.mArathon.mesos", "ANY"),
    ):
        sent = query(name, kind)

        assert sent[12:] == ask_udp(served_names.port, sent)[12 : len(sent)]


@asks("www.example.com")
def test_other_zones_are_refused(seen: Seen) -> None:
    """1034/1035: REFUSED outside our zones, without AA and without data."""
    assert ("REFUSED", frozenset({"qr"}), 0) == (seen.rcode, seen.flags, sum(seen.counts[1:]))


@asks(WEB, klass="CLASS77")
def test_other_classes_are_refused(seen: Seen) -> None:
    """1034/1035: an unknown class is REFUSED."""
    assert ("REFUSED", ()) == (seen.rcode, seen.answer)


@pytest.mark.parametrize("opcode", [1, 2, 3, 6, 9, 15])
def test_unknown_opcodes_get_a_bare_header(served_names: Conforming, opcode: int) -> None:
    """1034/1035: header-only NOTIMP, with the id and the opcode that were sent."""
    packet = query(WEB)
    reply = ask_udp(served_names.port, packet[:2] + bytes((opcode << 3, 0)) + packet[4:])

    assert (packet[:2], 0x80 | opcode << 3, (4, 12), bytes(8)) == (reply[:2], reply[2], header(reply), reply[4:])


def test_replies_are_never_answered(served_names: Conforming) -> None:
    """1034/1035: silence to QR=1, or two servers could answer each other for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(15)
        sock.connect(("127.0.0.1", served_names.port))
        for number in range(5):
            sock.send(query(WEB, number=number, flags=0x8000))
        sock.send(query(WEB, number=99))

        assert 99 == int.from_bytes(sock.recv(4096)[:2], "big")


def test_long_names_and_labels(served_names: Conforming) -> None:
    """1034/1035: 255 bytes and 63 are names, 256 are none."""
    longest = bytes((63,)) + b"a" * 63
    fits = longest * 3 + bytes((49,)) + b"b" * 49 + b"\5mesos" + b"\5mesos\0"
    replies = [
        ask_udp(served_names.port, query("x")[:12] + name + b"\0\1\0\1")
        for name in (fits, bytes((50,)) + b"b" * 50 + fits[50:])
    ]

    assert 255 == len(fits)
    assert (3, 255 + 16) == (replies[0][3] & 15, replies[0].index(b"\0\1\0\1") + 4)
    assert (1, 12) == header(ask_udp(served_names.port, query("x")[:12] + b"\1b" + fits + b"\0\1\0\1"))


@pytest.mark.parametrize(
    "name",
    [b"\xc0\x0c", b"\xc0\x20", b"\1a\xc0\x0c", b"\3web\xc0\xff", b"\x40abc\0", b"\x80a\0", b"\xff\xff"],
    ids=repr,
)
def test_pointers_in_a_question_are_bounded(served_names: Conforming, name: bytes) -> None:
    """1034/1035: pointers forwards, to themselves and in circles, and odd label types: FORMERR at once, a bare header."""
    reply = ask_udp(served_names.port, query("x")[:12] + name + b"\0\1\0\1")

    assert (1, 12) == header(reply)


def pointers(message: bytes) -> Iterator[tuple[int, int]]:
    """Where a pointer stands in the records of a reply, and where to: by a reader of our own."""
    at = 12
    while message[at]:
        at += message[at] + 1
    at += 5
    for _ in range(sum(struct.unpack("!HHH", message[6:12]))):
        at = yield from names_at(message, at)
        kind, size = struct.unpack("!H6xH", message[at : at + 10])
        at += 10
        if kind in (2, 5, 12):
            yield from names_at(message, at)
        at += size


def names_at(message: bytes, at: int) -> Iterator[tuple[int, int]]:
    while message[at] and message[at] < 0xC0:
        at += message[at] + 1
    if message[at]:
        yield at, (message[at] & 0x3F) << 8 | message[at + 1]
    return at + (2 if message[at] else 1)


def test_our_pointers_only_lead_backwards(served_names: Conforming) -> None:
    """1034/1035: in every kind of answer."""
    for name, kind in (
        (WEB, "A"),
        (SRV, "SRV"),
        ("mesos", "SOA"),
        ("nope.mesos", "A"),
        ("alias.mesos", "A"),
        ("mesos", "NS"),
    ):
        found = list(pointers(ask_udp(served_names.port, query(name, kind, opt=opt()))))

        assert found
        assert [] == [(at, to) for at, to in found if to >= at]


# --- 2181 -------------------------------------------------------------------------------------------------------------


@asks(BIG_NAME, tcp=True)
def test_one_ttl_and_no_record_twice(seen: Seen) -> None:
    """2181: the same TTL across a set, no duplicates."""
    assert (BIG, BIG, 1) == (len(seen.answer), len(set(seen.data)), len({rr.ttl_s for rr in seen.answer}))


@asks(BIG_NAME, edns=0)
def test_a_cut_answer_says_so(seen: Seen) -> None:
    """2181: TC when ANSWER is cut; nothing but whole records of that one set beside it, so that nobody caches a part."""
    assert "tc" in seen.flags
    assert (0 < len(seen.answer) < BIG, (), ()) == (True, seen.authority, seen.additional)


@pytest.mark.parametrize(("size", "sets"), [(512, {}), (1232, {"A": WIDE}), (None, {"A": WIDE, "AAAA": WIDE})])
def test_a_set_is_there_whole_or_not_at_all(served_names: Conforming, size: int | None, sets: dict[str, int]) -> None:
    """2181: in ADDITIONAL too, and without TC there: 40 A and 40 AAAA of one SRV target, at 512, at 1232 and over TCP."""
    how = {"tcp": True} if size is None else {"edns": 0, "size": size}
    for client, seen in ask_each(served_names, "_wide._tcp.marathon.mesos", "SRV", **how).items():
        found = Counter(rr.kind for rr in seen.additional)

        assert (client, 1, False, sets) == (client, len(seen.answer), "tc" in seen.flags, dict(found))


# --- 2308 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [("nope.mesos", "A", "NXDOMAIN"), (WEB, "AAAA", "NOERROR"), ("a.b.nope.mesos", "SRV", "NXDOMAIN")],
)
def test_negative_answers_can_be_cached(served_names: Conforming, name: str, kind: str, rcode: str) -> None:
    """2308: NXDOMAIN and NODATA both carry the apex's SOA in AUTHORITY, with the least of its TTL and MINIMUM."""
    (soa,) = ask_each(served_names, "mesos", "SOA")["dnspython"].answer
    least_s = min(soa.ttl_s, int(soa.data.split()[-1]))
    for client, seen in ask_each(served_names, name, kind).items():
        (given,) = seen.authority

        assert (client, rcode, "mesos.", "SOA", least_s) == (client, seen.rcode, given.owner, given.kind, given.ttl_s)


# --- 8020, 4592 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_tcp.marathon.mesos", "marathon.mesos", "marathon.slave.mesos", "0.10.in-addr.arpa"])
def test_names_with_names_below_them_exist(served_names: Conforming, name: str) -> None:
    """8020: empty non-terminals are NODATA, not NXDOMAIN."""
    found = {client: (seen.rcode, seen.answer) for client, seen in ask_each(served_names, name).items()}

    assert dict.fromkeys(("dig", "kdig", "drill", "dnspython"), ("NOERROR", ())) == found


@pytest.mark.parametrize(
    ("name", "kind", "code", "data"),
    [
        ("any.wild.file.test", "A", "NOERROR", ["10.8.0.1"]),
        ("there.wild.file.test", "A", "NOERROR", ["10.8.0.2"]),
        ("there.wild.file.test", "TXT", "NOERROR", []),
        ("below.wild.file.test", "A", "NOERROR", []),
        ("x.below.wild.file.test", "A", "NXDOMAIN", []),
        ("x.there.wild.file.test", "A", "NXDOMAIN", []),
        ("*.wild.file.test", "A", "NOERROR", ["10.8.0.1"]),
    ],
)
def test_wild_cards_leave_existing_names_alone(
    served_names: Conforming, name: str, kind: str, code: str, data: list[str]
) -> None:
    """4592: a wild card covers neither names that exist nor what is below them, empty ones included."""
    found = {client: (seen.rcode, seen.data) for client, seen in ask_each(served_names, name, kind).items()}

    assert dict.fromkeys(("dig", "kdig", "drill", "dnspython"), (code, data)) == found


# --- SOA, NS, serials -------------------------------------------------------------------------------------------------


@asks("mesos", "SOA")
def test_the_soa_is_an_answer(seen: Seen) -> None:
    """SOA/NS: the SOA in ANSWER, owned by the apex."""
    (soa,) = seen.answer

    assert ("mesos.", True, ()) == (soa.owner, soa.data.startswith(SOA), seen.authority)


@asks("mesos", "NS")
def test_the_name_server_is_an_answer(seen: Seen) -> None:
    """SOA/NS: NS in ANSWER; its address goes along."""
    assert (["ns1.mesos."], [("ns1.mesos.", "127.0.0.1")]) == (
        seen.data,
        [(rr.owner, rr.data) for rr in seen.additional if rr.kind == "A"],
    )


# --- 2782 -------------------------------------------------------------------------------------------------------------


def test_srv_targets_are_neither_compressed_nor_aliases(served_names: Conforming) -> None:
    """2782: the target is written out, and has addresses of its own."""
    raw = ask_udp(served_names.port, query(SRV, "SRV", opt=opt()))
    for seen in ask_each(served_names, SRV, "SRV").values():
        targets = [data.split()[3] for data in seen.data]

        assert (2, {"A"}) == (len(targets), {rr.kind for rr in seen.additional})
        for target in targets:
            assert dns.name.from_text(target).to_wire() in raw
            (host,) = ask_each(served_names, target)["dnspython"].answer
            assert ("A", target) == (host.kind, host.owner)


@asks("_https._pod._tcp.marathon.mesos", "SRV")
def test_all_addresses_of_a_target_go_along(seen: Seen) -> None:
    """2782: A and AAAA of the target in ADDITIONAL."""
    assert {("A", "10.9.0.1"), ("AAAA", "fd00::1")} == {
        (rr.kind, rr.data) for rr in seen.additional if rr.kind != "OPT"
    }


def test_additional_records_are_left_out_silently(served_names: Conforming) -> None:
    """2782: as room permits, and without TC: the answer whole, of the additional sets only the first ones."""
    question = Question(name="_big._tcp.marathon.mesos", kind="SRV", tcp=True)
    found = able(question)[-1].ask(served_names.port, question)
    seven = [query(SRV, "SRV", opt=opt(size)) for size in (512, 1232)]
    small, large = (dns.message.from_wire(ask_udp(served_names.port, packet)) for packet in seven)

    assert (BIG, BIG) == (len(found.answer), len(found.additional))
    assert [False, False] == [bool(reply.flags & dns.flags.TC) for reply in (small, large)]


# --- 3596, 3597 -------------------------------------------------------------------------------------------------------


@asks("pod.marathon.mesos", "AAAA")
def test_aaaa(seen: Seen) -> None:
    """3596: IPv6 addresses by AAAA."""
    assert ["fd00::1"] == seen.data


@asks(WEB, "AAAA")
def test_a_name_of_ipv4_alone_is_nodata_for_aaaa(seen: Seen) -> None:
    """3596: NOERROR, no answer, the SOA: not NXDOMAIN, or its A would be forgotten too."""
    assert ("NOERROR", (), 1) == (seen.rcode, seen.answer, len(seen.authority))


@asks(WEB, "TYPE31337")
def test_unknown_types_of_known_names_are_nodata(seen: Seen) -> None:
    """3597: neither NOTIMP nor NXDOMAIN."""
    assert ("NOERROR", (), 1) == (seen.rcode, seen.answer, len(seen.authority))


# --- 4343, 0x20 -------------------------------------------------------------------------------------------------------


def test_case_does_not_matter_and_comes_back(served_names: Conforming) -> None:
    """4343: found in any case; the answer's owner is a pointer to the question (0x20)."""
    raw = ask_udp(served_names.port, query("wEb.MARATHON.mEsOs"))
    dig = ask_each(served_names, "wEb.MARATHON.mEsOs")["dig"]

    assert (b"\xc0\x0c", 2) == (raw[12 + len("web.marathon.mesos") + 2 + 4 :][:2], raw[7])
    assert {"wEb.MARATHON.mEsOs."} == {rr.owner for rr in dig.answer}


# --- 6891 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how", "code"),
    [
        (WEB, {}, "NOERROR"),
        (BIG_NAME, {"size": 512}, "NOERROR"),
        ("nope.mesos", {}, "NXDOMAIN"),
        ("example.com", {}, "REFUSED"),
        (WEB, {"klass": "CH"}, "REFUSED"),
    ],
)
def test_opt_is_answered_with_opt(served_names: Conforming, name: str, how: dict[str, object], code: str) -> None:
    """6891: OPT in, OPT out, in truncated and error replies too; and none where none came."""
    for client, seen in ask_each(served_names, name, edns=0, **how).items():
        assert (client, code, 0) == (client, seen.rcode, seen.edns)
    for client, seen in ask_each(served_names, name, **{k: v for k, v in how.items() if k != "size"}).items():
        assert (client, code, None) == (client, seen.rcode, seen.edns)


@pytest.mark.parametrize(("size", "most"), [(0, 512), (100, 512), (512, 512), (800, 800), (1232, 1232), (65535, 1232)])
def test_the_clients_size_is_clamped(served_names: Conforming, size: int, most: int) -> None:
    """6891: 512 to 1232 bytes, whatever the client says."""
    reply = ask_udp(served_names.port, query(BIG_NAME, opt=opt(size)))

    assert most - 64 < len(reply) <= most


def test_two_opts_are_a_broken_question(served_names: Conforming) -> None:
    """6891: FORMERR, with an OPT."""
    packet = query(WEB, opt=opt() + opt())
    reply = ask_udp(served_names.port, packet[:11] + b"\2" + packet[12:])

    assert (1, 1) == (reply[3] & 15, reply[11])


# --- 7766, 9210, 7828 -------------------------------------------------------------------------------------------------


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


def frames(stream: socket.socket, count: int) -> list[bytes]:
    with stream.makefile("rb") as read:
        return [read.read(int.from_bytes(read.read(2), "big")) for _ in range(count)]


def test_queries_are_pipelined(served_names: Conforming) -> None:
    """7766/9210: fifty questions in one write are all answered, each with its own id."""
    with socket.create_connection(("127.0.0.1", served_names.port), timeout=15) as stream:
        stream.sendall(b"".join(framed(query(WEB, number=n)) for n in range(50)))

        assert list(range(50)) == sorted(int.from_bytes(reply[:2], "big") for reply in frames(stream, 50))


def test_a_question_may_come_byte_by_byte(served_names: Conforming) -> None:
    """7766/9210: whatever its pieces; the reply comes with its length in one piece."""
    with socket.create_connection(("127.0.0.1", served_names.port), timeout=15) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(query(WEB)):
            stream.sendall(bytes((byte,)))
        got = stream.recv(4096)

    assert len(got) - 2 == int.from_bytes(got[:2], "big")


@pytest.mark.parametrize(
    ("name", "kind"), [(WEB, "A"), (SRV, "SRV"), ("nope.mesos", "A"), ("mesos", "SOA"), ("alias.mesos", "A")]
)
def test_tcp_says_what_udp_says(served_names: Conforming, name: str, kind: str) -> None:
    """7766/9210: the same data."""

    def told(seen: Seen) -> tuple[object, ...]:
        return seen.rcode, seen.flags, seen.data, seen.authority, sorted(map(str, seen.additional))

    udp, tcp = (ask_each(served_names, name, kind, tcp=tcp) for tcp in (False, True))
    assert {client: told(seen) for client, seen in udp.items()} == {client: told(seen) for client, seen in tcp.items()}


def test_idle_connections_are_closed(served_names: Conforming) -> None:
    """7766/9210: after the idle time, and not before."""
    with socket.create_connection(("127.0.0.1", served_names.port), timeout=60) as stream:
        begun_s = time.monotonic()
        stream.sendall(framed(query(WEB)))
        assert 1 == len(frames(stream, 1))
        assert b"" == stream.recv(1)

    assert time.monotonic() - begun_s >= IDLE_S - 0.5


def test_connections_of_one_client_are_limited(served_names: Conforming) -> None:
    """7766/9210: past 32 the one that is idle longest makes room; the newest is answered."""
    with ExitStack() as open_ones:
        streams = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", served_names.port), timeout=30))
            for _ in range(33)
        ]
        streams[-1].sendall(framed(query(WEB)))

        assert 1 == len(frames(streams[-1], 1))
        assert b"" == streams[0].recv(1)


def test_idle_time_is_told(served_names: Conforming) -> None:
    """7828: a client that asks over TCP hears how long it may be idle, in tenths of a second; over UDP nobody does."""
    text = run(require("dig"), "@127.0.0.1", "-p", str(served_names.port), WEB, "+tcp", "+keepalive")
    over_udp = able(Question(name=WEB, edns=0, options=((11, b""),)))[0].ask(
        served_names.port, Question(name=WEB, edns=0, options=((11, b""),))
    )

    assert f"TCP-KEEPALIVE: {IDLE_S} secs" in text.replace("TCP KEEPALIVE", "TCP-KEEPALIVE")
    assert () == over_udp.options


# --- 8482, 9619 -------------------------------------------------------------------------------------------------------


@asks("pod.marathon.mesos", "ANY")
def test_any_gets_one_set(seen: Seen) -> None:
    """8482: of the several types that are there one."""
    assert ("NOERROR", 1) == (seen.rcode, len({rr.kind for rr in seen.answer}))


def test_several_questions_are_refused(served_names: Conforming) -> None:
    """9619: QDCOUNT>1 is FORMERR; 0 is for those that ask for a cookie."""
    packet = query(WEB)
    two = ask_udp(served_names.port, packet[:5] + b"\2" + packet[6:] + packet[12:])
    none = ask_udp(served_names.port, packet[:4] + bytes(8))

    assert (1, 1) == (two[3] & 15, none[3] & 15)

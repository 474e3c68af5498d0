"""What of an upstream's reply reaches a client: what was asked for, and nothing said of our own names."""

import struct

import dnslib
import pytest
from dnslib import CNAME, NS, QTYPE, RR, SOA, A, DNSLabel

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Asked
from fairlead_dns.decisions.forward_cache import Policy
from fairlead_dns.decisions.forward_chain import Terms
from fairlead_dns.decisions.forward_own import OurNames
from fairlead_dns.decisions.forward_records import DNAME
from fairlead_dns.decisions.forward_wire import Reply, read_reply
from fairlead_dns.decisions.front import Front
from harness.forwarding import KEY, asked, at_once, fly, forwarding
from harness.names import query, rcode

EVIL = "6.6.6.6"


class Ours:
    """`mesos` and what is below it, with one address for `web.mesos`, from where the daemon has its handlers."""

    def reply(self, asked: Asked) -> bytes:
        found = asked.query.name == b"\3web\5mesos\0" and asked.query.kind == wire.A
        record = wire.record(wire.pointer(12), wire.A, 5, b"\x0a\0\0\1") if found else b""
        flags = wire.QR | wire.AA | asked.flags | (0 if found else wire.NXDOMAIN)
        return asked.packet[:2] + wire.header(flags, int(found)) + asked.query.question + record


def ours() -> OurNames:
    front = Front(lambda: 0.0)
    front.serve(b"\5mesos\0", Ours())
    return OurNames(front)


def a(owner: str, address: str = "192.0.2.1", ttl_s: int = 300) -> RR:
    return RR(owner, QTYPE.A, ttl=ttl_s, rdata=A(address))


def alias(owner: str, target: str) -> RR:
    return RR(owner, QTYPE.CNAME, ttl=300, rdata=CNAME(target))


def dname(owner: str, target: str) -> RR:
    data = b"".join(bytes((len(label),)) + label for label in DNSLabel(target).label) + b"\0"
    return RR(owner, DNAME, ttl=300, rdata=dnslib.RD(data))


def soa(owner: str) -> RR:
    return RR(owner, QTYPE.SOA, ttl=300, rdata=SOA("ns.example", "root.example", (1, 2, 3, 4, 60)))


def said(*answers: RR, beside: tuple[RR, ...] = (), extra: tuple[RR, ...] = (), code: int = 0) -> bytes:
    """To `www.example A`, compressed as dnslib does."""
    made = dnslib.DNSRecord.parse(query("www.example")).reply(ra=1, aa=0)
    made.header.rcode = code
    made.add_answer(*answers)
    made.add_auth(*beside)
    made.add_ar(*extra)
    return bytes(made.pack())


def taken(packet: bytes, **how: object) -> Reply:
    question = b"\3www\7example\0\0\1\0\1"
    return read_reply(packet, question, Terms(own=ours(), **how))  # type: ignore[arg-type]  # its own keywords


def owners(reply: dnslib.DNSRecord) -> list[str]:
    return [f"{rr.rname} {rr.rdata}" for rr in (*reply.rr, *reply.auth, *reply.ar)]


def given(packet: bytes) -> dnslib.DNSRecord:
    made = forwarding()
    made.own = ours()
    return fly(made, asked(), taken(packet))


def test_what_was_not_asked_for_reaches_nobody() -> None:
    """Addresses of our names and of others, servers for our zone, their glue."""
    lie = said(
        a("web.mesos", EVIL),
        a("www.example"),
        a("bank.example", EVIL),
        beside=(RR("mesos", QTYPE.NS, ttl=300, rdata=NS("evil.example")), soa("mesos")),
        extra=(a("evil.example", EVIL), a("web.mesos", EVIL)),
    )

    assert ["www.example. 192.0.2.1"] == owners(given(lie))


def test_a_chain_is_kept_whole_and_readable() -> None:
    """Aliases, also behind records that are dropped and that their pointers led into."""
    lie = said(a("cdn.other", EVIL), alias("www.example", "a.cdn.example"), alias("a.cdn.example", "b.cdn.example"),
               a("b.cdn.example"), a("b.cdn.example", "192.0.2.2"))  # fmt: skip

    assert [
        "www.example. a.cdn.example.",
        "a.cdn.example. b.cdn.example.",
        "b.cdn.example. 192.0.2.1",
        "b.cdn.example. 192.0.2.2",
    ] == owners(given(lie))


@pytest.mark.parametrize("with_alias", [True, False])
def test_a_dname_leads_on(with_alias: bool) -> None:
    """With the alias made of it, and without."""
    made = (alias("www.example", "www.other"),) if with_alias else ()
    reply = taken(said(dname("example", "other"), *made, a("www.other")))

    assert ((2 + with_alias, 0, 0), True) == (reply.counts, reply.useful)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("web.mesos", ("NOERROR", ["www.example. web.mesos.", "web.mesos. 10.0.0.1"])),
        ("no.mesos", ("NXDOMAIN", ["www.example. no.mesos."])),
    ],
)
def test_an_alias_into_our_zone_is_followed_in_our_own_data(target: str, expected: object) -> None:
    """At once and from the cache; the upstream's address is not given."""
    made = forwarding()
    made.own = ours()
    first = fly(made, asked(), taken(said(alias("www.example", target), a(target, EVIL))))

    assert [expected, expected] == [(rcode(r), owners(r)) for r in (first, at_once(made, asked(), 1.0))]


@pytest.mark.parametrize("code", [0, 3])
def test_an_answer_for_another_name_alone_is_none(code: int) -> None:
    """The next upstream is asked."""
    assert not taken(said(a("web.mesos", EVIL), code=code)).useful


def test_the_soa_of_nothing_there_is_kept_when_it_is_of_the_name() -> None:
    """Of a zone above it; another zone's is dropped, and the answer not kept."""
    true, lie = taken(said(beside=(soa("example"),), code=3)), taken(said(beside=(soa("mesos"),), code=3))

    assert [((0, 1, 0), 60), ((0, 0, 0), None)] == [(r.counts, r.keep_s) for r in (true, lie)]


def test_aliases_in_a_circle_end() -> None:
    """Each name is passed once."""
    assert (2, 0, 0) == taken(said(alias("www.example", "a.example"), alias("a.example", "www.example"))).counts


@pytest.mark.parametrize(("ttl_s", "expected"), [(2**31, 0), (2**32 - 1, 0), (900_000, 86_400), (300, 300)])
def test_no_ttl_goes_out_that_is_too_long(ttl_s: int, expected: int) -> None:
    """Also the first time; at 2^31 and above it is none (RFC 2181, 8)."""
    packet = said(a("www.example", ttl_s=300)).replace(struct.pack("!I", 300), struct.pack("!I", ttl_s))
    made = forwarding(policy=Policy(longest_s=86_400))
    reply = fly(made, asked(), read_reply(packet, b"\3www\7example\0\0\1\0\1", made.terms(KEY)))

    assert expected == reply.rr[0].ttl

"""RFC 8906, section 8, and what ISC's genreport adds, against a real process: one test a point, once for each client that
can ask it. (`tests/dns/test_rfc8906.py` has the same over every transport, without a process.)
"""

import pytest

from harness.conforming import COOKIES, Conforming, ask_each, asks
from harness.dns_clients import Question, Seen, able, run
from harness.names import ask_udp, query
from harness.secondaries import ALGORITHM
from harness.servers import require

pytestmark = [pytest.mark.needs("dig", "kdig", "drill")]
APEX = "mesos"
NSID, EXPIRE, COOKIE, SUBNET = (3, b""), (9, b""), (10, b"12345678"), (8, b"\0\1\x18\0\xc0\0\2")
AGREED = frozenset({"qr", "aa"})


def is_soa(seen: Seen, *more: str) -> bool:
    """The zone's SOA as a complete, plain answer; `more`: header bits that must be there beside QR and AA."""
    return (seen.rcode, seen.flags, [rr.kind for rr in seen.answer], seen.odd_flags) == (
        "NOERROR",
        AGREED | set(more),
        ["SOA"],
        False,
    )


def is_bad_version(seen: Seen) -> bool:
    """BADVERS with our version in the OPT, no data, nothing echoed."""
    return (seen.rcode, seen.edns, seen.answer, seen.authority, seen.options, seen.odd_flags) == (
        "BADVERS",
        0,
        (),
        (),
        (),
        False,
    )


@asks(APEX, "SOA")
def test_the_zone_is_configured(seen: Seen) -> None:
    """4.3, zone configured (genreport: dns): SOA with authority, no OPT where none was sent."""
    assert is_soa(seen)
    assert seen.edns is None


@asks(APEX, "TYPE1000")
def test_an_unknown_type_is_nodata(seen: Seen) -> None:
    """4.3, unknown type (TYPE1000): NOERROR without an answer, with the SOA."""
    assert ("NOERROR", (), ["SOA"]) == (seen.rcode, seen.answer, [rr.kind for rr in seen.authority])


@asks(APEX, "TYPE666")
def test_type_666(seen: Seen) -> None:
    """4.3, genreport type666: the same."""
    assert ("NOERROR", (), ["SOA"]) == (seen.rcode, seen.answer, [rr.kind for rr in seen.authority])


@asks(APEX, "SOA", cd=True)
def test_checking_disabled(seen: Seen) -> None:
    """4.3, CD=1 (genreport: cd): answered as without."""
    assert is_soa(seen)


@asks(APEX, "SOA", ad=True)
def test_authentic_data(seen: Seen) -> None:
    """4.3, AD=1 (genreport: ad): not claimed in the reply."""
    assert is_soa(seen)


@asks(APEX, "SOA", z=True)
def test_the_reserved_bit(seen: Seen) -> None:
    """4.3, reserved Z bit (genreport: zflag): 0 in the reply."""
    assert is_soa(seen)


@asks(APEX, "SOA", rd=True)
def test_recursion_desired(seen: Seen) -> None:
    """4.3, RD=1 (genreport: rd): copied; recursion is not offered."""
    assert is_soa(seen, "rd")


@asks(APEX, "SOA", aa=True)
def test_authoritative_answer_in_a_query(seen: Seen) -> None:
    """4.3, genreport aa: a query's AA means nothing."""
    assert is_soa(seen)


@asks(APEX, "SOA", ra=True)
def test_recursion_available_in_a_query(seen: Seen) -> None:
    """4.3, genreport ra: a query's RA means nothing."""
    assert is_soa(seen)


@asks(APEX, "SOA", tc=True)
def test_truncation_in_a_query(seen: Seen) -> None:
    """4.3, genreport tc: a query's TC does not come back."""
    assert is_soa(seen)


@asks(APEX, "SOA", opcode=15)
def test_an_unknown_opcode(seen: Seen) -> None:
    """4.3, unknown opcode 15 (genreport: opcode): NOTIMP, a bare header."""
    assert ("NOTIMP", (0, 0, 0, 0)) == (seen.rcode, seen.counts)


@asks(APEX, "SOA", opcode=15, rd=True, cd=True, ad=True)
def test_an_unknown_opcode_with_flags(seen: Seen) -> None:
    """4.3, genreport opcodeflg: the same, with no odd bit in it."""
    assert ("NOTIMP", (0, 0, 0, 0), False) == (seen.rcode, seen.counts, seen.odd_flags)


@asks(APEX, "SOA", tcp=True)
def test_tcp(seen: Seen) -> None:
    """4.3, TCP: the same answer."""
    assert is_soa(seen)


@asks(APEX, "SOA", edns=0)
def test_plain_edns(seen: Seen) -> None:
    """4.3, plain EDNS: OPT in, OPT out."""
    assert is_soa(seen)
    assert (0, 1232, ()) == (seen.edns, seen.size, seen.options)


@asks(APEX, "SOA", edns=0, tcp=True)
def test_edns_over_tcp(seen: Seen) -> None:
    """4.3, genreport ednstcp: the same over TCP."""
    assert is_soa(seen)
    assert 0 == seen.edns


@asks(APEX, "SOA", edns=1)
def test_edns_version_1(seen: Seen) -> None:
    """4.3, EDNS version 1 (genreport: edns1): BADVERS, version 0."""
    assert is_bad_version(seen)


@asks(APEX, "SOA", edns=0, options=((100, b""),))
def test_an_unknown_option(seen: Seen) -> None:
    """4.3, unknown option 100 (genreport: ednsopt): passed over and not echoed."""
    assert is_soa(seen)
    assert () == seen.options


@asks(APEX, "SOA", edns=0, edns_flags=0x40)
def test_an_unknown_edns_flag(seen: Seen) -> None:
    """4.3, unknown EDNS flag 0x40: passed over and not echoed."""
    assert is_soa(seen)


@asks(APEX, "SOA", edns=0, edns_flags=0x80)
def test_another_unknown_edns_flag(seen: Seen) -> None:
    """4.3, genreport ednsflags (0x80): the same."""
    assert is_soa(seen)


@asks(APEX, "SOA", edns=1, edns_flags=0x40)
def test_version_1_with_an_unknown_flag(seen: Seen) -> None:
    """4.3, version 1 + unknown flag: BADVERS, the flag gone."""
    assert is_bad_version(seen)


@asks(APEX, "SOA", edns=1, options=((100, b""),))
def test_version_1_with_an_unknown_option(seen: Seen) -> None:
    """4.3, version 1 + unknown option (genreport: edns1opt): BADVERS, no option."""
    assert is_bad_version(seen)


@asks("big.marathon.mesos", "A", edns=0, size=512)
def test_a_truncated_reply_carries_opt(seen: Seen) -> None:
    """4.3, @512 (genreport: edns@512): TC, OPT, at most 512 bytes."""
    assert "tc" in seen.flags
    assert (0, True) == (seen.edns, 0 < len(seen.answer) < 32)


@asks(APEX, "SOA", edns=0, do=True)
def test_dnssec_ok(seen: Seen) -> None:
    """4.3, DO=1 (genreport: do): echoed, signed or not."""
    assert is_soa(seen)
    assert seen.do


@asks(APEX, "SOA", edns=0, do=True, cd=True)
def test_dnssec_ok_and_checking_disabled(seen: Seen) -> None:
    """4.3, genreport docd: the same."""
    assert is_soa(seen)
    assert seen.do


@asks(APEX, "SOA", edns=1, do=True)
def test_version_1_with_dnssec_ok(seen: Seen) -> None:
    """4.3, version 1 + DO (genreport: edns1do): BADVERS."""
    assert is_bad_version(seen)


@asks(APEX, "SOA", edns=0, options=(NSID, COOKIE, EXPIRE, SUBNET))
def test_several_options_at_once(seen: Seen) -> None:
    """4.3, several options at once (genreport: optlist): those that are served come back, and no other."""
    assert is_soa(seen)
    assert ["COOKIE", "NSID"] == sorted(seen.options)


@asks(APEX, "SOA", edns=0, options=(NSID,))
def test_nsid(seen: Seen) -> None:
    """4.3, genreport ednsnsid: told, for it is set."""
    assert is_soa(seen)
    assert ("NSID",) == seen.options
    assert "ns-1" in seen.text or "6e 73 2d 31" in seen.text


@asks(APEX, "SOA", edns=0, options=(COOKIE,))
def test_cookie(seen: Seen) -> None:
    """4.3, genreport ednscookie: a server cookie comes back."""
    assert is_soa(seen)
    assert ("COOKIE",) == seen.options


@asks(APEX, "SOA", edns=0, options=(EXPIRE,))
def test_expire(seen: Seen) -> None:
    """4.3, genreport ednsexpire: passed over, for a primary's zone does not expire."""
    assert is_soa(seen)
    assert () == seen.options


@asks(APEX, "SOA", edns=0, options=(SUBNET,))
def test_client_subnet(seen: Seen) -> None:
    """4.3, genreport ednssubnet: passed over and not echoed."""
    assert is_soa(seen)
    assert () == seen.options


@pytest.mark.parametrize("option", [NSID, COOKIE, EXPIRE, SUBNET], ids=["nsid", "cookie", "expire", "subnet"])
def test_version_1_with_known_options(served_names: Conforming, option: tuple[int, bytes]) -> None:
    """4.3, genreport edns1nsid, edns1cookie, edns1expire, edns1subnet: BADVERS, no option back."""
    seen = ask_each(served_names, APEX, "SOA", edns=1, options=(option,))

    assert dict.fromkeys(("dig", "kdig", "dnspython"), True) == {n: is_bad_version(s) for n, s in seen.items()}


def test_a_server_as_of_bind_11(served_names: Conforming) -> None:
    """4.3, genreport bind11: what BIND 9.11 sends (DO, cookie, RD off)."""
    asked = Question(name=APEX, kind="SOA", edns=0, size=512, do=True, options=(COOKIE,))

    assert [True] * 3 == [is_soa(each.ask(served_names.port, asked)) for each in able(asked)]


def test_dig_of_bind_11(served_names: Conforming) -> None:
    """4.3, genreport dig11: what dig 9.11 sends (AD, RD, cookie, 4096)."""
    asked = Question(name=APEX, kind="SOA", edns=0, size=4096, ad=True, rd=True, options=(COOKIE,))
    seen = [each.ask(served_names.port, asked) for each in able(asked)]

    assert [True] * 3 == [is_soa(each, "rd") for each in seen]


def test_a_well_known_key(served_names: Conforming) -> None:
    """4.3, genreport dnswkk: a TSIG with a key nobody gave us is BADKEY, unsigned, without data (RFC 8945)."""
    key = f"{ALGORITHM}:.:AAAAAAAAAAAAAAAAAAAAAA=="
    text = run(require("dig"), "@127.0.0.1", "-p", str(served_names.port), APEX, "SOA", "-y", key, "+tries=1")

    assert "status: NOTAUTH" in text
    assert "BADKEY" in text
    assert "ANSWER: 0" in text


PROBED = (
    "A NS MD MF CNAME MB MG MR NULL WKS PTR HINFO MINFO MX TXT RP AFSDB X25 ISDN RT NSAP NSAP-PTR SIG KEY PX GPOS "
    "AAAA LOC NXT SRV NAPTR KX CERT A6 DNAME APL DS SSHFP IPSECKEY RRSIG NSEC DNSKEY DHCID NSEC3 NSEC3PARAM TLSA "
    "SMIMEA HIP CDS CDNSKEY OPENPGPKEY SPF NID L32 L64 LP EUI48 EUI64 URI CAA AVC DOA DLV TYPE1000 TYPE65535 "
    "TYPE249 TYPE31 TYPE100 TYPE64 TYPE65 TYPE62 TYPE63 TYPE66"
)


def test_type_probes(served_names: Conforming) -> None:
    """4.3, genreport's type probes, all by one dig: every type of a name that has only A is NOERROR, with SOA but for A."""
    how = ["@127.0.0.1", "-p", str(served_names.port), "+noall", "+comments", "+authority", "+time=15", "+tries=1"]
    text = run(require("dig"), *how, *(word for kind in PROBED.split() for word in ("web.marathon.mesos", kind)))
    replies = [part for part in text.split(";; Got answer:") if "->>HEADER<<-" in part]

    assert len(PROBED.split()) == len(replies)
    assert {"NOERROR"} == {reply.partition("status: ")[2].partition(",")[0] for reply in replies}
    assert [True] * (len(PROBED.split()) - 1) == ["\tSOA\t" in reply for reply in replies[1:]]


def test_nothing_is_asked_with_no_question(served_names: Conforming) -> None:
    """4.3 with RFC 9619: QDCOUNT=0 is FORMERR, but with a cookie it gets one (RFC 7873, 5.4)."""
    empty = query("x")[:4] + bytes(8)
    cookie = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08" + bytes.fromhex(COOKIES)[:8]
    bare, kept = (ask_udp(served_names.port, packet) for packet in (empty, empty[:11] + b"\1" + cookie))

    assert (1, 0) == (bare[3] & 15, kept[3] & 15)
    assert 12 + 11 + 4 + 24 == len(kept)

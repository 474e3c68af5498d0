"""RFC 8906, section 8: what every authoritative server must answer, one test each, and ISC's additions."""

import pytest

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Transport
from harness.names import ask, data, member, names, opt, opt_of, option, query, raw_reply, rcode

ANSWERS = names(member()).answers
APEX = "mesos"
NSID, COOKIE, EXPIRE, SUBNET = option(3), option(10, b"12345678"), option(9), option(8, b"\0\1\0\0")


def edns_options(record) -> list[int]:
    return [o.code for o in record.rdata]


@pytest.fixture(autouse=True, params=list(Transport), ids=lambda transport: transport.value)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Transport:
    """Every test of this file runs over each of them."""
    monkeypatch.setattr("harness.names.ASKED_BY", request.param)
    return request.param


def test_8_1_1_the_zone_is_configured() -> None:
    """SOA with authority."""
    reply = ask(ANSWERS, APEX, "SOA", flags=0)

    assert ("NOERROR", 1, 0, 1) == (rcode(reply), reply.header.aa, reply.header.ra, len(reply.rr))


def test_8_1_2_unknown_type() -> None:
    """TYPE1000 at the apex is NODATA."""
    reply = ask(ANSWERS, APEX, 1000, flags=0)

    assert ("NOERROR", 0, 1) == (rcode(reply), len(reply.rr), len(reply.auth))


@pytest.mark.parametrize(("flags", "what"), [(0x0010, "cd"), (0x0020, "ad"), (0x0040, "z"), (0x0200, "tc")])
def test_8_1_3_header_bits_are_cleared(flags: int, what: str) -> None:
    """CD, AD, the reserved bit and TC in a query change nothing and do not come back."""
    raw = raw_reply(ANSWERS, query(APEX, "SOA", flags=flags))

    assert raw is not None
    assert (0, 1) == ((raw[2] << 8 | raw[3]) & flags, raw[7]), what


def test_8_1_3_4_rd_comes_back() -> None:
    """Recursion desired is copied, recursion is not offered."""
    reply = ask(ANSWERS, APEX, "SOA", flags=0x0100)

    assert (1, 0, 1) == (reply.header.rd, reply.header.ra, len(reply.rr))


@pytest.mark.parametrize("opcode", [1, 2, 3, 6, 15])
def test_8_1_4_unknown_opcodes(opcode: int) -> None:
    """NOTIMP with a bare header, opcode kept."""
    raw = raw_reply(ANSWERS, b"\1\2" + (opcode << 11).to_bytes(2, "big") + bytes(8))

    assert raw is not None
    assert (12, wire.NOTIMP, opcode, 0x80) == (len(raw), raw[3] & 15, raw[2] >> 3 & 15, raw[2] & 0x80)


def test_8_2_1_plain_edns() -> None:
    """OPT in, OPT out, version 0."""
    reply = ask(ANSWERS, APEX, "SOA", opt=opt())

    assert (1, 0, 1232) == (len(reply.rr), opt_of(reply).edns_ver, opt_of(reply).rclass)


def bad_version(**changes: object) -> None:
    reply = ask(ANSWERS, APEX, "SOA", opt=opt(version=1, **changes))
    record = opt_of(reply)

    assert (0, 1, 0, 0, []) == (
        reply.header.rcode,
        record.edns_rcode,
        record.edns_ver,
        len(reply.rr),
        edns_options(record),
    )


def test_8_2_2_edns_version_1() -> None:
    """BADVERS, and the version we know."""
    bad_version()


def test_8_2_3_unknown_option() -> None:
    """Option 100 is ignored and not echoed."""
    reply = ask(ANSWERS, APEX, "SOA", opt=opt(options=option(100)))

    assert (1, []) == (len(reply.rr), edns_options(opt_of(reply)))


@pytest.mark.parametrize("flag", [0x40, 0x80])
def test_8_2_4_unknown_flag(flag: int) -> None:
    """Unknown EDNS flags are ignored and not echoed."""
    reply = ask(ANSWERS, APEX, "SOA", opt=opt(flags=flag))

    assert (1, 0) == (len(reply.rr), opt_of(reply).ttl & 0xFFFF)


@pytest.mark.parametrize("flags", [0x40, 0x80, 0x8000])
def test_8_2_5_version_1_with_flags(flags: int) -> None:
    """Still BADVERS; an unknown flag does not come back."""
    bad_version(flags=flags)
    record = opt_of(ask(ANSWERS, APEX, "SOA", opt=opt(version=1, flags=flags)))

    assert 0 == record.ttl & 0x7FFF


@pytest.mark.parametrize("options", [option(100), NSID, COOKIE, EXPIRE, SUBNET])
def test_8_2_6_version_1_with_options(options: bytes) -> None:
    """Still BADVERS, no option back."""
    bad_version(options=options)


def test_8_2_7_truncated_replies_carry_opt(transport: Transport) -> None:
    """@512 with more than fits: TC and OPT; whole over everything but UDP."""
    many = names(*(member(n) for n in range(60))).answers

    reply = ask(many, "web.marathon.mesos", opt=opt(512))

    assert (int(transport is Transport.UDP), True) == (reply.header.tc, opt_of(reply) is not None)


def test_8_2_8_do_comes_back() -> None:
    """DO is echoed, signed or not."""
    reply = ask(ANSWERS, APEX, "SOA", opt=opt(flags=0x8000))

    assert (1, 0x8000) == (len(reply.rr), opt_of(reply).ttl & 0xFFFF)


@pytest.mark.parametrize("options", [NSID, COOKIE, EXPIRE, SUBNET, NSID + COOKIE + EXPIRE + SUBNET])
def test_8_2_10_known_options_at_once(options: bytes) -> None:
    """What we do not serve is ignored, and the answer is whole."""
    reply = ask(ANSWERS, APEX, "SOA", opt=opt(options=options))

    assert ("NOERROR", 1, []) == (rcode(reply), len(reply.rr), edns_options(opt_of(reply)))


def test_two_opts_are_formerr_with_opt() -> None:
    """RFC 6891, 6.1.1."""
    twice = query(APEX, "SOA", opt=opt() + opt())
    raw = raw_reply(ANSWERS, twice[:11] + b"\2" + twice[12:])

    assert raw is not None
    assert (wire.FORMERR, 1) == (raw[3] & 15, raw[11])


@pytest.mark.parametrize("section", [7, 9])
def test_an_opt_elsewhere_than_in_the_additional_section_is_formerr(section: int) -> None:
    """RFC 6891, 6.1.1: not as an answer, not as an authority."""
    packet = bytearray(query(APEX, "SOA", opt=opt()))
    packet[section], packet[11] = 1, 0
    raw = raw_reply(ANSWERS, bytes(packet))

    assert raw is not None
    assert (wire.FORMERR, bytes(8)) == (raw[3] & 15, raw[4:12])


def test_several_questions_are_formerr() -> None:
    """RFC 9619."""
    raw = raw_reply(ANSWERS, query(APEX)[:5] + b"\2" + query(APEX)[6:] + query(APEX)[12:])

    assert raw is not None
    assert wire.FORMERR == raw[3] & 15


def test_every_type_at_the_apex_is_nodata() -> None:
    """No type makes the server refuse, fail or fall silent (ISC's type probes)."""
    for kind in set(range(1, 260)) - {1, 2, 6, 41, 250, 251, 252, 255}:
        reply = ask(ANSWERS, APEX, kind, opt=opt())

        assert ("NOERROR", 0, "mesos.") == (rcode(reply), len(reply.rr), str(reply.auth[0].rname)), kind


@pytest.mark.parametrize("name", ["version.bind", "id.server", "hostname.bind"])
def test_server_names_are_hidden(name: str) -> None:
    """CH TXT probes are refused."""
    assert "REFUSED" == rcode(ask(ANSWERS, name, "TXT", klass=3))


def test_a_tsig_of_an_unknown_key_is_not_signed_back() -> None:
    """dnswkk: the record is skipped, the answer is unsigned."""
    tsig = b"\3key\0" + b"\0\xfa\0\xff\0\0\0\0\0\3abc"

    reply = ask(ANSWERS, "web.marathon.mesos", opt=tsig)

    assert (["10.0.0.1"], []) == (data(reply), reply.ar)

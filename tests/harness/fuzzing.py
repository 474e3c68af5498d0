"""A front with everything switched on, and what must hold of its reply to any bytes whatever."""

import dns.exception
import dns.flags
import dns.message
import dns.opcode

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import LOCAL, Acl, Views, parse_networks
from fairlead_dns.decisions.asked import Asked, Came, Handled, Transport, error
from fairlead_dns.decisions.cookies import Cookies
from fairlead_dns.decisions.front import Front
from fairlead_dns.decisions.identity import Identity, told
from fairlead_dns.decisions.rate import Kind, Limiter, Rates
from fairlead_dns.decisions.tsig import KeyRing, parse_keys
from harness.names import member, names

NOW_S = 1_700_000_000
KEY_FILE = 'key "xfr.key" { algorithm hmac-sha256; secret "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="; };'
CLIENTS = ("127.0.0.1", "10.0.0.1", "192.0.2.1", "2001:db8::1", "")
BARE = frozenset({wire.FORMERR, wire.NOTIMP})


class Refuses:
    """Stands in the forwarder's place."""

    def reply(self, asked: Asked) -> Handled:
        return error(asked, wire.SERVFAIL)


def everything() -> Front:
    """ACL, TSIG, cookies, NSID, CHAOS names, a rate limit (report only, so that every reply is seen), recursion."""
    made = Front(
        lambda: NOW_S,
        views=Views(query=Acl(parse_networks(("10.0.0.0/8", "127.0.0.0/8", "::/0"))), recursion=LOCAL),
        keys=KeyRing(parse_keys(KEY_FILE)),
        cookies=Cookies((b"0123456789abcdef",)),
        identity=Identity(nsid=b"dns-1", chaos=told("fairlead", "dns-1")),
        limiter=Limiter(Rates(per_second=dict.fromkeys(Kind, 5), report_only=True)),
    )
    made.serve(b"\5mesos\0", names(*(member(n) for n in range(30))).answers)
    made.serve(b"\0", Refuses(), recursive=True, notify=True)
    return made


def holds(front: Front, packet: bytes, came: Came) -> bytes | None:
    """Raises AssertionError where the reply breaks a rule; returns it."""
    reply = front.reply(packet, came)
    if reply is None:
        assert len(packet) < wire.HEADER_BYTES or packet[2] & 0x80, "only junk and replies get silence"
        return None
    assert isinstance(reply, bytes)
    assert packet[:2] == reply[:2], "the id comes back"
    assert reply[2] & 0x80, "it is a reply"
    assert (packet[2] ^ reply[2]) & 0x78 == 0, "the opcode comes back"
    assert len(reply) <= (_offered(packet) if came.transport is Transport.UDP else 65535), "no longer than is taken"
    if len(reply) == wire.HEADER_BYTES and reply[3] & 15 in BARE:
        return reply
    _read_by_another(packet, reply)
    return reply


def _offered(packet: bytes) -> int:
    try:
        edns = wire.parse_query(packet).edns
    except wire.MalformedError:
        return wire.HEADER_BYTES
    return 512 if edns is None else max(512, min(1232, edns.payload_bytes))


def _read_by_another(packet: bytes, reply: bytes) -> None:
    query = wire.parse_query(packet)
    plain = reply[:2] + bytes((reply[2] & 0x87,)) + reply[3:]  # an UPDATE's question has rules of its own there
    message = dns.message.from_wire(plain, keyring=False)
    assert query.question == reply[12 : 12 + len(query.question)], "the question comes back as it was asked"
    assert (query.edns is not None) == (message.edns >= 0), "OPT in, OPT out"
    assert not message.flags & (dns.flags.AD | dns.flags.CD | 0x40), "bits that are not ours stay clear"


def agrees(packet: bytes) -> None:
    """Raises AssertionError where dnspython and we read a query differently."""
    if len(packet) < wire.HEADER_BYTES:
        return
    try:
        ours = wire.parse_query(packet)
    except wire.MalformedError:
        ours = None
    try:
        theirs = dns.message.from_wire(packet, question_only=True)
    except (dns.exception.DNSException, ValueError, IndexError):
        theirs = None
    if ours is None or theirs is None or len(theirs.question) != 1:
        return
    (asked,) = theirs.question
    assert (ours.kind, ours.klass) == (int(asked.rdtype), int(asked.rdclass))
    assert ours.name == asked.name.canonicalize().to_wire()

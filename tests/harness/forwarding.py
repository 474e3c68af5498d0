"""For tests of the forwarder's decisions: questions, replies, flights, without a socket."""

from typing import Any

import dnslib

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Asked as Query
from fairlead_dns.decisions.asked import Came, Transport, View
from fairlead_dns.decisions.forward import Forwarding, Limits, Wait, Waiter
from fairlead_dns.decisions.forward_cache import Cache, Key, Policy
from fairlead_dns.decisions.forward_upstreams import (
    Group,
    Place,
    Upstream,
    Zones,
)
from fairlead_dns.decisions.forward_wire import Reply, read_reply
from harness.names import query
from harness.upstreams import answer

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

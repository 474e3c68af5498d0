"""What every transport, the front and the handlers behind it say to each other.

A transport makes a `Came` of how a packet came and gives both to `Front.reply` (front.py). The front does what is the
same for all: acceptance, access, TSIG, cookies, rate. Then it hands an `Asked` to the `Handler` of the longest
matching apex, and finishes what that returns.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from fairlead_dns.decisions import wire

PLAIN_BYTES = 512
EDNS_BYTES = 1232  # no fragment on any path (DNS flag day 2020), and little to amplify
BUCKET_BYTES = 64  # offered sizes are rounded down to it, so that clients share prebuilt answers
STREAM_BYTES = 65535
EDE_STALE, EDE_NOT_READY, EDE_PROHIBITED, EDE_STALE_NXDOMAIN, EDE_NOT_AUTHORITATIVE = 3, 14, 18, 19, 20
EDE_NO_REACHABLE_AUTHORITY, EDE_NETWORK_ERROR = 22, 23

Next = Callable[[], bytes]
"""Gives the next prebuilt reply, all but its id."""


class Transport(Enum):
    UDP = "udp"
    TCP = "tcp"
    DOT = "dot"
    DOH = "doh"

    @property
    def streams(self) -> bool:
        """Whether one query may have several messages as its reply (AXFR)."""
        return self in {Transport.TCP, Transport.DOT}

    @property
    def is_private(self) -> bool:
        return self in {Transport.DOT, Transport.DOH}


@dataclass(frozen=True, slots=True)
class Came:
    """How a packet came. Addresses are numeric; `client` is who asked, not the proxy it came through."""

    transport: Transport
    client: str
    local: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What clients that get the same answers have in common; there are few (bounded by the classifier's keys).

    A handler may put whole prebuilt answers into `fast`, under a packet less its id: the UDP loop then gives them
    without asking anyone. It takes them out again itself, tolerating that they are gone (the front clears all).
    """

    query: bool = True
    recursion: bool = False
    denied: frozenset[bytes] = frozenset()
    """Of the zones that are not for everyone those that the client may not ask for."""
    ruled: frozenset[bytes] = frozenset()
    """All zones that are not for everyone, where some are `denied`."""
    key: Hashable = None
    """The classifier's word for where the client is: locality, subset, tenant."""
    fast: dict[bytes, Next] = field(default_factory=dict)

    def closed(self, name: bytes) -> bytes:
        """The zone, of several the longest, by whose rule these clients get nothing of the name; b"": they may have it.

        Whoever answers asks it of each name that an answer leads to: aliases and what goes along stop there.
        """
        while self.denied:
            if name in self.ruled:
                return name if name in self.denied else b""
            if len(name) == 1:
                break
            name = wire.parent(name)
        return b""


@dataclass(frozen=True, slots=True)
class Asked:
    """One accepted question. Its `query` has one question, of class IN, EDNS version 0 or none."""

    packet: bytes
    """As it came. Its opcode may be QUERY or NOTIFY."""
    query: wire.Query
    came: Came
    view: View
    flags: int
    """The bits that go into the reply beside QR, AA, TC and the code: opcode, RD, and RA when recursion is open to it."""
    room: int
    """Most bytes of a reply, what the front will add (cookie, NSID, TSIG) already taken off."""
    key: bytes | None = None
    """The TSIG key it was signed with, verified, in wire form. None: unsigned."""

    @property
    def opcode(self) -> int:
        return self.packet[2] >> 3 & 15

    @property
    def repeats(self) -> bool:
        """Whether the same packet will come again, so that it is worth a place in `view.fast`."""
        return (
            self.came.transport is Transport.UDP
            and self.key is None
            and (self.query.edns is None or self.query.edns.plain)
            and self.query.question[:-4] == self.query.name
        )


Handled = bytes | Awaitable[bytes | None] | Iterator[bytes] | None
"""A whole reply; or one to wait for, best a plain future; or messages pulled one by one as the client reads them
(only where `transport.streams`); or silence. An awaitable that raises, or gives None, is silence too."""


class Handler(Protocol):
    """Answers for everything at and below an apex.

    A reply carries the packet's id and the question as asked; an OPT exactly when the query has one, as the last
    record, without the front's options (NSID, cookie, keepalive, padding); no TSIG. Never raises, whatever the bytes.
    """

    def reply(self, asked: Asked) -> Handled: ...


def error(asked: Asked, rcode: int, *, ede: int | None = None) -> bytes:
    """A reply without records, with the OPT and the extended error if the client speaks EDNS."""
    return failure(asked.packet, asked.query, asked.flags, rcode, ede=ede)


def failure(packet: bytes, query: wire.Query, flags: int, rcode: int, *, ede: int | None = None) -> bytes:
    """As `error`, of the parts; for queries that are not accepted."""
    opt = b""
    if query.edns is not None:
        opt = wire.opt_record(EDNS_BYTES, extended_rcode=rcode >> 4, do=query.edns.do, ede=ede)
    counts = wire.header(wire.QR | flags | rcode & 15, additional=bool(opt), questions=bool(query.question))
    return packet[:2] + counts + query.question + opt


def room_for(edns: wire.Edns | None) -> int:
    """What a datagram may hold for this client."""
    if edns is None:
        return PLAIN_BYTES
    if edns.payload_bytes >= EDNS_BYTES:
        return EDNS_BYTES
    return max(PLAIN_BYTES, edns.payload_bytes // BUCKET_BYTES * BUCKET_BYTES)

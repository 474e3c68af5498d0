"""The front: the one way every packet takes, whatever transport it came by.

    packet, Came -> acceptance -> access -> TSIG -> cookie -> handler of the longest apex -> options, signature, rate

To plug in: `front.serve(apex, handler)` with an object that has `reply(asked: Asked) -> bytes | awaitable | iterator |
None` (see asked.Handler). The handler of the root is the forwarder. A transport calls `front.reply(packet, came)` and
gets a whole reply, a `Waiting` to finish later and out of order, a `Stream` to pull messages from, or None for silence.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import Views
from fairlead_dns.decisions.asked import (
    EDE_NO_REACHABLE_AUTHORITY,
    EDE_NOT_AUTHORITATIVE,
    EDE_PROHIBITED,
    STREAM_BYTES,
    Asked,
    Came,
    Handled,
    Handler,
    Transport,
    error,
    failure,
    room_for,
)

ROOT = b"\0"
ACCEPTED = frozenset({wire.QUERY, wire.NOTIFY, wire.UPDATE})


class Signed(Protocol):
    """A checked TSIG. `error` 0: it is good. `room`: bytes its own record will take in each reply."""

    key: bytes
    error: int
    room: int

    def sign(self, reply: bytes) -> bytes:
        """The reply with its TSIG; of a failed check, the one that tells the client so. In order, for a stream."""


class Keys(Protocol):
    """Raises nothing: what cannot be read is a failed check."""

    def check(self, packet: bytes, tsig_at: int, now_s: float) -> Signed: ...


@dataclass(frozen=True, slots=True)
class Route:
    """`recursive`: only for clients that recursion is open to. `notify`: takes NOTIFY messages too."""

    handler: Handler
    recursive: bool = False
    notify: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Finish:
    """What a handler's reply still needs."""

    options: bytes
    signed: Signed | None

    def __call__(self, reply: bytes) -> bytes:
        if self.options:
            reply = wire.with_options(reply, self.options)
        return reply if self.signed is None else self.signed.sign(reply)


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A reply that is not there yet. `finish(what the awaitable gave)` is what goes out; None is silence.

    `failed()` goes out when the awaitable raised: SERVFAIL.
    """

    awaitable: Awaitable[bytes | None]
    finish: Callable[[bytes | None], bytes | None]
    failed: Callable[[], bytes | None]


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Messages to send in order, pulled no faster than the client reads them."""

    messages: Iterator[bytes]


Replied = bytes | Waiting | Stream | None


@dataclass(slots=True)
class Front:
    """Owned by one task. `clock` gives Unix time in seconds."""

    clock: Callable[[], float]
    views: Views = field(default_factory=Views)
    keys: Keys | None = None
    """None: TSIG records are passed over and replies unsigned."""
    routes: dict[bytes, Route] = field(default_factory=dict)

    def serve(self, apex: bytes, handler: Handler, *, recursive: bool = False, notify: bool = False) -> None:
        """From now on `handler` answers for the folded wire name `apex` and what is below it, but for longer apexes."""
        self.routes[apex] = Route(handler, recursive, notify)
        self.views.clear_fast()

    def withdraw(self, apex: bytes) -> None:
        self.routes.pop(apex, None)
        self.views.clear_fast()

    def reply(self, packet: bytes, came: Came) -> Replied:
        """None for what deserves silence: junk under 12 bytes, and replies. Never raises, whatever the bytes."""
        if len(packet) < wire.HEADER_BYTES:
            return None
        flags = packet[2] << 8 | packet[3]
        if flags & wire.QR:
            return None
        if packet[2] >> 3 & 15 not in ACCEPTED:
            return _bare(packet, flags, wire.NOTIMP)
        try:
            query = wire.parse_query(packet)
        except wire.MalformedError:
            return _bare(packet, flags, wire.FORMERR)
        view = self.views.of(came.client)
        kept = flags & (wire.OPCODE_MASK | wire.RD) | (wire.RA if view.recursion else 0)
        room = room_for(query.edns) if came.transport is Transport.UDP else STREAM_BYTES
        return self._accepted(Asked(packet, query, came, view, kept, room))

    def _accepted(self, asked: Asked) -> Replied:
        signed = None
        if asked.query.tsig_at is not None and self.keys is not None:
            signed = self.keys.check(asked.packet, asked.query.tsig_at, self.clock())
            if signed.error:
                return signed.sign(error(asked, wire.NOTAUTH))
            asked = replace(asked, key=signed.key, room=asked.room - signed.room)
        refused = self._refused(asked)
        return self._finished(asked, refused or self._handled(asked), _Finish(b"", signed))

    def _refused(self, asked: Asked) -> bytes | None:
        """First match wins."""
        query = asked.query
        if query.twice or query.kind == wire.OPT:
            return error(asked, wire.FORMERR)
        if query.edns is not None and query.edns.version != 0:
            return error(asked, wire.BADVERS)
        if not asked.view.query:
            return error(asked, wire.REFUSED, ede=EDE_PROHIBITED)
        if not query.question:
            return error(asked, wire.FORMERR)
        if query.klass != wire.IN:
            return error(asked, wire.REFUSED, ede=EDE_NOT_AUTHORITATIVE)
        if asked.opcode == wire.UPDATE or (query.kind == wire.AXFR and not asked.came.transport.streams):
            return error(asked, wire.REFUSED)
        return None

    def _handled(self, asked: Asked) -> Handled:
        route = self._route(asked.query)
        if route is None:
            return error(asked, wire.REFUSED, ede=EDE_NOT_AUTHORITATIVE)
        if asked.opcode == wire.NOTIFY and not route.notify:
            return error(asked, wire.NOTIMP)
        if route.recursive and not asked.view.recursion:
            return error(asked, wire.REFUSED, ede=EDE_PROHIBITED)
        return route.handler.reply(asked)

    def _route(self, query: wire.Query) -> Route | None:
        for start in query.starts:
            route = self.routes.get(query.name[start:])
            if route is not None:
                return route
        return self.routes.get(ROOT)

    def _finished(self, asked: Asked, handled: Handled, finish: _Finish) -> Replied:
        if isinstance(handled, bytes):
            return finish(handled)
        if handled is None:
            return None
        if isinstance(handled, Iterator):
            return Stream(map(finish, handled))
        return Waiting(
            handled,
            lambda reply: None if reply is None else finish(reply),
            lambda: finish(
                failure(asked.packet, asked.query, asked.flags, wire.SERVFAIL, ede=EDE_NO_REACHABLE_AUTHORITY)
            ),
        )


def _bare(packet: bytes, flags: int, rcode: int) -> bytes:
    """A header alone, for what could not be read further."""
    kept = wire.QR | flags & (wire.OPCODE_MASK | wire.RD) | rcode
    return packet[:2] + kept.to_bytes(2, "big") + bytes(8)

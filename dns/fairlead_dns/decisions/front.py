"""The front: the one way every packet takes, whatever transport it came by.

    packet, Came -> acceptance -> access -> TSIG -> cookie -> handler of the longest apex -> options, signature, rate

To plug in: `front.serve(apex, handler)` with an object that has `reply(asked: Asked) -> bytes | awaitable | iterator |
None` (see asked.Handler). The handler of the root is the forwarder. A transport calls `front.reply(packet, came)` and
gets a whole reply, a `Waiting` to finish later and out of order, a `Stream` to pull messages from, or None for silence.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
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
    room_for,
)
from fairlead_dns.decisions.cookies import OPTION as COOKIE
from fairlead_dns.decisions.cookies import BadCookieError, Cookies
from fairlead_dns.decisions.identity import NSID, Identity
from fairlead_dns.decisions.rate import Kind, Limiter, Verdict, kind_of

ROOT = b"\0"
KEEPALIVE, PADDING = 11, 12
PADDED_BYTES = 468
TRANSFERS = frozenset({wire.AXFR, wire.IXFR})
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
    account: Callable[[bytes], bytes] = lambda name: name
    """The name whose answer a name gets, where many names get one (a wildcard's): under it they share a rate."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a query's EDNS options asked of the front. `options`: those of the reply, in wire form."""

    options: bytes = b""
    cookie: bool = False
    proven: bool = False
    """A valid cookie: the client's address is no invention."""
    padded: bool = False


PLAIN = Told()


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


@dataclass(frozen=True, slots=True, eq=False)
class Relayed:
    """Messages another process makes, whole and signed, to send in order. It may break off with an OSError.

    `failed()`: goes out when none has come.
    """

    messages: AsyncGenerator[bytes, None]
    failed: Callable[[], bytes | None]


class Relay(Protocol):
    """Asks the process that holds the journals. Both raise OSError. `full`: it may be asked for no `one` more now."""

    @property
    def full(self) -> bool: ...
    def one(self, packet: bytes, came: Came) -> Awaitable[bytes | None]: ...
    def messages(self, packet: bytes, came: Came) -> AsyncGenerator[bytes, None]: ...


Replied = bytes | Waiting | Stream | Relayed | None


@dataclass(slots=True)
class Tally:
    """What the front decided, since the start."""

    denied: int = 0
    """Queries of clients that may not ask."""
    unrecursed: int = 0
    """Names that are not ours, asked by clients that recursion is not open to."""
    uncookied: int = 0
    """Queries over UDP without a valid cookie, where one is required."""
    unsigned: int = 0
    """TSIG signatures that did not hold."""
    cookies_valid: int = 0
    cookies_other: int = 0


@dataclass(slots=True)
class Front:
    """Owned by one task. `clock` gives Unix time in seconds."""

    clock: Callable[[], float]
    views: Views = field(default_factory=Views)
    keys: Keys | None = None
    """None: TSIG records are passed over and replies unsigned."""
    cookies: Cookies | None = None
    """None: cookies are passed over."""
    require_cookies: bool = False
    """Over UDP only who shows a valid cookie, or signs, gets an answer; others are told to come again with one, or over TCP."""
    identity: Identity = field(default_factory=Identity)
    limiter: Limiter | None = None
    """With one, no packet may be answered from `views.tables` without asking the front."""
    keepalive_s: float = 10.0
    """How long an idle TCP connection is kept, told to clients that ask (RFC 7828)."""
    transfers: Handler | None = None
    """Answers AXFR and IXFR of all zones that are ours. None: each handler refuses them."""
    relay: Relay | None = None
    """Gets AXFR and IXFR as they came, in place of `transfers`. None: this process holds the journals itself."""
    routes: dict[bytes, Route] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    recursive: bool = False
    """Whether any route is: RA is set for those it is open to."""

    def serve(self, apex: bytes, handler: Handler, *, recursive: bool = False, notify: bool = False) -> None:
        """From now on `handler` answers for the folded wire name `apex` and what is below it, but for longer apexes."""
        self.route(apex, Route(handler, recursive, notify))

    def route(self, apex: bytes, route: Route) -> None:
        self.routes[apex] = route
        self._routed()

    def withdraw(self, apex: bytes) -> None:
        self.routes.pop(apex, None)
        self._routed()

    def _routed(self) -> None:
        self.recursive = any(route.recursive for route in self.routes.values())
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
        if self.limiter is not None:
            prebuilt = self._prebuilt(packet, came)
            if prebuilt is not None:
                name = packet[wire.HEADER_BYTES : packet.index(0, wire.HEADER_BYTES) + 3]
                return self.within_rate(self.limiter, came.client, prebuilt, name)
        try:
            query = wire.parse_query(packet)
        except wire.MalformedError:
            return _bare(packet, flags, wire.FORMERR)
        view = self.views.of(came.client)
        kept = flags & (wire.OPCODE_MASK | wire.RD) | (wire.RA if view.recursion and self.recursive else 0)
        room = room_for(query.edns) if came.transport is Transport.UDP else STREAM_BYTES
        return self._accepted(Asked(packet, query, came, view, kept, room))

    def _relayed(self, asked: Asked, relay: Relay, finish: "_Finish") -> Replied:
        """Of who may ask. Over UDP nobody gets another process to work who would get no reply of it: its place under the
        rate limit is taken here, before, and there again.
        """

        def failed() -> bytes | None:
            return finish(error(asked, wire.SERVFAIL, ede=EDE_NO_REACHABLE_AUTHORITY))

        if asked.came.transport.streams:
            return Relayed(relay.messages(asked.packet, asked.came), failed)
        if relay.full:
            return failed()
        cut = wire.truncated(error(asked, wire.NOERROR))  # counts as an answer; what "slips" is one like it
        if (left := finish.limit(cut)) is not cut:
            return left
        return Waiting(relay.one(asked.packet, asked.came), lambda reply: reply, failed)

    def within_rate(self, limiter: Limiter, client: str, reply: bytes, name: bytes) -> bytes | None:
        """The reply, or what is left of it."""
        verdict = limiter.judge(client, reply, name, self.clock())
        if verdict is Verdict.SLIP:
            return wire.truncated(reply)
        return reply if verdict is Verdict.SEND else None

    def _prebuilt(self, packet: bytes, came: Came) -> bytes | None:
        """A prebuilt answer with records, which the UDP loop would find by itself were there no limit."""
        if came.transport is not Transport.UDP:
            return None
        following = self.views.tables.get(came.client, {}).get(packet[2:])
        if following is None:
            return None
        reply = packet[:2] + following()
        return reply if kind_of(reply) is Kind.ANSWER else None

    def _accepted(self, asked: Asked) -> Replied:
        signed, told = None, PLAIN
        if asked.query.tsig_at is not None and self.keys is not None:
            signed = self.keys.check(asked.packet, asked.query.tsig_at, self.clock())
            if signed.error:
                self.tally.unsigned += 1
                return signed.sign(error(asked, wire.NOTAUTH))
            asked = replace(asked, key=signed.key, room=asked.room - signed.room)
        if asked.query.edns is not None and asked.query.edns.options and asked.query.edns.version == 0:
            try:
                told = self._told(asked.query.edns.options, asked.came)
            except BadCookieError:
                return error(asked, wire.FORMERR)
            asked = replace(asked, room=asked.room - len(told.options))
        refused = self._refused(asked, told)
        if refused is None and self.relay is not None and asked.query.kind in TRANSFERS:
            return self._relayed(asked, self.relay, _Finish(self, asked, told, signed, self._apex(asked.query)))
        apex, handled = (b"", refused) if refused is not None else self._handled(asked)
        return self._finished(asked, handled, _Finish(self, asked, told, signed, apex))

    def _told(self, options: tuple[tuple[int, bytes], ...], came: Came) -> Told:
        """Raises BadCookieError."""
        found, given, padded = b"", None, False
        for code, data in dict(reversed(options)).items():  # the first of each counts
            if code == COOKIE and self.cookies is not None:
                given = self.cookies.check(data, came.client, int(self.clock()))
                found += wire.option(COOKIE, given.data)
                self.tally.cookies_valid += given.valid
                self.tally.cookies_other += not given.valid
            elif code == NSID and self.identity.nsid:
                found += wire.option(NSID, self.identity.nsid)
            elif code == KEEPALIVE and came.transport.streams:
                found += wire.option(KEEPALIVE, min(int(self.keepalive_s * 10), 65535).to_bytes(2, "big"))
            padded = padded or (code == PADDING and came.transport.is_private)
        return Told(found, given is not None, given is not None and given.valid, padded)

    def _refused(self, asked: Asked, told: Told) -> bytes | None:
        """First match wins."""
        query = asked.query
        if query.twice or query.kind == wire.OPT:
            return error(asked, wire.FORMERR)
        if query.edns is not None and query.edns.version != 0:
            return error(asked, wire.BADVERS)
        if not asked.view.query or asked.view.closed(query.name):
            self.tally.denied += 1
            return error(asked, wire.REFUSED, ede=EDE_PROHIBITED)
        if not query.question:
            return error(asked, wire.NOERROR if told.cookie else wire.FORMERR)
        if self.require_cookies and asked.came.transport is Transport.UDP and not told.proven and asked.key is None:
            self.tally.uncookied += 1
            return error(asked, wire.BADCOOKIE) if told.cookie else wire.truncated(error(asked, wire.NOERROR))
        if query.klass == wire.CH:
            return self.identity.reply(asked)
        if query.klass != wire.IN:
            return error(asked, wire.REFUSED, ede=EDE_NOT_AUTHORITATIVE)
        if asked.opcode == wire.UPDATE or (query.kind == wire.AXFR and not asked.came.transport.streams):
            return error(asked, wire.REFUSED)
        return None

    def _handled(self, asked: Asked) -> tuple[bytes, Handled]:
        apex = self._apex(asked.query)
        route = self.routes.get(apex)
        if route is None:
            return apex, error(asked, wire.REFUSED, ede=EDE_NOT_AUTHORITATIVE)
        if asked.opcode == wire.NOTIFY and not route.notify:
            return apex, error(asked, wire.NOTIMP)
        if route.recursive and not asked.view.recursion:
            self.tally.unrecursed += 1
            return apex, error(asked, wire.REFUSED, ede=EDE_PROHIBITED)
        if asked.query.kind in TRANSFERS and self.transfers is not None and not route.recursive:
            return apex, self.transfers.reply(asked)
        return apex, route.handler.reply(asked)

    def _apex(self, query: wire.Query) -> bytes:
        """The longest one that we serve; the root's if there is none."""
        for start in query.starts:
            if query.name[start:] in self.routes:
                return query.name[start:]
        return ROOT

    def _finished(self, asked: Asked, handled: Handled, finish: "_Finish") -> Replied:
        if isinstance(handled, bytes):
            return finish(handled)
        if handled is None:
            return None
        if isinstance(handled, Iterator):
            return Stream(message for message in map(finish, handled) if message is not None)
        return Waiting(
            handled,
            lambda reply: None if reply is None else finish(reply),
            lambda: finish(error(asked, wire.SERVFAIL, ede=EDE_NO_REACHABLE_AUTHORITY)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Finish:
    """What a handler's reply still needs: options, its place under the rate limit, a signature."""

    front: Front
    asked: Asked
    told: Told
    signed: Signed | None
    apex: bytes

    def __call__(self, reply: bytes) -> bytes | None:
        if self.told.options:
            reply = wire.with_options(reply, self.told.options)
        if self.told.padded:
            reply = wire.with_options(reply, _padding(len(reply)))
        if self.signed is not None:
            return self.signed.sign(reply)
        return self.limit(reply)

    def limit(self, reply: bytes) -> bytes | None:
        """What is left of a whole reply under the rate limit."""
        limiter = self.front.limiter
        if (
            limiter is None
            or self.signed is not None
            or self.told.proven
            or self.asked.came.transport is not Transport.UDP
        ):
            return reply
        route = self.front.routes.get(self.apex)
        name = account_name(reply, self.asked.query, self.apex, route)
        return self.front.within_rate(limiter, self.asked.came.client, reply, name)


def account_name(reply: bytes, query: wire.Query, apex: bytes, route: Route | None = None) -> bytes:
    """An answer has its own account, "there is none" one for the whole zone: random names must not each have one."""
    if kind_of(reply) is Kind.ANSWER:
        return (query.name if route is None else route.account(query.name)) + query.question[-4:-2]
    return apex if apex != ROOT else query.name[query.starts[-2] :] if len(query.starts) > 1 else query.name


def _padding(size: int) -> bytes:
    """To a multiple of 468 bytes (RFC 8467), so that the size of what is encrypted tells nothing."""
    return wire.option(PADDING, bytes(-(size + 4) % PADDED_BYTES))


def _bare(packet: bytes, flags: int, rcode: int) -> bytes:
    """A header alone, for what could not be read further."""
    kept = wire.QR | flags & (wire.OPCODE_MASK | wire.RD) | rcode
    return packet[:2] + kept.to_bytes(2, "big") + bytes(8)

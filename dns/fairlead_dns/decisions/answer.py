"""A question into a reply's bytes, with prebuilt answers for what is asked again: the handler of our own names.

Two caches. The client's `view.fast` maps a whole packet, less its id, to a function that gives the next prebuilt reply,
less its id: the hot path is one look-up and one concatenation. `_prepared` maps (folded name, type, room, EDNS, flags)
to the same function, for packets that never repeat (0x20 case, cookies). A change of the zone drops what depends on its names.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat

from fairlead_discovery.snapshots import Trust
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import (
    EDE_NOT_READY,
    EDE_STALE,
    EDE_STALE_NXDOMAIN,
    EDNS_BYTES,
    Asked,
    Next,
    Transport,
    error,
)
from fairlead_dns.decisions.zone import Zone

VARIANTS = 64
ROUNDS = 64  # how often the same orders are given before new ones are drawn
ENTRIES = 50_000
CACHE_BYTES = 64 * 1024 * 1024
PACKETS_PER_ENTRY = 16  # header flags and offered sizes differ between clients; more than this is someone playing
COMMON = frozenset({wire.A, wire.AAAA, wire.SRV, wire.ANY, 64, 65})  # with SVCB and HTTPS, which browsers ask for
ROTATED = frozenset({wire.A, wire.AAAA, wire.SRV})
TARGET_AT = {wire.SRV: 6, wire.NS: 0}
"""Where a type's data holds the name whose addresses go along."""
SERIAL = b""
"""Stands among the names an answer depends on when it holds the serial."""
OWNER = b"\xc0\x0c"
"""A pointer to the question: the answer's owner has the case that was asked (0x20)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """What we say of ourselves. Names in wire form; times in seconds."""

    apexes: tuple[bytes, ...]
    mname: bytes
    rname: bytes
    ttl_s: int = 5
    negative_ttl_s: int = 2
    refresh_s: int = 60
    retry_s: int = 600
    expire_s: int = 86400


@dataclass(slots=True, eq=False)
class _Prepared:
    """An entry of the caches: what it depends on, and under which packets it stands in which view's `fast`."""

    key: tuple[bytes, int, int, int, int]
    next: Next
    names: tuple[bytes, ...]
    packets: list[tuple[dict[bytes, Next], bytes]] = field(default_factory=list)

    def leave_fast(self) -> None:
        for fast, packet in self.packets:
            fast.pop(packet, None)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What every reply to one kind of query has in common. `room`: bytes for records, the OPT already off."""

    question: bytes
    flags: int
    room: int
    opt: bytes

    def build(self, answers: Sequence[bytes], authority: bytes = b"", extra: Sequence[bytes] = ()) -> bytes:
        """All but the id. Answers that do not fit are cut with TC; extras that do not fit are left out silently."""
        room, flags, kept = self.room - len(authority), self.flags, list(answers)
        if sum(map(len, answers)) > room:
            kept, flags = _fitting(answers, room), flags | wire.TC
            extra = ()
        more = _fitting(extra, room - sum(map(len, kept)))
        counts = wire.header(flags, len(kept), 1 if authority else 0, len(more) + bool(self.opt))
        return b"".join((counts, self.question, *kept, authority, *more, self.opt))


def _fitting(records: Iterable[bytes], room: int) -> list[bytes]:
    kept = []
    for record in records:
        room -= len(record)
        if room < 0:
            break
        kept.append(record)
    return kept


@dataclass(slots=True)
class Answers:
    """Owned by one task. `chance` gives numbers in [0, 1): the order of addresses is drawn from it."""

    zone: Zone
    authority: Authority
    chance: Callable[[], float]
    trust: Trust | None = None
    """None: nothing is known yet, and every query gets SERVFAIL."""
    serial: int = 0
    _prepared: dict[tuple[bytes, int, int, int, int], _Prepared] = field(default_factory=dict)
    _dependents: dict[bytes, set[_Prepared]] = field(default_factory=dict)
    _cached_bytes: int = 0

    def reply(self, asked: Asked) -> bytes:
        """See asked.Handler. Only for names at and below the zone's apexes."""
        if asked.query.kind in (wire.AXFR, wire.IXFR):
            return error(asked, wire.REFUSED)
        if self.trust is None:
            return error(asked, wire.SERVFAIL, ede=EDE_NOT_READY)
        return asked.packet[:2] + self._body(asked)

    def changed(self, names: Iterable[bytes], *, serial: int, trust: Trust) -> None:
        """The zone has changed: forget the answers that depend on `names`, on the serial, or on the trust."""
        if trust is not self.trust:
            self.forget()
        if serial != self.serial:
            self._drop(SERIAL)
        for name in names:
            self._drop(name)
        self.serial, self.trust = serial, trust

    def forget(self) -> None:
        for prepared in self._prepared.values():
            prepared.leave_fast()
        self._prepared.clear()
        self._dependents.clear()
        self._cached_bytes = 0

    @property
    def cached(self) -> int:
        return len(self._prepared)

    def _body(self, asked: Asked) -> bytes:
        query = asked.query
        if asked.came.transport is not Transport.UDP:
            return self._frame_and_plan(asked)[0]()
        key = (query.name, query.kind, asked.room, 0 if query.edns is None else 1 + query.edns.do, asked.flags)
        prepared = self._prepared.get(key)
        if prepared is None:
            following, names, lasting = self._frame_and_plan(asked)
            if not lasting:
                return following()
            prepared = self._keep(key, following, names)
        if asked.repeats:
            self._remember(asked, prepared)
        body = prepared.next()
        return body[:10] + query.question + body[10 + len(query.question) :]

    def _apex(self, query: wire.Query) -> int | None:
        """Offset in the name at which one of our zones begins."""
        for start in query.starts:
            if query.name[start:] in self.zone.apexes:
                return start
        return None

    def _frame_and_plan(self, asked: Asked) -> tuple[Next, tuple[bytes, ...], bool]:
        """The next reply's function, the names it depends on, whether it is worth keeping."""
        query, once = asked.query, asked.came.transport is not Transport.UDP
        name, sets = query.name, self.zone.sets(query.name)
        found = query.question if once else query.name + query.question[-4:]
        kind = _minimal(query.kind, sets)
        if name in self.zone.apexes and kind in (wire.SOA, wire.NS, wire.ANY):
            frame = self._frame(asked, found)
            data = self.authority.mname if kind == wire.NS else self._soa()
            kind = wire.NS if kind == wire.NS else wire.SOA
            return (
                repeat(self._positive(frame, kind, [data], self.authority.ttl_s)).__next__,
                (name, SERIAL, self.authority.mname),
                True,
            )
        if kind in sets:
            frame = self._frame(asked, found)
            return self._found(frame, kind, sorted(sets[kind]), name, once=once)
        exists = self.zone.exists(name)
        frame = self._frame(asked, found, rcode=wire.NOERROR if exists else wire.NXDOMAIN)
        lasting = exists and query.kind in COMMON
        return repeat(frame.build((), self._negative(query))).__next__, (name, SERIAL), lasting

    def _frame(self, asked: Asked, question: bytes, *, rcode: int = wire.NOERROR) -> _Frame:
        query, opt = asked.query, b""
        if query.edns is not None:
            opt = wire.opt_record(EDNS_BYTES, do=query.edns.do, ede=self._ede(rcode))
        flags = wire.QR | wire.AA | asked.flags | rcode
        return _Frame(question, flags, asked.room - wire.HEADER_BYTES - len(question) - len(opt), opt)

    def _ede(self, rcode: int) -> int | None:
        if self.trust is Trust.LIVE:
            return None
        return EDE_STALE_NXDOMAIN if rcode == wire.NXDOMAIN else EDE_STALE

    def _found(
        self, frame: _Frame, kind: int, data: list[bytes], name: bytes, *, once: bool
    ) -> tuple[Next, tuple[bytes, ...], bool]:
        at = TARGET_AT.get(kind)
        names = (name,) if at is None else (name, *{d[at:] for d in data})
        ttl_s = self.zone.ttl_s(name, kind, self.authority.ttl_s)
        if len(data) == 1 or once or kind not in ROTATED:
            return repeat(self._positive(frame, kind, self._shuffled(data), ttl_s)).__next__, names, True
        return self._rotations(frame, kind, data, ttl_s).__next__, names, True

    def _rotations(self, frame: _Frame, kind: int, data: list[bytes], ttl_s: int) -> Iterator[bytes]:
        """Every record comes first equally often; orders are built when they are first given."""
        while True:
            order, made = self._shuffled(data), []
            for start in range(min(len(order), VARIANTS)):
                made.append(self._positive(frame, kind, order[start:] + order[:start], ttl_s))
                yield made[-1]
            for _ in range(ROUNDS):
                yield from made

    def _shuffled(self, data: Sequence[bytes]) -> list[bytes]:
        return sorted(data, key=lambda _: self.chance())

    def _positive(self, frame: _Frame, kind: int, data: Sequence[bytes], ttl_s: int) -> bytes:
        answers = [wire.record(OWNER, kind, ttl_s, d) for d in data]
        return frame.build(answers, extra=self._addresses(frame, kind, data))

    def _addresses(self, frame: _Frame, kind: int, data: Sequence[bytes]) -> list[bytes]:
        """A and AAAA of every target, owners pointing into the answer's own data."""
        at = TARGET_AT.get(kind)
        if at is None:
            return []
        extra: list[bytes] = []
        seen: set[bytes] = set()
        offset = wire.HEADER_BYTES + len(frame.question) + 12 + at  # 12: owner pointer, type, class, TTL, length
        for d in data:
            target = d[at:]
            if target not in seen:
                seen.add(target)
                owner = wire.pointer(offset) if offset < wire.POINTER_LIMIT else target
                extra += self._address_records(owner, target)
            offset += 12 + len(d)
        return extra

    def _address_records(self, owner: bytes, target: bytes) -> Iterator[bytes]:
        sets = self.zone.sets(target)
        for kind in (wire.A, wire.AAAA):
            ttl_s = self.zone.ttl_s(target, kind, self.authority.ttl_s)
            for address in sets.get(kind, ()):
                yield wire.record(owner, kind, ttl_s, address)

    def _negative(self, query: wire.Query) -> bytes:
        apex = self._apex(query)
        assert apex is not None
        ttl_s = min(self.authority.ttl_s, self.authority.negative_ttl_s)
        return wire.record(wire.pointer(wire.HEADER_BYTES + apex), wire.SOA, ttl_s, self._soa())

    def _soa(self) -> bytes:
        us = self.authority
        timers_s = (us.refresh_s, us.retry_s, us.expire_s, us.negative_ttl_s)
        return wire.soa_rdata(us.mname, us.rname, self.serial, timers_s)

    def _keep(self, key: tuple[bytes, int, int, int, int], following: Next, names: tuple[bytes, ...]) -> _Prepared:
        cost = min(max(1, len(self.zone.sets(key[0]).get(key[1], ()))), VARIANTS) * key[2]
        if len(self._prepared) >= ENTRIES or self._cached_bytes + cost > CACHE_BYTES:
            self.forget()
        self._cached_bytes += cost
        prepared = self._prepared[key] = _Prepared(key, following, names)
        for name in names:
            self._dependents.setdefault(name, set()).add(prepared)
        return prepared

    def _remember(self, asked: Asked, prepared: _Prepared) -> None:
        fast, rest = asked.view.fast, asked.packet[2:]
        if rest not in fast and len(prepared.packets) < PACKETS_PER_ENTRY:
            prepared.packets.append((fast, rest))
            fast[rest] = prepared.next

    def _drop(self, name: bytes) -> None:
        for prepared in tuple(self._dependents.get(name, ())):
            del self._prepared[prepared.key]
            prepared.leave_fast()
            for other in prepared.names:
                self._forget_dependent(other, prepared)

    def _forget_dependent(self, name: bytes, prepared: _Prepared) -> None:
        dependents = self._dependents.get(name, set())
        dependents.discard(prepared)
        if not dependents:
            self._dependents.pop(name, None)


def _minimal(kind: int, sets: Iterable[int]) -> int:
    """ANY gets one type only (RFC 8482)."""
    return min(sets, default=wire.ANY) if kind == wire.ANY else kind

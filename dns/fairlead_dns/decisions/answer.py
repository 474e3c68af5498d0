"""A question into a reply's bytes, with prebuilt answers for what is asked again: the handler of our own names.

Two caches. The client's `view.fast` maps a whole packet, less its id, to a function that gives the next prebuilt reply,
less its id: the hot path is one look-up and one concatenation. `cache` maps (folded name, type, room, EDNS, flags, zones
denied) to the same functions, for packets that never repeat (0x20 case, cookies), and for sets of which each client network gets
a part of its own. A change of the zone drops what depends on its names.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

from fairlead_discovery.snapshots import Trust
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import (
    EDE_NOT_READY,
    EDE_STALE,
    EDE_STALE_NXDOMAIN,
    EDNS_BYTES,
    Asked,
    Transport,
    error,
)
from fairlead_dns.decisions.choosing import VARIANTS, Chooser, Group
from fairlead_dns.decisions.clients import UNKNOWN, Client, Clients
from fairlead_dns.decisions.frames import OWNER, RECORD_BYTES, TARGET_AT, Frame
from fairlead_dns.decisions.prepared import Cache, Plan, Prepared
from fairlead_dns.decisions.selection import Candidate
from fairlead_dns.decisions.traits import Traits
from fairlead_dns.decisions.zone import Zone
from fairlead_dns.decisions.zone_version import reply_with, wish_of

COMMON = frozenset({wire.A, wire.AAAA, wire.SRV, wire.ANY, 64, 65})  # with SVCB and HTTPS, which browsers ask for
CNAME = 5
ALIASES = 8  # followed in one answer
ROTATED = frozenset({wire.A, wire.AAAA, wire.SRV})
SERIAL = b""
"""Stands among the names an answer depends on when it holds the serial."""


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


@dataclass(slots=True)
class Answers:
    """Owned by one task. `chance` gives numbers in [0, 1): the order of addresses is drawn from it."""

    zone: Zone
    authority: Authority
    chance: Callable[[], float]
    traits: Traits = field(default_factory=Traits)
    clients: Clients = field(default_factory=Clients)
    chooser: Chooser = field(default_factory=Chooser)
    trust: Trust | None = None
    """None: nothing is known yet, and every query gets SERVFAIL."""
    serial: int = 0
    cache: Cache = field(default_factory=Cache)

    def reply(self, asked: Asked) -> bytes:
        """See asked.Handler. Only for names at and below the zone's apexes."""
        if asked.query.kind in (wire.AXFR, wire.IXFR):
            return error(asked, wire.REFUSED)
        if self.trust is None:
            return error(asked, wire.SERVFAIL, ede=EDE_NOT_READY)
        if wish_of(asked) is None:
            return asked.packet[:2] + self._body(asked)
        apex = asked.query.name[self._apex(asked.query) :]
        return reply_with(asked, lambda less: asked.packet[:2] + self._body(less), apex, self.serial)

    def changed(self, names: Iterable[bytes], *, serial: int, trust: Trust) -> None:
        """The zone has changed: forget the answers that depend on `names`, on the serial, or on the trust."""
        if trust is not self.trust:
            self.cache.forget()
        if serial != self.serial:
            self.cache.drop(SERIAL)
        for name in names:
            self.cache.drop(name)
        self.serial, self.trust = serial, trust

    def forget(self) -> None:
        self.cache.forget()

    @property
    def cached(self) -> int:
        return len(self.cache.entries)

    def _body(self, asked: Asked) -> bytes:
        query = asked.query
        if asked.came.transport is not Transport.UDP:
            plan = self._plan(asked)
            return next(iter(plan.draw(self._client(asked, plan))))
        edns = 0 if query.edns is None else 1 + query.edns.do
        key = (query.name, query.kind, asked.room, edns, asked.flags, asked.view.denied)
        prepared = self.cache.entries.get(key)
        if prepared is None:
            plan = self._plan(asked)
            if not plan.lasting:
                return _as_asked(next(iter(plan.draw(UNKNOWN))), query)
            prepared = self.cache.keep(key, plan)
        return _as_asked(self._next(asked, prepared), query)

    def _next(self, asked: Asked, prepared: Prepared) -> bytes:
        plan = prepared.plan
        client = self._client(asked, plan)
        rotation = self.cache.rotation(prepared, client)
        if asked.repeats and plan.by_view and (not plan.by_place or asked.view.key == client.place):
            rotation.enter_fast(asked.view.fast, asked.packet[2:])
        return rotation.next()

    def _client(self, asked: Asked, plan: Plan) -> Client:
        return self.clients.of(asked.came.client) if plan.varies else UNKNOWN

    def _apex(self, query: wire.Query) -> int:
        """Offset in the name at which our zone begins; of a name in none (a reverse name that has just gone) its start."""
        return next((start for start in query.starts if query.name[start:] in self.zone.apexes), 0)

    def _plan(self, asked: Asked) -> Plan:
        query = asked.query
        name, sets = query.name, self.zone.sets(query.name)
        kind = _minimal(query.kind, sets)
        if name in self.zone.apexes and kind in (wire.SOA, wire.NS, wire.ANY):
            return self._apex_plan(self._frame(asked), wire.NS if kind == wire.NS else wire.SOA, name)
        if kind in sets:
            return self._found(self._frame(asked), kind, name)
        if CNAME in sets:
            return self._aliased(asked, kind)
        exists = self.zone.exists(name)
        frame = self._frame(asked, rcode=wire.NOERROR if exists else wire.NXDOMAIN)
        negative = frame.build((), self._negative(query))
        return Plan(lambda _: repeat(negative), (name, SERIAL), lasting=exists and query.kind in COMMON)

    def _aliased(self, asked: Asked, kind: int) -> Plan:
        """An alias that a person has written, and what it leads to in our zones (RFC 1034, 3.6.2), as far as the client
        may ask.
        """
        closed = asked.view.closed
        name, owner, aliases, names = asked.query.name, OWNER, [], [asked.query.name]
        while len(names) <= ALIASES and CNAME in self.zone.sets(name) and not closed(name):
            target = min(self.zone.sets(name)[CNAME])
            ttl_s = self.zone.ttl_s(name, CNAME, self.authority.ttl_s)
            aliases.append(wire.record(owner, CNAME, ttl_s, target))
            name = owner = target
            names.append(target)
        data = sorted(self.zone.sets(name).get(kind, ())) if not closed(name) else []
        ttl_s = self.zone.ttl_s(name, kind, self.authority.ttl_s) if data else 0
        ours = not data and not closed(name) and name.endswith(asked.query.name[self._apex(asked.query) :])
        frame = self._frame(asked, rcode=wire.NXDOMAIN if ours and not self.zone.exists(name) else wire.NOERROR)
        negative = self._negative(asked.query) if ours else b""

        def turns(_client: Client) -> Iterator[bytes]:
            for first in range(max(1, len(data))):
                order = data[first:] + data[:first]
                yield frame.build([*aliases, *(wire.record(owner, kind, ttl_s, d) for d in order)], negative)

        return Plan(turns, (*names, *([SERIAL] if ours else ())), bytes_each=max(1, len(data)) * frame.room)

    def _apex_plan(self, frame: Frame, kind: int, name: bytes) -> Plan:
        data = self.authority.mname if kind == wire.NS else self._soa()
        body = self._positive(frame, kind, [data], self.authority.ttl_s)
        return Plan(lambda _: repeat(body), (name, SERIAL, self.authority.mname), bytes_each=len(body))

    def _frame(self, asked: Asked, *, rcode: int = wire.NOERROR) -> Frame:
        """Datagrams' replies are kept for other cases of the name too; the question's case is put in later."""
        query, opt = asked.query, b""
        question = query.name + query.question[-4:] if asked.came.transport is Transport.UDP else query.question
        if query.edns is not None:
            opt = wire.opt_record(EDNS_BYTES, do=query.edns.do, ede=self._ede(rcode))
        flags = wire.QR | wire.AA | asked.flags | rcode
        room = asked.room - wire.HEADER_BYTES - len(question) - len(opt)
        return Frame(question, flags, room, opt, asked.view.closed)

    def _ede(self, rcode: int) -> int | None:
        if self.trust is Trust.LIVE:
            return None
        return EDE_STALE_NXDOMAIN if rcode == wire.NXDOMAIN else EDE_STALE

    def _found(self, frame: Frame, kind: int, name: bytes) -> Plan:
        data = self.zone.sets(name)[kind]
        at = TARGET_AT.get(kind)
        names = (name,) if at is None else (name, *{d[at:] for d in data})
        ttl_s = self.zone.ttl_s(name, kind, self.authority.ttl_s)
        if kind not in ROTATED or len(data) == 1:
            body = self._positive(frame, kind, sorted(data), ttl_s)
            return Plan(lambda _: repeat(body), names, bytes_each=len(body))
        if self._is_plain(frame, kind, name):
            turns = partial(self._plain_round, frame, kind, sorted(data), ttl_s)
            return Plan(lambda _: turns(), names, bytes_each=min(len(data), VARIANTS) * frame.room)
        group = self.group(name, kind, room=frame.room)
        return Plan(
            partial(self._round, frame, group, ttl_s),
            names,
            by_place=group.by_place,
            by_network=group.by_network,
            own=group.own,
            bytes_each=self.chooser.rounds(group) * min(frame.room, 2 * group.bytes_all),
        )

    def _is_plain(self, frame: Frame, kind: int, name: bytes) -> bool:
        """All clients get all of it, all records alike: what nearly every set is."""
        data = self.zone.sets(name)[kind]
        if self.traits.places or self.chooser.prefer_own_machine or self.chooser.limits(kind, len(data)):
            return False
        return self.traits.are_equal(name, kind, data) and _bytes_of(data) <= frame.room

    def _plain_round(self, frame: Frame, kind: int, data: list[bytes], ttl_s: int) -> Iterator[bytes]:
        """Every record comes first equally often."""
        order = sorted(data, key=lambda _: self.chance())
        answers = _records(kind, order, ttl_s)
        for start in range(min(len(order), VARIANTS)):
            extra = self._addresses(frame, kind, order[start:] + order[:start])
            yield frame.build(answers[start:] + answers[:start], extra=extra)

    def group(self, name: bytes, kind: int, *, room: int) -> Group:
        """A set of ours with all that choosing from it needs. `room`: bytes there are for its records."""
        data = self.zone.sets(name)[kind]
        candidates = [Candidate(d, weight=self.traits.weight(name, kind, d, n)) for d, n in sorted(data.items())]
        sizes = {c.rdata: RECORD_BYTES + len(c.rdata) for c in candidates}
        group = self.chooser.group(kind, candidates, sizes, room=room)
        if not self.traits.places and not self.chooser.prefer_own_machine:
            return group
        machines = [frozenset(self.hosts(kind, c.rdata)) for c in candidates]
        places = [self.traits.place(min(each, default=b"")) for each in machines]
        return group.standing(places, machines if self.chooser.prefer_own_machine else ())

    def hosts(self, kind: int, rdata: bytes) -> Iterator[bytes]:
        """Addresses of the machine a record leads to."""
        if kind != wire.SRV:
            yield rdata
            return
        sets = self.zone.sets(wire.srv_target(rdata))
        yield from sets.get(wire.A, ())
        yield from sets.get(wire.AAAA, ())

    def _round(self, frame: Frame, group: Group, ttl_s: int, client: Client) -> Iterator[bytes]:
        chosen = self.chooser.choose(group, client)
        given = frame.cut() if chosen.cut else frame
        for order in self.chooser.turns(chosen, group, self.chance):
            yield self._positive(given, group.kind, order, ttl_s)

    def _positive(self, frame: Frame, kind: int, data: Sequence[bytes], ttl_s: int) -> bytes:
        return frame.build(_records(kind, data, ttl_s), extra=self._addresses(frame, kind, data))

    def _addresses(self, frame: Frame, kind: int, data: Sequence[bytes]) -> list[list[bytes]]:
        """A and AAAA of every target, a set each, owners pointing into the answer's own data."""
        at = TARGET_AT.get(kind)
        if at is None:
            return []
        extra: list[list[bytes]] = []
        seen: set[bytes] = set()
        offset = frame.answers_at + RECORD_BYTES + at
        for d in data:
            target = d[at:]
            if target not in seen and not frame.closed(target):
                seen.add(target)
                owner = wire.pointer(offset) if offset < wire.POINTER_LIMIT else target
                extra += self._address_sets(owner, target)
            offset += RECORD_BYTES + len(d)
        return extra

    def _address_sets(self, owner: bytes, target: bytes) -> Iterator[list[bytes]]:
        sets = self.zone.sets(target)
        for kind in (wire.A, wire.AAAA):
            if kind in sets:
                ttl_s = self.zone.ttl_s(target, kind, self.authority.ttl_s)
                yield [wire.record(owner, kind, ttl_s, address) for address in sets[kind]]

    def _negative(self, query: wire.Query) -> bytes:
        ttl_s = min(self.authority.ttl_s, self.authority.negative_ttl_s)
        return wire.record(wire.pointer(wire.HEADER_BYTES + self._apex(query)), wire.SOA, ttl_s, self._soa())

    def _soa(self) -> bytes:
        us = self.authority
        timers_s = (us.refresh_s, us.retry_s, us.expire_s, us.negative_ttl_s)
        return wire.soa_rdata(us.mname, us.rname, self.serial, timers_s)


def _records(kind: int, data: Sequence[bytes], ttl_s: int) -> list[bytes]:
    """Their beginnings are alike where their lengths are."""
    heads = {size: wire.record(OWNER, kind, ttl_s, bytes(size))[:RECORD_BYTES] for size in {len(d) for d in data}}
    return [heads[len(d)] + d for d in data]


def _bytes_of(data: Iterable[bytes]) -> int:
    """As records."""
    return sum(RECORD_BYTES + len(d) for d in data)


def _minimal(kind: int, sets: Iterable[int]) -> int:
    """ANY gets one type only (RFC 8482)."""
    return min(sets, default=wire.ANY) if kind == wire.ANY else kind


def _as_asked(body: bytes, query: wire.Query) -> bytes:
    """The question's letters in the case that was asked (0x20)."""
    return body[:10] + query.question + body[10 + len(query.question) :]

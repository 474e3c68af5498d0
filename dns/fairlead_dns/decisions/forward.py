"""The forwarder's decisions: what is answered at once, what is asked of whom, what becomes of those who wait.

    asked -> loop? -> local zone? -> cache -> (RD) -> identical question under way? -> a new flight, or the queue

A flight is one question on its way to upstreams; everybody who asks it meanwhile waits for the same one. It answers
nothing by itself: the adapter runs it and brings back a Reply or a Failure.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import (
    EDE_NETWORK_ERROR,
    EDE_NO_REACHABLE_AUTHORITY,
    EDE_NOT_AUTHORITATIVE,
    EDE_STALE,
    EDE_STALE_NXDOMAIN,
    Asked,
    Next,
    error,
)
from fairlead_dns.decisions.forward_cache import STALE_TTL_S, Cache, Entry, Failure, Key
from fairlead_dns.decisions.forward_chain import Terms
from fairlead_dns.decisions.forward_local import OWNER, Local
from fairlead_dns.decisions.forward_own import OurNames
from fairlead_dns.decisions.forward_records import CNAME, name_at, name_end
from fairlead_dns.decisions.forward_upstreams import Group, Upstream, Zones
from fairlead_dns.decisions.forward_wire import CD, Reply, ede_option, has_flag, opt

EDE_OTHER = 0
ANY_TTL_S = 3600
HINFO = 13
MINIMAL = b"\x07RFC8482\0"
META = range(128, 256)
PREPARED = 16_384
"""Most whole packets that are answered without asking us; then all begin anew."""
TICK_S = 1.0
PROBE_LABEL = b"\x0dfairlead-loop"
BUSY = Failure(EDE_OTHER, "too many queries under way")
LOOP = Failure(EDE_OTHER, "this query came from here: upstreams form a loop")
SILENT = Failure(EDE_NO_REACHABLE_AUTHORITY, "no upstream answered in time")
UNREACHABLE = Failure(EDE_NETWORK_ERROR, "no upstream can be reached")
NONE_USABLE = Failure(EDE_NO_REACHABLE_AUTHORITY, "every upstream is out of order")
UNWILLING = Failure(EDE_NO_REACHABLE_AUTHORITY, "upstreams answered with an error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    in_flight: int = 256
    waiting: int = 2048
    """Clients that wait, those whose question is queued included. Past it: SERVFAIL at once."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One client that waits. `give` takes its reply, once."""

    asked: Asked
    give: Callable[[bytes], None]
    given: bool = False


@dataclass(slots=True, eq=False)
class Flight:
    """One question on its way. A prefetch has no waiters."""

    key: Key
    question: bytes
    """Folded: case is drawn anew for every query."""
    group: Group
    waiters: list[Waiter] = field(default_factory=list)
    started: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """The client has to wait for `flight`. `new`: it is to be started. `stale`: may be given meanwhile, if late."""

    flight: Flight
    new: bool
    stale: Entry | None


@dataclass(slots=True)
class Tally:
    """Since the start."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    merged: int = 0
    shed: int = 0
    prefetches: int = 0
    local: int = 0
    loops: int = 0
    failures: int = 0


@dataclass(slots=True)
class Forwarding:
    """Owned by one task. `now_s` is the same clock everywhere, only going forward."""

    zones: Zones
    cache: Cache
    limits: Limits = field(default_factory=Limits)
    local_zones: bool = True
    own: OurNames | None = None
    """Our own names: nothing that an upstream says of them is passed on."""
    tally: Tally = field(default_factory=Tally)
    flights: dict[Key, Flight] = field(default_factory=dict)
    queue: deque[Flight] = field(default_factory=deque)
    running: int = 0
    open: dict[Waiter, Flight] = field(default_factory=dict)
    """All who wait, in the order they came."""
    sent: dict[tuple[int, bytes], Upstream] = field(default_factory=dict)
    """Every query under way to an upstream, by id and question: random both, so whoever sends them is a loop."""
    tokens: dict[bytes, Upstream] = field(default_factory=dict)
    """Names made up for a probe, which nobody else can ask for."""
    mark: bytes = b""
    """How the probes of all processes at our addresses begin: what they send may come back to any of them."""
    sibling_looped: Callable[[bytes], None] = lambda _name: None
    """Called with the probe of another one of them that has come to us."""
    wanted: list[Flight] = field(default_factory=list)
    """Prefetches to be started."""
    ticks: int = 0
    ticked_s: float = 0.0
    _prepared: list[tuple[float, int, dict[bytes, Next], bytes]] = field(default_factory=list)
    """A heap by the time at which they go."""
    _order: "count[int]" = field(default_factory=count)

    def ask(self, asked: Asked, now_s: float) -> bytes | Wait:
        """First match wins."""
        query = asked.query
        if self.sent or self.tokens:
            upstream = self.tokens.get(query.name) or self.sent.get((int.from_bytes(asked.packet[:2]), query.question))
            if upstream is not None:
                self.tally.loops += 1
                upstream.looped(now_s)
                return failed(asked, LOOP)
        if self.mark and query.name[1:].startswith(self.mark) and PROBE_LABEL in query.name:
            self.tally.loops += 1
            self.sibling_looped(query.name)
            return failed(asked, LOOP)
        if query.kind in META or not query.kind:
            return _meta(asked)
        entry = self.cache.find(key_of(asked), now_s)
        if entry is not None and (entry.fresh(now_s) or now_s < entry.quiet_until_s):
            return self._hit(asked, entry, now_s)
        group = self.zones.find(query.name, query.starts)
        here = Local.find(query.name, query.starts) if self.local_zones else None
        if here is not None and (group is None or len(group.zone) < len(query.name) - here.start):
            self.tally.local += 1
            reply = here.reply(query.name, query.kind)
            return assembled(asked, reply, reply.records, wire.AA)
        if group is None or not asked.flags & wire.RD:
            return error(asked, wire.REFUSED, ede=EDE_NOT_AUTHORITATIVE)
        return self._miss(asked, group, entry)

    def looped(self, probe: bytes, now_s: float) -> None:
        """A probe, perhaps ours, has come to another process at our addresses."""
        upstream = self.tokens.get(probe)
        if upstream is not None:
            upstream.looped(now_s)

    def _miss(self, asked: Asked, group: Group, entry: Entry | None) -> bytes | Wait:
        """`entry`: what there is past its time."""
        if self.waiting >= self.limits.waiting and entry is not None and entry.failure is None:
            self.tally.shed += 1
            return self.stale(asked, entry)
        flight = self.flights.get(key := key_of(asked))
        self.tally.misses += flight is None
        self.tally.merged += flight is not None
        return Wait(flight or self._open(key, group), flight is None, entry)

    def _hit(self, asked: Asked, entry: Entry, now_s: float) -> bytes:
        self.tally.hits += 1
        entry.hits += 1
        if entry.failure is not None:
            return failed(asked, entry.failure)
        if not entry.fresh(now_s):
            return self.stale(asked, entry)
        if self.cache.wants_prefetch(entry, now_s):
            self._prefetch(asked, entry.key)
        reply = self._given(asked, entry.reply, entry.records(now_s))
        if asked.repeats and not entry.reply.onward:
            self._prepare(asked, entry, reply, now_s)
        return reply

    def _prefetch(self, asked: Asked, key: Key) -> None:
        group = self.zones.find(asked.query.name, asked.query.starts)
        if group is not None and key not in self.flights and self._has_room():
            self.tally.prefetches += 1
            self.wanted.append(self._open(key, group))

    def _prepare(self, asked: Asked, entry: Entry, reply: bytes, now_s: float) -> None:
        """The transport gives it by itself from now on, until shortly before its time is over."""
        until_s, records = self.cache.settled_until(entry) - 2 * TICK_S, entry.records(now_s)
        at = wire.HEADER_BYTES + len(asked.query.question)
        if now_s >= until_s or not reply.startswith(records, at):
            return
        if len(self._prepared) >= PREPARED:
            self.forget_prepared()
        rest, fast = asked.packet[2:], asked.view.fast
        made = _Prepared(self, entry, reply[2:at], reply[at + len(records) :], self.ticks, reply[2:])
        fast[rest] = made.next
        heappush(self._prepared, (until_s, next(self._order), fast, rest))

    def tick(self, now_s: float) -> None:
        """Every TICK_S: prepared packets get the TTL of now when they are next given, or are gone."""
        self.ticks, self.ticked_s = self.ticks + 1, now_s
        while self._prepared and self._prepared[0][0] <= now_s:
            _, _, fast, rest = heappop(self._prepared)
            fast.pop(rest, None)

    def forget_prepared(self) -> None:
        for _, _, fast, rest in self._prepared:
            fast.pop(rest, None)
        self._prepared.clear()

    def stale(self, asked: Asked, entry: Entry) -> bytes:
        """The last good answer, with a TTL of 30 s and the extended error that says so."""
        self.tally.stale += 1
        code = EDE_STALE_NXDOMAIN if entry.reply.rcode == wire.NXDOMAIN else EDE_STALE
        return self._given(asked, entry.reply, entry.reply.stale(STALE_TTL_S), ede=Failure(code, ""))

    def terms(self, key: Key) -> Terms:
        """On which the reply to a question sent on is taken."""
        return Terms(key.do, self.own, self.cache.policy.longest_s)

    def _given(self, asked: Asked, reply: Reply, records: bytes, *, ede: Failure | None = None) -> bytes:
        """With what we say ourselves, now and to this client, where the answer leads to a name of ours."""
        if reply.onward and self.own is not None:
            ours = self.own.reply(asked, reply.onward)
            records += ours.records
            counts = (reply.counts[0] + ours.counts[0], ours.counts[1], 0)
            reply = Reply(ours.rcode, counts, records, len(records))
        elif asked.view.denied:
            reply, records = admitted(asked, reply, records)
        return assembled(asked, reply, records, ede=ede)

    # --- flights ------------------------------------------------------------------------------------------------------

    def _open(self, key: Key, group: Group) -> Flight:
        question = key.name + key.kind.to_bytes(2, "big") + wire.IN.to_bytes(2, "big")
        flight = self.flights[key] = Flight(key, question, group)
        return flight

    def _has_room(self) -> bool:
        return self.running < self.limits.in_flight and not self.queue

    @property
    def waiting(self) -> int:
        return len(self.open)

    def join(self, flight: Flight, waiter: Waiter) -> None:
        """Of too many who wait the first gives way: its client has asked elsewhere, or will ask again, the soonest."""
        flight.waiters.append(waiter)
        self.open[waiter] = flight
        while self.waiting > self.limits.waiting:
            self._shed(next(iter(self.open)))

    def _shed(self, waiter: Waiter) -> None:
        self.tally.shed += 1
        flight = self.open[waiter]
        self.leave(waiter, failed(waiter.asked, BUSY))
        flight.waiters.remove(waiter)
        if not flight.waiters and not flight.started and flight in self.queue:
            self._close(flight)

    def leave(self, waiter: Waiter, reply: bytes) -> None:
        """Gives a waiter its reply, unless it has one."""
        if not waiter.given:
            waiter.given = True
            self.open.pop(waiter, None)
            waiter.give(reply)

    def start(self, flight: Flight) -> bool:
        """Whether it may go out now; otherwise it is queued."""
        if self.running >= self.limits.in_flight:
            self.queue.append(flight)
            return False
        self.running += 1
        flight.started = True
        return True

    def end(self, flight: Flight, outcome: Reply | Failure, now_s: float) -> Flight | None:
        """Answers all who wait; returns the next of the queue, which has been started."""
        self._close(flight)
        if isinstance(outcome, Failure):
            self.tally.failures += 1
            entry = self.cache.keep_failure(flight.key, outcome, now_s)
            for waiter in flight.waiters:
                self.leave(waiter, self._after_failure(waiter.asked, entry))
        else:
            self.cache.keep(flight.key, outcome, now_s)
            for waiter in flight.waiters:
                self.leave(waiter, self._given(waiter.asked, outcome, outcome.records))
        return self._next()

    def give_up(self, flight: Flight, now_s: float) -> None:
        """Its time is over before it went out: those who wait are told, nothing is kept, for nobody was asked."""
        self._close(flight)
        self.tally.shed += 1
        entry = self.cache.find(flight.key, now_s)
        for waiter in flight.waiters:
            stale = entry is not None and entry.failure is None
            self.leave(waiter, self.stale(waiter.asked, entry) if stale and entry else failed(waiter.asked, BUSY))

    def _after_failure(self, asked: Asked, entry: Entry) -> bytes:
        return self.stale(asked, entry) if entry.failure is None else failed(asked, entry.failure)

    def _close(self, flight: Flight) -> None:
        self.flights.pop(flight.key, None)
        if flight.started:
            self.running -= 1
        else:
            self.queue.remove(flight)

    def _next(self) -> Flight | None:
        if not self.queue or self.running >= self.limits.in_flight:
            return None
        flight = self.queue.popleft()
        self.running += 1
        flight.started = True
        return flight


@dataclass(slots=True, eq=False)
class _Prepared:
    """A reply to one packet, less its id: its TTLs are patched once a tick, when it is given."""

    forwarding: Forwarding
    entry: Entry
    start: bytes
    end: bytes
    tick: int
    reply: bytes

    def next(self) -> bytes:
        if self.tick != self.forwarding.ticks:
            self.tick = self.forwarding.ticks
            self.entry.hits += 1
            self.entry.touched = True
            self.reply = self.start + self.entry.records(self.forwarding.ticked_s) + self.end
        return self.reply


def key_of(asked: Asked) -> Key:
    query = asked.query
    return Key(query.name, query.kind, query.edns is not None and query.edns.do, has_flag(asked.packet, CD))


def outcome_of(replies: list[Reply], errors: list[Failure]) -> Reply | Failure:
    """Of a flight that nobody answered usefully."""
    if replies:
        return UNWILLING
    return next((each for each in errors if each is SILENT), errors[0] if errors else NONE_USABLE)


def failed(asked: Asked, why: Failure) -> bytes:
    return assembled(asked, Reply(wire.SERVFAIL), b"", ede=why)


def assembled(asked: Asked, reply: Reply, records: bytes, flags: int = 0, *, ede: Failure | None = None) -> bytes:
    """A whole reply, cut for this client: ADDITIONAL goes first and silently, then all the rest, with TC."""
    query, counts = asked.query, reply.counts
    tail = b""
    if query.edns is not None:
        tail = opt(do=query.edns.do, options=b"" if ede is None else ede_option(ede.ede, ede.text))
    room = asked.room - wire.HEADER_BYTES - len(query.question) - len(tail)
    if len(records) > room:
        records, counts = records[: reply.additional_at], (*counts[:2], 0)
    if len(records) > room:
        records, counts, flags = b"", (0, 0, 0), flags | wire.TC
    flags |= wire.QR | asked.flags | (CD if has_flag(asked.packet, CD) else 0) | reply.rcode & 15
    head = wire.header(flags, counts[0], counts[1], counts[2] + bool(tail))
    return asked.packet[:2] + head + query.question + records + tail


def admitted(asked: Asked, reply: Reply, records: bytes) -> tuple[Reply, bytes]:
    """The reply up to where its aliases lead to a name that the client may not ask for: there it is refused."""
    start = wire.HEADER_BYTES + len(asked.query.question)
    message = bytes(wire.HEADER_BYTES) + asked.query.question + records
    told = next(_told(message, start, reply.counts[0], asked.view.closed), None)
    if told is None:
        return reply, records
    kept = records[: told[1] - start]
    return Reply(wire.REFUSED, (told[0], 0, 0), kept, len(kept)), kept


def _told(message: bytes, at: int, answers: int, closed: Callable[[bytes], bytes]) -> Iterator[tuple[int, int]]:
    """Where what may be told ends, if it does: after how many answers, at which byte."""
    for number in range(answers):
        kind, end = wire.skip_record(message, at)
        if closed(name_at(message, at).lower()):
            yield number, at
        data_at = name_end(message, at) + 10
        if kind == CNAME and closed(name_at(message, data_at).lower()):
            yield number + 1, end
        at = end


def _meta(asked: Asked) -> bytes:
    """ANY gets one small record (RFC 8482); transfers and what is no record's type are not forwarded."""
    if asked.query.kind != wire.ANY:
        return error(asked, wire.REFUSED, ede=EDE_NOT_AUTHORITATIVE)
    record = wire.record(OWNER, HINFO, ANY_TTL_S, MINIMAL)
    return assembled(asked, Reply(wire.NOERROR, (1, 0, 0), record, len(record)), record)

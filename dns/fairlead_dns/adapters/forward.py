"""The forwarder: the handler of the root. It runs the flights, looks after the upstreams, and never holds up the loop."""

import asyncio
import random
import secrets
import ssl
from collections import deque
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fairlead_daemon.logs import Log
from fairlead_dns.adapters.forward_sockets import FoldedError, Streams, UnsureError, ask_udp
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Asked as Query
from fairlead_dns.decisions.forward import (
    NONE_USABLE,
    PROBE_LABEL,
    SILENT,
    TICK_S,
    UNREACHABLE,
    UNWILLING,
    Flight,
    Forwarding,
    Waiter,
    outcome_of,
)
from fairlead_dns.decisions.forward_cache import Entry, Failure
from fairlead_dns.decisions.forward_upstreams import Circuit, Group, Place, Upstream
from fairlead_dns.decisions.forward_wire import Asked, Reply, has_flag, mixed_case, read_reply

log = Log("dns")
STALE_WAIT_S = 1.8
JUST_NOW_S = 0.5
PULSE_S = 0.2
ROUNDS = 2
SLICE = 8  # flights that go out in one turn of the loop: about a millisecond
AT_ONCE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """`whole_s`: a client gets its reply within it, whatever happens. `try_s`: one upstream has that long.

    `resend_s`: after it the same upstream is asked once more, for the first may be lost.
    """

    whole_s: float = 5.0
    try_s: float = 2.0
    resend_s: float = 1.0
    stale_wait_s: float = STALE_WAIT_S


@dataclass(slots=True, eq=False)
class Forwarder:
    """`reply` is the front's Handler. `run` keeps it going; `close` ends what is under way without a reply."""

    forwarding: Forwarding
    timing: Timing = field(default_factory=Timing)
    mixed: bool = True
    """0x20: each query has a case of its own, which the reply must repeat."""
    tls: ssl.SSLContext | None = None
    asked_upstreams: int = 0
    _streams: dict[Place, Streams] = field(default_factory=dict)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _leaving: deque[Flight] = field(default_factory=deque)
    _closed: bool = False

    def reply(self, asked: Query) -> "bytes | Awaitable[bytes | None]":
        loop = asyncio.get_running_loop()
        verdict = self.forwarding.ask(asked, loop.time())
        self._launch_wanted()
        if isinstance(verdict, bytes):
            return verdict
        future: asyncio.Future[bytes | None] = loop.create_future()
        waiter = Waiter(asked, lambda reply: None if future.done() else future.set_result(reply))
        self.forwarding.join(verdict.flight, waiter)
        if verdict.stale is not None and verdict.stale.failure is None:
            timer = loop.call_later(self.timing.stale_wait_s, self._late, waiter, verdict.stale)
            future.add_done_callback(lambda _: timer.cancel())
        if verdict.new:
            self._launch(verdict.flight)
        return future

    async def run(self) -> None:
        """Ticks and probes, for ever. Every upstream is probed once at the start: it may lead back to us."""
        loop = asyncio.get_running_loop()
        for group in self.forwarding.zones.groups.values():
            for upstream in group.upstreams:
                self._spawn(self._probe(upstream, group))
        ticked_s = loop.time()
        while True:
            await asyncio.sleep(PULSE_S)
            self._probe_due(loop.time())
            if loop.time() - ticked_s >= TICK_S:
                ticked_s = loop.time()
                self.forwarding.tick(ticked_s)

    def replace(self, group: Group) -> None:
        """Other upstreams for one zone; those that stay keep what is known of them."""
        groups = {**self.forwarding.zones.groups, group.zone: group}
        self.forwarding.zones = type(self.forwarding.zones)(groups)
        for gone in set(self._streams) - {u.place for u in self.forwarding.zones.upstreams()}:
            self._streams.pop(gone).close()

    def close(self) -> None:
        self._closed = True
        self._leaving.clear()
        self.forwarding.forget_prepared()
        for task in tuple(self._tasks):
            task.cancel()
        for streams in self._streams.values():
            streams.close()

    # --- flights ------------------------------------------------------------------------------------------------------

    def _launch_wanted(self) -> None:
        while self.forwarding.wanted:
            self._launch(self.forwarding.wanted.pop())

    def _launch(self, flight: Flight) -> None:
        if self.forwarding.start(flight):
            self._leave(flight)
        else:
            asyncio.get_running_loop().call_later(self.timing.whole_s, self._expire, flight)

    def _leave(self, flight: Flight) -> None:
        """Soon: a burst of questions is sent on in slices, so that own names are answered between them."""
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self._depart)
        self._leaving.append(flight)

    def _depart(self) -> None:
        for _ in range(min(SLICE, len(self._leaving))):
            self._spawn(self._fly(self._leaving.popleft()))
        if self._leaving:
            asyncio.get_running_loop().call_soon(self._depart)

    def _expire(self, flight: Flight) -> None:
        if not flight.started and self.forwarding.flights.get(flight.key) is flight:
            self.forwarding.give_up(flight, asyncio.get_running_loop().time())

    def _late(self, waiter: Waiter, entry: Entry) -> None:
        if not waiter.given:
            self.forwarding.leave(waiter, self.forwarding.stale(waiter.asked, entry))

    async def _fly(self, flight: Flight) -> None:
        outcome: Reply | Failure = SILENT
        try:
            async with asyncio.timeout(_spread(self.timing.whole_s)):
                outcome = await self._resolve(flight)
        except TimeoutError:
            pass
        finally:  # also when cancelled, or by a bug: whoever waits is told
            following = self.forwarding.end(flight, outcome, asyncio.get_running_loop().time())
            if following is not None and not self._closed:
                self._leave(following)

    async def _resolve(self, flight: Flight) -> Reply | Failure:
        """The first useful reply of the group's upstreams."""
        race = _Race(self, flight, flight.group.order() * ROUNDS)
        try:
            return await race.run()
        finally:
            race.cancel()

    async def attempt(self, upstream: Upstream, group: Group, flight: Flight) -> Reply | Failure:
        """One upstream's reply, or why there is none; its health is kept by it."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        try:
            async with asyncio.timeout(_spread(self.timing.try_s)):
                reply = await self._ask(upstream, flight)
                if reply.rcode == wire.FORMERR and not upstream.plain:
                    upstream.plain = True
                    reply = await self._ask(upstream, flight)
                    upstream.plain = reply.useful
        except TimeoutError:
            upstream.failed(loop.time())
            return SILENT
        except OSError:
            upstream.failed(loop.time())
            return UNREACHABLE
        except wire.MalformedError:
            upstream.failed(loop.time())
            return UNWILLING
        upstream.answered(loop.time() - start_s)
        group.answered_by(upstream)
        return reply

    async def _ask(self, upstream: Upstream, flight: Flight) -> Reply:
        packet, question = await self._exchange(upstream, flight.question, do=flight.key.do, cd=flight.key.cd)
        return read_reply(packet, question, self.forwarding.terms(flight.key))

    # --- one question to one upstream ---------------------------------------------------------------------------------

    async def _exchange(self, upstream: Upstream, question: bytes, *, do: bool, cd: bool) -> tuple[bytes, bytes]:
        """A checked reply and the question it is to. Raises OSError; to be called within a timeout."""
        self.asked_upstreams += 1
        place, sent = upstream.place, self.forwarding.sent
        noticed: list[tuple[int, bytes]] = []

        def make(number: int) -> tuple[Asked, bytes]:
            asked = Asked(number, self._cased(question, upstream))
            noticed.append((number, asked.question))
            sent[noticed[-1]] = upstream
            return asked, asked.packet(do=do, cd=cd, padded=place.transport == "tls", edns=not upstream.plain)

        try:
            if place.transport == "udp":
                asked, packet = make(secrets.randbits(16))
                reply = await self._over_udp(upstream, asked, packet)
                if reply is not None:
                    return reply, asked.question
            return await self._stream(place).ask(make), noticed[-1][1]
        finally:
            for each in noticed:
                sent.pop(each, None)

    async def _over_udp(self, upstream: Upstream, asked: Asked, packet: bytes) -> bytes | None:
        """None: ask over TCP, for it is cut or not sure to be the upstream's."""
        try:
            reply = await ask_udp(upstream.place, asked, packet)
        except FoldedError:
            upstream.caseless += 1
            return None
        except UnsureError:
            return None
        if upstream.keeps_case:
            upstream.caseless = 0
        return None if has_flag(reply, wire.TC) else reply

    def _cased(self, question: bytes, upstream: Upstream) -> bytes:
        if not self.mixed or not upstream.keeps_case:
            return question
        return mixed_case(question, secrets.token_bytes(len(question)))

    def _stream(self, place: Place) -> Streams:
        streams = self._streams.get(place)
        if streams is None:
            tls = self.tls if place.transport == "tls" else None
            streams = self._streams[place] = Streams(place, tls)
        return streams

    # --- probes -------------------------------------------------------------------------------------------------------

    def _probe_due(self, now_s: float) -> None:
        for group in self.forwarding.zones.groups.values():
            for upstream in group.upstreams:
                if upstream.due(now_s):
                    self._spawn(self._probe(upstream, group))

    async def _probe(self, upstream: Upstream, group: Group) -> None:
        """A name nobody else asks for: any reply shows that the upstream lives, the name coming to us shows a loop."""
        loop = asyncio.get_running_loop()
        start_s, before, loops = loop.time(), upstream.circuit, upstream.loops
        token = self.forwarding.mark + secrets.token_hex(16).encode()[len(self.forwarding.mark) :]
        name = bytes((len(token),)) + token + PROBE_LABEL + group.zone
        upstream.probing = True
        self.forwarding.tokens[name] = upstream
        why = ""
        try:
            async with asyncio.timeout(self.timing.try_s):
                await self._exchange(upstream, name + b"\0\x10\0\1", do=False, cd=False)
            if upstream.loops == loops:
                upstream.probe_answered(loop.time() - start_s)
        except OSError as error:  # TimeoutError is one
            why = str(error) or "no answer in time"
            upstream.probe_failed(loop.time())
        finally:
            upstream.probing = False
            self.forwarding.tokens.pop(name, None)
        self._tell(upstream, before, "it leads back to this server" if upstream.loops > loops else why)

    def _tell(self, upstream: Upstream, before: Circuit, why: str) -> None:
        if upstream.circuit is Circuit.OPEN and before is not Circuit.OPEN:
            log.warning("upstream out of order", upstream=upstream.place, why=why)
        elif upstream.circuit is Circuit.CLOSED and before is Circuit.OPEN:
            log.info("upstream is back", upstream=upstream.place)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("forwarding failed", why=repr(error))


def _spread(most_s: float) -> float:
    """A little less than `most_s`: what began in one burst does not end in one, which would hold up the loop."""
    return most_s * random.uniform(0.8, 1.0)  # noqa: S311  # nothing secret hangs on it


@dataclass(slots=True, eq=False)
class _Race:
    """The tries of one flight: the next goes out when all have failed, or the last is late; two at once at most."""

    forwarder: Forwarder
    flight: Flight
    tries: list[Upstream]
    under_way: dict["asyncio.Task[Reply | Failure]", tuple[Upstream, float]] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    replies: list[Reply] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    over: bool = False

    async def run(self) -> Reply | Failure:
        if not self.tries:
            return NONE_USABLE
        while self.tries or self.under_way:
            pause_s = self._start() if self.tries and len(self.under_way) < AT_ONCE else None
            done, _ = await asyncio.wait(self.under_way, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                upstream, start_s = self.under_way.pop(task)
                result = task.result()
                if isinstance(result, Failure):
                    self.failures.append(result)
                elif result.useful:
                    self._won(start_s)
                    return result
                else:
                    self.replies.append(result)
                    self.tries = [other for other in self.tries if other is not upstream]
        return outcome_of(self.replies, self.failures)

    def cancel(self) -> None:
        """Those still asked when the time is over have failed as far as they could, unless asked just now."""
        now_s = asyncio.get_running_loop().time()
        for task, (upstream, since_s) in self.under_way.items():
            task.cancel()
            if now_s - since_s > JUST_NOW_S and not self.over:
                upstream.failed(now_s)

    def _start(self) -> float | None:
        """Asks the next; returns how long to wait before the one after it is asked as well."""
        upstream = self.tries.pop(0)
        again = id(upstream) in self.asked
        self.asked.add(id(upstream))
        task = asyncio.ensure_future(self.forwarder.attempt(upstream, self.flight.group, self.flight))
        self.under_way[task] = (upstream, asyncio.get_running_loop().time())
        if not self.tries:
            return None
        if self.tries[0] is upstream or again:
            return _spread(self.forwarder.timing.resend_s)
        return upstream.hedge_s() if self.flight.group.race else None

    def _won(self, start_s: float) -> None:
        """Those asked before the winner have been slower than it by what they were ahead."""
        self.over, now_s = True, asyncio.get_running_loop().time()
        for upstream, since_s in self.under_way.values():
            if since_s < start_s:
                upstream.overtaken(now_s - since_s, now_s)

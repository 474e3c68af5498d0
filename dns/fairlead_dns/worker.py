"""One worker process: answers at its sockets from what its parent has written. `python -m fairlead_dns.worker`, by it alone.

It reads no registry and builds no zone. When its parent is gone it goes on with the last good answers, marked stale,
until the next one sends it away.
"""

import asyncio
import gc
import math
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from prometheus_client import REGISTRY

from fairlead_daemon import logs
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_discovery.snapshots import Trust
from fairlead_dns import answer_settings
from fairlead_dns import settings as told
from fairlead_dns.adapters import shared_memory
from fairlead_dns.adapters.channel import (
    Beat,
    Changed,
    Channel,
    Counted,
    Done,
    Hello,
    KeysSet,
    Looped,
    Message,
    Serving,
    Told,
    ZoneGone,
    ZonePart,
    ZonePut,
)
from fairlead_dns.adapters.forward_setup import forwarding
from fairlead_dns.adapters.relay import Relay
from fairlead_dns.adapters.sockets import Listener, Place, close_all
from fairlead_dns.adapters.zonefiles import Unloaded
from fairlead_dns.decisions.answer import Answers
from fairlead_dns.decisions.clients import Clients
from fairlead_dns.decisions.compose import RRset
from fairlead_dns.decisions.forward import Forwarding
from fairlead_dns.decisions.front import Front, Route
from fairlead_dns.decisions.shared_zone import Read, Routes, SharedTraits, SharedZone
from fairlead_dns.decisions.static import StaticAnswers, StaticZone, zone_of
from fairlead_dns.decisions.store import Reader
from fairlead_dns.decisions.tsig import KeyRing
from fairlead_dns.metrics import Counts, DnsCollector, State
from fairlead_dns.outlived import replaced
from fairlead_dns.settings import DnsSettings
from fairlead_dns.transports import Transports, prepare, serving

log = Log("dns")
GREETING_S = 30.0
ALONE_S = 600.0
"""How long answers without anybody to keep them true are better than none."""
COUNT_S = 1.0
SILENT_S = 5.0  # our parent says something every second
SHARED = ("rate_answers", "rate_nodata", "rate_nxdomain", "rate_errors", "tcp_connections", "tcp_per_client", "waiting")
SHARED_FORWARDING = ("forward_in_flight", "forward_cache_entries", "forward_cache_mb")
SUMMED = ("_cache_entries", "_tcp_connections", "_waiting", "_in_flight", "_queued", "_cached", "_cached_bytes")
"""Gauges that are sums over all processes; every counter is."""


def share(settings: DnsSettings, of: int) -> DnsSettings:
    """What one of `of` processes may, so that together they may what the settings say: at least one of each."""
    values = {key: math.ceil(getattr(settings, key) / of) for key in (*SHARED, *SHARED_FORWARDING)}
    return msgspec.structs.replace(settings, **values)


@dataclass(slots=True)
class Worker:
    """The names as its parent tells them, and the front that answers with them. Owned by one task."""

    hello: Hello
    channel: Channel
    reader: Reader
    settings: DnsSettings = field(init=False)
    answers: Answers = field(init=False)
    front: Front = field(init=False)
    read: Read = field(init=False)
    counts: Counts = field(default_factory=Counts)
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is something to answer."""
    zones: dict[bytes, StaticAnswers] = field(default_factory=dict)
    parts: dict[bytes, list[RRset]] = field(default_factory=dict)
    """Of zones that are still coming."""
    done: int = 0
    """The last message that has been taken."""
    forwarding: Forwarding | None = None
    trust: Trust | None = None
    """As we were told last."""
    heard_s: float = 0.0

    def __post_init__(self) -> None:
        whole = msgspec.json.decode(self.hello.settings, type=DnsSettings)
        self.settings = share(whole, self.hello.of)
        authority, manner = told.authority(whole), answer_settings.manner(whole)
        self.read = Read(self.reader)
        clients = Clients(manner.localities)
        traits = SharedTraits(self.read, places=bool(manner.localities))
        zone = SharedZone(authority.apexes, self.read)
        self.answers = Answers(zone, authority, random.random, traits, clients, manner.chooser)
        self.front = Front(time.time, routes=Routes(self.read, Route(self.answers)), relay=Relay(self.hello.relay))
        if manner.localities:
            self.front.views.classify = lambda client: clients.of(client).place
        for apex in authority.apexes:
            self.front.serve(apex, self.answers)

    def take(self, message: Message) -> None:
        self.heard_s = time.monotonic()
        match message:
            case Changed():
                self._change(message)
            case ZonePart():
                self.parts.setdefault(message.apex, []).extend(message.sets)
            case ZoneGone():
                self.zones.pop(message.apex, None)
                self.front.withdraw(message.apex)
            case KeysSet():
                self.front.keys = KeyRing({key.name: key for key in message.keys})
            case Looped():
                if self.forwarding is not None:
                    self.forwarding.looped(message.probe, time.monotonic())
            case Beat():
                pass
            case _:
                raise TypeError(f"no message to a worker: {message}")
        self._tell_done(message.number)

    async def take_zone(self, message: ZonePut) -> None:
        """Makes it beside the loop, which says each second that we are there: a zone of millions takes a minute."""
        sets = self.parts.pop(message.apex, None)
        if sets is not None:
            making = asyncio.ensure_future(asyncio.to_thread(zone_of, message.apex, sets))
            while not (await asyncio.wait({making}, timeout=COUNT_S))[0]:
                self.heard_s = time.monotonic()
                self._tell_done(self.done)
            self._put(message.apex, making.result())
        else:
            self._put(message.apex, None)
        self._tell_done(message.number)

    def _tell_done(self, number: int) -> None:
        self.done = number
        self.channel.send(Done(number=number))

    def forward(self, forwarding: Forwarding) -> None:
        """Questions go out by it: a probe of another worker that comes here is told."""
        self.forwarding = forwarding
        forwarding.mark = self.hello.mark.encode()
        forwarding.sibling_looped = lambda probe: self.channel.send(Looped(number=0, probe=probe))

    def doubt(self, now_s: float) -> bool:
        """Marks the answers stale when nobody has told us anything for SILENT_S. Returns whether they are."""
        silent = now_s - self.heard_s > SILENT_S
        trust = Trust.STALE if silent else self.trust
        if self.answers.trust is not None and trust is not None and trust is not self.answers.trust:
            self.answers.changed((), serial=self.answers.serial, trust=trust)
        return silent

    def _change(self, message: Changed) -> None:
        self.read.forget()
        if message.all:
            self.answers.forget()
        if message.trust is not None:
            self.trust = message.trust
            self.answers.changed(message.names, serial=message.serial, trust=message.trust)
            self.known.set()

    def _put(self, apex: bytes, zone: StaticZone | None) -> None:
        if zone is None:
            self.front.serve(apex, Unloaded())
            return
        known = self.zones.get(apex)
        if known is not None:
            known.replace(zone)
            return
        self.zones[apex] = made = StaticAnswers(zone)
        self.front.route(apex, made.route)


def samples() -> list[tuple[str, Sequence[tuple[str, str]], float]]:
    """Those of this process that are summed over all."""
    return [
        (sample.name, sorted(sample.labels.items()), sample.value)
        for family in REGISTRY.collect()
        if family.name.startswith("fairlead_dns_")
        for sample in family.samples
        if sample.name.endswith(("_total", *SUMMED)) and sample.value
    ]


async def run(control: int, store: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for number in (signal.SIGINT, signal.SIGHUP):  # to the whole group: the parent says what follows
        signal.signal(number, signal.SIG_IGN)
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    channel = Channel(inbox.put_nowait)
    await loop.create_connection(lambda: channel, sock=socket.socket(fileno=control))
    greeting = asyncio.ensure_future(inbox.get())
    async with asyncio.timeout(GREETING_S):
        await _first(greeting, channel.lost.wait())
    if not greeting.done():  # the name server died at our birth: nobody knows us, and we know nothing
        return 1
    hello = greeting.result()
    assert isinstance(hello, Hello)
    worker = Worker(hello, channel, Reader(shared_memory.read(store)))
    logs.set_up(worker.settings.log_level)
    try:
        await _answer(worker, inbox, stop)
    except BadSettings as error:
        log.warning("worker cannot start", worker=hello.number, why=str(error))
        return 2
    return 0


async def _answer(worker: Worker, inbox: asyncio.Queue[Message], stop: asyncio.Event) -> None:
    hello = worker.hello
    followed = prepare(worker.settings, worker.front, hello.version, hello.server)
    listeners = [_listener(each) for each in hello.listeners]
    places = [str(each.place) for each in listeners if each.key in ("listen", "listen_optional")]
    hearing = asyncio.ensure_future(_hear(worker, inbox))
    await _first(worker.known.wait(), stop.wait(), worker.channel.lost.wait(), hearing)
    if stop.is_set() or not worker.known.is_set():
        return
    async with (
        serving(worker.settings, worker.front, worker.counts, followed, [listeners]) as transports,
        forwarding(worker.front, worker.settings, places) as forwards,
    ):
        close_all(listeners)  # what is served are copies: so nothing waits in a socket that nobody reads when we end
        if forwards.forwarder is not None:
            worker.forward(forwards.forwarder.forwarding)
        collector = DnsCollector(worker.counts, lambda: _state(worker, transports))
        REGISTRY.register(collector)
        gc.freeze()
        worker.channel.send(Serving(number=hello.number))
        await _first(stop.wait(), hearing, transports.run(), forwards.run(), _count(worker), _alone(worker))
    worker.channel.send(Counted(samples=samples()))
    worker.channel.close()
    await asyncio.sleep(0)


async def _first(*works: Awaitable[object]) -> None:
    """Until one of them ends; raises what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        if not isinstance(works[tasks.index(task)], asyncio.Future):  # who was begun elsewhere goes on
            task.cancel()
    for task in done:
        task.result()


async def _hear(worker: Worker, inbox: asyncio.Queue[Message]) -> None:
    while True:
        message = await inbox.get()
        if isinstance(message, ZonePut):
            await worker.take_zone(message)
        else:
            worker.take(message)


async def _count(worker: Worker) -> None:
    while True:
        await asyncio.sleep(COUNT_S)
        worker.channel.send(Counted(samples=samples()))


async def _alone(worker: Worker) -> None:
    """Until the parent has been gone for ALONE_S, or a later one stands. One that is only silent may come back."""
    silent = False
    while not worker.channel.lost.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(COUNT_S):
                await worker.channel.lost.wait()
        was, silent = silent, worker.doubt(time.monotonic())
        if silent and not was:
            log.warning("the name server is silent, its worker goes on", worker=worker.hello.number)
    worker.heard_s = -SILENT_S
    worker.doubt(time.monotonic())
    log.warning("the name server is gone, its worker goes on with the last good answers", worker=worker.hello.number)
    with suppress(TimeoutError):
        async with asyncio.timeout(ALONE_S):
            await replaced(Path(worker.hello.file), {worker.hello.mark, worker.hello.stood})


def _listener(told_: Told) -> Listener:
    stream = socket.socket(fileno=told_.stream)
    udp = socket.socket(fileno=told_.udp) if told_.udp >= 0 else None
    for each in (stream, udp):
        if each is not None:
            each.setblocking(False)
    return Listener(told_.key, told_.text, Place(told_.ip, told_.port), stream, udp)


def _state(worker: Worker, transports: Transports) -> State:
    trust = worker.answers.trust
    return State(
        serial=worker.answers.serial,
        names=0,
        cached=worker.answers.cached,
        tcp_connections=len(transports.tcp.open),
        trust=trust.value if trust else "none",
    )


def main(argv: Iterable[str]) -> int:
    control, store = map(int, argv)
    with suppress(KeyboardInterrupt):
        return asyncio.run(run(control, store))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

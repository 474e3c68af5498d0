"""The worker processes of one name server: started, told of every change, looked after; and who answers in their place.

Every worker has sockets of its own on every address, which stay open here: while it is away this process answers at
them, so that no port, no name and no datagram is lost with it.
"""

import asyncio
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice

import msgspec
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_daemon.web import Health
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
from fairlead_dns.adapters.children import Child
from fairlead_dns.adapters.relay import RelayServer
from fairlead_dns.adapters.sockets import Listener, close_all
from fairlead_dns.decisions.forward import Forwarding
from fairlead_dns.decisions.shared_zone import Published
from fairlead_dns.decisions.static import StaticZone
from fairlead_dns.decisions.store import Writer
from fairlead_dns.decisions.tsig import Key
from fairlead_dns.metrics import Elsewhere
from fairlead_dns.names import Names
from fairlead_dns.outlived import MODULE, Outlived
from fairlead_dns.settings import DnsSettings
from fairlead_dns.transports import Opening, Transports, bind_all

log = Log("dns")
BEAT_S = 1.0
SILENT_BEATS, DEAD_BEATS = 3, 10
"""So many without a word: this process answers beside it; it is ended."""
UNBORN_BEATS = 60  # nobody misses who has not answered yet: a busy machine takes long to start a process
PART = 1000  # sets of a zone in one message: a millisecond or two
CALM_S = 60.0  # who has lived so long is begun anew at once
END_S = 3.0
TAKE_OVER_S = 60.0  # who cannot start its workers answers itself, and more truly than those of before
STEP = 500
WAITING = "worker processes are not ready"
BACKOFF = Backoff(first_s=0.1, most_s=10.0)


@asynccontextmanager
async def bound(settings: DnsSettings) -> AsyncIterator[Sequence[Sequence[Listener]]]:
    """The listeners of each worker, all on the same addresses. Raises BadSettings; on the way out they are closed."""
    slots = [bind_all(settings)]
    try:
        for _ in range(1, told.worker_count(settings)):
            slots.append([])
            slots[-1] += (each.again() for each in slots[0])
        yield slots
    except OSError as error:
        if len(slots[-1]) == len(slots[0]):
            raise
        raise BadSettings(f"workers: cannot bind once more: {error}") from error
    finally:
        for slot in slots:
            close_all(slot)


@dataclass(slots=True, eq=False)
class Slot:
    """One worker's place. `opening`: this process answers at its sockets."""

    number: int
    listeners: Sequence[Listener]
    opening: Opening | None = None
    process: Child | None = None
    channel: Channel | None = None
    done: int = 0
    """The last message that it has gone on to."""
    beats: int = 0
    """Since it was last heard of."""
    serving: bool = False
    samples: Elsewhere = field(default_factory=dict)
    gone: Elsewhere = field(default_factory=dict)
    """What those before it had counted."""

    def counted(self) -> Iterator[tuple[tuple[str, tuple[tuple[str, str], ...]], float]]:
        yield from self.samples.items()
        yield from self.gone.items()

    def forget_process(self) -> None:
        for key, value in self.samples.items():
            if key[0].endswith("_total"):
                self.gone[key] = self.gone.get(key, 0) + value
        self.samples = {}
        self.process, self.channel, self.serving, self.beats = None, None, False, 0


@dataclass(slots=True, eq=False)
class Workers:
    """Owned by the daemon's loop."""

    settings: DnsSettings
    names: Names
    transports: Transports
    slots: Sequence[Slot]
    outlived: Outlived
    memory: shared_memory.Memory = field(default_factory=shared_memory.make)
    store: Writer = field(init=False)
    published: Published = field(init=False)
    relay: RelayServer = field(init=False)
    number: int = 0
    """Of the last message."""
    begun: bool = False
    restarts: int = 0
    all_serving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once all answer for the first time."""
    zones: dict[bytes, StaticZone | None] = field(default_factory=dict)
    """Of files; None: the file is wrong."""
    keys: Collection[Key] = ()
    forwarding: Forwarding | None = None
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _leaving: set[asyncio.Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.store = Writer(self.memory.view)
        names = self.names
        self.published = Published(self.store, names.zone, names.answers.traits, names.authority.ttl_s)
        self.relay = RelayServer(names.front, lambda pid: any(s.process and s.process.pid == pid for s in self.slots))

    # --- what changes -------------------------------------------------------------------------------------------------

    def changed(self, names: Collection[bytes], everything: bool) -> None:  # names.share, called by position
        """To be called after the zone and the answers have changed."""
        if not self.begun:
            return
        self.store.change = self.number + 1
        self.published.write(names)
        self._tell(self._state(names, everything=everything))

    def zone_put(self, apex: bytes, zone: StaticZone | None) -> None:
        """`zone` None: it cannot be answered for."""
        self.zones[apex] = zone
        self.number += 1
        for slot in self.slots:
            if slot.channel is not None:
                slot.channel.send_parts(_parts(self.number, apex, zone))
        self._settle()

    def zone_gone(self, apex: bytes) -> None:
        if self.zones.pop(apex, self) is not self:
            self._tell(ZoneGone(number=self.number + 1, apex=apex))

    def keys_set(self, keys: Collection[Key]) -> None:
        self.keys = tuple(keys)
        self._tell(KeysSet(number=self.number + 1, keys=self.keys))

    def _state(self, names: Collection[bytes] = (), *, everything: bool = False) -> Changed:
        answers = self.names.answers
        return Changed(
            number=self.number + 1, names=tuple(names), serial=answers.serial, trust=answers.trust, all=everything
        )

    def _tell(self, message: Message) -> None:
        self.number += 1
        for slot in self.slots:
            if slot.channel is not None:
                slot.channel.send(message)
        self._settle()

    def _settle(self) -> None:
        """What is let go in the store may be used again when all have gone on."""
        self.store.settle(min((slot.done for slot in self.slots if slot.channel is not None), default=self.number))
        self._moved.set()

    async def gone_on(self) -> None:
        """Until no process answers any more what was before now."""
        number = self.number
        await self.outlived.gone.wait()
        while any(slot.serving and slot.done < number for slot in self.slots):  # not for ever: who hangs is ended
            self._moved.clear()
            await self._moved.wait()

    # --- the processes ------------------------------------------------------------------------------------------------

    async def run(self, loaded: asyncio.Event, health: Health) -> None:
        """For ever, from when there is something to answer. Ends no process: see `close`."""
        health.wait("workers", WAITING)
        await loaded.wait()
        self.begun = True  # from here on changes are written; what was there before, step by step
        await self._fill()
        await self.relay.open()
        async with asyncio.TaskGroup() as group:
            for slot in self.slots:
                group.create_task(self._look_after(slot))
            group.create_task(self._take_over())
            await self.all_serving.wait()
            health.ready("workers")

    async def _take_over(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(TAKE_OVER_S):
                await self.all_serving.wait()
        await self.outlived.stand()

    async def close(self) -> None:
        """They answer what has come, and end; what comes meanwhile is answered here."""
        running = [slot for slot in self.slots if slot.process is not None]
        for slot in running:
            self._stand_in(slot)
        for slot in running:
            _signal(slot, signal.SIGTERM)
        waits = [asyncio.ensure_future(slot.process.wait()) for slot in running if slot.process is not None]
        if waits:
            await asyncio.wait(waits, timeout=END_S)
        for slot in running:
            _signal(slot, signal.SIGKILL)
        await asyncio.gather(*waits)
        await self.relay.close()
        self.memory.close()

    def collected(self) -> Elsewhere:
        """The sums of what all have counted."""
        found: Elsewhere = {}
        for slot in self.slots:
            for key, value in slot.counted():
                found[key] = found.get(key, 0) + value
        return found

    async def _fill(self) -> None:
        zone = self.names.zone
        names = iter({*zone.names, *zone.below})
        while some := tuple(islice(names, STEP)):
            self.store.change = self.number
            self.published.write(some)
            await asyncio.sleep(0)

    async def _look_after(self, slot: Slot) -> None:
        loop, tries = asyncio.get_running_loop(), 0
        while True:
            start_s = loop.time()
            why = await self._live(slot)
            self._stand_in(slot)
            slot.forget_process()
            self._count()
            self._settle()
            self.restarts += 1
            tries = 0 if loop.time() - start_s > CALM_S else tries + 1
            log.warning("a worker process ended, another one is started", worker=slot.number, why=why)
            await asyncio.sleep(BACKOFF.delay_s(tries, chance=random.random()))  # noqa: S311  # nothing secret hangs on it

    async def _live(self, slot: Slot) -> str:
        """One process, to its end; returns why it ended."""
        try:
            process = await self._start(slot)
        except (OSError, TimeoutError) as error:
            return str(error)
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=BEAT_S)
                self._beat(slot)
        finally:
            ended.cancel()
        return f"exit code {process.returncode}"

    async def _start(self, slot: Slot) -> Child:
        ours, theirs = socket.socketpair()
        handles = [theirs.fileno(), self.memory.handle]
        handles += [sock.fileno() for each in slot.listeners for sock in (each.stream, each.udp) if sock is not None]
        try:
            process = Child(
                (sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), str(self.memory.handle)), handles
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        slot.process = process
        await self.outlived.keep(each.process.pid for each in self.slots if each.process is not None)
        channel = Channel(lambda message: self._hear(slot, message))
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
        channel.send(self._hello(slot))
        channel.send(KeysSet(number=self.number, keys=tuple(self.keys)))
        for apex, zone in self.zones.items():
            channel.send_parts(_parts(self.number, apex, zone))
        channel.send(msgspec.structs.replace(self._state(), number=self.number))
        slot.channel, slot.done = channel, self.number
        return process

    def _hello(self, slot: Slot) -> Hello:
        return Hello(
            settings=msgspec.json.encode(self.settings),
            number=slot.number,
            of=len(self.slots),
            version=version("fairlead"),
            server=told.server_id(self.settings),
            relay=self.relay.address,
            mark=self.outlived.mark,
            stood=self.outlived.stood,
            file=str(self.outlived.file.absolute()),
            listeners=[
                Told(
                    key=each.key,
                    text=each.text,
                    ip=each.place.ip,
                    port=each.place.port,
                    stream=each.stream.fileno(),
                    udp=-1 if each.udp is None else each.udp.fileno(),
                )
                for each in slot.listeners
            ],
        )

    def _hear(self, slot: Slot, message: Message) -> None:
        match message:
            case Done():
                slot.done, slot.beats = max(slot.done, message.number), 0
                self._settle()
            case Serving():
                slot.serving = True
                log.info("a worker process answers", worker=slot.number, pid=slot.process.pid if slot.process else 0)
            case Looped():
                self._looped(message.probe)
            case Counted():
                slot.samples = {(n, tuple((k, v) for k, v in labels)): value for n, labels, value in message.samples}
                self._count()
        if slot.serving and slot.beats == 0 and slot.opening is not None:
            leaving = asyncio.ensure_future(self.transports.leave(slot.opening))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            slot.opening = None
            if all(each.serving for each in self.slots):
                self.all_serving.set()

    def _looped(self, probe: bytes) -> None:
        if self.forwarding is not None:
            self.forwarding.looped(probe, time.monotonic())
        self._tell(Looped(number=self.number + 1, probe=probe))

    def forward(self, forwarding: Forwarding) -> None:
        """Ours, for while a worker is away."""
        self.forwarding = forwarding
        forwarding.mark, forwarding.sibling_looped = self.outlived.mark.encode(), self._looped

    def _beat(self, slot: Slot) -> None:
        if slot.channel is None:
            return
        slot.beats += 1
        slot.channel.send(Beat(number=self.number))
        if slot.beats > SILENT_BEATS and slot.serving:
            self._stand_in(slot)
        if slot.beats > (DEAD_BEATS if slot.serving else UNBORN_BEATS) or (slot.serving and slot.channel.behind):
            log.warning("a worker process does not answer", worker=slot.number)
            _signal(slot, signal.SIGKILL)

    def _stand_in(self, slot: Slot) -> None:
        if slot.opening is None:
            slot.opening = self.transports.open(slot.listeners)

    def _count(self) -> None:
        elsewhere = self.transports.tcp.counts.elsewhere
        elsewhere.clear()
        elsewhere.update(self.collected())


class WorkersCollector(Collector):
    """Reads the workers when the page is asked for."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        us = self._workers
        for name, text, value in (
            ("workers", "Worker processes that answer", sum(slot.serving for slot in us.slots)),
            ("shared_bytes", "Memory of the names that worker processes share", us.store.used_bytes),
            ("workers_behind", "Changes the slowest has yet to take", us.number - min(s.done for s in us.slots)),
        ):
            yield GaugeMetricFamily(f"fairlead_dns_{name}", text, value=value)
        yield CounterMetricFamily(
            "fairlead_dns_worker_restarts", "Worker processes that ended unasked", value=us.restarts
        )


@asynccontextmanager
async def working(
    settings: DnsSettings, names: Names, transports: Transports, slots: Sequence[Sequence[Listener]], outlived: Outlived
) -> AsyncIterator[Workers | None]:
    """None: one process does everything. On the way out they end."""
    if len(slots) == 1:
        yield None
        return
    places = [Slot(number, each, transports.openings[number]) for number, each in enumerate(slots)]
    workers = Workers(settings, names, transports, places, outlived)
    names.share = workers.changed
    collector = WorkersCollector(workers)
    REGISTRY.register(collector)
    try:
        yield workers
    except Exception:  # a bug: they answer until the next one has begun
        log.exception("the name server crashes, its workers go on")
        raise
    except BaseException:
        await workers.close()
        raise
    else:
        await workers.close()
    finally:
        REGISTRY.unregister(collector)


def _parts(number: int, apex: bytes, zone: StaticZone | None) -> Iterator[Message]:
    """Message `number` in pieces. Who has gone on to a piece has gone on to the message before."""
    sets = iter(()) if zone is None else zone.sets()
    while some := tuple(islice(sets, PART)):
        yield ZonePart(number=number - 1, apex=apex, sets=some)
    yield ZonePut(number=number, apex=apex)


def _signal(slot: Slot, number: int) -> None:
    if slot.process is not None:
        slot.process.send(number)

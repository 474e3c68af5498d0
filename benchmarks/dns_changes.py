"""Figures of `fairlead dns` that are about change: published -> answered, a cold start, one change in a large zone."""

import asyncio
import random
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dns_servers import (
    REGISTRIES,
    cpu_s,
    dns_server,
    dnsperf,
    endpoint,
    endpoints,
    fill,
    name,
    number,
    questions,
    resident_mb,
    warm,
    workplace,
)

from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Member
from fairlead_discovery.registry import Registry
from harness.names import DnsDaemon, opt, publish, query, withdraw
from harness.waiting import eventually

STAYS_S = 1.5
COMING = 200
"""Number of an endpoint that comes and goes: above those that stay."""


# --- published -> answered --------------------------------------------------------------------------------------------


class Asker(asyncio.DatagramProtocol):
    """Asks one question after another over one socket; a reply is found by its id."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, _addr: object) -> None:
        future = self.waiting.pop(int.from_bytes(data[:2], "big"), None)
        if future is not None and not future.done():
            future.set_result(data)

    async def ask(self, what: str) -> bytes:
        """b"" when nothing comes within a second."""
        self.asked = (self.asked + 1) % 65536
        future = self.waiting[self.asked] = asyncio.get_running_loop().create_future()
        self.transport.sendto(query(what, number=self.asked, opt=opt()))
        try:
            async with asyncio.timeout(1):
                return await future
        except TimeoutError:
            return b""


@dataclass(slots=True)
class Changing:
    """`came` and `went`: seconds from before the write is sent until the answer says so; `written`: until the registry
    has said that it has it.
    """

    registry: Registry
    asker: Asker
    came: list[float] = field(default_factory=list)
    went: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)

    async def life(self, service: int, serial: int) -> None:
        """One endpoint more, and after a while no more, each timed."""
        one = endpoint(service, COMING, f"172.{16 + serial // 62500}.{serial // 250 % 250}.{serial % 250 + 1}")
        await self._timed(one, publish, self.came, there=True)
        await asyncio.sleep(STAYS_S)
        await self._timed(one, withdraw, self.went, there=False)

    async def _timed(
        self, one: Member, change: Callable[[Registry, Member], Awaitable[int]], took: list[float], *, there: bool
    ) -> None:
        asked, address = f"{one.task.name}.marathon.mesos", socket.inet_aton(one.ips.host[0])
        start_s = time.perf_counter()
        writing = asyncio.ensure_future(change(self.registry, one))
        writing.add_done_callback(lambda _: self.written.append(time.perf_counter() - start_s))

        async def so() -> bool:
            reply = await self.asker.ask(asked)
            return bool(reply) and (address in reply) is there

        await eventually("it is answered", so, every_s=0.001, within_s=60)
        took.append(time.perf_counter() - start_s)
        await writing


@dataclass(frozen=True, slots=True)
class Pace:
    """`rate`: queries/s; `changes`: a second, half of them new endpoints."""

    seconds: int
    rate: int
    changes: int


def published(sizes: Sequence[tuple[int, int]], registries: Sequence[str], pace: Pace) -> None:
    """`sizes`: services and endpoints each."""
    for kind in registries:
        for services, each in sizes:
            with workplace() as folder, REGISTRIES[kind](folder) as url:
                fill(url, endpoints(services, each))
                with dns_server(folder, url, services=services) as server:
                    file = questions(folder, services)
                    warm(server.port, file, each)
                    print(f"\n{kind}: {services:,} services x {each} endpoints", flush=True)
                    asyncio.run(_published(url, server, file, services, pace))


async def _published(url: str, server: DnsDaemon, file: Path, services: int, pace: Pace) -> None:
    registry = await open_registry(url)
    loop = asyncio.get_running_loop()
    _, asker = await loop.create_datagram_endpoint(Asker, remote_addr=("127.0.0.1", server.port))
    changing = Changing(registry, asker)
    command = dnsperf(server.port, file, "-l", str(pace.seconds + 3), rate=pace.rate)
    flood = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.sleep(1)
        begun_s, before_s = loop.time(), cpu_s(server.pid)
        lives: list[asyncio.Task[None]] = []
        while loop.time() < begun_s + pace.seconds:
            lives.append(asyncio.ensure_future(changing.life(len(lives) % services, len(lives))))
            await asyncio.sleep(random.expovariate(pace.changes / 2))
        busy = (cpu_s(server.pid) - before_s) / (loop.time() - begun_s)
        await asyncio.gather(*lives)
        text = (await flood.communicate())[0].decode()
    finally:
        if flood.returncode is None:
            flood.kill()
    await registry.close()
    print(
        f"  meanwhile {number(text, 'Queries per second:'):,.0f} queries/s ({number(text, 'Queries lost:'):.0f} lost),"
        f" about {pace.changes} changes/s at random, the server's CPU {busy:.0%} busy"
    )
    for what, took, aim in (
        ("published -> answered", changing.came, "  (aim: p99 under 20)"),
        ("withdrawn -> no longer answered", changing.went, "  (aim: p99 under 20)"),
        ("of it: the registry's commit", changing.written, ""),
    ):
        cuts = statistics.quantiles((t * 1000 for t in took), n=100)
        print(
            f"  {what:32} p50 {cuts[49]:6.2f}  p99 {cuts[98]:6.2f}  most {max(took) * 1000:6.2f} ms of {len(took)}{aim}",
            flush=True,
        )


# --- a cold start -----------------------------------------------------------------------------------------------------


def cold(services: int, each: int) -> None:
    """From ZooKeeper, with nothing on disk."""
    with workplace() as folder, REGISTRIES["zookeeper"](folder) as url:
        begun_s = time.monotonic()
        fill(url, endpoints(services, each))
        print(
            f"\n{services * each:,} endpoints in {services:,} services, published in {time.monotonic() - begun_s:.1f} s"
        )
        begun_s = time.monotonic()
        with dns_server(folder, url, services=services) as server:
            took_s = time.monotonic() - begun_s
            known = len(server.ask(name(services - 1), opt=opt()).rr)
            print(
                f"  start -> ready   {took_s:6.1f} s    (aim: under 15), {cpu_s(server.pid):.1f} s of it CPU;"
                f" the last service has {known} addresses"
            )
            time.sleep(5)  # what is done once the names are there
            print(
                f"  resident memory  {resident_mb(server.pid):6.0f} MB   (aim: under 600),"
                f" at most {resident_mb(server.pid, 'VmHWM'):.0f} MB"
            )


# --- one change in a large zone ---------------------------------------------------------------------------------------


def change(sizes: Sequence[tuple[int, int]], *, changes: int) -> None:
    """The server's CPU for one change, the idle server's taken off, in a small zone and in a large one."""
    costs = []
    for services, each in sizes:
        with workplace() as folder, REGISTRIES["local"](folder) as url:
            fill(url, endpoints(services, each))
            with dns_server(folder, url, services=services) as server:
                costs.append(asyncio.run(_change(url, server, services, changes)))
                print(f"  among {services * each:7,} endpoints  {costs[-1] * 1e6:7.0f} µs CPU a change", flush=True)
    print(f"  ratio {costs[-1] / costs[0]:23.2f}  (aim: does not grow with the zone)")


async def _change(url: str, server: DnsDaemon, services: int, changes: int) -> float:
    registry = await open_registry(url)
    await asyncio.sleep(8)  # what is done once the names are there
    took: list[float] = []
    for busy in (False, True):
        before_s = cpu_s(server.pid)
        for serial in range(changes):
            if busy:
                one = endpoint(serial // 2 % services, COMING)
                await (withdraw if serial % 2 else publish)(registry, one)
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        took.append(cpu_s(server.pid) - before_s)
    await registry.close()
    return (took[1] - took[0]) / changes

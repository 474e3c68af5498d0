"""Figures of the registry.

    python benchmarks/registry.py                 all of them
    python benchmarks/registry.py cold            100,000 endpoints in 2,000 services: a reader's cold start, its memory
    python benchmarks/registry.py reaches         write -> a reader in another process has it, 1,000 services, 100 changes/s
    python benchmarks/registry.py publish         20,000 endpoints published, beside bare pipelined kazoo
    python benchmarks/registry.py local           durable commits/s with 8 writers; write -> another process has it

`cold` and `publish` are of ZooKeeper, `reaches` of both. `--small` takes a tenth of every size. The server, the writer
and the reader are processes of their own on loopback; times are CLOCK_MONOTONIC, which all processes share.
"""

import argparse
import asyncio
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kazoo.client import KazooClient

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Address, Member, TaskRef, encode
from fairlead_discovery.registry import Create, Delete
from harness.servers import Server
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

RUN = "import sys; from fairlead_discovery.registryd import DAEMON; from fairlead_daemon.main import main; sys.exit(main(DAEMON, sys.argv[1:]))"
BATCH = 100
"""Endpoints a commit when publishing: what the master's publisher takes at a time."""
IN_FLIGHT = 16
FIRST = 100_001
"""Above all ports of `fill`: what is written while time is taken carries its number as its port."""


def member(service: str, number: int) -> Create:
    task = TaskRef(
        id=f"{service[2:]}.{number}", name="web", framework="bench", framework_id="f-1", agent=f"a{number % 200}"
    )
    address = Address(host=f"10.1.{number % 200}.7", port=31000 + number % 1000)
    data = encode(Member(serviceEndpoint=address, task=task, status="ALIVE", zone="z1"))
    return Create(paths.member(service, paths.member_name(task.id, data)), data)


@contextmanager
def local(folder: Path) -> Iterator[str]:
    url = f"local:{folder}/r.sock"
    command = [sys.executable, "-c", RUN, "--set", f"registry={url}", "--set", f"data_dir={folder}/d"]
    server = Server([*command, "--set", "token=off"], log=folder / "registry.log").start()
    wait_until("the registry", (folder / "r.sock").exists)
    try:
        yield url
    finally:
        server.stop()


@contextmanager
def zookeeper(folder: Path) -> Iterator[str]:
    server = ZooKeeper(folder)
    server.server.command = ["-Xmx512m" if word.startswith("-Xmx") else word for word in server.server.command]
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def said(name: str, values: Sequence[float]) -> None:
    """Milliseconds."""
    shares = "  ".join(f"p{share:g} {1000 * quantile(values, share / 100):.1f}" for share in (50, 90, 99, 100))
    print(f"{name}: {shares} ms over {len(values)}", flush=True)


async def fill(registry: ComposedRegistry, services: int, each: int) -> float:
    """Endpoints/s."""
    waiting = deque(f"b:/svc/{n}" for n in range(services))
    start_s = time.monotonic()

    async def work() -> None:
        while waiting:
            held = [waiting.popleft() for _ in range(min(len(waiting), max(1, BATCH // each)))]
            await registry.commit([member(service, n) for service in held for n in range(each)])

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return services * each / (time.monotonic() - start_s)


# --- cold


async def read_cold(url: str, endpoints: int) -> None:
    """In a process of its own: seconds and bytes per endpoint, as JSON."""
    await asyncio.sleep(0)
    before_kib = resident_kib()
    start_s = time.monotonic()
    registry = await open_registry(url)
    async for snapshot in snapshots(registry):
        if sum(map(len, snapshot.members.values())) == endpoints:
            seconds = time.monotonic() - start_s
            bytes_each = 1024 * (resident_kib() - before_kib) / endpoints
            peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps({"seconds": seconds, "bytes": bytes_each, "peak_kib": peak_kib}), flush=True)
            break
    await registry.close()


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


async def cold(url: str, scale: int) -> None:
    services, each = 2000 // scale, 50
    registry = await open_registry(url)
    rate = await fill(registry, services, each)
    print(f"filled with {services * each} endpoints: {rate:.0f}/s", flush=True)
    for _ in range(3):
        done = await asyncio.to_thread(child, "read", url, str(services * each))
        facts = json.loads(done)
        print(
            f"cold start, {services * each} endpoints in {services} services: {facts['seconds']:.2f} s, "
            f"{facts['bytes']:.0f} bytes per endpoint, peak {facts['peak_kib'] // 1024} MiB",
            flush=True,
        )
    await registry.close()


def child(*words: str) -> str:
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    return done.stdout


# --- reaches


async def read_arrivals(url: str) -> None:
    """In a process of its own: a line for each new port seen, with the time; until stdin ends."""
    registry = await open_registry(url)
    known: dict[str, object] = {}
    print("ready", flush=True)
    async for snapshot in snapshots(registry):
        now_s = time.monotonic()
        fresh = []
        for service, members in snapshot.members.items():
            if known.get(service) is not members:
                fresh += [m.serviceEndpoint.port for m in members.values() if m.serviceEndpoint.port >= FIRST]
                known[service] = members
        if fresh:
            print(json.dumps([now_s, fresh]), flush=True)


async def reaches(url: str, scale: int, *, rate: float = 100.0, seconds: float = 10.0) -> None:
    services = 1000 // scale
    writer = await open_registry(url)
    await fill(writer, services, 5)
    reader = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "arrivals", url, stdout=asyncio.subprocess.PIPE, limit=1 << 26
    )
    assert reader.stdout is not None
    await reader.stdout.readline()
    await asyncio.sleep(2.0)
    written: dict[int, float] = {}
    arrived: dict[int, float] = {}

    async def listen() -> None:
        assert reader.stdout is not None
        while line := await reader.stdout.readline():
            then_s, numbers = json.loads(line)
            for number in numbers:
                arrived.setdefault(number, then_s)

    listening = asyncio.create_task(listen())
    last: dict[str, str] = {}

    async def change(number: int) -> None:
        service = f"b:/svc/{number % services}"
        made = numbered(service, number)
        gone = [Delete(last[service])] if service in last else []
        last[service] = made.path
        written[FIRST + number] = time.monotonic()
        await writer.commit([made, *gone])

    await paced(change, rate=rate, seconds=seconds)
    await asyncio.sleep(1.0)
    reader.terminate()
    await listening
    await reader.wait()
    said(
        f"write -> reader has it, {services} services, {rate:g} changes/s", [arrived[n] - w for n, w in written.items()]
    )
    await writer.close()


def numbered(service: str, number: int) -> Create:
    task = TaskRef(id=f"{service[2:]}.x{number}", name="web", framework="bench", framework_id="f-1", agent="a")
    address = Address(host="10.1.0.7", port=FIRST + number)
    data = encode(Member(serviceEndpoint=address, task=task, status="ALIVE"))
    return Create(paths.member(service, paths.member_name(task.id, data)), data)


async def paced(change: Callable[[int], Awaitable[None]], *, rate: float, seconds: float) -> None:
    start_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for n in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start_s + n / rate - time.monotonic()))
            group.create_task(change(n))


# --- publish


async def publish(url: str, scale: int) -> None:
    """The rival writes the same nodes, one create each, all pipelined, in the same run."""
    services, each = 2000 // scale, 10
    ours, theirs = [], []
    for round_ in range(3):
        registry = await open_registry(f"{url}/ours{round_}")
        ours.append(await fill(registry, services, each))
        await registry.close()
        theirs.append(await asyncio.to_thread(bare, url.removeprefix("zk://"), f"/theirs{round_}", services, each))
    print(f"publishing {services * each} endpoints: {max(ours):.0f}/s ({', '.join(f'{r:.0f}' for r in ours)})")
    print(f"bare pipelined kazoo: {max(theirs):.0f}/s ({', '.join(f'{r:.0f}' for r in theirs)})")
    print(f"ratio of the medians: {sorted(ours)[1] / sorted(theirs)[1]:.2f}", flush=True)


def bare(hosts: str, root: str, services: int, each: int) -> float:
    client = KazooClient(hosts)
    client.start()
    start_s = time.monotonic()
    client.ensure_path(root + paths.ENDPOINTS)
    folders = [client.create_async(f"{root}{paths.endpoint_folder(f'b:/svc/{n}')}") for n in range(services)]
    nodes = [(m.path, m.data) for s in range(services) for m in (member(f"b:/svc/{s}", n) for n in range(each))]
    made = [client.create_async(root + path, data) for path, data in nodes]
    for result in (*folders, *made):
        result.get()
    rate = services * each / (time.monotonic() - start_s)
    client.stop()
    client.close()
    return rate


# --- local


async def commits(url: str, scale: int) -> None:
    """Eight writers, each a session of its own, one commit after another."""
    registries = [await open_registry(url) for _ in range(8)]
    seconds = 5.0 / scale
    counts = [0] * len(registries)
    end_s = time.monotonic() + seconds

    async def write(index: int) -> None:
        while time.monotonic() < end_s:
            await registries[index].commit([numbered(f"b:/w/{index}", counts[index])])
            counts[index] += 1

    await asyncio.gather(*(write(index) for index in range(len(registries))))
    print(f"durable commits, {len(registries)} writers: {sum(counts) / seconds:.0f}/s", flush=True)
    for registry in registries:
        await registry.close()


async def run(what: str, scale: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fb-", dir="/tmp"))
    try:
        if what in {"cold", "publish", "reaches", "all"}:
            with zookeeper(folder / "z") as url:
                if what in {"publish", "all"}:
                    await publish(url, scale)
                if what in {"reaches", "all"}:
                    print("zookeeper:", end=" ")
                    await reaches(f"{url}/reaches", scale)
                if what in {"cold", "all"}:
                    await cold(f"{url}/cold", scale)
        if what in {"local", "reaches", "all"}:
            with local(folder) as url:
                if what in {"local", "all"}:
                    await commits(url, scale)
                print("local:", end=" ")
                await reaches(url, scale)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    if sys.argv[1:2] == ["read"]:
        asyncio.run(read_cold(sys.argv[2], int(sys.argv[3])))
    elif sys.argv[1:2] == ["arrivals"]:
        asyncio.run(read_arrivals(sys.argv[2]))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("what", nargs="?", default="all", choices=["all", "cold", "reaches", "publish", "local"])
        parser.add_argument("--small", action="store_true", help="a tenth of every size")
        given = parser.parse_args()
        asyncio.run(run(given.what, 10 if given.small else 1))


if __name__ == "__main__":
    main()

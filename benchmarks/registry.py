"""Figures of the registry.

    python benchmarks/registry.py                 all of them
    python benchmarks/registry.py cold            100,000 endpoints in 2,000 services: a reader's cold start, its memory
    python benchmarks/registry.py reaches         write -> a reader in another process has it, 1,000 services, 100 changes/s
    python benchmarks/registry.py publish         20,000 endpoints published, beside bare pipelined kazoo
    python benchmarks/registry.py grown           the same among 100,000 endpoints: what one change costs a reader
    python benchmarks/registry.py large           one service of 10,000 members: cold start, and what one change costs
    python benchmarks/registry.py local           durable commits/s with 8 writers; write -> another process has it

`publish` is of ZooKeeper, the others of both. `--small` takes a tenth of every size. The server, the writer and the
reader are processes of their own on loopback; times are CLOCK_MONOTONIC, which all processes share. Beside arrivals
stands what the machine itself takes at the same pace: a line through a pipe to another process, and, on ZooKeeper,
bare kazoo with one watch a folder. CPU is the reader's own: on a busy machine it says more than the clock.
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
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kazoo.client import KazooClient

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.decisions.delta import differing
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
    folder.mkdir(exist_ok=True)
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
    all_of_it = ((f"b:/svc/{service}", n) for service in range(services) for n in range(each))
    size = max(each, BATCH // each * each) if 0 < each <= BATCH else BATCH
    waiting = deque(iter(lambda: [member(service, n) for service, n in islice(all_of_it, size)], []))
    start_s = time.monotonic()

    async def work() -> None:
        while waiting:
            await registry.commit(waiting.popleft())

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return services * each / (time.monotonic() - start_s)


# --- cold


async def read_cold(url: str, endpoints: int) -> None:
    """In a process of its own: seconds and bytes per endpoint, as JSON."""
    await asyncio.sleep(0)
    before_kib = resident_kib()
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    registry = await open_registry(url)
    async for snapshot in snapshots(registry):
        if sum(map(len, snapshot.members.values())) == endpoints:
            facts = {
                "seconds": time.monotonic() - start_s,
                "cpu_s": time.process_time() - start_cpu_s,
                "bytes": 1024 * (resident_kib() - before_kib) / endpoints,
                "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            }
            print(json.dumps(facts), flush=True)
            break
    await registry.close()


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


async def cold(url: str, services: int, each: int, *, rounds: int = 3) -> None:
    registry = await open_registry(url)
    rate = await fill(registry, services, each)
    print(f"filled with {services * each} endpoints: {rate:.0f}/s", flush=True)
    for _ in range(rounds):
        done = await asyncio.to_thread(child, "read", url, str(services * each))
        facts = json.loads(done)
        print(
            f"cold start, {services * each} endpoints in {services} services: {facts['seconds']:.2f} s, "
            f"{facts['cpu_s']:.2f} s of CPU, {facts['bytes']:.0f} bytes per endpoint, peak {facts['peak_kib'] // 1024} MiB",
            flush=True,
        )
    await registry.close()


def child(*words: str) -> str:
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    return done.stdout


# --- reaches


async def read_arrivals(url: str) -> None:
    """In a process of its own: a line for new ports seen, with the time and the CPU time until then."""
    registry = await open_registry(url)
    before: Mapping[str, Mapping[str, Member]] = {}
    print("ready", flush=True)
    async for snapshot in snapshots(registry):
        now_s = time.monotonic()
        fresh = []
        for service in differing(before, snapshot.members, snapshot.delta):
            old, new = before.get(service, {}), snapshot.members.get(service, {})
            fresh += [n.serviceEndpoint.port for name in new.keys() - old.keys() if (n := new[name])]
        before = snapshot.members
        if fresh:
            print(json.dumps([now_s, fresh, time.process_time()]), flush=True)


async def reaches(url: str, services: int, each: int, *, rate: float = 100.0, seconds: float = 10.0) -> None:
    writer = await open_registry(url)
    await fill(writer, services, each)
    last: dict[str, str] = {}

    async def change(number: int) -> None:
        service = f"b:/svc/{number % services}"
        made = numbered(service, number)
        gone = [Delete(last[service])] if service in last and services > 1 else []  # a single one's would be coalesced
        last[service] = made.path
        await writer.commit([made, *gone])

    what = f"write -> reader has it, {services} services of {each}, {rate:g} changes/s"
    await arrivals(what, ("arrivals", url), change, rate=rate, seconds=seconds)
    await writer.close()


async def arrivals(
    what: str, reader_words: Sequence[str], change: Callable[[int], Awaitable[None]], *, rate: float, seconds: float
) -> None:
    """Makes changes at that rate, and says how long each took to reach a reader, and what that took of CPU."""
    pipe = asyncio.subprocess.PIPE
    reader = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *reader_words, stdin=pipe, stdout=pipe, limit=1 << 26
    )
    assert reader.stdout is not None
    await reader.stdout.readline()
    await asyncio.sleep(2.0)
    written: dict[int, float] = {}
    arrived: dict[int, float] = {}
    cpu_s: list[float] = []

    async def listen() -> None:
        assert reader.stdout is not None
        while line := await reader.stdout.readline():
            then_s, numbers, used_s = json.loads(line)
            cpu_s.append(used_s)
            for number in written.keys() & set(numbers):  # not what others wrote before
                arrived.setdefault(number, then_s)

    async def write(number: int) -> None:
        written[FIRST + number] = time.monotonic()
        if reader_words[0] == "echo":
            assert reader.stdin is not None
            reader.stdin.write(b"%d\n" % (FIRST + number))
        else:
            await change(number)

    listening = asyncio.create_task(listen())
    await paced(write, rate=rate, seconds=seconds)
    await asyncio.sleep(1.0)
    reader.terminate()
    await listening
    await reader.wait()
    said(what, [arrived[n] - w for n, w in written.items()])
    print(f"  the reader's CPU: {1000 * (cpu_s[-1] - cpu_s[0]) / len(written):.2f} ms a change", flush=True)


async def floor() -> None:
    """What the machine takes now: a line through a pipe to another process."""

    async def change(_: int) -> None:
        raise AssertionError("a line needs no registry")

    await arrivals("  the same pace, a line through a pipe", ("echo",), change, rate=100.0, seconds=3.0)


def echo() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps([time.monotonic(), [int(line)], time.process_time()]), flush=True)


async def bare_reaches(hosts: str, services: int) -> None:
    """The rival: kazoo alone on both ends, one child watch a folder, each new node read once; no revision, no trust."""
    client = KazooClient(hosts)
    await asyncio.to_thread(client.start)
    for n in range(services):
        await asyncio.to_thread(client.ensure_path, f"/bare/{n}")

    async def change(number: int) -> None:
        made = numbered("b:/bare", number)
        client.create_async(f"/bare/{number % services}/{number}", made.data)

    what = f"  bare kazoo, {services} folders, 100 changes/s"
    await arrivals(what, ("bare", hosts, str(services)), change, rate=100.0, seconds=10.0)
    await asyncio.to_thread(client.stop)


def read_bare(hosts: str, services: int) -> None:
    client = KazooClient(hosts)
    client.start()
    known: dict[str, set[str]] = {}

    def look(folder: str) -> None:
        client.get_children_async(folder, lambda _: look(folder)).rawlink(lambda r: compare(folder, r.value or []))

    def compare(folder: str, names: Sequence[str]) -> None:
        for name in set(names) - known.setdefault(folder, set()):
            known[folder].add(name)
            client.get_async(f"{folder}/{name}").rawlink(lambda r: tell(json.loads(r.value[0])))

    def tell(record: dict[str, dict[str, int]]) -> None:
        now = [time.monotonic(), [record["serviceEndpoint"]["port"]], time.process_time()]
        sys.stdout.write(json.dumps(now) + "\n")
        sys.stdout.flush()

    for n in range(services):
        look(f"/bare/{n}")
    print("ready", flush=True)
    sys.stdin.read()


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


async def of_zookeeper(what: str, folder: Path, scale: int) -> None:
    with zookeeper(folder) as url:
        if what in {"publish", "all"}:
            await publish(url, scale)
        if what in {"reaches", "all"}:
            await reaches(f"{url}/reaches", 1000 // scale, 5)
            await bare_reaches(url.removeprefix("zk://"), 1000 // scale)
            await floor()
        if what in {"large", "all"}:
            await cold(f"{url}/large", 1, 10_000 // scale, rounds=1)
            await reaches(f"{url}/large", 1, 0, rate=20.0)
        if what in {"cold", "all"}:
            await cold(f"{url}/cold", 2000 // scale, 50)
        if what in {"grown", "all"}:
            await reaches(f"{url}/grown", 2000 // scale, 50)


async def of_local(what: str, folder: Path, scale: int) -> None:
    with local(folder) as url:
        if what in {"local", "all"}:
            await commits(url, scale)
        if what in {"reaches", "local", "all"}:
            await reaches(url, 1000 // scale, 5)
            await floor()
    if what in {"large", "all"}:
        with local(folder / "large") as url:
            await cold(url, 1, 10_000 // scale, rounds=1)
            await reaches(url, 1, 0, rate=20.0)
    if what in {"cold", "all"}:
        with local(folder / "cold") as url:
            await cold(url, 2000 // scale, 50)
    if what in {"grown", "all"}:
        with local(folder / "grown") as url:
            await reaches(url, 2000 // scale, 50)


async def run(what: str, scale: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fb-", dir="/tmp"))
    try:
        if what != "local":
            print("--- zookeeper", flush=True)
            await of_zookeeper(what, folder / "z", scale)
        if what != "publish":
            print("--- local", flush=True)
            await of_local(what, folder, scale)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    match sys.argv[1:]:  # first what runs in processes of its own
        case ["read", url, endpoints]:
            asyncio.run(read_cold(url, int(endpoints)))
        case ["arrivals", url]:
            asyncio.run(read_arrivals(url))
        case ["bare", hosts, folders]:
            read_bare(hosts, int(folders))
        case ["echo"]:
            echo()
        case _:
            parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
            choices = ["all", "cold", "reaches", "grown", "large", "publish", "local"]
            parser.add_argument("what", nargs="?", default="all", choices=choices)
            parser.add_argument("--small", action="store_true", help="a tenth of every size")
            given = parser.parse_args()
            asyncio.run(run(given.what, 10 if given.small else 1))


if __name__ == "__main__":
    main()

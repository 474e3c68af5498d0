"""`fairlead lb` at 1,000 services of 10 endpoints each, beside a HAProxy whose configuration was written by hand.

    python benchmarks/routes_scale.py             the controller's figures in one run, as a table: `latency`, `changes`,
                                                  `services`; about three minutes (--registry local, or zk)
    python benchmarks/routes_scale.py latency     an endpoint is published -> HAProxy sends it a request, one at a time
    python benchmarks/routes_scale.py changes     100 endpoint changes a second: the daemon's CPU, its memory, reloads,
                                                  and whether each change was applied
    python benchmarks/routes_scale.py services    100 new services, one after the other: reloads
    python benchmarks/routes_scale.py status      how long `/status` takes, and how long others' requests wait meanwhile
    python benchmarks/routes_scale.py beside      requests a second and p99 through fairlead's HAProxy, and through one
                                                  with the same services in a hand-written file (`use_backend` by a map,
                                                  the same servers); backends are a HAProxy's `return`, load is wrk

The registry is a process of its own, as everything else; members are swapped as the master does it. A client asks for a
new endpoint every millisecond, so a figure of latency has up to two of it that are the client's.
"""

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import routes
from routes import Place, end, local_registry, put, zookeeper

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Leaving, Reason, encode
from fairlead_discovery.registry import Delete, Put, Registry
from harness.balancer import Task, fetch, route
from harness.ports import free_port
from harness.servers import Server, require
from harness.waiting import eventually

OPENED = {"local": local_registry, "zk": zookeeper}
TABLE = ("latency", "changes", "services")
OPEN_RECORDS = 100
"""Tasks that are being killed."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LATENCY = re.compile(r"99%\s+([\d.]+)(us|ms|s)")
RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
IN_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Figure:
    """A line of the table; `most`: the aim."""

    name: str
    value: float
    unit: str
    most: float | None = None

    def line(self) -> str:
        aim = "" if self.most is None else f"{self.most:g} {self.unit}"
        verdict = "" if self.most is None else "met" if self.value <= self.most else "MISSED"
        return f"| {self.name:<66} | {f'{self.value:.1f} {self.unit}':>12} | {aim:>12} | {verdict:<6} |"


def table(figures: Sequence[Figure]) -> str:
    head = f"| {'figure':<66} | {'measured':>12} | {'at most':>12} | {'':<6} |"
    return "\n".join((head, f"|{'-' * 68}|{'-' * 14}|{'-' * 14}|{'-' * 8}|", *(one.line() for one in figures)))


def spread(name: str, took_ms: Sequence[float], median: float | None = None, p99: float | None = None) -> list[Figure]:
    ordered = sorted(took_ms)
    return [
        Figure(f"{name}: median", statistics.median(ordered), "ms", median),
        Figure(f"{name}: p99 of {len(ordered)}", ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], "ms", p99),
        Figure(f"{name}: worst", ordered[-1], "ms"),
    ]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_mb(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def latency(place: Place, registry: Registry, arguments: argparse.Namespace) -> list[Figure]:
    """One at a time; each begins once the last is applied, and its predecessor withdrawn."""
    await place.settled()
    took, lost = [], 0
    before = reloads(place)
    for number in range(arguments.published):
        try:
            took.append(await routes.one(place, registry, number))
        except AssertionError:  # not within 30 s
            lost += 1
    return [
        *spread("endpoint published -> its first request", took, 10.0, 50.0),
        Figure("endpoints that never got one", lost, "", 0),
        Figure("reloads meanwhile", reloads(place) - before, "", 0),
    ]


def reloads(place: Place) -> int:
    return int(str(place.status()["reloads"]))


async def changes(place: Place, registry: Registry, port: int, arguments: argparse.Namespace) -> list[Figure]:
    """A member in, another out, with its leaving record: one commit is one change of an endpoint."""
    pid = place.lb.process.pid
    await place.settled()
    idle = cpu_s(pid)
    await asyncio.sleep(10)
    idle = cpu_s(pid) - idle
    before, were, begin = cpu_s(pid), reloads(place), time.monotonic()
    last: dict[str, Put] = {}
    records: deque[str] = deque()
    revision = 0
    for number in range(arguments.changes):
        app = f"/bench/web{number % arguments.services}"
        old = last.get(app) or put(f"{number % arguments.services}-0", port, app)
        new = put(f"n{number}", port, app)
        task = old.path.rpartition("member_")[2].rpartition("_")[0]
        record = Leaving(task=task, service=f"marathon:{app}", member="m", reason=Reason.SCALE, deadline_s=4e9)
        records.append(paths.leaving(task))
        over = [Delete(records.popleft())] if len(records) > OPEN_RECORDS else []
        revision = await registry.commit([new, Delete(old.path), Put(paths.leaving(task), encode(record)), *over])
        last[app] = new
        if (wait := begin + (number + 1) / arguments.rate - time.monotonic()) > 0:
            await asyncio.sleep(wait)
    took = time.monotonic() - begin
    used = cpu_s(pid) - before
    await place.applied(registry, revision)
    rate = arguments.changes / took
    per_1000 = (reloads(place) - were) / arguments.changes * 1000
    return [
        Figure("the daemon's CPU at rest, of a core", idle * 10, "%"),
        Figure(f"the daemon's CPU at {rate:.0f} endpoint changes a second, of a core", used / took * 100, "%", 30.0),
        Figure("the daemon's CPU for one change", used / arguments.changes * 1000, "ms"),
        Figure("applied after the last of them", (time.monotonic() - begin - took) * 1000, "ms"),
        Figure("reloads per 1,000 endpoint changes", per_1000, "", 0),
        Figure("the daemon's memory", memory_mb(pid), "MB", 200.0),
    ]


async def services(place: Place, registry: Registry, port: int) -> list[Figure]:
    """Each is waited for: 200 through HAProxy by its host."""
    await place.settled()
    before, cpu = reloads(place), cpu_s(place.lb.process.pid)
    took = []
    for number in range(100):
        app, host = f"/new/n{number}", f"n{number}.example"
        begin = time.perf_counter()
        asked = Put(paths.route(f"marathon:{app}"), encode(route(app, vhosts=(host,))))
        await registry.commit([asked, put(f"new-{number}", port, app)])
        await eventually(
            "it is routed", lambda host=host: routes.answered(place.http, host), within_s=30, every_s=0.002
        )
        took.append((time.perf_counter() - begin) * 1000)
    used = cpu_s(place.lb.process.pid) - cpu
    return [
        *spread("new service published -> its first request", took),
        Figure("the daemon's CPU for one new service", used * 10, "ms"),
        Figure("reloads for 100 new services", reloads(place) - before, "", 1),
    ]


async def status(place: Place) -> None:
    """`/health` is asked all the time beside it: the longest it takes is how long the daemon's loop was held."""
    admin = f"http://127.0.0.1:{place.admin}"
    for query in ("summary=1", "service=marathon:/bench/web7&fresh=1", "", "fresh=1"):
        took, ending = [], asyncio.Event()
        asking = asyncio.create_task(_waits(admin, ending))
        for _ in range(5):
            begin = time.perf_counter()
            size = len((await fetch(admin, f"/status?{query}"))[1])
            took.append((time.perf_counter() - begin) * 1000)
        ending.set()
        waits = await asking
        print(f"/status?{query}: {size} bytes, first {took[0]:.0f} ms, median {statistics.median(took):.0f} ms; "
              f"/health beside it median {statistics.median(waits):.1f} ms, at most {waits[-1]:.1f} ms")  # fmt: skip


async def _waits(admin: str, ending: asyncio.Event) -> list[float]:
    """Milliseconds, ascending."""
    found = []
    while not ending.is_set():
        begin = time.perf_counter()
        await fetch(admin, "/health")
        found.append((time.perf_counter() - begin) * 1000)
        await asyncio.sleep(0.002)
    return sorted(found)


HAND = """global
    maxconn 4096
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    option http-server-close
    option redispatch 1
    retries 3
    option forwardfor
frontend hosts
    bind 127.0.0.1:{port}
    use_backend %[req.hdr(host),lower,map({hosts})]
"""


def by_hand(folder: Path, target: int, arguments: argparse.Namespace) -> tuple[Server, int]:
    port, hosts = free_port(), folder / "hand.map"
    hosts.write_text("".join(f"web{n}.example b{n}\n" for n in range(arguments.services)))
    servers = "".join(f"    server s{i} 127.0.0.1:{target}\n" for i in range(arguments.endpoints))
    backends = "".join(f"backend b{n}\n{servers}" for n in range(arguments.services))
    file = folder / "hand.cfg"
    file.write_text(HAND.format(port=port, hosts=hosts) + backends)
    return Server([require("haproxy"), "-W", "-f", str(file)], log=folder / "hand.log"), port


def returning(folder: Path) -> tuple[Server, int]:
    port, file = free_port(), folder / "target.cfg"
    file.write_text(
        f"defaults\n    mode http\n    timeout client 60s\n    timeout server 60s\n    timeout connect 1s\n"
        f"frontend f\n    bind 127.0.0.1:{port}\n    http-request return status 200 content-type text/plain string ok\n"
    )
    return Server([require("haproxy"), "-f", str(file)], log=folder / "target.log"), port


def wrk(port: int, seconds: int) -> tuple[float, float]:
    """Requests a second, p99 in ms."""
    command = [
        require("wrk"),
        "-t1",
        "-c32",
        f"-d{seconds}s",
        "--latency",
        "-H",
        "Host: web7.example",
        f"http://127.0.0.1:{port}/",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, latency = RATE.search(said), LATENCY.search(said)
    assert rate is not None, said
    assert latency is not None, said
    assert "Non-2xx" not in said, said
    return float(rate[1]), float(latency[1]) * IN_MS[latency[2]]


async def beside(place: Place, hand: int, arguments: argparse.Namespace) -> None:
    """In turns, so that whatever else the machine does meets both."""
    found: dict[int, list[tuple[float, float]]] = {place.http: [], hand: []}
    for _ in range(arguments.rounds):
        for port, figures in found.items():
            figures.append(await asyncio.to_thread(wrk, port, arguments.seconds))
    ours, theirs = ([statistics.median(f[i] for f in found[p]) for i in (0, 1)] for p in (place.http, hand))
    print(f"fairlead's HAProxy: {ours[0]:.0f} requests/s, p99 {ours[1]:.2f} ms; by hand: {theirs[0]:.0f} requests/s, "
          f"p99 {theirs[1]:.2f} ms; {ours[0] / theirs[0]:.3f} x, p99 {ours[1] / theirs[1]:.3f} x "
          f"(servers closed after each request on both)")  # fmt: skip


async def run(url: str, folder: Path, arguments: argparse.Namespace) -> None:
    target, port = returning(folder)
    old = await Task("old").start()
    place = Place(folder, url)
    hand, hand_port = by_hand(folder, port, arguments)
    registry = await open_registry(url)
    target.start()
    place.lb.start()
    try:
        await place.fill(registry, port)
        await place.applied(registry, await registry.commit([]))
        assert (await fetch(f"http://127.0.0.1:{place.http}", "/", host="web7.example"))[0] == 200
        figures: list[Figure] = []
        for what in TABLE if arguments.what == "all" else (arguments.what,):
            if what == "latency":
                figures += await latency(place, registry, arguments)
            elif what == "changes":
                figures += await changes(place, registry, port, arguments)
            elif what == "services":
                figures += await services(place, registry, port)
        if figures:
            print(table(figures))
        elif arguments.what == "status":
            await status(place)
        else:
            hand.start()
            await asyncio.sleep(1)
            await beside(place, hand_port, arguments)
    finally:
        await registry.close()
        end(place, folder)
        hand.stop()
        target.stop()
        await old.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", *TABLE, "status", "beside"), default="all")
    parser.add_argument("--registry", choices=sorted(OPENED), default="local")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--changes", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--published", type=int, default=300, help="endpoints, for `latency`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    routes.resize(arguments.services, arguments.endpoints)
    print(
        f"{os.cpu_count()} CPUs; load {os.getloadavg()[0]:.2f}; {arguments.services} services x {arguments.endpoints}; "
        f"registry {arguments.registry}; {routes.REUSE}"
    )
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        asyncio.run(run(stack.enter_context(OPENED[arguments.registry](folder)), folder, arguments))


if __name__ == "__main__":
    main()

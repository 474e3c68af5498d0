"""`fairlead lb` at 1,000 services of 10 endpoints each. Requests a second: `routes_beside.py`.

    python benchmarks/routes_scale.py             the controller's figures in one run, as a table: `latency`, `changes`,
                                                  `services`, `structure`; about four minutes (--registry local, or zk)
    python benchmarks/routes_scale.py latency     an endpoint is published -> HAProxy sends it a request, one at a time
    python benchmarks/routes_scale.py changes     100 endpoint changes a second: the daemon's CPU, its memory, reloads,
                                                  and whether each change was applied
    python benchmarks/routes_scale.py services    100 new services, one after the other: reloads
    python benchmarks/routes_scale.py structure   endpoints that are published while HAProxy checks and reloads
    python benchmarks/routes_scale.py status      how long `/status` takes, and how long others' requests wait meanwhile

The registry is a process of its own, as everything else; members are swapped as the master does it. A client asks for a
new endpoint every millisecond, so a figure of latency has up to two of it that are the client's.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import routes
from routes import Place, end, local_registry, put, zookeeper
from routes_beside import returning

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Leaving, Reason, encode
from fairlead_discovery.registry import Delete, Put, Registry
from harness.balancer import Task, fetch, route
from harness.waiting import eventually

OPENED = {"local": local_registry, "zk": zookeeper}
TABLE = ("latency", "changes", "services", "structure")
OPEN_RECORDS = 100
"""Tasks that are being killed."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


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


KINDS: Sequence[dict[str, Any]] = (
    {"sticky": True},
    {"reuse": True},
    {"balance": "leastconn"},
    {"balance": "leastconn", "sticky": True},
    {"balance": "leastconn", "reuse": True},
)
"""Of services for which no spare backend lies ready."""


async def structure(place: Place, registry: Registry, port: int) -> list[Figure]:
    """Endpoints are published one after the other, while services come that need a check and a reload each."""
    await place.settled()
    before, ending, took = reloads(place), asyncio.Event(), []
    rounds = asyncio.create_task(_until(ending, place, registry))
    for number, kind in enumerate(KINDS):
        app, host = f"/kind/n{number}", f"kind{number}.example"
        begin = time.perf_counter()
        asked = Put(paths.route(f"marathon:{app}"), encode(route(app, vhosts=(host,), **kind)))
        await registry.commit([asked, put(f"kind-{number}", port, app)])
        await eventually("it is routed", lambda host=host: routes.answered(place.http, host), within_s=60, every_s=0.01)
        took.append((time.perf_counter() - begin) * 1000)
    ending.set()
    return [
        Figure("service that needs a reload -> its first request: median", statistics.median(took), "ms"),
        *spread("endpoint published while HAProxy is checked and reloaded", await rounds),
        Figure(f"reloads for {len(KINDS)} of them", reloads(place) - before, "", len(KINDS)),
    ]


async def _until(ending: asyncio.Event, place: Place, registry: Registry) -> list[float]:
    """Their successors do not wait until the last is applied: a reload under way holds that back."""
    took = []
    while not ending.is_set():
        took.append(await routes.one(place, registry, 10_000 + len(took), wait=False))
    return took


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


async def run(url: str, folder: Path, arguments: argparse.Namespace) -> None:
    target, port = returning(folder)
    old = await Task("old").start()
    place = Place(folder, url)
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
            elif what == "structure":
                figures += await structure(place, registry, port)
        if figures:
            print(table(figures))
        else:
            await status(place)
    finally:
        await registry.close()
        end(place, folder)
        target.stop()
        await old.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", *TABLE, "status"), default="all")
    parser.add_argument("--registry", choices=sorted(OPENED), default="local")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--changes", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--published", type=int, default=300, help="endpoints, for `latency`")
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

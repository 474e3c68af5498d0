"""`fairlead lb` at 1,000 services of 10 endpoints each, beside a HAProxy whose configuration was written by hand.

    python benchmarks/routes_scale.py changes     100 endpoint changes a second: the daemon's CPU, its memory, reloads,
                                                  and whether each change was applied
    python benchmarks/routes_scale.py services    100 new services, one after the other: reloads
    python benchmarks/routes_scale.py status      how long `/status` takes, and how long others' requests wait meanwhile
    python benchmarks/routes_scale.py beside      requests a second and p99 through fairlead's HAProxy, and through one
                                                  with the same services in a hand-written file (`use_backend` by a map,
                                                  the same servers); backends are a HAProxy's `return`, load is wrk

The registry is the local one, a process of its own, as everything else; members are swapped as the master does it.
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
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import routes
from routes import Place, end, local_registry, put

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Leaving, Reason, encode
from fairlead_discovery.registry import Delete, Put, Registry
from harness.balancer import Task, fetch, route
from harness.ports import free_port
from harness.servers import Server, require
from harness.waiting import eventually

OPEN_RECORDS = 100
"""Tasks that are being killed."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LATENCY = re.compile(r"99%\s+([\d.]+)(us|ms|s)")
RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
IN_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_mb(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def changes(place: Place, registry: Registry, port: int, arguments: argparse.Namespace) -> None:
    """A member in, another out, with its leaving record: one commit is one change of an endpoint."""
    pid = place.lb.process.pid
    await asyncio.sleep(12)  # two audits
    idle = cpu_s(pid)
    await asyncio.sleep(10)
    print(f"idle: {(cpu_s(pid) - idle) * 10:.1f} % of a core; memory {memory_mb(pid):.0f} MB")
    before, reloads, begin = cpu_s(pid), int(str(place.status()["reloads"])), time.monotonic()
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
    print(f"{arguments.changes} changes at {arguments.changes / took:.0f} a second: {used / took * 100:.1f} % of a core, "
          f"{used / arguments.changes * 1000:.2f} ms each; memory {memory_mb(pid):.0f} MB; "
          f"reloads {int(str(place.status()['reloads'])) - reloads}")  # fmt: skip


async def services(place: Place, registry: Registry, port: int) -> None:
    """Each is waited for: 200 through HAProxy by its host."""
    before = int(str(place.status()["reloads"]))
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
    took.sort()
    print(f"100 new services: reloads {int(str(place.status()['reloads'])) - before}; each routed after "
          f"p50 {statistics.median(took):.1f} ms, p99 {took[98]:.1f} ms")  # fmt: skip


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
        if arguments.what == "changes":
            await changes(place, registry, port, arguments)
        elif arguments.what == "services":
            await services(place, registry, port)
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
    parser.add_argument("what", choices=("changes", "services", "status", "beside"))
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--changes", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    routes.resize(arguments.services, arguments.endpoints)
    print(
        f"{os.cpu_count()} CPUs; load {os.getloadavg()[0]:.2f}; {arguments.services} services x {arguments.endpoints}; "
        f"{routes.REUSE}"
    )
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        asyncio.run(run(stack.enter_context(local_registry(folder)), folder, arguments))


if __name__ == "__main__":
    main()

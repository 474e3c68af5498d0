"""Figures of `fairlead lb`; routes_scale.py has more.

    python benchmarks/routes.py            endpoint published -> HAProxy sends it a request, 100 services x 20 endpoints
                                           (--services, --endpoints), on the local registry and on ZooKeeper
    python benchmarks/routes.py restart    HAProxy's worker killed -> a request is answered again; `fairlead lb` killed
                                           with it and started again by the benchmark at once

Everything is a process of its own on loopback. Published is the only endpoint of one more service, so that its first
answer ends the time: a client asks every millisecond, and gets 503 until then. The other services stand idle.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Leaving, Progress, Reason, decode, encode
from fairlead_discovery.registry import Delete, Put, Registry
from harness.balancer import Task, fetch, member, route
from harness.ports import free_port, free_range
from harness.servers import Server
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

SERVICES = 100
ENDPOINTS = 20
PROBED = "/bench/probed"
ID = "bench"
"""Of the balancer, in the registry."""
REUSE = "connections to servers end with each request, not reused (FAIRLEAD_REUSE is not set)"
RUN = "import sys; from {module} import DAEMON; from fairlead_daemon.main import main; sys.exit(main(DAEMON, sys.argv[1:]))"


def daemon(module: str, folder: Path, **settings: object) -> Server:
    arguments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-c", RUN.format(module=module), *arguments]
    return Server(command, log=folder / f"{module}.log")


class Place:
    """A registry, a `fairlead lb`, and one old server that stands for all endpoints that are there from the start."""

    def __init__(self, folder: Path, url: str, **settings: object) -> None:
        ports = free_range(100)  # held from the start, for nobody: services here are told apart by host
        self.url = url
        self.http, self.admin = free_port(), free_port()
        self.lb = daemon(
            "fairlead_lb.daemon",
            folder,
            registry=url,
            data_dir=folder / "data",
            port=self.admin,
            http_port=self.http,
            https_port=0,
            service_ports=f"{ports[0]}-{ports[-1]}",
            token="off",
            id=ID,
            **settings,
        )

    async def fill(self, registry: Registry, port: int) -> None:
        probed = Put(paths.route(f"marathon:{PROBED}"), encode(route(PROBED, vhosts=("probed.example",))))
        await registry.commit([probed])
        for service in range(SERVICES):
            app = f"/bench/web{service}"
            changes = [Put(paths.route(f"marathon:{app}"), encode(route(app, vhosts=(f"web{service}.example",))))]
            changes += [put(f"{service}-{n}", port, app) for n in range(ENDPOINTS)]
            await registry.commit(changes)

    def status(self) -> dict[str, object]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/status?summary=1", timeout=5) as answer:
            value: dict[str, object] = msgspec.json.decode(answer.read())
            return value

    async def settled(self) -> None:
        """Two audits after whatever was done last; what a fill leaves behind is over by then."""
        await asyncio.sleep(12)

    async def ready(self, revision: int) -> None:
        async def probe() -> bool:
            return int(str((await asyncio.to_thread(self.status))["applied_revision"] or 0)) >= revision

        await eventually("all of it is routed", probe, within_s=60)

    async def applied(self, registry: Registry, revision: int) -> None:
        """As the balancer says it in the registry; a look there costs it nothing, as a look at `/status` would."""

        async def probe() -> bool:
            node = await registry.read(paths.below(paths.PROGRESS, ID))
            return node is not None and decode(Progress, node.data, place=ID).applied_revision >= revision

        await eventually("all of it is routed", probe, within_s=60)


def put(task: str, port: int, app: str) -> Put:
    data = encode(member(task, port, app=app))
    return Put(paths.member(f"marathon:{app}", paths.member_name(task, data)), data)


@contextmanager
def local_registry(folder: Path) -> Iterator[str]:
    url = f"local:{folder}/registry.sock"
    server = daemon("fairlead_discovery.registryd", folder, registry=url, data_dir=folder / "registry").start()
    try:
        yield url
    finally:
        server.stop()


@contextmanager
def zookeeper(folder: Path) -> Iterator[str]:
    (folder / "zk").mkdir()
    server = ZooKeeper(folder / "zk").start()
    try:
        yield server.url
    finally:
        server.stop()


async def publish(url: str, folder: Path, rounds: int) -> Sequence[float]:
    """Milliseconds from just before the commit to the first request at the new endpoint."""
    place = Place(folder, url)
    old = await Task("old").start()
    registry = await open_registry(url)
    place.lb.start()
    try:
        await place.fill(registry, old.port)
        await place.applied(registry, await registry.commit([]))
        before = place.status()["reloads"]
        took = [await one(place, registry, number) for number in range(rounds)]
        print(f"reloads meanwhile: {int(str(place.status()['reloads'])) - int(str(before))}")
    finally:
        await registry.close()
        end(place, folder)
        await old.stop()
    return took


async def one(place: Place, registry: Registry, number: int, *, wait: bool = True) -> float:
    """Milliseconds. `wait`: until its withdrawal is applied; else until nobody is sent to it any more."""
    new = await Task(f"new-{number}").start()
    change = put(new.id, new.port, PROBED)
    await asyncio.sleep(random.uniform(0.02, 0.06))  # no rhythm of ours meets one of theirs
    begin = time.perf_counter()
    commit = asyncio.create_task(registry.commit([change]))
    await eventually("it is routed", lambda: answered_or_failed(place.http, commit), within_s=30, every_s=0.001)
    took_ms = (time.perf_counter() - begin) * 1000
    await commit
    name = change.path.rpartition("/")[2]
    leaving = Leaving(task=new.id, service=f"marathon:{PROBED}", member=name, reason=Reason.SCALE, deadline_s=4e9)
    # as the master: the record stands until the endpoint is drained, else it would seem to have vanished
    revision = await registry.commit([Delete(change.path), Put(paths.leaving(new.id), encode(leaving))])
    if wait:
        await place.applied(registry, revision)
        await place.applied(registry, await registry.commit([Delete(paths.leaving(new.id))]))
    else:
        await eventually("it is withdrawn", lambda: nobody(place.http), within_s=30, every_s=0.01)
    await new.stop()
    return took_ms


async def restart(url: str, folder: Path, rounds: int) -> tuple[Sequence[float], Sequence[float]]:
    """Milliseconds without an answer: the worker killed; the worker and `fairlead lb` killed."""
    place = Place(folder, url)
    task = await Task("t").start()
    registry = await open_registry(url)
    place.lb.start()
    alone: list[float] = []
    both: list[float] = []
    try:
        await place.fill(registry, task.port)
        await place.applied(registry, await registry.commit([]))
        for number in range(2 * rounds):
            await asyncio.sleep(2)
            pid = int(str(place.status()["haproxy"]["worker_pid"]))  # type: ignore[index]  # JSON
            begin = time.perf_counter()
            if number % 2:
                place.lb.kill()
            os.kill(pid, signal.SIGKILL)
            if number % 2:
                place.lb.start()
            await eventually("served again", lambda: answered(place.http, "web1.example"), within_s=30, every_s=0.002)
            (both if number % 2 else alone).append((time.perf_counter() - begin) * 1000)
            await place.ready(0)
    finally:
        await registry.close()
        end(place, folder)
        await task.stop()
    return alone, both


async def answered_or_failed(port: int, commit: "asyncio.Task[int]") -> bool:
    """Raises what the commit raised: what was never published is never routed."""
    if commit.done():
        commit.result()
    return await answered(port, "probed.example")


async def nobody(port: int) -> bool:
    return not await answered(port, "probed.example")


async def answered(port: int, host: str) -> bool:
    return (await fetch(f"http://127.0.0.1:{port}", "/", host=host))[0] == 200


def end(place: Place, folder: Path) -> None:
    """The daemon leaves HAProxy serving: end it by the pid it wrote down."""
    place.lb.stop()
    running = msgspec.json.decode((folder / "data" / "lb" / "process.json").read_bytes())
    os.kill(running["master"]["pid"], signal.SIGTERM)


def resize(services: int, endpoints: int) -> None:
    global SERVICES, ENDPOINTS  # one size a run
    SERVICES, ENDPOINTS = services, endpoints


def say(what: str, took: Sequence[float]) -> None:
    ordered = sorted(took)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(
        f"{what}: p50 {statistics.median(ordered):.1f} ms, p99 {p99:.1f} ms, worst {ordered[-1]:.1f} ms ({len(took)} rounds)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("publish", "restart"), default="publish")
    parser.add_argument("--rounds", type=int, default=0, help="0: 300, or 10 restarts")
    parser.add_argument("--registry", choices=("local", "zookeeper", "both"), default="both")
    parser.add_argument("--services", type=int, default=SERVICES)
    parser.add_argument("--endpoints", type=int, default=ENDPOINTS, help="of each service")
    arguments = parser.parse_args()
    resize(arguments.services, arguments.endpoints)
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    print(f"{version}; {os.cpu_count()} CPUs; load {os.getloadavg()[0]:.2f}; {REUSE}")
    for name, opened in (("local", local_registry), ("zookeeper", zookeeper)):
        if arguments.registry not in {name, "both"}:
            continue
        folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            url = stack.enter_context(opened(folder))
            if arguments.what == "publish":
                say(f"endpoint published -> routed, {name}", asyncio.run(publish(url, folder, arguments.rounds or 300)))
            else:
                alone, both = asyncio.run(restart(url, folder, arguments.rounds or 10))
                say(f"worker killed -> served again, {name}", alone)
                say(f"worker and fairlead lb killed -> served again, {name}", both)


if __name__ == "__main__":
    main()

"""Figures of `fairlead dns`.

    python benchmarks/dns.py           CPU µs per query of one process, its UDP loop in Python and compiled,
                                       beside Knot with the same names (dnsperf as load)
    python benchmarks/dns.py workers   queries for a second of CPU, two processes on one port beside one
    python benchmarks/dns.py publish   endpoint published -> DNS answers it, 100 services x 20 endpoints
    python benchmarks/dns.py forward   CPU µs per query for forwarded names that are cached, beside own names

The server under test is pinned to CPU 0, everything else to CPU 1. CPU time is the process' own (user + system, from
/proc): the kernel's work for its system calls is in it, for both servers alike. Rounds alternate between the servers.
"""

import argparse
import asyncio
import itertools
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Discovery, Ips, Member
from fairlead_discovery.registry import Registry
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Rules
from harness import compiled
from harness.names import DnsDaemon, ask_udp, member, names, publish, query, withdraw
from harness.ports import free_port
from harness.servers import Server
from harness.upstreams import black_hole, unbound
from harness.waiting import eventually, wait_until
from harness.zookeeper import ZooKeeper

SERVICES = 100
ENDPOINTS = 20
SERVER_CPU, LOAD_CPU = 0, 1
MANY = 15_000
LOST_PER_S = 500
TICKS = os.sysconf("SC_CLK_TCK")
BATCH = 500
CHANGES_PER_S = 10


@dataclass(frozen=True, slots=True)
class Round:
    """One run of dnsperf against one server."""

    cpu_us: float
    per_second: float
    lost: int
    latency_us: float


def endpoint(service: int, number: int) -> Member:
    host = f"10.{service}.0.{number + 1}"
    return member(
        number, name=f"web{service}", discovery=Discovery(name=f"web{service}", given=True), ips=Ips(host=(host,))
    )


def endpoints(each: int = ENDPOINTS) -> list[Member]:
    return [endpoint(s, n) for s in range(SERVICES) for n in range(each)]


async def publish_all(registry: Registry, members: Sequence[Member]) -> None:
    for at in range(0, len(members), BATCH):
        await publish(registry, *members[at : at + BATCH])


# --- the registries ---------------------------------------------------------------------------------------------------

REGISTRYD = (
    "import sys; from fairlead_daemon.main import main; from fairlead_discovery.registryd import DAEMON;"
    " sys.exit(main(DAEMON, sys.argv[1:]))"
)


@contextmanager
def local_registry(folder: Path) -> Iterator[str]:
    url = f"local:{folder}/r.sock"
    sets = (f"registry={url}", f"data_dir={folder}", "token=off")
    server = Server(
        [sys.executable, "-c", REGISTRYD, *(part for s in sets for part in ("--set", s))], log=folder / "registry.log"
    )
    server.start().wait_ready("registry", (folder / "r.sock").exists)
    try:
        yield url
    finally:
        server.stop()


@contextmanager
def zookeeper_registry(folder: Path) -> Iterator[str]:
    server = ZooKeeper(folder).start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def dns_server(folder: Path, url: str, **settings: object) -> Iterator[DnsDaemon]:
    server = DnsDaemon(folder, registry=url, port=free_port(), http_port=free_port(), **settings)
    server.env = {"PYTHONPATH": str(folder)}  # where a compiled loop is built
    server.start().wait_ready("dns", lambda: server.get("/ready")["ready"])
    os.sched_setaffinity(server.pid, {SERVER_CPU})
    try:
        yield server
    finally:
        server.stop()


# --- CPU beside Knot --------------------------------------------------------------------------------------------------


@contextmanager
def knot_server(folder: Path, zone: str) -> Iterator[tuple[int, int]]:
    """Its pid and port. One UDP worker, the zone from a file, nothing else to do."""
    port = free_port()
    (folder / "mesos.zone").write_text(zone)
    (folder / "knot.conf").write_text(
        f"server:\n  listen: 127.0.0.1@{port}\n  rundir: {folder}\n  udp-workers: 1\n  tcp-workers: 1\n"
        f"  background-workers: 1\ndatabase:\n  storage: {folder}\n"
        f"zone:\n  - domain: mesos\n    file: {folder}/mesos.zone\n    zonefile-sync: -1\n    journal-content: none\n"
    )
    command = ["taskset", "-c", str(SERVER_CPU), "knotd", "-c", str(folder / "knot.conf")]
    server = Server(command, log=folder / "knot.log").start()
    server.wait_ready("knot", lambda: ask_udp(port, query("web0.marathon.mesos"), wait_s=0.3)[7] > 0)
    try:
        yield server.pid, port
    finally:
        server.stop()


def zone_file(members: Sequence[Member]) -> str:
    """The very names and records that our server makes of these endpoints."""
    lines = ["$ORIGIN mesos.", "$TTL 5", "@ SOA ns1.mesos. root.ns1.mesos. 1 60 600 86400 2", "@ NS ns1.mesos."]
    for record in names(*members, rules=Rules()).zone.records():
        owner = wire.text(record.owner)
        if record.kind == wire.SRV:
            text = f"0 1 {wire.srv_port(record.rdata)} {wire.text(wire.srv_target(record.rdata))}."
        else:
            text = wire.address_text(record.rdata)
        lines.append(f"{owner}. {wire.TYPE_NAMES[record.kind]} {text}")
    return "\n".join(lines) + "\n"


def questions(folder: Path) -> Path:
    """Three in four ask for addresses, one in four for SRV."""
    lines = [f"web{s}.marathon.mesos A" for s in range(SERVICES)] * 3
    lines += [f"_web{s}._tcp.marathon.mesos SRV" for s in range(SERVICES)]
    random.Random(1).shuffle(lines)
    file = folder / "questions"
    file.write_text("\n".join(lines) + "\n")
    return file


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def load(pid: int, port: int, file: Path, seconds: int, rate: int, *, also: Sequence[int] = ()) -> Round:
    """`rate` 0 is as fast as it goes with 100 questions under way. `also`: more processes behind the same port."""
    command = ["taskset", "-c", str(LOAD_CPU), "dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(file)]
    command += ["-l", str(seconds), "-q", "100", "-e", *(["-Q", str(rate)] if rate else [])]
    command += ["-c", "16"]  # sockets: the kernel shares them out among the processes of a port
    before = sum(map(cpu_s, (pid, *also)))
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used_s = sum(map(cpu_s, (pid, *also))) - before

    def number(label: str) -> float:
        return float(text.split(label)[1].split()[0])

    done = number("Queries completed:")
    return Round(
        used_s / done * 1e6,
        number("Queries per second:"),
        int(number("Queries lost:")),
        number("Average Latency (s):") * 1e6,
    )


def cpu(rounds: int, seconds: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fl-bench-", dir="/tmp"))
    os.sched_setaffinity(0, {LOAD_CPU})
    members = endpoints(each=5)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = stack.enter_context(local_registry(folder))
        asyncio.run(_filled(url, members))
        compiled.build(folder)
        loops = ("python", "compiled")
        ours = {loop: stack.enter_context(dns_server(folder, url, id=loop, udp_loop=loop)) for loop in loops}
        for server in ours.values():
            wait_full(server)
        places = {loop: (server.pid, server.port) for loop, server in ours.items()}
        places["knot"] = stack.enter_context(knot_server(folder, zone_file(members)))
        file = questions(folder)
        for rate in (0, 20_000):
            results: dict[str, list[Round]] = {name: [] for name in places}
            for _ in range(rounds):
                for name, (pid, port) in places.items():
                    results[name].append(load(pid, port, file, seconds, rate))
            report(f"{rate} queries/s" if rate else "as fast as it goes, 100 under way", results)
        hits = ours["python"].metric("fairlead_dns_cache_hits_total")
        answered = ours["python"].metric('fairlead_dns_queries_total{rcode="NOERROR",transport="udp"')
        print(f"\npacket cache: {hits / answered:.2%} hits")


def workers(rounds: int, seconds: int) -> None:
    """Two processes on one port beside one: nothing that they share costs them anything."""
    folder = Path(tempfile.mkdtemp(prefix="fl-bench-", dir="/tmp"))
    os.sched_setaffinity(0, {LOAD_CPU})
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = stack.enter_context(local_registry(folder))
        asyncio.run(_filled(url, endpoints(each=5)))
        port = free_port()
        one = stack.enter_context(dns_server(folder, url, id="alone"))
        pair = [
            stack.enter_context(dns_server(folder, url, id=name, listen=[f"127.0.0.1:{port}"])) for name in ("a", "b")
        ]
        wait_full(one)
        file = questions(folder)
        results: dict[str, list[float]] = {"one process": [], "two processes": []}
        for _ in range(rounds):
            results["one process"].append(load(one.pid, one.port, file, seconds, 0).cpu_us)
            both = load(pair[0].pid, port, file, seconds, 0, also=[pair[1].pid])
            results["two processes"].append(both.cpu_us)
        shares = [server.metric("fairlead_dns_cache_hits_total") for server in pair]
        print(
            f"\nqueries for a second of CPU, {rounds} rounds; the two had {shares[0]:,.0f} and {shares[1]:,.0f} queries"
        )
        medians = {name: 1e6 / statistics.median(costs) for name, costs in results.items()}
        for name, per_s in medians.items():
            print(f"  {name:14} {per_s:9,.0f}")
        print(f"  ratio          {medians['two processes'] / medians['one process']:9.2f}  (aim: at least 0.9)")


async def _filled(url: str, members: Sequence[Member]) -> None:
    registry = await open_registry(url)
    await publish_all(registry, members)
    await registry.close()


def wait_full(server: DnsDaemon) -> None:
    wait_until("the names are there", lambda: len(server.answers(f"web{SERVICES - 1}.marathon.mesos")) == 5)


def report(what: str, results: dict[str, list[Round]]) -> None:
    print(f"\n{what}: {SERVICES} services x 5 endpoints, A and SRV 3:1, EDNS, {len(results['knot'])} rounds")
    medians = {}
    for name, rounds in results.items():
        costs = sorted(r.cpu_us for r in rounds)
        medians[name] = statistics.median(costs)
        print(
            f"  {name:9} {medians[name]:6.2f} µs CPU/query  (least {costs[0]:.2f}, most {costs[-1]:.2f})"
            f"  {statistics.median(r.per_second for r in rounds):9,.0f} queries/s  lost {sum(r.lost for r in rounds)}"
        )
    for name in ("python", "compiled"):
        print(f"  {name:9} {medians[name] / medians['knot']:6.2f} x Knot  (aim: at most 1.5 in Python, 1.0 compiled)")


# --- forwarded and cached ---------------------------------------------------------------------------------------------


@contextmanager
def unbound_server(folder: Path) -> Iterator[int]:
    """Its port. As many addresses a name as our services have endpoints; long TTLs, so that we ask it once."""
    port = free_port()
    data = [
        f'  local-data: "w{n}.far. 3600 IN A 10.{n // 250}.{n % 250}.{a}"\n' for n in range(MANY) for a in range(1, 6)
    ]
    server = unbound(folder, port, "", server='  local-zone: "far." static\n' + "".join(data)).start()
    server.wait_ready("unbound", lambda: ask_udp(port, query("w0.far"), wait_s=0.3)[7] == 5)
    try:
        yield port
    finally:
        server.stop()


def flooding(port: int, zone: str, stop: threading.Event) -> None:
    """LOST_PER_S questions a second, all different; replies are dropped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        for number in itertools.count():
            sock.send(query(f"n{number}.{zone}"))
            with suppress(BlockingIOError):
                while sock.recv(4096):
                    pass
            if stop.wait(1 / LOST_PER_S):
                return


def one_answer_us(port: int, name: str) -> float:
    time.sleep(0.005)
    start_s = time.perf_counter()
    ask_udp(port, query(name), wait_s=20)
    return (time.perf_counter() - start_s) * 1e6


def beside_a_black_hole(port: int, rounds: int, seconds: int) -> None:
    """An own name asked 200 times a second, alone, beside questions answered at once, beside questions that are lost."""
    took: dict[str, list[float]] = {"": [], "test": [], "hole": []}
    for _ in range(rounds):
        for zone, some in took.items():
            stop = threading.Event()
            flood = threading.Thread(target=flooding, args=(port, zone, stop), daemon=True)
            if zone:
                flood.start()
                time.sleep(3)
            try:
                some += [one_answer_us(port, f"web{n % SERVICES}.marathon.mesos") for n in range(seconds * 200)]
            finally:
                stop.set()
            if zone:
                flood.join()
    print(f"\none own name at a time, beside {LOST_PER_S} other questions/s, {rounds} rounds, µs until it is answered")
    labels = {"": "none", "test": "answered at once (.test)", "hole": "sent on into a black hole"}
    for zone, some in took.items():
        p50, p99 = (statistics.quantiles(some, n=100)[n - 1] for n in (50, 99))
        print(f"  {labels[zone]:26} p50 {p50:6.0f}  p99 {p99:6.0f}")


def forward(rounds: int, seconds: int) -> None:
    """Own names, few forwarded ones (prepared packets), many (parsed and looked up each time), in alternating rounds."""
    folder = Path(tempfile.mkdtemp(prefix="fl-bench-", dir="/tmp"))
    os.sched_setaffinity(0, {LOAD_CPU})
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        url = stack.enter_context(local_registry(folder))

        async def fill() -> None:
            registry = await open_registry(url)
            await publish_all(registry, endpoints(each=5))
            await registry.close()

        asyncio.run(fill())
        upstream = stack.enter_context(unbound_server(folder))
        hole = stack.enter_context(black_hole())
        zones = {"hole": [f"127.0.0.1:{hole}"]}
        ours = stack.enter_context(dns_server(folder, url, resolvers=[f"127.0.0.1:{upstream}"], zone_resolvers=zones))
        wait_until("the names are there", lambda: len(ours.answers(f"web{SERVICES - 1}.marathon.mesos")) == 5)
        files = {}
        for what, names_of in (
            ("own", [f"web{n}.marathon.mesos" for n in range(SERVICES)]),
            ("forwarded", [f"w{n}.far" for n in range(SERVICES)]),
            ("many", [f"w{n}.far" for n in range(MANY)]),
        ):
            files[what] = folder / what
            files[what].write_text("".join(f"{name} A\n" for name in names_of))
        for _ in range(5):  # each run begins with the first name
            if ours.metric("fairlead_dns_forward_cached ") < MANY:
                load(ours.pid, ours.port, files["many"], 10, 2_000)
        results: dict[str, list[Round]] = {what: [] for what in files}
        for _ in range(rounds):
            for what, file in files.items():
                results[what].append(load(ours.pid, ours.port, file, seconds, 20_000))
        own = statistics.median(r.cpu_us for r in results["own"])
        print(f"\nforwarded and cached: A with 5 addresses, EDNS, 20000 queries/s, {rounds} rounds")
        for what, label in (
            ("own", f"{SERVICES} own names"),
            ("forwarded", f"{SERVICES} forwarded"),
            ("many", f"{MANY} forwarded"),
        ):
            cost = statistics.median(r.cpu_us for r in results[what])
            lost = sum(r.lost for r in results[what])
            print(f"  {label:16} {cost:6.2f} µs CPU/query  {cost / own:5.2f} x own  (aim: at most 2)  lost {lost}")
        beside_a_black_hole(ours.port, rounds, seconds)


# --- published -> answered --------------------------------------------------------------------------------------------


def published(times: int) -> None:
    os.sched_setaffinity(0, {LOAD_CPU})
    backends: tuple[tuple[str, Callable[[Path], object]], ...] = (
        ("local", local_registry),
        ("zookeeper", zookeeper_registry),
    )
    for name, start in backends:
        folder = Path(tempfile.mkdtemp(prefix="fl-bench-", dir="/tmp"))
        try:
            with start(folder) as url, dns_server(folder, url) as server:  # type: ignore[attr-defined]  # both are context managers
                asyncio.run(_published(name, url, server, times))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


async def _published(name: str, url: str, server: DnsDaemon, times: int) -> None:
    registry = await open_registry(url)
    await publish_all(registry, endpoints())
    last = f"web{SERVICES - 1}.marathon.mesos"
    await eventually("all is answered", lambda: _is_full(server, last), within_s=60)
    came: list[float] = []
    went: list[float] = []
    for number in range(times):
        service = number % SERVICES
        extra = endpoint(service, 200)
        for took, change, there in ((came, publish, True), (went, withdraw, False)):
            await asyncio.sleep(random.expovariate(CHANGES_PER_S))
            took.append(await _timed(server, extra, change(registry, extra), there=there))
    print(
        f"\n{name}: {SERVICES} services x {ENDPOINTS} endpoints, {times} changes each way,"
        f" about {CHANGES_PER_S} a second at random, ms"
    )
    for what, took in (("published -> answered", came), ("withdrawn -> no longer answered", went)):
        took.sort()
        print(
            f"  {what:32} p50 {took[len(took) // 2] * 1000:6.2f}  p99 {took[int(len(took) * 0.99)] * 1000:6.2f}"
            f"  most {took[-1] * 1000:6.2f}  (aim: p99 under 50)"
        )
    await registry.close()


async def _is_full(server: DnsDaemon, name: str) -> bool:
    return ask_udp(server.port, query(name))[7] == ENDPOINTS


async def _timed(server: DnsDaemon, extra: Member, change: object, *, there: bool) -> float:
    """From before the write is sent until the service's name, asked for all the while, says so."""
    asked = query(f"{extra.task.name}.marathon.slave.mesos")
    address = bytes(int(part) for part in extra.ips.host[0].split("."))
    start_s = time.perf_counter()
    writing = asyncio.ensure_future(change)  # type: ignore[arg-type]  # a coroutine

    async def so() -> bool:
        return (address in await asyncio.to_thread(ask_udp, server.port, asked)) is there

    await eventually("it is answered", so, every_s=0.0005)
    took_s = time.perf_counter() - start_s
    await writing
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", nargs="?", choices=("cpu", "publish", "forward", "workers", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per server and load")
    parser.add_argument("--seconds", type=int, default=4, help="length of a round")
    parser.add_argument("--times", type=int, default=300, help="changes measured per registry")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    if given.figure in {"cpu", "all"}:
        cpu(given.rounds, given.seconds)
    if given.figure in {"workers", "all"}:
        workers(given.rounds, given.seconds)
    if given.figure in {"publish", "all"}:
        published(given.times)
    if given.figure in {"forward", "all"}:
        forward(given.rounds, given.seconds)


if __name__ == "__main__":
    main()

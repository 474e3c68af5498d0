"""What the figures of `fairlead dns` are measured with: registries, our server, Knot and NSD with the same names, load.

The server under test is pinned to CPU 0, everything else to CPU 1. CPU time is the server's own (user + system, of its
whole process tree, from /proc): the kernel's work for its system calls is in it, for every server alike.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Discovery, Ips, Member
from fairlead_discovery.registry import Registry
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Rules
from harness.names import DnsDaemon, ask_udp, member, names, publish, query
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

SERVER_CPU, LOAD_CPU = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
BATCH = 250
IN_FLIGHT = 8
PATIENCE_S = 120


@dataclass(frozen=True, slots=True)
class Round:
    """One run of dnsperf against one server."""

    cpu_us: float
    per_second: float
    lost: int
    latency_us: float


def endpoint(service: int, number: int, host: str = "") -> Member:
    """`host`: an address of its own, for one that comes and goes."""
    host = host or f"10.{service // 250}.{service % 250}.{number + 1}"
    return member(
        number, name=f"web{service}", discovery=Discovery(name=f"web{service}", given=True), ips=Ips(host=(host,))
    )


def endpoints(services: int, each: int) -> list[Member]:
    return [endpoint(s, n) for s in range(services) for n in range(each)]


def name(service: int) -> str:
    return f"web{service}.marathon.mesos"


async def publish_all(registry: Registry, members: Sequence[Member]) -> None:
    batches = iter([members[at : at + BATCH] for at in range(0, len(members), BATCH)])

    async def work() -> None:
        for batch in batches:
            await publish(registry, *batch)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def fill(url: str, members: Sequence[Member]) -> None:
    async def filled() -> None:
        registry = await open_registry(url)
        await publish_all(registry, members)
        await registry.close()

    asyncio.run(filled())


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for one figure. This process, and what it starts, leaves the server's CPU alone."""
    os.sched_setaffinity(0, {LOAD_CPU})
    folder = Path(tempfile.mkdtemp(prefix="fl-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    server = ZooKeeper(folder)
    server.server.command = ["-Xmx512m" if word.startswith("-Xmx") else word for word in server.server.command]
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


REGISTRIES = {"local": local_registry, "zookeeper": zookeeper_registry}


# --- the servers ------------------------------------------------------------------------------------------------------


@contextmanager
def dns_server(folder: Path, url: str, *, services: int = 0, **settings: object) -> Iterator[DnsDaemon]:
    """Ready, and knowing that many services."""
    server = DnsDaemon(folder, registry=url, port=free_port(), http_port=free_port(), **settings)
    server.env = {"PYTHONPATH": str(folder)}  # where a compiled loop is built
    server.command = ["taskset", "-c", str(SERVER_CPU), *server.command]
    server.start().wait_ready("dns", lambda: server.get("/ready")["ready"], within_s=PATIENCE_S)
    try:
        wait_until("the names", lambda: server.get("/v2/status")["services"] >= services, within_s=PATIENCE_S)
        yield server
    finally:
        server.stop()


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
    with _rival(folder, "knot", port, ["knotd", "-c", str(folder / "knot.conf")]) as pid:
        yield pid, port


@contextmanager
def nsd_server(folder: Path, zone: str) -> Iterator[tuple[int, int]]:
    """Its first pid and port. One server process, the zone from a file, no rate limit, no cookies."""
    port = free_port()
    (folder / "mesos.nsd").write_text(zone)
    (folder / "nsd.conf").write_text(
        f'server:\n  ip-address: 127.0.0.1@{port}\n  username: ""\n  pidfile: ""\n  zonesdir: "{folder}"\n'
        f'  xfrdfile: "{folder}/xfrd.state"\n  xfrdir: "{folder}"\n  zonelistfile: "{folder}/zone.list"\n'
        f'  database: ""\n  server-count: 1\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n'
        f'zone:\n  name: mesos\n  zonefile: "{folder}/mesos.nsd"\n'
    )
    with _rival(folder, "nsd", port, ["nsd", "-d", "-c", str(folder / "nsd.conf")]) as pid:
        yield pid, port


@contextmanager
def _rival(folder: Path, what: str, port: int, command: Sequence[str]) -> Iterator[int]:
    server = Server(["taskset", "-c", str(SERVER_CPU), *command], log=folder / f"{what}.log").start()
    try:
        server.wait_ready(what, lambda: ask_udp(port, query(name(0)), wait_s=0.3)[7] > 0, within_s=PATIENCE_S)
        yield server.pid
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


# --- load -------------------------------------------------------------------------------------------------------------


def questions(folder: Path, services: int, *, srv: bool = False) -> Path:
    """Every service once, in any order."""
    lines = [f"_web{s}._tcp.marathon.mesos SRV" if srv else f"{name(s)} A" for s in range(services)]
    random.Random(1).shuffle(lines)
    file = folder / f"questions-{services}-{srv}"
    file.write_text("\n".join(lines) + "\n")
    return file


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in below for each in tree(int(child)))]


def cpu_s(pid: int) -> float:
    """User and system time of the whole tree until now."""
    used = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / TICKS


def resident_mb(pid: int, what: str = "VmRSS") -> float:
    """`VmRSS`: now; `VmHWM`: the most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 1024


def proportional_mb(pid: int) -> float:
    """Its memory, what it shares counted in parts."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.split("\nPss:")[1].split()[0]) / 1024


def dnsperf(port: int, file: Path, *how: str, rate: int = 0, edns: bool = True) -> list[str]:
    """`rate` 0 is as fast as it goes with 100 questions under way."""
    command = ["taskset", "-c", str(LOAD_CPU), "dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(file)]
    command += ["-q", "100", *(["-e"] if edns else []), *(["-Q", str(rate)] if rate else [])]
    return [*command, "-c", "16", *how]  # sockets: the kernel shares them out among the processes of a port


def number(text: str, label: str) -> float:
    """Of dnsperf's report."""
    return float(text.split(label, 1)[1].split(maxsplit=1)[0])


def warm(port: int, file: Path, each: int, *, edns: bool = True) -> None:
    """Every question often enough that all its orders have been given: of `each` records, by two processes at most."""
    command = dnsperf(port, file, "-n", str(2 * each + 4), edns=edns)
    subprocess.run(command, capture_output=True, check=True)


def load(  # noqa: PLR0913  # what differs between figures
    pids: Sequence[int],
    port: int,
    file: Path,
    seconds: float,
    *,
    rate: int = 0,
    edns: bool = True,
    under_way: int = 100,
) -> Round:
    """`pids`: the processes behind the port."""
    before_s = sum(map(cpu_s, pids))
    command = dnsperf(port, file, "-l", str(seconds), "-q", str(under_way), rate=rate, edns=edns)
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used_s = sum(map(cpu_s, pids)) - before_s
    return Round(
        used_s / number(text, "Queries completed:") * 1e6,
        number(text, "Queries per second:"),
        int(number(text, "Queries lost:")),
        number(text, "Average Latency (s):") * 1e6,
    )

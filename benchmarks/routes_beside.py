"""Requests through fairlead's HAProxy, beside one whose configuration was written by hand for the same services.

    python benchmarks/routes_beside.py                  requests a second, p99 and CPU of a request, 200 and 1,000 services of
                                                        10 endpoints (--services 20,200), keep-alive and closing clients
    python benchmarks/routes_beside.py instructions     instructions of a request in user space, 200 services; they vary by
                                                        less than a hundredth from run to run, whatever else the machine does (valgrind)

By hand twice: `map` chooses the backend by one look-up of the host, which is the least a HAProxy can do; `acl` has a
condition and a `use_backend` a host, as most files do; asked is the host in the middle. Both have what an operator would write: `http-server-close`,
`redispatch`, `retries`, `forwardfor`, time limits. `retry` is `map` with `retry-on conn-failure empty-response`, without
which a server's death is seen by clients: fairlead always has it, and HAProxy keeps a copy of each request for it.

Backends are a HAProxy's `return`; load is wrk, whose clients ask again at once: all are saturated, so that p99 follows from
the throughput. Turns of a second each, so that whatever else the machine does meets all; the figures are medians of the rounds,
the ratios medians of each round's own. CPU is that of the worker's threads, kernel included.
"""

import argparse
import asyncio
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import routes
from routes import Place, end, local_registry

from fairlead_discovery.backends import open_registry
from harness.balancer import fetch
from harness.ports import free_port
from harness.servers import Server, require

OURS = "fairlead"
LATENCY = re.compile(r"99%\s+([\d.]+)(us|ms|s)")
RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
DONE = re.compile(r"(\d+) requests in")
IN_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
CLIENTS: Mapping[str, tuple[str, ...]] = {"keep-alive": (), "closing": ("-H", "Connection: close")}
WARM_UP, COUNTED = 50, 500
"""Requests under valgrind."""

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
{more}frontend hosts
    bind 127.0.0.1:{port}
{rules}
"""
RETRY = "    retry-on conn-failure empty-response\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What wrk and the kernel said of one turn."""

    rate: float
    p99_ms: float
    cpu_us: float
    """Of one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    name: str
    port: int
    config: Path
    host: str


def asked(services: int) -> str:
    """The host in the middle: whoever looks at one after the other looks at half of them."""
    return f"web{services // 2}.example"


def by_hand(name: str, folder: Path, target: int, arguments: argparse.Namespace) -> tuple[Contender, Server]:
    """`acl`, `map` or `retry`: see the top."""
    port, hosts, file = free_port(), folder / "hand.map", folder / f"{name}.cfg"
    numbers = range(arguments.services)
    if name == "acl":
        rules = [f"    acl h{n} hdr(host) -i web{n}.example" for n in numbers]
        rules += [f"    use_backend b{n} if h{n}" for n in numbers]
    else:
        hosts.write_text("".join(f"web{n}.example b{n}\n" for n in numbers))
        rules = [f"    use_backend %[req.hdr(host),lower,map({hosts})]"]
    servers = "".join(f"    server s{i} 127.0.0.1:{target}\n" for i in range(arguments.endpoints))
    head = HAND.format(port=port, more=RETRY if name == "retry" else "", rules="\n".join(rules))
    file.write_text(head + "".join(f"backend b{n}\n{servers}" for n in numbers))
    server = Server([require("haproxy"), "-W", "-f", str(file)], log=folder / f"{name}.log")
    return Contender(name=name, port=port, config=file, host=asked(arguments.services)), server


def returning(folder: Path) -> tuple[Server, int]:
    port, file = free_port(), folder / "target.cfg"
    file.write_text(
        f"defaults\n    mode http\n    timeout client 60s\n    timeout server 60s\n    timeout connect 1s\n"
        f"frontend f\n    bind 127.0.0.1:{port}\n    http-request return status 200 content-type text/plain string ok\n"
    )
    return Server([require("haproxy"), "-f", str(file)], log=folder / "target.log"), port


def cpu_us(config: Path) -> float:
    """Of all threads of the HAProxies that run with this file."""
    wanted = str(config).encode()
    used = 0
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in found.read_bytes().split(b"\0"):
                threads = (found.parent / "task").glob("*/schedstat")
                used += sum(int(one.read_text().split()[0]) for one in threads)
        except OSError:
            continue  # it has just ended
    return used / 1000


def turn(contender: Contender, clients: str, seconds: int) -> Turn:
    command = [
        require("wrk"),
        "-t1",
        "-c32",
        f"-d{seconds}s",
        "--latency",
        "-H",
        f"Host: {contender.host}",
        *CLIENTS[clients],
    ]
    before = cpu_us(contender.config)
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{contender.port}/"], capture_output=True, text=True, check=True
    ).stdout
    used = cpu_us(contender.config) - before
    rate, latency, done = RATE.search(said), LATENCY.search(said), DONE.search(said)
    assert rate is not None, said
    assert latency is not None, said
    assert done is not None, said
    assert "Non-2xx" not in said, said
    return Turn(rate=float(rate[1]), p99_ms=float(latency[1]) * IN_MS[latency[2]], cpu_us=used / int(done[1]))


def measured(contenders: Iterable[Contender], clients: str, arguments: argparse.Namespace) -> Mapping[str, list[Turn]]:
    """In turns; each round begins with another contender."""
    order = list(contenders)
    found: dict[str, list[Turn]] = {c.name: [] for c in order}
    for number in range(arguments.rounds):
        first = number % len(order)
        for contender in (*order[first:], *order[:first]):
            found[contender.name].append(turn(contender, clients, arguments.seconds))
    return found


def told(clients: str, found: Mapping[str, list[Turn]]) -> None:
    for name, turns in found.items():
        rate, p99, cpu = (statistics.median(getattr(t, what) for t in turns) for what in ("rate", "p99_ms", "cpu_us"))
        line = f"  {clients:10}  {name:8}  {rate:7.0f} requests/s  p99 {p99:6.2f} ms  CPU {cpu:5.1f} µs a request"
        if name != OURS:
            pairs = list(zip(found[OURS], turns, strict=True))
            ratios = sorted(ours.rate / theirs.rate for ours, theirs in pairs)
            late = statistics.median(ours.p99_ms / theirs.p99_ms for ours, theirs in pairs)
            cost = statistics.median(ours.cpu_us / theirs.cpu_us for ours, theirs in pairs)
            line += (
                f"; fairlead {statistics.median(ratios):.3f} x ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
                f"p99 {late:.3f} x, CPU {cost:.3f} x"
            )
        print(line, flush=True)


def instructions(contender: Contender, folder: Path) -> float:
    """Of one request of a keep-alive client, in user space, one thread; nobody else has its ports."""
    text = contender.config.read_text()
    file = folder / f"{contender.name}-counted.cfg"
    text = re.sub(r"^    (user|group) [a-z-]+\n", "", text, flags=re.MULTILINE)  # as another user valgrind hears nobody
    file.write_text(re.sub(r"^global$", "global\n    nbthread 1", text, count=1, flags=re.MULTILINE))
    out = folder / f"{contender.name}-counted.out"
    counting = [require("valgrind"), "--tool=callgrind", f"--callgrind-out-file={out}"]
    server = Server(
        [*counting, require("haproxy"), "-f", str(file), "-db"], log=folder / f"{contender.name}-counted.log"
    )
    server.start()
    try:
        _answered(contender)
        _ask(contender, WARM_UP)
        _control(server.pid, "-z")
        _ask(contender, COUNTED)
        _control(server.pid, "-d")
        return _total(Path(f"{out}.1")) / COUNTED
    finally:
        server.kill()


def _control(pid: int, what: str) -> None:
    subprocess.run([require("callgrind_control"), what, str(pid)], check=True, capture_output=True, timeout=60)


def _answered(contender: Contender) -> None:
    """Valgrind reads a large file for a minute."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            return _ask(contender, 1)
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"nobody answers on port {contender.port}")


def _ask(contender: Contender, count: int) -> None:
    asked = f"GET /a/b HTTP/1.1\r\nHost: {contender.host}\r\nUser-Agent: counted\r\nAccept: */*\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", contender.port), timeout=30) as link:
        for _ in range(count):
            link.sendall(asked)
            answer = b""
            while not answer.endswith(b"\r\n\r\nok"):
                part = link.recv(4096)
                if not part:
                    raise ConnectionError(answer)
                answer += part
            assert answer.startswith(b"HTTP/1.1 200 "), answer


def _total(file: Path) -> int:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if file.exists() and (found := re.search(r"^(?:totals|summary): (\d+)", file.read_text(), re.MULTILINE)):
            return int(found[1])
        time.sleep(0.1)
    raise AssertionError(f"callgrind wrote no {file}")


def count(contenders: Iterable[Contender], folder: Path) -> None:
    found = {c.name: instructions(c, folder) for c in contenders}
    for name, each in found.items():
        beside = "" if name == OURS else f"; fairlead {found[OURS] - each:+.0f}"
        print(f"  {name:8}  {each:7.0f} instructions a request{beside}", flush=True)


async def run(url: str, folder: Path, arguments: argparse.Namespace) -> None:
    target, port = returning(folder)
    place = Place(folder, url)
    host = asked(arguments.services)
    ours = Contender(name=OURS, port=place.http, config=folder / "data" / "lb" / "haproxy.cfg", host=host)
    made = [by_hand(name, folder, port, arguments) for name in ("map", "acl", "retry")]
    contenders = [ours, *(contender for contender, _ in made)]
    registry = await open_registry(url)
    target.start()
    place.lb.start()
    ended = False
    try:
        await place.fill(registry, port)
        await place.applied(registry, await registry.commit([]))
        assert (await fetch(f"http://127.0.0.1:{place.http}", "/", host=host))[0] == 200
        if arguments.what == "instructions":
            end(place, folder)
            ended = True
            await asyncio.sleep(1)
            await asyncio.to_thread(count, contenders, folder)
            return
        for _, server in made:
            server.start()
        await asyncio.sleep(2)
        for clients in CLIENTS:
            told(clients, await asyncio.to_thread(measured, contenders, clients, arguments))
    finally:
        await registry.close()
        if not ended:
            end(place, folder)
        for _, server in made:
            server.stop()
        target.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("load", "instructions"), default="load")
    parser.add_argument("--services", default="", help="how many, as 20,200,1000")
    parser.add_argument("--endpoints", type=int, default=10, help="of each service")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=1, help="of each turn")
    arguments = parser.parse_args()
    sizes = arguments.services or ("200,1000" if arguments.what == "load" else "200")
    version = subprocess.run([require("haproxy"), "-v"], capture_output=True, text=True, check=True).stdout
    print(version.splitlines()[0])
    for size in sizes.split(","):
        arguments.services = int(size)
        routes.resize(arguments.services, arguments.endpoints)
        print(
            f"{os.cpu_count()} CPUs; load {os.getloadavg()[0]:.2f}; {size} services x {arguments.endpoints}; {routes.REUSE}"
        )
        folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            asyncio.run(run(stack.enter_context(local_registry(folder)), folder, arguments))


if __name__ == "__main__":
    main()

"""What certificates and the access log cost the balancer: CPU microseconds of HAProxy's worker a request.

    python benchmarks/mesh.py hop    one more hop between two HAProxys, plain, over mTLS on kept connections, and over
                                     mTLS with a new connection each (ECDSA P-256, both sides verified, no resumption)
    python benchmarks/mesh.py ways   what a program without TLS pays to call as somebody (`fairlead mesh connect`), and what
                                     machines pay for encryption between them (`mesh_between`), beside plain
    python benchmarks/mesh.py log    without anything, with the access log as set by default, with every request told,
                                     with ids and trace headers, and with an intention that looks at method and path

CPU and not requests a second: load generator, both HAProxys and the server share the machine.
"""

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fairlead_discovery.policies import Source
from harness.balancer import Balancer, balancer, member, route
from harness.between import HERE, THERE, two_machines
from harness.mesh import Caller, Mesh, intend, meshed
from harness.ports import free_port

HOST = "shop.example"
DEFAULTS = "defaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 1s\n"
SECONDS = 4
WAYS = {
    "nothing": {"access_log": "off"},
    "the default": {},
    "every request told": {"access_log": "all"},
    "ids and trace headers": {"access_log": "off", "request_ids": True, "trace_percent": 10.0},
    "an intention": {"access_log": "off"},
}


@contextmanager
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="fl-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@contextmanager
def haproxy(place: Path, text: str) -> Iterator[None]:
    (place / "beside.cfg").write_text(DEFAULTS + text)
    running = subprocess.Popen(["haproxy", "-f", str(place / "beside.cfg")], stderr=subprocess.DEVNULL)
    yield
    running.terminate()
    running.wait(10)


def server(port: int) -> str:
    return server_at("127.0.0.1", port)


def server_at(host: str, port: int) -> str:
    return f"frontend server\n bind {host}:{port}\n http-request return status 200 content-type text/plain string ok\n"


def cpu_us(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 10_000.0


async def load(lb: Balancer, port: int, name: str) -> None:
    """Prints one line."""
    worker = (await lb.status())["haproxy"]["worker_pid"]
    before = cpu_us(worker)
    words = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", "-H", f"Host: {HOST}", f"http://127.0.0.1:{port}/"]
    running = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    said = (await running.communicate())[0].decode()
    counted = re.search(r"(\d+) requests in", said)
    assert counted is not None, said
    assert "Non-2xx" not in said, said
    count = int(counted[1])
    print(
        f"{name}: {(cpu_us(worker) - before) / count:.0f} µs a request, {count / SECONDS:.0f} requests/s, connections to servers reused"
    )


async def served(lb: Balancer, port: int) -> None:
    await lb.applied(await lb.publish(member("one", port), routes=[route(vhosts=(HOST,), reuse=True)]))


async def hop(rounds: int) -> None:
    with folder() as place:
        async with meshed(place, access_log="off") as (lb, mesh):
            ports = {name: free_port() for name in ("server", "plain", "kept", "new")}
            with haproxy(place, server(ports["server"]) + await hops(lb, mesh, ports)):
                await served(lb, ports["server"])
                for _ in range(rounds):
                    for name in ("plain", "kept", "new"):
                        await load(lb, ports[name], f"hop, {name}")


async def hops(lb: Balancer, mesh: Mesh, ports: dict[str, int]) -> str:
    caller = (await mesh.caller("marathon:/bench")).place
    secure = f"ssl crt {caller.file} ca-file {caller.bundle_file} verify required"
    ways = {
        "plain": ("http-reuse always", f"127.0.0.1:{lb.settings.http_port}"),
        "kept": ("http-reuse always", f"127.0.0.1:{lb.settings.mesh_port} {secure}"),
        "new": ("option http-server-close", f"127.0.0.1:{lb.settings.mesh_port} {secure}"),
    }
    return "".join(
        f"listen {name}\n bind 127.0.0.1:{ports[name]}\n {option}\n server next {where}\n"
        for name, (option, where) in ways.items()
    )


async def ways(rounds: int) -> None:
    """Requests on kept connections; CPU of everything that handles them, but for the server."""
    port, connected = free_port(), free_port()
    with folder() as place, haproxy(place, server_at(THERE, port)):
        for between in (False, True):
            async with two_machines(mesh_between=between, access_log="off") as pair:
                one = member("one", port, host=THERE)
                await pair.applied(await pair.here.publish(one, routes=[route(vhosts=(HOST,), reuse=True)]))
                workers = [int((await lb.status())["haproxy"]["worker_pid"]) for lb in (pair.here, pair.there)]
                name = "to the other machine, mesh_between" if between else "to the other machine, plain"
                at = f"http://{HERE}:{pair.here.settings.http_port}/"
                for _ in range(rounds):
                    await through(name, at, workers)
                if not between:
                    caller = await pair.mesh.caller("marathon:/bench")
                    with connect(pair.here, caller, connected) as forwarder:
                        for _ in range(rounds):
                            await through(
                                "fairlead mesh connect", f"http://127.0.0.1:{connected}/", [workers[0], forwarder]
                            )


async def through(name: str, url: str, pids: list[int]) -> None:
    """Prints one line."""
    before = [cpu_us(pid) for pid in pids]
    words = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", "--latency", "-H", f"Host: {HOST}", url]
    running = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    said = (await running.communicate())[0].decode()
    counted, half, most = (re.search(p, said) for p in (r"(\d+) requests in", r"\n\s+50%\s+(\S+)", r"\n\s+99%\s+(\S+)"))
    assert counted is not None, said
    assert half is not None, said
    assert most is not None, said
    assert "Non-2xx" not in said, said
    count = int(counted[1])
    spent = " + ".join(f"{(cpu_us(pid) - b) / count:.0f}" for pid, b in zip(pids, before, strict=True))
    print(f"{name}: {spent} µs a request, {count / SECONDS:.0f} requests/s, median {half[1]}, p99 {most[1]}")


@contextmanager
def connect(lb: Balancer, caller: Caller, port: int) -> Iterator[int]:
    """Its pid, once it listens."""
    words = [
        sys.executable, "-m", "fairlead_console", "mesh", "connect", "--to", f"{port}=marathon:/shop/web",
        "--mesh", f"{lb.settings.mesh_bind}:{lb.settings.mesh_port}",
        "--identity", str(caller.place.file), "--roots", str(caller.place.bundle_file),
    ]  # fmt: skip
    running = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    running.stdout.readline()
    yield running.pid
    running.kill()
    running.wait(10)


async def log(rounds: int) -> None:
    port = free_port()
    with folder() as place, haproxy(place, server(port)):
        for _ in range(rounds):
            for name, settings in WAYS.items():
                with folder() as data:
                    async with balancer(data, spare_backends=0, **settings) as lb:
                        await served(lb, port)
                        if name == "an intention":
                            await intend(lb, Source(name="anonymous", methods=("GET",), paths=("/",)), default="deny")
                        await load(lb, lb.settings.http_port, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["hop", "ways", "log"], nargs="?", default="hop")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    asyncio.run({"hop": hop, "ways": ways, "log": log}[given.what](given.rounds))


if __name__ == "__main__":
    main()

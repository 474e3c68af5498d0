"""Two machines between which nothing passes but the mesh: a plain program reaches a plain one on the other machine."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fairlead_daemon.processes import identify
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Put, Registry
from harness.balancer import member, route
from harness.house import FAIRLEAD
from harness.servers import Server
from harness.waiting import wait_until

pytestmark = [
    pytest.mark.needs("haproxy", "ip", "nft"),
    pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(180),
]
MESH, AUTHORITY, HTTP, TASK = 9443, 8450, 9081, 31005
APP = "/shop/cart"
PYTHON = "/usr/bin/python3"
NET = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"


def sh(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, timeout=20, text=True).stdout


class Machine:
    """A network namespace; what comes in from the other one is dropped, but for the ports named."""

    def __init__(self, number: int, folder: Path) -> None:
        self.name = f"fl{os.getpid() % 10000}m{number}"
        self.address = f"{NET}.{number}"
        self.folder = folder / self.name
        self.folder.mkdir(mode=0o755)
        self._servers: list[Server] = []

    def inside(self, *words: str) -> str:
        return sh("ip", "netns", "exec", self.name, *words)

    def only(self, *ports: int) -> None:
        let_in = ", ".join(map(str, ports))
        self.inside("nft", "add table inet wall; add chain inet wall in { type filter hook input priority 0; policy drop; };"
                    " add rule inet wall in iifname lo accept; add rule inet wall in ct state established accept;"
                    f" add rule inet wall in tcp dport {{ {let_in} }} counter accept")  # fmt: skip

    def start(self, *words: str) -> None:
        command = ["ip", "netns", "exec", self.name, *words]
        self._servers.append(Server(command, log=self.folder / f"{len(self._servers)}.log").start())

    def balancer(self, registry: str, authority: str) -> None:
        settings = {
            "registry": registry, "data_dir": str(self.folder / "data"), "id": self.name, "token": "off",
            "machine": [self.address], "mesh_bind": self.address, "mesh_port": MESH, "mesh_between": True,
            "identity_authority": authority, "max_connections": 500, "service_ports": "10100-10110",
        }  # fmt: skip
        words = [w for k, v in settings.items() for w in ("--set", f"{k}={json.dumps(v)}")]
        self.start(str(FAIRLEAD), "lb", "--node", *words)

    def ask(self, url: str, *, host: str = "") -> str:
        """What a plain program of this machine gets."""
        script = (
            "import sys, urllib.request as u\n"
            "try: print(u.urlopen(u.Request(sys.argv[1], headers={'Host': sys.argv[2]}), timeout=2).read().decode())\n"
            "except OSError as e: print('no answer', e)"
        )
        return self.inside(PYTHON, "-c", script, url, host).strip()

    def end(self) -> None:
        for server in self._servers:
            server.stop()
        running = self.folder / "data" / "lb-node" / "process.json"
        if running.exists():
            found = json.loads(running.read_bytes())
            for one in (found["master"], *found["workers"]):
                with contextlib.suppress(ProcessLookupError):
                    if (now := identify(one["pid"])) is not None and now.start_ticks == one["start_ticks"]:
                        os.kill(one["pid"], signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


@pytest.fixture
def machines(short_dir: Path) -> Iterator[tuple[Machine, Machine]]:
    one, two = Machine(1, short_dir), Machine(2, short_dir)
    try:
        for each in (one, two):
            sh("ip", "netns", "add", each.name)
        sh("ip", "link", "add", "eth0", "netns", one.name, "type", "veth", "peer", "name", "eth0", "netns", two.name)
        for each in (one, two):
            each.inside("ip", "addr", "add", f"{each.address}/24", "dev", "eth0")
            each.inside("ip", "link", "set", "eth0", "up")
            each.inside("ip", "link", "set", "lo", "up")
        yield one, two
    finally:
        one.end()
        two.end()


@pytest.fixture
async def registry(short_dir: Path) -> AsyncIterator[tuple[str, Registry]]:
    """Its process; a unix socket is reached from every namespace."""
    url = f"local:{short_dir}/registry.sock"
    words = [
        str(FAIRLEAD),
        "registry",
        "--set",
        f"registry={url}",
        "--set",
        f"data_dir={short_dir}",
        "--set",
        "token=off",
    ]
    server = Server(words, log=short_dir / "registry.log").start()
    await asyncio.to_thread(wait_until, "the registry serves", (short_dir / "registry.sock").exists, within_s=20)
    opened = await open_registry(url)
    yield url, opened
    await opened.close()
    server.stop()


async def test_between_machines_there_is_nothing_in_plain(
    machines: tuple[Machine, Machine], registry: tuple[str, Registry]
):
    """The task's own port is closed to the other machine, and it is reached all the same, by the mesh port alone."""
    (one, two), (url, opened) = machines, registry
    one.only(MESH, AUTHORITY)
    two.only(MESH)
    authority = f"http://{one.address}:{AUTHORITY}"
    ca = {"registry": url, "data_dir": str(one.folder), "host": one.address, "port": AUTHORITY, "token": "off"}
    one.start(str(FAIRLEAD), "ca", *(w for k, v in ca.items() for w in ("--set", f"{k}={json.dumps(v)}")))
    for each in (one, two):
        each.balancer(url, authority)
    (two.folder / "www").mkdir()
    (two.folder / "www" / "index.html").write_text("the cart")
    two.start(PYTHON, "-m", "http.server", str(TASK), "--bind", two.address, "--directory", str(two.folder / "www"))
    task = member("cart", TASK, app=APP, host=two.address)
    name = paths.member_name("cart", encode(task))
    service = f"marathon:{APP}"
    await opened.commit(
        [
            Put(paths.route(service), encode(route(APP, vhosts=("cart.example",)))),
            Put(paths.member(service, name), encode(task)),
        ]
    )

    def asked() -> bool:
        return one.ask(f"http://127.0.0.1:{HTTP}/", host="cart.example") == "the cart"

    await asyncio.to_thread(wait_until, "the other machine's task answers", asked, within_s=60)
    direct = await asyncio.to_thread(one.ask, f"http://{two.address}:{TASK}/")
    counted = two.inside("nft", "-j", "list chain inet wall in")
    packets = [e["counter"]["packets"] for r in json.loads(counted)["nftables"] for e in r.get("rule", {}).get("expr", ()) if "counter" in e]  # fmt: skip

    assert direct.startswith("no answer")
    assert packets[0] > 0
    assert "the cart" == two.ask(f"http://127.0.0.1:{HTTP}/", host="cart.example"), "its own machine's too"

"""Several ZooKeeper servers that elect a leader among them: killable, pausable, and cut off from each other and from us.

To be cut off, each has a network namespace of its own on one bridge; needs root and `ip`.
"""

import ipaddress
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.ports import free_port
from harness.servers import missing, require
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

HEAP = "-Xmx96m"


class Member(ZooKeeper):
    """One server of an ensemble. `namespace` "" is ours."""

    def __init__(self, folder: Path, number: int, host: str, peers: Sequence[str], namespace: str = "") -> None:
        super().__init__(folder, free_port())
        self.host = host
        self.number = number
        config = folder / "zoo.cfg"
        lines = config.read_text().replace("clientPortAddress=127.0.0.1", f"clientPortAddress={host}")
        config.write_text(lines + "initLimit=20\nsyncLimit=6\n" + "\n".join(peers) + "\n")
        (folder / "data" / "myid").write_text(str(number))
        command = [HEAP if word.startswith("-Xmx") else word for word in self.server.command]
        enter = ["ip", "netns", "exec", namespace] if namespace else []
        self.server.command = [*enter, *command]

    def role(self) -> str:
        """What it calls itself, as `leader` or `follower`; empty when it serves nobody."""
        try:
            lines = self.command("srvr").splitlines()
        except OSError:
            return ""
        return next((line.partition(": ")[2] for line in lines if line.startswith("Mode")), "")


class Ensemble:
    """`url` names every server; `leader()` is who leads them now."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    @property
    def url(self) -> str:
        return "zk://" + ",".join(member.hosts for member in self.members)

    def start(self) -> "Ensemble":
        for member in self.members:
            member.server.start()
        self.wait_whole()
        return self

    def wait_whole(self) -> None:
        """Everyone serves."""
        wait_until("the ensemble serves", lambda: all(m.role() for m in self.members), within_s=60, every_s=0.2)

    def leader(self) -> Member:
        return wait_until(
            "a leader of the ensemble",
            lambda: next((m for m in self.members if m.role() == "leader"), None),
            within_s=60,
            every_s=0.2,
        )

    def follower(self) -> Member:
        return wait_until("a follower", lambda: next((m for m in self.members if m.role() == "follower"), None))

    def stop(self) -> None:
        for member in self.members:
            member.stop()


def on_loopback(folder: Path, count: int) -> Ensemble:
    """Not started yet."""
    peers = [f"server.{n}=127.0.0.1:{free_port()}:{free_port()}" for n in range(1, count + 1)]
    return Ensemble([Member(folder / f"z{n}", n, "127.0.0.1", peers) for n in range(1, count + 1)])


@contextmanager
def on_bridge(folder: Path, count: int) -> Iterator["Bridged"]:
    """Started; each server in a namespace of its own."""
    if os.geteuid():
        missing("network namespaces need root")
    require("ip")
    bridged = Bridged(folder, count)
    try:
        bridged.build()
        bridged.start()
        yield bridged
    finally:
        bridged.stop()
        bridged.remove()


class Bridged(Ensemble):
    """Servers whose lines can be cut."""

    def __init__(self, folder: Path, count: int) -> None:
        tag = f"{os.getpid() % 100_000}"
        net = ipaddress.ip_network(f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}.0/24")
        self.bridge = f"flb{tag}"
        self.gateway = f"{net[1]}/24"
        hosts = [str(net[10 + n]) for n in range(count)]
        self.names = [f"fl{tag}n{n}" for n in range(count)]
        peers = [f"server.{n}={host}:2888:3888" for n, host in enumerate(hosts, 1)]
        super().__init__([Member(folder / f"z{n}", n + 1, host, peers, self.names[n]) for n, host in enumerate(hosts)])

    def build(self) -> None:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", self.gateway, "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        for name, member in zip(self.names, self.members, strict=True):
            _ip("netns", "add", name)
            _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", name, "master", self.bridge, "up")
            for words in (
                ("addr", "add", f"{member.host}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", name, *words)

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)

    def cut(self, member: Member) -> None:
        """Nothing reaches it any more, and it reaches nobody; no connection is told."""
        _ip("link", "set", self.names[self.members.index(member)], "down")

    def mend(self, member: Member) -> None:
        _ip("link", "set", self.names[self.members.index(member)], "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        missing(f"ip {' '.join(words)}: {done.stderr.strip()}")

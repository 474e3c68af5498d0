"""A machine that vanishes: its packets are dropped, nothing is killed. Its names go within seconds, and come back."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from harness.house import FAIRLEAD, House, house
from harness.ports import free_port, free_range
from harness.servers import Server
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

pytestmark = [
    pytest.mark.needs("haproxy", "dig", "ip", "nft"),
    pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(240),
]
APP = "/far/web"


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=10)


class Machine:
    """A network namespace with one link to us: `ours` and `theirs` are its two addresses."""

    def __init__(self) -> None:
        self.name = f"fl{os.getpid() % 10000}"
        net = f"10.{200 + os.getpid() % 50}.{os.getpid() % 250}"
        self.ours, self.theirs = f"{net}.1", f"{net}.2"

    def __enter__(self) -> Self:
        sh("ip", "netns", "add", self.name)
        sh("ip", "link", "add", f"{self.name}a", "type", "veth", "peer", "name", f"{self.name}b", "netns", self.name)
        sh("ip", "addr", "add", f"{self.ours}/30", "dev", f"{self.name}a")
        sh("ip", "link", "set", f"{self.name}a", "up")
        self.inside("ip", "addr", "add", f"{self.theirs}/30", "dev", f"{self.name}b")
        self.inside("ip", "link", "set", f"{self.name}b", "up")
        self.inside("ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        sh("ip", "netns", "del", self.name)

    def inside(self, *words: str) -> None:
        sh("ip", "netns", "exec", self.name, *words)

    def cut(self) -> None:
        """Silence, no reset: every packet on the link is dropped, both ways."""
        self.inside("nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; };"
                    f" add rule inet cut in iifname {self.name}b drop;"
                    " add chain inet cut out { type filter hook output priority 0; };"
                    f" add rule inet cut out oifname {self.name}b drop")  # fmt: skip

    def mend(self) -> None:
        self.inside("nft", "delete table inet cut")


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as there:
        yield there


@pytest.fixture(params=["local", "zookeeper"])
def registry(request: pytest.FixtureRequest, machine: Machine, short_dir: Path) -> Iterator[str]:
    """The word local, or the URL of a ZooKeeper that the far machine reaches over its one link."""
    if request.param == "local":
        yield "local"
        return
    server = ZooKeeper(short_dir, host=machine.ours).start()
    yield server.url
    server.stop()


@pytest.fixture
def far(machine: Machine, registry: str) -> Iterator[House]:
    """A house with one agent here and one on the far machine."""
    with house(registry, agents=1, settings={"master": {"host": "0.0.0.0"}}) as place:
        ports = free_range(20)
        data = place.folder / "far"
        config = place.folder / "far.toml"
        config.write_text(
            f'registry = "{registry if registry != "local" else f"local:{place.registry_socket()}"}"\ndata_dir = "{data}"\nhost = "{machine.theirs}"\n'
            f'ip = "{machine.theirs}"\nhostname = "far"\nport = {free_port()}\ntoken = "off"\n'
            f'master = "{machine.ours}:{place.ports["master_port"]}"\n'
            f'resources = "cpus:8;mem:4096;disk:1000;ports:[{ports[0]}-{ports[-1]}]"\n'
        )
        agent = Server(
            ["ip", "netns", "exec", machine.name, str(FAIRLEAD), "agent", "--config", str(config)],
            log=place.folder / "far.log",
        ).start()
        try:
            wait_until("two agents", lambda: len([a for a in place.agents() if a["active"]]) == 2, within_s=20)
            yield place
        finally:
            agent.stop()
            place.end_keepers(data)


def test_a_vanished_machine_leaves_the_names_within_six_seconds_and_comes_back(far: House, machine: Machine):
    """Suspect after 4 s of silence; its tasks wait; the next beat publishes them again."""
    far.deploy(far.app(APP, constraints=[["hostname", "UNIQUE"]]))
    assert {"127.0.0.1", machine.theirs} == set(far.dig(far.dns_name(APP)))
    tasks = {t["id"] for t in far.tasks(APP)}

    machine.cut()
    begin = time.monotonic()
    wait_until("it is out of the names", lambda: far.dig(far.dns_name(APP)) == ["127.0.0.1"], within_s=15)
    took_s = time.monotonic() - begin
    answers = [far.through_lb("far-web.example")[0] for _ in range(6)]
    machine.mend()
    wait_until("it is back", lambda: machine.theirs in far.dig(far.dns_name(APP)), within_s=30)

    assert took_s < 6.0
    assert [200] * 6 == answers
    assert tasks == {t["id"] for t in far.tasks(APP)}

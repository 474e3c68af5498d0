"""The web console beside `fairlead messaging` and a real pair of RabbitMQ brokers, and nothing else."""

import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.house import FAIRLEAD
from harness.ports import free_port
from harness.rabbitmq import Pair
from harness.servers import Server
from harness.waiting import wait_until

pytestmark = pytest.mark.timeout(180)
TOPOLOGY = """name = "shop"
[[vhosts]]
name = "shop"
[[exchanges]]
vhost = "shop"
name = "orders"
type = "topic"
[[federated_exchanges]]
vhost = "shop"
name = "orders"
from = ["east"]
to = ["west"]
reconnect_delay_s = 1
"""


class Place:
    """Registry, messaging with its topology, console."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pair = Pair(folder)
        self.ports = {name: free_port() for name in ("messaging", "console")}
        self.servers: list[Server] = []

    def start(self) -> "Place":
        self.pair.start()
        brokers = "".join(
            f'[brokers.{b.name}]\nmanagement = "{b.management}"\namqp = ["amqp://127.0.0.1:{b.port}"]\n'
            f'cluster_name = "{b.name}"\n'
            for b in (self.pair.east, self.pair.west)
        )
        file = self.folder / "topology.toml"
        file.write_text(TOPOLOGY + brokers)
        self._daemon("registry")
        self._daemon("messaging", topologies=f'["{file}"]', every_s=1)
        others = dict.fromkeys(("master", "services", "lb", "monitor"), "")
        self._daemon("console", messaging=f"http://127.0.0.1:{self.ports['messaging']}", **others)
        return self

    def _daemon(self, name: str, **settings: object) -> None:
        given = {"registry": f"local:{self.folder}/r.sock", "data_dir": self.folder / name, "token": "off", **settings}
        if name in self.ports:
            given["port"] = self.ports[name]
        command = [str(FAIRLEAD), name, *(f"--set={key}={value}" for key, value in given.items())]
        self.servers.append(Server(command, log=self.folder / f"{name}.log").start())

    def page(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['console']}/", timeout=10) as response:
            return str(response.read().decode())

    def wait_shown(self, *texts: str, within_s: float = 40) -> None:
        wait_until(
            f"the page shows {texts}", lambda: all(t in self.page() for t in texts), within_s=within_s, every_s=0.2
        )

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()
        self.pair.stop()


@pytest.fixture
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    made = Place(folder)
    try:
        yield made.start()
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_link_is_shown_as_it_is(place: Place):
    """Running; broken when its upstream is gone, with the reason; running again when it is back."""
    place.wait_shown("exchange orders in shop", '<span class="badge good">running</span>')
    place.pair.east.kill()
    place.wait_shown('<span class="badge bad">')
    place.pair.east.start()
    place.wait_shown('<span class="badge good">running</span>', within_s=60)

    page = place.page()
    assert "east" in page
    assert "west" in page
    assert "The master is switched off by setting" in page

"""`fairlead messaging` on a real pair of brokers: repairs drift, finds moved brokers in the registry, tells links."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Address, Member, Port, TaskRef, encode
from fairlead_discovery.registry import Create, Delete
from harness.ports import free_port
from harness.rabbitmq import Pair, RabbitMQ
from harness.servers import Server
from harness.waiting import eventually

FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
TOPOLOGY = """
name = "shop"
[brokers.east]
service = "marathon:/shop/east"
[brokers.west]
service = "west-shop.marathon.mesos"
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


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    brokers = Pair(folder)
    try:
        yield brokers.start()
    finally:
        brokers.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Daemon:
    """The daemon and a local registry, as processes."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.registry_url = f"local:{folder}/registry.sock"
        common = ["--set", f"registry={self.registry_url}", "--set", "token=off"]
        self.registry = Server(
            [FAIRLEAD, "registry", *common, "--set", f"data_dir={folder}/registry"], log=folder / "registry.log"
        )
        own = ["--set", f"data_dir={folder}/messaging", "--set", f"port={port}", "--set", "every_s=0.5"]
        self.daemon = Server([FAIRLEAD, "messaging", *common, *own], log=folder / "messaging.log")

    async def status(self) -> Any:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/status") as response:
            return await response.json()

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            return await response.text()

    async def links(self) -> dict[str, str]:
        return {link["name"]: link["state"] for link in (await self.status())["links"]}

    async def wait_link(self, state: str) -> Any:
        async def there() -> Any:
            return [link for link in (await self.status())["links"] if link["state"] == state]

        return (await eventually(f"the link is {state}", there, within_s=30, every_s=0.1))[0]


@pytest.fixture
async def daemon(short_dir: Path) -> AsyncIterator[Daemon]:
    place = Daemon(short_dir)
    place.registry.start()
    place.daemon.start()
    await eventually("status", place.status, within_s=20)
    yield place
    place.daemon.stop()
    place.registry.stop()


def member(broker: RabbitMQ, *, port: int = 0) -> bytes:
    """As the master publishes a broker that is a task. `port` stands instead of its AMQP port."""
    amqp = port or broker.port
    ports = (
        Port(index=0, number=amqp, host_port=amqp, name="amqp"),
        Port(index=1, number=broker.management_port, host_port=broker.management_port, name="management"),
    )
    task = TaskRef(id=broker.name, name=f"{broker.name}.shop", framework="marathon", framework_id="f", agent="a")
    return encode(Member(serviceEndpoint=Address(host="127.0.0.1", port=amqp), task=task, ports=ports, status="ALIVE"))


def place_of(broker: RabbitMQ, data: bytes) -> str:
    return paths.member(f"marathon:/shop/{broker.name}", paths.member_name(broker.name, data))


async def test_it_keeps_brokers_that_are_tasks_as_declared(daemon: Daemon, pair: Pair):
    """Handed over in the registry, it makes the federation, repairs it, and follows a broker that moves; /status and
    /metrics say how each link is.
    """
    registry = await open_registry(daemon.registry_url)
    lost = member(pair.east, port=free_port())
    try:
        await registry.write(paths.below(paths.TOPOLOGY, "shop"), TOPOLOGY.encode())
        await eventually("told that no broker is found", lambda: told(daemon, "has no endpoint"), within_s=10)
        at_west = member(pair.west)
        await registry.commit([Create(place_of(pair.east, lost), lost), Create(place_of(pair.west, at_west), at_west)])
        link = await daemon.wait_link("error")
        assert "connection refused" in link["why"]
        assert 'fairlead_messaging_link_up{broker="west",kind="exchange"' in (page := await daemon.metrics())
        assert 'fairlead_messaging_links{broker="west",state="error",topology="shop"} 1.0' in page

        moved = member(pair.east)
        await registry.commit([Create(place_of(pair.east, moved), moved), Delete(place_of(pair.east, lost))])
        await daemon.wait_link("running")

        await asyncio.to_thread(pair.west.api, "DELETE", "/api/policies/shop/fairlead.shop.exchange.orders")
        await eventually(
            "the policy is back",
            lambda: asyncio.to_thread(pair.west.found, "/api/policies/shop/fairlead.shop.exchange.orders"),
            within_s=10,
        )
        await daemon.wait_link("running")

        await registry.write(paths.below(paths.TOPOLOGY, "shop"), b"brokers = 3\nqueue = 1\n")
        await eventually("told of the bad document", lambda: told(daemon, "queue: unknown key"), within_s=10)
        await daemon.wait_link("running")
        shown = await asyncio.to_thread(links_verb, daemon)
        assert "running  west    shop   exchange  orders  fairlead.shop.east" in shown
        assert "topology shop is not taken: /fairlead/messaging/topology/shop: " in shown
    finally:
        await registry.close()


def links_verb(daemon: Daemon) -> str:
    environment = {**os.environ, "FAIRLEAD_MESSAGING": daemon.url}
    command = [FAIRLEAD, "broker", "links"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True).stdout


async def told(daemon: Daemon, text: str) -> bool:
    return text in str(await daemon.status())


async def test_a_bad_topology_file_refuses_the_start(short_dir: Path):
    """Exit code 2; every mistake is named with its place."""
    file = short_dir / "topology.toml"
    file.write_text(
        '[brokers.east]\nmanagement = "http://e"\namqp = ["amqp://e"]\n[[queues]]\nname = "q"\non = ["nowhere"]\n'
    )
    server = Server(
        [FAIRLEAD, "messaging", "--set", f'topologies=["{file}"]', "--set", "port=0"], log=short_dir / "log"
    )
    server.start()
    assert server.process is not None
    code = await asyncio.to_thread(server.process.wait, 20)

    assert 2 == code
    assert "queues[0].on: no such broker: nowhere" in server.tail()

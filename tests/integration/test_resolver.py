"""A program that finds a service by the Resolver, while the service is rescaled under it: no request is lost or doubled."""

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from fairlead_discovery.adapters.aiohttp_connector import ServiceConnector
from fairlead_discovery.backends import open_registry
from fairlead_discovery.resolver import Resolver
from harness.house import House
from harness.waiting import wait_until

pytestmark = [pytest.mark.needs("haproxy", "dig"), pytest.mark.timeout(300)]
APP = "/load/web"
RATE = 100
"""Requests a second, every second one a POST."""


class Client:
    """Numbered requests at a fixed rate through the connector, until told to stop."""

    def __init__(self, resolver: Resolver, name: str) -> None:
        self.session = aiohttp.ClientSession(
            connector=ServiceConnector(resolver), timeout=aiohttp.ClientTimeout(total=10)
        )
        self.name = name
        self.failures: list[str] = []
        self.sent: list[tuple[str, int]] = []
        self.stopped = False

    async def run(self) -> None:
        async with self.session, asyncio.TaskGroup() as group:
            number = 0
            while not self.stopped:
                number += 1
                method = "POST" if number % 2 else "GET"
                self.sent.append((method, number))
                group.create_task(self.request(method, number))
                await asyncio.sleep(1 / RATE)

    async def request(self, method: str, number: int) -> None:
        try:
            async with self.session.request(method, f"http://{self.name}/n/{number}") as response:
                text = await response.text()
                if response.status != 200 or not text.startswith(f"{number} "):
                    self.failures.append(f"{method} {number}: {response.status} {text[:80]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append(f"{method} {number}: {error!r}")


async def while_asking(house: House, change: Callable[[], None]) -> Client:
    """`change` runs in a thread beside the client."""
    url = house.url if house.url != "local" else f"local:{house.registry_socket()}"
    registry = await open_registry(url)
    try:
        async with Resolver(registry) as resolver:
            client = Client(resolver, house.dns_name(APP))
            running = asyncio.create_task(client.run())
            try:
                await asyncio.to_thread(change)
            finally:
                client.stopped = True
                await running
            return client
    finally:
        await registry.close()


@pytest.fixture(scope="module")
def loaded(whole: House) -> House:
    whole.deploy(whole.app(APP))
    return whole


async def test_no_request_is_lost_while_a_service_is_rescaled(loaded: House):
    """2 → 5 → 1 instances, each of them used, and every old one gone at the end."""
    loaded.count_file(APP).write_text("")

    def change() -> None:
        for instances in (5, 1):
            assert 200 == loaded.call("services_port", "PUT", f"/v2/apps{APP}", {"instances": instances})[0]
            loaded.settle(APP)
            running = {t["id"] for t in loaded.tasks(APP)}
            wait_until("every instance serves", lambda: running <= loaded.servers(APP))  # noqa: B023  # awaited here

    client = await while_asking(loaded, change)
    served = loaded.served(APP)

    assert [] == client.failures
    assert [] == loaded.doubled(APP)
    assert [] == [request for request in client.sent if request not in served]


async def test_no_request_is_lost_while_every_instance_is_replaced(loaded: House):
    """POST /restart."""
    loaded.count_file(APP).write_text("")
    old = {t["id"] for t in loaded.tasks(APP)}

    def change() -> None:
        assert 200 == loaded.call("services_port", "POST", f"/v2/apps{APP}/restart")[0]
        loaded.settle(APP)

    client = await while_asking(loaded, change)

    assert not old & {t["id"] for t in loaded.tasks(APP)}
    assert [] == client.failures
    assert [] == loaded.doubled(APP)

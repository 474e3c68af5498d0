"""A ZooKeeper that is closed to programs: they find services over HTTP, by `fairlead discovery`, as it is and when it is killed."""

import asyncio
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from contract.following import collecting
from discovery.records_of import WEB, publish
from fairlead_discovery.adapters.ring_client import HttpRings
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.decisions.membership import Membership, RingMember, join
from fairlead_discovery.resolver import Resolver
from fairlead_discovery.rings import change_ring, create_ring
from fairlead_discovery.snapshots import Trust
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper


@pytest.fixture
async def closed(zookeeper: ZooKeeper, short_dir: Path) -> AsyncIterator[tuple[str, ComposedRegistry]]:
    """URL and registry of who has the credentials; nobody else may read."""
    file = short_dir / "zk.auth"
    file.write_text("fairlead:s3cret")
    file.chmod(0o600)
    url = f"{zookeeper.url}/{uuid4().hex}?auth={file}&readers=none"
    registry = await open_registry(url)
    async with collecting(registry.watch()) as sights:
        await sights.until(lambda sight: sight.in_sight, within_s=60)
    await registry.commit([publish(1)])
    yield url, registry
    await registry.close()


async def test_programs_find_services_where_the_registry_is_closed(
    closed: tuple[str, ComposedRegistry], short_dir: Path
):
    """Not with the registry's own URL; over HTTP with every change, also after the daemon was killed; rings too."""
    url, registry = closed
    port = free_port()
    words = ["discovery", "--set", f"registry={url}", "--set", f"data_dir={short_dir}", "--set", f"port={port}"]
    command = [sys.executable, "-m", "fairlead_console", *words, "--set", "token=off"]
    server = Server(command, log=short_dir / "discovery.log").start()

    def ready() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)

    await asyncio.to_thread(server.wait_ready, "fairlead discovery", ready, within_s=60)
    try:
        async with Resolver(f"http://127.0.0.1:{port}") as resolver:

            async def tasks(*expected: str) -> None:
                async def so() -> bool:
                    live = resolver.snapshot.trust is Trust.LIVE
                    return live and [*expected] == [each.task for each in resolver.endpoints(WEB)]

                await eventually(f"the endpoints are {expected}", so, within_s=30)

            await tasks("t1")
            await registry.commit([publish(2)])
            await tasks("t1", "t2")
            await asyncio.to_thread(server.kill)
            await registry.commit([publish(3)])
            server.start()
            await tasks("t1", "t2", "t3")
            await create_ring(registry, Membership(service="orders", slots=64))
            await change_ring(registry, "orders", lambda ring: join(ring, RingMember(name="a")))
            async with HttpRings(f"http://127.0.0.1:{port}") as rings:
                owners = (await anext(rings.follow("orders"))).owners("x")
            stopped = await asyncio.to_thread(server.stop, grace_s=30)
    finally:
        server.kill()

    assert ("a",) == owners
    assert 0 == stopped, "open streams hold nobody up"


async def test_without_credentials_the_registry_says_nothing(
    closed: tuple[str, ComposedRegistry], monkeypatch: pytest.MonkeyPatch
):
    """A program with the bare URL learns no endpoint."""
    monkeypatch.setattr("fairlead_discovery.resolver.FIRST_S", 2.5)
    async with Resolver(closed[0].partition("?")[0]) as resolver:
        found = resolver.endpoints(WEB)

    assert () == found

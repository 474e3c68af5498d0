"""Many readers over many services that change without pause: all end equal, and none ever saw one empty that was not.

The soak is the issue's size; the ordinary test a tenth of it. On both real registries.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from contract.conftest import Local
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.registry import Create, Delete, Sight
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

EACH = 2
A_SECOND = 100
BATCH = 50


class Reader:
    """Follows; `empty` are services it saw without a member after it had seen them all."""

    def __init__(self, registry: ComposedRegistry, services: int) -> None:
        self.sight = Sight(in_sight=False)
        self.empty: set[str] = set()
        self._registry = registry
        self._services = {paths.endpoint_folder(f"s:{n}") for n in range(services)}

    async def run(self) -> None:
        whole = False
        async for sight in self._registry.watch():
            self.sight = sight
            whole = whole or self._services <= sight.folders.keys()
            if whole:
                self.empty |= self._services - sight.folders.keys()


def member(service: int, number: int) -> str:
    return paths.member(f"s:{service}", f"member_t{number}_00000000")


async def stand(url: str, *, readers: int, services: int, seconds: float) -> None:
    """Each change replaces one of a service's members, or takes one away and brings it back later."""
    registries = [await open_registry(url) for _ in range(readers + 1)]
    writer = registries[0]
    held = {service: [member(service, EACH * service + n) for n in range(EACH)] for service in range(services)}
    everything = [path for members in held.values() for path in members]
    for start in range(0, len(everything), BATCH):
        await writer.commit([Create(path, b"{}") for path in everything[start : start + BATCH]])
    following = [Reader(registry, services) for registry in registries[1:]]
    async with AsyncExitStack() as stack:
        for registry in registries:
            stack.push_async_callback(registry.close)
        tasks = [asyncio.create_task(reader.run()) for reader in following]
        stack.callback(lambda: [task.cancel() for task in tasks])
        number = EACH * services
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        revision = 0
        for step in range(int(A_SECOND * seconds)):
            await asyncio.sleep(max(0.0, start_s + step / A_SECOND - loop.time()))
            members = held[random.randrange(services)]
            number += 1
            made = member(int(members[0].split(":")[1].split("/")[0]), number)
            gone = [members.pop(0)] if len(members) > 1 or random.random() < 0.5 else []
            members.append(made)
            revision = await writer.commit([Create(made, b"{}"), *map(Delete, gone)])
        truth = {paths.endpoint_folder(f"s:{s}"): {p.rpartition("/")[2] for p in m} for s, m in held.items()}
        for reader in following:
            await eventually("the last revision", lambda r=reader: _at(r, revision), within_s=60)
            assert truth == {folder: set(nodes) for folder, nodes in reader.sight.folders.items()}
            assert set() == reader.empty


async def _at(reader: Reader, revision: int) -> bool:
    return reader.sight.in_sight and reader.sight.revision >= revision


@pytest.fixture(params=["local", "zookeeper"])
async def url(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[str]:
    if request.param == "zookeeper":
        server: ZooKeeper = request.getfixturevalue("zookeeper")
        yield f"{server.url}/{uuid4().hex}"
        return
    made = Local(short_dir)
    await made.start()
    yield made.url
    await made.close()


async def test_twenty_readers_end_equal(url: str):
    """200 services, 100 changes a second."""
    await stand(url, readers=20, services=200, seconds=3)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_two_hundred_readers_end_equal(url: str):
    """1,000 services, 100 changes a second."""
    await stand(url, readers=200, services=1000, seconds=60)

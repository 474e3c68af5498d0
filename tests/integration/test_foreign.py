"""Foreign registrations as nodes of a real ZooKeeper: read, followed, and written by an announcer."""

import asyncio
from contextlib import aclosing

import pytest

from fairlead_discovery.announce import Announcer
from fairlead_discovery.announcer import until
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.announcements import Also, Service
from fairlead_discovery.decisions.foreign_nodes import WRITERS, Endpoint
from fairlead_discovery.foreign import follow, read
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

TREADMILL = {"proto": "tcp", "endpoint": "http"}


@pytest.mark.parametrize("form", list(WRITERS))
async def test_what_stands_in_zookeeper_is_read_and_followed(zookeeper: ZooKeeper, form: str):
    """Endpoints by node name; junk is skipped and named; what comes and goes is seen."""
    registry = await open_registry(f"{zookeeper.url}/foreign-{form}")
    first, second = (
        Endpoint(host="10.0.0.1", port=port, id=f"web#{port}", labels=TREADMILL if form == "treadmill" else {})
        for port in (80, 81)
    )
    made = [WRITERS[form](each, "web") for each in (first, second)]
    folder = "/f/web" if form == "curator" else "/f"
    names = [name.rpartition("/")[2] for name, _ in made]
    try:
        await registry.write(f"{folder}/{names[0]}", made[0][1])
        await registry.write(f"{folder}/member_junk", b"junk")
        reading = await read(registry.tree, form, folder)

        assert ([names[0]], ["member_junk"]) == (list(reading.endpoints), list(reading.skipped))
        async with aclosing(follow(registry, form, folder)) as readings:
            await anext(readings)
            await registry.write(f"{folder}/{names[1]}", made[1][1])
            async with asyncio.timeout(5):
                assert set(names) == (await anext(r async for r in readings if len(r.endpoints) == 2)).endpoints.keys()
                await registry.remove(f"{folder}/{names[0]}")
                assert {names[1]} == (await anext(r async for r in readings if len(r.endpoints) == 1)).endpoints.keys()
    finally:
        await registry.close()


async def test_an_announcer_writes_for_readers_of_every_format(zookeeper: ZooKeeper):
    """Beside our own member, by setting; all of it goes with the announcer's session, and at once when it leaves."""
    url = f"{zookeeper.url}/also"
    also = tuple(Also(format=form, path=f"/f/{form}") for form in WRITERS)
    service = Service(name="web", host="127.0.0.1", port=80, checks=(), drain_s=3.0, also=also)
    registry, reader = await open_registry(url), await open_registry(url)
    stop = asyncio.Event()
    announcer = Announcer(registry, [service])
    running = asyncio.create_task(until(stop, announcer.run()))

    async def counts() -> list[int]:
        folders = [f"/f/{form}/web" if form == "curator" else f"/f/{form}" for form in WRITERS]
        return [len((await read(reader.tree, f, d)).endpoints) for f, d in zip(WRITERS, folders, strict=True)]

    async def all_there() -> bool:
        return await counts() == [1] * len(WRITERS)

    async def all_gone() -> bool:
        return await counts() == [0] * len(WRITERS)

    try:
        await eventually("written in every format", all_there)
        stop.set()
        await running
        leaving = asyncio.create_task(announcer.leave())

        await eventually("gone", all_gone, within_s=2)
        await leaving
    finally:
        running.cancel()
        await registry.close()
        await reader.close()

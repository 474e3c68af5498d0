"""Several balancers of one registry: changes that need a reload come to one of them first, then to the others."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from fairlead_discovery import paths
from fairlead_discovery.policies import Canary, CanaryStage, Target, path_of
from fairlead_discovery.records import Balancer as Registered
from fairlead_discovery.records import Traffic, decode, encode
from fairlead_discovery.registry import Put
from fairlead_lb import auditing, rolling
from fairlead_lb.canaries import ROLE
from fairlead_lb.decisions import rollout
from fairlead_lb.decisions.rollout import Phase, Rollout
from harness.balancer import Balancer, Task, balancer, route
from harness.clients import Clients
from harness.sharing import ask_often
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
CANARY = Canary(
    service="marathon:/shop",
    id="1",
    to=Target(service="marathon:/next"),
    steps=(40, 45, 50, 55, 60),
    every_s=1,
    min_requests=10,
    max_p99_ratio=2,
    sticky="",
)


@pytest.fixture
async def pair(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Balancer]]:
    """Without spare backends: each new service is a reload."""
    monkeypatch.setattr(rolling, "HEALTHY_S", 1.5)
    async with several(short_dir, 2) as made:
        yield made


@pytest.fixture
async def three(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Balancer]]:
    """They count what was answered all the time."""
    monkeypatch.setattr(rolling, "HEALTHY_S", 3.0)
    monkeypatch.setattr(auditing, "AUDIT_S", 0.3)
    async with several(short_dir, 3) as made:
        yield made


@asynccontextmanager
async def several(short_dir: Path, count: int, spare_backends: int = 0) -> AsyncIterator[list[Balancer]]:
    url = f"memory:several-{os.getpid()}-{short_dir.name}"
    async with AsyncExitStack() as stack:
        made = []
        for name in ("one", "two", "three")[:count]:
            (short_dir / name).mkdir()
            settings = {"registry_url": url, "id": f"lb-{name}", "spare_backends": spare_backends}
            made.append(await stack.enter_async_context(balancer(short_dir / name, **settings)))
        for place in made:
            await eventually("it knows the others", lambda place=place: knows(place, count - 1), within_s=20)
        yield made


async def knows(place: Balancer, others: int) -> bool:
    return others == len((await place.status())["rollout"]["others"])


async def reloads(pair: list[Balancer]) -> list[int]:
    return [(await place.status())["reloads"] for place in pair]


async def reloaded(pair: list[Balancer], expected: list[int]) -> bool:
    return expected == sorted(await reloads(pair))


async def new_service(pair: list[Balancer], app: str) -> Task:
    task = await Task(app.strip("/"), app=app).start()
    await pair[0].publish(task.member(), routes=[route(app, vhosts=(f"{task.id}.example",))])
    return task


async def routed(place: Balancer, host: str) -> bool:
    return 200 == (await place.ask(host))[0]


async def how_many(pair: list[Balancer], host: str) -> int:
    return sum([await routed(place, host) for place in pair])


async def test_one_reloads_and_the_other_follows_when_it_went_well(pair: list[Balancer]):
    """In between the one is watched; at the end both serve, by one reload each."""
    await new_service(pair, "/new")
    await eventually("one serves it", lambda: how_many(pair, "new.example"), within_s=20, every_s=0.01)
    first = asyncio.get_running_loop().time()

    assert 1 == await how_many(pair, "new.example")
    await eventually("both serve it", lambda: both(pair, "new.example"), within_s=30)
    assert asyncio.get_running_loop().time() - first > 1
    await eventually("each has reloaded once", lambda: reloaded(pair, [1, 1]), within_s=20)


async def both(pair: list[Balancer], host: str) -> bool:
    return 2 == await how_many(pair, host)


async def test_nobody_follows_into_harm(three: list[Balancer]):
    """A port is told to speak HTTP/2 to servers that do not: the first balancer answers 502 after its reload, so the two
    others serve on as before, and say why. What is written next reaches all.
    """
    shop = [await Task(f"t{n}").start() for n in range(2)]
    plain = route(vhosts=(HOST,))
    await three[0].publish(*(task.member() for task in shop), routes=[plain])
    await eventually("all serve it", lambda: all_serve(three), within_s=40)
    await eventually("each has reloaded", lambda: reloaded(three, [1, 1, 1]), within_s=20)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Clients(place.settings.http_port, HOST, count=4)) for place in three]
        await eventually("they have counted", lambda: asked(clients, 100), within_s=20)
        await three[0].publish(routes=[route(vhosts=(HOST,), traffic=Traffic(protocol="h2"))])
        await eventually("the others are stopped", lambda: two_stopped(three), within_s=60)
        harmed = [bool(one.failures) for one in clients]
        await asyncio.sleep(1)
        after = await reloads(three)
        whys = [(await place.status())["rollout"]["waits"] for place in three]
        await three[0].publish(routes=[plain])
        await eventually("all serve it", lambda: all_serve(three), within_s=60)
        await eventually("what was wrong before is not held against this", lambda: went_well(three[0]), within_s=30)

    assert [False, False, True] == sorted(harmed)
    assert harmed == [number == 2 for number in after]
    assert {failure.split()[2] for one in clients for failure in one.failures} <= {"502", "503"}
    assert harmed == ["5xx" not in why for why in whys]
    assert harmed == [bool(one.failures) for one in clients]


async def went_well(place: Balancer) -> bool:
    node = await place.registry.read(paths.ROLLOUT)
    return Phase.GOOD is decode(Rollout, node.data, place="rollout").phase


async def asked(clients: list[Clients], count: int) -> bool:
    return all(sum(one.answers.values()) >= count for one in clients)


async def all_serve(places: list[Balancer]) -> bool:
    return [200] * len(places) == [(await place.ask(HOST))[0] for place in places]


async def two_stopped(places: list[Balancer]) -> bool:
    return 2 == sum(["stopped" in (await place.status())["rollout"]["waits"] for place in places])


async def test_a_first_that_died_blocks_nobody_for_ever(pair: list[Balancer], monkeypatch: pytest.MonkeyPatch):
    """It had taken the word and was gone: after its lease the next one begins."""
    monkeypatch.setattr(rollout, "LEASE_S", 2.0)
    registry = pair[0].registry
    dead = Rollout(balancer="lb-dead", structure="x", phase=Phase.TRYING)
    await registry.write(paths.below(paths.BALANCERS, "lb-dead"), encode(Registered(id="lb-dead", admin="")))
    await registry.write(paths.ROLLOUT, encode(dead))
    await new_service(pair, "/new")

    await eventually("both serve it", lambda: both(pair, "new.example"), within_s=40)


@pytest.mark.parametrize("ill", ["5xx", "slow"])
async def test_a_canary_is_judged_by_what_all_balancers_count(short_dir: Path, ill: str):
    """All of its requests come through one balancer, and another leads: it aborts by 5xx, and by the 99th percentile."""
    async with several(short_dir, 2, spare_backends=4) as places:
        tasks = [await Task(name, app=f"/{name}").start() for name in ("shop", "next")]
        tasks[1].status, tasks[1].delay_s = (500, 0.0) if ill == "5xx" else (200, 0.8)
        hosts = {"shop": (HOST,), "next": ()}
        routes = [route(task.app, vhosts=hosts[task.id]) for task in tasks]
        await places[0].publish(*(task.member() for task in tasks), routes=routes)
        await eventually("all serve it", lambda: all_serve(places), within_s=40)
        leading = await eventually("one leads", lambda: leader(places[0]), within_s=20)
        [led] = [place for place in places if place.settings.id != leading]
        async with Clients(led.settings.http_port, HOST):
            await led.registry.commit([Put(path_of(CANARY), encode(CANARY))])
            await eventually("it is aborted", lambda: aborted(led), within_s=60)
            await eventually("nobody meets it", lambda: only_shop(places), within_s=20)
        reason = (await stage(led)).reason

        assert leading == await leader(led)
        assert ("answers were 5xx" if ill == "5xx" else "its 99th percentile is") in reason
        assert [0, 0] == await reloads(places)


async def leader(place: Balancer) -> str:
    folder = paths.election(ROLE).rpartition("/")[0]
    first = min(await place.registry.tree.names(folder))
    node = await place.registry.tree.get(f"{folder}/{first}")
    return node.data.decode() if node is not None else ""


async def stage(place: Balancer) -> CanaryStage:
    node = await place.registry.tree.get(path_of(CanaryStage(service=CANARY.service, id="")))
    assert node is not None, "nobody has decided anything yet"
    record: CanaryStage = decode(CanaryStage, node.data, place="stage")
    return record


async def aborted(place: Balancer) -> bool:
    found = await stage(place)
    return (found.state, found.percent) == ("aborted", 0)


async def only_shop(places: list[Balancer]) -> bool:
    return all([{"shop": 16} == await ask_often(p.settings.http_port, HOST, 16) for p in places])

"""Several balancers of one registry: changes that need a reload come to one of them first, then to the others."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fairlead_discovery import paths
from fairlead_discovery.records import Balancer as Registered
from fairlead_discovery.records import encode
from fairlead_lb import rolling
from fairlead_lb.decisions import rollout
from fairlead_lb.decisions.rollout import Phase, Rollout
from harness.balancer import Balancer, Task, balancer, route
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")


@pytest.fixture
async def pair(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Balancer]]:
    """Without spare backends: each new service is a reload."""
    monkeypatch.setattr(rolling, "HEALTHY_S", 1.5)
    url = f"memory:several-{os.getpid()}-{short_dir.name}"
    async with AsyncExitStack() as stack:
        made = []
        for name in ("one", "two"):
            (short_dir / name).mkdir()
            settings = {"registry_url": url, "id": f"lb-{name}", "spare_backends": 0}
            made.append(await stack.enter_async_context(balancer(short_dir / name, **settings)))
        for place in made:
            await eventually("it knows the other", lambda place=place: knows_another(place), within_s=20)
        yield made


async def knows_another(place: Balancer) -> bool:
    return 1 == len((await place.status())["rollout"]["others"])


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


async def test_nobody_follows_into_harm(pair: list[Balancer], monkeypatch: pytest.MonkeyPatch):
    """Somebody tried this structure, and it did harm: the others say so and serve what they served; another is tried."""
    monkeypatch.setattr(rollout, "harm", lambda _before, _after: "half of the requests were answered with 5xx")
    await new_service(pair, "/new")
    await eventually("one has stopped", lambda: stopped(pair), within_s=30)

    assert 1 == await how_many(pair, "new.example")
    assert await reloaded(pair, [0, 1])
    monkeypatch.setattr(rollout, "harm", lambda _before, _after: "")
    await new_service(pair, "/other")
    await eventually("both serve both", lambda: both(pair, "other.example"), within_s=40)
    assert await both(pair, "new.example")


async def stopped(pair: list[Balancer]) -> bool:
    waits = [(await place.status())["rollout"]["waits"] for place in pair]
    return any("stopped" in why for why in waits)


async def test_a_first_that_died_blocks_nobody_for_ever(pair: list[Balancer], monkeypatch: pytest.MonkeyPatch):
    """It had taken the word and was gone: after its lease the next one begins."""
    monkeypatch.setattr(rollout, "LEASE_S", 2.0)
    registry = pair[0].registry
    dead = Rollout(balancer="lb-dead", structure="x", phase=Phase.TRYING)
    await registry.write(paths.below(paths.BALANCERS, "lb-dead"), encode(Registered(id="lb-dead", admin="")))
    await registry.write(paths.ROLLOUT, encode(dead))
    await new_service(pair, "/new")

    await eventually("both serve it", lambda: both(pair, "new.example"), within_s=40)

"""Canaries go on, stop and come back by themselves, and services fall over, in a real HAProxy without a reload."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead_discovery import paths
from fairlead_discovery.policies import Canary, CanaryStage, Failover, Target, path_of
from fairlead_discovery.records import Check, decode
from fairlead_lb.decisions.canary import Look
from harness.balancer import Balancer, Task, balancer, fetch, service
from harness.clients import Clients
from harness.sharing import ask_often, order
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
SHOP, NEXT = "marathon:/shop", "marathon:/next"
CANARY = Canary(
    service=SHOP,
    id="1",
    to=Target(service=NEXT),
    steps=(40, 100),
    every_s=1,
    min_requests=20,
    max_p99_ratio=0,
    sticky="",
)


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=4) as made:
        yield made


@contextlib.asynccontextmanager
async def visitors(place: Balancer) -> AsyncIterator[list[str]]:
    """Somebody asks all the time; who answered, or its status."""
    answers: list[str] = []

    async def ask() -> None:
        while True:
            answers.extend((await ask_often(place.settings.http_port, HOST, 8)).elements())

    task = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def stage(place: Balancer) -> CanaryStage:
    node = await place.registry.tree.get(path_of(CanaryStage(service=SHOP, id="")))
    assert node is not None, "nobody has decided anything yet"
    record: CanaryStage = decode(CanaryStage, node.data, place="stage")
    return record


async def is_at(place: Balancer, state: str, percent: float) -> bool:
    found = await stage(place)
    return (found.state, found.percent) == (state, percent)


async def only(place: Balancer, who: str) -> bool:
    return {who: 16} == await ask_often(place.settings.http_port, HOST, 16)


async def told(place: Balancer) -> dict[str, Any]:
    [found] = (await place.status())["canaries"]
    return dict(found)


async def test_a_canary_that_does_well_gets_everything(place: Balancer):
    """Step by step, without a reload and without a failed request; an operator's abort brings all back at once."""
    await service(place, "/shop", vhosts=(HOST,))
    await service(place, "/next")
    async with Clients(place.settings.http_port, HOST) as clients:
        await order(place, CANARY)
        await eventually("it is promoted", lambda: is_at(place, "promoted", 100), within_s=60)
        await eventually("all go there", lambda: only(place, "next"), within_s=10)
    promoted = await told(place)
    await order(place, msgspec.structs.replace(CANARY, order="abort"))
    back = await ask_often(place.settings.http_port, HOST, 40)
    await eventually("it is said", lambda: is_at(place, "aborted", 0), within_s=20)

    assert ("promoted", 100, "it did well at 100 %") == tuple(promoted[k] for k in ("state", "percent", "reason"))
    assert {"shop": 40} == back
    assert {"shop", "next"} == set(clients.answers)
    assert [] == clients.failures
    assert 0 == (await place.status())["reloads"]


async def test_a_canary_that_answers_500_is_aborted_by_itself(place: Balancer):
    """With the reason in the registry, on the page and in the metrics; then nobody meets it any more."""
    await service(place, "/shop", vhosts=(HOST,))
    bad = await service(place, "/next")
    bad.status = 500
    async with visitors(place) as answers:
        await order(place, CANARY)
        await eventually("it is aborted", lambda: is_at(place, "aborted", 0), within_s=60)
        await eventually("nobody meets it", lambda: only(place, "shop"), within_s=10)
    found = await told(place)
    await eventually("it is measured", lambda: measured(place, 'canaries{state="aborted"} 1.0'), within_s=20)
    node = await place.registry.tree.get(paths.below(paths.CANARIES, SHOP))

    assert "answers were 5xx, more than 1 % (the service itself: 0 %)" in found["reason"]
    assert "500" in answers
    assert decode(Look, node.data, place="look").canary_5xx_percent == 100


async def measured(place: Balancer, what: str) -> bool:
    return f"fairlead_lb_{what}" in (await fetch(place.admin, "/metrics"))[1]


async def test_a_canary_that_is_slow_is_aborted_by_itself(place: Balancer):
    """By the 99th percentile of its answer times, which HAProxy counts for split services."""
    await service(place, "/shop", vhosts=(HOST,))
    slow = await service(place, "/next")
    slow.delay_s = 0.8
    strict = msgspec.structs.replace(CANARY, max_p99_ratio=2, min_requests=10, steps=(40, 45, 50, 55, 60))
    async with visitors(place):
        await order(place, strict)
        await eventually("it is aborted", lambda: is_at(place, "aborted", 0), within_s=60)

    assert "its 99th percentile is" in (await stage(place)).reason


async def test_a_balancer_killed_between_two_steps_goes_on_where_the_canary_was(place: Balancer):
    """The next leader watches the step anew; meanwhile the share stays."""
    await service(place, "/shop", vhosts=(HOST,))
    await service(place, "/next")
    patient = msgspec.structs.replace(CANARY, steps=(40, 60), every_s=3600)
    async with visitors(place):
        await order(place, patient)
        await eventually("it begins", lambda: is_at(place, "running", 40), within_s=30)
        await place.kill_daemon()
        await place.start()
        at = await stage(place)
        await order(place, msgspec.structs.replace(patient, every_s=1))
        await eventually("it goes on", lambda: is_at(place, "promoted", 60), within_s=60)

    assert ("running", 40) == (at.state, at.percent)


async def test_a_service_falls_over_and_comes_back_when_it_has_been_well_for_long(place: Balancer):
    """Its fallback answers at once, request by request; the wait for the way back outlives the balancer's daemon."""
    shop = await service(place, "/shop", vhosts=(HOST,), check=Check(path="/health", interval_s=0.3, fall=1))
    await service(place, "/next")
    before = (await place.status())["reloads"]
    slow = Failover(service=SHOP, to=(Target(service=NEXT),), back_after_s=3600)
    await order(place, slow)
    assert {"shop": 40} == await ask_often(place.settings.http_port, HOST, 40)
    port = shop.port
    await shop.stop()
    await eventually("the fallback answers", lambda: only(place, "next"), within_s=20)
    await eventually("it is held", lambda: failed_over(place, active=NEXT), within_s=20)
    await Task("shop", app="/shop").start(port)
    await eventually("it is ready, and held", lambda: failed_over(place, active=NEXT, held=True), within_s=20)
    until_then = (await place.status())["reloads"]
    await place.kill_daemon()
    await place.start()
    await eventually("it is held by the next", lambda: failed_over(place, active=NEXT, held=True), within_s=20)
    still = await ask_often(place.settings.http_port, HOST, 8)
    await order(place, msgspec.structs.replace(slow, back_after_s=0.5))
    await eventually("it is itself again", lambda: only(place, "shop"), within_s=30)
    await eventually("nothing is held", lambda: failed_over(place, active=""), within_s=20)

    assert {"next": 8} == still
    assert before == until_then
    assert 0 == (await place.status())["reloads"]


async def failed_over(place: Balancer, *, active: str, held: bool = False) -> bool:
    [found] = (await place.status())["splits"]
    return bool(found["failover"]["active"] == active and (not held or found["failover"]["held"]))

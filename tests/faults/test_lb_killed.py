"""`fairlead lb`, a process of its own, is killed with -9 again and again while clients ask and endpoints change.

HAProxy is the same one all the time: no request fails, none reaches a task that was drained, none is done twice.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.balancer import Task, member, route, service
from harness.balancer_process import BalancerProcess, balancer_process, local_registry
from harness.churning import churn, started, toggle
from harness.clients import Clients
from harness.waiting import eventually

pytestmark = [pytest.mark.needs("haproxy"), pytest.mark.timeout(400)]
HOST, OTHER = "shop.example", "bystander.example"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[BalancerProcess]:
    async with (
        local_registry(short_dir) as url,
        balancer_process(short_dir, url, spare_backends=0, old_worker_s=30.0) as made,
    ):
        yield made


async def haproxy(place: BalancerProcess) -> tuple[int, int, int]:
    """Its master, its serving worker, and how often it was reloaded since it was started."""
    found = (await place.status("summary=1"))["haproxy"]
    return found["master_pid"], found["worker_pid"], found["generation"]


@pytest.mark.parametrize("times", [2, pytest.param(30, marks=pytest.mark.soak)])
async def test_killed_again_and_again_while_endpoints_change(place: BalancerProcess, times: int):
    """A task in and out all the time, thirty changes a second beside it; each start adopts, and catches up."""
    here, other = await started("here", "other")
    await place.applied(await place.publish(here.member(), routes=[route(vhosts=(HOST,))]))
    bystander = await service(place, "/bystander", vhosts=(OTHER,))
    apps = [f"/churn/{n}" for n in range(10)]
    first = [member(f"{app}-first", 31000, app=app) for app in apps]
    await place.applied(await place.publish(*first, routes=[route(a, vhosts=(f"{a[7:]}.churn",)) for a in apps]))
    before, stale, ending = await haproxy(place), [], asyncio.Event()
    clients, others = (Clients(place.settings.http_port, host) for host in (HOST, OTHER))
    async with clients, others:
        toggling = asyncio.create_task(toggle(place, other, ending, stale))
        churning = asyncio.create_task(churn(place, apps, 600, rate=30))
        for number in range(times):
            await asyncio.sleep(0.3 + 0.25 * (number % 4))
            await place.kill_daemon()
            await asyncio.sleep(0.3)
            await place.start()
        ending.set()
        turns = await toggling
        assert not churning.done()
        churning.cancel()
        await place.applied(await place.registry.commit([]), within_s=60)
        after = await haproxy(place)

    assert [] == clients.failures + others.failures
    assert [] == stale
    assert [] == clients.doubled([*here.seen, *other.seen]) + others.doubled(bystander.seen)
    assert before == after, (place.folder / "lb.log").read_text()
    assert turns
    assert other.seen


async def test_killed_in_the_middle_of_reloads(place: BalancerProcess):
    """Between the file and the reload, while HAProxy reloads, and before it was read back: the next one makes it whole."""
    tasks = await started(*(f"t{n}" for n in range(4)))
    members = [task.member() for task in tasks[1:]]
    await place.applied(await place.publish(*members, routes=[route(vhosts=(HOST,))]))
    before, stale = await haproxy(place), []
    async with Clients(place.settings.http_port, HOST) as clients:
        for number, where in enumerate(("written", "reloading", "reloaded"), start=1):
            place.die_at(where)
            new = await Task(where, app=f"/{where}").start()
            await place.publish(new.member(), routes=[route(new.app, vhosts=(f"{where}.example",))])
            await eventually(f"it has died, {where}", place.died, within_s=30)
            await place.publish(tasks[0].member())
            revision = await place.leave(tasks[number].member())
            await place.start()
            await place.applied(revision, within_s=60)
            await eventually("it is drained", lambda: idle(place), within_s=60)
            asked = len(tasks[number].seen)
            assert (200, where) == await place.ask(f"{where}.example")
            stale += tasks[number].seen[asked:]

    assert [] == clients.failures
    assert [] == stale
    assert [] == clients.doubled([path for task in tasks for path in task.seen])
    after = await haproxy(place)
    assert before[0] == after[0]
    assert 3 <= after[2] - before[2] <= 6  # a file that nobody loaded is written anew
    assert {"t0": "ready"} == await place.servers()


async def idle(place: BalancerProcess) -> bool:
    return not (await place.progress()).busy

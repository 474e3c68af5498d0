"""Under load, whatever happens: no failed, no stale, no doubled request, and no reload for endpoints.

Short here; the full lengths (a minute each) with `-m soak`.
"""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairlead_daemon.errors import Unavailable
from fairlead_discovery.decisions import sessions
from fairlead_discovery.records import Check
from fairlead_lb.adapters import process
from harness.balancer import Balancer, Task, balancer, fetch, member, route, service
from harness.churning import churn, churn_beside, drained, started, toggle
from harness.clients import Clients
from harness.servers import require
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

pytestmark = [pytest.mark.needs("haproxy"), pytest.mark.timeout(400)]
OPEN_FILES = 4000
HOST, OTHER = "shop.example", "bystander.example"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir) as made:
        yield made


def lengths(short: float, long: float) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("length", [short, pytest.param(long, marks=pytest.mark.soak)])


@asynccontextmanager
async def slow_clients(place: Balancer, count: int, slow_s: float) -> AsyncIterator[list[str]]:
    """Ask one slow request after the other; yields what failed."""
    failed: list[str] = []
    ending = asyncio.Event()

    async def client(number: int) -> None:
        for turn in itertools.count():
            if ending.is_set():
                return
            path = f"/slow-{number}-{turn}?slow={slow_s}"
            try:
                status, body = await fetch(f"http://127.0.0.1:{place.settings.http_port}", path, host=HOST)
                if status != 200:
                    failed.append(f"{path}: {status} {body}")
            except (OSError, TimeoutError) as error:
                failed.append(f"{path}: {error!r}")

    running = [asyncio.create_task(client(n)) for n in range(count)]
    try:
        yield failed
    finally:
        ending.set()
        await asyncio.gather(*running)


@pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=pytest.mark.soak)])
async def test_rolling_deploys_of_ten_tasks_with_requests_of_three_seconds(place: Balancer, rounds: int):
    """Five at a time, with slow and fast clients and a bystander; `fairlead lb` is killed and started again between."""
    old = await started(*(f"v0-{n}" for n in range(10)))
    every = list(old)
    await place.applied(await place.publish(*(t.member() for t in old), routes=[route(vhosts=(HOST,))]))
    bystander = await service(place, "/bystander", vhosts=(OTHER,))
    clients, others = (
        Clients(place.settings.http_port, HOST, count=4),
        Clients(place.settings.http_port, OTHER, count=4),
    )
    async with clients, others, slow_clients(place, 6, 3.0) as slow_failed:
        for turn in range(1, rounds + 1):
            new = await started(*(f"v{turn}-{n}" for n in range(10)))
            every += new
            for half in (0, 5):
                await place.applied(await place.publish(*(t.member() for t in new[half : half + 5])))
                await drained(place, *old[half : half + 5])
                for task in old[half : half + 5]:
                    await task.stop()
                await place.gone(*(t.id for t in old[half : half + 5]))
                if half == 0:
                    await place.kill_daemon()
                    await place.start()
            old = new

    assert [] == clients.failures + others.failures + slow_failed
    seen = list(itertools.chain.from_iterable(t.seen for t in every))
    assert [] == clients.doubled(seen)
    assert [] == others.doubled(bystander.seen)


async def test_many_endpoint_changes_a_second(short_dir: Path):
    """Over twenty services, one of them under load: its other task comes and goes, and is never asked once it is drained."""
    async with balancer(short_dir, spare_backends=0) as place:
        made = await changes_under_load(place, lambda apps: churn(place, apps, 3.0))

    assert made >= 60  # of 300: tasks, clients, balancer and writer share one process here


@pytest.mark.soak
@pytest.mark.needs("java")
async def test_a_hundred_endpoint_changes_a_second(short_dir: Path, zookeeper: ZooKeeper):
    """The same for a minute, on ZooKeeper, by writers in a process of their own."""
    url = f"{zookeeper.url}/hundred"
    async with balancer(short_dir, registry_url=url, spare_backends=0) as place:
        made = await changes_under_load(place, lambda apps: churn_beside(url, apps, 60.0))

    assert made >= 90 * 60.0


async def changes_under_load(place: Balancer, change: Callable[[Sequence[str]], Awaitable[int]]) -> int:
    here, other = await started("here", "other")
    await place.applied(await place.publish(here.member(), routes=[route(vhosts=(HOST,))]))
    apps = [f"/churn/{n}" for n in range(20)]
    first = [member(f"{app}-first", 31000, app=app) for app in apps]
    await place.applied(
        await place.publish(*first, routes=[route(a, vhosts=(f"{a[7:]}.churn",)) for a in apps]), within_s=30
    )
    reloads = (await place.status())["reloads"]
    stale: list[str] = []
    async with Clients(place.settings.http_port, HOST) as clients:
        ending = asyncio.Event()
        toggling = asyncio.create_task(toggle(place, other, ending, stale))
        made = await change(apps)
        ending.set()
        await toggling
        await place.applied(await place.registry.commit([]), within_s=30)

    assert [] == clients.failures
    assert [] == stale
    assert [] == clients.doubled([*here.seen, *other.seen])
    assert reloads == (await place.status())["reloads"]
    return made


@pytest.mark.needs("java")
@lengths(3.0, 60.0)
async def test_zookeeper_gone_and_back_and_back_empty(short_dir: Path, length: float, monkeypatch: pytest.MonkeyPatch):
    """Gone: HAProxy serves on, and goes on where it was when ZooKeeper is back. Back empty: nothing is believed."""
    monkeypatch.setattr(sessions, "LAG_S", min(length, sessions.LAG_S))
    folder = short_dir / "zk"
    folder.mkdir()
    server = ZooKeeper(folder).start()
    async with balancer(short_dir, registry_url=server.url) as place:
        tasks = await started(*(f"t{n}" for n in range(5)))
        await place.applied(await place.publish(*(t.member() for t in tasks), routes=[route(vhosts=(HOST,))]))
        worker = (await place.status("summary=1"))["haproxy"]["worker_pid"]
        try:
            async with Clients(place.settings.http_port, HOST) as clients:
                server.kill()
                await asyncio.sleep(length)
                server.start()
                [more] = await started("more")
                revision = await eventually("it is published", lambda: published(place, more), within_s=60)
                await place.applied(revision, within_s=60)
                server.kill()
                shutil.rmtree(folder / "data")
                server = ZooKeeper(folder, server.port).start()
                await eventually("ZooKeeper is read, and not believed", lambda: held(place), within_s=60)
                await asyncio.sleep(1)
                status = await place.status("summary=1")

            assert [] == clients.failures
            assert [] == clients.doubled([path for t in [*tasks, more] for path in t.seen])
            assert {t.id: "ready" for t in [*tasks, more]} == await place.servers()
            assert "held" == status["trust"]
            assert status["frozen"]
            assert (worker, 0) == (status["haproxy"]["worker_pid"], status["reloads"])
        finally:
            server.stop()


async def published(place: Balancer, task: Task) -> int:
    """0: the registry is still out of sight."""
    try:
        return await place.publish(task.member())
    except Unavailable:
        return 0


async def held(place: Balancer) -> bool:
    """Out of sight it would be `stale`."""
    return bool((await place.status("summary=1"))["trust"] == "held")


async def test_two_thousand_checked_slots_against_the_limit_of_open_files(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """HAProxy keeps a descriptor for each: fewer connections are offered, everything is served, nothing refuses to start."""
    monkeypatch.setattr(process, "raise_open_files", lambda _needed: OPEN_FILES)
    limited = short_dir / "haproxy"
    limited.write_text(f'#!/bin/sh\nulimit -Hn {OPEN_FILES}\nulimit -Sn {OPEN_FILES}\nexec {require("haproxy")} "$@"\n')
    limited.chmod(0o755)
    apps = [f"/many/{n}" for n in range(100)]
    check = Check(path="/health", interval_s=30)
    async with balancer(short_dir, haproxy=str(limited), max_connections=4000, spare_backends=0) as place:
        task = await service(place, "/shop/web", vhosts=(HOST,), check=check)
        routes = [route(app, vhosts=(f"n{n}.example",), check=check) for n, app in enumerate(apps)]
        members = [member(f"{app}-{n}", task.port, app=app) for app in apps for n in range(10)]
        async with Clients(place.settings.http_port, HOST, count=4) as clients:
            await place.applied(await place.publish(*members, routes=routes), within_s=60)
            found = await place.status()

        assert [] == clients.failures
        assert sum(s["slots"] for s in found["services"]) > 2000
        assert [200] * 3 == [(await place.ask(f"n{n}.example"))[0] for n in (0, 50, 99)]
        config = (await fetch(place.admin, "/_haproxy_getconfig"))[1]
        assert 100 < int(config.partition("maxconn ")[2].split()[0]) < 1000

"""ZooKeeper comes back without its data, at the same address: whoever ran through it holds what it knew.

A client that has seen more than the server has is refused by it without a word; see sessions.forgets_seen.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions import sessions
from fairlead_discovery.reading import confirm
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Put
from harness.balancer import Balancer, Task, balancer, route
from harness.clients import Clients
from harness.names import DnsDaemon
from harness.ports import free_port
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

pytestmark = [pytest.mark.needs("haproxy", "java"), pytest.mark.timeout(240)]
HOST, NAME = "shop.example", "web.marathon.mesos"
SHORTER = "from fairlead_discovery.decisions import sessions; sessions.LAG_S = 1.0; "


async def test_a_running_balancer_and_a_running_name_server_hold_until_a_person_confirms(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """Under load, without a restart; what is published anew is then taken as it is."""
    monkeypatch.setattr(sessions, "LAG_S", 1.0)  # of the 20 s
    server = ZooKeeper(folder(short_dir)).start()
    names = DnsDaemon(short_dir, registry=server.url, port=free_port(), http_port=free_port())
    names.command = [*names.command[:2], SHORTER + names.command[2], *names.command[3:]]
    names.start()
    try:
        async with balancer(short_dir, registry_url=server.url) as place:
            tasks = [await Task(f"t{n}").start() for n in range(5)]
            await place.applied(await place.publish(*(t.member() for t in tasks), routes=[route(vhosts=(HOST,))]))
            await eventually("the names are there", lambda: named(names), within_s=30)
            worker = (await place.status("summary=1"))["haproxy"]["worker_pid"]
            async with Clients(place.settings.http_port, HOST) as clients:
                server.kill()
                shutil.rmtree(short_dir / "zk" / "data")
                server = ZooKeeper(folder(short_dir), server.port).start()
                await eventually("the balancer holds", lambda: trust(place, "held"), within_s=60)
                await eventually("the name server holds", lambda: doubts(names), within_s=90)
                held = await place.status("summary=1")
                asked = dict(clients.answers)
                assert await named(names)

                await again(server.url, *tasks[:4])
                await eventually("the balancer believes", lambda: trust(place, "live"), within_s=60)
                await eventually("it serves those alone", lambda: only(place, *tasks[:4]), within_s=30)

        assert [] == clients.failures
        assert [] == clients.doubled([path for t in tasks for path in t.seen])
        assert {t.id for t in tasks} == set(asked)
        assert "the registry is another one" in held["frozen"]
        assert (worker, 0) == (held["haproxy"]["worker_pid"], held["reloads"])
    finally:
        names.stop()
        server.stop()


def folder(short_dir: Path) -> Path:
    (short_dir / "zk").mkdir(exist_ok=True)
    return short_dir / "zk"


async def trust(place: Balancer, word: str) -> bool:
    return bool((await place.status("summary=1"))["trust"] == word)


async def again(url: str, *tasks: Task) -> None:
    """As masters and services do with a new registry, and then a person."""
    registry = await open_registry(url)
    try:
        found = [t.member() for t in tasks]
        new = [
            Put(paths.member("marathon:/shop/web", paths.member_name(m.task.id, encode(m))), encode(m)) for m in found
        ]
        await registry.commit([*new, Put(paths.route("marathon:/shop/web"), encode(route(vhosts=(HOST,))))])
        await confirm(registry)
    finally:
        await registry.close()


async def only(place: Balancer, *tasks: Task) -> bool:
    return {t.id: "ready" for t in tasks} == await place.servers()


async def named(names: DnsDaemon) -> bool:
    return ["127.0.0.1"] == await asyncio.to_thread(names.answers, NAME)


async def doubts(names: DnsDaemon) -> bool:
    return 1 == await asyncio.to_thread(names.metric, 'fairlead_dns_trust{trust="held"}')

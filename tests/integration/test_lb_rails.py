"""The balancer's rails and its audit, on a real HAProxy: nothing is emptied, or left changed, without a word."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_discovery import paths
from fairlead_discovery.reading import confirm
from fairlead_discovery.records import Check, encode
from fairlead_discovery.registry import Delete
from fairlead_lb import auditing, certificates, counting
from harness.balancer import Balancer, Task, balancer, fetch, route, service
from harness.servers import require
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"


@pytest.fixture
async def place(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Balancer]:
    monkeypatch.setattr(auditing, "AUDIT_S", 0.3)
    monkeypatch.setattr(certificates, "AUDIT_S", 0.3)
    async with balancer(short_dir) as made:
        yield made


async def vanish(place: Balancer, *tasks: Task) -> int:
    """As a fault does it: no leaving record."""
    found = [t.member() for t in tasks]
    names = [paths.member_name(m.task.id, encode(m)) for m in found]
    changes = [Delete(paths.member(f"marathon:{m.task.app}", n)) for m, n in zip(found, names, strict=True)]
    revision: int = await place.registry.commit(changes)
    return revision


async def metric(place: Balancer, name: str) -> float:
    body = (await fetch(place.admin, "/metrics"))[1]
    return float(next(line.split()[-1] for line in body.splitlines() if line.startswith(name)))


async def test_a_service_emptied_without_records_is_served_until_a_person_confirms(place: Balancer):
    """The whole registry is believed, having many other tasks; this one service stays with its last servers."""
    web = await service(place, "/shop/web", vhosts=(HOST,))
    for number in range(4):
        await service(place, f"/other/n{number}", vhosts=(f"n{number}.example",))
    await place.applied(await vanish(place, web))

    assert (200, "shop-web") == await place.ask(HOST)
    status = await place.status()
    assert ("live", "the service would be empty") == (
        status["trust"],
        status["rails"]["held"]["marathon:/shop/web"]["shop-web"]["why"],
    )
    assert 1 == await metric(place, "fairlead_lb_held_endpoints")
    await confirm(place.registry)
    await eventually("it is let go", lambda: answers(place, 503))
    assert {} == (await place.status())["rails"]["held"]


async def answers(place: Balancer, status: int) -> bool:
    return (await place.ask(HOST))[0] == status


async def test_a_rule_of_the_rails_is_followed_by_the_clock(short_dir: Path):
    """Two of four vanish beyond the pace: they go when the interval is over, though nothing else happens."""
    async with balancer(short_dir, removed_percent=25, removal_interval_s=1.0) as place:
        tasks = [await Task(f"t{n}").start() for n in range(4)]
        members = [t.member() for t in tasks]
        await place.applied(await place.publish(*members, routes=[route(vhosts=(HOST,))]))
        await place.applied(await vanish(place, *tasks[:3]))

        assert len(await place.servers()) >= 3
        await eventually("they have gone, one after the other", lambda: only(place, "t3"), within_s=20)


async def only(place: Balancer, task: str) -> bool:
    return {task} == {t for t, state in (await place.servers()).items() if state == "ready"}


async def test_when_most_servers_fail_their_checks_all_of_them_serve(place: Balancer):
    """The balancer's check asks for what no server has; the registry says that they are well, and so they are."""
    check = Check(path="/missing", interval_s=0.3, fall=2)
    tasks = [await Broken(f"t{n}").start() for n in range(3)]
    members = [t.member() for t in tasks]
    await place.applied(await place.publish(*members, routes=[route(vhosts=(HOST,), check=check)]))

    await eventually("it panics", lambda: panics(place), within_s=20)
    await eventually("it serves", lambda: answers(place, 200), within_s=20)
    assert {"t0", "t1", "t2"} == {(await place.ask(HOST))[1] for _ in range(9)}
    assert 1 == await metric(place, "fairlead_lb_panicking_backends")


class Broken(Task):
    """Has no page for the check."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body, status = (b"", b"404 no") if "/missing" in head else (self.id.encode(), b"200 OK")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        return "connection: close" not in head.lower()


async def panics(place: Balancer) -> bool:
    return bool((await place.status())["rails"]["panic"])


async def test_what_was_changed_by_hand_is_put_right_and_counted(place: Balancer):
    """Slots, maps and frontends, each under its kind."""
    require("haproxy")
    await service(place, "/shop/web", vhosts=(HOST,))
    status = await place.status()
    name, folder = status["services"][0]["backend"], place.folder / "data" / "lb"
    socket = folder / "run" / f"w{status['haproxy']['generation']}.sock"
    for command in (
        f"set server {name}/s1 state maint",
        f"del map {folder}/maps/hosts.map {HOST}/",
        f"del map {folder}/maps/plain.map {HOST}",
        "disable frontend fairlead_ports",
        "set maxconn frontend fairlead_hosts 5",
    ):
        await tell(socket, command)
    assert 404 == (await place.ask(HOST))[0]

    await eventually("it is put right", lambda: answers(place, 200), within_s=20)
    assert 1 <= await metric(place, 'fairlead_lb_repairs_total{kind="backends"}')
    assert 1 <= await metric(place, 'fairlead_lb_repairs_total{kind="maps"}')
    assert 2 == await metric(place, 'fairlead_lb_repairs_total{kind="frontends"}')


async def tell(socket: Path, command: str) -> None:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(f"{command}\n".encode())
    writer.write_eof()
    with contextlib.suppress(OSError):
        await reader.read(-1)
    writer.close()


async def test_counters_survive_reloads_and_restarts(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a service and of its task: never smaller, and nothing counted is lost, though three workers have counted."""
    monkeypatch.setattr(auditing, "AUDIT_S", 0.3)
    monkeypatch.setattr(counting, "SERVERS_S", 0.3)
    service_name, label = 'service="marathon:/shop/web"', 'kind="backend"'
    async with balancer(short_dir, spare_backends=0) as place:
        await service(place, "/shop/web", vhosts=(HOST,))
        asked, seen = 0, [0.0]
        for number in range(3):
            for _ in range(10):
                await place.ask(HOST)
                asked += 1
            seen.append(await counted(place, "fairlead_lb_haproxy_requests_total", service_name, label))
            if number == 1:
                await eventually("it is kept", lambda: reached(place, 20), within_s=20)
                await place.stop_daemon()
                await place.start()
            await service(place, f"/new/n{number}", vhosts=(f"n{number}.example",))
            seen.append(await counted(place, "fairlead_lb_haproxy_requests_total", service_name, label))

        await eventually("all are counted", lambda: reached(place, asked), within_s=20)
        assert sorted(seen) == seen
        assert 3 <= (await place.status())["haproxy"]["generation"]
        assert asked == await counted(place, "fairlead_lb_task_requests_total", service_name, 'task="shop-web"')


async def counted(place: Balancer, name: str, *labels: str) -> float:
    """The sum of the series with these labels."""
    body = (await fetch(place.admin, "/metrics"))[1]
    lines = [line for line in body.splitlines() if line.startswith(name + "{") and all(x in line for x in labels)]
    return sum(float(line.split()[-1]) for line in lines)


async def reached(place: Balancer, number: int) -> bool:
    by_task = await counted(place, "fairlead_lb_task_requests_total", 'task="shop-web"')
    by_service = await counted(place, "fairlead_lb_haproxy_requests_total", "shop", 'kind="backend"')
    return number == by_task == by_service

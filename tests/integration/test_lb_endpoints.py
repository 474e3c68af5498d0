"""Endpoints come, drain and go in a real HAProxy without a reload, and without a request noticing."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_discovery.records import Check, Reason
from harness.balancer import Balancer, Task, balancer, fetch, route
from harness.clients import Clients
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir) as made:
        yield made


async def tasks(*names: str) -> list[Task]:
    return [await Task(name).start() for name in names]


async def routed(place: Balancer, *members: Task, **port: object) -> int:
    """The service with these tasks, applied; returns the reloads it took so far."""
    one = route(vhosts=(HOST,), service_port=place.first_port, **port)
    await place.applied(await place.publish(*(t.member() for t in members), routes=[one]))
    return int((await place.status())["reloads"])


async def test_a_published_endpoint_is_routed_by_host_and_by_service_port(place: Balancer):
    """Virtual host and service port reach it; another host gets a 404 that says so."""
    [one] = await tasks("one")
    await routed(place, one)

    assert (200, "one") == await place.ask(HOST)
    assert (200, "one") == await place.ask("SHOP.example.:80")
    assert (200, "one") == await place.ask(HOST, port=place.first_port)
    assert (404, "no service for this host and path\n") == await place.ask("other.example")


async def test_a_service_without_servers_says_so(place: Balancer):
    """503 with a reason, not a hanging connection."""
    await routed(place)

    assert (503, "no server of this service is ready\n") == await place.ask(HOST)


@pytest.mark.parametrize("keep_reusing", [False, True])
async def test_rolling_replacement_under_load_loses_and_doubles_nothing(place: Balancer, keep_reusing: bool):
    """Every task is replaced twice, one after the other, with keep-alive and closing clients, without a reload."""
    here = await tasks("a0", "b0", "c0")
    every = list(here)
    reloads = await routed(place, *here, reuse=keep_reusing)
    async with Clients(place.settings.http_port, HOST) as clients:
        for turn in range(1, 3):
            for number, old in enumerate(list(here)):
                [new] = await tasks(f"{'abc'[number]}{turn}")
                every.append(new)
                await place.applied(await place.publish(new.member()))
                await drained(place, old)
                await old.stop()
                await place.gone(old.id)
                here[number] = new

    seen = list(itertools.chain.from_iterable(t.seen for t in every))
    assert [] == clients.failures
    assert [] == clients.doubled(seen)
    assert {t.id for t in every} == set(clients.answers)
    assert reloads == (await place.status())["reloads"]


async def drained(place: Balancer, task: Task) -> None:
    revision = await place.leave(task.member())

    async def probe() -> bool:
        progress = await place.progress()
        return progress.applied_revision >= revision and task.id not in progress.busy

    await eventually(f"{task.id} is drained", probe)


async def test_a_leaving_task_ends_its_requests_and_is_busy_until_then(place: Balancer):
    """New requests go elsewhere at once; the slow one is finished, and reported until it is."""
    one, two = await tasks("one", "two")
    await routed(place, one)
    slow = asyncio.create_task(place.ask(HOST, "/?slow=0.6"))
    await eventually("the slow request runs", lambda: seen(one))
    await place.publish(two.member())
    progress = await place.applied(await place.leave(one.member()))

    assert ("one",) == progress.busy
    assert [(200, "two")] * 4 == [await place.ask(HOST) for _ in range(4)]
    assert (200, "one") == await slow
    await eventually("it is not busy", lambda: idle(place))
    await eventually("its slot is free again", lambda: only(place, {"two": "ready"}))


async def seen(task: Task) -> bool:
    return bool(task.seen)


async def idle(place: Balancer) -> bool:
    return not (await place.progress()).busy


async def only(place: Balancer, servers: dict[str, str]) -> bool:
    return servers == await place.servers()


async def test_a_dead_task_is_cut(place: Balancer):
    """Whoever waits for an answer of a task that died gets an error now, not after a time-out."""
    [one] = await tasks("one")
    await routed(place, one)
    slow = asyncio.create_task(place.ask(HOST, "/?slow=9"))
    await eventually("the slow request runs", lambda: seen(one))
    await place.applied(await place.leave(one.member(), reason=Reason.DEAD))

    async with asyncio.timeout(3):
        assert await failed(slow)


async def failed(asked: "asyncio.Task[tuple[int, str]]") -> bool:
    """502 or 503; HAProxy 3.0 and later close the client's connection instead."""
    try:
        status, _ = await asked
    except ConnectionError:
        return True
    return status in {502, 503}


async def test_a_slot_used_again_sends_nothing_to_the_old_address(place: Balancer):
    """Even with reused server connections: a slot is purged before it gets a new address."""
    old, new = await tasks("old", "new")
    await routed(place, old, reuse=True)
    slots = {s["slot"] for s in (await place.status())["services"][0]["servers"]}
    async with Clients(place.settings.http_port, HOST) as clients:
        await drained(place, old)
        await eventually("its slot is free", lambda: only(place, {}))
        seen_before = len(old.seen)
        await place.applied(await place.publish(new.member()))
        await eventually("the new one is asked", lambda: seen(new))
        await asyncio.sleep(0.3)

    assert slots == {s["slot"] for s in (await place.status())["services"][0]["servers"]}
    assert seen_before == len(old.seen)
    assert {"old", "new"} == set(clients.answers)


async def test_more_servers_than_slots_need_one_reload_and_lose_nothing(place: Balancer):
    """Slots grow by a reload; the clients do not notice it."""
    first = await tasks("t0")
    reloads = await routed(place, *first)
    more = await tasks(*(f"t{n}" for n in range(1, 12)))
    async with Clients(place.settings.http_port, HOST) as clients:
        await place.applied(await place.publish(*(t.member() for t in more)))
        await asyncio.sleep(0.2)

    assert reloads + 1 == (await place.status())["reloads"]
    assert 12 == len(await place.servers())
    assert [] == clients.failures


async def test_a_killed_server_costs_no_get_and_doubles_no_post(place: Balancer):
    """Before anyone has said that it is gone: HAProxy goes on to another server."""
    one, two, three = await tasks("one", "two", "three")
    await routed(place, one, two, three, check=Check(path="/health", interval_s=1.0))
    async with Clients(place.settings.http_port, HOST) as clients:
        await two.stop()
        await asyncio.sleep(1.0)

    assert [] == [f for f in clients.failures if f.startswith("GET")]
    assert [] == clients.doubled_posts(one.seen + two.seen + three.seen)
    assert {"one": "ready", "two": "down", "three": "ready"} == await place.servers()


async def test_a_tcp_service_passes_bytes_and_a_long_connection_is_busy(place: Balancer):
    """HTTP and TCP services share the range of service ports."""
    [http] = await tasks("http")
    tcp = await Task("tcp", app="/shop/queue").start()
    await routed(place, http)
    queue = route("/shop/queue", mode="tcp", service_port=place.first_port + 1)
    await place.applied(await place.publish(tcp.member(), routes=[queue]))
    reader, writer = await asyncio.open_connection("127.0.0.1", place.first_port + 1)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"tcp")
    progress = await place.applied(await place.leave(tcp.member()))

    assert ("tcp",) == progress.busy
    writer.close()
    await eventually("it is not busy", lambda: idle(place))
    assert (200, "http") == await place.ask(HOST, port=place.first_port)


async def test_a_port_without_a_service_is_closed_at_once(place: Balancer):
    """A connection to it ends, instead of waiting for a time-out."""
    with pytest.raises(OSError):  # a reset, sometimes as early as the connect
        await fetch(f"http://127.0.0.1:{place.first_port + 5}", "/")


async def test_a_sticky_client_stays_with_its_server_until_that_leaves(place: Balancer):
    """Its cookie then counts no more."""
    one, two = await tasks("one", "two")
    await routed(place, one, two, sticky=True)
    cookie, first = await with_cookie(place, "")
    answers = {(await with_cookie(place, cookie))[1] for _ in range(6)}
    leaving = one if first == "one" else two
    await drained(place, leaving)
    after = {(await with_cookie(place, cookie))[1] for _ in range(4)}

    assert {first} == answers
    assert {"two" if first == "one" else "one"} == after


async def test_two_sticky_services_on_one_host_leave_each_other_their_cookies(place: Balancer):
    """A client that goes to and fro stays with its server of each, and no other header of it is touched."""
    paths = ("/a", "/b")
    for app in paths:
        there = [await Task(f"{app.strip('/')}{n}", app=app).start() for n in range(3)]
        await place.applied(
            await place.publish(
                *(task.member() for task in there), routes=[route(app, vhosts=(HOST,), path=app, sticky=True)]
            )
        )
    jar: dict[str, str] = {"own": "1"}
    answers: list[tuple[str, ...]] = []
    for _ in range(5):
        round_ = []
        for path in paths:
            cookie, who = await with_cookie(place, "; ".join(f"{k}={v}" for k, v in jar.items()), path)
            jar |= dict(one.split("=", 1) for one in cookie.split("; "))
            round_.append(who)
        answers.append(tuple(round_))

    assert 1 == len(set(answers))
    assert 3 == len(jar)


async def with_cookie(place: Balancer, cookie: str, path: str = "/") -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
    sent = f"Cookie: {cookie}\r\n" if cookie else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{sent}\r\n".encode())
    head, _, body = (await reader.read(-1)).decode().partition("\r\n\r\n")
    writer.close()
    given = [x for x in head.split("\r\n") if x.lower().startswith("set-cookie:")]
    return (given[0].partition(":")[2].partition(";")[0].strip() if given else cookie), body

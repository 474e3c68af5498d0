"""A whole service's limits and its circuit breaker, on a real HAProxy."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fairlead_discovery.records import Traffic
from harness.balancer import Balancer, Task, balancer, fetch, route, service
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=1) as made:
        yield made


async def ask(place: Balancer, path: str = "/") -> tuple[int, str]:
    """Status, and what a breaker says of itself."""
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        head = (await reader.read(-1)).decode().partition("\r\n\r\n")[0].split("\r\n")
        writer.close()
    told = dict(line.lower().split(": ", 1) for line in head[1:])
    return int(head[0].split()[1]), told.get("x-fairlead-breaker", "")


async def ruled(place: Balancer, traffic: Traffic, **port: Any) -> None:
    await place.applied(await place.publish(routes=[route(vhosts=(HOST,), traffic=traffic, **port)]))


async def reloads(place: Balancer) -> int:
    return int((await place.status())["reloads"])


async def test_a_service_takes_so_many_requests_at_once_and_refuses_the_rest(place: Balancer):
    """503 at once, saying why; another number needs no reload."""
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=Traffic(max_connections=2))
    before = await reloads(place)
    task.delay_s = 2.0
    first = sorted(await asyncio.gather(*(ask(place) for _ in range(5))))
    await ruled(place, Traffic(max_connections=4))
    second = sorted(await asyncio.gather(*(ask(place) for _ in range(5))))

    assert [(200, "")] * 2 + [(503, "connections")] * 3 == first
    assert [(200, "")] * 4 + [(503, "connections")] == second
    assert (6, before) == (len(task.seen), await reloads(place))


async def test_so_many_wait_for_a_server_of_the_service_and_no_more(place: Balancer):
    """One is served, two wait, the rest is told at once."""
    rules = Traffic(server_connections=1, max_pending=2, queue_timeout_s=20)
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=rules)
    task.delay_s = 1.5
    first = asyncio.create_task(ask(place))
    await eventually("one is served", lambda: _seen(task, 1))
    found = sorted(await asyncio.gather(*(ask(place) for _ in range(5))))

    assert [(200, "")] * 2 + [(503, "pending")] * 3 == found
    assert (200, "") == await first


async def test_a_full_queue_sends_whom_a_server_would_keep_waiting_to_another(place: Balancer):
    """One is served, one waits, the others are asked of another server though their cookie names the first.

    Without `server_queue` all wait for the first.
    """
    tasks = [await Task(f"t{n}").start() for n in range(2)]
    rules = Traffic(server_connections=1, queue_timeout_s=20)
    first = [route(vhosts=(HOST,), traffic=rules, sticky=True)]
    await place.applied(await place.publish(*(task.member() for task in tasks), routes=first))
    cookie, mine = await _with_cookie(place, "")
    for task in tasks:
        task.delay_s = 1.0
    waited = await asyncio.gather(*(_with_cookie(place, cookie) for _ in range(3)))
    await ruled(place, replace(rules, server_queue=1), sticky=True)
    sent_on = await asyncio.gather(*(_with_cookie(place, cookie) for _ in range(4)))

    assert [mine] * 3 == [who for _, who in waited]
    assert {"t0", "t1"} == {who for _, who in sent_on}


async def _with_cookie(place: Balancer, cookie: str) -> tuple[str, str]:
    """Its cookie, and who answered."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read(-1)).decode().partition("\r\n\r\n")
        writer.close()
    assert head.startswith("HTTP/1.1 200"), head
    given = [line for line in head.split("\r\n") if line.lower().startswith("set-cookie:")]
    return (given[0].partition(": ")[2].partition(";")[0] if given else cookie), body


async def _seen(task: Task, count: int) -> bool:
    return len(task.seen) >= count


async def test_a_breaker_opens_lets_a_few_pass_and_closes(place: Balancer):
    """Open, servers get nothing; half-open an error opens it again; well again, everything passes. All without a reload."""
    rules = Traffic(break_at_percent=50, break_s=2, break_least=10)
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=rules)
    before = await reloads(place)
    task.status = 500

    async def state() -> str:
        return str((await place.status())["breakers"]["marathon:/shop/web port 0"])

    async def answered(*wanted: tuple[int, str]) -> bool:
        return await ask(place) in wanted

    await eventually("it opens", lambda: answered((503, "open")), within_s=20)
    problems = (await place.status())["problems"]["marathon:/shop/web"]
    assert problems in (["port 0: its circuit breaker is open"], ["port 0: its circuit breaker is half-open"])
    metrics = (await fetch(place.admin, "/metrics"))[1]
    assert 'fairlead_lb_breaker_trips_total{service="marathon:/shop/web"}' in metrics
    seen = len(task.seen)
    while (found := await ask(place)) == (503, "open"):
        assert seen == len(task.seen), "an open breaker lets nothing through"
    assert (500, "") == found, "then a few are let through"
    await eventually("it opens again", lambda: answered((503, "open")), within_s=20)
    task.status = 200
    await eventually("it closes", lambda: _is(state, "closed", place), within_s=30)
    await eventually("everything passes", lambda: _all_pass(place))
    await ruled(place, Traffic(break_at_percent=90, break_s=1, break_least=20))

    assert before == await reloads(place)


async def _all_pass(place: Balancer) -> bool:
    return [(200, "")] * 20 == [await ask(place) for _ in range(20)]


async def _is(state: Any, wanted: str, place: Balancer) -> bool:
    await ask(place)
    return bool(await state() == wanted)


async def test_half_open_lets_only_a_few_pass(place: Balancer):
    """Of twenty at once; the others are told so."""
    rules = Traffic(break_at_percent=50, break_s=1, break_least=10)
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=rules)
    task.status = 500

    async def broken() -> bool:
        return (await ask(place))[1] == "open"

    await eventually("it opens", broken, within_s=20)
    task.delay_s, task.status = 2.0, 200  # nobody's answer decides while the others come

    async def burst() -> set[tuple[int, str]]:
        found = set(await asyncio.gather(*(ask(place) for _ in range(20))))
        return found if (503, "half-open") in found else set()

    found = await eventually("it is half-open", burst, within_s=30)

    assert (200, "") in found


async def test_an_open_breaker_does_not_outlive_who_watches_it(place: Balancer):
    """`fairlead lb` killed: HAProxy lets a few pass by its own clock. The next one begins with a closed breaker."""
    rules = Traffic(break_at_percent=50, break_s=2, break_least=10)
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=rules)
    task.status = 500

    async def answered(wanted: tuple[int, str]) -> bool:
        return await ask(place) == wanted

    await eventually("it opens", lambda: answered((503, "open")), within_s=20)
    await place.kill_daemon()
    task.status = 200
    await eventually("a few pass", lambda: answered((200, "")), within_s=20)
    await place.start()
    await eventually("everything passes", lambda: _all_pass(place))


async def test_limits_and_breaker_hold_for_tcp_too(place: Balancer):
    """A connection too many ends; so does every one while the breaker is open, its servers being away."""
    rules = Traffic(max_connections=1, break_at_percent=50, break_s=30, break_least=4, retries=0)
    task = await Task("db", app="/db").start()
    port = place.first_port
    here = [route("/db", mode="tcp", service_port=port, traffic=rules)]
    await place.applied(await place.publish(task.member(), routes=here))

    async def status(path: str = "/") -> int:
        try:
            return (await fetch(f"http://127.0.0.1:{port}", path))[0]
        except OSError:
            return 0

    slow = asyncio.create_task(status("/?slow=3"))
    await eventually("one is in", lambda: _seen(task, 1))
    assert [0, 200] == [await status(), await slow]
    await task.stop()

    async def opened() -> bool:
        await status()
        return (await place.status())["breakers"]["marathon:/db port 0"] == "open"

    await eventually("it opens", opened, within_s=20)
    await task.start(task.port)
    assert [0, 0] == [await status(), await status()]

"""Requests are shared with other services as policies say, in a real HAProxy, without a reload."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_discovery.policies import Intentions, Share, Source, Split, path_of
from fairlead_discovery.records import Check, encode
from fairlead_discovery.registry import Put
from harness.balancer import Balancer, Task, balancer, member, service
from harness.clients import Clients
from harness.sharing import Browser, ask_often, order, within
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
SHOP, NEXT, OTHER = "marathon:/shop", "marathon:/next", "marathon:/other"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=4) as made:
        yield made


async def reloads(place: Balancer) -> int:
    return int((await place.status())["reloads"])


def split(*shares: tuple[str, float], sticky: str = "") -> Split:
    return Split(service=SHOP, shares=tuple(Share(service=s, percent=p) for s, p in shares), sticky=sticky)


@pytest.mark.parametrize("count", [1000, pytest.param(4000, marks=pytest.mark.soak)])
async def test_requests_are_shared_by_percent_by_host_and_by_port_without_a_reload(place: Balancer, count: int):
    """Six sigmas tell 5 % from none and from 10 %; a raised share is a matter of maps, and no request is lost or doubled while it changes."""
    shop = await service(place, "/shop", vhosts=(HOST,), service_port=place.first_port)
    near = await service(place, "/next", vhosts=("next.example",))
    far = await service(place, "/other", vhosts=("other.example",))
    async with Clients(place.settings.http_port, HOST) as clients:
        await order(place, split((NEXT, 5), (OTHER, 20.5)))
        by_host = await ask_often(place.settings.http_port, HOST, count)
        await order(place, split((NEXT, 50)))
        by_port = await ask_often(place.first_port, HOST, count, method="POST")
        await order(place, gone=[split()])
    after = await ask_often(place.settings.http_port, HOST, 80)

    assert within(by_host["next"], count, 5), by_host
    assert within(by_host["other"], count, 20.5), by_host
    assert within(by_host["shop"], count, 74.5), by_host
    assert within(by_port["next"], count, 50), by_port
    assert {"shop": 80} == after
    assert [] == clients.failures
    assert [] == clients.doubled(shop.seen + near.seen + far.seen)
    assert 0 == await reloads(place)


async def test_a_target_without_a_route_does_not_open_what_the_service_has_closed(place: Balancer):
    """A caller that may not call the service is refused wherever its request would go."""
    await service(place, "/shop", vhosts=(HOST,))
    target = await Task("next", app="/next").start()
    await place.applied(await place.publish(target.member()))
    who = Intentions(service=SHOP, sources=(Source(name="anonymous", action="deny"),))
    await order(place, split((NEXT, 100)))
    before = await place.ask()
    await place.applied(await place.registry.commit([Put(path_of(who), encode(who))]))
    after = await place.ask()

    assert (200, 403) == (before[0], after[0])


async def test_a_share_survives_a_reload_and_the_names_it_brings(place: Balancer):
    """Backends leave their spares for names of their own; old and new worker share alike."""
    await service(place, "/shop", vhosts=(HOST,))
    await service(place, "/next")
    await order(place, split((NEXT, 100)))
    async with Clients(place.settings.http_port, HOST) as clients:
        before = dict(clients.answers)
        for number in range(4):
            await service(place, f"/n{number}", vhosts=(f"n{number}.example",))
    names = {s["backend"] for s in (await place.status())["services"]}

    assert await reloads(place) >= 1
    assert {"shop_p0", "next_p0"} <= names
    assert [] == clients.failures
    assert {"next"} == set(clients.answers) | set(before)


async def test_a_share_without_a_ready_server_falls_back_and_is_named(place: Balancer):
    """Not a single 503; it comes back by itself."""
    await service(place, "/shop", vhosts=(HOST,))
    near = await service(place, "/next", check=Check(path="/health", interval_s=0.3, fall=1))
    await order(place, split((NEXT, 100)))
    port = near.port
    assert {"next": 40} == await ask_often(place.settings.http_port, HOST, 40)
    await near.stop()
    await eventually("it is down", lambda: states(place, NEXT, {"next": "down"}))
    fallen = await ask_often(place.settings.http_port, HOST, 40)
    told = (await place.status())["splits"]
    again = await Task("next", app="/next").start(port)
    await eventually("it is back", lambda: states(place, NEXT, {"next": "ready"}))

    assert {"shop": 40} == fallen
    assert [(NEXT, 0, True)] == [(s["service"], s["ready"], s["falls_back"]) for s in told[0]["shares"]]
    assert {"next": 40} == await ask_often(place.settings.http_port, HOST, 40)
    assert again.seen


async def states(place: Balancer, service: str, wanted: dict[str, str]) -> bool:
    return wanted == await place.servers(service)


async def test_a_sticky_client_crosses_over_once_and_goes_back_only_at_an_abort(place: Balancer):
    """A hundred browsers, by the cookie they were given first."""
    await service(place, "/shop", vhosts=(HOST,))
    await service(place, "/next")
    browsers = [Browser(place.settings.http_port, HOST) for _ in range(100)]
    moved: set[int] = set()
    for percent in (10, 30, 30, 60):
        await order(place, split((NEXT, percent), sticky="cookie"))
        now = {n for n, b in enumerate(browsers) if await b.ask() == "next"}
        again = {n for n, b in enumerate(browsers) if await b.ask() == "next"}

        assert now == again
        assert moved <= now
        assert within(len(now), 100, percent)
        moved = now
    await order(place, split((NEXT, 0), sticky="cookie"))

    assert {"shop"} == {await b.ask() for b in browsers}


async def test_a_client_is_told_by_its_header(place: Balancer):
    """As the setting says; without it each request is drawn anew."""
    await service(place, "/shop", vhosts=(HOST,))
    await service(place, "/next")
    await order(place, split((NEXT, 50), sticky="header"))
    users = [await ask_often(place.settings.http_port, HOST, 8, sent=f"X-User: u{n}\r\n") for n in range(40)]
    nobody = await ask_often(place.settings.http_port, HOST, 400)

    assert all(len(found) == 1 for found in users)
    assert within(sum("next" in found for found in users), 40, 50)
    assert within(nobody["next"], 400, 50)


async def test_a_target_that_nobody_routes_to_gets_a_backend(place: Balancer):
    """Its tasks run, and that is enough: it is served as the service itself is."""
    await service(place, "/shop", vhosts=(HOST,), timeout_server_s=7)
    one = await Task("next").start()
    await place.publish(member("next", one.port, app="/next"))
    await order(place, split((NEXT, 100)))

    assert {"next": 40} == await ask_often(place.settings.http_port, HOST, 40)
    assert 0 == await reloads(place)


async def test_connections_of_a_tcp_service_are_shared(place: Balancer):
    """Each connection is drawn; a share to an HTTP service is refused and told."""
    tcp = place.first_port + 1
    for app, port in (("/shop", tcp), ("/next", tcp + 1)):
        await service(place, app, mode="tcp", service_port=port)
    await service(place, "/other", vhosts=(HOST,))
    await order(place, split((NEXT, 50), (OTHER, 10)))
    answers = [(await place.ask("any", port=tcp))[1] for _ in range(300)]
    problems = (await place.status())["problems"]

    assert within(answers.count("next"), 300, 50)
    assert 300 == answers.count("next") + answers.count("shop")
    assert (f"share to {OTHER} port 0: it is http, not tcp",) == tuple(problems[SHOP])

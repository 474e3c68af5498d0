"""Rings over HTTP: what `fairlead ring` does, for data services that have no registry at hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from discovery.records_of import WEB, publish
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.web import Health, make_app, serve
from fairlead_discovery.adapters.ring_client import HttpRings
from fairlead_discovery.adapters.ring_http import add_ring_routes
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.membership import Membership, RingMember, find, receivers, rings
from fairlead_discovery.registry import Registry
from fairlead_discovery.rings import read_ring
from harness.ports import free_port


@dataclass
class Site:
    registry: Registry
    url: str
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        async with self.session.request(method, f"{self.url}/v2/rings{path}", json=body or None) as response:
            return response.status, await response.json()


@pytest.fixture
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    registry = await open_registry(f"memory:{request.node.name}")
    app = make_app(DaemonSettings(token="off"), Health())
    add_ring_routes(app, registry)
    runner, port = await serve(app, DaemonSettings(token="off"))
    async with aiohttp.ClientSession() as session:
        yield Site(registry, f"http://127.0.0.1:{port}", session)
    await runner.cleanup()
    await registry.close()


@pytest.fixture
async def orders(site: Site) -> Site:
    """Two members."""
    await site.call("POST", "", service="orders", slots=64)
    for name in ("a", "b"):
        await site.call("POST", "/orders/members", name=name)
    await site.call("POST", "/orders/settle")
    return site


async def test_a_ring_answers_to_every_name_of_its_service(site: Site):
    """Also where its version is waited for."""
    await site.registry.commit([publish(1)])
    await site.call("POST", "", service=WEB, slots=64)
    answers = [await site.call("GET", f"/web.marathon.mesos{query}") for query in ("", "?index=0&wait=1s")]

    assert [(200, WEB, 1)] * 2 == [(status, told["service"], told["version"]) for status, told in answers]


async def test_a_ring_is_made_joined_and_asked(orders: Site):
    """The owners are those that every reader of the registry computes."""
    status, told = await orders.call("GET", "/orders/owners?key=user:42&key=x")
    both = rings(await read_ring(orders.registry, "orders"))
    _, every = await orders.call("GET", "")

    assert 200 == status
    assert [[*both.owners("user:42")], [*both.owners("x")]] == [row["owners"] for row in told["keys"]]
    assert [{"service": "orders", "version": told["version"], "members": 2, "pending": False}] == every["rings"]


async def test_a_join_hands_over_before_it_owns(orders: Site):
    """What moves, who is waited for, readiness for the right version, then the new owners."""
    _, joined = await orders.call("POST", "/orders/members", name="c", weight=2.0)
    _, moves = await orders.call("GET", "/orders/diff")
    early, _ = await orders.call("POST", "/orders/members/c/ready", version=joined["version"] - 1)
    for name in joined["waiting"]:
        _, done = await orders.call("POST", f"/orders/members/{name}/ready", version=joined["version"])
    _, parts = await orders.call("GET", "/orders/balance")

    assert joined["pending"]
    assert "c" in joined["waiting"]
    assert {*joined["waiting"]} == {move["to"] for move in moves["moves"]}
    assert 409 == early
    assert (False, joined["version"] + 1) == (done["pending"], done["version"])
    assert 32 == next(part["copies"] for part in parts["members"] if part["name"] == "c")


async def test_weights_leaves_and_second_thoughts(orders: Site):
    """Each is pending until it is taken back, or handed over."""
    _, planned = await orders.call("GET", "/orders/diff?weigh=a=3&join=c")
    _, weighed = await orders.call("PUT", "/orders/members/a", weight=3.0)
    _, cancelled = await orders.call("POST", "/orders/members/a/cancel")
    _, leaving = await orders.call("DELETE", "/orders/members/b")
    _, gone = await orders.call("DELETE", "/orders/members/b?dead=true")
    _, destroyed = await orders.call("DELETE", "/orders")

    assert planned["moves"]
    assert ({"a", "b"}, True) == ({row["name"] for row in weighed["members"]}, weighed["pending"])
    assert not cancelled["pending"]
    assert "leaving" == next(row["state"] for row in leaving["members"] if row["name"] == "b")
    assert ["a"] == [row["name"] for row in gone["members"]]
    assert destroyed["destroyed"]


async def test_the_next_version_can_be_waited_for(orders: Site):
    """A member hears of a hand-over at once."""
    _, before = await orders.call("GET", "/orders")
    same = await orders.call("GET", f"/orders?index={before['version']}&wait=50ms")
    waiting = asyncio.create_task(orders.call("GET", f"/orders?index={before['version']}&wait=30s"))
    await asyncio.sleep(0.05)
    await orders.call("POST", "/orders/members", name="c")
    async with asyncio.timeout(30):
        _, after = await waiting

    assert (200, before["version"]) == (same[0], same[1]["version"])
    assert before["version"] + 1 == after["version"]


@pytest.mark.parametrize("path", ["", "/orders", "/orders/balance", "/orders/owners?key=x"])
async def test_head_is_answered_where_get_is(orders: Site, path: str):
    """Without a body."""
    async with orders.session.head(f"{orders.url}/v2/rings{path}") as response:
        status, body = response.status, await response.read()

    assert (200, b"") == (status, body)


async def test_a_service_without_a_ring_is_one_of_its_endpoints(site: Site):
    """As Resolver.pick by key sees it; slashes are encoded."""
    await site.registry.commit([publish(1), publish(2)])
    status, told = await site.call("GET", "/marathon:%2Fshop%2Fweb/owners?key=x")

    assert (200, WEB, 0) == (status, told["service"], told["version"])
    assert told["keys"][0]["owners"][0] in {"10.0.0.1:31001", "10.0.0.1:31002"}


async def test_a_data_service_takes_part_over_http(orders: Site):
    """It joins, hears of the hand-over, says that it is ready, and computes the owners that readers of the registry do."""
    dead = f"http://127.0.0.1:{free_port()}"
    seen = []
    async with HttpRings(f"{dead},{orders.url}") as found, asyncio.timeout(60):
        async for both in found.follow("orders"):
            seen.append(both)
            if len(seen) == 1:
                await insist(lambda: found.join("orders", RingMember(name="c", zone="z")))
            elif both.membership.pending:
                for name in receivers(both) - {*both.membership.ready}:
                    await orders.call("POST", f"/orders/members/{name}/ready", version=both.membership.version)
            else:
                break
    stored = rings(await read_ring(orders.registry, "orders"))

    assert "c" not in {owner for owners in seen[1].use.table for owner in owners}
    assert stored.use.table == seen[-1].use.table
    assert "z" == find(stored.membership, "c").zone


async def insist(change: Callable[[], Awaitable[Membership]]) -> None:
    """A change is not repeated by itself; here it is known that nothing was done."""
    try:
        await change()
    except Unavailable:
        await change()


async def test_a_ring_that_is_not_there_is_said(site: Site):
    """As the registry's readers are told."""
    async with HttpRings(site.url) as found:
        with pytest.raises(Refused, match="no ring is called orders"):
            await anext(found.follow("orders"))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/ordres", {}, 404, "did you mean orders?"),
        ("POST", "", {"service": "orders"}, 409, "already"),
        ("POST", "", {"service": "o", "slots": 63}, 422, "power of two"),
        ("POST", "", {"service": "o", "slot": 64}, 400, "unknown field"),
        ("POST", "/orders/members", {"name": "a"}, 409, "member already"),
        ("PUT", "/orders/members/a", {"weight": "x"}, 400, "weight"),
        ("DELETE", "/orders/members/nobody", {}, 422, "no member is called nobody"),
        ("DELETE", "/orders/members/a?dead=perhaps", {}, 400, "dead"),
        ("GET", "/orders/owners", {}, 400, "key"),
        ("GET", "/orders/diff?weigh=a", {}, 400, "is no weight"),
        ("GET", "/orders/diff?join=z=nan", {}, 422, "weight is nan"),
        ("POST", "/orders/members", {"name": "z", "weight": -1}, 422, "z: weight is -1, expected 0.001 to 1000"),
        ("POST", "/orders/members", {"name": "z", "weight": 1e300}, 422, "z: weight is 1e+300"),
        ("POST", "/orders/members", {"name": ""}, 422, "a name is needed"),
        ("POST", "/orders/members", {"name": "a\nb"}, 422, "cannot be printed"),
        ("POST", "/orders/members", {"name": "é" * 128}, 422, "256 bytes, at most 255"),
        ("POST", "", {"service": ""}, 422, "a name is needed"),
        ("POST", "", {"service": " "}, 422, "a name is needed"),
        ("POST", "", {"service": "a\0"}, 422, "cannot be printed"),
        ("GET", "/orders?index=x&wait=1s", {}, 400, "index"),
        ("GET", f"/orders?index={'1' * 5000}&wait=1s", {}, 400, "index"),
    ],
)
async def test_what_cannot_be_is_said(  # a table's columns
    orders: Site, method: str, path: str, body: dict[str, Any], status: int, message: str
):
    """With the status that says whose turn it is."""
    code, told = await orders.call(method, path, **body)

    assert status == code
    assert message in told["message"]

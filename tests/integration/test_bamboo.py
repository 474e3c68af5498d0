"""Bamboo's rules, API, tree and template against a real HAProxy and a real ZooKeeper."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_discovery.adapters.zookeeper import Client, Insert, Link, Replace
from fairlead_discovery.adapters.zookeeper_place import parse_place
from fairlead_discovery.policies import Bamboo, path_of
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Put
from harness.balancer import Balancer, Task, balancer, fetch, route
from harness.ports import free_port
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

pytestmark = pytest.mark.needs("haproxy")


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, bamboo_bind=f"127.0.0.1:{free_port()}") as made:
        yield made


async def app(place: Balancer, name: str, **port: Any) -> Task:
    """One task; with `port` a route, as the service scheduler writes it."""
    task = await Task(name, app=f"/{name}").start()
    await place.publish(task.member(), routes=[route(f"/{name}", **port)] if port else [])
    return task


async def bamboo(place: Balancer, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
    """Bamboo's own port. A body goes as curl sends it."""
    address, _, port = place.settings.bamboo_bind.rpartition(":")
    data = b"" if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/x-www-form-urlencoded", **headers} if data else headers
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address}:{port}", "Connection: close"]
    lines += [f"{k}: {v}" for k, v in given.items()] + [f"Content-Length: {len(data)}"]
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        raw = await reader.read(-1)
        writer.close()
    head, _, text = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), text.decode()


async def answers(place: Balancer, wanted: tuple[int, str], host: str, path: str = "/") -> None:
    async def probe() -> bool:
        return await place.ask(host, path) == wanted

    await eventually(f"{host}{path} is answered by {wanted}", probe, within_s=45)


async def reloads(place: Balancer) -> int:
    return int((await place.status())["reloads"])


async def test_a_rule_of_hosts_and_paths_is_served_without_a_reload(place: Balancer):
    """By Bamboo's API: upsert by POST and PUT, echo, list, state, delete; each is served at once."""
    await app(place, "shop")
    await app(place, "news", vhosts=("news.example",))
    before = await reloads(place)
    made = await bamboo(place, "POST", "/api/services", {"ID": "/shop", "Acl": "hdr(host) -i shop.example"})
    await answers(place, (200, "shop"), "shop.example")
    put = await bamboo(
        place, "PUT", "/api/services//other", {"id": "/shop", "acl": "path_beg -i /Cart or hdr(host) s.example"}
    )
    await answers(place, (200, "shop"), "anything.example", "/CART/1")
    await answers(place, (200, "shop"), "s.example")

    echo = {"Id": "/shop", "Acl": "hdr(host) -i shop.example", "Config": {"Acl": "hdr(host) -i shop.example"}}
    assert (200, echo) == (made[0], json.loads(made[1]))
    assert 200 == put[0]
    assert 404 == (await place.ask("shop.example"))[0]
    assert 404 == (await place.ask("anything.example", "/cart1"))[0]
    assert (200, "news") == await place.ask("news.example", "/cart")
    assert ["/shop"] == list(json.loads((await bamboo(place, "GET", "/api/services"))[1]))
    state = json.loads((await bamboo(place, "GET", "/api/state"))[1])
    assert ["/news", "/shop"] == [a["Id"] for a in state["Apps"]]
    assert "path_beg -i /Cart or hdr(host) s.example" == state["Services"]["/shop"]["Acl"]
    assert (200, "{}") == await bamboo(place, "DELETE", "/api/services//shop")
    await answers(place, (404, "no service for this host and path\n"), "s.example")
    assert {} == json.loads((await bamboo(place, "GET", "/api/services"))[1])
    assert before == await reloads(place)


async def test_a_rule_that_no_map_holds_takes_only_what_nobody_has(place: Balancer):
    """A regular expression and a method by a reload; a service that has named its host keeps all of it."""
    await app(place, "shop", vhosts=("shop.example",))
    for name, acl in (
        ("api", "{ path_beg /v1 } { method POST }"),
        ("img", r"path_reg \.(jpg|png)$"),
        ("rest", "path_beg /"),
    ):
        await app(place, name)
        assert 200 == (await bamboo(place, "POST", "/api/services", {"id": f"/{name}", "acl": acl}))[0]
    await answers(place, (200, "rest"), "x.example")
    await bamboo(place, "PUT", "/api/services//rest", {"acl": "hdr_dom(host) -i corp"})
    await answers(place, (200, "img"), "x.example", "/a.jpg")
    await answers(place, (200, "rest"), "x.corp.example", "/")

    assert (200, "shop") == await place.ask("shop.example", "/a.jpg")
    assert 404 == (await place.ask("x.example", "/v1/y"))[0]
    assert 404 == (await place.ask("x.example", "/a.gif"))[0]
    assert (200, "api") == await post(place, "x.example", "/v1/y")
    assert 404 == (await post(place, "x.example", "/v10"))[0]


async def post(place: Balancer, host: str, path: str) -> tuple[int, str]:
    return await fetch(f"http://127.0.0.1:{place.settings.http_port}", path, host=host, method="POST")


async def test_what_is_wrong_is_told_in_plain_text_and_changes_nothing(place: Balancer):
    """400; Bamboo's own words for a body that is no JSON; what was there is served on."""
    await app(place, "shop")
    assert 200 == (await bamboo(place, "POST", "/api/services", {"id": "shop", "acl": "hdr(host) a.example"}))[0]
    await answers(place, (200, "shop"), "a.example")
    evil = {"id": "/shop", "acl": 'hdr(host) x\n    http-request return status 200 string "PWNED"'}

    assert (400, "column 12: '\\n': only printable ASCII, and no line break\n") == await bamboo(
        place, "PUT", "/api/services//shop", evil
    )
    assert (400, "Unable to decode JSON request\n") == await bamboo(place, "POST", "/api/services", "x")
    assert (400, "/none: there is no such service\n") == await bamboo(place, "DELETE", "/api/services//none")
    assert (
        403 == (await bamboo(place, "POST", "/api/services", {"id": "/a", "acl": ""}, Origin="http://evil.example"))[0]
    )
    assert (200, "OK") == await bamboo(place, "GET", "/status")
    assert (200, "Got it!") == await bamboo(
        place, "POST", "/api/marathon/event_callback", {}, **{"Content-Type": "application/json"}
    )
    assert (200, "shop") == await place.ask("a.example")
    assert "PWNED" not in (place.folder / "data" / "lb" / "haproxy.cfg").read_text()


async def test_a_rule_that_haproxy_refuses_is_left_out_alone(place: Balancer):
    """Written past our API, by one who may write to the registry: the others are served, the refusal is told."""
    await app(place, "bad")
    await app(place, "good")
    rules = [
        Bamboo(service="marathon:/bad", acl="hdr(host) x\nbackend y"),
        Bamboo(service="marathon:/good", acl="path_end .gif"),
        Bamboo(service="marathon:/worse", acl="path_reg [[:foo:]]"),
        *(Bamboo(service=f"marathon:/more{n}", acl=f"path /more{n}") for n in range(5)),
    ]
    await place.registry.commit([Put(path_of(rule), encode(rule)) for rule in rules])
    await answers(place, (200, "good"), "x.example", "/x.gif")

    expected = ["marathon:/good", *(f"marathon:/more{n}" for n in range(5))]

    async def told() -> bool:
        return [rule["service"] for rule in (await place.status())["rules"]] == expected

    await eventually("its lines are read back", told, within_s=45)
    status = await place.status()

    assert "bamboo rule: column 12" in status["refused"]["marathon:/bad"]
    assert "bamboo rule: HAProxy refused it: " in status["refused"]["marathon:/worse"]
    assert {"marathon:/bad", "marathon:/worse"} == set(status["refused"])


class Writer:
    """Writes as Bamboo does: the child, then the parent."""

    def __init__(self, zookeeper: ZooKeeper, root: str) -> None:
        self._client = Client(parse_place(zookeeper.hosts), self._linked)
        self._up = asyncio.Event()
        self.root = root

    def _linked(self, link: Link) -> None:
        if link.session:
            self._up.set()

    async def put(self, name: str, data: str) -> None:
        async with asyncio.timeout(20):
            await self._up.wait()
        await self._client.create(self.root)
        path = f"{self.root}/{name}"
        there = await self._client.stat(path)
        await self._client.transact([Insert(path, data.encode()) if there is None else Replace(path, data.encode())])
        await self._client.transact([Replace(self.root, b"")])

    async def delete(self, name: str) -> None:
        await self._client.delete(f"{self.root}/{name}")

    async def close(self) -> None:
        await self._client.close()


@contextlib.asynccontextmanager
async def tree(zookeeper: ZooKeeper, root: str) -> AsyncIterator[Writer]:
    writer = Writer(zookeeper, root)
    try:
        yield writer
    finally:
        await writer.close()


@pytest.mark.needs("java")
async def test_a_bamboos_tree_is_followed_and_kept(zookeeper: ZooKeeper, short_dir: Path):
    """Version 2 and 1 of its records, changes by the parent's watch, our own rule wins; a broken node keeps what it
    said; without the tree a new start goes by what was last known.
    """
    async with tree(zookeeper, "/bamboo-followed") as writer:
        await writer.put("%2Fshop", '{"version":"2","config":{"Acl":"hdr(host) -i shop.example"}}')
        await writer.put("%2Fnews", "hdr(host) -i news.example")
        await writer.put("%2Fbad", "hdr(host) -i x\nevil")
        url = f"zk://{zookeeper.hosts}/bamboo-followed"
        async with balancer(short_dir, bamboo_bind=f"127.0.0.1:{free_port()}", bamboo_zookeeper=url) as place:
            await app(place, "shop")
            await app(place, "news")
            await answers(place, (200, "shop"), "shop.example")
            await answers(place, (200, "news"), "news.example")
            await writer.put("%2Fshop", '{"version":"2","config":{"Acl":"hdr(host) -i new.example"}}')
            await answers(place, (200, "shop"), "new.example")
            await writer.put("%2Fnews", "hdr(host) 'x")
            await bamboo(place, "PUT", "/api/services//shop", {"acl": "hdr(host) ours.example"})
            await answers(place, (200, "shop"), "ours.example")

            assert (200, "news") == await place.ask("news.example")
            assert 400 == (await bamboo(place, "DELETE", "/api/services//news"))[0]
            await place.stop_daemon()
            place.settings = type(place.settings)(
                **{**{f: getattr(place.settings, f) for f in place.settings.__struct_fields__},
                   "bamboo_zookeeper": f"zk://127.0.0.1:{free_port()}/bamboo-followed"}
            )  # fmt: skip
            await place.start()
            await answers(place, (200, "shop"), "ours.example")

            assert ["/bad", "/news", "/shop"] == list(json.loads((await bamboo(place, "GET", "/api/services"))[1]))

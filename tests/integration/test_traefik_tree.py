"""Traefik's tree in a real ZooKeeper, read the way Traefik's own store reads it. No Traefik runs here: none can be had
from a package registry.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import pytest

from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import routes
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.traefik import TraefikWriter
from harness.balancer import member, route
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

pytestmark = pytest.mark.needs("java")


def wanted(*hosts: str, servers: int = 1) -> Wanted:
    seen = Snapshot(
        revision=1,
        trust=Trust.LIVE,
        members={"marathon:/web": {f"m{n}": member(f"t{n}", 31000 + n, app="/web") for n in range(servers)}},
        routes={"marathon:/web": route("/web", vhosts=hosts)} if hosts else {},
    )
    return routes.wanted(seen, Wanted(), Rules(), lambda _service, _members: None)


class Balancer:
    """One that may be elected: a session, and what it wants."""

    def __init__(self, registry: ComposedRegistry, name: str) -> None:
        self.registry = registry
        self.wants: Wanted | None = None
        self._running = asyncio.create_task(TraefikWriter(registry, "/traefik", (), lambda: self.wants).run(name))

    async def stop(self) -> None:
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        await self.registry.close()


@asynccontextmanager
async def balancer(url: str, name: str, *, after: Balancer) -> AsyncIterator[Balancer]:
    """Opened once the other leads."""
    await eventually("it leads", lambda: _leads(after), within_s=30)
    made = Balancer(await open_registry(url), name)
    try:
        yield made
    finally:
        await made.stop()


async def _leads(one: Balancer) -> bool:
    return bool(await one.registry.tree.names("/fairlead/elections/traefik"))


async def listed(registry: Registry, folder: str = "/traefik") -> dict[str, str]:
    """All keys with their values, as its store lists them."""
    found: dict[str, str] = {}
    for name in await registry.tree.names(folder):
        node = await registry.tree.get(f"{folder}/{name}")
        found[f"{folder}/{name}".removeprefix("/traefik/")] = node.data.decode() if node is not None else ""
        found |= await listed(registry, f"{folder}/{name}")
    return found


def rules(nodes: Mapping[str, str]) -> set[str]:
    return {data for path, data in nodes.items() if path.endswith("/rule")}


async def has(registry: Registry, *told: str) -> None:
    async def probe() -> bool:
        return rules(await listed(registry)) == set(told)

    await eventually(f"the rules are {told}", probe, within_s=30)


async def test_one_balancer_writes_what_differs_and_the_next_goes_on(zookeeper: ZooKeeper):
    """Others' nodes stay; nothing is written twice; each change shows at the root, where Traefik looks."""
    url = f"{zookeeper.url}/traefik-tree"
    reader = await open_registry(url)
    await reader.write("/traefik/http/middlewares/mine/stripprefix/prefixes/0", b"/x")
    await reader.write("/traefik/http/routers/mine/rule", b"Host(`mine`)")
    async with balancer(url, "second", after=(first := Balancer(await open_registry(url), "first"))) as second:
        first.wants = second.wants = wanted("a.example", servers=2)
        await has(reader, "Host(`mine`)", "Host(`a.example`)")
        before = await listed(reader)
        first.wants = second.wants = wanted("a.example", "b.example")
        await has(reader, "Host(`mine`)", "Host(`a.example`)", "Host(`b.example`)")
        after = await listed(reader)
        kept = await reader.read(f"/traefik/{next(p for p, data in after.items() if data == 'Host(`a.example`)')}")
        await first.stop()
        second.wants = wanted()
        await has(reader, "Host(`mine`)")
        left = await listed(reader)
    await reader.close()
    marks = [{n for n in nodes if n.startswith("changed-")} for nodes in (before, after, left)]

    assert "http/services/fairlead-web_p0/loadbalancer/servers/1/url" in before
    assert "http/services/fairlead-web_p0/loadbalancer/servers/1" not in after
    assert [1, 1, 1] == [len(m) for m in marks]
    assert 3 == len(set.union(*marks))
    assert kept is not None
    assert 0 == kept.version
    assert [] == [path for path in left if "/fairlead-" in path]
    assert "/x" == left["http/middlewares/mine/stripprefix/prefixes/0"]

"""The Resolver on a registry whose endpoints come and go; through aiohttp to real servers."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from discovery.records_of import WEB, leave, member, publish, withdraw
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.adapters.aiohttp_connector import ServiceConnector, ServiceResolver
from fairlead_discovery.adapters.blocking import BlockingResolver
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.picking import Endpoint, Strategy
from fairlead_discovery.records import Address, Leaving, Member, Reason, TaskRef, encode
from fairlead_discovery.registry import Change, Create, Delete, Put, Registry
from fairlead_discovery.resolver import Resolver
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import wait_until

DNS = "web.marathon.mesos"


@pytest.fixture
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    opened = await open_registry(f"memory:{request.node.name}")
    yield opened
    await opened.close()


@pytest.fixture
async def resolver(registry: Registry) -> AsyncIterator[Resolver]:
    async with Resolver(registry) as found:
        yield found


async def settled(resolver: Resolver, revision: int) -> None:
    """Until the resolver has the commit."""
    async with asyncio.timeout(5):
        while resolver.snapshot.revision < revision:  # noqa: ASYNC110  # ends with its first deadline
            await asyncio.sleep(0.002)


def at(port: int, *, task: str) -> Change:
    """An instance of the service on loopback."""
    record = Member(
        serviceEndpoint=Address(host="127.0.0.1", port=port),
        task=TaskRef(id=task, name="web", framework="marathon", framework_id="f", agent="a1"),
        status="ALIVE",
    )
    data = encode(record)
    return Create(paths.member(WEB, paths.member_name(task, data)), data)


def leave_task(task: str) -> Change:
    record = Leaving(task=task, service=WEB, member="", reason=Reason.KILL, deadline_s=0.0)
    return Put(paths.leaving(task), encode(record))


@pytest.mark.parametrize("name", [WEB, DNS, "_web._tcp.marathon.mesos", "WEB.marathon.mesos."])
async def test_every_name_leads_to_the_service(registry: Registry, resolver: Resolver, name: str):
    """Service key or DNS name, in any case."""
    await settled(resolver, await registry.commit([publish(1)]))

    assert member(1).serviceEndpoint.port == resolver.pick(name).port


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_every_strategy_picks_what_is_published(registry: Registry, resolver: Resolver, strategy: Strategy):
    """And never what has left."""
    await settled(resolver, await registry.commit([publish(1), publish(2)]))
    before = {resolver.pick(WEB, key=str(n), client_zone="z", strategy=strategy).task for n in range(50)}
    await settled(resolver, await registry.commit([withdraw(1), leave(1)]))
    after = {resolver.pick(WEB, key=str(n), client_zone="z", strategy=strategy).task for n in range(50)}

    assert {"t1", "t2"} == before
    assert {"t2"} == after


async def test_no_endpoint_is_said_so(resolver: Resolver):
    """Unavailable: the service may come; Refused: there is no such name."""
    with pytest.raises(Unavailable, match=r"web\.marathon\.mesos: no endpoint"):
        resolver.pick(DNS)
    with pytest.raises(Refused, match="names no service"):
        resolver.pick("example.org")


async def test_a_service_that_comes_later_is_found_by_dns_name(registry: Registry, resolver: Resolver):
    """Having asked in vain before makes no difference; a second service of the name joins in."""
    with pytest.raises(Unavailable):
        resolver.pick(DNS)
    await settled(resolver, await registry.commit([publish(1)]))
    alone = resolver.endpoints(DNS)
    await settled(resolver, await registry.commit([publish(2, service="marathon:/other/web")]))

    assert 1 == len(alone)
    assert 2 == len(resolver.endpoints(DNS))


async def test_watching_tells_changes_of_this_service_alone(registry: Registry, resolver: Resolver):
    """At once, then each change; another service's are none."""
    seen = []
    async with asyncio.timeout(5):
        async for endpoints in resolver.watch(WEB):
            seen.append([e.task for e in endpoints])
            if len(seen) == 1:
                await settled(resolver, await registry.commit([publish(9, service="marathon:/else")]))
                await settled(resolver, await registry.commit([publish(1)]))
            elif len(seen) == 2:
                await registry.commit([publish(2)])
            else:
                break

    assert [[], ["t1"], ["t1", "t2"]] == seen


async def test_least_of_two_avoids_the_busy_one(registry: Registry, resolver: Resolver):
    """What is in flight counts until it ends."""
    await settled(resolver, await registry.commit([publish(1), publish(2)]))
    busy = next(e for e in resolver.endpoints(WEB) if e.task == "t1")
    for _ in range(5):
        resolver.begin(busy)
    picked = [resolver.pick(WEB).task for _ in range(200)]
    for _ in range(5):
        resolver.end(busy)

    assert picked.count("t2") > 120
    assert {"t1", "t2"} == {resolver.pick(WEB).task for _ in range(50)}


async def test_a_closed_resolver_is_said_so(registry: Registry):
    """A pick does not go on with what nobody keeps true any more."""
    async with Resolver(registry) as resolver:
        await settled(resolver, await registry.commit([publish(1)]))

    with pytest.raises(Unavailable, match="closed"):
        resolver.pick(WEB)


# --- aiohttp


class Instance:
    """A real HTTP server on loopback that counts its requests and keeps connections alive."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.hosts: list[str] = []

    async def start(self) -> "Instance":
        app = web.Application()
        app.router.add_route("*", "/", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def _answer(self, request: web.Request) -> web.Response:
        self.hosts.append(request.headers["Host"])
        await asyncio.sleep(0.002)
        return web.Response(text=self.name)

    async def stop(self) -> None:
        await self._runner.cleanup()


@pytest.fixture
async def instances() -> AsyncIterator[list[Instance]]:
    started = [await Instance(f"i{n}").start() for n in range(3)]
    yield started
    for instance in started:
        await instance.stop()


async def ask(session: aiohttp.ClientSession, method: str = "GET") -> str:
    async with session.request(method, f"http://{DNS}/") as response:
        assert response.status == 200
        return await response.text()


async def test_requests_go_to_all_endpoints(registry: Registry, resolver: Resolver, instances: list[Instance]):
    """Each by its own pick; servers see the name that was asked for."""
    await settled(resolver, await registry.commit([at(i.port, task=i.name) for i in instances]))
    async with aiohttp.ClientSession(connector=ServiceConnector(resolver)) as session:
        answers = {await ask(session) for _ in range(40)}

    assert {"i0", "i1", "i2"} == answers
    assert {DNS} == {host for i in instances for host in i.hosts}
    assert {} == resolver._loads


async def test_an_endpoint_that_takes_no_connection_costs_no_request(
    registry: Registry, resolver: Resolver, instances: list[Instance]
):
    """The next one is asked, for POSTs too: nothing had been sent."""
    changes = [at(instances[0].port, task="i0"), at(free_port(), task="dead")]
    await settled(resolver, await registry.commit(changes))
    async with aiohttp.ClientSession(connector=ServiceConnector(resolver)) as session:
        answers = [await ask(session, "POST") for _ in range(20)]

    assert ["i0"] * 20 == answers
    assert 20 == len(instances[0].hosts)


async def test_a_kept_connection_is_not_used_once_its_endpoint_left(
    registry: Registry, resolver: Resolver, instances: list[Instance]
):
    """From the very next request."""
    one, other = instances[:2]
    await settled(resolver, await registry.commit([at(one.port, task=one.name)]))
    gone = at(one.port, task=one.name).path
    async with aiohttp.ClientSession(connector=ServiceConnector(resolver)) as session:
        first = await ask(session)
        await settled(
            resolver, await registry.commit([at(other.port, task=other.name), leave_task(one.name), Delete(gone)])
        )
        later = {await ask(session) for _ in range(10)}

    assert "i0" == first
    assert {"i1"} == later


async def test_no_endpoint_is_an_error_of_aiohttps_own(resolver: Resolver):
    """ClientConnectorError, which clients handle already."""
    async with aiohttp.ClientSession(connector=ServiceConnector(resolver)) as session:
        with pytest.raises(aiohttp.ClientConnectorError, match="no endpoint"):
            await session.get(f"http://{DNS}/")


async def test_other_hosts_are_asked_as_ever(resolver: Resolver, instances: list[Instance]):
    """The connector serves a whole program."""
    async with (
        aiohttp.ClientSession(connector=ServiceConnector(resolver)) as session,
        session.get(f"http://127.0.0.1:{instances[0].port}/") as response,
    ):
        answer = await response.text()

    assert "i0" == answer


async def test_the_plain_resolver_gives_addresses_and_ports(
    registry: Registry, resolver: Resolver, instances: list[Instance]
):
    """For a connector of one's own."""
    await settled(resolver, await registry.commit([at(i.port, task=i.name) for i in instances]))
    connector = aiohttp.TCPConnector(resolver=ServiceResolver(resolver), use_dns_cache=False, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        answers = {await ask(session) for _ in range(40)}

    assert {"i0", "i1", "i2"} == answers


# --- blocking


@pytest.fixture
def registry_process(short_dir: Path) -> Iterator[str]:
    """The local registry as a process of its own."""
    url = f"local:{short_dir}/registry.sock"
    words = [sys.executable, "-m", "fairlead_console", "registry", "--set", f"registry={url}", "--set", "token=off"]
    server = Server([*words, "--set", f"data_dir={short_dir}"], log=short_dir / "registry.log")
    server.start()
    wait_until("the registry serves", (short_dir / "registry.sock").exists)
    yield url
    server.stop()


async def test_scripts_need_no_event_loop(registry_process: str):
    """A real registry process; the thread ends with the resolver."""

    def script() -> int:
        with BlockingResolver(registry_process) as resolver:
            return resolver.pick("/shop/web").port

    opened = await open_registry(registry_process)
    await opened.commit([publish(1)])
    port = await asyncio.to_thread(script)
    await opened.close()

    assert member(1).serviceEndpoint.port == port


def test_a_registry_out_of_sight_is_said_so(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Instead of empty answers."""
    monkeypatch.setattr("fairlead_discovery.resolver.FIRST_S", 0.2)

    with pytest.raises(Unavailable, match="out of sight"):
        BlockingResolver(f"local:{short_dir}/none.sock").__enter__()


def test_the_package_gives_the_resolver_and_nothing_it_has_not():
    """As the documentation writes it."""
    import fairlead_discovery  # the package itself is looked at

    assert Resolver is fairlead_discovery.Resolver
    with pytest.raises(AttributeError, match="has no attribute 'Resolvr'"):
        fairlead_discovery.Resolvr  # noqa: B018  # asking is the test


async def test_what_is_in_flight_is_counted_and_its_end_too(resolver: Resolver):
    """Also when the request fails: least-of-two goes by it."""
    endpoint = Endpoint(service="s:a", task="t", host="127.0.0.1", port=1)
    during = []

    def fail() -> None:
        during.append(dict(resolver._loads))
        raise RuntimeError("the request failed")

    with pytest.raises(RuntimeError, match="the request failed"), resolver.using(endpoint):
        fail()

    assert ([{endpoint.name: 1}], {}) == (during, resolver._loads)

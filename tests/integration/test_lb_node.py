"""`fairlead lb --node`: services on localhost's ports and DC/OS' VIPs, as name servers answer them, without reloads."""

import asyncio
import dataclasses
import itertools
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from fairlead_discovery import paths
from fairlead_discovery.audience import Audience
from fairlead_discovery.decisions import vips
from fairlead_discovery.records import Agent, Member, Port, TaskRef, decode, encode
from fairlead_discovery.records import Balancer as Registered
from fairlead_discovery.registry import Delete
from fairlead_dns.decisions.naming import Dialect
from fairlead_lb.settings import NODE_DEFAULTS
from harness.balancer import Balancer, Task, fetch, route
from harness.clients import Clients
from harness.naming import Running, running
from harness.ports import free_port
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
IN_MODULE = pytest.mark.asyncio(loop_scope="module")
OWN, OTHER = "127.0.0.2", "127.0.0.1"
"""Addresses of this machine, and of another one."""
NAMES = "l4lb.thisdcos.directory"


@dataclasses.dataclass
class Machine:
    """A node balancer and a name server of one registry."""

    lb: Balancer
    dns: Running

    async def applied(self, revision: int) -> None:
        """By `/status`: a node balancer tells the registry only now and then."""

        async def probe() -> bool:
            return int((await self.lb.status())["applied_revision"] or 0) >= revision

        await eventually(f"revision {revision} is applied", probe, within_s=30)

    async def deploy(self, app: str, *labels: str, count: int = 1, **port: Any) -> list[Task]:
        tasks = [await Task(f"{app.strip('/')}-{n}", app=app).start() for n in range(count)]
        await self.applied(await self.lb.publish(*(labelled(t, *labels) for t in tasks), routes=[route(app, **port)]))
        return tasks

    async def remove(self, tasks: list[Task], *labels: str) -> None:
        revision = await self.lb.leave(*(labelled(t, *labels) for t in tasks))
        await self.applied(revision)
        for task in tasks:
            await task.stop()

    async def reloads(self) -> int:
        """Once nothing is left of services that are gone: giving that up is a reload of its own."""

        async def settled() -> bool:
            found = await self.lb.status()
            served = {place for service in found["services"] for place in service["vips"]}
            return set(found["vips"]) == served and not found["reload_due"]

        await eventually("nothing is left over", settled, within_s=60)
        return int((await self.lb.status())["reloads"])

    async def resolved(self, name: str) -> str:
        async def probe() -> str:
            return (await self.dns.knows(f"{name}.{NAMES}") or [""])[0]

        return await eventually(f"{name} resolves", probe)


def labelled(task: Task, *labels: str) -> Member:
    given = {f"VIP_{number}": label for number, label in enumerate(labels)}
    port = Port(index=0, number=task.port, host_port=task.port, labels=given)
    return msgspec.structs.replace(task.member(), ports=(port,))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machine() -> AsyncIterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="fl", dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        url = f"memory:{folder.name}"
        kept = {
            "keepalive_s": 2,
            "locality": "machine",
            "machine": (OWN,),
            "reserved_ports": str(NODE_DEFAULTS["reserved_ports"]),
        }
        async with (
            running(folder / "dns", registry=url, dialects=(Dialect(kind="l4lb"),)) as dns,
            Balancer(folder, url, node=True, id="node", **kept) as lb,
        ):
            await lb.start()
            yield Machine(lb, dns)


@IN_MODULE
async def test_a_vip_is_resolved_and_served_and_gone_with_its_service(machine: Machine) -> None:
    """A name server and a node balancer that know of one another nothing but the registry."""
    port = free_port()
    tasks = await machine.deploy("/shop/web", f"/shop/web:{port}", count=2, mode="http")
    address = await machine.resolved("shopweb.marathon")
    reloads = await machine.reloads()
    answers = {(await fetch(f"http://{address}:{port}", "/"))[1] for _ in range(8)}
    more = await Task("shop/web-2", app="/shop/web").start()
    await machine.applied(await machine.lb.publish(labelled(more, f"/shop/web:{port}")))
    rescaled = {(await fetch(f"http://{address}:{port}", "/"))[1] for _ in range(9)}

    assert {"shop/web-0", "shop/web-1"} == answers
    assert {"shop/web-0", "shop/web-1", "shop/web-2"} == rescaled
    assert reloads == (await machine.lb.status())["reloads"]
    await machine.remove([*tasks, more], f"/shop/web:{port}")
    await eventually("it is refused", lambda: refused(address, port))
    await eventually("the name is gone", lambda: unknown(machine, "shopweb.marathon"))


async def refused(address: str, port: int) -> bool:
    try:
        await fetch(f"http://{address}:{port}", "/")
    except OSError:
        return True
    return False


async def unknown(machine: Machine, name: str) -> bool:
    return not await machine.dns.knows(f"{name}.{NAMES}")


@IN_MODULE
async def test_a_vip_passes_tcp_and_stands_at_more_than_one_port(machine: Machine) -> None:
    """Two labels of one port; a service without HTTP."""
    one, two = free_port(), free_port()
    tasks = await machine.deploy("/db", f"/db:{one}", f"db:{two}", mode="tcp")
    address = await machine.resolved("db.marathon")

    assert [(200, "db-0")] * 2 == [await fetch(f"http://{address}:{port}", "/") for port in (one, two)]
    [service] = [s for s in (await machine.lb.status())["services"] if s["service"] == "marathon:/db"]
    assert {f"{address}:{one}", f"{address}:{two}"} == set(service["vips"])
    await machine.remove(tasks, f"/db:{one}", f"db:{two}")


@IN_MODULE
async def test_a_foreign_task_with_nothing_but_a_vip_is_served(machine: Machine) -> None:
    """Another framework's, with its name in the VIP's."""
    port = free_port()
    task = await Task("worker", app="").start()
    made = labelled(task, f"/worker:{port}")
    made = msgspec.structs.replace(made, task=msgspec.structs.replace(made.task, framework="etl"))
    await machine.applied(await machine.lb.publish_as("etl:worker", made))

    assert (200, "worker") == await fetch(f"http://{await machine.resolved('worker.etl')}:{port}", "/")
    await task.stop()


@IN_MODULE
async def test_vips_that_nobody_may_have_are_told_and_harm_nothing(machine: Machine) -> None:
    """Low ports, tasks' ports, addresses of no network that was set, what is no VIP, what another process holds."""
    taken = await asyncio.start_server(lambda _r, w: w.close(), "0.0.0.0", 0)
    held = taken.sockets[0].getsockname()[1]
    labels = ("/a:22", "/a:31005", "10.99.0.1:80", "a b", f"/a:{held}", f"/a:{(good := free_port())}")
    tasks = await machine.deploy("/a", *labels, mode="http")
    address = await machine.resolved("a.marathon")

    async def told() -> str:
        return "; ".join((await machine.lb.status())["problems"].get("marathon:/a", ()))

    async def all_told() -> bool:
        return "held" in await told()

    await eventually("all is told", all_told)
    assert (200, "a-0") == await fetch(f"http://{address}:{good}", "/")
    words = await told()
    for part in (
        "VIP a.marathon:22: port 22 is none of vip_low_ports",
        "VIP a.marathon:31005: port 31005 is reserved for others",
        "VIP 10.99.0.1:80: 10.99.0.1 is in no network of ip_vips",
        "VIP_3: 'a b' is no VIP",
        f"VIP {address}:{held} is held by another process",
    ):
        assert part in words
    taken.close()
    await machine.remove(tasks, *labels)


@IN_MODULE
async def test_a_known_place_changes_hands_without_a_reload(machine: Machine) -> None:
    """The name goes from one app to another: nobody reloads for it."""
    port = free_port()
    one = await machine.deploy("/blue", f"/front:{port}", mode="http")
    address = await machine.resolved("front.marathon")
    two = await machine.deploy("/green", f"/front:{port}", mode="http")
    held = await fetch(f"http://{address}:{port}", "/")
    reloads = await machine.reloads()
    await machine.remove(one, f"/front:{port}")

    assert (200, "blue-0") == held
    assert (200, "green-0") == await fetch(f"http://{address}:{port}", "/")
    assert reloads == (await machine.lb.status())["reloads"]
    await machine.remove(two, f"/front:{port}")


@IN_MODULE
async def test_vips_are_served_on_without_the_daemon_and_followed_by_the_next(machine: Machine) -> None:
    """kill -9 of `fairlead lb`: the next one adopts HAProxy, and goes on without a reload."""
    port = free_port()
    tasks = await machine.deploy("/kept", f"/kept:{port}", mode="http")
    address = await machine.resolved("kept.marathon")
    await machine.reloads()
    await machine.lb.kill_daemon()
    meanwhile = await fetch(f"http://{address}:{port}", "/")
    await machine.lb.start()
    more = await Task("kept-more", app="/kept").start()
    await machine.applied(await machine.lb.publish(labelled(more, f"/kept:{port}")))

    assert (200, "kept-0") == meanwhile
    assert {"kept-0", "kept-more"} == {(await fetch(f"http://{address}:{port}", "/"))[1] for _ in range(6)}
    assert 0 == (await machine.lb.status())["reloads"]
    await machine.remove([*tasks, more], f"/kept:{port}")


@IN_MODULE
async def test_kills_wait_for_no_node_balancer(machine: Machine) -> None:
    """It is registered, and among those that must drain it is not."""
    audience = Audience(machine.lb.registry, lambda: None)
    following = asyncio.gather(*audience.bodies())
    try:
        async with asyncio.timeout(20):
            await audience.known.wait()
        node = await machine.lb.registry.read(paths.below(paths.BALANCERS, "node"))
        readers = audience.readers(now_s=0)
    finally:
        following.cancel()

    assert node is not None
    assert decode(Registered, node.data, place="node").node
    assert frozenset() == readers.balancers


@IN_MODULE
async def test_a_rolling_change_without_drain_loses_no_idempotent_request(machine: Machine) -> None:
    """Tasks are gone in the moment they are withdrawn: nobody waits for this balancer. GETs go elsewhere; a POST that was
    under way at that moment may be answered with an error, and none is executed twice.
    """
    port = machine.lb.first_port
    here = await machine.deploy("/roll", count=3, mode="http", service_port=port)
    every = list(here)
    async with Clients(port, "roll") as clients:
        for number in range(3):
            new = await Task(f"roll-new-{number}", app="/roll").start()
            every.append(new)
            await machine.applied(await machine.lb.publish(new.member()))
            await machine.lb.leave(here[number].member())
            await here[number].stop()
        await eventually("the new ones answer", lambda: answered(clients, every[3:]), within_s=30)

    seen = [request for task in every for request in task.seen]
    assert [] == [f for f in clients.failures if f.startswith("GET")]
    assert [] == clients.doubled_posts(seen)


async def answered(clients: Clients, tasks: list[Task]) -> bool:
    return {task.id for task in tasks} <= set(clients.answers)


async def spread(machine: Machine, *hosts: str) -> list[Task]:
    """One task at each host, served at the first service port."""
    app = f"/near{next(_apps)}"
    tasks = [await Task(f"{n}-{host}", app=app, host=host).start() for n, host in enumerate(hosts)]
    made = route(app, mode="http", service_port=machine.lb.first_port + 1)
    await machine.applied(await machine.lb.publish(*(t.member() for t in tasks), routes=[made]))
    return tasks


_apps = itertools.count()


async def answers(machine: Machine, count: int = 12) -> Counter[str]:
    """By host."""
    port = machine.lb.first_port + 1
    found = [await fetch(f"http://127.0.0.1:{port}", "/") for _ in range(count)]
    assert {200} == {status for status, _ in found}
    return Counter(body.partition("-")[2] for _, body in found)


async def only_own(machine: Machine) -> bool:
    return {OWN: 12} == await answers(machine)


async def end(machine: Machine, tasks: list[Task]) -> None:
    revision = await machine.lb.leave(*(t.member() for t in tasks))
    await machine.lb.registry.commit([Delete(paths.route(f"marathon:{tasks[0].app}"))])
    await machine.applied(revision + 1)
    for task in tasks:
        await task.stop()


@IN_MODULE
async def test_this_machines_tasks_come_first_and_others_when_they_are_dead(machine: Machine) -> None:
    """A near server that refuses connections costs no request, before anyone has said that it is gone."""
    tasks = await spread(machine, OTHER, OWN, OTHER)
    before = await answers(machine)
    reloads = await machine.reloads()
    async with Clients(machine.lb.first_port + 1, "near") as clients:
        await tasks[1].stop()
        await asyncio.sleep(0.5)
    after = await answers(machine)
    near = await Task("9-" + OWN, app=tasks[1].app, host=OWN).start()
    await machine.applied(await machine.lb.publish(near.member()))
    await machine.applied(await machine.lb.leave(tasks[1].member()))

    assert {OWN: 12} == before
    assert {OTHER: 12} == after
    assert [] == [f for f in clients.failures if f.startswith("GET")]
    await eventually("the new one is asked alone", lambda: only_own(machine), within_s=60)
    assert reloads == (await machine.lb.status())["reloads"]
    await end(machine, [tasks[0], tasks[2], near])


@IN_MODULE
async def test_too_few_near_servers_get_help_from_others(machine: Machine) -> None:
    """One of three that are near is dead: the next tier takes its part, and the near ones go on."""
    tasks = await spread(machine, OWN, OWN, OWN, OTHER)
    before = await answers(machine)
    await tasks[0].stop()

    async def helped() -> bool:
        return {OWN, OTHER} == set(await answers(machine))

    await eventually("the other machine helps", helped, within_s=30)
    assert {OWN: 12} == before
    assert {f"marathon:{tasks[0].app} port 0": 1} == (await machine.lb.status())["spilled"]
    await end(machine, tasks)


async def test_an_edge_balancer_stands_where_its_machines_agent_says(short_dir: Path) -> None:
    """It prefers its own zone once the agent is announced, without a reload; the zone's last task gone, all others."""
    async with Balancer(short_dir, locality="zone", machine=("10.1.1.1",)) as lb:
        await lb.start()
        tasks = [await Task(zone, app="/zones").start() for zone in ("a", "a", "b")]
        made = [msgspec.structs.replace(t.member(), zone=t.id, task=renamed(t, n)) for n, t in enumerate(tasks)]
        await lb.applied(await lb.publish(*made, routes=[route("/zones", mode="http", service_port=lb.first_port)]))
        everywhere = {(await fetch(f"http://127.0.0.1:{lb.first_port}", "/"))[1] for _ in range(9)}
        agent = Agent(id="s1", host="10.1.1.1", port=5051, boot_id="b", zone="b")
        await lb.registry.announce(paths.below(paths.AGENTS, agent.id), encode(agent))

        async def only(zone: str) -> bool:
            return {zone} == {(await fetch(f"http://127.0.0.1:{lb.first_port}", "/"))[1] for _ in range(6)}

        await eventually("its own zone is asked", lambda: only("b"), within_s=30)
        reloads = (await lb.status())["reloads"]
        await lb.applied(await lb.leave(made[2]))
        await eventually("the other zone is asked", lambda: only("a"), within_s=30)

        assert {"a", "b"} == everywhere
        assert reloads == (await lb.status())["reloads"]


async def test_the_own_zone_comes_before_the_own_region_and_that_before_all_others(short_dir: Path) -> None:
    """One tier after the other as the nearer one empties, and back at once; none of it a reload, no request failed."""
    places = {"far": ("a", "us"), "region": ("b", "eu"), "zone": ("a", "eu")}
    async with Balancer(short_dir, locality="zone", zone="a", region="eu") as lb:
        await lb.start()
        tasks = {name: await Task(name, app="/tiers").start() for name in places}
        made = {
            name: msgspec.structs.replace(tasks[name].member(), zone=zone, region=region)
            for name, (zone, region) in places.items()
        }
        await lb.applied(await lb.publish(*made.values(), routes=[route("/tiers", vhosts=("tiers.example",))]))

        async def asked() -> set[str]:
            return {(await lb.ask("tiers.example"))[1] for _ in range(6)}

        before = (await lb.status())["reloads"]
        async with Clients(lb.settings.http_port, "tiers.example", count=4) as clients:
            found = [await asked()]
            for name in ("zone", "region"):
                await lb.applied(await lb.leave(made[name]))
                found.append(await asked())
            await lb.gone("zone", "region")
            await lb.applied(await lb.publish(made["zone"], made["region"]))
            await eventually("its own zone is asked again", lambda: alone(asked, "zone"), within_s=30)

        assert [{"zone"}, {"region"}, {"far"}] == found
        assert [] == clients.failures
        assert before == (await lb.status())["reloads"]


async def alone(asked: Callable[[], Awaitable[set[str]]], name: str) -> bool:
    return {name} == await asked()


def renamed(task: Task, number: int) -> TaskRef:
    return msgspec.structs.replace(task.member().task, id=f"{task.id}{number}")


@pytest.mark.needs("ip")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes addresses the machine's own")
async def test_addresses_of_labels_and_ranges_of_others_are_made_this_machines_own(short_dir: Path) -> None:
    """As DC/OS' 11.0.0.0/8 and `VIP_0=1.2.3.4:80`; given back at a clean end."""
    port = free_port()
    made = Balancer(short_dir, node=True, ip_vips=("198.51.100.0/24",), vip_range="198.51.101.0/24")
    async with made as lb:
        await lb.start()
        task = await Task("ip", app="/ip").start()
        labels = (f"198.51.100.7:{port}", f"/ip:{port}")
        await lb.publish(labelled(task, *labels), routes=[route("/ip", mode="http")])
        named = vips.addresses({"ip.marathon"}, IPv4Network("198.51.101.0/24"))["ip.marathon"]

        async def served() -> bool:
            return [(200, "ip")] * 2 == [await fetch(f"http://{a}:{port}", "/") for a in ("198.51.100.7", named)]

        await eventually("both are served", served, within_s=30)
        await fetch(lb.admin, "/fairlead/stop", method="POST")
        await lb.wait_ended()
        await task.stop()
    table = await asyncio.to_thread(subprocess.check_output, ["ip", "route", "show", "table", "local"], text=True)

    assert "198.51.10" not in table

"""New services, virtual hosts, check paths and timeouts reach HAProxy without a reload."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_discovery import paths
from fairlead_discovery.records import Check
from fairlead_discovery.registry import Delete
from harness.balancer import Balancer, Task, balancer, route, service
from harness.clients import Clients
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=4) as made:
        yield made


async def reloads(place: Balancer) -> int:
    return int((await place.status())["reloads"])


async def test_new_services_under_load_need_no_reload(place: Balancer):
    """By host, by port, checked, with a time limit of their own: the bystander notices nothing."""
    await service(place, "/shop/web", vhosts=(HOST,))
    async with Clients(place.settings.http_port, HOST) as bystander:
        await service(place, "/port", service_port=place.first_port)
        await service(place, "/checked", vhosts=("checked.example",), check=Check(path="/health", interval_s=2))
        await service(place, "/least", service_port=place.first_port + 1, mode="tcp", balance="leastconn")
        slow = await service(place, "/slow", vhosts=("slow.example",), timeout_server_s=0.3)

    assert 0 == await reloads(place)
    assert [] == bystander.failures
    assert (200, "port") == await place.ask("any", port=place.first_port)
    assert (200, "checked") == await place.ask("checked.example")
    assert (200, "slow") == await place.ask("slow.example")
    assert 504 == (await place.ask("slow.example", path="/?slow=2"))[0]
    assert slow.seen


async def test_check_path_and_timeout_change_while_it_serves(place: Balancer):
    """HAProxy asks the new path, and gives the server the new time."""

    async def routed(path: str, timeout_server_s: float) -> None:
        check = Check(path=path, interval_s=2)
        one = route("/shop/web", vhosts=(HOST,), check=check, timeout_server_s=timeout_server_s)
        await place.applied(await place.publish(routes=[one]))

    task = await service(place, "/shop/web", vhosts=(HOST,), check=Check(path="/first", interval_s=2))
    await eventually("the path is asked", lambda: asked(task, "GET /first"))
    await routed("/second", 0.3)
    cut = await place.ask(HOST, path="/?slow=2")
    await eventually("the other path is asked", lambda: asked(task, "GET /second"))
    await routed("/", 30)

    assert 504 == cut[0]
    assert (200, task.id) == await place.ask(HOST, path="/?slow=0.5")
    assert 0 == await reloads(place)


async def asked(task: Task, what: str) -> bool:
    return what in task.seen


async def test_a_reload_brings_services_home_and_makes_new_spares(place: Balancer):
    """The fifth of its kind needs one; it loses no request, and then all have the names marathon-lb gives."""
    first = await service(place, "/shop/web", vhosts=(HOST,))
    async with Clients(place.settings.http_port, HOST) as clients:
        for number in range(4):
            await service(place, f"/n{number}", vhosts=(f"n{number}.example",))

    names = {s["backend"] for s in (await place.status())["services"]}
    assert 1 == await reloads(place)
    assert [] == clients.failures
    assert {first.id} == set(clients.answers)
    assert {"shop_web_p0", "n0_p0", "n1_p0", "n2_p0", "n3_p0"} == names
    assert [(200, f"n{n}") for n in range(4)] == [await place.ask(f"n{n}.example") for n in range(4)]


async def test_who_stands_in_a_spare_is_known_to_the_next_fairlead_lb(place: Balancer):
    """Killed right after it was lent, before anything was written down: served on, and not a request lost."""
    task = await service(place, "/shop/web", vhosts=(HOST,))
    async with Clients(place.settings.http_port, HOST) as clients:
        await place.kill_daemon()
        other = await Task("other").start()
        revision = await place.publish(other.member())
        await place.start()
        await place.applied(revision)

    assert [] == clients.failures
    assert 0 == await reloads(place)
    assert {task.id, "other"} >= set(clients.answers)
    await eventually("both serve", lambda: both_serve(place, task))


async def both_serve(place: Balancer, task: Task) -> bool:
    return {task.id: "ready", "other": "ready"} == await place.servers()


async def test_a_spare_is_lent_again_when_its_service_is_gone(place: Balancer):
    """Sixteen services come and go in four spares."""
    for number in range(16):
        await service(place, f"/n{number}", vhosts=(f"n{number}.example",))
        await place.applied(await place.registry.commit([Delete(paths.route(f"marathon:/n{number}"))]))
        await eventually("it is gone", lambda: nobody(place))

    assert 0 == await reloads(place)


async def nobody(place: Balancer) -> bool:
    return not (await place.status())["services"]

"""Which tasks of a service answer, in a real HAProxy: subsets, redirects, one client's server."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from fairlead_discovery.policies import (
    Destination,
    HashPolicy,
    HeaderMatch,
    Intentions,
    LoadBalancer,
    Redirect,
    Resolver,
    RouteMatch,
    Router,
    RouterLeg,
    Share,
    Source,
    Split,
    Subset,
    subset_of,
)
from fairlead_discovery.records import Discovery
from harness.balancer import Balancer, Task, balancer, route, service
from harness.clients import Clients
from harness.sharing import ask_often, order, within

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
SHOP, NEXT = "marathon:/shop", "marathon:/next"
SUBSETS = {v: Subset(filter=f"version == {v}") for v in ("v1", "v2")}


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=4) as made:
        yield made


async def versions(place: Balancer) -> list[Task]:
    """Two tasks of each version."""
    tasks = [await Task(f"{v}-{n}", app="/shop").start() for v in ("v1", "v2") for n in (1, 2)]
    members = [
        msgspec.structs.replace(task.member(), discovery=Discovery(labels={"version": task.id[:2]})) for task in tasks
    ]
    await place.applied(await place.publish(*members, routes=[route("/shop", vhosts=(HOST,))]))
    return tasks


async def asked(place: Balancer, count: int = 40, host: str = HOST, sent: str = "") -> dict[str, int]:
    return dict(await ask_often(place.settings.http_port, host, count, sent=sent))


async def test_subsets_are_split_routed_and_as_closed_as_their_service(place: Balancer):
    """Without a reload while there are spares, and without a lost request; a split of a subset is one of its service."""
    await versions(place)
    resolver = Resolver(service=SHOP, subsets=SUBSETS)
    async with Clients(place.settings.http_port, HOST) as clients:
        await order(place, resolver, Split(service=SHOP, shares=(Share(service=subset_of(SHOP, "v2"), percent=100),)))
        all_to_v2 = await asked(place)
        await order(place, msgspec.structs.replace(resolver, default_subset="v1"), gone=[Split(service=SHOP)])
        default = await asked(place)
        there = RouterLeg(
            match=RouteMatch(header=(HeaderMatch(name="X-V", exact="2"),)),
            destination=Destination(service_subset="v2"),
        )
        await order(place, Router(service=SHOP, route=(there,)))
        by_header = await asked(place, sent="X-V: 2\r\n"), await asked(place)
    closed = Intentions(service=SHOP, sources=(Source(name="anonymous", action="deny"),))
    await order(place, closed)

    assert {"v2-1", "v2-2"} == set(all_to_v2)
    assert {"v1-1", "v1-2"} == set(default)
    assert ({"v2-1", "v2-2"}, {"v1-1", "v1-2"}) == tuple(set(found) for found in by_header)
    assert [] == clients.failures
    assert ({"403": 40}, {"403": 40}) == (await asked(place, sent="X-V: 2\r\n"), await asked(place))


async def test_another_service_answers_instead_and_its_own_word_counts(place: Balancer):
    """Its subset, its split, its intentions; taken away, the service answers again."""
    await versions(place)
    await service(place, "/next", vhosts=("next.example",))
    instead = Resolver(service=NEXT, redirect=Redirect(service=SHOP, service_subset="v2"))
    await order(place, Resolver(service=SHOP, subsets=SUBSETS), instead)
    redirected = await asked(place, host="next.example")
    await order(place, Intentions(service=SHOP, sources=(Source(name="anonymous", action="deny"),)))
    closed = await asked(place, host="next.example")
    await order(place, gone=[instead])

    assert {"v2-1", "v2-2"} == set(redirected)
    assert {"403": 40} == closed
    assert {"next": 40} == await asked(place, host="next.example")


@pytest.mark.parametrize(
    ("by", "sent"),
    [
        (HashPolicy(field="header", field_value="X-Who"), "X-Who: u{}\r\n"),
        (HashPolicy(field="cookie", field_value="who"), "Cookie: a=1; who=u{}\r\n"),
    ],
)
async def test_a_client_stays_with_its_server_by_header_or_cookie(place: Balancer, by: HashPolicy, sent: str):
    """Each with one of four, and not all with the same."""
    await versions(place)
    await order(place, Resolver(service=SHOP, load_balancer=LoadBalancer(policy="ring_hash", hash_policies=(by,))))
    found = [set(await asked(place, 8, sent=sent.format(n))) for n in range(24)]
    nobody = await asked(place, 200)

    assert all(len(servers) == 1 for servers in found)
    assert len(set.union(*found)) > 1
    assert all(within(count, 200, 25) for count in nobody.values())

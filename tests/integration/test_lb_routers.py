"""Requests lead to other services by what they say, in a real HAProxy."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fairlead_discovery import paths
from fairlead_discovery.policies import (
    Destination,
    HeaderChange,
    HeaderMatch,
    Intentions,
    QueryMatch,
    RouteMatch,
    Router,
    RouterLeg,
    Share,
    Source,
    Split,
    name_of,
)
from fairlead_discovery.registry import Put
from fairlead_lb.settings import lb_folder
from harness.balancer import Balancer, Task, balancer, service
from harness.clients import Clients
from harness.mesh import meshed
from harness.sharing import ask_often, order
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
SHOP, API, NEXT = "marathon:/shop", "marathon:/api", "marathon:/next"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=4) as made:
        yield made


async def ask(
    place: Balancer, path: str, *, method: str = "GET", port: int = 0, headers: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Status, who answered, and the answer's head in lower case."""
    sent = "".join(f"{name}: {value}\r\n" for name, value in {"Host": HOST, **(headers or {})}.items())
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", port or place.settings.http_port)
        writer.write(f"{method} {path} HTTP/1.1\r\n{sent}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        raw = (await reader.read(-1)).decode()
    writer.close()
    head, _, body = raw.partition("\r\n\r\n")
    return int(head.split()[1]), body, head.lower()


async def who(place: Balancer, path: str, **more: Any) -> str:
    status, body, _ = await ask(place, path, **more)
    return body if status == 200 else str(status)


def leg(to: str, match: RouteMatch | None = None, **more: Any) -> RouterLeg:
    return RouterLeg(match=match or RouteMatch(), destination=Destination(service=to, **more))


def router(*legs: RouterLeg) -> Router:
    return Router(service=SHOP, route=legs)


async def services(place: Balancer) -> tuple[Task, Task, Task]:
    return (
        await service(place, "/shop", vhosts=(HOST,), service_port=place.first_port),
        await service(place, "/api", vhosts=("api.example",)),
        await service(place, "/next", vhosts=("next.example",)),
    )


async def test_the_first_leg_that_fits_takes_a_request_by_host_and_by_port(place: Balancer):
    """Paths, headers, parameters, methods, inverses, gRPC's paths; what none takes stays. One reload, and none for
    another destination.
    """
    await services(place)
    match = RouteMatch
    legs = (
        leg(NEXT, match(path_exact="/api/next")),
        leg(API, match(path_prefix="/api", methods=("GET", "PUT"))),
        leg(NEXT, match(path_prefix="/api")),
        leg(API, match(path_regex="/v[0-9]+/.*")),
        leg(
            API,
            match(path_prefix="/shop.v1.Cart/", header=(HeaderMatch(name="content-type", prefix="application/grpc"),)),
        ),
        leg(API, match(header=(HeaderMatch(name="X-Beta", exact="yes", ignore_case=True),))),
        leg(NEXT, match(path_prefix="/in", header=(HeaderMatch(name="X-Old", present=True, invert=True),))),
        leg(API, match(query_param=(QueryMatch(name="v", regex="[2-9]"),))),
        leg(NEXT, match(query_param=(QueryMatch(name="new", present=True),))),
        leg(API, match(query_param=(QueryMatch(name="who", exact="a b"),))),
    )
    before = (await place.status())["reloads"]
    await order(place, router(*legs))
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("/api/next", {}, "next"),
        ("/api/next?x=1", {}, "next"),
        ("/api/x", {}, "api"),
        ("/api/x", {"method": "PUT"}, "api"),
        ("/api/x", {"method": "POST"}, "next"),
        ("/v2/x", {}, "api"),
        ("/x/v2/x", {}, "shop"),
        ("/v2", {}, "shop"),
        ("/shop.v1.Cart/Add", {"method": "POST", "headers": {"Content-Type": "application/grpc+proto"}}, "api"),
        ("/shop.v1.Cart/Add", {"method": "POST", "headers": {"Content-Type": "text/plain"}}, "shop"),
        ("/", {"headers": {"x-beta": "YES"}}, "api"),
        ("/", {"headers": {"x-beta": "yes!"}}, "shop"),
        ("/in", {}, "next"),
        ("/in", {"headers": {"X-Old": "1"}}, "shop"),
        ("/?a=1&v=3", {}, "api"),
        ("/?v=33", {}, "shop"),
        ("/?new", {}, "next"),
        ("/?a=1&new=1", {}, "next"),
        ("/?anew=1", {}, "shop"),
        ("/?who=a%20b", {}, "api"),
        ("/", {}, "shop"),
    ]
    by_host = [await who(place, path, **more) for path, more, _ in asked]
    by_port = [await who(place, path, port=place.first_port, **more) for path, more, _ in asked]
    reloads = (await place.status())["reloads"]
    await order(place, router(leg(API, legs[0].match), *legs[1:]))
    turned = await who(place, "/api/next")
    after = (await place.status())["reloads"]
    await order(place, gone=[router()])

    assert [wanted for *_, wanted in asked] == by_host
    assert [wanted for *_, wanted in asked] == by_port
    assert ("api", "shop") == (turned, await who(place, "/api/next"))
    assert before + 1 == reloads == after


async def test_a_request_is_changed_on_its_way_and_nobody_else_is(place: Balancer):
    """Path, headers there and back, time limit, and no repetition."""
    shop, api, _ = await services(place)
    there = HeaderChange(set={"X-Set": "50% END"}, add={"X-Add": "2"}, remove=("X-Gone",))
    back = HeaderChange(set={"X-Back": "a, b"}, add={"X-More": "1"})
    await order(
        place,
        router(
            leg(API, RouteMatch(path_prefix="/api"), prefix_rewrite="/", request_headers=there, response_headers=back),
            leg(API, RouteMatch(path_prefix="/old"), prefix_rewrite="/new"),
            leg(API, RouteMatch(path_exact="/one"), prefix_rewrite="/two"),
            leg(API, RouteMatch(path_prefix="/slow"), request_timeout_s=0.3, num_retries=0),
        ),
    )
    sent = {"X-Gone": "1", "X-Set": "old", "X-Add": "1", "X-Fairlead-Caller": "me"}
    _, _, head = await ask(place, "/api/x?y=1", headers=sent)
    got = dict(api.last_headers)
    for path in ("/api", "/apix", "/old/x", "/old", "/one?q=1"):
        await ask(place, path)
    upwards = [(await ask(place, path))[0] for path in ("/api../x", "/api..", "/api%2e%2E%2fx", "/api.")]
    dotted = (await ask(place, "/api.txt"))[0]
    late = await ask(place, "/slow/x?slow=5")
    _, _, other = await ask(place, "/other", headers=sent)

    assert ["GET /x?y=1", "GET /", "GET /x", "GET /new/x", "GET /new", "GET /two?q=1"] == api.seen[:6]
    assert ("50% END", "2") == (got["x-set"], got["x-add"])
    assert not {"x-gone", "x-fairlead-caller"} & got.keys()
    assert "\r\nx-back: a, b\r\n" in head
    assert "\r\nx-more: 1" in head
    assert "x-back" not in other
    assert "1" == shop.last_headers["x-gone"]
    assert 504 == late[0]
    assert ([400] * 4, 200) == (upwards, dotted)


async def test_a_router_is_no_way_round_intentions_nor_the_destinations_split(place: Balancer):
    """Its destination's own word counts, of the path it is given; where it has none and no route, the service's."""
    await services(place)
    target = await Task("bare", app="/bare").start()
    await place.applied(await place.publish(target.member()))
    nobody = (Source(name="anonymous", action="deny", paths=("/secret",)), Source(name="anonymous"))
    await order(
        place,
        Intentions(service=API, sources=nobody),
        router(
            leg(API, RouteMatch(path_prefix="/api"), prefix_rewrite="/"),
            leg(API, RouteMatch(path_exact="/plain"), prefix_rewrite="/secret"),
            leg("marathon:/bare", RouteMatch(path_prefix="/bare")),
        ),
    )
    open_ = [await who(place, path) for path in ("/api/x", "/api/secret", "/plain", "/bare")]
    closed = Intentions(service=SHOP, sources=(Source(name="anonymous", action="deny"),))
    await order(place, closed, Split(service=API, shares=(Share(service=NEXT, percent=100),)))
    shut = [await who(place, path) for path in ("/", "/bare", "/api/x")]

    assert ["api", "403", "403", "bare"] == open_
    assert ["403", "403", "next"] == shut


async def test_a_caller_with_a_certificate_gets_no_further_by_a_router(short_dir: Path):
    """Over the mesh's port: the destination's intentions are asked about whoever called, by method and path."""
    async with meshed(short_dir) as (lb, mesh):
        await service(lb, "/shop")
        await service(lb, "/api")
        caller, port = await mesh.caller(NEXT), lb.settings.mesh_port
        to_api = leg(API, RouteMatch(path_prefix="/api"), prefix_rewrite="/")
        await order(
            lb,
            router(to_api, leg(API, RouteMatch(path_exact="/x"), prefix_rewrite="/admin")),
            Intentions(service=SHOP, sources=(Source(name=NEXT),)),
            Intentions(service=API, default="deny", sources=(Source(name=NEXT, methods=("GET",), paths=("/items",)),)),
        )
        asked = [
            await caller.ask(port, SHOP), await caller.ask(port, SHOP, "/api/items"),
            await caller.ask(port, SHOP, "/api/items", method="PUT", Content_Length="0"),
            await caller.ask(port, SHOP, "/api/other"), await caller.ask(port, SHOP, "/x"),
        ]  # fmt: skip

    assert [(200, "shop"), (200, "api")] == asked[:2]
    assert [403] * 3 == [status for status, _ in asked[2:]]


async def test_a_destination_that_is_not_there_answers_503_and_is_told(place: Balancer):
    """Rather than what was not meant; it is served once it is there."""
    await services(place)
    await order(place, router(leg("marathon:/late", RouteMatch(path_prefix="/late"))))
    before = await who(place, "/late")
    told = (await place.status())["problems"][SHOP]
    await service(place, "/late", vhosts=("late.example",))

    assert "503" == before
    assert "nothing is known of it" in " ".join(told)
    assert "late" == await who(place, "/late")


async def test_a_router_that_haproxy_or_the_grammar_refuses_leaves_the_last_good_one(place: Balancer):
    """Also a broken record; others are served on, and requests lose nothing while routers are reloaded."""
    shop, api, nxt = await services(place)
    deep = leg(API, RouteMatch(path_prefix="/"), prefix_rewrite="/deep/")
    await order(place, router(deep))
    async with Clients(place.settings.http_port, HOST) as clients:
        await order(place, router(deep, leg(NEXT, RouteMatch(path_exact="/n"))))
        # A class that Python's `re` takes, and PCRE does not.
        await place.registry.commit(
            [
                Put(
                    paths.below(paths.POLICIES, name_of(router())),
                    b'{"kind":"router","service":"marathon:/shop","route":[{"match":{"path_regex":"/[[:x:]]"}}]}',
                )
            ]
        )
        await eventually("it is told", lambda: _told(place, "HAProxy refused it"))
        by_check = await who(place, "/mine")
        await place.registry.commit([Put(paths.below(paths.POLICIES, name_of(router())), b"junk")])
        await eventually("it is told", lambda: _told(place, "its last good one stays"))
        by_reading = await who(place, "/mine")
        await eventually("the good one is kept", lambda: _kept(place))
        await place.stop_daemon()
        await place.start()
        after_restart = await who(place, "/mine")
        await service(place, "/more", vhosts=("more.example",))

    assert ("api", "api", "api") == (by_check, by_reading, after_restart)
    assert await _told(place, "its last good one stays")
    assert (200, "more") == await place.ask("more.example")
    assert [] == clients.failures
    assert not [path for path in api.seen if path.count("/deep/") != 1], "an old worker left its path to the next"
    asked = [one.replace("/deep/", "/") for one in shop.seen + api.seen + nxt.seen if not one.endswith("/mine")]
    assert [] == clients.doubled(asked)


async def _kept(place: Balancer) -> bool:
    return (lb_folder(place.settings) / "good_policies.json").exists()


async def _told(place: Balancer, text: str) -> bool:
    return text in " ".join((await place.status())["problems"].get(SHOP, ()))


async def test_a_subset_of_requests_is_split_further(place: Balancer):
    """Router first, then the destination's shares, as Consul's chain."""
    await services(place)
    await order(
        place,
        router(leg(API, RouteMatch(path_prefix="/often"))),
        Split(service=API, shares=(Share(service=NEXT, percent=50),)),
    )
    found = await ask_often(place.settings.http_port, HOST, 200)

    assert {"api", "next"} == set(found)

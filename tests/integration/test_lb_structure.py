"""Structural changes: checked before they replace anything, reloaded without losing a connection, refused alone."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery import paths
from fairlead_discovery.records import Check
from fairlead_discovery.registry import Delete, Put
from harness.balancer import Balancer, Task, balancer, fetch, route, service
from harness.clients import Clients
from harness.ports import free_port
from harness.servers import require
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    """Without spare backends, so that every new service is a structural change."""
    async with balancer(short_dir, spare_backends=0) as made:
        yield made


async def test_new_services_under_load_lose_and_double_nothing(place: Balancer):
    """Ten services come, each a structural change, while another is under load on its virtual host and its service port."""
    web = await service(place, "/shop/web", vhosts=(HOST,), service_port=place.first_port)
    by_host = Clients(place.settings.http_port, HOST)
    by_port = Clients(place.first_port, "any", count=4, prefix="port-")
    before = (await place.status())["reloads"]
    async with by_host, by_port:
        for number in range(10):
            await service(place, f"/new/n{number}", vhosts=(f"n{number}.example",))

    assert [] == by_host.failures + by_port.failures
    assert [] == by_host.doubled(web.seen) + by_port.doubled(web.seen)
    assert 10 <= (await place.status())["reloads"] - before
    assert [(200, f"new-n{n}") for n in range(10)] == [await place.ask(f"n{n}.example") for n in range(10)]


@pytest.mark.needs("wrk")
async def test_reloads_under_wrk_lose_no_connection(place: Balancer):
    """Sixteen keep-alive connections without a pause, five reloads: no socket error, no answer but 200."""
    await service(place, "/shop/web", vhosts=(HOST,))
    before = (await place.status())["reloads"]
    where = f"http://127.0.0.1:{place.settings.http_port}/"
    load = await asyncio.create_subprocess_exec(
        require("wrk"), "-c16", "-t1", "-d6s", "-H", f"Host: {HOST}", where, stdout=asyncio.subprocess.PIPE
    )
    for number in range(5):
        await service(place, f"/new/n{number}", vhosts=(f"n{number}.example",))
    output = (await load.communicate())[0].decode()

    assert before + 5 == (await place.status())["reloads"]
    assert "requests in" in output
    assert "Socket errors" not in output, output
    assert "Non-2xx" not in output, output


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_old_workers_clients_are_not_sent_to_a_server_that_left(short_dir: Path, address: str):
    """A keep-alive client that was silent over a reload asks the old worker once more: it must know today's servers."""
    async with balancer(short_dir, spare_backends=0, bind=address) as place:
        old = await service(place, "/shop/web", vhosts=(HOST,))
        reader, writer = await asyncio.open_connection(address, place.settings.http_port)
        assert "shop-web" == await ask_on(reader, writer)
        await service(place, "/other", vhosts=("other.example",))
        assert 1 == len((await place.status())["haproxy"]["old_worker_pids"])
        new = await Task("new").start()
        await place.applied(await place.publish(new.member()))
        await place.applied(await place.leave(old.member()))
        await old.stop()

        assert "new" == await ask_on(reader, writer)
        writer.close()


async def ask_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = next(int(x.partition(":")[2]) for x in head.split("\r\n") if x.startswith("content-length:"))
    return (await reader.readexactly(size)).decode()


async def test_a_request_in_an_old_worker_keeps_its_task_busy(place: Balancer):
    """Sessions are counted over all workers, so that nobody is killed under a request."""
    web = await service(place, "/shop/web", vhosts=(HOST,))
    slow = asyncio.create_task(place.ask(HOST, "/?slow=4"))
    await eventually("the slow request runs", lambda: asked(web))
    await service(place, "/other", vhosts=("other.example",))
    progress = await place.applied(await place.leave(web.member()))

    assert ("shop-web",) == progress.busy
    assert (200, "shop-web") == await slow
    await eventually("it is not busy", lambda: idle(place))


async def asked(task: Task) -> bool:
    return bool(task.seen)


async def idle(place: Balancer) -> bool:
    return not (await place.progress()).busy


async def test_paths_end_at_segments_and_the_longest_wins(place: Balancer):
    """`/svc1` is not `/svc10`; host alone takes the rest; wildcards come after exact names."""
    await service(place, "/rest", vhosts=(HOST,))
    await service(place, "/svc1", vhosts=(HOST,), path="/svc1")
    await service(place, "/deep", vhosts=(HOST,), path="/svc1/deep/")
    await service(place, "/wild", vhosts=("*.example",))
    await service(place, "/wilder", vhosts=("*.eu.example",), path="/p")
    asked_for = {
        (HOST, "/"): "rest",
        (HOST, "/svc1"): "svc1",
        (HOST, "/svc1/x?y=/svc1/deep"): "svc1",
        (HOST, "/svc10"): "rest",
        (HOST, "/svc1/deep"): "deep",
        (HOST, "/svc1/deeper"): "svc1",
        ("SHOP.EXAMPLE", "/svc1/deep/er"): "deep",
        ("a.b.example", "/"): "wild",
        ("x.eu.example", "/p/q"): "wilder",
    }

    assert asked_for == {(host, path): (await place.ask(host, path))[1] for host, path in asked_for}
    assert 404 == (await place.ask("x.eu.example", "/other"))[0]
    assert 404 == (await place.ask("example", "/"))[0]


async def test_a_host_is_one_however_it_is_spelled(place: Balancer):
    """Plain or with paths. A request without a path meets nobody: a tunnel would be one that nobody looks into."""
    await service(place, "/rest", vhosts=(HOST,))
    spellings = (HOST, HOST.upper(), f"{HOST}.", f"{HOST}:{place.settings.http_port}")
    plain = {(await place.ask(host, "/svc1/x"))[1] for host in spellings}
    bare = [await _status_of(place, line) for line in (f"CONNECT {HOST}:80", "OPTIONS *")]
    await service(place, "/svc1", vhosts=(HOST,), path="/svc1")
    several = {(await place.ask(host, "/svc1/x"))[1] for host in spellings}

    assert ({"rest"}, {"svc1"}) == (plain, several)
    assert [404, 404] == bare
    assert [404, 404] == [await _status_of(place, line) for line in (f"CONNECT {HOST}:80", "OPTIONS *")]
    assert 200 == await _status_of(place, f"GET http://{HOST}/svc1")


async def _status_of(place: Balancer, line: str) -> int:
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        host = line.partition(" ")[2] if line.startswith("CONNECT") else HOST
        writer.write(f"{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        raw = await reader.read(-1)
        writer.close()
    return int(raw.split()[1])


async def test_apps_of_the_same_flat_name_never_share_a_backend(place: Balancer):
    """`/a.b` and `/a/b`, `/a_b`: one name in HAProxy's alphabet, three services."""
    apps = ("/a_b", "/a/b", "/a.b")
    for number, app in enumerate(apps):
        await service(place, app, vhosts=(f"h{number}.example",))

    answers = [{(await place.ask(f"h{n}.example"))[1] for _ in range(6)} for n in range(3)]
    assert [{"a_b"}, {"a-b"}, {"a.b"}] == answers
    assert 3 == len({s["backend"] for s in (await place.status())["services"]})


async def test_a_route_that_goes_is_gone_and_one_that_moves_moves(place: Balancer):
    """A virtual host taken from one service and given to another needs no reload."""
    await service(place, "/first", vhosts=(HOST,))
    await service(place, "/second", vhosts=("second.example",))
    before = (await place.status())["reloads"]
    moved = [route("/first"), route("/second", vhosts=("second.example", HOST))]
    await place.applied(await place.publish(routes=moved))

    assert (200, "second") == await place.ask(HOST)
    gone = await place.registry.commit([Delete(paths.route("marathon:/second"))])
    await place.applied(gone)
    assert [404, 404] == [(await place.ask(h))[0] for h in (HOST, "second.example")]
    assert before == (await place.status())["reloads"]


@pytest.mark.parametrize(
    "bad",
    [
        {"vhosts": ("evil.example\n    http-request return status 200 string PWNED",)},
        {"vhosts": (HOST,), "path": '/"} use_backend x'},
        {"vhosts": (HOST,), "check": Check(path="/health\r\n    server x 1.2.3.4:80")},
        {"vhosts": (HOST,), "balance": "roundrobin\n    mode tcp"},
        {"vhosts": (HOST,), "timeout_server_s": -1.0},
    ],
)
async def test_a_bad_route_is_refused_alone_and_its_last_good_one_stays(place: Balancer, bad: dict[str, object]):
    """It is named with the reason; others change as if nothing had happened."""
    await service(place, "/shop/web", vhosts=("good.example",))
    await place.applied(await place.publish(routes=[route("/shop/web", **bad)]))
    await service(place, "/other", vhosts=("other.example",))

    assert (200, "shop-web") == await place.ask("good.example")
    assert (200, "other") == await place.ask("other.example")
    refused = (await place.status())["refused"]
    assert {"marathon:/shop/web"} == set(refused)
    assert "last good route stays" in refused["marathon:/shop/web"]
    assert "PWNED" not in (await fetch(place.admin, "/_haproxy_getconfig"))[1]


async def test_a_route_node_that_is_no_json_keeps_the_last_good_one(place: Balancer):
    """Whoever wrote it: the service stays routed, and is named."""
    await service(place, "/shop/web", vhosts=(HOST,))
    path = paths.route("marathon:/shop/web")
    await place.applied(await place.registry.commit([Put(path, b"{not json")]))

    assert (200, "shop-web") == await place.ask(HOST)
    assert any("shop" in key for key in (await place.status())["refused"])


async def test_a_bad_tenant_among_two_hundred_costs_the_others_one_check(short_dir: Path):
    """The whole is checked and refused, the one new fragment alone, the whole without it; the next changes of others
    are checked once each, and the bad one stays named, also to the next `fairlead lb`, which knows its last good route.
    """
    runs = short_dir / "runs"
    async with balancer(short_dir, haproxy=str(picky_haproxy(short_dir)), spare_backends=0) as place:
        apps = [f"/n/{number}" for number in range(200)]
        routes = [route(app, vhosts=(f"n{number}.example",)) for number, app in enumerate(apps)]
        await service(place, "/shop/web", vhosts=(HOST,))
        await place.applied(await place.publish(routes=routes), within_s=30)
        before = checks(runs)
        bad = route("/shop/web", vhosts=(HOST,), balance="leastconn")
        await place.applied(await place.publish(routes=[bad]), within_s=30)
        assert 2 == checks(runs) - before
        for number in range(2):
            await service(place, f"/more/{number}", vhosts=(f"more{number}.example",))

        assert 4 == checks(runs) - before
        assert (200, "shop-web") == await place.ask(HOST)
        assert (
            'fairlead_lb_bad_fragments{service="marathon:/shop/web"} 1.0' in (await fetch(place.admin, "/metrics"))[1]
        )
        await asyncio.sleep(1.1)  # what is on disk is at most a second old
        await place.kill_daemon()
        place.kill_haproxy()
        await place.start()
        await eventually("it is refused again", lambda: refused(place, "leastconn is not for us"), within_s=30)
        assert (200, "shop-web") == await place.ask(HOST)


def checks(runs: Path) -> int:
    return len(runs.read_text().splitlines())


async def refused(place: Balancer, why: str) -> bool:
    return why in (await place.status())["refused"].get("marathon:/shop/web", "")


def picky_haproxy(folder: Path) -> Path:
    """Refuses `balance leastconn`, and notes each check."""
    picky = folder / "haproxy"
    picky.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then echo check >> {folder}/runs; fi\n'
        f'if [ "$1" = -c ] && grep -q "balance leastconn" "$4"; then\n'
        f'  echo "[ALERT] (1) : config : leastconn is not for us" >&2; exit 1\nfi\nexec {require("haproxy")} "$@"\n'
    )
    picky.chmod(picky.stat().st_mode | stat.S_IXUSR)
    return picky


async def test_what_haproxys_own_check_refuses_is_found_and_left_out(short_dir: Path):
    """Its words are shown; the service before stays as it was, one beside it is taken."""
    async with balancer(short_dir, haproxy=str(picky_haproxy(short_dir))) as place:
        await service(place, "/shop/web", vhosts=(HOST,))
        changed = [route("/shop/web", vhosts=(HOST,), balance="leastconn"), route("/new", vhosts=("new.example",))]
        new = await Task("new", app="/new").start()
        await place.applied(await place.publish(new.member(), routes=changed))

        assert [(200, "shop-web"), (200, "new")] == [await place.ask(h) for h in (HOST, "new.example")]
        assert "leastconn is not for us" in (await place.status())["refused"]["marathon:/shop/web"]


async def test_a_service_port_someone_else_holds_is_left_out_named_and_taken_later(place: Balancer):
    """Taken while HAProxy did not hold it; free again, the next reload has it."""
    outside = free_port()
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", outside))
        holder.listen()
        await service(place, "/shop/web", vhosts=(HOST,), service_port=outside)

        assert (200, "shop-web") == await place.ask(HOST)
        assert [str(outside)] == list((await place.status())["taken_ports"])
    await service(place, "/other", vhosts=("other.example",))

    assert {} == (await place.status())["taken_ports"]
    assert (200, "shop-web") == await place.ask(HOST, port=outside)


async def test_a_taken_port_of_the_range_does_not_stop_the_start(short_dir: Path):
    """HAProxy would not start on it, though its check says valid."""
    first = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", first))
        holder.listen()
        async with balancer(short_dir, service_ports=f"{first}-{first}") as place:
            await service(place, "/shop/web", vhosts=(HOST,), service_port=first)

            assert (200, "shop-web") == await place.ask(HOST)
            assert [str(first)] == list((await place.status())["taken_ports"])


async def test_a_busy_http_port_is_named_with_its_option(short_dir: Path):
    """HAProxy could not do without it."""
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        place = Balancer(short_dir, http_port=port)
        with pytest.raises(BadSettings, match=f"http_port: cannot listen on 127.0.0.1:{port}"):
            async with place:
                await place.start()


async def test_a_missing_haproxy_is_named_with_its_package(short_dir: Path):
    """So that `fairlead up` can say what is off and how to get it."""
    with pytest.raises(BadSettings, match="apt-get install haproxy"):
        async with Balancer(short_dir, haproxy="haproxy-that-is-not-there") as place:
            await place.start()


async def test_two_services_that_want_one_port_or_host_are_told(place: Balancer):
    """Who has it keeps it; the other is served by what is its own."""
    await service(place, "/first", vhosts=(HOST,), service_port=place.first_port)
    await service(place, "/a/later", vhosts=(HOST, "later.example"), service_port=place.first_port)

    assert (200, "first") == await place.ask(HOST)
    assert (200, "first") == await place.ask("any", port=place.first_port)
    assert (200, "a-later") == await place.ask("later.example")
    assert f"{HOST} belongs to marathon:/first" in (await place.status())["refused"]["marathon:/a/later"]


async def test_reloads_are_rare_however_fast_services_come(place: Balancer):
    """Ten services in a row: fewer reloads than services, and all of them routed."""
    tasks = [await Task(f"n{n}", app=f"/n{n}").start() for n in range(10)]
    before = (await place.status())["reloads"]
    revisions = [await place.publish(t.member(), routes=[route(t.app, vhosts=(f"{t.id}.example",))]) for t in tasks]
    await place.applied(max(revisions))

    assert [(200, t.id) for t in tasks] == [await place.ask(f"{t.id}.example") for t in tasks]
    assert (await place.status())["reloads"] - before <= 4


async def test_marathon_lbs_pages_answer(place: Balancer):
    """Config, maps, pids, statistics and health under their old names."""
    await service(place, "/shop/web", vhosts=(HOST,), service_port=place.first_port)
    pages = ("health_check", "getconfig", "getvhostmap", "getappmap", "getpids")
    found = {name: (await fetch(place.admin, f"/_haproxy_{name}"))[1] for name in pages}
    backend = f"shop_web_{place.first_port}"

    assert "OK" == found["health_check"]
    assert f"backend {backend}" in found["getconfig"]
    assert f"{HOST} {backend}\n" == found["getvhostmap"]
    assert f"/shop/web {backend}\n" == found["getappmap"]
    assert [(await place.status())["haproxy"]["worker_pid"]] == [int(x) for x in found["getpids"].split()]
    assert f"\n{backend},127_0_0_1_" in (await fetch(place.admin, "/haproxy?stats;csv"))[1]
    assert f"\n{backend},s1," in (await fetch(place.admin, "/haproxy?stats;csv;raw"))[1]
    assert "fairlead_lb_applied_revision" in (await fetch(place.admin, "/metrics"))[1]


async def test_labels_that_are_raw_haproxy_are_told_and_refuse_nothing(place: Balancer):
    """The service is served by the rest of what it asks for."""
    await service(place, "/shop/web", vhosts=(HOST,))
    raw = msgspec.structs.replace(route("/shop/web", vhosts=(HOST,)), not_taken=("HAPROXY_0_BIND_ADDR",))
    await place.applied(await place.publish(routes=[raw]))
    status = await place.status("summary=1")

    assert {"marathon:/shop/web": ["HAPROXY_0_BIND_ADDR: not taken: raw HAProxy"]} == status["problems"]
    assert {} == status["refused"]
    assert (200, "shop-web") == await place.ask(HOST)


async def test_status_tells_no_more_than_is_asked_for(place: Balancer):
    """All as last read, one service as HAProxy says now, or no service at all: there may be thousands."""
    await service(place, "/shop/web", vhosts=(HOST,))
    await service(place, "/other", vhosts=("other.example",))
    every, one, none = [await place.status(q) for q in ("", "service=marathon:/other&fresh=1", "summary=1")]

    assert ["marathon:/other", "marathon:/shop/web"] == [s["service"] for s in every["services"]]
    assert [s for s in every["services"] if s["service"] == "marathon:/other"] == one["services"]
    assert [("other", "ready")] == [(s["task"], s["state"]) for s in one["services"][0]["servers"]]
    assert every.keys() - none.keys() == {"services", "splits"}
    assert none["applied_revision"] == one["applied_revision"]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_reserved_and_low_ports_are_never_bound(short_dir: Path):
    """An agent that died comes back to its port: no service may have taken it meanwhile."""
    reserved = free_port()
    async with balancer(short_dir, reserved_ports=f"{reserved}") as place:
        await service(place, "/greedy", vhosts=(HOST,), service_port=reserved)
        await service(place, "/low", vhosts=("low.example",), service_port=1022)
        status = await place.status()

        assert (200, "greedy") == await place.ask(HOST)
        assert [False, False] == [listens(reserved), listens(1022)]
        expected = [f"service port {reserved} is reserved for others (reserved_ports)"]
        assert expected == status["problems"]["marathon:/greedy"]
        assert ["service port 1022 is below 1024 (allow_low_ports)"] == status["problems"]["marathon:/low"]


async def test_a_port_that_is_reserved_later_is_given_up(short_dir: Path):
    """An adopted HAProxy holds it from before the setting."""
    port = free_port()
    async with balancer(short_dir) as place:
        await service(place, "/greedy", vhosts=(HOST,), service_port=port)
        assert listens(port)
        await place.stop_daemon()
        place.settings = msgspec.structs.replace(place.settings, reserved_ports=str(port))
        await place.start()

        await eventually("the port is given up", lambda: _as_probe(not listens(port)), within_s=10)
        assert (200, "greedy") == await place.ask(HOST)


async def test_a_removed_services_port_and_backend_go(place: Balancer):
    """Not at some later reload: somebody else may want the port. Those that stay lose nothing."""
    port = free_port()
    gone = await service(place, "/gone", vhosts=("gone.example",), service_port=port)
    await service(place, "/stays", vhosts=(HOST,))
    deleted = Delete(paths.route("marathon:/gone"))
    await place.applied(await place.registry.commit([deleted]))
    await place.applied(await place.leave(gone.member()))
    assert listens(port)

    async with Clients(place.settings.http_port, HOST) as clients:
        await eventually("the port is free", lambda: _as_probe(not listens(port)), within_s=15)
    assert [] == clients.failures
    assert ["marathon:/stays"] == [s["service"] for s in (await place.status())["services"]]


async def test_a_taken_port_is_forgotten_with_its_service(place: Balancer):
    """What nobody asks for is no problem of anybody."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        await service(place, "/asks", vhosts=(HOST,), service_port=port)
        status = await place.status()
        assert [str(port)] == list(status["taken_ports"])
        told = status["problems"]["marathon:/asks"]
        assert [f"service port {port} is held by another process: address already in use"] == told

        await place.applied(await place.publish(routes=[route("/asks", vhosts=(HOST,))]))
        status = await place.status()
        assert ({}, {}) == (status["taken_ports"], status["problems"])


async def _as_probe(found: bool) -> bool:
    return found

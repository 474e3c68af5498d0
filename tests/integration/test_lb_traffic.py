"""Traffic rules on a real HAProxy: who comes in, how much, what is repeated, set aside, slowed down and rewritten."""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_discovery.policies import Intentions, Source, path_of
from fairlead_discovery.records import Abort, Check, Delay, Rate, Traffic, encode
from fairlead_discovery.registry import Put
from harness.balancer import Balancer, Task, balancer, fetch, member, route, service
from harness.certificates import self_signed
from harness.grpc_like import TRAILERS, H2Server, call
from harness.ports import free_port
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
JOE = "shop:joe:$5$rounds=1000$fairlead$FvBYsSrHKZqtzoCZUg1/m1IJX2G9uXOrrG5sc9MERW9"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=1) as made:
        yield made


async def ask(place: Balancer, path: str = "/", *, method: str = "GET", **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{text}Connection: close\r\n\r\n".encode())
        raw = (await reader.read(-1)).decode()
        writer.close()
    first, *lines = raw.partition("\r\n\r\n")[0].split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}


async def statuses(place: Balancer, count: int, path: str = "/", **headers: str) -> list[int]:
    return [(await ask(place, path, **headers))[0] for _ in range(count)]


async def ruled(place: Balancer, traffic: Traffic, **port: Any) -> None:
    """The service's rules, once they are served."""
    await place.applied(await place.publish(routes=[route(vhosts=(HOST,), traffic=traffic, **port)]))


async def reloads(place: Balancer) -> int:
    return int((await place.status())["reloads"])


async def test_networks_and_credentials_decide_who_comes_in(place: Balancer):
    """403 for others' networks, 401 without credentials; the right ones pass."""
    await service(place, "/shop/web", vhosts=(HOST,), traffic=Traffic(allow=("10.0.0.0/8",)))
    assert [403] == await statuses(place, 1)

    await ruled(place, Traffic(allow=("127.0.0.0/8",), deny=("127.0.0.1/32",)))
    assert [403] == await statuses(place, 1)

    realm, _, user = JOE.partition(":")
    await ruled(place, Traffic(allow=("127.0.0.0/8",), realm=realm, users=(user,)))
    status, headers = await ask(place)
    assert (401, 'Basic realm="shop"') == (status, headers["www-authenticate"])
    wrong, right = (base64.b64encode(f"joe:{word}".encode()).decode() for word in ("guess", "secret"))
    assert [401] == await statuses(place, 1, authorization=f"Basic {wrong}")
    assert [200] == await statuses(place, 1, authorization=f"Basic {right}")


async def test_a_rate_lets_so_many_pass_and_no_more(place: Balancer):
    """429 with Retry-After for the rest, of all clients and of each; another number needs no reload."""
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=Traffic(rate=Rate(count=5, per_s=60)))
    found = await statuses(place, 8)

    assert ([200] * 5 + [429] * 3, 5) == (found, len(task.seen))
    assert "60" == (await ask(place))[1]["retry-after"]
    before = await reloads(place)
    await ruled(place, Traffic(rate=Rate(count=7, per_s=60)))
    assert [200, 200, 429] == await statuses(place, 3)
    assert before == await reloads(place)

    await ruled(place, Traffic(client_rate=Rate(count=2, per_s=60)))
    assert [200, 200, 429] == await statuses(place, 3)


async def test_requests_wait_for_a_server_that_has_enough(place: Balancer):
    """At most one at a time; who waits longer than the queue's time gets 503, and the server never sees it."""
    traffic = Traffic(server_connections=1, queue_timeout_s=0.3)
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=traffic)
    slow = asyncio.create_task(ask(place, "/?slow=2"))
    await eventually("the first is in", lambda: waiting(task))
    assert [503] == await statuses(place, 1)
    assert 200 == (await slow)[0]

    assert ["GET /?slow=2"] == task.seen


async def waiting(task: Task) -> bool:
    return bool(task.seen)


async def test_only_what_may_be_repeated_is_repeated_after_an_error(place: Balancer):
    """`retry_on` 503: a GET goes to the server four times, a POST once."""
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=Traffic(retry_on=("503",), retries=3))
    got, posted = await ask(place, "/?status=503"), await ask(place, "/post?status=503", method="POST")

    assert (503, 503) == (got[0], posted[0])
    assert {"GET /?status=503": 4, "POST /post?status=503": 1} == {one: task.seen.count(one) for one in task.seen}


async def test_servers_with_errors_in_a_row_are_set_aside_but_never_too_many(place: Balancer):
    """The good one serves alone; the bad one comes back. When all are bad, half of them go on: not 503 for everybody."""
    rules = Traffic(eject_after=3, eject_s=1)
    good = await service(place, "/shop/web", vhosts=(HOST,), traffic=rules)
    bad = await Task("bad").start()
    bad.status = 500
    await place.applied(await place.publish(bad.member()))
    await eventually("the bad one is put aside", lambda: _seen(place, {"bad": "aside", good.id: "ready"}))
    assert {200} == set(await statuses(place, 4))
    bad.status = 200
    await eventually("it is back", lambda: _seen(place, {"bad": "ready", good.id: "ready"}))

    good.status = bad.status = 500
    await eventually("one is put aside", lambda: _count(place, "aside"))
    assert {500} == set(await statuses(place, 4))
    assert ["aside", "ready"] == sorted((await place.servers()).values())


async def _seen(place: Balancer, states: dict[str, str]) -> bool:
    await ask(place)
    return await place.servers() == states


async def _count(place: Balancer, state: str) -> bool:
    await ask(place)
    return state in (await place.servers()).values()


async def test_a_spent_budget_ends_repeating(place: Balancer):
    """A service that fails whole is not asked four times for each request any more; when it is well, retries return."""
    rules = Traffic(retry_on=("503",), retry_budget_percent=10)
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=rules)
    before = await reloads(place)

    async def asked_once(path: str) -> bool:
        count = len(task.seen)
        await ask(place, path)
        return len(task.seen) == count + 1

    assert not await asked_once("/?status=503")
    await eventually("the budget is spent", lambda: asked_once("/?status=503"))

    async def asked_again() -> bool:
        await statuses(place, 20)
        return not await asked_once("/?status=503")

    await eventually("it is not spent any more", asked_again)
    assert before == await reloads(place)


async def test_faults_strike_the_share_they_are_told_to(place: Balancer):
    """All, then none, without a reload; a delay lasts, and what is not delayed does not wait."""
    faults = Traffic(abort=Abort(percent=100, status=502), delay=Delay(percent=0.01, delay_s=0.5))
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=faults)
    before = await reloads(place)
    assert [502] * 5 == await statuses(place, 5)
    assert [] == task.seen

    slower = Traffic(abort=Abort(percent=0.01, status=502), delay=Delay(percent=100, delay_s=0.5))
    await ruled(place, slower)
    began = time.monotonic()
    assert {200, 502} >= set(await statuses(place, 2))
    assert time.monotonic() - began >= 0.5
    assert before == await reloads(place)


async def test_a_clients_deadline_shortens_the_servers_time(place: Balancer):
    """In either form; a longer one, or none that can be read, changes nothing."""
    rules: dict[str, Any] = {"traffic": Traffic(deadlines=True), "timeout_server_s": 8.0}
    await service(place, "/shop/web", vhosts=(HOST,), **rules)

    async def found(path: str, **headers: str) -> int:
        return (await ask(place, path, **headers))[0]

    assert 504 == await found("/?slow=0.7", X_Request_Timeout="150")
    assert 504 == await found("/?slow=0.7", grpc_timeout="150m")
    assert 504 == await found("/?slow=3", grpc_timeout="1S")
    assert 200 == await found("/?slow=0.3", X_Request_Timeout="90000")
    assert 200 == await found("/?slow=0.3", X_Request_Timeout="0")
    assert 200 == await found("/?slow=0.3", X_Request_Timeout="1; 2")


async def test_paths_are_stripped_and_put_back(place: Balancer):
    """Segments as they are; a redirect leads to the path that clients know."""
    traffic = Traffic(strip_path="/svc1", location_prefix="/svc1")
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=traffic)
    for path in ("/svc1", "/svc1/", "/svc1/x?y=1", "/svc10/x", "/svc1/svc1"):
        assert [200] == await statuses(place, 1, path)
    _, headers = await ask(place, "/svc1/?status=302&moved=/login")
    _, itself = await ask(place, f"/svc1/?status=302&moved=http://127.0.0.1:{task.port}/a")

    assert ["/", "/", "/x?y=1", "/svc10/x", "/svc1"] == [line.partition(" ")[2] for line in task.seen[:5]]
    assert ("/svc1/login", "/svc1/a") == (headers["location"], itself["location"])


async def test_plain_requests_are_led_to_https(short_dir: Path):
    """Keeping host and path, 301 for GET and 308 for POST; behind a proxy that did TLS they pass, with HSTS."""
    both = [path.read_text() for path in self_signed(short_dir, HOST)]
    (short_dir / "default.pem").write_text("".join(both))
    tls = {"certificate": str(short_dir / "default.pem"), "https_port": free_port()}
    async with balancer(short_dir, spare_backends=0, **tls) as place:
        await service(place, "/shop/web", vhosts=(HOST,), traffic=Traffic(https_only=True, hsts=True))
        got, posted = await ask(place, "/a?b=1"), await ask(place, "/a?b=1", method="POST")
        where = f"https://{HOST}:{place.settings.https_port}/a?b=1"
        assert ((301, where), (308, where)) == ((got[0], got[1]["location"]), (posted[0], posted[1]["location"]))

        status, headers = await ask(place, X_Forwarded_Proto="https")
        assert (200, "max-age=15768000") == (status, headers["strict-transport-security"])


async def test_grpc_passes_whole(place: Balancer):
    """HTTP/2 in clear to the balancer and on to the server, by host and by port, trailers and all."""
    server = await H2Server().start()
    try:
        rules: dict[str, Any] = {"traffic": Traffic(protocol="h2"), "service_port": place.first_port}
        one = member("grpc", server.port)
        await place.applied(await place.publish(one, routes=[route(vhosts=(HOST,), **rules)]))
        for port in (place.settings.http_port, place.first_port):
            headers, body, trailers = await call(port, HOST, b"add a sail")
            assert ("200", b"ADD A SAIL", dict(TRAILERS)) == (headers[":status"], body, trailers)
    finally:
        await server.stop()


async def test_websockets_pass(place: Balancer):
    """After the upgrade bytes go both ways."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"upgrade: websocket" in head.lower():
            upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            writer.write(upgrade + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
            while data := await reader.read(100):
                writer.write(data[::-1])
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await place.applied(await place.publish(member("ws", port), routes=[route(vhosts=(HOST,))]))
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        asked = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        writer.write(f"GET /chat HTTP/1.1\r\nHost: {HOST}\r\n{asked}Sec-WebSocket-Version: 13\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"olleh")
        answer = await reader.readexactly(5)
    writer.close()
    server.close()

    assert (b"HTTP/1.1 101", b"hello") == (head[:12], answer)


async def test_groups_say_which_balancer_serves_a_port(short_dir: Path):
    """As marathon-lb's --group: those of its group and of `*`, not others', nor those of none."""
    async with balancer(short_dir, spare_backends=4, groups="external") as place:
        task = await Task("web").start()
        for app, groups in (("/in", ("external", "x")), ("/out", ("internal",)), ("/none", ()), ("/any", ("*",))):
            one = route(app, vhosts=(f"{app[1:]}.example",), groups=groups)
            await place.publish(member(f"t{app[1:]}", task.port, app=app), routes=[one])
        await place.applied(await place.publish())
        found = {app: (await place.ask(f"{app}.example"))[0] for app in ("in", "out", "none", "any")}

    assert {"in": 200, "out": 404, "none": 404, "any": 200} == found


async def test_rules_hold_for_tcp_where_they_can(place: Balancer):
    """Networks are looked at before a byte goes to the server."""
    task = await Task("tcp").start()
    rules: dict[str, Any] = {"mode": "tcp", "service_port": place.first_port, "check": Check()}
    denied = route(traffic=Traffic(allow=("10.0.0.0/8",)), **rules)
    await place.applied(await place.publish(task.member(), routes=[denied]))
    with pytest.raises(OSError, match="cut answer"):
        await place.ask(port=place.first_port)

    await place.applied(await place.publish(routes=[route(traffic=Traffic(allow=("127.0.0.0/8",)), **rules)]))
    assert (200, "tcp") == await place.ask(port=place.first_port)


async def test_tls_is_passed_on_by_the_name_that_clients_ask_for(short_dir: Path):
    """The service's own certificate comes back; other names end their TLS at the balancer, as ever; no reload."""
    for name in ("own", "edge"):
        (short_dir / name).mkdir()
    own, edge = self_signed(short_dir / "own", "db.example"), self_signed(short_dir / "edge", HOST)
    (short_dir / "default.pem").write_text("".join(path.read_text() for path in edge))
    keys = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    keys.load_cert_chain(*own)
    server = await asyncio.start_server(_say_hello, "127.0.0.1", 0, ssl=keys)
    behind = server.sockets[0].getsockname()[1]
    tls = {"certificate": str(short_dir / "default.pem"), "https_port": free_port(), "tls_passthrough": True}
    async with balancer(short_dir, spare_backends=2, **tls) as place:
        await service(place, "/shop/web", vhosts=(HOST,))
        one = route("/db", mode="tls", vhosts=("db.example", "*.db.example"))
        await place.applied(await place.publish(member("db", behind, app="/db"), routes=[one]))
        found = {name: await _certificate(place, name, short_dir) for name in ("db.example", "a.b.db.example", HOST)}
        assert found == {"db.example": b"hello", "a.b.db.example": b"hello", HOST: b"HTTP/1.1 200"}
        assert 0 == await reloads(place)

        with pytest.raises(OSError, match=r"."):  # no TLS at all
            await place.ask(port=place.settings.https_port)
    server.close()


async def _say_hello(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


async def _certificate(place: Balancer, name: str, folder: Path) -> bytes:
    """The first bytes that come by TLS for the name, after a request; the certificate must be its owner's."""
    context = ssl.create_default_context(cafile=str(folder / ("edge" if name == HOST else "own") / "cert.pem"))
    expected = HOST if name == HOST else "db.example"
    context.check_hostname = False
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", place.settings.https_port, ssl=context, server_hostname=name
        )
        subject = dict(pair for part in writer.get_extra_info("peercert")["subject"] for pair in part)
        assert expected == subject["commonName"]
        writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        data: bytes = await reader.read(12)
        writer.close()
    return data


async def test_a_service_whose_tls_cannot_be_passed_on_is_told(place: Balancer):
    """Its route is named with the setting; nothing else suffers."""
    await service(place, "/shop/web", vhosts=(HOST,))
    await place.publish(member("db", 9, app="/db"), routes=[route("/db", mode="tls", vhosts=("db.example",))])
    await place.applied(await place.publish())

    problems = (await place.status())["problems"]
    assert {"marathon:/db": ["mode tls: this balancer does not pass on TLS (setting tls_passthrough)"]} == problems
    assert [200] == await statuses(place, 1)


async def test_a_sticky_client_stays_with_its_server_over_a_reload_and_at_another_balancer(short_dir: Path):
    """The service moves from a spare to a backend of its own name, and its cookie still says the same."""
    own: dict[str, Any] = {"spare_backends": 2, "rollout": "together"}
    async with balancer(short_dir / "a", **own) as one, balancer(short_dir / "b", one.url, id="b", **own) as other:
        await service(one, "/shop/web", vhosts=(HOST,), sticky=True)
        more = [await Task(f"t{n}").start() for n in range(4)]
        last = await one.publish(*(task.member() for task in more))
        await one.applied(last)
        cookie = await _cookie(one)
        asked = {await _by_cookie(one, cookie) for _ in range(4)}
        await service(one, "/other", vhosts=("other.example",), traffic=Traffic(retries=1))  # no spare of its kind
        assert await reloads(one) >= 1
        await eventually("the other balancer serves them all", lambda: _ready(other, 5))

        assert 1 == len(asked)
        assert asked == {await _by_cookie(one, cookie)} == {await _by_cookie(other, cookie)}


async def _ready(place: Balancer, count: int) -> bool:
    return list((await place.servers()).values()) == ["ready"] * count


async def _cookie(place: Balancer) -> str:
    return (await ask(place))[1]["set-cookie"].partition(";")[0]


async def _by_cookie(place: Balancer, cookie: str) -> str:
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n".encode())
        raw = (await reader.read(-1)).decode()
        writer.close()
    return raw.partition("\r\n\r\n")[2]


async def test_no_path_walks_around_a_rule(place: Balancer):
    """A stray percent sign, a stripped prefix, an upgrade to HTTP/2: what is denied below /admin stays so."""
    rules = Traffic(strip_path="/svc1")
    task = await service(place, "/shop/web", vhosts=(HOST,), traffic=rules)
    nobody = Source(name="anonymous", action="deny", paths=("/admin",))
    who = Intentions(service="marathon:/shop/web", default="allow", sources=(nobody,))
    await place.applied(await place.registry.commit([Put(path_of(who), encode(who))]))
    around = (
        "/admin",
        "/admin/x",
        "/%61dmin/%zz",
        "/admin/%",
        "/admin/x%2",
        "/svc1/admin",
        "/svc1//admin",
        "/x/../admin",
    )

    assert {403} == {(await ask(place, path))[0] for path in around}
    assert [] == task.seen
    assert [200, 200] == [(await ask(place, path))[0] for path in ("/x", "/svc1/%61dministrator")]
    h2c = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"}
    assert 200 == (await ask(place, "/plain", **h2c))[0]
    assert not {"upgrade", "http2-settings"} & task.last_headers.keys()


async def test_only_the_balancer_says_who_calls(place: Balancer):
    """However a client spells it."""
    task = await service(place, "/shop/web", vhosts=(HOST,))
    for name in ("X-Fairlead-Caller", "X_Fairlead_Caller", "x-fairlead_caller"):
        assert 200 == (await exchanged(place, f"{name}: marathon:/root\r\n"))
        assert not {name.lower(), "x-fairlead-caller"} & task.last_headers.keys()


@pytest.mark.parametrize("host", ["a.example,shop.example", "shop.example/admin", "*", "shop.example~"])
async def test_what_is_no_host_name_is_no_host(place: Balancer, host: str):
    """It could meet another's route."""
    await service(place, "/shop/web", vhosts=(HOST,))

    status, text = await place.ask(host)

    assert 400 == status
    assert "this is no host name\n" == text or "Your browser sent an invalid request." in text, "3.2 refuses it itself"


async def test_the_configuration_is_shown_without_hashes_of_passwords(place: Balancer):
    """The page of marathon-lb's that shows it is open to everybody."""
    realm, _, user = JOE.partition(":")
    await service(place, "/shop/web", vhosts=(HOST,), traffic=Traffic(realm=realm, users=(user,)))
    status, text = await fetch(place.admin, "/_haproxy_getconfig")

    assert 200 == status
    assert "user joe password ***" in text
    assert "$5$" not in text


async def exchanged(place: Balancer, lines: str) -> int:
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n{lines}Connection: close\r\n\r\n".encode())
        raw = await reader.read(-1)
        writer.close()
    return int(raw.split()[1])

"""What traffic rules promise, kept to the letter by a real HAProxy: one balancer, each test a service of its own."""

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fairlead_discovery import paths
from fairlead_discovery.policies import Share, Split, path_of
from fairlead_discovery.records import Rate, Traffic, encode
from fairlead_discovery.registry import Delete, Put
from harness.balancer import Balancer, Task, balancer, member, route, service
from harness.certificates import self_signed
from harness.ports import free_port
from harness.waiting import eventually

pytestmark = [pytest.mark.needs("haproxy", "openssl"), pytest.mark.asyncio(loop_scope="module")]


STRANGER = "127.0.0.9"
"""An address that HAProxy is not asked from by anything of its own machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Balancer]:
    with tempfile.TemporaryDirectory(prefix="fl", dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "default.pem").write_text("".join(path.read_text() for path in self_signed(folder, "any.example")))
        tls = {"certificate": str(folder / "default.pem"), "https_port": free_port()}
        async with balancer(folder, spare_backends=1, trusted_proxies=("127.0.0.32/28",), **tls) as one:
            yield one


async def ask(
    place: Balancer, host: str, path: str = "/", *, tls: bool = False, source: str = "127.0.0.1", **headers: str
) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    port = place.settings.https_port if tls else place.settings.http_port
    context = ssl.create_default_context() if tls else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, local_addr=(source, 0))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{text}Connection: close\r\n\r\n".encode())
        raw = (await reader.read(-1)).decode()
        writer.close()
    first, *lines = raw.partition("\r\n\r\n")[0].split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}


class PartlyFailing(Task):
    """Of ten answers nine are errors."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.status = 200 if len(self.seen) % 10 == 0 else 500
        return await super()._answer(reader, writer)


async def test_a_server_that_fails_most_requests_is_put_aside_for_all_its_good_answers(place: Balancer) -> None:
    """Nine of ten are errors, never many in a row by chance of a look: the share of them puts it aside."""
    rules = Traffic(eject_after=1000, eject_s=60)
    good = await service(place, "/partly", vhosts=("partly.example",), traffic=rules)
    bad = await PartlyFailing("partly-bad", app="/partly").start()
    await place.applied(await place.publish(bad.member()))

    async def put_aside() -> bool:
        await asyncio.gather(*(place.ask("partly.example") for _ in range(10)))
        return await place.servers("marathon:/partly") == {bad.id: "aside", good.id: "ready"}

    await eventually("the failing one is put aside", put_aside, within_s=30)
    before = len(bad.seen)
    assert {200} == {(await place.ask("partly.example"))[0] for _ in range(10)}
    assert before == len(bad.seen)


async def test_only_redirects_to_the_service_itself_get_its_prefix(place: Balancer) -> None:
    """Paths, the host that was asked, the server's own address; wherever else one leads, it leads there unchanged."""
    task = await service(place, "/moved", vhosts=("moved.example",), traffic=Traffic(location_prefix="/svc1"))
    own = {
        "/": "/svc1/",
        "/x?y=//z": "/svc1/x?y=//z",
        "https://moved.example/x": "https://moved.example/svc1/x",
        "http://Moved.example:80/x": "http://Moved.example:80/svc1/x",
        "https://moved.example": "https://moved.example/svc1",
        f"http://127.0.0.1:{task.port}/x": "/svc1/x",
    }
    others = (
        "https://login.example/auth",
        "//cdn.example/y",
        "///cdn.example/y",
        "https://moved.example.evil.example/x",
        "https://moved.example@evil.example/x",
        "https://moved.example:8443/x",
        f"http://127.0.0.1:{task.port + 1}/x",
        "http://moved.example?next=/x",
        "x/y",
        "mailto:joe@moved.example",
    )
    asks = {to: await ask(place, "moved.example", f"/?status=302&moved={to}") for to in (*own, *others)}

    assert {**own, **{to: to for to in others}} == {to: headers["location"] for to, (_, headers) in asks.items()}


async def test_a_deadline_is_for_all_attempts_together(place: Balancer) -> None:
    """One that is over is not tried again, whatever may be repeated; without a deadline it is."""
    rules = Traffic(deadlines=True, retry_on=("response-timeout", "503"), retries=3)
    task = await service(place, "/late", vhosts=("late.example",), traffic=rules, timeout_server_s=30)
    began = asyncio.get_running_loop().time()
    late, _ = await ask(place, "late.example", "/?slow=12", X_Request_Timeout="2500")
    took_s = asyncio.get_running_loop().time() - began
    busy, _ = await ask(place, "late.example", "/busy?status=503", grpc_timeout="90S")
    await ask(place, "late.example", "/free?status=503")
    await ask(place, "late.example", "/far?status=503", grpc_timeout="1H")

    assert (504, 503) == (late, busy)
    assert 2.4 < took_s < 9, "four attempts would take ten"
    assert [1, 1, 4, 4] == [sum(path in one for one in task.seen) for path in ("slow", "/busy", "/free", "/far")]


async def test_deadlines_of_grpc_are_read_in_their_units(place: Balancer) -> None:
    """All six, up to eight digits; less than a millisecond is one, and what gRPC does not allow is none."""
    await service(place, "/units", vhosts=("units.example",), traffic=Traffic(deadlines=True))
    soon = ("99999999n", "1n", "150000u", "999u", "00000150m", "00000001S")
    far = ("1M", "1H", "99999999H", "30S", "30000000u", "0m", "123456789n", "5", "5s", "5ms", "-1S", "1S 2")
    async with asyncio.TaskGroup() as group:
        late = [group.create_task(ask(place, "units.example", "/?slow=5", grpc_timeout=one)) for one in soon]
        timely = [group.create_task(ask(place, "units.example", "/?slow=1.2", grpc_timeout=one)) for one in far]

    assert dict.fromkeys(soon, 504) == {one: task.result()[0] for one, task in zip(soon, late, strict=True)}
    assert dict.fromkeys(far, 200) == {one: task.result()[0] for one, task in zip(far, timely, strict=True)}


async def test_only_known_proxies_say_that_a_request_came_by_tls(place: Balancer) -> None:
    """Those of this machine and of `trusted_proxies`; of others, however they spell it, the server hears nothing."""
    task = await service(place, "/secure", vhosts=("secure.example",), traffic=Traffic(https_only=True))
    open_task = await service(place, "/plain", vhosts=("plain.example",))
    passed = {
        source: (await ask(place, "secure.example", source=source, X_Forwarded_Proto="https"))[0]
        for source in ("127.0.0.1", "127.0.0.40", STRANGER)
    }
    assert {"127.0.0.1": 200, "127.0.0.40": 200, STRANGER: 301} == passed
    assert "https" == task.last_headers["x-forwarded-proto"]

    await ask(place, "plain.example", source=STRANGER, X_Forwarded_Proto="https")
    assert "x-forwarded-proto" not in open_task.last_headers
    for name in ("X_Forwarded_Proto", "x-forwarded_proto", "X-Forwarded-Proto"):
        await exchanged(place, f"{name}: https\r\n")
        assert not {"x_forwarded_proto", "x-forwarded_proto", "x-forwarded-proto"} & open_task.last_headers.keys()
    assert 200 == (await ask(place, "secure.example", tls=True, source=STRANGER, X_Forwarded_Proto="http"))[0]
    assert "https" == task.last_headers["x-forwarded-proto"]


async def exchanged(place: Balancer, lines: str) -> None:
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port, local_addr=(STRANGER, 0))
        writer.write(f"GET / HTTP/1.1\r\nHost: plain.example\r\n{lines}Connection: close\r\n\r\n".encode())
        await reader.read(-1)
        writer.close()


async def test_cookies_given_over_tls_never_leave_it(place: Balancer) -> None:
    """`Secure`, also behind a proxy that ends TLS; over plain HTTP they would be lost by it."""
    await service(place, "/stuck", vhosts=("stuck.example",), sticky=True)
    await service(place, "/shared", vhosts=("shared.example",))
    await service(place, "/half", vhosts=("half.example",))
    share = Split(service="marathon:/shared", shares=(Share(service="marathon:/half", percent=50),), sticky="cookie")
    await place.applied(await place.registry.commit([Put(path_of(share), encode(share))]))
    found = {
        host: [
            "; Secure" in (await ask(place, host, **how))[1]["set-cookie"]
            for how in ({"tls": True}, {"X_Forwarded_Proto": "https"}, {})
        ]
        for host in ("stuck.example", "shared.example")
    }

    assert {"stuck.example": [True, True, False], "shared.example": [True, True, False]} == found


async def test_connections_of_tcp_have_a_rate_too(place: Balancer) -> None:
    """Of all clients, and of each; the rest is closed before a byte goes to a server. Another number needs no reload."""
    port = place.first_port + 1
    task = await Task("tcp", app="/tcp").start()
    rules: dict[str, Any] = {"mode": "tcp", "service_port": port}

    async def limited(traffic: Traffic) -> int:
        one = route("/tcp", traffic=traffic, **rules)
        await place.applied(await place.publish(task.member(), routes=[one]))
        return int((await place.status())["reloads"])

    async def passed(source: str) -> bool:
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            writer.write(b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                return bool(await reader.read(-1))
        return False

    reloads = await limited(Traffic(client_rate=Rate(count=2, per_s=60)))
    assert [True, True, False] == [await passed("127.0.0.1") for _ in range(3)]
    assert [True, True, False] == [await passed(STRANGER) for _ in range(3)]
    assert reloads == await limited(Traffic(client_rate=Rate(count=3, per_s=60)))
    assert [True, False] == [await passed(STRANGER) for _ in range(2)]

    await limited(Traffic(rate=Rate(count=3, per_s=60)))
    assert [True, True, True, False] == [await passed(source) for source in ("127.0.0.1", STRANGER) * 2]
    assert 8 == len(task.seen)


async def test_a_server_of_weight_nothing_is_asked_nothing(place: Balancer) -> None:
    """It stands ready, and gets requests when its weight says so again."""
    good = await service(place, "/weighed", vhosts=("weighed.example",))
    idle = await Task("weighed-idle", app="/weighed").start()
    without = member(idle.id, idle.port, app="/weighed", weight=0)
    await place.applied(await place.publish(without))
    assert {200} == {(await place.ask("weighed.example"))[0] for _ in range(6)}
    assert (6, 0) == (len(good.seen), len(idle.seen))

    await place.publish(idle.member())
    before = paths.member("marathon:/weighed", paths.member_name(idle.id, encode(without)))
    await place.applied(await place.registry.commit([Delete(before)]))
    await eventually("it is asked", lambda: _asked(place, idle))


async def _asked(place: Balancer, task: Task) -> bool:
    await place.ask("weighed.example")
    return bool(task.seen)


async def test_a_worker_that_is_replaced_vouches_for_no_stranger(place: Balancer) -> None:
    """It hands requests over from an address that is believed: what its client claims it takes away before."""
    await service(place, "/kept", vhosts=("kept.example",), traffic=Traffic(https_only=True))
    asked = b"GET / HTTP/1.1\r\nHost: kept.example\r\nX-Forwarded-Proto: https\r\n\r\n"
    before = int((await place.status())["reloads"])
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port, local_addr=(STRANGER, 0))
        writer.write(asked)
        first = await reader.readuntil(b"\r\n\r\n")
        task = await service(place, "/kept", vhosts=("kept.example",), traffic=Traffic(https_only=True, retries=2))
        assert int((await place.status())["reloads"]) > before
        writer.write(asked)
        second = await reader.readuntil(b"\r\n\r\n")
        writer.close()

    assert [b" 301 ", b" 301 "] == [first[8:13], second[8:13]]
    assert [] == task.seen
    assert 200 == (await ask(place, "kept.example", X_Forwarded_Proto="https"))[0]


async def test_who_gave_up_waiting_is_not_sent_to_a_server_any_more(place: Balancer) -> None:
    """A client's deadline passes while its request waits for the only place there is: the server never hears of it."""
    rules = Traffic(deadlines=True, server_connections=1, queue_timeout_s=30)
    task = await service(place, "/queued", vhosts=("queued.example",), traffic=rules)
    slow = asyncio.create_task(ask(place, "queued.example", "/?slow=1.5"))
    await eventually("the first is in", lambda: _seen(task))
    _, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
    writer.write(b"GET /gone HTTP/1.1\r\nHost: queued.example\r\nX-Request-Timeout: 200\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.close()

    assert [200, 200] == [(await slow)[0], (await ask(place, "queued.example", "/last"))[0]]
    assert ["GET /?slow=1.5", "GET /last"] == task.seen


async def _seen(task: Task) -> bool:
    return bool(task.seen)

"""Callers with certificates on a real HAProxy: who is let in, as whom, and identities that change under load."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from fairlead_discovery.decisions.identity import dns_name
from fairlead_discovery.policies import Source
from harness.balancer import Balancer, fetch, service
from harness.mesh import DOMAIN, Caller, Mesh, intend, meshed, request
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
WEB, CART, OPS = "marathon:/shop/web", "marathon:/shop/cart", "etl:ops"
Place = tuple[Balancer, Mesh]
DAY_S = 86_400.0


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Place]:
    async with meshed(short_dir, intentions_default="deny") as made:
        yield made


async def refused(caller: Caller, port: int, **more: str) -> bool:
    """Whether it does not even get an answer."""
    try:
        await caller.ask(port, CART, **more)
    except OSError:
        return True
    return False


async def test_who_calls_is_in_the_certificate_and_what_it_may_is_an_intention(place: Place):
    """By service, method and path; a name in a header counts nothing."""
    lb, mesh = place
    port = lb.settings.mesh_port
    await service(lb, "/shop/cart")
    web, ops = await mesh.caller(WEB), await mesh.caller(OPS)
    before = (await web.ask(port, CART))[0]
    await intend(lb, Source(name=WEB, methods=("GET",), paths=("/items",)), Source(name=OPS), to=CART)

    asked = [
        await web.ask(port, CART, "/items/1"), await web.ask(port, CART, "/other"),
        await web.ask(port, CART, "/items", method="POST"), await ops.ask(port, CART, "/other", method="POST"),
        await web.ask(port, CART, "/other", X_Fairlead_Caller=OPS), await web.ask(port, "marathon:/no/such"),
        await web.ask(port, "", host=dns_name(DOMAIN, CART), path="/items"),
    ]  # fmt: skip
    assert 403 == before
    assert [200, 403, 403, 200, 403, 404, 200] == [status for status, _ in asked]
    assert "marathon:%2Fshop%2Fweb may not call marathon:%2Fshop%2Fcart so\n" == asked[1][1]
    assert 1 == (await lb.status())["reloads"], "the one that opened the mesh port"


async def test_missing_foreign_and_expired_certificates_are_refused(place: Place):
    """In the handshake: no request of theirs is ever looked at."""
    lb, mesh = place
    port = lb.settings.mesh_port
    task = await service(lb, "/shop/cart")
    await intend(lb, Source(name=WEB), to=CART)
    right = await mesh.caller(WEB)
    foreign = await mesh.caller(WEB, of=mesh.authority(folder="other"))
    expired = await mesh.caller(WEB, of=mesh.authority(ago_s=2 * DAY_S))
    nobody = ssl.create_default_context(cafile=str(right.place.bundle_file))
    nobody.check_hostname = False

    assert (200, "shop-cart") == await right.ask(port, CART)
    assert [True, True] == [await refused(one, port) for one in (foreign, expired)]
    assert b"" == await without_certificate(port, nobody)
    with pytest.raises(OSError):  # no TLS at all
        await fetch(f"http://127.0.0.1:{port}", "/")
    assert ["GET /"] == task.seen


async def without_certificate(port: int, context: ssl.SSLContext) -> bytes:
    """Whatever it is answered: in TLS 1.3 the alert comes after the handshake."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(request(CART, close=True))
        answer = await reader.read(-1)
        writer.close()
    except OSError:
        return b""
    return answer


async def test_tcp_services_are_named_by_sni_and_refused_without_a_word(place: Place):
    """The same certificates, the same intentions."""
    lb, mesh = place
    port, name = lb.settings.mesh_tcp_port, dns_name(DOMAIN, CART)
    await service(lb, "/shop/cart", mode="tcp")
    await intend(lb, Source(name=WEB), Source(name="*", action="deny"), to=CART)
    web, ops = await mesh.caller(WEB), await mesh.caller(OPS)

    assert (200, "shop-cart") == await web.ask(port, sni=name)
    assert [True, True] == [await refused(ops, port, sni=name), await refused(web, port, sni="other.test.internal")]


async def test_an_http_service_is_not_reached_where_bytes_are_passed_on(place: Place):
    """It would take every caller for nobody."""
    lb, mesh = place
    await service(lb, "/shop/cart")
    await service(lb, "/shop/db", mode="tcp")
    await intend(lb, Source(name=WEB, action="deny"), Source(name="anonymous"), Source(name="*"), to=CART)
    await intend(lb, Source(name=WEB), to="marathon:/shop/db")
    web = await mesh.caller(WEB)
    names = [dns_name(DOMAIN, CART), CART, f"tcp/{dns_name(DOMAIN, 'marathon:/shop/db')}"]

    assert 403 == (await web.ask(lb.settings.mesh_port, CART))[0]
    assert [True] * 3 == [await refused(web, lb.settings.mesh_tcp_port, sni=name) for name in names]
    assert (200, "shop-db") == await web.ask(lb.settings.mesh_tcp_port, sni=dns_name(DOMAIN, "marathon:/shop/db"))


async def test_the_mesh_speaks_http2(place: Place):
    """Whoever can."""
    lb, mesh = place
    web = await mesh.caller(WEB)
    _, writer = await asyncio.open_connection(
        "127.0.0.1", lb.settings.mesh_port, ssl=web.context(alpn=("h2", "http/1.1")), server_hostname="x"
    )
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()

    assert "h2" == chosen


class Load:
    """Callers on new and on kept connections, until told to stop."""

    def __init__(self, port: int, callers: list[Caller]) -> None:
        self.callers = callers
        self.failures: list[str] = []
        self.done = 0
        self._port = port
        self._stop = False

    async def run(self) -> None:
        await asyncio.gather(self._fresh(), self._kept(self.callers[0]))

    def stop(self) -> None:
        self._stop = True

    async def _fresh(self) -> None:
        while not self._stop:
            for caller in tuple(self.callers):
                await self._once(caller)
            await asyncio.sleep(0.02)

    async def _once(self, caller: Caller) -> None:
        try:
            status, _ = await caller.ask(self._port, CART)
            self._count(status)
        except OSError as error:
            self.failures.append(repr(error))

    def _count(self, status: int) -> None:
        self.done += 1
        if status != 200:
            self.failures.append(str(status))

    async def _kept(self, caller: Caller) -> None:
        """Until told to close, which a worker that is being replaced does."""
        while not self._stop:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=caller.context(), server_hostname="x"
            )
            head = ""
            while not self._stop and "connection: close" not in head:
                writer.write(request(CART))
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
                self._count(int(head.split()[1]))
                await asyncio.sleep(0.02)
            writer.close()


async def test_identities_and_roots_change_under_load_without_a_failed_request(place: Place):
    """A new root, a new identity of the balancer by it, callers of the old and of the new root side by side."""
    lb, mesh = place
    await service(lb, "/shop/cart")
    await intend(lb, Source(name="*"), to=CART)
    web = await mesh.caller(WEB)
    load = Load(lb.settings.mesh_port, [web])
    running = asyncio.create_task(load.run())
    before = await serial(lb, web)
    status, _ = await fetch(mesh.url, "/v1/rotate", method="POST")
    await eventually("the new root signs", lambda: signs_second(mesh))
    await eventually("the balancer believes both", lambda: believes(lb, 2), within_s=30)
    web.place.bundle_file.write_text(mesh.authority().bundle())  # as every caller reads it from the registry
    renewed = await mesh.caller(OPS)
    load.callers = [*load.callers, renewed]
    for _ in range(2):  # the second, too, must be shown and not only taken
        (lb.folder / "data" / "lb" / "identity" / "identity.pem").unlink()  # as if it were due
        await eventually("haproxy shows the new identity", partial(other, lb, web, before), within_s=30)
        before = await serial(lb, web)
    count = load.done
    await eventually("both are served", lambda: asyncio.sleep(0, load.done > count + 20), within_s=30)
    load.stop()
    await running

    assert 200 == status
    assert [] == load.failures
    assert (await lb.status())["reloads"] <= 2, "the one that opened the mesh port; before 3.2 one after other roots"


async def signs_second(mesh: Mesh) -> bool:
    roots = mesh.authority().roots
    return len(roots) == 2 and roots[1].active_from_s < mesh.authority().clock()


async def haproxy(lb: Balancer, command: str) -> str:
    folder = lb.folder / "data" / "lb"
    place = max((folder / "run").glob("w*.sock"))
    reader, writer = await asyncio.open_unix_connection(str(place))
    writer.write(command.format(folder / "identity").encode() + b"\n")
    text = (await reader.read(-1)).decode()
    writer.close()
    return text


async def believes(lb: Balancer, count: int) -> bool:
    return count == (await haproxy(lb, "show ssl ca-file {}/bundle.pem")).count("FingerPrint")


async def serial(lb: Balancer, caller: Caller) -> str:
    """Of the certificate that the mesh port shows."""
    _, writer = await opened(lb, caller)
    shown = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    writer.close()
    return str(shown)


async def other(lb: Balancer, caller: Caller, before: str) -> bool:
    return before != await serial(lb, caller)


async def test_what_was_kept_open_over_a_reload_is_still_who_it_was(short_dir: Path):
    """An old worker hands over what its callers ask, with their names; and nobody else can."""
    async with meshed(short_dir, intentions_default="deny", spare_backends=0) as (lb, mesh):
        await service(lb, "/shop/cart")
        await intend(lb, Source(name=WEB), to=CART)
        web, ops = await mesh.caller(WEB), await mesh.caller(OPS)
        kept = [await opened(lb, one) for one in (web, ops)]
        first = [await ask_on(one) for one in kept]
        await service(lb, "/another", vhosts=("another.example",))
        await intend(lb, Source(name=WEB, paths=("/new",)), to=CART)
        second = [await ask_on(kept[0]), await ask_on(kept[1], "/new")]

        assert [200, 403] == first
        assert [403, 403] == second
        assert 2 <= (await lb.status())["reloads"]
        assert (200, 403) == (
            (await web.ask(lb.settings.mesh_port, CART, "/new"))[0],
            (await web.ask(lb.settings.mesh_port, CART))[0],
        )


Kept = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(lb: Balancer, caller: Caller) -> Kept:
    return await asyncio.open_connection("127.0.0.1", lb.settings.mesh_port, ssl=caller.context(), server_hostname="x")


async def ask_on(kept: Kept, path: str = "/") -> int:
    reader, writer = kept
    writer.write(request(CART, path))
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    await reader.readexactly(int(head.lower().partition("content-length:")[2].split()[0]))
    return int(head.split()[1])


async def test_without_the_authority_everything_serves_on(short_dir: Path):
    """Also after HAProxy was started anew; and no key is told anywhere."""
    async with meshed(short_dir) as (lb, mesh):
        await service(lb, "/shop/cart")
        web = await mesh.caller(WEB)
        await mesh.stop()
        await lb.kill_daemon()
        lb.kill_haproxy()
        await lb.start()
        pages = [(await fetch(lb.admin, page))[1] for page in ("/mesh", "/status", "/_haproxy_getconfig", "/metrics")]

        assert (200, "shop-cart") == await web.ask(lb.settings.mesh_port, CART)
        assert f"spiffe://{DOMAIN}/task/balancer/lb" in pages[0]
        assert not any("PRIVATE KEY" in page for page in pages)

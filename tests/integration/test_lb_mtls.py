"""TLS from the balancer to servers: both show certificates of the identity authority, and nothing goes in plain."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.balancer import Balancer, Task, member, route, service
from harness.mesh import Caller, Mesh, meshed
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
WEB, CART = "marathon:/shop/web", "marathon:/shop/cart"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[tuple[Balancer, Mesh]]:
    async with meshed(short_dir) as made:
        yield made


class Server:
    """A server that shows this certificate, and wants one of the same roots."""

    def __init__(self, identity: Caller) -> None:
        self.seen: list[str] = []
        self.port = 0
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(identity.place.bundle_file))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(identity.place.folder / "cert.pem", identity.place.folder / "key.pem")

    async def start(self) -> "Server":
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert")
        self.seen.append(next(value for part in shown["subject"] for key, value in part if key == "commonName"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()


async def answers(lb: Balancer, status: int) -> bool:
    return status == (await lb.ask())[0]


async def test_servers_are_asked_over_tls_as_whom_they_are(place: tuple[Balancer, Mesh]):
    """Each side knows the other."""
    lb, mesh = place
    server = await Server(await mesh.caller(WEB)).start()
    await lb.applied(await lb.publish(member("w", server.port), routes=[route(vhosts=("shop.example",), mtls=True)]))

    assert (200, "ok") == await lb.ask()
    assert {"balancer:lb"} == set(server.seen)


@pytest.mark.parametrize("wrong", ["another service", "a foreign root", "plain"])
async def test_a_server_that_is_somebody_else_gets_no_request(place: tuple[Balancer, Mesh], wrong: str):
    """Another service's certificate, another authority's, or none at all: 503, and no byte of the request."""
    lb, mesh = place
    plain = await Task("w").start()
    other = Server(await mesh.caller(CART))
    foreign = Server(await mesh.caller(WEB, of=mesh.authority(folder="other")))
    port = {
        "another service": (await other.start()).port, "a foreign root": (await foreign.start()).port,
        "plain": plain.port,
    }[wrong]  # fmt: skip
    await lb.applied(await lb.publish(member("w", port), routes=[route(vhosts=("shop.example",), mtls=True)]))

    assert 503 == (await lb.ask())[0]
    assert [] == [*plain.seen, *other.seen, *foreign.seen]


async def test_without_an_identity_nothing_goes_in_plain(short_dir: Path):
    """A balancer that has none says so."""
    async with Balancer(short_dir) as lb:
        await lb.start()
        task = await service(lb, "/shop/web", vhosts=("shop.example",), mtls=True)
        await eventually("it refuses", lambda: answers(lb, 503))

        assert [] == task.seen

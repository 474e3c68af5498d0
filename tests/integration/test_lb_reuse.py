"""Whether connections to servers are kept, on real HAProxy: one for each request, unless a service says that it may be reused."""

import asyncio
from pathlib import Path

import pytest

from harness.balancer import Balancer, balancer, service
from harness.between import THERE, two_machines, vhost

pytestmark = pytest.mark.needs("haproxy")


async def ask_five_times(host: str, port: int, name: str) -> None:
    """On one connection of a client's."""
    reader, writer = await asyncio.open_connection(host, port)
    async with asyncio.timeout(20):
        for _ in range(5):
            writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
    writer.close()


async def test_connections_to_servers_end_with_the_request_unless_they_may_be_reused(short_dir: Path):
    """The label is what makes the difference, for services of one frontend."""
    async with balancer(short_dir, spare_backends=0) as lb:
        plain = await service(lb, "/plain", vhosts=("plain.example",))
        kept = await service(lb, "/kept", vhosts=("kept.example",), reuse=True)
        for name in ("plain.example", "kept.example"):
            await ask_five_times("127.0.0.1", lb.settings.http_port, name)

    assert (5, 1) == (plain.connections, kept.connections)


async def test_between_machines_connections_are_kept():
    """A handshake for each request would cost twenty times the request; to the task they end with it all the same."""
    async with two_machines() as pair:
        [task] = await pair.deploy("/far", THERE)
        before = await accepted(pair.there)
        for _ in range(4):
            await ask_five_times("127.0.0.2", pair.here.settings.http_port, vhost("/far"))
        came = await accepted(pair.there) - before

    assert 20 == task.connections
    assert came < 10, "one for each client, and looks of balancers among them"


async def accepted(lb: Balancer) -> int:
    """Connections that its door has taken so far."""
    folder = lb.folder / "data" / "lb-node" / "run"
    place = max(folder.glob("w*.sock"), key=lambda path: path.stat().st_mtime)
    reader, writer = await asyncio.open_unix_connection(str(place))
    writer.write(b"show stat\n")
    rows = [line.split(",") for line in (await reader.read(-1)).decode().splitlines()]
    writer.close()
    return next(int(r[rows[0].index("conn_tot")]) for r in rows if r[:2] == ["fairlead_mesh", "FRONTEND"])

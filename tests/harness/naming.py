"""The DNS daemon in this process, on the in-memory registry."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import dnslib

from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_daemon.settings import convert
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Registry
from fairlead_dns import daemon
from fairlead_dns.adapters.sockets import bind
from fairlead_dns.settings import DnsSettings
from harness.names import ask_udp, data, opt, query, rcode
from harness.waiting import eventually


class Running:
    """The daemon, how to ask it, and a registry to write to."""

    def __init__(self, registry: Registry, port: int, http_port: int, context: Context) -> None:
        self.registry = registry
        self.port = port
        self.http_port = http_port
        self.context = context

    async def ask(self, name: str, kind: str = "A") -> dnslib.DNSRecord:
        return dnslib.DNSRecord.parse(await asyncio.to_thread(ask_udp, self.port, query(name, kind, opt=opt())))

    async def knows(self, name: str, kind: str = "A") -> list[str]:
        return data(await self.ask(name, kind))

    async def until(self, name: str, expected: list[str], kind: str = "A") -> None:
        async def same() -> bool:
            return await self.knows(name, kind) == expected

        await eventually(f"{name} is {expected}", same)

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(self.url(path)) as response:
            return json.loads(await response.read())

    async def text(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.url(path)) as response:
            return response.status, await response.text()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"


def free(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def told(folder: Path, **settings: Any) -> DnsSettings:
    (pair,) = bind("listen", "127.0.0.1:0")
    pair.close()
    values = {
        "registry": f"memory:{folder.name}",
        "data_dir": str(folder),
        "listen": [f"127.0.0.1:{pair.place.port}"],
        "port": free(socket.SOCK_STREAM),
        "token": "off",
        "id": "one",
        **settings,
    }
    return convert(DnsSettings, {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}, where="test")


@asynccontextmanager
async def running(
    folder: Path, *, apex: str = "mesos", until: str = "NOERROR", **settings: Any
) -> AsyncIterator[Running]:
    """The daemon, from when it answers `until` for its zone to its ordered end."""
    given = told(folder, **settings)
    context = Context(name="dns", log=Log("dns"))
    body = asyncio.ensure_future(daemon.run(given, context))
    registry = await open_registry(given.registry)
    made = Running(registry, int(given.listen[0].rpartition(":")[2]), given.port, context)

    async def serving() -> bool:
        if body.done():
            body.result()
        return rcode(await made.ask(apex, "SOA")) == until

    await eventually("the daemon answers", serving)
    yield made
    context.stop.set()
    async with asyncio.timeout(10):
        await body
    await registry.close()

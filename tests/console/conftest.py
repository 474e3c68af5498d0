"""A small real house for the command: HTTP servers that answer as the daemons do, and a real DNS server."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from dnslib import RR, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from harness.ports import free_port


class Daemons:
    """One HTTP server for all daemons. `answers[(method, path)]` is a value, or a function of the request's body."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.seen: list[tuple[str, str, Any, str]] = []
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def _answer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.seen.append((request.method, request.path_qs, body, request.headers.get("Authorization", "")))
        key = (request.method, request.path)
        if key not in self.answers:
            return web.json_response({"message": f"App '{request.path}' does not exist"}, status=404)
        value = self.answers[key]
        value = value(body) if callable(value) else value
        status, value = value if isinstance(value, tuple) else (200, value)
        return web.json_response(value, status=status)

    def bodies(self, method: str) -> list[Any]:
        return [body for m, _, body, _ in self.seen if m == method]

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def daemons() -> Iterator[Daemons]:
    servers = Daemons()
    servers.start()
    yield servers
    servers.stop()


class _Zone(BaseResolver):  # type: ignore[misc]  # dnslib is untyped
    def __init__(self, records: str) -> None:
        self._records = RR.fromZone(records)

    def resolve(self, request: DNSRecord, _handler: object) -> DNSRecord:
        reply = request.reply()
        names = {r.rname for r in self._records}
        for record in self._records:
            if record.rname == request.q.qname and record.rtype == request.q.qtype:
                reply.add_answer(record)
        if request.q.qname not in names:
            reply.header.rcode = 3
        return reply


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """`host:port` of a DNS server that knows /shop/web."""
    zone = """
web-shop.marathon.mesos. 5 IN A 10.0.0.1
web-shop.marathon.mesos. 5 IN A 10.0.0.2
_web-shop._tcp.marathon.mesos. 5 IN SRV 0 1 31005 web-shop-x.marathon.mesos.
"""
    port = free_port()
    server = DNSServer(_Zone(zone), address="127.0.0.1", port=port, logger=DNSLogger(logf=lambda _line: None))
    server.start_thread()
    yield f"127.0.0.1:{port}"
    server.stop()
    server.server.server_close()


@pytest.fixture
def data_dir(tmp_path: Path, daemons: Daemons, names: str) -> Path:
    """As `fairlead up` leaves it: addresses and a token."""
    (tmp_path / "addresses.json").write_text(
        json.dumps({
            "data_dir": str(tmp_path),
            "registry": "",
            "token_file": str(tmp_path / "token"),
            "master": daemons.url,
            "agents": [],
            "services": daemons.url,
            "dns": [names],
            "dns_http": [daemons.url],
            "console": daemons.url,
            "messaging": daemons.url,
            "monitor": daemons.url,
            "lb": daemons.url,
            "lb_http": "",
        })
    )  # fmt: skip
    (tmp_path / "token").write_text("sesame\n")
    (tmp_path / "token").chmod(0o600)
    return tmp_path

"""The name server's HTTP API over names in this process, which a test changes."""

import time
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from fairlead_daemon.settings import convert
from fairlead_daemon.web import Health, make_app
from fairlead_discovery.listing import Listing
from fairlead_discovery.records import Member
from fairlead_discovery.snapshots import Snapshot
from fairlead_dns import answer_settings
from fairlead_dns import settings as told
from fairlead_dns.adapters.api import add_api
from fairlead_dns.adapters.http import add_routes
from fairlead_dns.front_settings import zone_access
from fairlead_dns.names import SERIALS, Names
from fairlead_dns.settings import DnsSettings
from harness.names import snapshot


class Served:
    """An API over names that a test changes."""

    def __init__(self, client: "TestClient[web.Request, web.Application]", names: Names, listing: Listing) -> None:
        self.client = client
        self.names = names
        self.listing = listing

    def take(self, found: Snapshot, *, at_s: float | None = None) -> None:
        self.names.take_snapshot(found)
        self.names.ledger.settle(found.revision % SERIALS, at_s=time.time() if at_s is None else at_s)
        self.names.settle()
        self.listing.take(found)

    async def get(self, path: str, **query: str | int) -> tuple[int, Any]:
        params = {key: str(value) for key, value in query.items()}
        async with self.client.get(f"/v2/{path}", params=params) as response:
            return response.status, await response.json()

    async def page(self, path: str, **query: str | int) -> Any:
        status, body = await self.get(path, **query)
        assert (200, path) == (status, path), body
        return body

    async def refusal(self, path: str, **query: str | int) -> tuple[int, str]:
        status, body = await self.get(path, **query)
        return status, body["message"]


async def api(folder: Path, *members: Member, **values: Any) -> Served:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    settings = convert(DnsSettings, {"data_dir": str(folder), "token": "off", **values}, where="test")
    names = Names(told.rules(settings), told.authority(settings), answer_settings.manner(settings))
    names.take_own("ns1.mesos", ("127.0.0.1",))
    names.front.views.zones = zone_access(settings)
    app = make_app(settings, Health(), closed=answer_settings.closed(settings))
    listing = Listing()
    add_routes(app, settings, names)
    add_api(app, settings, names, listing)
    client = TestClient(TestServer(app))
    await client.start_server()
    made = Served(client, names, listing)
    made.take(snapshot(*members))
    return made

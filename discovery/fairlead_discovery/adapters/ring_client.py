"""Rings for a data service that the registry is closed to: the same owners, by way of `fairlead discovery`.

async with HttpRings("http://h1:8400,h2:8400") as found:
    async for rings in found.follow("orders"):
        for move in moves(rings): ...
        await found.ready("orders", me, version=rings.membership.version)
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.client import call, make_session
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery.adapters.listing_client import parse_urls
from fairlead_discovery.decisions.membership import Membership, RingMember, Rings, rings

WAIT_S = 30
BACKOFF = Backoff(first_s=0.2, most_s=3.0)
log = Log("resolver")


class HttpRings:
    """One of several servers is asked, the next one when it does not answer."""

    def __init__(self, url: str, *, token_file: Path | None = None) -> None:
        """Raises BadSettings."""
        urls = parse_urls(url)
        self._urls = random.sample(urls, len(urls))
        self._token_file = token_file
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = make_session(self._token_file)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, service: str) -> Membership:
        """The ring or, where none was made, that of the endpoints. Raises Refused when there is neither, Unavailable."""
        return _membership(await self._call("GET", service))

    async def follow(self, service: str) -> AsyncIterator[Rings]:
        """At once and at every version. While no server answers the last ones stand; Refused when there is no ring."""
        last: Membership | None = None
        attempt = 0
        while True:
            query = f"?index={last.version}&wait={WAIT_S}s" if last is not None else "?index=0"
            name = service if last is None else last.service  # its own name: then nobody has to look for it
            try:
                found = _membership(await self._call("GET", name, query, wait_s=WAIT_S + 10.0))
            except Unavailable as error:
                log.warning("ring not heard of, the last one stands", service=service, why=str(error))
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
                continue
            attempt = 0
            if last != found:
                last = found
                yield rings(found)

    async def join(self, service: str, member: RingMember) -> Membership:
        """Raises Conflict when it is a member already, Unavailable (then perhaps done: read again)."""
        fields = ("name", "weight", "machine", "rack", "zone")
        return await self._change("POST", service, "/members", {field: getattr(member, field) for field in fields})

    async def leave(self, service: str, name: str) -> Membership:
        return await self._change("DELETE", service, f"/members/{quote(name, safe='')}")

    async def weigh(self, service: str, name: str, weight: float) -> Membership:
        return await self._change("PUT", service, f"/members/{quote(name, safe='')}", {"weight": weight})

    async def ready(self, service: str, name: str, *, version: int) -> Membership:
        """Raises Conflict when the version is another by now."""
        return await self._change("POST", service, f"/members/{quote(name, safe='')}/ready", {"version": version})

    async def _change(self, method: str, service: str, path: str, body: object = None) -> Membership:
        return _membership(await self._call(method, service, path, body=body))

    async def _call(self, method: str, service: str, path: str = "", *, body: object = None, wait_s: float = 10) -> Any:
        """A read goes to the next server when one does not answer. A change does not: it is perhaps done."""
        assert self._session is not None, "it is entered"
        tries = len(self._urls) if method == "GET" else 1
        while True:
            url = f"{self._urls[0]}/v2/rings/{quote(service, safe='')}{path}"
            try:
                return await call(self._session, method, url, body=body, wait_s=wait_s)
            except Unavailable:
                self._urls.append(self._urls.pop(0))
                tries -= 1
                if not tries:
                    raise


def _membership(value: Any) -> Membership:
    """Raises Refused for what is no ring."""
    try:
        return msgspec.convert(value, Membership)
    except msgspec.ValidationError as error:
        raise Refused(f"ring: {error}") from error

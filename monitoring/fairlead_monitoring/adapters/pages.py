"""Reading sources over HTTP: one reader for each kind of page. Raises Unavailable, and ValueError for nonsense."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import aiohttp
import msgspec

from fairlead_daemon.errors import Unavailable
from fairlead_monitoring.decisions import houses
from fairlead_monitoring.decisions.houses import Lingering, Values
from fairlead_monitoring.decisions.samples import Page
from fairlead_monitoring.decisions.sources import Source

PAGE_MOST_BYTES = 16 * 1024 * 1024
Documents = Callable[[], Iterable[Mapping[str, Any]]]


class Reader(Protocol):
    """Reads one source again and again; may remember the last time."""

    async def read(self, session: aiohttp.ClientSession) -> Values: ...


async def fetch(session: aiohttp.ClientSession, url: str) -> bytes:
    """Raises Unavailable. The caller sets the time limit."""
    parts: list[bytes] = []
    size = 0
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise Unavailable(f"{url}: status {response.status}")
            async for part in response.content.iter_chunked(65536):
                parts.append(part)
                size += len(part)
                if size > PAGE_MOST_BYTES:
                    raise Unavailable(f"{url}: over {PAGE_MOST_BYTES} bytes")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unavailable(f"{url}: {error or type(error).__name__}") from error
    return b"".join(parts)


async def _json(session: aiohttp.ClientSession, url: str) -> Any:
    try:
        return msgspec.json.decode(await fetch(session, url))
    except msgspec.DecodeError as error:
        raise ValueError(f"{url}: {error}") from error


class TextReader:
    def __init__(self, source: Source, *, most: int) -> None:
        self._url = source.base + source.path
        self._page = Page({"source": source.name}, most=most)

    async def read(self, session: aiohttp.ClientSession) -> Values:
        raw = await fetch(session, self._url)
        return self._page.read(raw.decode("utf-8", "replace"))


class SnapshotReader:
    def __init__(self, source: Source) -> None:
        self._url = source.base + source.path

    async def read(self, session: aiohttp.ClientSession) -> Values:
        return houses.of_snapshot_page(await _json(session, self._url))


class AppsReader:
    def __init__(self, source: Source, *, framework: str) -> None:
        self._url = source.base + source.path
        self._framework = framework
        self._lingering = Lingering((houses.WANTED, houses.INSTANCES))

    async def read(self, session: aiohttp.ClientSession) -> Values:
        values = houses.of_apps(await _json(session, self._url), framework=self._framework)
        return {**values, **self._lingering.of(values, time.monotonic())}


class AgentsReader:
    def __init__(self, source: Source, documents: Documents) -> None:
        self._url = source.base + source.path
        self._documents = documents
        self._before: Values = {}

    async def read(self, session: aiohttp.ClientSession) -> Values:
        listed = houses.of_agents(await _json(session, self._url))
        self._before = {**listed, **houses.of_documents(self._documents(), listed, self._before)}
        return self._before


class BalancerReader:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._before: Values = {}
        self._before_s = 0.0

    async def read(self, session: aiohttp.ClientSession) -> Values:
        status, statistics = await asyncio.gather(
            _json(session, f"{self._source.base}/status"), fetch(session, f"{self._source.base}/haproxy")
        )
        now_s = time.monotonic()
        text = statistics.decode("utf-8", "replace")
        values = houses.of_balancer(status, text, balancer=self._source.name)
        speeds = houses.per_second(self._before, values, now_s - self._before_s)
        self._before, self._before_s = values, now_s
        return {**values, **speeds}


class LinksReader:
    def __init__(self, source: Source) -> None:
        self._url = source.base + source.path

    async def read(self, session: aiohttp.ClientSession) -> Values:
        return houses.of_links(await _json(session, self._url))

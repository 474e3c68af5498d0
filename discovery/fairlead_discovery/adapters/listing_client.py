"""A program's side of the HTTP watch API: one stream from one of several servers, the next one when it ends.

A server whose own registry is out of sight is taken only when none sees it. With no server at all the last good state
stands, `stale`; with `keep`, a file, also after a restart.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.client import headers, worded
from fairlead_daemon.errors import BadSettings, Refused, Unavailable
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.decisions.listing import NAMES, Told
from fairlead_discovery.decisions.mirror import Mirror, kept
from fairlead_discovery.snapshots import Snapshot, Trust

SCHEMES = ("http", "https")
CONNECT_S = 2.0
SILENCE_S = 15.0
"""Servers say every 5 s that they are there."""
POOR_S = 10.0
"""So long a server without sight of the registry is kept, before others are asked again."""
KEEP_S = 5.0
"""The last good state is written at most so often."""
QUERY_BYTES = 6000
"""Servers take lines of 8 KiB."""
EVENT_LIMIT_BYTES = 64 * 1024 * 1024
BACKOFF = Backoff(first_s=0.2, most_s=3.0)
DENIED: Mapping[int, str] = {
    401: "; the token is missing or wrong: FAIRLEAD_TOKEN_FILE, or `token_file` of a Resolver, names its file",
    403: "; it may be for those with the token alone: FAIRLEAD_TOKEN_FILE names its file",
}
"""What else to say."""
log = Log("resolver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where to ask, what for (all services without `names`), and as whom."""

    urls: tuple[str, ...]
    names: tuple[str, ...] = ()
    token_file: Path | None = None
    keep: Path | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `known_s`: wall clock."""

    known_s: float
    told: Told


class Denied(Unavailable):
    """The server knows us not, or not from here."""


def is_http(url: str) -> bool:
    return urlsplit(url).scheme in SCHEMES


def parse_urls(url: str) -> tuple[str, ...]:
    """`http://h1:8400,h2:8400` -> both. Raises BadSettings."""
    first, *others = url.split(",")
    scheme = urlsplit(first).scheme
    every = [first, *(other if "://" in other else f"{scheme}://{other}" for other in others)]
    for each in every:
        parts = urlsplit(each)
        if parts.scheme not in SCHEMES or not parts.hostname or parts.path.strip("/") or parts.query:
            raise BadSettings(f"registry: {each!r} is no http://host:port")
    return tuple(each.rstrip("/") for each in every)


async def http_snapshots(servers: Servers) -> AsyncIterator[Snapshot]:
    """For ever, as reading.snapshots. Cancel or aclose to stop.

    Raises Refused when all servers deny us while nothing is known: waiting helps nobody without a token.
    """
    mirror = Mirror()
    if servers.keep is not None:
        await asyncio.to_thread(_load, servers.keep, mirror)
    keeper = asyncio.ensure_future(_keep(servers.keep, mirror)) if servers.keep is not None else None
    urls = random.sample(servers.urls, len(servers.urls))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    try:
        async with aiohttp.ClientSession(headers=headers(servers.token_file), timeout=timeout) as session:
            attempt = 0
            while True:
                why, denied = "", True
                for url, choosy in _round(urls):
                    listener = _Listener(session, url, mirror, servers.names)
                    try:
                        async with aclosing(listener.snapshots(choosy=choosy)) as found:  # type: ignore[type-var]  # a generator
                            async for snapshot in found:
                                attempt = 0
                                yield snapshot
                    except Unavailable as error:
                        why = str(error)
                        denied = denied and isinstance(error, Denied)
                        log.info("server left", url=url, why=why)
                if denied and mirror.snapshot.revision < 0:
                    raise Refused(why)
                yield mirror.lost(why, now_s=time.time())
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
    finally:
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


def _round(urls: Sequence[str]) -> list[tuple[str, bool]]:
    """Each of them, at first choosy: not one that sees less than another may."""
    return [(url, choosy) for choosy in (True, False) for url in urls] if len(urls) > 1 else [(urls[0], False)]


class _Listener:
    """One stream of one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str, mirror: Mirror, names: Sequence[str]) -> None:
        self._session = session
        self._url = url
        self._mirror = mirror
        self._query = _query(names)

    async def snapshots(self, *, choosy: bool) -> AsyncIterator[Snapshot]:
        """Raises Unavailable when it ends, or, `choosy`, when another server may see more."""
        self._mirror.begin()
        poor_s: float | None = None
        try:
            async for place, data in self._events():
                snapshot = self._mirror.take(msgspec.json.decode(data, type=Told), place, now_s=time.time())
                if snapshot is None:
                    continue
                poor_s = None if snapshot.trust is Trust.LIVE else poor_s or time.monotonic()
                if poor_s is not None and (choosy or time.monotonic() - poor_s > POOR_S):
                    raise Unavailable(f"{self._url}: {snapshot.why or snapshot.trust.value}")
                yield snapshot
        except TimeoutError as error:
            raise Unavailable(f"{self._url}: no word within {SILENCE_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{self._url}: {worded(error)}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self._url}: {error}") from error
        raise Unavailable(f"{self._url}: the stream ended")

    async def _events(self) -> AsyncIterator[tuple[str, bytes]]:
        """Ids and data."""
        asked = {"Accept": "text/event-stream"}
        if self._mirror.place and not self._query:
            asked["Last-Event-ID"] = self._mirror.place
        async with asyncio.timeout(SILENCE_S):
            response = await self._session.get(f"{self._url}/v2/services", params=self._query, headers=asked)
        async with response:
            if response.status in DENIED:
                raise Denied(f"{self._url}: {response.status} {await _message(response)}{DENIED[response.status]}")
            if response.status != 200:
                raise Unavailable(f"{self._url}: {response.status} {(await response.text())[:200]}")
            place, data = "", b""
            async for line in _lines(response.content):
                key, _, value = line.partition(b": ")
                if key == b"id":
                    place = value.decode()
                elif key == b"data":
                    data = value
                elif not key and data:
                    yield place, data
                    place, data = "", b""


async def _message(response: aiohttp.ClientResponse) -> str:
    """The server's words."""
    text = (await response.text(errors="replace"))[:500]
    try:
        return str(msgspec.json.decode(text, type=dict[str, object]).get("message", text))
    except msgspec.DecodeError:
        return text


def _query(names: Sequence[str]) -> list[tuple[str, str]]:
    """Too many names for one request's line: then all services are asked for."""
    pairs = [("name", name) for name in names]
    return pairs if len(pairs) <= NAMES and len(urlencode(pairs)) <= QUERY_BYTES else []


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Of any length up to the limit; aiohttp's own are short."""
    parts: list[bytes] = []
    size = 0
    while True:
        async with asyncio.timeout(SILENCE_S):
            chunk = await content.readany()
        if not chunk:
            return
        first, *rest = chunk.split(b"\n")
        for line in rest:
            yield b"".join((*parts, first))
            parts, size, first = [], 0, line
        parts.append(first)
        size += len(first)
        if size > EVENT_LIMIT_BYTES:
            raise aiohttp.ClientPayloadError(f"an event of more than {EVENT_LIMIT_BYTES} bytes")


# --- kept on disk ------------------------------------------------------------------------------------------------------


def _load(file: Path, mirror: Mirror) -> None:
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Kept)
    except FileNotFoundError:
        return
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("last good state not read", file=str(file), why=str(error))
        return
    mirror.restore(found.told, known_s=found.known_s)


async def _keep(file: Path, mirror: Mirror) -> None:
    written: Snapshot | None = None
    while True:
        now = mirror.snapshot
        if now.trust is Trust.LIVE and now is not written:
            with suppress(OSError):  # a full disk: the state in memory is what matters
                await asyncio.to_thread(_write, file, now, mirror.known_s)
            written = now
        await asyncio.sleep(KEEP_S if written is not None else 0.2)


def _write(file: Path, snapshot: Snapshot, known_s: float) -> None:
    replace_file(file, msgspec.json.encode(Kept(known_s=known_s, told=kept(snapshot))), mode=0o600)

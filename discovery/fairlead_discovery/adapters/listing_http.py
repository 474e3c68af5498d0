"""The HTTP watch API: services and their endpoints, long polls and event streams, for programs the registry is closed to.

GET /v2/services                every service; as an event stream: all endpoints, then what changes (`?name=…` these alone)
GET /v2/services/{name}         endpoints; `?index=…&wait=30s` answers at once when there is news, else after the wait

Names are service keys, app ids or DNS names. Each answer says how far it may be believed, in its body and headers.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.web import json_response
from fairlead_discovery import metrics
from fairlead_discovery.adapters.pieces import BIG_BYTES, Bodies, Cut, Pen
from fairlead_discovery.decisions.listing import (
    NAMES,
    NONE,
    Index,
    Told,
    differs,
    digest,
    of_etags,
    parsed,
    resumed,
    seconds,
)
from fairlead_discovery.listing import EVERYTHING, Listing, NotThere, View

EVENTS = "text/event-stream"
SLICE = 500
"""About so many endpoints are told in one piece: whoever else waits is answered between two of them."""
CALM_S = 0.05
"""A stream tells what changed at most so often: a slow reader gets less pieces, not later ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server bears."""

    watchers: int = 5000
    """Most long polls, streams and big answers under way at a time; more are refused with 503."""
    per_client: int = 1000
    """The same of one address."""
    longest_s: float = 300.0
    """A wait is cut to this."""
    write_s: float = 10.0
    """A client that reads nothing of a stream or a big answer for so long is cut off."""
    beat_s: float = 5.0
    """Each stream says so often that it is there, with trust and age."""


def add_routes(app: web.Application, listing: Listing, limits: Limits = Limits()) -> None:
    """Below /v2. Every answer comes from the listing as it is at that moment."""
    site = _Site(listing, limits)
    app.router.add_get("/v2/services", site.worded(site.services))
    app.router.add_get("/v2/services/{name:.+}", site.worded(site.service))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a client says that it knows, and how long it waits for more."""

    index: str
    wait_s: float
    conditional: bool

    @classmethod
    def of(cls, request: web.Request, limits: Limits) -> "_Asked":
        index = request.query.get("index", "") or of_etags(request.headers.get("If-None-Match", ""))
        if index:
            parsed(index)
        wait = request.query.get("wait", "")
        return cls(
            index=index,
            wait_s=min(limits.longest_s, seconds(wait)) if wait else 0.0,
            conditional="index" not in request.query,
        )

    def news(self, index: Index) -> bool:
        return not self.index or differs(self.index, index)


class _Site:
    def __init__(self, listing: Listing, limits: Limits) -> None:
        self._listing = listing
        self._limits = limits
        self._clients: Counter[str] = Counter()
        self._bodies = Bodies()

    def worded(self, handler: Handler) -> Handler:
        """404 in words; 503 while nothing is known at all, which is not the same as nothing being there."""

        async def worded(request: web.Request) -> web.StreamResponse:
            if self._listing.snapshot.revision < 0:
                raise Unavailable(f"nothing is known yet: {self._listing.snapshot.why}")
            try:
                return await handler(request)
            except Cut as cut:
                return cut.response
            except NotThere as error:
                return self._nothing(Index(0, NONE, self._listing.snapshot.trust.value), error)

        return worded

    async def services(self, request: web.Request) -> web.StreamResponse:
        if _streams(request):
            return await self._stream_all(request)
        rows, index = await self._polled(request, (EVERYTHING,), self._rows)
        body = self._bodies.of("services", index.digest + str(self._listing.number), lambda: {"services": rows})
        return await self._answer(request, {}, body, index)

    async def service(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        topics = self._listing.topics((name,))
        if _streams(request):
            return await self._stream_one(request, name, topics)

        def look() -> tuple[View, Index]:
            view = self._listing.view(name)
            return view, view.index

        view, index = await self._polled(request, topics, look)
        if not view.services:
            return self._nothing(index, self._listing.missing(name))
        return await self._answer(request, {"name": view.name}, self._body(view), index)

    # --- one answer

    def _nothing(self, index: Index, why: NotThere) -> web.Response:
        response = json_response({"message": str(why), **self._trust(index)}, status=404)
        response.headers.update(self._headers(index))
        return response

    def _rows(self) -> tuple[list[dict[str, Any]], Index]:
        found = self._listing.services()
        rows = [{"service": s, "names": names, "endpoints": count} for s, (names, count) in found.items()]
        now = self._listing.snapshot
        word = digest(f"{s} {count}\n".encode() for s, (_, count) in found.items())
        return rows, Index(now.revision, word, now.trust.value)

    async def _polled(
        self, request: web.Request, topics: Sequence[str] | frozenset[str], look: Callable[[], Any]
    ) -> Any:
        """What `look` gives when it is news, or when the wait is over."""
        asked = _Asked.of(request, self._limits)
        found = look()
        if not asked.wait_s or asked.news(found[1]):
            return found
        with self._watcher(request), self._listing.watching(topics) as changed:
            try:
                async with asyncio.timeout(asked.wait_s):
                    while not asked.news((found := look())[1]):
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                pass
            return found

    async def _answer(
        self, request: web.Request, head: Mapping[str, Any], body: bytes, index: Index
    ) -> web.StreamResponse:
        asked = _Asked.of(request, self._limits)
        if asked.conditional and not asked.news(index):
            return web.Response(status=304, headers=self._headers(index))
        start = _joined({**self._trust(index), **head})
        kind = {"Content-Type": "application/json", **self._headers(index)}
        if len(body) <= BIG_BYTES:
            return web.Response(body=start + body[1:], headers=kind)
        response = web.StreamResponse(headers=kind)
        response.content_length = len(start) + len(body) - 1
        with self._watcher(request), self._bodies.sending(body):
            pen = await Pen(request, response, self._limits.write_s).open()
            if request.method != "HEAD":
                await pen.write(start, memoryview(body)[1:])
        return response

    def _body(self, view: View) -> bytes:
        """What is the same under all names and at all times, as JSON."""
        services = set(view.services)
        leaving = [record for record in self._listing.snapshot.leaving.values() if record.service in services]
        names = sorted({name for service in view.services for name in self._listing.dns_names(service)})
        body = {"services": view.services, "names": names, "endpoints": view.endpoints, "leaving": leaving}
        return self._bodies.of(view.index.digest, body, lambda: body)

    def _trust(self, index: Index) -> dict[str, Any]:
        now = self._listing.snapshot
        return {
            "index": str(index),
            "revision": now.revision,
            "trust": now.trust.value,
            "why": now.why,
            "age_s": round(self._listing.age_s, 3),
        }

    def _headers(self, index: Index) -> dict[str, str]:
        return {
            "ETag": index.etag,
            "Cache-Control": "no-cache",
            "X-Fairlead-Index": str(index),
            **self._trust_headers(),
        }

    def _trust_headers(self) -> dict[str, str]:
        now = self._listing.snapshot
        return {
            "X-Fairlead-Revision": str(now.revision),
            "X-Fairlead-Trust": now.trust.value,
            "X-Fairlead-Age": f"{self._listing.age_s:.1f}",
        }

    # --- streams

    async def _stream_one(self, request: web.Request, name: str, topics: frozenset[str]) -> web.StreamResponse:
        """Events `endpoints`, each the whole answer; a comment as a sign of life."""
        known = of_etags(request.headers.get("Last-Event-ID", ""))
        with self._watcher(request), self._listing.watching(topics) as changed:
            stream = await _Stream.opened(request, self._limits, self._trust_headers())
            async for _ in _turns(changed, self._limits.beat_s):
                view = self._listing.view(name)
                if not known or differs(known, view.index):
                    known = str(view.index)
                    body = self._body(view)
                    with self._bodies.sending(body):
                        start = _joined({**self._trust(view.index), "name": view.name})
                        await stream.event("endpoints", known, start, memoryview(body)[1:])
                else:
                    await stream.beat()
        return stream.response

    async def _stream_all(self, request: web.Request) -> web.StreamResponse:
        """Events `services`, each a decisions.listing.Told."""
        names = tuple(dict.fromkeys(request.query.getall("name", [])))
        if len(names) > NAMES:
            raise Refused(f"{len(names)} names, a stream takes {NAMES}; without any it tells all")
        with self._watcher(request), self._listing.watching(self._listing.topics(names)) as changed:
            stream = await _Stream.opened(request, self._limits, self._trust_headers())
            teller = (
                _Some(self._listing, names) if names else _All(self._listing, request.headers.get("Last-Event-ID", ""))
            )
            async for _ in _turns(changed, self._limits.beat_s):
                async for told in teller.told():
                    await stream.event("services", "" if told.more else teller.place, msgspec.json.encode(told))
        return stream.response

    @contextmanager
    def _watcher(self, request: web.Request) -> Iterator[None]:
        """Raises Unavailable when there are too many."""
        client = request.remote or ""
        if self._clients.total() >= self._limits.watchers:
            metrics.watchers_refused.inc()
            raise Unavailable(f"{self._limits.watchers} watchers wait here already; ask another server, or later")
        if self._clients[client] >= self._limits.per_client:
            metrics.watchers_refused.inc()
            raise Unavailable(f"{self._limits.per_client} watchers of {client} wait here already")
        self._clients[client] += 1
        metrics.watchers.inc()
        try:
            yield
        finally:
            metrics.watchers.dec()
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]


async def _turns(changed: asyncio.Event, beat_s: float) -> AsyncIterator[None]:
    """At once, then after each change, not too often, and at every beat."""
    while True:
        changed.clear()
        yield
        await asyncio.sleep(CALM_S)
        try:
            async with asyncio.timeout(beat_s):
                await changed.wait()
        except TimeoutError:
            pass


class _All:
    """Everything, or what changed since another stream of this very server stopped."""

    def __init__(self, listing: Listing, last: str) -> None:
        self._listing = listing
        instance, number = resumed(last)
        known = instance == listing.instance and listing.forgotten <= number <= listing.number
        self._number = number if known else -1

    @property
    def place(self) -> str:
        return f"{self._listing.instance}-{self._number}"

    async def told(self) -> AsyncIterator[Told]:
        whole = self._number < self._listing.forgotten
        since, self._number = self._number, self._listing.number
        services = list(self._listing.snapshot.members) if whole else self._listing.changed_since(since)
        async for told in _pieces(self._listing, services, whole=whole):
            yield told


class _Some:
    """Services by name; whole at first."""

    def __init__(self, listing: Listing, names: Sequence[str]) -> None:
        self._listing = listing
        self._names = names
        self._meant = frozenset[str]()
        self._number = -1
        self.place = ""

    async def told(self) -> AsyncIterator[Told]:
        meant, since = self._listing.meant(self._names), self._number
        whole = since < self._listing.forgotten
        news = meant.intersection(self._listing.changed_since(since)) | (self._meant ^ meant)
        self._meant, self._number = meant, self._listing.number
        async for told in _pieces(self._listing, sorted(meant if whole else news), whole=whole):
            yield told


async def _pieces(listing: Listing, services: Sequence[str], *, whole: bool) -> AsyncIterator[Told]:
    """At least one, though it be empty: it tells trust and age. What changes meanwhile is told in the next turn again."""
    piece: list[str] = []
    size = 0
    for service in services:
        if size >= SLICE:
            yield listing.telling(piece, whole=whole, more=True)
            piece, size = [], 0
            await asyncio.sleep(0)
        piece.append(service)
        size += 1 + len(listing.snapshot.members.get(service, ()))
    yield listing.telling(piece, whole=whole)


class _Stream:
    """Server-sent events to one client. Raises as Pen."""

    def __init__(self, pen: Pen) -> None:
        self.response = pen.response
        self._pen = pen

    @classmethod
    async def opened(cls, request: web.Request, limits: Limits, headers: Mapping[str, str]) -> "_Stream":
        response = web.StreamResponse(headers={"Content-Type": EVENTS, "Cache-Control": "no-store", **headers})
        return cls(await Pen(request, response, limits.write_s).open())

    async def event(self, kind: str, place: str, *data: bytes | memoryview) -> None:
        mark = f"id: {place}\n" if place else ""
        await self._pen.write(b"%sevent: %s\ndata: " % (mark.encode(), kind.encode()), *data, b"\n\n")

    async def beat(self) -> None:
        await self._pen.write(b": %d\n\n" % time.time())


def _streams(request: web.Request) -> bool:
    """HEAD gets the plain answer's headers."""
    return request.method == "GET" and EVENTS in request.headers.get("Accept", "")


def _joined(head: Mapping[str, Any]) -> bytes:
    """The begin of a JSON object, to be followed by the inside of another."""
    return msgspec.json.encode(head)[:-1] + b","

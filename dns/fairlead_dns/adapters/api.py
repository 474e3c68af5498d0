"""The HTTP API under /v2: records, explanations, history, status; typed, errors in words, no secret in any answer.

GET /v2/services…              see fairlead_discovery.adapters.listing_http: endpoints, long polls, event streams
GET /v2/records                ?name= &under= &contains= &type= &limit= &after=
GET /v2/explain                ?name= &type= &client=
GET /v2/history                ?name= [&at=]     what a name answered at a time, or all its changes
GET /v2/changes                ?since= &limit= &zone=   what changed in a zone after a serial
GET /v2/status                 serial, trust, age, revision, upstreams
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from math import isfinite
from typing import Any, NoReturn

import msgspec
from aiohttp import web

from fairlead_daemon.web import error_response, json_response
from fairlead_discovery.adapters import listing_http
from fairlead_discovery.decisions.nearest import nearest
from fairlead_discovery.listing import Listing
from fairlead_dns.adapters.api_access import ClosedZones, closed_words, sees_lists, view_of
from fairlead_dns.adapters.forward import Forwarder
from fairlead_dns.adapters.zonefiles import Unloaded
from fairlead_dns.answer_settings import readers
from fairlead_dns.decisions import history, paging, wire
from fairlead_dns.decisions.acl import Acl
from fairlead_dns.decisions.asked import Handler
from fairlead_dns.decisions.clients import parse
from fairlead_dns.decisions.explain import Question, asked_for, explain, speakable
from fairlead_dns.decisions.forward_explain import forwarded, rows
from fairlead_dns.decisions.journal import serial_of
from fairlead_dns.decisions.ledger import LedgerSource
from fairlead_dns.decisions.static import StaticAnswers, StaticSource
from fairlead_dns.names import SERIALS, Names
from fairlead_dns.settings import DnsSettings

Closed = Callable[[bytes], bytes]
"""As View.closed, of who reads."""
SLICE = 500  # names looked at between two turns of the queries
PAGE = (1000, 10_000)
"""Names on a page: unless told, at most."""
CHANGES = (100, 1000)
GUARDED = ("/v1/", "/v2/")
CLOSED = "enumeration is off (see the `enumeration` setting)"
ELSEWHERE: Mapping[type[object], str] = {
    Forwarder: "the forwarder",
    StaticAnswers: "a zone from a file",
    Unloaded: "a zone file that cannot be read: SERVFAIL",
}


def add_api(app: web.Application, settings: DnsSettings, names: Names, listing: Listing) -> None:
    """Everything under /v2, and the network access rule for it and /v1. Raises BadSettings."""
    pages = _Pages(settings, names)
    app.middlewares.extend((_network_rule(readers(settings)), ClosedZones(names, listing).rule))
    if settings.zone_access:
        listing.hints = False
    if not settings.enumeration:
        listing.hints = False
        app.middlewares.append(_no_list_of_all)
    listing_http.add_routes(app, listing)
    app.router.add_get("/v2/records", pages.records)
    app.router.add_get("/v2/explain", pages.explain)
    app.router.add_get("/v2/history", pages.history)
    app.router.add_get("/v2/changes", pages.changes)
    app.router.add_get("/v2/status", pages.status)


def _network_rule(admitted: Acl) -> Any:
    @web.middleware
    async def rule(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path.startswith(GUARDED) and not admitted.admits(request.remote or ""):
            return error_response(403, f"{request.remote} may not read this; see the `api_networks` setting")
        return await handler(request)

    return rule


@web.middleware
async def _no_list_of_all(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Of services only those that the client can name."""
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical == "/v2/services":
        named = request.query.getall("name", [])
        streams = request.method == "GET" and listing_http.EVENTS in request.headers.get("Accept", "")
        if not (streams and named and all(named)):
            return error_response(403, f"{CLOSED}: ask for /v2/services/NAME, or a stream of each `name`")
    return await handler(request)


@dataclass(slots=True)
class _Pages:
    """Each page shows the names as they are at that moment."""

    _settings: DnsSettings
    _names: Names
    _looking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """However many ask for nearest names, one look at a time: it takes CPU that queries want."""

    async def records(self, request: web.Request) -> web.Response:
        if not self._settings.enumeration and "name" not in request.query:
            raise web.HTTPForbidden(reason=f"{CLOSED}: say `name`")
        wanted = _filter(request)
        limit = _number(request, "limit", *PAGE)
        zone = self._names.zone
        names = [wanted.name] if wanted.name is not None else list(zone.names)
        found: list[tuple[str, bytes]] = []
        closed = view_of(request, self._names).closed
        for at in range(0, len(names), SLICE):
            found += paging.fitting(zone, [name for name in names[at : at + SLICE] if not closed(name)], wanted)
            await asyncio.sleep(0)
        page = (await asyncio.to_thread(sorted, found))[:limit]
        if wanted.name is not None and not page and wanted.after == "":
            await self._missing(wanted.name, wanted.kind, closed)
        rows = paging.rows(zone, [name for _, name in page], wanted.kind, self._names.authority.ttl_s)
        more = page[-1][0] if len(found) > limit else ""
        return json_response({"serial": self._names.answers.serial, "records": rows, "next": more})

    async def explain(self, request: web.Request) -> web.Response:
        name = _name(request, "name")
        text = wire.text(name)
        kind = _kind(request, "SRV" if text.startswith("_") else "A")
        client = request.query.get("client", "") or request.remote or ""
        if parse(client) is None and "client" in request.query:
            raise web.HTTPBadRequest(reason=f"client: {client[:60]!r} is no address")
        view, reader = self._names.front.views.of(client), view_of(request, self._names)
        admitted, closed = view.query and not view.closed(name), view.closed(name)
        if reader.closed(name) and not closed:
            raise web.HTTPForbidden(reason=closed_words(request.remote or "", reader.closed(name)))
        handler = self._handler(name)
        elsewhere = "" if handler is None or handler is self._names.answers else spoken(handler)
        if elsewhere and self._names.zone.sets(name) and not isinstance(handler, Forwarder):
            elsewhere += f" ({wire.text(self._apex(name))}.zone), which hides what endpoints give"
        question = Question(name=name, kind=kind, client=client, admitted=admitted, elsewhere=elsewhere, closed=closed)
        found = explain(question, self._names.sources, self._names.answers, self._names.snapshot)
        if isinstance(handler, Forwarder) and admitted:
            now_s = asyncio.get_running_loop().time()
            how = forwarded(handler.forwarding, name, kind, recursion=view.recursion, now_s=now_s)
            found = msgspec.structs.replace(found, verdict=how.verdict, says=how.says, forwarded=how)
        if found.verdict == "no such name":
            near = await self._near(text, reader.closed)
            says = (*found.says, f"names like it: {', '.join(near)}") if near else found.says
            found = msgspec.structs.replace(found, near=near, says=says)
        return json_response(found)

    async def history(self, request: web.Request) -> web.Response:
        name = _name(request, "name")
        source, serial = self._source(name)
        journal = source.journal
        memory = history.Memory(journal, source.held(name), source.begun_s)
        if "at" in request.query:
            return json_response(_past(memory, name, request.query["at"]))
        rows = [history.name_row(change, one) for change, one in history.touching(tuple(journal.changes), name)]
        if not rows and not source.exists(name):
            if isinstance(source, StaticSource):
                raise web.HTTPNotFound(reason=f"no such name: {wire.text(name)} is not in its zone's file")
            await self._missing(name, None, view_of(request, self._names).closed)
        now = {"name": wire.text(name), "serial": serial, "begins": _begins(memory)}
        return json_response({**now, "records": history.rows(memory.live), "changes": rows})

    async def changes(self, request: web.Request) -> web.Response:
        if not self._settings.enumeration:
            raise web.HTTPForbidden(reason=CLOSED)
        zone = _name(request, "zone") if "zone" in request.query else self._names.authority.apexes[0]
        source, now = self._source(zone)
        journal = source.journal
        if zone not in self._names.files and zone not in self._names.ledger.journals:
            raise web.HTTPNotFound(reason=f"zone: {wire.text(zone)} is in a zone, but is none")
        since = _number(request, "since", now, SERIALS - 1)
        limit = _number(request, "limit", *CHANGES)
        found = [] if since == now else history.after(tuple(journal.changes), since)
        if found is None:
            begins = journal.changes[0].serial_before if journal.changes else now
            raise web.HTTPGone(reason=f"serial {since} is not remembered: history begins at serial {begins}")
        closed = view_of(request, self._names).closed
        rows = [history.change_row(change, closed) for change in found[:limit]]
        return json_response({"since": since, "serial": now, "changes": rows, "more": len(found) > limit})

    async def status(self, request: web.Request) -> web.Response:
        answers, snapshot = self._names.answers, self._names.snapshot
        shown = self._settings.enumeration and sees_lists(view_of(request, self._names), self._names)
        claims = self._names.sources.claims
        collisions = {name: list(s) for name, s in claims.collisions().items()}
        return json_response(
            {
                "version": version("fairlead"),
                "domain": self._names.rules.domain,
                "serial": answers.serial,
                "revision": snapshot.revision,
                "trust": answers.trust.value if answers.trust else "none",
                "why": snapshot.why,
                "age_s": round(snapshot.age_s, 1),
                "cluster": snapshot.cluster,
                "names": len(self._names.zone.names),
                "services": len(snapshot.members),
                "warming_up": answers.traits.warming,
                "forwarding": self._forwarding(),
                "unreadable": dict(snapshot.bad) if shown else None,
                "collisions": collisions if shown else None,
                "shortened": {who: list(them) for who, them in claims.shortened().items()} if shown else None,
            }
        )

    # --- parts

    def _source(self, name: bytes) -> tuple[LedgerSource | StaticSource, int]:
        """The zone that has the name, and the serial its journal has come to. Raises 404, and 503 while nothing is known."""
        source = self._names.source(name)
        if source is None:
            raise web.HTTPNotFound(reason=f"no history of {wire.text(name)}: it is in no zone of this server")
        soa = source.soa()
        if soa is None:
            raise web.HTTPServiceUnavailable(reason="nothing known of the registry yet")
        return source, serial_of(soa)

    def _handler(self, name: bytes) -> Handler | None:
        """Which part answers for the name."""
        route = self._names.front.routes.get(self._apex(name))
        return None if route is None else route.handler

    def _apex(self, name: bytes) -> bytes:
        """Of the longest route that has the name, or the root."""
        while name not in self._names.front.routes and name != b"\0":
            name = wire.parent(name)
        return name

    def _forwarding(self) -> dict[str, Any] | None:
        """None: nothing is forwarded."""
        handlers = (route.handler for route in self._names.front.routes.values())
        made = next((handler.forwarding for handler in handlers if isinstance(handler, Forwarder)), None)
        if made is None:
            return None
        return {
            "upstreams": [row for group in made.zones.groups.values() for row in rows(group)],
            "in_flight": made.running,
            "queued": len(made.queue),
            "waiting": made.waiting,
            "cached": len(made.cache.entries),
        }

    async def _missing(self, name: bytes, kind: int | None, closed: Closed) -> NoReturn:
        text = wire.text(name)
        if self._names.zone.exists(name):
            raise web.HTTPNotFound(reason=f"{text} exists, but has no {'such ' if kind else ''}record")
        near = await self._near(text, closed)
        raise web.HTTPNotFound(reason=f"no such name: {text}{f'; did you mean {_either(near)}?' if near else ''}")

    async def _near(self, text: str, closed: Closed) -> tuple[str, ...]:
        """In a thread, which lets queries through: it takes a while where there are very many names. None where only who
        knows a name shall get it.
        """
        if not self._settings.enumeration:
            return ()
        async with self._looking:
            known = speakable(self._names.sources)
            near = await asyncio.to_thread(nearest, asked_for(text), known)
            return tuple(each for each in near if not closed(wire.parse_text(each) or b"\0"))


def spoken(handler: Handler) -> str:
    return ELSEWHERE.get(type(handler), "another part of the server")


def _past(memory: history.Memory, name: bytes, text: str) -> dict[str, Any]:
    now_s = time.time()
    try:
        at_s = history.moment(text, now_s=now_s)
    except ValueError as error:
        raise web.HTTPBadRequest(reason=f"at: {error}") from error
    when = history.stamp(at_s)
    if at_s > now_s:
        raise web.HTTPBadRequest(reason=f"at: {when} is in the future")
    found = history.past(memory, name, at_s)
    return {
        "name": wire.text(name),
        "at": when,
        "remembered": found.remembered,
        "begins": _begins(memory),
        "records": history.rows(found.held),
        "since": history.moment_row(found.since),
        "until": history.moment_row(found.until),
    }


def _begins(memory: history.Memory) -> str | None:
    return history.stamp(memory.begins_s) if isfinite(memory.begins_s) else None


def _either(near: Iterable[str]) -> str:
    return " or ".join(near)


def _name(request: web.Request, key: str) -> bytes:
    text = request.query.get(key, "")
    found = wire.parse_text(text.lower()) if text else None
    if found is None:
        raise web.HTTPBadRequest(reason=f"{key}: {text[:100]!r} is no domain name" if text else f"{key}: say which")
    return found


def _kind(request: web.Request, default: str) -> int:
    text = request.query.get("type", "") or default
    found = paging.kind_of(text)
    if found is None:
        raise web.HTTPBadRequest(reason=f"type: {text[:20]!r} is no record type, as A, SRV or TYPE64")
    return found


def _number(request: web.Request, key: str, default: int, most: int) -> int:
    text = request.query.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text[:12]) > most:
        raise web.HTTPBadRequest(reason=f"{key}: {text[:20]!r} is no number from 0 to {most}")
    return int(text)


def _filter(request: web.Request) -> paging.Filter:
    given: Sequence[str] = ("name", "under")
    named = {key: _name(request, key) for key in given if key in request.query}
    return paging.Filter(
        name=named.get("name"),
        under=named.get("under"),
        contains=request.query.get("contains", "").lower(),
        kind=_kind(request, "") if request.query.get("type") else None,
        after=request.query.get("after", ""),
    )

"""Bamboo's REST API. Errors are 400 with a plain text, as Bamboo's clients know them."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.web import json_response
from fairlead_discovery import paths
from fairlead_discovery.policies import Bamboo, path_of
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Delete, Put, Registry
from fairlead_lb.bamboo.book import Book
from fairlead_lb.decisions.acl import Grammar
from fairlead_lb.decisions.bamboo import claims_of
from fairlead_lb.decisions.bamboo_records import asked, shown

Handler = Callable[[web.Request], Awaitable[web.Response]]
CALLBACK = "/api/marathon/event_callback"
CONTENT_TYPES = ("application/json", "application/x-www-form-urlencoded", "")
"""Bamboo looked at none: curl's own, and none at all, come from its users' scripts."""


class Api:
    """`registry` is None until it was opened: writes are refused until then."""

    def __init__(self, book: Book, grammar: Grammar) -> None:
        self.registry: Registry | None = None
        self.counted: Callable[[str], None] = lambda _name: None
        """Told the names of Bamboo's counters."""
        self._book = book
        self._grammar = grammar

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/state", _plain(self.state))
        app.router.add_get("/api/services", _plain(self.services))
        app.router.add_post("/api/services", _plain(self.put))
        app.router.add_put("/api/services/{id:.*}", _plain(self.put))
        app.router.add_delete("/api/services/{id:.*}", _plain(self.delete))
        app.router.add_post(CALLBACK, self.callback)

    async def state(self, _request: web.Request) -> web.Response:
        return json_response({"Apps": self._book.apps(), "Services": self._book.services()})

    async def services(self, _request: web.Request) -> web.Response:
        return json_response(self._book.services())

    async def put(self, request: web.Request) -> web.Response:
        rule = asked(await request.read(), request.match_info.get("id", ""), self._book.framework)
        claims_of(rule.acl, paths.split_service_key(rule.service)[1], self._grammar)
        await self._registry().commit([Put(path_of(rule), encode(rule))])
        self.counted("reload.domain")
        return json_response(shown(rule))

    async def delete(self, request: web.Request) -> web.Response:
        app = f"/{request.match_info['id'].lstrip('/')}"
        service = paths.service_key(self._book.framework, app)
        if not self._book.own(service):
            there = service in self._book.rules()
            why = "stands in Bamboo's own tree, remove it there" if there else "there is no such service"
            return _bad(f"{app}: {why}")
        await self._registry().commit([Delete(path_of(Bamboo(service=service)), missing_ok=True)])
        self.counted("reload.domain")
        return json_response({})

    async def callback(self, _request: web.Request) -> web.Response:
        """Changes come from the registry; a Marathon that still calls back is told what it expects."""
        self.counted("callback.marathon")
        return web.Response(text="Got it!")

    async def ok(self, _request: web.Request) -> web.Response:
        return web.Response(text="OK")

    def _registry(self) -> Registry:
        if self.registry is None:
            raise Unavailable("the registry is not open yet")
        return self.registry


def _plain(handler: Handler) -> Handler:
    async def handled(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except FairleadError as error:
            return _bad(str(error))

    return handled


def _bad(message: str) -> web.Response:
    return web.Response(text=f"{message}\n", status=400)

"""What a browser gets: the page whole, its changes as they come, scripts and styles. All of it under a strict policy."""

import asyncio
from contextlib import suppress

from aiohttp import web

from fairlead_console.web import metrics, render
from fairlead_console.web.board import Board, digests, fresh
from fairlead_console.web.files import Static
from fairlead_console.web.live import Live
from fairlead_daemon.web import error_response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
BEAT_S = 5.0
BEAT = b"event: beat\ndata: \n\n"
"""Tells a page that its connection lives, and us when it does not."""
WRITE_S = 10.0
"""A viewer that does not take what it is sent for so long is let go; it comes back by itself."""


def add_routes(app: web.Application, live: Live, board: Board, *, viewers: int) -> None:
    static = Static()
    pages = Pages(live, board, static, viewers)
    app.router.add_get("/", pages.page)
    app.router.add_get("/events", pages.events)
    app.router.add_get("/static/{name:.+}", static.serve)
    app.on_response_prepare.append(_secure)


async def _secure(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


class Pages:
    """Handlers."""

    def __init__(self, live: Live, board: Board, static: Static, viewers: int) -> None:
        self._live = live
        self._board = board
        self._static = static
        self._viewers = viewers

    async def page(self, _request: web.Request) -> web.Response:
        await self._live.refresh()
        html = render.whole(self._board.render(), files=self._static.addresses)
        return web.Response(text=html, content_type="text/html", headers={"Cache-Control": "no-store"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """All sections once, for the page may be older than this connection; then what changes."""
        if self._live.audience.viewers >= self._viewers:
            return error_response(503, f"{self._viewers} pages are live already (setting viewers)")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        with self._live.audience.viewing():
            await response.prepare(request)
            await self._live.refresh()
            self._board.render()
            with suppress(TimeoutError, ConnectionError):  # gone, or as good as
                await self._push(response)
        return response

    async def _push(self, response: web.StreamResponse) -> None:
        sent: dict[str, str] = {}
        while True:
            changed, shown = self._board.cell.changed, self._board.cell.value
            lacking = fresh(shown, sent)
            async with asyncio.timeout(WRITE_S):
                await response.write(render.event(lacking) if lacking else BEAT)
            sent.update(digests(lacking, shown))
            for part in lacking:
                metrics.pushes.labels(section=part.name.partition("-")[0]).inc()
            await _within(changed, BEAT_S)


async def _within(event: asyncio.Event, wait_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await event.wait()

"""Connections of the HTTP server: none waits for ever for a client, and no client's nonsense fills the log."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from fairlead_daemon.logs import Log

log = Log("web")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a client may take, and how many may wait."""

    silence_s: float = 10.0
    """For a whole head, from its first byte (or the connection's begin); for the next piece of a body."""
    idle_s: float = 75.0
    """Between two requests; longer than any client of ours keeps a connection."""
    strangers: int = 256
    """Connections that have not asked anything yet; over it, the oldest are closed. Those that were answered before
    are not counted: a master keeps one for each of its agents, and nobody may be cut off with a request on its way."""
    settle_s: float = 1.0
    """So long a new connection is left alone: many may come at once, each with its request right behind it."""
    told_every_s: float = 60.0


class Nonsense:
    """What came and was no request: told in a line every so often at most, whoever sends how much."""

    def __init__(self, told_every_s: float) -> None:
        self._told_every_s = told_every_s
        self._count = 0
        self._told_s = 0.0

    def came(self, peer: str | None, why: str) -> None:
        self._count += 1
        if not self._told_s or time.monotonic() - self._told_s > self._told_every_s:
            log.warning("malformed requests", count=self._count, last_from=peer, why=why[:100])
            self._count, self._told_s = 0, time.monotonic()


class Connections:
    """Every connection is either waiting for a request, or serves one."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: dict[Handler, float] = {}
        self._begun: dict[Handler, float] = {}
        """Of those that wait: since when a head is under way."""
        self._strangers: dict[Handler, float] = {}
        """Of those that wait: since when, oldest first, the ones that never got as far as a request."""
        self._serving: dict[Handler, tuple[web.BaseRequest, float]] = {}
        self.nonsense = Nonsense(limits.told_every_s)
        self.idle_s = limits.idle_s

    def opened(self, handler: "Handler") -> None:
        now_s = time.monotonic()
        self._waiting[handler] = self._begun[handler] = self._strangers[handler] = now_s
        for other in self._too_many(now_s):
            other.cut()

    def heard(self, handler: "Handler") -> None:
        if handler in self._serving:
            self._serving[handler] = (self._serving[handler][0], time.monotonic())
        elif handler in self._waiting:
            self._begun.setdefault(handler, time.monotonic())

    def closed(self, handler: "Handler") -> None:
        for table in (self._waiting, self._begun, self._strangers, self._serving):
            table.pop(handler, None)

    def _too_many(self, now_s: float) -> list["Handler"]:
        surplus = max(0, len(self._strangers) - self._limits.strangers)
        return [
            h for h, since_s in islice(self._strangers.items(), surplus) if now_s - since_s >= self._limits.settle_s
        ]

    @property
    def middleware(self) -> Any:
        @web.middleware
        async def watch(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            connection = request.protocol
            if not isinstance(connection, Handler) or connection not in self._waiting:
                return await handler(request)
            del self._waiting[connection]
            self._begun.pop(connection, None)
            self._strangers.pop(connection, None)
            self._serving[connection] = (request, time.monotonic())
            try:
                return await handler(request)
            finally:
                if self._serving.pop(connection, None) is not None:
                    self._waiting[connection] = time.monotonic()

        return watch

    async def sweeping(self, _app: web.Application) -> AsyncIterator[None]:
        """For an application's `cleanup_ctx`."""
        task = asyncio.create_task(self._sweep())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._limits.silence_s / 4))
            for handler in self._overdue(time.monotonic()):
                handler.cut()

    def _overdue(self, now_s: float) -> list["Handler"]:
        silence_s, idle_s = self._limits.silence_s, self._limits.idle_s
        found = self._too_many(now_s)
        found += [h for h, since_s in self._begun.items() if now_s - since_s > silence_s]
        found += [h for h, since_s in self._waiting.items() if now_s - since_s > idle_s and h not in self._begun]
        late = [(h, r) for h, (r, heard_s) in self._serving.items() if now_s - heard_s > silence_s]
        return found + [h for h, request in late if not request.content.is_eof() and h.reads]


class Forgiving(web.RequestHandler):
    """One connection. The client's mistakes are its own: an answer, and no traceback."""

    __slots__ = ("_nonsense",)

    def __init__(self, server: web.Server, nonsense: Nonsense, *, idle_s: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=idle_s,
            access_log=None,  # type: ignore[arg-type]  # None is no log, as aiohttp itself passes it
        )
        self._nonsense = nonsense

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Aiohttp's own word on what is no request; nothing of ours has seen it."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        why = (
            " ".join(str(message or exc or "not an HTTP request").split()).encode("ascii", "backslashreplace").decode()
        )
        self._nonsense.came(request.remote, why)
        response = web.Response(
            status=status, body=msgspec.json.encode({"message": why}), content_type="application/json"
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **how: Any) -> None:
        """What aiohttp finds in a body while it reads on after the answer is nonsense too."""
        if isinstance(how.get("exc_info"), web.RequestPayloadError | HttpProcessingError):
            peer = self.transport.get_extra_info("peername") if self.transport is not None else None
            self._nonsense.came(peer[0] if peer else None, "a body that is not what its head says")
        else:
            super().log_exception(*args, **how)


class Handler(Forgiving):
    """One connection that is watched."""

    __slots__ = ("_connections",)

    def __init__(self, server: web.Server, connections: Connections) -> None:
        super().__init__(server, connections.nonsense, idle_s=connections.idle_s)
        self._connections = connections

    @property
    def reads(self) -> bool:
        """Whether the client's bytes are awaited: not while what it has sent already is being worked off."""
        return isinstance(self.transport, asyncio.ReadTransport) and self.transport.is_reading()

    def cut(self) -> None:
        self._connections.closed(self)
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._connections.heard(self)
        super().data_received(data)


class Site(web.BaseSite):
    """A listening socket whose connections are watched."""

    def __init__(self, runner: web.AppRunner, connections: Connections, address: tuple[str, int]) -> None:
        super().__init__(runner, backlog=1024)
        self._connections = connections
        self._address = address

    @property
    def name(self) -> str:
        return f"http://{self._address[0]}:{self._address[1]}"

    async def start(self) -> None:
        """Raises OSError when it cannot listen."""
        await super().start()
        server = self._runner.server
        assert server is not None, "the runner is set up"
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Handler(server, self._connections), *self._address, backlog=self._backlog, reuse_address=True
        )

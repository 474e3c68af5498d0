"""The HTTP server of every daemon: access checks, `/health`, `/ready`, `/metrics`, errors in words."""

import gc
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from fairlead_daemon.connections import Connections, Limits, Site
from fairlead_daemon.decisions import access
from fairlead_daemon.errors import BadSettings, Conflict, FairleadError, Refused, Unavailable, Unsafe
from fairlead_daemon.logs import Log
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.tokens import ensure_token

log = Log("web")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STATUS: tuple[tuple[type[FairleadError], int], ...] = (
    (BadSettings, 400),
    (Conflict, 409),
    (Refused, 422),
    (Unsafe, 409),
    (Unavailable, 503),
)
BODY_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Health:
    """Why a daemon is not ready: `health.waits["registry"] = "out of sight since 3 s"`; empty is ready."""

    waits: dict[str, str] = field(default_factory=dict)
    _was_ready: bool = False

    def wait(self, what: str, why: str) -> None:
        self.waits[what] = why

    def ready(self, what: str) -> None:
        """What is known when the first time nothing is waited for is frozen: it lives for long, and a full collection of the
        names of 30,000 endpoints takes 100 ms, of the routes of 2,000 30 ms, in which nobody is answered.
        """
        self.waits.pop(what, None)
        if not self.waits and not self._was_ready:
            self._was_ready = True
            gc.freeze()


def make_app(
    settings: DaemonSettings,
    health: Health,
    *,
    content_types: Collection[str] = ("application/json",),
    own_proof: Collection[str] = (),
    closed: tuple[str, ...] = (),
) -> web.Application:
    """An application with the common pages and checks; the daemon adds its own routes.

    Writes to paths in `own_proof` need no token: their handlers check who calls by other means. Reads of paths that
    begin with one of `closed` need it as writes do.
    """
    rules = access.Rules(
        names=our_names(settings),
        token=ensure_token(settings),
        content_types=content_types,
        own_proof=own_proof,
        closed=closed,
    )
    app = web.Application(middlewares=[_errors, _checker(rules)], client_max_size=BODY_LIMIT_BYTES)

    async def healthy(_request: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def ready(_request: web.Request) -> web.Response:
        return json_response({"ready": not health.waits, "waits": health.waits}, status=503 if health.waits else 200)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/health", healthy)
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", metrics)
    return app


def our_names(settings: DaemonSettings) -> frozenset[str]:
    host = socket.gethostname()
    return frozenset(
        n.lower() for n in ("localhost", host, host.partition(".")[0], settings.host, *settings.hosts) if n
    )


def json_response(value: object, *, status: int = 200) -> web.Response:
    """Compact JSON; structs are encoded by their own rules."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def error_response(status: int, message: str) -> web.Response:
    return json_response({"message": message}, status=status)


def _checker(rules: access.Rules) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        denied = access.judge(_as_request(request), rules)
        if denied is None:
            return await handler(request)
        headers = {"WWW-Authenticate": 'Basic realm="fairlead"'} if denied.status == 401 else {}
        response = error_response(denied.status, denied.message)
        response.headers.update(headers)
        return response

    return check


def _as_request(request: web.Request) -> access.Request:
    return access.Request(
        method=request.method,
        path=request.path,
        host=request.headers.get("Host", ""),
        origin=request.headers.get("Origin", ""),
        content_type=request.headers.get("Content-Type", ""),
        has_body=bool(request.content_length) or "Transfer-Encoding" in request.headers,
        authorization=request.headers.get("Authorization", ""),
        token_query=request.query.get("token", ""),
    )


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400 or error.content_type == "application/json":
            raise
        return error_response(error.status, error.reason)
    except msgspec.DecodeError as error:
        return error_response(400, f"body: {error}")
    except web.RequestPayloadError as error:
        return error_response(400, f"body: {error}")
    except FairleadError as error:
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
        return error_response(status, str(error))
    except Exception:  # the last line of defence: a bug in one page must not end the daemon
        log.exception("page failed", path=request.path)
        return error_response(500, "internal error; the daemon's log has the details")


async def serve(
    app: web.Application, settings: DaemonSettings, *, option: str = "port", limits: Limits | None = None
) -> tuple[web.AppRunner, int]:
    """Starts listening; returns the runner (await its cleanup()) and the bound port.

    Raises BadSettings naming port and option when another process holds it.
    """
    connections = Connections(limits or Limits())
    app.middlewares.insert(0, connections.middleware)
    app.cleanup_ctx.append(connections.sweeping)
    runner = web.AppRunner(app, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    site = Site(runner, connections, (settings.host, settings.port))
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise BadSettings(
            f"{option}: cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        ) from error
    port: int = runner.addresses[0][1]
    return runner, port

"""A standby passes requests on to the leading scheduler, once."""

import asyncio
from collections.abc import Iterable

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware

from fairlead_core.services.rest.answers import DESK
from fairlead_daemon.web import Handler, error_response

OWN_PATHS = frozenset({"/ping", "/health", "/ready", "/metrics", "/v2/leader"})
VIA = "X-Fairlead-Via"
PASSED = ("Accept", "Authorization", "Content-Type", "Origin")
FIRST_ANSWER_S = 30.0


def proxy(session: aiohttp.ClientSession) -> Middleware:
    """What only the leader can answer is asked of it; without one, 503 says so."""

    @web.middleware
    async def passing(request: web.Request, handler: Handler) -> web.StreamResponse:
        desk = request.app[DESK]
        if desk.term is not None or request.path in OWN_PATHS:
            return await handler(request)
        if not desk.leader or desk.leader == desk.own or VIA in request.headers:
            return error_response(503, "no leading scheduler is known; see /ready")
        return await _pass_on(session, request, desk.leader)

    return passing


async def _pass_on(session: aiohttp.ClientSession, request: web.Request, leader: str) -> web.StreamResponse:
    headers = {name: request.headers[name] for name in PASSED if name in request.headers} | {VIA: "standby"}
    data = await request.read() or None
    try:
        async with asyncio.timeout(FIRST_ANSWER_S):
            answer = await session.request(
                request.method, f"http://{leader}{request.path_qs}", data=data, headers=headers, allow_redirects=False
            )
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return error_response(503, f"leader {leader}: {error or type(error).__name__}")
    try:
        response = web.StreamResponse(status=answer.status, headers=dict(_kept(answer.headers.items())))
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    except (aiohttp.ClientError, OSError):
        answer.close()
        raise
    finally:
        answer.release()
    return response


def _kept(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((k, v) for k, v in headers if k.lower() in {"content-type", "cache-control", "location"})

"""Rings over HTTP, as `fairlead ring` has them: owners, what moves, balance; joins, leaves and weights by hand-over.

GET    /v2/rings   /v2/rings/{service}[?index=VERSION&wait=30s]   …/owners?key=…   …/balance   …/diff?join=n=2&leave=m&weigh=k=3
POST   /v2/rings   …/members   …/members/{name}/ready   …/members/{name}/cancel   …/settle
PUT    …/members/{name}     DELETE …/members/{name}[?dead=true]   …

A service's name is percent-encoded where it has slashes. What reads finds a ring by any name of its service. A ring that was not made is that of the published endpoints.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from fairlead_daemon.errors import BadSettings, Refused, Unavailable
from fairlead_daemon.web import error_response, json_response
from fairlead_discovery import metrics, paths
from fairlead_discovery.decisions import membership as m
from fairlead_discovery.decisions import ring_answers as answers
from fairlead_discovery.decisions.listing import seconds, version
from fairlead_discovery.decisions.membership import Membership, RingMember
from fairlead_discovery.decisions.nearest import nearest
from fairlead_discovery.decisions.service_names import Naming
from fairlead_discovery.records import decode
from fairlead_discovery.registry import Registry
from fairlead_discovery.rings import (
    NoRing,
    change_ring,
    create_ring,
    find_ring,
    read_ring,
    remove_ring,
    ring_or_endpoints,
)

LONGEST_S = 300.0
ANSWER_S = 10.0
WATCHERS = 1000
"""Most long polls at a time."""
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Made(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v2/rings."""

    service: str
    slots: int = Membership(service="").slots
    points: int = Membership(service="").points
    replicas: int = 1
    bound_percent: int = 100


class Joining(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST …/members."""

    name: str
    weight: float = 1.0
    machine: str = ""
    rack: str = ""
    zone: str = ""


class Weighed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT …/members/{name}."""

    weight: float


class Ready(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST …/ready: which version's data the member has."""

    version: int


def add_ring_routes(app: web.Application, registry: Registry, naming: Naming = Naming()) -> None:  # noqa: B008  # frozen
    """Below /v2/rings. Writes go straight to the registry; who may write, the application's own checks say."""
    site = _Rings(registry, naming)
    member = "/v2/rings/{service}/members/{name}"
    for method, path, handler in (
        ("GET", "/v2/rings", site.every),
        ("POST", "/v2/rings", site.create),
        ("GET", "/v2/rings/{service}", site.one),
        ("DELETE", "/v2/rings/{service}", site.destroy),
        ("GET", "/v2/rings/{service}/owners", site.owners),
        ("GET", "/v2/rings/{service}/balance", site.balance),
        ("GET", "/v2/rings/{service}/diff", site.diff),
        ("POST", "/v2/rings/{service}/settle", site.settle),
        ("POST", "/v2/rings/{service}/members", site.join),
        ("PUT", member, site.weigh),
        ("DELETE", member, site.leave),
        ("POST", f"{member}/ready", site.ready),
        ("POST", f"{member}/cancel", site.cancel),
    ):
        app.router.add_route(method, path, site.worded(handler))
        if method == "GET":
            app.router.add_route("HEAD", path, site.worded(handler))


class _Rings:
    def __init__(self, registry: Registry, naming: Naming) -> None:
        self._registry = registry
        self._naming = naming
        self._watchers = 0

    def worded(self, handler: Handler) -> Handler:
        async def worded(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except NoRing as error:
                near = nearest(request.match_info["service"], await self._names())
                return error_response(404, str(error) + (f"; did you mean {' or '.join(near)}?" if near else ""))
            except TimeoutError as error:
                raise Unavailable(f"the registry does not answer within {ANSWER_S:g} s") from error

        return worded

    # --- reading

    async def every(self, _request: web.Request) -> web.Response:
        rows: list[dict[str, Any]] = []
        for service in await self._names():
            try:
                found = await self._read(service)
            except NoRing:
                continue  # destroyed meanwhile
            except Refused as error:
                rows.append({"service": service, "problem": str(error)})
                continue
            rows.append(
                {
                    "service": service,
                    "version": found.version,
                    "members": len(found.members),
                    "pending": found.pending,
                }
            )
        return json_response({"rings": rows})

    async def one(self, request: web.Request) -> web.Response:
        index, wait = request.query.get("index", ""), request.query.get("wait", "")
        known = version(index) if index or wait else -1
        service = request.match_info["service"]
        found = await self._find(service) if index else await self._either(request)
        if wait and found.version == known:
            found = await self._after(found, known, min(LONGEST_S, seconds(wait)))
        return json_response(answers.told_members(found))

    async def owners(self, request: web.Request) -> web.Response:
        keys = request.query.getall("key", [])
        if not keys:
            raise BadSettings("key: give one or more, as ?key=user:42")
        return json_response(answers.told_owners(await self._either(request), keys))

    async def balance(self, request: web.Request) -> web.Response:
        return json_response(answers.told_balance(await self._either(request)))

    async def diff(self, request: web.Request) -> web.Response:
        plan = answers.Plan(
            joins=answers.weights(request.query.getall("join", []), what="join", default=1.0),
            leaves=request.query.getall("leave", []),
            weights=answers.weights(request.query.getall("weigh", []), what="weigh"),
        )
        before = await self._either(request)
        return json_response(answers.told_moves(before, answers.planned(before, plan)))

    async def _names(self) -> list[str]:
        async with asyncio.timeout(ANSWER_S):
            return [paths.unescape(name) for name in await self._registry.tree.names(paths.RINGS)]

    async def _read(self, service: str) -> Membership:
        async with asyncio.timeout(ANSWER_S):
            return await read_ring(self._registry, service)

    async def _find(self, service: str) -> Membership:
        async with asyncio.timeout(ANSWER_S):
            return await find_ring(self._registry, service, naming=self._naming)

    async def _either(self, request: web.Request) -> Membership:
        async with asyncio.timeout(ANSWER_S):
            return await ring_or_endpoints(self._registry, request.match_info["service"], naming=self._naming)

    async def _after(self, found: Membership, version: int, wait_s: float) -> Membership:
        """Another version, or what there is when the wait is over."""
        if self._watchers >= WATCHERS:
            metrics.watchers_refused.inc()
            raise Unavailable(f"{WATCHERS} watchers wait for rings already")
        self._watchers += 1
        metrics.watchers.inc()
        try:
            async with (
                asyncio.timeout(wait_s),
                aclosing(self._registry.follow(paths.RINGS)) as looks,  # type: ignore[type-var]  # a generator
            ):
                async for nodes in looks:
                    node = nodes.get(paths.escape(found.service))
                    if node is None:
                        raise NoRing(f"no ring is called {found.service} any more")
                    found = decode(Membership, node.data, place=found.service)
                    if found.version != version:  # a ring made anew begins at 1
                        break
        except TimeoutError:
            pass
        finally:
            self._watchers -= 1
            metrics.watchers.dec()
        return found

    # --- changing

    async def create(self, request: web.Request) -> web.Response:
        body = await _body(request, Made)
        made = Membership(**msgspec.structs.asdict(body))
        async with asyncio.timeout(ANSWER_S):
            await create_ring(self._registry, made)
        return json_response(answers.told_members(made), status=201)

    async def destroy(self, request: web.Request) -> web.Response:
        async with asyncio.timeout(ANSWER_S):
            await remove_ring(self._registry, request.match_info["service"])
        return json_response({"service": request.match_info["service"], "destroyed": True})

    async def join(self, request: web.Request) -> web.Response:
        member = RingMember(**msgspec.structs.asdict(await _body(request, Joining)))
        return await self._changed(request, lambda before: m.join(before, member))

    async def weigh(self, request: web.Request) -> web.Response:
        weight, name = (await _body(request, Weighed)).weight, request.match_info["name"]
        return await self._changed(request, lambda before: m.weigh(before, name, weight))

    async def leave(self, request: web.Request) -> web.Response:
        go = LEAVES.get(request.query.get("dead", "false"))
        if go is None:
            raise BadSettings(f"dead: {request.query['dead']!r} is neither true nor false")
        return await self._changed(request, lambda before: go(before, request.match_info["name"]))

    async def ready(self, request: web.Request) -> web.Response:
        version, name = (await _body(request, Ready)).version, request.match_info["name"]
        return await self._changed(request, lambda before: m.ready(before, name, version=version))

    async def cancel(self, request: web.Request) -> web.Response:
        return await self._changed(request, lambda before: m.cancel(before, request.match_info["name"]))

    async def settle(self, request: web.Request) -> web.Response:
        return await self._changed(request, m.settle)

    async def _changed(self, request: web.Request, change: Callable[[Membership], Membership]) -> web.Response:
        async with asyncio.timeout(ANSWER_S):
            after = await change_ring(self._registry, request.match_info["service"], change)
        return json_response(answers.told_members(after))


LEAVES: Mapping[str, Callable[[Membership, str], Membership]] = {"false": m.leave, "true": m.remove}
"""By whether it is dead: in order, or at once, without hand-over."""


async def _body(request: web.Request, kind: type[T]) -> T:
    """Raises msgspec's error, which names the place: answered with 400."""
    found: Any = msgspec.json.decode(await request.read(), type=kind)
    assert isinstance(found, kind)
    return found

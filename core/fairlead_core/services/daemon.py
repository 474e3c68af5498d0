"""`fairlead services`: stands for election, and schedules while it leads; answers HTTP always."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

import aiohttp
import msgspec

from fairlead_core.services import metrics
from fairlead_core.services.adapters.store import Store
from fairlead_core.services.changes import Changes
from fairlead_core.services.connection import Masters, stay_subscribed
from fairlead_core.services.events import Events
from fairlead_core.services.rest import apps, cluster
from fairlead_core.services.rest.answers import DESK, Desk, marathon_errors
from fairlead_core.services.rest.proxy import proxy
from fairlead_core.services.settings import ServicesSettings, port_rules
from fairlead_core.services.term import Term
from fairlead_daemon.client import make_session
from fairlead_daemon.errors import Conflict, FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.tokens import token_path
from fairlead_daemon.web import make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.audience import ttls
from fairlead_discovery.backends import open_registry
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Cluster, decode
from fairlead_discovery.registry import Guard, Registry, Standing
from fairlead_discovery.snapshots import Trust

ROLE = "services"
RETRY_S = 0.5
log = Log("services")


class Scheduler:
    """The process: one desk for HTTP, one term at a time."""

    def __init__(
        self, settings: ServicesSettings, context: Context, registry: Registry, session: aiohttp.ClientSession
    ) -> None:
        self.desk = Desk(settings=settings, events=Events())
        self._settings = settings
        self._context = context
        self._registry = registry
        self._session = session
        self._masters = Masters(settings)
        self._group: asyncio.TaskGroup | None = None
        self._term: asyncio.Task[None] | None = None
        self._epoch = 0
        self._held = ""
        self._cluster = ""
        self._seen = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        self._context.health.wait("leader", "no leading scheduler is known")
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._stand())
            group.create_task(self._follow_masters())
            group.create_task(self._follow_name_servers())
            group.create_task(self._follow_trust())

    async def _follow_masters(self) -> None:
        async for _ in _for_ever():
            with suppress(Unavailable):
                await self._masters.follow(self._registry)
                return
            await asyncio.sleep(RETRY_S)

    async def _follow_name_servers(self) -> None:
        refused: dict[str, str] = {}
        async for nodes in self._registry.follow(paths.NAME_SERVERS):
            announced, refused = ttls(nodes, refused)
            self.desk.largest_ttl_s = math.ceil(max(announced.values(), default=0.0))

    async def _follow_trust(self) -> None:
        """Nothing is decided on a reading that is not to be believed: it could look like "no apps, end everything"."""
        keep = Path(self._settings.data_dir) / "services.snapshot"
        async with aclosing(snapshots(self._registry, keep=keep)) as found:  # type: ignore[type-var]  # a generator
            async for snapshot in found:
                held = snapshot.trust is Trust.HELD
                why = f"the registry is not believed: {snapshot.why}; see `fairlead registry confirm`" if held else ""
                self._held = why
                if snapshot.trust is Trust.LIVE:
                    self._cluster = snapshot.cluster
                    self._seen.set()
                if self.desk.term is not None:
                    self.desk.term.hold(why)
                if why:
                    self._context.health.wait("registry", why)
                else:
                    self._context.health.ready("registry")

    async def _believe(self) -> None:
        """Raises Unavailable while the registry we read is not the one we knew, or is held."""
        if self._held:
            raise Unavailable(self._held)
        node = await self._registry.read(paths.CLUSTER)
        cluster = decode(Cluster, node.data, place=paths.CLUSTER).uuid if node is not None else ""
        if cluster != self._cluster:
            raise Unavailable(f"the registry is of cluster {cluster or 'unknown'}, not yet believed")

    async def _stand(self) -> None:
        data = msgspec.json.encode({"address": self.desk.own})
        try:
            async with aclosing(self._registry.campaign(ROLE, data)) as standings:  # type: ignore[type-var]  # it is an async generator
                async for standing in standings:
                    await self._on_standing(standing)
        finally:
            await self._end_term()

    async def _on_standing(self, standing: Standing) -> None:
        self.desk.leader = _address(standing.leader)
        metrics.leading.set(standing.leading)
        if standing.leading and self._term is not None and not self._term.done() and standing.epoch == self._epoch:
            return
        await self._end_term()
        if standing.leading:
            assert self._group is not None
            self._epoch = standing.epoch
            self._term = self._group.create_task(self._lead(Guard(ROLE, standing.epoch)))
            return
        if self.desk.leader:
            self._context.health.ready("leader")
            self._context.health.ready("master")
        else:
            self._context.health.wait("leader", "no leading scheduler is known")

    async def _end_term(self) -> None:
        term, self._term = self._term, None
        self.desk.term = None
        if term is not None:
            term.cancel()
            await asyncio.wait([term])

    async def _lead(self, guard: Guard) -> None:
        """One term, begun anew after troubles with the registry; ends when another leads."""
        over, why = False, ""
        while not over:
            try:
                await self._serve_term(guard)
            except* Conflict as group:
                log.warning("leadership lost", epoch=guard.epoch, why=_first(group))
                self._context.health.wait("leader", "leadership was lost; standing for election")
                over = True
            except* FairleadError as group:
                if why != (why := _first(group)):
                    log.warning("term broken off", epoch=guard.epoch, why=why)
                self._context.health.wait("leader", why)
            finally:
                self.desk.term = None
            await self._pause()

    async def _pause(self) -> None:
        """Until the registry has been seen again, at most RETRY_S."""
        self._seen.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._seen.wait()

    async def _serve_term(self, guard: Guard) -> None:
        store = Store(self._registry, guard)
        await self._believe()
        stored = await store.load()
        term = Term(self._settings, store, stored, self.desk.events)
        log.info("leading", epoch=guard.epoch, apps=len(stored.apps), framework=stored.framework_id or "new")
        self.desk.term = term
        self._context.health.ready("leader")
        async with asyncio.TaskGroup() as group:
            group.create_task(term.run())
            changes = Changes(term, largest_ttl_s=self.desk.largest_ttl_s)
            group.create_task(term.perform(changes.restore_routes))
            group.create_task(stay_subscribed(term, self._masters, self._session, self._context.health))


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


async def _for_ever() -> AsyncIterator[None]:
    while True:
        yield


def _address(data: bytes | None) -> str:
    try:
        return str(msgspec.json.decode(data)["address"]) if data else ""
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""


async def run(settings: ServicesSettings, context: Context) -> None:
    """Tasks run on when it ends."""
    port_rules(settings)
    registry = await open_registry(settings.registry)
    session = make_session(token_path(settings))
    try:
        scheduler = Scheduler(settings, context, registry, session)
        app = make_app(settings, context.health)
        app[DESK] = scheduler.desk
        app.middlewares.append(marathon_errors)
        app.middlewares.append(proxy(session))
        apps.add_routes(app)
        cluster.add_routes(app)
        runner, port = await serve(app, settings)
        scheduler.desk.own = scheduler.desk.leader = f"{settings.host}:{port}"
        scheduler.desk.leader = ""
        log.info("listening", host=settings.host, port=port)
        try:
            await until_stopped(context, scheduler.run())
        finally:
            await runner.cleanup()
    finally:
        await session.close()
        await registry.close()


DAEMON = Daemon(
    name="services",
    summary="Schedules long-running services; speaks Marathon's REST v2.",
    settings=ServicesSettings,
    run=run,
)

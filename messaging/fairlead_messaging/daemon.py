"""`fairlead messaging`: keeps topologies applied, and tells which federation links do not run."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from fairlead_daemon.client import make_session
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.web import json_response, make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Node, Registry
from fairlead_messaging.adapters import topology_file
from fairlead_messaging.decisions.declared import Topology
from fairlead_messaging.decisions.finding import Members
from fairlead_messaging.keeping import located
from fairlead_messaging.reconciler import Reconciler
from fairlead_messaging.settings import MessagingSettings

log = Log("messaging")
REGISTRY = "registry"


class Watch:
    """Every topology there is, one reconciler each; the registry's documents and services as they change."""

    def __init__(self, settings: MessagingSettings, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._members: Members = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._documents: Mapping[str, Node] = {}
        self.reconcilers: dict[str, Reconciler] = {}
        self.crash: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """A bug in a reconciler: whoever awaits it ends the daemon, and is started again."""
        self.bad: dict[str, str] = {}
        """Documents that cannot be read, and why; what they said before goes on."""

    def take_files(self) -> None:
        """Raises BadSettings: at the start a person is there to read it."""
        for text in self._settings.topologies:
            file = Path(text)
            topology = topology_file.load(file)
            if topology.name in self.reconcilers:
                other = self.reconcilers[topology.name].source
                raise BadSettings(f"topologies: {file}: name {topology.name} is {other}'s already")
            self._begin(topology, str(file), file.parent)

    def take_documents(self, nodes: Mapping[str, Node]) -> None:
        """What is handed over in the registry, by node name. One that is wrong changes nothing but the status."""
        before, self._documents = self._documents, nodes
        for name in before.keys() - nodes.keys():
            self.bad.pop(paths.unescape(name), None)
            self._end(paths.unescape(name), REGISTRY)
        for name, node in nodes.items():
            if name not in before or before[name].data != node.data:
                self._take_document(paths.unescape(name), node.data)

    def _take_document(self, name: str, data: bytes) -> None:
        self.bad.pop(name, None)
        try:
            topology = self._read_document(name, data)
        except BadSettings as error:
            self.bad[name] = str(error)
            log.warning("topology not taken", name=name, why=str(error))
            return
        self._end(name, REGISTRY)
        self._begin(topology, REGISTRY, Path("/"))

    def _read_document(self, name: str, data: bytes) -> Topology:
        place = f"{paths.TOPOLOGY}/{name}"
        topology = topology_file.parse(data, where=place)
        if topology.name != name:
            raise BadSettings(f"{place}: name: {topology.name} is not the document's")
        standing = self.reconcilers.get(name)
        if standing is not None and standing.source != REGISTRY:
            raise BadSettings(f"{place}: name: {name} is {standing.source}'s already")
        topology_file.logins(topology, Path("/"))
        return topology

    def take_members(self, members: Members) -> None:
        """Brokers may have moved."""
        self._members = members
        for name, reconciler in self.reconcilers.items():
            if any(broker.service for broker in reconciler.settings.brokers.values()):
                self._changed[name].set()

    def _begin(self, topology: Topology, source: str, folder: Path) -> None:
        logins = topology_file.logins(topology, folder)
        reconciler = Reconciler(
            topology, source, lambda: located(topology, logins, self._members), repair=self._settings.repair
        )
        changed = asyncio.Event()
        self.reconcilers[topology.name] = reconciler
        self._changed[topology.name] = changed
        body = reconciler.run(self._session, self._settings.every_s, changed)
        task = asyncio.get_running_loop().create_task(body)
        task.add_done_callback(self._crashed)
        self._tasks[topology.name] = task

    def _end(self, name: str, source: str) -> None:
        """The reconciler, not what it made."""
        reconciler = self.reconcilers.get(name)
        if reconciler is not None and reconciler.source == source:
            del self.reconcilers[name], self._changed[name]
            self._tasks.pop(name).cancel()

    def _crashed(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self.crash.done():
            self.crash.set_exception(error)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def status(self) -> dict[str, Any]:
        """`links` is every link of every broker, once: topologies may share brokers."""
        links = {
            (view.place.management, judged.broker, judged.link): judged.as_json()
            for reconciler in self.reconcilers.values()
            for view in reconciler.report.views
            for judged in reconciler.report.links
            if judged.broker == view.broker
        }
        return {
            "topologies": [reconciler.as_json() for _, reconciler in sorted(self.reconcilers.items())],
            "bad": dict(sorted(self.bad.items())),
            "links": list(links.values()),
        }


async def run(settings: MessagingSettings, context: Context) -> None:
    """See Daemon. Raises BadSettings before anything is served."""
    app = make_app(settings, context.health)
    async with make_session() as session:
        watch = Watch(settings, session)
        watch.take_files()

        async def status(_request: web.Request) -> web.Response:
            return json_response(watch.status())

        app.router.add_get("/status", status)
        runner, port = await serve(app, settings)
        registry = await open_registry(settings.registry)
        log.info("listening", http=f"{settings.host}:{port}", topologies=len(watch.reconcilers))
        try:
            await until_stopped(
                context, _follow_documents(registry, watch), _follow_services(registry, settings, watch)
            )
        finally:
            await watch.close()
            await registry.close()
            await runner.cleanup()


async def _follow_documents(registry: Registry, watch: Watch) -> None:
    async for nodes in registry.follow(paths.TOPOLOGY):
        watch.take_documents(nodes)


async def _follow_services(registry: Registry, settings: MessagingSettings, watch: Watch) -> None:
    keep = Path(settings.data_dir) / "messaging.snapshot"
    async with aclosing(snapshots(registry, keep=keep)) as seen:  # type: ignore[type-var]  # it is a generator
        async for snapshot in seen:
            watch.take_members(snapshot.members)


DAEMON = Daemon(
    name="messaging",
    summary="Keeps RabbitMQ brokers as declared, watches their federation links.",
    settings=MessagingSettings,
    run=run,
)

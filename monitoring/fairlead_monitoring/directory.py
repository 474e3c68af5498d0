"""Where the sources are: the registry's word as it changes, the settings' first."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.decisions.election import lowest
from fairlead_discovery.leaders import masters
from fairlead_discovery.records import Agent, Balancer, Progress, decode
from fairlead_discovery.registry import Node, Registry
from fairlead_monitoring.decisions.sources import Known
from fairlead_monitoring.settings import MonitorSettings

log = Log("monitor.sources")
SCHEDULER_ROLE = "services"


class Directory:
    """`changed` is set at every change; whoever acts on it clears it."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._master = ""
        self._services = ""
        self._agents: Mapping[str, str] = {}
        self._balancers: Mapping[str, str] = {}
        self.progress: Mapping[str, int] = {}
        """Applied revision by balancer."""
        self.agent_documents: Iterable[Mapping[str, Any]] = ()
        """What the master wrote down of agents."""
        self.changed = asyncio.Event()

    @property
    def known(self) -> Known:
        told = self._settings
        return Known(
            master=told.master or self._master,
            services=told.services or self._services,
            balancers=self._balancers,
            agents=self._agents,
            dns=told.dns,
            messaging=told.messaging,
            brokers=told.rabbitmq,
            others=told.scrape,
        )

    async def run(self, registry: Registry) -> None:
        """For ever. Out of sight of the registry what was known stays."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_masters(registry))
            for folder, take in self._followed().items():
                group.create_task(self._follow(registry, folder, take))

    def _followed(self) -> Mapping[str, Callable[[Mapping[str, Node]], None]]:
        return {
            paths.election(SCHEDULER_ROLE).rpartition("/")[0]: self._take_schedulers,
            paths.AGENTS: self._take_agents,
            paths.MASTER_AGENTS: self._take_documents,
            paths.BALANCERS: self._take_balancers,
            paths.PROGRESS: self._take_progress,
        }

    async def _follow(self, registry: Registry, folder: str, take: Callable[[Mapping[str, Node]], None]) -> None:
        async for nodes in registry.follow(folder):
            take(nodes)
            self.changed.set()

    async def _follow_masters(self, registry: Registry) -> None:
        async for master in masters(registry):
            if master is not None:  # until the next one leads, the last one is looked for, and is down
                self._master = f"http://{_host(master.address.ip or master.address.hostname)}:{master.address.port}"
            self.changed.set()

    def _take_schedulers(self, nodes: Mapping[str, Node]) -> None:
        leader = lowest(nodes, "c_")
        found: Any = _read(Mapping[str, Any], leader, nodes) if leader is not None else None
        if found and found.get("address"):
            self._services = f"http://{found['address']}"

    def _take_agents(self, nodes: Mapping[str, Node]) -> None:
        """By host name, which people know; by id where two share one."""
        found: list[Agent] = [a for a in (_read(Agent, name, nodes) for name in nodes) if a is not None]
        shared = Counter(a.hostname for a in found)
        names = {a.id: a.hostname if shared[a.hostname] == 1 and a.hostname else a.id for a in found}
        self._agents = {names[a.id]: f"http://{_host(a.host)}:{a.port}" for a in found}

    def _take_documents(self, nodes: Mapping[str, Node]) -> None:
        found = [_read(Mapping[str, Any], name, nodes) for name in nodes]
        self.agent_documents = [d for d in found if d is not None]

    def _take_balancers(self, nodes: Mapping[str, Node]) -> None:
        """Not those of single machines: nobody waits for them, and their pages are their machine's own."""
        found = [b for b in (_read(Balancer, name, nodes) for name in nodes) if b is not None and not b.node]
        self._balancers = {b.id: b.admin if "://" in b.admin else f"http://{b.admin}" for b in found}

    def _take_progress(self, nodes: Mapping[str, Node]) -> None:
        found = {paths.unescape(name): _read(Progress, name, nodes) for name in nodes}
        self.progress = {name: p.applied_revision for name, p in found.items() if p is not None}


def _read(kind: Any, name: str, nodes: Mapping[str, Node]) -> Any:
    """None, and a line in the log, for what cannot be read."""
    try:
        return decode(kind, nodes[name].data, place=name)
    except Refused as error:
        log.warning("unreadable record", why=str(error))
        return None


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def monitor_id(settings: MonitorSettings) -> str:
    return settings.id or f"{socket.gethostname()}-{settings.port}"


def encode_address(settings: MonitorSettings, port: int) -> bytes:
    """What stands in the election: so that verbs find who leads."""
    return msgspec.json.encode({"id": monitor_id(settings), "address": f"{settings.host}:{port}"})


def leader_id(data: bytes) -> str:
    """Of what `encode_address` made; "" when it cannot be read."""
    try:
        return str(msgspec.json.decode(data, type=Mapping[str, str]).get("id", ""))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""

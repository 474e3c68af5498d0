"""Documents that outlive the leader: read once when taking over, written behind while leading."""

import asyncio
import random
from typing import TypeVar

from fairlead_core.master.decisions import documents
from fairlead_core.master.decisions.model import Cluster, Moment
from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Conflict, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.records import Record, decode, encode
from fairlead_discovery.registry import Guard, Registry

log = Log("master.documents")
D = TypeVar("D", bound=Record)
WAIT_S = 15.0


async def read_all(registry: Registry, folder: str, kind: type[D]) -> list[D]:
    """Every readable document of a folder. Raises Unavailable."""
    out: list[D] = []
    for name in await registry.tree.names(folder):
        node = await registry.read(f"{folder}/{name}")
        if node is not None:
            try:
                out.append(decode(kind, node.data, place=f"{folder}/{name}"))
            except Refused as error:
                log.warning("document unreadable", why=str(error))
    return out


async def take_over(registry: Registry, cluster: Cluster, *, now: Moment) -> None:
    """Raises Unavailable."""
    for framework in await read_all(registry, paths.MASTER_FRAMEWORKS, documents.FrameworkDocument):
        documents.take_framework(cluster, framework, now=now)
    for agent in await read_all(registry, paths.MASTER_AGENTS, documents.AgentDocument):
        documents.take_agent(cluster, agent)


class Keeper:
    """Writes what the cluster marked unsaved, until it stands."""

    def __init__(self, registry: Registry, cluster: Cluster, guard: Guard) -> None:
        self.wake = asyncio.Event()
        self._registry = registry
        self._cluster = cluster
        self._guard = guard
        self._backoff = Backoff(first_s=0.2, most_s=5.0)

    async def run(self) -> None:
        attempt = 0
        while True:
            await self.wake.wait()
            self.wake.clear()
            try:
                await self._save_all()
                attempt = 0
            except (Unavailable, Conflict, Refused, TimeoutError) as error:
                log.warning("document not written", why=str(error) or "no answer")
                await asyncio.sleep(self._backoff.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
                self.wake.set()

    async def _save_all(self) -> None:
        cluster = self._cluster
        while cluster.unsaved_frameworks:
            framework_id = next(iter(cluster.unsaved_frameworks))
            framework = cluster.frameworks.get(framework_id)
            data = None if framework is None else encode(documents.framework_document(framework))
            cluster.unsaved_frameworks.discard(framework_id)
            await self._save(cluster.unsaved_frameworks, framework_id, paths.MASTER_FRAMEWORKS, data)
        while cluster.unsaved_agents:
            agent_id = next(iter(cluster.unsaved_agents))
            cluster.unsaved_agents.discard(agent_id)
            data = encode(documents.agent_document(cluster.agents[agent_id]))
            await self._save(cluster.unsaved_agents, agent_id, paths.MASTER_AGENTS, data)

    async def _save(self, unsaved: set[str], name: str, folder: str, data: bytes | None) -> None:
        path = paths.below(folder, name)
        try:
            async with asyncio.timeout(WAIT_S):
                if data is None:
                    await self._registry.remove(path, guard=self._guard)
                else:
                    await self._registry.write(path, data, guard=self._guard)
        except Refused as error:  # it would be refused again
            log.warning("document refused", path=path, why=str(error))
        except BaseException:
            unsaved.add(name)
            raise

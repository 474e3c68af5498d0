"""Who may still send work to what has left: name servers with their TTLs, balancers with their progress."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TypeVar

from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import metrics, paths
from fairlead_discovery.decisions.leaving import NameServers, Readers, seen, ttl_problem
from fairlead_discovery.records import Balancer, NameServer, Progress, decode
from fairlead_discovery.registry import Node, Registry

log = Log("discovery")
T = TypeVar("T")


class Audience:
    """Follows the registry's word about them; calls `changed` at every change."""

    def __init__(self, registry: Registry, changed: Callable[[], None]) -> None:
        self.known = asyncio.Event()
        """Set when each of the three folders was seen once: before that `readers` may lack somebody."""
        self._registry = registry
        self._changed = changed
        self._name_servers = NameServers(announced={})
        self._balancers: frozenset[str] = frozenset()
        self._progress: dict[str, Progress] = {}
        self._refused: Mapping[str, str] = {}
        self._unseen = {paths.NAME_SERVERS, paths.BALANCERS, paths.PROGRESS}

    def bodies(self) -> tuple[Coroutine[None, None, None], ...]:
        return (self.follow_names(), self.follow_balancers(), self.follow_progress())

    def readers(self, *, now_s: float) -> Readers:
        return Readers(
            largest_ttl_s=self._name_servers.largest_ttl_s(now_s=now_s),
            balancers=self._balancers,
            progress=self._progress,
        )

    async def follow_names(self) -> None:
        async for nodes in self._registry.follow(paths.NAME_SERVERS):
            announced, self._refused = ttls(nodes, self._refused)
            self._name_servers = seen(self._name_servers, announced, now_s=time.monotonic())
            self._saw(paths.NAME_SERVERS)

    async def follow_balancers(self) -> None:
        """One that cannot be read counts as one that must drain."""
        async for nodes in self._registry.follow(paths.BALANCERS):
            balancers = _decoded(Balancer, paths.BALANCERS, nodes)
            self._balancers = frozenset(n for n in nodes if n not in balancers or not balancers[n].node)
            self._saw(paths.BALANCERS)

    async def follow_progress(self) -> None:
        async for nodes in self._registry.follow(paths.PROGRESS):
            self._progress = _decoded(Progress, paths.PROGRESS, nodes)
            self._saw(paths.PROGRESS)

    def _saw(self, folder: str) -> None:
        self._unseen.discard(folder)
        if not self._unseen:
            self.known.set()
        self._changed()


def ttls(nodes: Mapping[str, Node], known: Mapping[str, str]) -> tuple[dict[str, float], dict[str, str]]:
    """Largest TTLs by announcement, and why others are not heeded: logged unless `known` says the same."""
    announced: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, node in nodes.items():
        try:
            server = decode(NameServer, node.data, place="")
        except Refused as error:
            refused[name] = str(error).removeprefix(": ")
            continue
        if why := ttl_problem(server):
            refused[name] = why
        else:
            announced[name] = float(server.largest_ttl_s)
    for name, why in refused.items():
        if known.get(name) != why:
            log.warning("name server not heeded", path=f"{paths.NAME_SERVERS}/{name}", why=why)
    metrics.name_servers_refused.set(len(refused))
    return announced, refused


def _decoded(kind: type[T], folder: str, nodes: Mapping[str, Node]) -> dict[str, T]:
    out: dict[str, T] = {}
    for name, node in nodes.items():
        try:
            out[name] = decode(kind, node.data, place=f"{folder}/{name}")
        except Refused as error:
            log.warning("document unreadable", why=str(error))
    return out

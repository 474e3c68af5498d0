"""One leadership: from winning an election to losing it. Owns the cluster and everything that moves it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fairlead_core.agent_protocol import Ping
from fairlead_core.master.adapters import keeping
from fairlead_core.master.adapters.publisher import Publisher
from fairlead_core.master.adapters.streams import Stream
from fairlead_core.master.decisions import agents, allocation, draining, frameworks, killing, plan
from fairlead_core.master.decisions.model import Cluster, Hang, HangAgent, Moment, Order, Send
from fairlead_daemon.errors import FairleadError
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.audience import Audience
from fairlead_discovery.decisions.leaving import Readers
from fairlead_discovery.janitor import Janitor
from fairlead_discovery.records import MasterInfo
from fairlead_discovery.registry import Guard, Registry

ROLE = "master"
ALLOCATE_AFTER_S = 0.001
"""Events of one turn make one allocation."""
TICK_S = 0.1
PING_S = 1.0
STALL_S = 1.0
"""A tick that comes so much too late means that this process slept: silence heard meanwhile proves nothing."""
log = Log("master")


def clock() -> Moment:
    return Moment(s=time.monotonic(), wall_s=time.time())


@dataclass(slots=True)
class Rhythm:
    """When the things that happen every so often happen next."""

    due_s: dict[str, float] = field(default_factory=dict)

    def is_time(self, what: str, every_s: float, now_s: float) -> bool:
        if now_s < self.due_s.get(what, 0.0):
            return False
        self.due_s[what] = now_s + every_s
        return True


class Leadership:
    """`settle()` after every event: it performs the effects and wakes whoever has work."""

    def __init__(self, registry: Registry, info: MasterInfo, cluster: Cluster, *, weights: Mapping[str, float]) -> None:
        self.cluster = cluster
        self.info = info
        self.streams: dict[str, Stream] = {}
        self.began = clock()
        self._registry = registry
        self._weights = weights
        self._guard = Guard(ROLE, cluster.epoch)
        self._publisher = Publisher(registry, cluster, self._guard, clock=clock, settle=self.settle)
        self._keeper = keeping.Keeper(registry, cluster, self._guard)
        self._allocation: asyncio.TimerHandle | None = None
        self._audience = Audience(registry, self._audience_changed)
        self._announced: frozenset[str] = frozenset()
        self._rhythm = Rhythm()
        self._last_tick_s = self.began.s

    async def run(self, ready: Callable[["Leadership"], None]) -> None:
        """Takes over, calls `ready`, then leads until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publisher.watch())
                await self._take_over()
                ready(self)
                janitor = Janitor(self._registry, self._guard)
                for body in (self._publisher.run(), self._keeper.run(), self._tick(), janitor.run()):
                    group.create_task(body)
                for follower in (*self._audience.bodies(), self._follow_agents()):
                    group.create_task(follower)
                self.settle()
        finally:
            self._end()

    async def _take_over(self) -> None:
        """Until it succeeds or the standing is lost: a leader without the registry's state must not act."""
        while True:
            try:
                await keeping.take_over(self._registry, self.cluster, now=clock())
                await self._publisher.read()
            except (FairleadError, TimeoutError) as error:
                log.warning("cannot take over yet", why=str(error) or "no answer")
                await asyncio.sleep(0.2)
            else:
                self.began = clock()
                self.cluster.started_s = self.began.s
                self._last_tick_s = self.began.s
                return

    def _end(self) -> None:
        if self._allocation is not None:
            self._allocation.cancel()
        for stream in list(self.streams.values()):
            stream.close()

    # --- effects ---------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        cluster = self.cluster
        for effect in cluster.take():
            stream = self.streams.get(effect.stream_id)
            if stream is None:
                continue
            match effect:
                case Send(_, event):
                    stream.send(event)
                case Order(_, command):
                    stream.send(command)
                case Hang() | HangAgent():
                    stream.close()
        if cluster.dirty_agents and self._allocation is None:
            self._allocation = asyncio.get_running_loop().call_later(ALLOCATE_AFTER_S, self._allocate)
        if cluster.touched:
            self._publisher.wake.set()
        if cluster.unsaved_frameworks or cluster.unsaved_agents:
            self._keeper.wake.set()

    def _allocate(self) -> None:
        self._allocation = None
        allocation.allocate(self.cluster, now_s=time.monotonic(), weights=self._weights)
        self.settle()

    # --- time ------------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.pass_time(clock())

    def pass_time(self, now: Moment) -> None:
        cluster = self.cluster
        self._forgive_sleep(now)
        agents.watch_over(cluster, self._announced, now=now)
        frameworks.expire(cluster, now=now)
        draining.watch_over(cluster, now=now)
        self._kill_due(now)
        plan.drop_unclaimed(cluster, now=now)
        if plan.time_has_come(cluster, now=now):
            self._publisher.wake.set()
        if self._rhythm.is_time("allocate", allocation.ALLOCATION_INTERVAL_S, now.s):
            allocation.everything_dirty(cluster)
        if self._rhythm.is_time("ping", PING_S, now.s):
            self._ping()
        if self._rhythm.is_time("heartbeat", frameworks.HEARTBEAT_S, now.s):
            for framework in cluster.frameworks.values():
                cluster.send(framework.id, {"type": "HEARTBEAT"})
        self.settle()

    def _forgive_sleep(self, now: Moment) -> None:
        slept_s = now.s - self._last_tick_s - TICK_S
        self._last_tick_s = now.s
        if slept_s > STALL_S:
            log.warning("slept", seconds=slept_s)
            self.cluster.started_s += slept_s
            for agent in self.cluster.agents.values():
                agent.heard_s += slept_s

    def _ping(self) -> None:
        ping = Ping(epoch=self.cluster.epoch)
        for agent in self.cluster.agents.values():
            if agent.stream_id:
                self.cluster.order(agent.id, ping)

    # --- the registry's news ---------------------------------------------------------------------------------------

    def readers(self, now: Moment) -> Readers:
        return self._audience.readers(now_s=now.s)

    def _kill_due(self, now: Moment) -> None:
        readers = self.readers(now)
        self.cluster.largest_ttl_s = readers.largest_ttl_s
        if self.cluster.queued:
            killing.kill_queued(self.cluster, now=now)
        if self.cluster.leaves:
            killing.kill_due(self.cluster, readers, now=now)

    def _audience_changed(self) -> None:
        self._kill_due(clock())
        self.settle()

    async def _follow_agents(self) -> None:
        async for nodes in self._registry.follow(paths.AGENTS):
            self._announced = frozenset(paths.unescape(name) for name in nodes)

"""The leading balancer decides over canaries: it reads what all of them counted, and writes how far each canary is.

A stage is one commit under the leadership's epoch, so that it is there whole or not, and of one leader. Everything else
here is made anew by the next leader: it begins to watch the step from its start.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from fairlead_daemon.errors import Conflict, FairleadError, Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.policies import Canary, CanaryStage, of_kind, path_of
from fairlead_discovery.records import Balancer, decode, encode
from fairlead_discovery.registry import Guard, Put, Registry
from fairlead_lb import metrics
from fairlead_lb.answering import under_way
from fairlead_lb.decisions import windows
from fairlead_lb.decisions.canary import Hold, Seen, Watched, judge, look_of
from fairlead_lb.decisions.splits import percent_of
from fairlead_lb.decisions.windows import Counts
from fairlead_lb.state import State

log = Log("lb.canaries")
ROLE = "lb-canary"
TICK_S = 1.0
SILENT_S = 10.0
"""A balancer writes every second."""
ASK_S = 5.0
SIGHT_S = 10.0
"""How long a commit of ours may take to come into sight; a registry that was set back never shows it."""


@dataclass(slots=True)
class _Window:
    """What was seen of one step of one canary. `last`: each balancer's document of the last look."""

    begun_s: float
    last: dict[str, Watched] = field(default_factory=dict)
    own: Counts = field(default_factory=Counts)
    canary: Counts = field(default_factory=Counts)

    def take(self, documents: Mapping[str, Watched], own: str, canary: str) -> None:
        for name, now in documents.items():
            before = self.last.get(name)
            if before is not None:
                self.own = _added(self.own, before, now, own)
                self.canary = _added(self.canary, before, now, canary)
        self.last.update(documents)


def _added(total: Counts, before: Watched, now: Watched, port: str) -> Counts:
    """A balancer that was started anew counts from nothing."""
    then = before.ports.get(port, Counts()) if before.boot == now.boot else None
    return windows.grown(total, then, now.ports.get(port, Counts()))


class Canaries:
    """`run(registry)` for ever: stands for election, and decides while it leads."""

    def __init__(self, state: Callable[[], State], name: str) -> None:
        self._state = state
        self._name = name
        self._guard: Guard | None = None
        self._windows: dict[tuple[str, str, int], _Window] = {}
        self._heard: dict[str, tuple[tuple[str, int], float]] = {}
        self._wait_for = (-1, 0.0)

    async def run(self, registry: Registry) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stand(registry))
            group.create_task(self._decide_for_ever(registry))

    async def _stand(self, registry: Registry) -> None:
        async with aclosing(registry.campaign(ROLE, self._name.encode())) as standings:  # type: ignore[type-var]  # every backend's is a generator
            async for standing in standings:
                if standing.leading != (self._guard is not None):
                    self._windows = {}
                self._guard = Guard(ROLE, standing.epoch) if standing.leading else None

    async def _decide_for_ever(self, registry: Registry) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._measure()
            if self._guard is None:
                continue
            try:
                async with asyncio.timeout(ASK_S):
                    await self.tick(registry, self._guard)
            except Conflict:
                log.info("another balancer leads canaries")
                self._guard = None
            except (FairleadError, TimeoutError) as error:
                self._windows = {}  # a gap: each step is watched anew
                log.warning("canaries hold: the registry does not answer", reason=str(error) or "no answer")

    async def tick(self, registry: Registry, guard: Guard) -> None:
        """One look at every canary that is under way. Raises Conflict (another leads), Unavailable."""
        state = self._state()
        going = under_way(state)
        if not going or state.frozen or state.snapshot is None:
            self._windows = {}
            return
        if state.snapshot.revision < self._wait_for[0] and time.monotonic() < self._wait_for[1]:
            return  # our own last word is not in sight yet
        documents = await _documents(registry)
        silent = self._silent(documents, await _registered(registry))
        keys = {
            service: (service, c.id, s.step if s is not None and s.id == c.id else -1)
            for service, (c, s) in going.items()
        }
        self._windows = {k: w for k, w in self._windows.items() if k in set(keys.values())}
        for service, (canary, stage) in going.items():
            window = self._windows.setdefault(keys[service], _Window(time.monotonic()))
            window.take(documents, _port(service, canary.index), _port(canary.to.service, canary.to.index))
            if silent:
                window.begun_s = time.monotonic()
            seen = Seen(
                watched_s=time.monotonic() - window.begun_s, own=window.own, canary=window.canary, silent=silent
            )
            await self._act(registry, guard, canary, stage, seen)

    async def _act(
        self, registry: Registry, guard: Guard, canary: Canary, stage: CanaryStage | None, seen: Seen
    ) -> None:
        found = judge(canary, stage, seen)
        place = paths.below(paths.CANARIES, canary.service)
        if isinstance(found, Hold):
            await registry.write(place, encode(look_of(canary, seen, found.why)))
            return
        written = msgspec.structs.replace(found.stage, since_s=time.time())
        revision = await registry.commit([Put(path_of(written), encode(written))], guard=guard)
        self._wait_for = (revision, time.monotonic() + SIGHT_S)
        tell = log.error if written.state == "aborted" else log.info
        tell(
            f"canary {written.state}",
            service=canary.service,
            to=canary.to.service,
            percent=written.percent,
            reason=written.reason,
        )
        await registry.write(place, encode(look_of(canary, seen, written.reason)))

    def _silent(self, documents: Mapping[str, Watched], registered: frozenset[str]) -> tuple[str, ...]:
        """By our own clock: whose document stays the same, or is not there."""
        now_s = time.monotonic()
        for name, document in documents.items():
            said = (document.boot, document.turn)
            if name not in self._heard or self._heard[name][0] != said:
                self._heard[name] = (said, now_s)
        return tuple(
            sorted(
                n for n in registered if now_s - self._heard.get(n, ((), -SILENT_S))[1] > SILENT_S or n not in documents
            )
        )

    def _measure(self) -> None:
        snapshot = self._state().snapshot
        policies = snapshot.policies if snapshot is not None else {}
        canaries, stages = of_kind(policies, Canary), of_kind(policies, CanaryStage)
        now = {s: stage for s, stage in stages.items() if s in canaries and stage.id == canaries[s].id}
        metrics.count_canaries(
            {s: percent_of(c, now.get(s)) for s, c in canaries.items()}, [s.state for s in now.values()]
        )


def _port(service: str, index: int) -> str:
    return f"{service}#{index}"


async def _documents(registry: Registry) -> dict[str, Watched]:
    found: dict[str, Watched] = {}
    for name in await registry.tree.names(paths.WATCHED):
        node = await registry.tree.get(f"{paths.WATCHED}/{name}")
        try:
            if node is not None:
                found[paths.unescape(name)] = decode(Watched, node.data, place=f"{paths.WATCHED}/{name}")
        except Refused as error:
            log.warning("a balancer's counts are unreadable", reason=str(error))
    return found


async def _registered(registry: Registry) -> frozenset[str]:
    """Those that serve a place, not those of one machine: these come and go."""
    found = set()
    for name in await registry.tree.names(paths.BALANCERS):
        node = await registry.tree.get(f"{paths.BALANCERS}/{name}")
        try:
            if node is not None and not decode(Balancer, node.data, place=name).node:
                found.add(paths.unescape(name))
        except Refused:
            found.add(paths.unescape(name))  # it is registered all the same
    return frozenset(found)

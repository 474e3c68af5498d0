"""Looks every second at the backends of splits and failovers: which ports stay fallen over, and what was answered.

Runs beside the loop, which alone tells HAProxy anything.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping

from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.policies import Canary, CanaryStage, of_kind
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Registry
from fairlead_lb import metrics
from fairlead_lb.controller import Controller
from fairlead_lb.decisions import falling, windows
from fairlead_lb.decisions.canary import RUNNING, Watched
from fairlead_lb.decisions.splits import Ways
from fairlead_lb.decisions.values import LAYOUT, Key, Structure
from fairlead_lb.decisions.windows import Counts
from fairlead_lb.state import State

log = Log("lb.watching")
LOOK_S = 1.0
_ANEW = (Key("", -1), Counts())
"""In place of what a backend had counted: another worker counts from nothing."""
TELL_S = 1.0
WRITE_S = 5.0


class Watcher:
    """`run()` for ever; `tell(registry)` beside it, for the leading balancer."""

    def __init__(self, controller: Controller, name: str) -> None:
        self._controller = controller
        self._name = name
        self._pins: falling.Pins = {}
        self._looked = False
        self._worker: tuple[int, int] = (0, 0)
        self._raw: dict[str, tuple[Key, Counts]] = {}
        self._boot = secrets.token_hex(8)
        self._turn = 0
        self.totals: dict[Key, Counts] = {}

    async def run(self) -> None:
        while True:
            try:
                await self._look()
            except Unavailable as error:
                log.debug("haproxy did not say how its backends are", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        state = self._controller.state
        serving, ways = state.serving, state.wanted.ways
        if serving is None or state.wanted.revision < 0 or serving.structure.layout != LAYOUT:
            return
        concerned = _concerned(ways)
        names = {k: n for n, k in serving.structure.owners.items() if k in concerned}
        found = await self._ask(serving.structure, sorted(names.values())) if names else {}
        ready = {key: found[name][1] for key, name in names.items() if name in found}
        self._count({key: (name, found[name][0]) for key, name in names.items() if name in found})
        self._pin(ways, ready, state)
        metrics.count_splits(ways, ready, self._pins)

    async def _ask(self, structure: Structure, names: list[str]) -> dict[str, tuple[Counts, int]]:
        supervisor = self._controller.supervisor
        worker = (structure.generation, supervisor.processes.worker)
        stats, table = await supervisor.answered(structure, names)
        if worker != self._worker:
            self._raw = dict.fromkeys(names, _ANEW) if self._worker != (0, 0) else {}
            self._worker = worker
        times = windows.backend_times(table)
        return {
            name: (Counts(requests=c.requests, errors=c.errors, times=times.get(name, {})), ready)
            for name, (c, ready) in windows.backend_counts(stats).items()
        }

    def _count(self, found: Mapping[Key, tuple[str, Counts]]) -> None:
        """Totals since this process began to look; a backend seen for the first time may have served others."""
        after: dict[str, tuple[Key, Counts]] = {}
        for key, (name, now) in found.items():
            total = self.totals.setdefault(key, Counts())
            before = self._raw.get(name)
            if before is not None and before[0] == key:
                self.totals[key] = windows.grown(total, before[1], now)
            elif before is _ANEW:
                self.totals[key] = windows.grown(total, None, now)
            after[name] = (key, now)
        self._raw = after

    def _pin(self, ways: Ways, ready: Mapping[Key, int], state: State) -> None:
        if not self._looked and state.serving is not None:  # what a predecessor held stays held for its time
            held = {b.key for n, b in state.wanted.backends.items() if n in state.serving.maps.pins}
            self._pins = dict.fromkeys(held, falling.Pin())
        before, self._looked = self._pins, True
        self._pins = falling.pins(ways, ready, before, time.monotonic())
        for key in self._pins.keys() - before.keys():
            log.warning("failed over: too few servers are ready", service=key.service, ready=ready.get(key, 0))
        for key in before.keys() - self._pins.keys():
            log.info("requests come back from the fallback", service=key.service)
        self._controller.use_pins(self._pins.keys())

    # --- for the leading balancer ----------------------------------------------------------------------------------

    async def tell(self, registry: Registry) -> None:
        """For ever: one small document, and only while a canary is under way."""
        while True:
            await asyncio.sleep(TELL_S)
            going = under_way(self._controller.state).values()
            if not going:
                continue
            self._turn += 1
            wanted = {Key(s, i) for c, _ in going for s, i in ((c.service, c.index), (c.to.service, c.to.index))}
            ports = {f"{k.service}#{k.index}": counts for k, counts in self.totals.items() if k in wanted}
            said = encode(Watched(boot=self._boot, turn=self._turn, ports=ports))
            try:
                async with asyncio.timeout(WRITE_S):
                    await registry.write(paths.below(paths.WATCHED, self._name), said)
            except (FairleadError, TimeoutError) as error:
                log.warning("what was counted is not written; canaries hold", reason=str(error) or "no answer")


def under_way(state: State) -> Mapping[str, tuple[Canary, CanaryStage | None]]:
    """Service -> canary that still needs a decision."""
    policies = state.snapshot.policies if state.snapshot is not None else {}
    stages = of_kind(policies, CanaryStage)
    found = {s: (c, stages.get(s)) for s, c in of_kind(policies, Canary).items()}
    return {s: (c, stage) for s, (c, stage) in found.items() if not _over(c, stage)}


def _over(canary: Canary, stage: CanaryStage | None) -> bool:
    ended = stage is not None and stage.id == canary.id and stage.state != RUNNING
    wanted = {"abort": "aborted", "promote": "promoted"}.get(canary.order)
    return ended and (wanted is None or (stage is not None and stage.state == wanted))


def _concerned(ways: Ways) -> frozenset[Key]:
    """Ports whose servers or answers matter."""
    return frozenset(ways).union(*([k for k, _ in way.shares] for way in ways.values()))

"""Who tells and exports: the elected monitor. Out of sight of the registry the one that led goes on."""

import asyncio
from contextlib import aclosing

from fairlead_daemon.logs import Log
from fairlead_discovery.registry import Guard, Registry, Standing
from fairlead_monitoring import metrics

log = Log("monitor.leading")
ROLE = "monitor"
OUT_OF_SIGHT_S = 5.0
"""At a start: how long nothing may be heard of an election before the one that led last takes it for out of sight."""


class Leading:
    """`acting` is whether we tell and export; `guard` is there while the registry takes our writes."""

    def __init__(self, *, led: bool) -> None:
        self.acting = False
        self.guard: Guard | None = None
        self.elsewhere = False
        """Another monitor is known to lead."""
        self.changed = asyncio.Event()
        self._led = led

    async def run(self, registry: Registry, address: bytes) -> None:
        """For ever."""
        standings = registry.campaign(ROLE, address)
        async with aclosing(standings), asyncio.TaskGroup() as group:  # type: ignore[type-var]  # every backend's is a generator
            group.create_task(self._wait_for_sight())
            async for standing in standings:
                self.take(standing)

    def take(self, standing: Standing) -> None:
        guard = Guard(ROLE, standing.epoch) if standing.leading else None
        elsewhere = not standing.leading and standing.leader is not None
        acting = standing.leading or (self.acting and not elsewhere)
        if (guard, acting, elsewhere) == (self.guard, self.acting, self.elsewhere):
            return
        if acting != self.acting:
            log.info("telling and exporting" if acting else "another monitor leads", epoch=standing.epoch)
        self.guard, self.acting, self.elsewhere = guard, acting, elsewhere
        self._led = acting
        metrics.leading.set(acting)
        self.changed.set()

    def lost(self) -> None:
        """A write was refused for its epoch: the election's word follows."""
        self.guard = None

    async def _wait_for_sight(self) -> None:
        await asyncio.sleep(OUT_OF_SIGHT_S)
        if self._led and not self.acting and not self.elsewhere:
            log.warning("registry out of sight; we led last, and go on telling")
            self.acting = True
            metrics.leading.set(1)
            self.changed.set()

"""Who tells and exports: the elected monitor. Out of sight of the registry the one that led goes on."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing

from fairlead_daemon.logs import Log
from fairlead_discovery.registry import Guard, Registry, Standing
from fairlead_monitoring import metrics

log = Log("monitor.leading")
ROLE = "monitor"
OUT_OF_SIGHT_S = 5.0
"""At a start: how long nothing may be heard of an election before the one that led last takes it for out of sight."""
LOOK_S = 1.0


class Leading:
    """`acting` is whether we tell and export; `guard` is there while the registry takes our writes.

    `mine` tells from a leader's data whether it is ourselves: a killed predecessor leads until its session ends.
    """

    def __init__(self, *, led: bool, mine: Callable[[bytes], bool]) -> None:
        self.acting = False
        self.guard: Guard | None = None
        self.elsewhere = False
        """Another monitor is known to lead."""
        self.changed = asyncio.Event()
        self._led = led
        self._mine = mine
        self._heard_s = time.monotonic()
        self._in_sight = False

    async def run(self, registry: Registry, address: bytes) -> None:
        """For ever."""
        standings = registry.campaign(ROLE, address)
        async with aclosing(standings), asyncio.TaskGroup() as group:  # type: ignore[type-var]  # every backend's is a generator
            group.create_task(self._go_on_out_of_sight())
            async for standing in standings:
                self.take(standing)

    def take(self, standing: Standing) -> None:
        self._heard_s = time.monotonic()
        self._in_sight = standing.leading or standing.leader is not None
        guard = Guard(ROLE, standing.epoch) if standing.leading else None
        other = standing.leader is not None and not standing.leading and not self._mine(standing.leader)
        self._set(guard, acting=standing.leading or (self.acting and not other), elsewhere=other)

    def lost(self) -> None:
        """A write was refused for its epoch: the election's word follows."""
        self.guard = None

    def _set(self, guard: Guard | None, *, acting: bool, elsewhere: bool) -> None:
        if acting != self.acting:
            log.info("telling and exporting" if acting else "another monitor leads")
        self.guard, self.acting, self.elsewhere = guard, acting, elsewhere
        self._led = acting or (self._led and not elsewhere)
        metrics.leading.set(acting)
        self.changed.set()

    async def _go_on_out_of_sight(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            unheard = not self._in_sight and time.monotonic() - self._heard_s >= OUT_OF_SIGHT_S
            if unheard and self._led and not self.acting:
                log.warning("registry out of sight; we led last, and go on telling")
                self._set(None, acting=True, elsewhere=False)

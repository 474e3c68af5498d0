"""Names follow the registry's snapshots: step by step, with queries answered in between."""

import asyncio
import gc
import time
from dataclasses import dataclass, field
from pathlib import Path

from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_discovery.listing import Listing
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions.traits import STEPS
from fairlead_dns.metrics import apply_seconds, publish_seconds
from fairlead_dns.names import Names

log = Log("dns")
WARMING_S = 1.0  # between looks at who warms up, at most


@dataclass(slots=True)
class Following:
    """Owned by one task. `loaded` is set once there are names to answer."""

    names: Names
    context: Context
    loaded: asyncio.Event
    listing: Listing = field(default_factory=Listing)
    """The same endpoints for the HTTP API; it is told of them when they are answered."""

    _measured: int = -1

    async def run(self, registry: Registry, file: Path) -> None:
        async for snapshot in snapshots(registry, keep=file):
            await self.take(snapshot)

    async def take(self, snapshot: Snapshot) -> None:
        """To the end, also when it takes a while: half a snapshot is none."""
        before, start_s = self.names.answers.trust, time.perf_counter()
        touched = 0
        for count in self.names.steps(snapshot, now_s=time.monotonic() if self.loaded.is_set() else None):
            touched += count
            await asyncio.sleep(0)  # queries have their turn
        self.listing.take(snapshot)
        took_s = time.perf_counter() - start_s
        apply_seconds.observe(took_s)
        self._measure(snapshot, took_s)
        if self.names.answers.trust is None:
            return
        told = {"changed": touched, "names": len(self.names.zone.names), "took_ms": took_s * 1000}
        self._tell(snapshot, before, {"revision": snapshot.revision, **told})
        if not self.loaded.is_set():
            self.context.health.ready("zone")
            gc.freeze()  # the zone lives for good: no later collection walks it, and none delays a change
            self.loaded.set()

    def _measure(self, snapshot: Snapshot, took_s: float) -> None:
        """Of each commit once: not again when trust changes, nor of what stood there before us."""
        if self.loaded.is_set() and snapshot.trust is Trust.LIVE and snapshot.revision > self._measured:
            since_s = time.time() - snapshot.committed_s if snapshot.committed_s else took_s
            publish_seconds.observe(max(since_s, 0.0))
        self._measured = snapshot.revision

    def _tell(self, snapshot: Snapshot, before: Trust | None, fields: dict[str, object]) -> None:
        if snapshot.trust is before:
            log.debug("names changed", **fields)
        elif snapshot.trust is Trust.LIVE:
            log.info("answers are true to the registry", trust=snapshot.trust.value, **fields)
        else:
            log.warning(
                "answers are the last good ones, not the registry's",
                trust=snapshot.trust.value,
                why=snapshot.why,
                **fields,
            )

    async def warm_up(self) -> None:
        """For ever: newcomers get more as time goes on."""
        step_s = min(WARMING_S, self.names.manner.warm_up_s / STEPS)
        while step_s > 0:
            await asyncio.sleep(step_s)
            for _ in self.names.warm_up(time.monotonic()):
                await asyncio.sleep(0)
        await asyncio.Event().wait()

"""What the monitor sees of the registry by itself: trust, members, how far behind each balancer is."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_monitoring.decisions import houses
from fairlead_monitoring.decisions.houses import Lag, Lingering, Values
from fairlead_monitoring.decisions.samples import series
from fairlead_monitoring.directory import Directory


class Sight:
    """`snapshot` is the newest one."""

    def __init__(self, directory: Directory) -> None:
        self.snapshot = Snapshot(revision=-1, trust=Trust.STALE)
        self._at_s = time.monotonic()
        self._directory = directory
        self._lag = Lag()
        self._lingering = Lingering((houses.ENDPOINTS,))

    async def follow(self, registry: Registry, keep: Path, *, began: Callable[[], None]) -> None:
        """For ever. `began` is called at every snapshot."""
        async for snapshot in snapshots(registry, keep=keep):
            self.snapshot, self._at_s = snapshot, time.monotonic()
            self._lag.see(snapshot.revision, self._at_s)
            began()

    async def measure(self, add: Callable[[str, Values], None], every_s: float) -> None:
        """For ever: one round each `every_s`."""
        while True:
            add("registry", self._values())
            await asyncio.sleep(every_s)

    def age_s(self) -> float:
        """How long ago the snapshot was known to be true."""
        if self.snapshot.trust is Trust.LIVE:
            return 0.0
        return self.snapshot.age_s + time.monotonic() - self._at_s

    def _values(self) -> Values:
        now_s, seen = time.monotonic(), self.snapshot
        values = {
            series(houses.REGISTRY_AGE): self.age_s(),
            series(houses.REGISTRY_REVISION): float(seen.revision),
            series(houses.REGISTRY_LEAVING): float(len(seen.leaving)),
            **{series(houses.ENDPOINTS, service=name): float(len(found)) for name, found in seen.members.items()},
        }
        if seen.trust is Trust.LIVE:  # out of sight nobody can say how far a balancer is
            applied = {name: self._directory.progress.get(name, -1) for name in self._directory.known.balancers}
            behind = {n: self._lag.behind_s(revision, now_s) for n, revision in applied.items()}
            values |= {series(houses.BEHIND, balancer=name): value for name, value in behind.items()}
            self._lag.forget(min(applied.values(), default=seen.revision))
        return {**values, **self._lingering.of(values, now_s)}

"""To Graphite: samples into the spool, the spool to carbon. See decisions/segments.py for when a point is safe."""

import asyncio
import random
import time
from dataclasses import dataclass

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError
from fairlead_daemon.logs import Log
from fairlead_monitoring import metrics
from fairlead_monitoring.adapters.carbon import Carbon, connected
from fairlead_monitoring.adapters.spool import Spool
from fairlead_monitoring.decisions.segments import Ledger

log = Log("monitor.graphite")
CHUNK_BYTES = 256 * 1024
BACKOFF = Backoff(first_s=0.2, most_s=10.0)
LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """`points_per_s` 0: as fast as carbon reads."""

    host: str
    port: int
    settle_s: float
    points_per_s: float


class Exporter:
    """One task appends, one sends; both in one event loop."""

    def __init__(self, spool: Spool, to: Destination) -> None:
        self._spool = spool
        self._to = to
        self._more = asyncio.Event()
        self.sent_points = 0
        """Since the start, points sent again included."""

    async def append(self, data: bytes) -> None:
        """Durable when it returns. A disk that fails is logged, the points are counted as lost."""
        try:
            self._spool.append(data, time.monotonic())
        except OSError as error:
            log.error("spool not written, points lost", why=str(error), points=data.count(b"\n"))  # noqa: TRY400  # a peer\'s fault or a disk\'s: no traceback
        metrics.spool_bytes.set(self._spool.size_bytes)
        metrics.spool_lost.set(self._spool.lost_points)
        self._more.set()

    async def run(self) -> None:
        """For ever."""
        attempt = 0
        while True:
            try:
                async with connected(self._to.host, self._to.port) as carbon:
                    log.info(
                        "connected", carbon=f"{self._to.host}:{self._to.port}", backlog_bytes=self._spool.size_bytes
                    )
                    metrics.graphite_connected.set(1)
                    attempt = 0
                    await self._feed(carbon)
            except (FairleadError, OSError) as error:
                metrics.graphite_connected.set(0)
                if attempt == 0:
                    log.warning("carbon is away, spooling", why=str(error))
            await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
            attempt += 1

    async def _feed(self, carbon: Carbon) -> None:
        """From the oldest point on: what an earlier connection sent may have died with carbon. Raises Unavailable."""
        ledger, place = Ledger(self._to.settle_s), self._spool.begin()
        while True:
            self._more.clear()
            data, after = self._spool.read(place, CHUNK_BYTES)
            begin_s = time.monotonic()
            if data:
                await carbon.send(data)
                ledger.sent(len(data), after)
            elif after != place:
                ledger.sent(0, after)
            place = after
            carbon.check()
            self._settle(carbon, ledger)
            await (self._hold_back(data.count(b"\n"), begin_s) if data else self._wait())

    async def _hold_back(self, points: int, begin_s: float) -> None:
        self.sent_points += points
        metrics.graphite_points.inc(points)
        if self._to.points_per_s:
            await asyncio.sleep(max(0.0, points / self._to.points_per_s - (time.monotonic() - begin_s)))

    def _settle(self, carbon: Carbon, ledger: Ledger) -> None:
        now_s = time.monotonic()
        self._spool.roll(now_s)
        ledger.look(carbon.pending_bytes(), now_s)
        self._spool.handed = ledger.handed
        for number in ledger.settled(self._spool.closed, now_s):
            self._spool.drop(number)
        metrics.spool_bytes.set(self._spool.size_bytes)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._more.wait()
        except TimeoutError:
            pass

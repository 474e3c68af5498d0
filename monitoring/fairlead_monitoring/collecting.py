"""Collecting: one task a source, each with its own pace and time limit, so that none waits for another."""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping

import aiohttp

from fairlead_daemon.errors import FairleadError
from fairlead_daemon.logs import Log
from fairlead_monitoring import metrics
from fairlead_monitoring.adapters import pages
from fairlead_monitoring.adapters.pages import Reader
from fairlead_monitoring.decisions import houses
from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.samples import Series, series
from fairlead_monitoring.decisions.sources import Pace, Source, sources
from fairlead_monitoring.directory import Directory
from fairlead_monitoring.settings import MonitorSettings

log = Log("monitor.collect")
SWEEP_S = 10.0


class Collector:
    """Fills the ring. `news` is set after every round."""

    def __init__(self, settings: MonitorSettings, directory: Directory, ring: Ring) -> None:
        self._settings = settings
        self._directory = directory
        self._ring = ring
        self._running: dict[str, tuple[Source, asyncio.Task[None]]] = {}
        self.news = asyncio.Event()
        self.why: dict[str, str] = {}
        """Why a source is down, by its key."""

    def keys(self) -> Iterable[str]:
        """Of all sources."""
        return self._running.keys()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep())
            while True:
                self._directory.changed.clear()
                self._start_and_end(group, session)
                await self._directory.changed.wait()

    def add(self, source: str, values: Mapping[Series, float]) -> None:
        """A round of something that is read otherwise than by a page."""
        self._ring.add(source, time.time(), values)
        self.news.set()

    def _start_and_end(self, group: asyncio.TaskGroup, session: aiohttp.ClientSession) -> None:
        pace = Pace(page_s=self._settings.interval_s, quick_s=self._settings.quick_interval_s)
        wanted = sources(self._directory.known, pace)
        for key, (source, task) in list(self._running.items()):
            if wanted.get(key) != source:
                task.cancel()
                del self._running[key]
                self.why.pop(key, None)
        for key, source in wanted.items():
            if key not in self._running:
                self._running[key] = source, group.create_task(self._follow(source, session))

    async def _follow(self, source: Source, session: aiohttp.ClientSession) -> None:
        reader = self._reader(source)
        answered = False
        await asyncio.sleep(source.every_s * random.random() * 0.2)  # noqa: S311  # so that not all come at once
        while True:
            begin_s = time.monotonic()
            values = await self._look(source, reader, session)
            answered = answered or values is not None
            if answered or not source.optional:
                up = series(houses.UP, source=source.name, role=source.role, page=source.kind)
                self.add(source.key, {**(values or {}), up: float(values is not None)})
            await asyncio.sleep(max(0.01, begin_s + source.every_s - time.monotonic()))

    async def _look(
        self, source: Source, reader: Reader, session: aiohttp.ClientSession
    ) -> Mapping[Series, float] | None:
        """None when it did not answer, or not sensibly."""
        begin_s = time.monotonic()
        if not source.base:
            self._tell(source, "nobody knows its address yet")
            return None
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                values = await reader.read(session)
        except (FairleadError, TimeoutError, ValueError, LookupError, TypeError, AttributeError) as error:
            self._tell(source, str(error) or "no answer in time")
            metrics.rounds.labels("failed").inc()
            return None
        metrics.rounds.labels("ok").inc()
        metrics.round_seconds.observe(time.monotonic() - begin_s)
        if self.why.pop(source.key, ""):
            log.info("source answers again", source=source.key)
        return values

    def _tell(self, source: Source, why: str) -> None:
        if source.key not in self.why and not source.optional:
            log.warning("source does not answer", source=source.key, why=why)
        self.why[source.key] = why

    def _reader(self, source: Source) -> Reader:
        match source.kind:
            case "metrics":
                return pages.TextReader(source, most=self._settings.most_series_per_page)
            case "snapshot":
                return pages.SnapshotReader(source)
            case "apps":
                return pages.AppsReader(source, framework=self._settings.framework)
            case "agents":
                return pages.AgentsReader(source, lambda: self._directory.agent_documents)
            case "balancer":
                return pages.BalancerReader(source)
            case "links":
                return pages.LinksReader(source)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._ring.sweep(time.time())
            metrics.series.set(len(self._ring))
            metrics.series_left_out.set(self._ring.left_out)


def own_session() -> aiohttp.ClientSession:
    """Reading needs no token: none is sent to addresses that a registry names."""
    connector = aiohttp.TCPConnector(limit=64, limit_per_host=4)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None, connect=3))

"""What the page shows, kept true: the registry followed always, the daemons asked while somebody looks."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from fairlead_console.web import metrics
from fairlead_console.web.adapters.daemons import Source, fetch
from fairlead_console.web.decisions import reports
from fairlead_console.web.decisions.answers import AlertsPage, Apps, Balancer, LinksPage, Nodes, SeriesPage, Tasks
from fairlead_console.web.decisions.graph import Point, rate, requests
from fairlead_console.web.decisions.page import Facts
from fairlead_console.web.settings import ConsoleSettings
from fairlead_daemon.errors import FairleadError, Refused
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot, Trust

A = TypeVar("A")
T = TypeVar("T")
SAMPLE_S = 2.0
SAMPLES = 300
FRESH_S = 1.0
"""A page that is fetched shows nothing older than this of a daemon that answers."""
FIRST_ANSWERS_S = 1.5
"""So long a page waits for them; then it says who did not answer yet, and live ones follow."""
LINGER_S = 5.0
"""So long after a page was fetched somebody counts as looking: a live one comes back within that."""
TICK_S = 1.0
SERIES = "/api/series?name=fairlead_service_requests_per_second&since=-900"
SERIES_S = 2.0
"""How often they are asked for: they are long, and a point more changes little."""


class Audience:
    """Whether anybody looks: without, no daemon is asked."""

    def __init__(self) -> None:
        self.viewers = 0
        self._looked_s = -LINGER_S
        self._came = asyncio.Event()

    def look(self) -> None:
        self._looked_s = time.monotonic()
        self._came.set()

    @contextmanager
    def viewing(self) -> Iterator[None]:
        self.viewers += 1
        metrics.viewers.set(self.viewers)
        self.look()
        try:
            yield
        finally:
            self.viewers -= 1
            metrics.viewers.set(self.viewers)
            self.look()

    async def present(self) -> None:
        """Returns when somebody looks."""
        while not self.viewers and time.monotonic() - self._looked_s > LINGER_S:
            self._came.clear()
            await self._came.wait()


class Live:
    """Everything known; `changed` is set whenever it may show otherwise, and cleared by who renders it."""

    def __init__(self, settings: ConsoleSettings, session: aiohttp.ClientSession) -> None:
        self.audience = Audience()
        self.changed = asyncio.Event()
        self._settings = settings
        self._session = session
        self._snapshot = Snapshot(revision=-1, trust=Trust.STALE, why="nothing read yet")
        self._snapshot_s = time.monotonic()
        self._rates: deque[Point] = deque(maxlen=SAMPLES)
        told = settings
        self._apps = self._source("apps", told.services, "/v2/apps", _decoder(Apps, _as_it_is))
        self._tasks = self._source("tasks", told.services, "/v2/tasks", _decoder(Tasks, _as_it_is))
        self._nodes = self._source("nodes", told.master, "/slaves", _decoder(Nodes, _as_it_is))
        self._balancer = self._source("balancer", told.lb, "/status", _decoder(Balancer, _as_it_is))
        self._links = self._source("messaging", told.messaging, "/status", _decoder(LinksPage, reports.links))
        self._alerts = self._source("alerts", told.monitor, "/api/alerts", _decoder(AlertsPage, reports.alerts))
        self._measured = self._source("series", told.monitor, SERIES, _decoder(SeriesPage, reports.line))

    def _source(self, name: str, url: str, path: str, read: Callable[[bytes], T]) -> Source[T]:
        return Source(name, f"{url}{path}" if url else "", read, self.changed.set)

    def facts(self) -> Facts:
        return Facts(
            snapshot=self._snapshot,
            age_s=self._snapshot.age_s + time.monotonic() - self._snapshot_s,
            domain=self._settings.domain,
            apps=self._apps.answer,
            tasks=self._tasks.answer,
            nodes=self._nodes.answer,
            balancer=self._balancer.answer,
            links=self._links.answer,
            alerts=self._alerts.answer,
            measured=self._measured.answer,
            rates=tuple(self._rates),
        )

    @property
    def _sources(self) -> tuple[Source[Any], ...]:
        return self._apps, self._tasks, self._nodes, self._balancer, self._links, self._alerts, self._measured

    async def refresh(self) -> None:
        """Returns when every daemon that answers has done so just now."""
        self.audience.look()
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ANSWERS_S):
                await asyncio.gather(*(source.freshen(self._session, most_s=FRESH_S) for source in self._sources))

    def bodies(self) -> list[Coroutine[None, None, None]]:
        """What runs for ever beside following the registry."""
        every_s = {self._measured: SERIES_S}
        asking = [
            source.run(self._session, watched=self.audience.present, every_s=every_s.get(source, self._settings.poll_s))
            for source in self._sources
        ]
        return [*asking, self._measure(), self._tick()]

    async def follow(self, registry: Registry, *, keep: Path, seen: Callable[[Snapshot], None]) -> None:
        async for snapshot in snapshots(registry, keep=keep):
            self._snapshot, self._snapshot_s = snapshot, time.monotonic()
            seen(snapshot)
            self.changed.set()

    async def _tick(self) -> None:
        """What is not current grows older by the second."""
        while True:
            await self.audience.present()
            await asyncio.sleep(TICK_S)
            if self._snapshot.trust is not Trust.LIVE:
                self.changed.set()

    async def _measure(self) -> None:
        """Requests per second from HAProxy's counters, also while nobody looks: a line needs a past."""
        before: dict[str, float] | None = None
        before_s = 0.0
        statistics = f"{self._settings.lb}/haproxy?stats;csv"
        while self._settings.lb:
            try:
                now = requests((await fetch(self._session, statistics)).decode())
                now_s = time.monotonic()
            except (FairleadError, ValueError):  # no numbers, no text: no sample
                before = None
            else:
                if before is not None:
                    self._rates.append(Point(time.time(), rate(before, now, seconds=now_s - before_s)))
                    self.changed.set()
                before, before_s = now, now_s
            await asyncio.sleep(SAMPLE_S)


def _decoder(kind: type[A], then: Callable[[A], T]) -> Callable[[bytes], T]:
    decoder = msgspec.json.Decoder(kind)

    def read(raw: bytes) -> T:
        try:
            return then(decoder.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(f"its answer is not understood: {error}") from error

    return read


def _as_it_is(told: A) -> A:
    return told

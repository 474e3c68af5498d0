"""`fairlead monitor`: looks at everything, keeps an hour of it, exports it, and tells once when something breaks."""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path

from prometheus_client import REGISTRY, generate_latest

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import BadSettings, FairleadError
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context, Daemon, until_stopped
from fairlead_daemon.web import make_app, serve
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Registry
from fairlead_monitoring.adapters.journal import Journal
from fairlead_monitoring.adapters.spool import Spool
from fairlead_monitoring.alerting import Alerting
from fairlead_monitoring.collecting import Collector, own_session
from fairlead_monitoring.decisions import graphite as wording
from fairlead_monitoring.decisions import houses
from fairlead_monitoring.decisions.evaluation import Moment
from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.samples import Page, series
from fairlead_monitoring.directory import Directory, encode_address, leader_id, monitor_id
from fairlead_monitoring.graphite import Destination, Exporter
from fairlead_monitoring.leading import Leading
from fairlead_monitoring.rule_files import load_rules
from fairlead_monitoring.settings import MonitorSettings, carbon_address, check
from fairlead_monitoring.sight import Sight
from fairlead_monitoring.web_pages import Houses, Pages, Parts

log = Log("monitor")
CLOSE_S = 2.0


class Monitor:
    """The parts of one monitor, and the tasks that run them."""

    def __init__(self, settings: MonitorSettings, context: Context) -> None:
        folder = Path(settings.data_dir)
        self._settings = settings
        self._context = context
        self._snapshot_file = folder / "monitor.snapshot"
        self.fresh_s = 3 * max(settings.interval_s, settings.quick_interval_s) + settings.timeout_s
        self.ring = Ring(keep_s=settings.keep_s, forget_s=settings.forget_s, most_series=settings.most_series)
        self.directory = Directory(settings)
        self.sight = Sight(self.directory)
        self.collector = Collector(settings, self.directory, self.ring)
        self._rules = load_rules(settings)
        journal = Journal(folder / "monitor-alerts.jsonl")
        self.leading = Leading(led=journal.led, mine=lambda data: leader_id(data) == monitor_id(settings))
        self.alerting = Alerting(self._rules, settings.webhooks, journal, self.leading)
        self._own_page = Page({"source": "monitor"}, most=settings.most_series_per_page)
        self._exporter: Exporter | None = None

    async def run(self, registry: Registry, port: int) -> None:
        async with own_session() as session:
            await until_stopped(
                self._context,
                self.directory.run(registry),
                self.collector.run(session),
                self.sight.follow(registry, self._snapshot_file, began=self._seen),
                self.sight.measure(self.collector.add, self._settings.quick_interval_s),
                self._measure_ourselves(),
                self.leading.run(registry, encode_address(self._settings, port)),
                self.alerting.judge(self._moment, self.collector.news, registry),
                self.alerting.write(registry),
                self._follow_silences(registry),
                self._reload_rules(),
                *(self.alerting.tell(url, session, self._patience, wait_s=self._settings.webhook_timeout_s)
                  for url in self._settings.webhooks),
                *self._exporting(),
            )  # fmt: skip

    @property
    def _patience(self) -> Backoff:
        return Backoff(first_s=0.3, most_s=self._settings.webhook_retry_most_s)

    def _moment(self, now_s: float) -> Moment:
        return Moment(ring=self.ring, now_s=now_s, fresh_s=self.fresh_s)

    def _seen(self) -> None:
        self.alerting.cluster = self.sight.snapshot.cluster
        if self.sight.snapshot.revision >= 0:
            self._context.health.ready("registry")

    async def _measure_ourselves(self) -> None:
        while True:
            values = self._own_page.read(generate_latest(REGISTRY).decode())
            own = {one: value for one, value in values.items() if one.name not in houses.HELP}
            self.collector.add(
                "monitor metrics", {**own, series(houses.UP, source="monitor", role="monitor", page="metrics"): 1.0}
            )
            await asyncio.sleep(self._settings.interval_s)

    async def _follow_silences(self, registry: Registry) -> None:
        async for nodes in registry.follow(paths.SILENCES):
            self.alerting.take_silences(nodes)
            self.collector.news.set()

    async def _reload_rules(self) -> None:
        """On SIGHUP; a file that cannot be read changes nothing."""
        while True:
            await self._context.reload.wait()
            self._context.reload.clear()
            try:
                told = self._context.reread()
                assert isinstance(told, MonitorSettings), "the daemon's own kind"
                self.alerting.change_rules(load_rules(told))
                log.info("rules read again", rules=len(self.alerting.rules))
            except FairleadError as error:
                log.error("rules not changed", why=str(error))  # noqa: TRY400  # a peer\'s fault or a disk\'s: no traceback

    def _exporting(self) -> list[Awaitable[None]]:
        told = self._settings
        if not told.graphite:
            return []
        host, port = carbon_address(told.graphite)
        to = Destination(host=host, port=port, settle_s=told.graphite_settle_s, points_per_s=told.graphite_points_per_s)
        try:
            spool = Spool(Path(told.data_dir) / "monitor-spool", most_bytes=told.graphite_spool_mb * 1024 * 1024)
        except OSError as error:
            raise BadSettings(f"data_dir: {told.data_dir}/monitor-spool: {error.strerror}") from error
        exporter = Exporter(spool, to)
        return [exporter.run(), self._feed(exporter)]

    async def _feed(self, exporter: Exporter) -> None:
        """A point a path at every whole interval. Only the acting monitor: another's points would take their place."""
        last = 0
        while True:
            every = self._settings.graphite_interval_s
            stamp = (int(time.time()) // every + 1) * every
            await asyncio.sleep(max(0.0, stamp - time.time()))
            if self.leading.acting and stamp > last:
                last = stamp
                samples = self.ring.latest(time.time(), fresh_s=self.fresh_s)
                await exporter.append(wording.lines(samples, prefix=self._settings.graphite_prefix, now_s=stamp))


async def run(settings: MonitorSettings, context: Context) -> None:
    """Raises BadSettings before anything is served."""
    check(settings)
    monitor = Monitor(settings, context)
    context.health.wait("registry", "nothing known of the registry yet")
    app = make_app(settings, context.health)
    registry = await open_registry(settings.registry)
    houses_page = Houses(monitor.ring, monitor.fresh_s)
    try:
        parts = Parts(
            ring=monitor.ring,
            sight=monitor.sight,
            collector=monitor.collector,
            alerting=monitor.alerting,
            leading=monitor.leading,
            registry=registry,
            fresh_s=monitor.fresh_s,
        )
        Pages(parts).add_to(app)
        runner, port = await serve(app, settings)
        REGISTRY.register(houses_page)
        log.info(
            "listening", http=f"{settings.host}:{port}", id=monitor_id(settings), rules=len(monitor.alerting.rules)
        )
        try:
            await monitor.run(registry, port)
        finally:
            REGISTRY.unregister(houses_page)
            await runner.cleanup()
    finally:
        try:
            async with asyncio.timeout(CLOSE_S):
                await registry.close()
        except (TimeoutError, FairleadError) as error:
            log.warning("registry session not ended in time", why=str(error))


DAEMON = Daemon(name="monitor", summary="Collects, exports, judges, tells once.", settings=MonitorSettings, run=run)

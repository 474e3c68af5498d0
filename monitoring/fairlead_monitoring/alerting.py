"""Judging, writing down, telling. The one owner of the alerts.

The order is what keeps a change from being lost or told twice: judged, written to our disk, written to the registry
under our epoch, told, and what was told written down. A kill between any two of these leaves a state from which the
next start goes on; a call that may or may not have been heard is made again with the same Idempotency-Key.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import aiohttp
import msgspec

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Conflict, FairleadError, Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.registry import Node, Registry
from fairlead_monitoring import metrics
from fairlead_monitoring.adapters.journal import Journal, decode_alerts
from fairlead_monitoring.adapters.webhook import post
from fairlead_monitoring.decisions.alerts import Alert, Change, Scene, body, forget_receivers, merge, taken
from fairlead_monitoring.decisions.evaluation import Moment
from fairlead_monitoring.decisions.judgement import Judgement, adopt, judge_all
from fairlead_monitoring.decisions.judging import State
from fairlead_monitoring.decisions.rules import Rule
from fairlead_monitoring.decisions.silences import Silence, silenced
from fairlead_monitoring.leading import Leading

log = Log("monitor.alerts")
TICK_S = 1.0
PAUSE_S = 0.2
"""At most five judgements a second, however much news there is."""
WRITE_S = 5.0
REGISTRY_RETRY_S = 2.0


class Alerting:
    """`alerts` by id. Without `leading.acting` it judges, and tells nobody."""

    def __init__(self, rules: Mapping[str, Rule], receivers: Sequence[str], journal: Journal, leading: Leading) -> None:
        self.rules = rules
        self.receivers = receivers
        self.alerts: dict[str, Alert] = {}
        self.judgement = Judgement(alerts={})
        self.silences: tuple[Silence, ...] = ()
        self.cluster = ""
        self._journal = journal
        self._leading = leading
        self._in_term = False
        self._epoch = 0
        """Of the term whose journal was read last; 0: out of sight."""
        self._dirty: dict[str, None] = {}
        """Alerts whose document in the registry is not as it should be."""
        self._to_tell = asyncio.Event()
        self._to_write = asyncio.Event()

    # --- judging

    async def judge(self, moment_of: Callable[[float], Moment], news: asyncio.Event, registry: Registry) -> None:
        """For ever: at news, and every second for the sake of `for`."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await news.wait()
            news.clear()
            if await self._take_office(registry):
                self._judge_once(moment_of(time.time()))
            await asyncio.sleep(PAUSE_S)

    async def _take_office(self, registry: Registry) -> bool:
        """At the begin of a term: what predecessors wrote down. False while that cannot be read."""
        if not self._leading.acting:
            self._leave_office()
            return True
        guard = self._leading.guard
        if self._in_term and (guard is None or guard.epoch == self._epoch):
            return True
        try:
            others = await read_alerts(registry) if guard is not None else {}
            self._journal.lead(leading=True)
        except (FairleadError, TimeoutError, OSError) as error:
            log.warning("journal not read, nothing new is told yet", why=str(error) or "no answer")
            return self._in_term
        if self._in_term:  # elected again, and perhaps another was in between
            found = {key: merge(self.alerts.get(key), other) for key, other in others.items()}
        else:
            found = adopt(self._journal.alerts, others, now_s=time.time())
        self.alerts = {**self.alerts, **{k: forget_receivers(a, self.receivers) for k, a in found.items()}}
        self._dirty.update(dict.fromkeys(found))
        self._in_term, self._epoch = True, guard.epoch if guard is not None else 0
        self._to_write.set()
        return True

    def _leave_office(self) -> None:
        """Another leads: what we told is its business now."""
        if self._in_term:
            self._in_term, self.alerts, self._dirty = False, {}, {}
        if self._leading.elsewhere and self._journal.led:
            try:
                self._journal.clear()
            except OSError as error:
                log.error("journal not cleared", why=str(error))  # noqa: TRY400  # a peer\'s fault or a disk\'s: no traceback

    def _judge_once(self, at: Moment) -> None:
        begin_s = time.perf_counter()
        now_s, acting = at.now_s, self._leading.acting
        silences = [s for s in self.silences if now_s < s.until_s]
        scene = Scene(
            now_s=now_s,
            receivers=self.receivers,
            silenced=lambda alert: not acting or silenced(alert, silences, now_s=now_s),
        )
        before = self.alerts
        self.judgement = judge_all(self.rules, before, at, scene)
        self.alerts = dict(self.judgement.alerts)
        if acting:
            self._write_down(before)
        metrics.judge_seconds.observe(time.perf_counter() - begin_s)
        count(self.judgement)

    def _write_down(self, before: Mapping[str, Alert]) -> None:
        """On our disk before anybody is told. A disk that fails is no reason to keep silent."""
        told = [a for a in self.alerts.values() if a.sequence != _sequence(before.get(a.id))]
        ended = [key for key in before if key not in self.alerts]
        try:
            if told:
                self._journal.put(told)
            self._journal.end(ended)
        except OSError as error:
            log.error("journal not written", why=str(error))  # noqa: TRY400  # a peer\'s fault or a disk\'s: no traceback
        for alert in told:
            log.info("alert", rule=alert.rule, state=alert.told, sequence=alert.sequence, summary=alert.summary)
        self._dirty.update(dict.fromkeys([*(a.id for a in told), *ended]))
        if told or ended:
            self._to_write.set()

    # --- writing for the next leader

    async def write(self, registry: Registry) -> None:
        """For ever: the registry's documents as the alerts are. Changes are told once they stand there, or when the
        registry is out of sight.
        """
        while True:
            self._to_write.clear()
            failed = not await self._flush(registry)
            self._to_tell.set()
            wait_s = REGISTRY_RETRY_S if failed else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._to_write.wait()

    async def _flush(self, registry: Registry) -> bool:
        for key in list(self._dirty):
            guard = self._leading.guard
            if guard is None:
                return False
            alert = self.alerts.get(key)
            try:
                async with asyncio.timeout(WRITE_S):
                    if alert is None:
                        await registry.remove(paths.below(paths.ALERT_JOURNAL, key), guard=guard)
                    else:
                        await registry.write(paths.below(paths.ALERT_JOURNAL, key), encode(alert), guard=guard)
            except Conflict:
                self._leading.lost()
                return False
            except (FairleadError, TimeoutError) as error:
                log.warning("journal in the registry not written", why=str(error) or "no answer")
                return False
            if _told(self.alerts.get(key)) == _told(alert):
                self._dirty.pop(key, None)
            else:  # it went on meanwhile: once more
                self._to_write.set()
        return True

    # --- telling

    async def tell(self, receiver: str, session: aiohttp.ClientSession, backoff: Backoff, *, wait_s: float) -> None:
        """For ever: one receiver gets its changes one after the other, the oldest first."""
        attempt = 0
        while True:
            found = self._next(receiver)
            if found is None:
                self._to_tell.clear()
                await self._told_or_tick()
                continue
            alert, change = found
            try:
                await post(session, receiver, change.id, body(alert, change, cluster=self.cluster), wait_s=wait_s)
            except Refused as error:
                log.error("webhook refuses a change, given up", url=receiver, change=change.id, why=str(error))  # noqa: TRY400  # a peer\'s fault or a disk\'s: no traceback
                metrics.calls.labels("refused").inc()
            except FairleadError as error:
                metrics.calls.labels("failed").inc()
                if attempt == 0:
                    log.warning("webhook is away", url=receiver, why=str(error))
                await asyncio.sleep(backoff.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
                continue
            else:
                metrics.calls.labels("ok").inc()
                metrics.call_seconds.observe(max(0.0, time.time() - change.at_s))
            attempt = 0
            self._taken(alert.id, change.id, receiver)

    async def _told_or_tick(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._to_tell.wait()

    def _next(self, receiver: str) -> tuple[Alert, Change] | None:
        if not (self._leading.acting and self._in_term):
            return None
        waiting = [
            (a, c)
            for a in self.alerts.values()
            if a.waiting and not (self._leading.guard is not None and a.id in self._dirty)
            for c in a.waiting
            if receiver in c.to
        ]
        return min(waiting, key=lambda pair: (pair[1].at_s, pair[1].id), default=None)

    def _taken(self, alert_id: str, change_id: str, receiver: str) -> None:
        alert = self.alerts.get(alert_id)
        if alert is not None:
            self.alerts[alert_id] = taken(alert, change_id, receiver)
        try:
            self._journal.take(alert_id, change_id, receiver)
        except OSError as error:
            log.error("journal not written", why=str(error))  # noqa: TRY400  # a peer\'s fault or a disk\'s: no traceback
        self._dirty[alert_id] = None
        self._to_write.set()

    # --- what people ask for

    @property
    def unwritten(self) -> int:
        """Alerts of which the registry does not know the newest."""
        return len(self._dirty)

    def change_rules(self, rules: Mapping[str, Rule]) -> None:
        self.rules = rules

    def take_silences(self, nodes: Mapping[str, Node]) -> None:
        found: list[Silence] = []
        for name, node in nodes.items():
            try:
                found.append(msgspec.json.decode(node.data, type=Silence))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("silence unreadable", name=name, why=str(error))
        self.silences = tuple(found)


def _sequence(alert: Alert | None) -> int:
    return alert.sequence if alert is not None else 0


def _told(alert: Alert | None) -> tuple[int, tuple[Change, ...]] | None:
    """What the next leader must know of it."""
    return (alert.sequence, alert.waiting) if alert is not None else None


def encode(alert: Alert) -> bytes:
    return msgspec.json.encode(alert)


async def read_alerts(registry: Registry) -> dict[str, Alert]:
    """What stands in the registry. Raises Unavailable."""
    found: dict[str, Node] = {}
    async with asyncio.timeout(WRITE_S):
        for name in await registry.tree.names(paths.ALERT_JOURNAL):
            node = await registry.read(f"{paths.ALERT_JOURNAL}/{name}")
            if node is not None:
                found[name] = node
    return decode_alerts(found)


def count(judgement: Judgement) -> None:
    by_state = dict.fromkeys(State, 0)
    for alert in judgement.alerts.values():
        by_state[alert.state] += 1
    for state, number in by_state.items():
        metrics.alerts.labels(state.value).set(number)
    metrics.rule_errors.set(len(judgement.errors))

"""One topology looked after: look at its brokers, do what is harmless, tell the rest. Never ends for a peer's sake."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from fairlead_daemon.errors import FairleadError
from fairlead_daemon.logs import Log
from fairlead_messaging import metrics, surveying
from fairlead_messaging.adapters.management import Management
from fairlead_messaging.decisions.declared import Topology
from fairlead_messaging.decisions.links import Judged, State
from fairlead_messaging.decisions.planned import Plan, Step, rounds
from fairlead_messaging.decisions.wanted import Place
from fairlead_messaging.surveying import View

log = Log("messaging")
SOON_S = 1.0
"""After steps were taken: the next look shows what came of them."""
Places = Callable[[], dict[str, Place]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the last look showed."""

    views: tuple[View, ...] = ()
    plans: tuple[Plan, ...] = ()
    links: tuple[Judged, ...] = ()
    failed: str = ""
    """Why a step could not be taken."""


class Reconciler:
    """`source` names where the topology comes from; `places` finds its brokers afresh at each look."""

    def __init__(self, settings: Topology, source: str, places: Places, *, repair: bool) -> None:
        self.settings = settings
        self.source = source
        self.report = Report()
        self._places = places
        self._repair = repair
        self._series: frozenset[tuple[str, ...]] = frozenset()
        self._said: tuple[object, ...] = ()

    async def run(self, session: aiohttp.ClientSession, every_s: float, changed: asyncio.Event) -> None:
        """Looks every `every_s`, and at once when `changed` (the registry moved a broker)."""
        try:
            while True:
                changed.clear()
                acted = await self.cycle(session)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(every_s, SOON_S) if acted else every_s):
                        await changed.wait()
        finally:
            self._forget_metrics()

    async def cycle(self, session: aiohttp.ClientSession) -> bool:
        """Whether something was done: links need a moment then."""
        views = await surveying.survey(session, self.settings, self._places())
        plans = surveying.plans(views, prune=False)
        acting = self._repair and any(plan.harmless() for plan in plans)
        failed = await self._do(session, views, plans) if acting else ""
        self.report = Report(views=views, plans=plans, links=surveying.links(views), failed=failed)
        self._measure()
        self._tell()
        return acting and not failed

    async def _do(self, session: aiohttp.ClientSession, views: Sequence[View], plans: Sequence[Plan]) -> str:
        """Takes the steps nobody needs to look at; returns why one failed. Each broker's failure is its own."""
        by_broker = {view.broker: view for view in views}
        failures: dict[str, str] = {}
        for number in (0, 1):
            for plan in plans:
                steps = rounds(plan.harmless())[number]
                if steps and plan.broker not in failures:
                    management = Management(session, plan.broker, by_broker[plan.broker].place)
                    failures |= await self._take(management, plan, steps)
        return "; ".join(failures.values())

    async def _take(self, management: Management, plan: Plan, steps: tuple[Step, ...]) -> dict[str, str]:
        try:
            done = await management.carry_out(plan, steps, self.settings.name)
        except FairleadError as error:
            return {plan.broker: str(error)}
        metrics.STEPS.labels(topology=self.settings.name, broker=plan.broker).inc(done)
        log.info(
            "made as declared",
            broker=plan.broker,
            topology=self.settings.name,
            what=", ".join(str(s.thing) for s in steps),
        )
        return {}

    # --- what is told

    def _tell(self) -> None:
        """One line when something is otherwise than at the last look."""
        report = self.report
        bad = [j for j in report.links if j.state not in {State.RUNNING, State.STARTING}]
        said = (
            tuple(view.why for view in report.views if view.why),
            tuple(str(o) for plan in report.plans for o in plan.obstacles),
            tuple((j.link, j.state, j.why) for j in bad),
            report.failed,
        )
        if said == self._said:
            return
        self._said = said
        fields = {"topology": self.settings.name, "links": len(report.links), "not_running": len(bad)}
        why = "; ".join([*said[0], *said[1], *(f"{j.broker}: {j.link}: {j.state} {j.why}" for j in bad), report.failed])
        if any(said):
            log.warning("not as declared", **fields, why=why.strip("; "))
        else:
            log.info("as declared", **fields)

    def _measure(self) -> None:
        name, report = self.settings.name, self.report
        for view in report.views:
            metrics.BROKER_UP.labels(topology=name, broker=view.broker).set(view.actual is not None)
            states = [judged.state for judged in report.links if judged.broker == view.broker]
            for state in State:
                metrics.LINKS.labels(topology=name, broker=view.broker, state=state.value).set(states.count(state))
        for plan in report.plans:
            pending = len(plan.obstacles if self._repair and not report.failed else plan.steps)
            metrics.PENDING.labels(topology=name, broker=plan.broker).set(pending)
            metrics.OBSTACLES.labels(topology=name, broker=plan.broker).set(len(plan.obstacles))
        self._measure_links()

    def _measure_links(self) -> None:
        """A series a link; one that is no longer expected goes at once."""
        own = f"fairlead.{self.settings.name}."
        now: dict[tuple[str, ...], bool] = {}
        for judged in self.report.links:
            link = judged.link
            if judged.state is not State.STRAY and link.upstream.startswith(own):
                labels = (self.settings.name, judged.broker, link.vhost, link.kind, link.name, link.upstream)
                now[labels] = judged.state is State.RUNNING
        for gone in self._series - now.keys():
            metrics.LINK_UP.remove(*gone)
        for series, up in now.items():
            metrics.LINK_UP.labels(*series).set(up)
        self._series = frozenset(now)

    def _forget_metrics(self) -> None:
        for labels in self._series:
            metrics.LINK_UP.remove(*labels)
        for broker in self.settings.brokers:
            for gauge in (metrics.BROKER_UP, metrics.PENDING, metrics.OBSTACLES):
                _remove(gauge, self.settings.name, broker)
            for state in State:
                _remove(metrics.LINKS, self.settings.name, broker, state.value)

    def as_json(self) -> dict[str, Any]:
        report = self.report
        plans = {plan.broker: plan for plan in report.plans}
        return {
            "name": self.settings.name,
            "source": self.source,
            "failed": report.failed,
            "brokers": [_broker_json(view, plans.get(view.broker)) for view in report.views],
        }


def _broker_json(view: View, plan: Plan | None) -> dict[str, Any]:
    return {
        "broker": view.broker,
        "management": view.place.management,
        "up": view.actual is not None,
        "why": view.why,
        "version": view.actual.version_text if view.actual is not None else "",
        "obstacles": [str(o) for o in plan.obstacles] if plan is not None else [],
        "notes": list(plan.notes) if plan is not None else [],
    }


def _remove(gauge: Any, *labels: str) -> None:
    """prometheus_client's `remove` of a series that is not there is a KeyError."""
    try:
        gauge.remove(*labels)
    except KeyError:
        return

"""The HTTP pages: service discovery, series, alerts, silences, top, status; and the collector behind `/metrics`."""

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as MetricCollector

from fairlead_daemon.errors import BadSettings, Refused
from fairlead_daemon.web import error_response, json_response
from fairlead_discovery import paths
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Trust
from fairlead_monitoring.alerting import Alerting
from fairlead_monitoring.collecting import Collector
from fairlead_monitoring.decisions import houses
from fairlead_monitoring.decisions.judging import ACTIVE, State
from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.rules import span_s
from fairlead_monitoring.decisions.silences import Silence, silenced
from fairlead_monitoring.decisions.targets import targets
from fairlead_monitoring.decisions.top import top
from fairlead_monitoring.leading import Leading
from fairlead_monitoring.sight import Sight

SERIES_MOST = 500
"""Series of one answer of `/api/series`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the pages look at."""

    ring: Ring
    sight: Sight
    collector: Collector
    alerting: Alerting
    leading: Leading
    registry: Registry
    fresh_s: float


class NewSilence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"for_": "for"}):
    """The body of POST /api/silences."""

    for_: str | float
    rule: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    by: str = ""
    comment: str = ""


class Pages:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/sd", self.targets)
        app.router.add_get("/api/series", self.series)
        app.router.add_get("/api/names", self.names)
        app.router.add_get("/api/alerts", self.alerts)
        app.router.add_get("/api/top", self.top)
        app.router.add_post("/api/silences", self.silence)
        app.router.add_delete("/api/silences/{id}", self.unsilence)
        app.router.add_get("/status", self.status)

    async def targets(self, request: web.Request) -> web.Response:
        """503 before anything is known: Prometheus then keeps the targets it has."""
        if self._parts.sight.snapshot.revision < 0:
            return error_response(503, "nothing known of the registry yet")
        return json_response(targets(self._parts.sight.snapshot, dict(request.query)))

    async def names(self, _request: web.Request) -> web.Response:
        return json_response({"names": self._parts.ring.names()})

    async def series(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        name, since = query.pop("name", ""), query.pop("since", "-300")
        if not name:
            raise BadSettings("name: missing; /api/names lists what there is")
        now_s = time.time()
        since_s = _since(since, now_s)
        found = self._parts.ring.series(name, query)
        return json_response({
            "name": name,
            "now_s": now_s,
            "since_s": since_s,
            "left_out": max(0, len(found) - SERIES_MOST),
            "series": [
                {"labels": dict(one.labels), "points": self._parts.ring.points(one, since_s)}
                for one in found[:SERIES_MOST]
            ],
        })  # fmt: skip

    async def alerts(self, _request: web.Request) -> web.Response:
        return json_response(alerts_page(self._parts, now_s=time.time()))

    async def top(self, _request: web.Request) -> web.Response:
        now_s = time.time()
        firing = sum(alert.state in ACTIVE for alert in self._parts.alerting.alerts.values())
        page = top(self._parts.ring, now_s=now_s, fresh_s=self._parts.fresh_s)
        return json_response({**page, "alerts": firing, "trust": self._parts.sight.snapshot.trust.value})

    async def silence(self, request: web.Request) -> web.Response:
        told = msgspec.json.decode(await request.read(), type=NewSilence)
        if not told.rule and not told.labels:
            raise Refused("rule or labels: a silence of everything is not made")
        if told.rule and told.rule not in self._parts.alerting.rules:
            raise Refused(f"rule: there is none named {told.rule}")
        made = Silence(
            id=secrets.token_hex(4),
            until_s=time.time() + span_s(told.for_, "for"),
            rule=told.rule,
            labels=told.labels,
            by=told.by,
            comment=told.comment,
        )
        await self._parts.registry.write(paths.below(paths.SILENCES, made.id), msgspec.json.encode(made))
        return json_response(made, status=201)

    async def unsilence(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if await self._parts.registry.read(paths.below(paths.SILENCES, name)) is None:
            return error_response(404, f"no silence {name}")
        await self._parts.registry.remove(paths.below(paths.SILENCES, name))
        return json_response({"ended": name})

    async def status(self, _request: web.Request) -> web.Response:
        parts = self._parts
        return json_response({
            "acting": parts.leading.acting,
            "leading": parts.leading.guard is not None,
            "unwritten": parts.alerting.unwritten,
            "trust": parts.sight.snapshot.trust.value,
            "age_s": round(parts.sight.age_s(), 1) if parts.sight.snapshot.trust is not Trust.LIVE else 0,
            "revision": parts.sight.snapshot.revision,
            "series": len(parts.ring),
            "sources": {key: parts.collector.why.get(key, "") for key in sorted(parts.collector.keys())},
            "rule_errors": dict(parts.alerting.judgement.errors),
        })  # fmt: skip


def _since(text: str, now_s: float) -> float:
    """Seconds since 1970, or before now when negative. Raises BadSettings."""
    try:
        value = float(text)
    except ValueError as error:
        raise BadSettings(f"since: {text!r} is no number of seconds") from error
    return now_s + value if value < 0 else value


def alerts_page(parts: Parts, *, now_s: float) -> dict[str, Any]:
    alerting = parts.alerting
    silences = [s for s in alerting.silences if now_s < s.until_s]
    listed = sorted(
        (a for a in alerting.alerts.values() if a.state is not State.OK),
        key=lambda a: (a.rule, sorted(a.labels.items())),
    )
    return {
        "now_s": now_s,
        "acting": parts.leading.acting,
        "alerts": [
            {
                "id": a.id,
                "rule": a.rule,
                "state": a.state.value,
                "severity": a.severity,
                "labels": dict(a.labels),
                "summary": a.summary,
                "value": a.value,
                "since_s": a.since_s,
                "silenced": silenced(a, silences, now_s=now_s),
                "untold": len(a.waiting),
            }
            for a in listed
        ],
        "rules": [
            {
                "name": rule.name,
                "when": rule.when_text,
                "for_s": rule.for_s,
                "hold_s": rule.hold_s,
                "severity": rule.severity,
                "place": rule.place,
                "series": alerting.judgement.seen.get(rule.name, 0),
                "error": alerting.judgement.errors.get(rule.name, ""),
            }
            for rule in alerting.rules.values()
        ],
        "silences": silences,
    }


class Houses(MetricCollector):
    """Services, agents, balancers, links and sources on our `/metrics`: only what has a value now."""

    def __init__(self, ring: Ring, fresh_s: float) -> None:
        self._ring = ring
        self._fresh_s = fresh_s

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        now_s = time.time()
        for name, text in houses.HELP.items():
            found = list(self._ring.now(name, now_s, fresh_s=self._fresh_s))
            if found:
                counter = name.endswith("_total")
                family = (CounterMetricFamily if counter else GaugeMetricFamily)(
                    name, text, labels=[label for label, _ in found[0][0].labels]
                )
                for one, value in found:
                    family.add_sample(name, dict(one.labels), value)
                yield family

"""Federation links, alerts and measurements, from what their daemons tell."""

from dataclasses import dataclass

from fairlead_console.web.decisions.answers import AlertEntry, AlertsPage, LinkEntry, LinksPage, SeriesPage
from fairlead_console.web.decisions.graph import Point, summed
from fairlead_console.web.decisions.services import BAD, GOOD, IDLE, WAIT

LINK_TONES = {"running": GOOD, "starting": WAIT, "stray": WAIT, "unknown": WAIT}
ALERT_TONES = {"firing": BAD, "pending": WAIT, "no-data": WAIT, "resolved": GOOD, "ok": GOOD, "gone": IDLE}
ORDER = (BAD, WAIT, IDLE, GOOD)
QUIET = frozenset({"ok"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`source` is the broker messages come from, `target` the one they go to, `what` the exchange or queue."""

    source: str
    target: str
    what: str
    state: str
    tone: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    rule: str
    state: str
    tone: str
    severity: str
    summary: str
    labels: str
    since_s: float
    silenced: bool = False


def links(told: LinksPage) -> tuple[Link, ...]:
    """The worst first."""
    found = map(_link, told.links)
    return tuple(sorted(found, key=lambda link: (ORDER.index(link.tone), link.target, link.source, link.what)))


def _link(entry: LinkEntry) -> Link:
    return Link(
        source=entry.upstream,
        target=entry.broker,
        what=f"{entry.kind} {entry.name}" + (f" in {entry.vhost}" if entry.vhost not in {"", "/"} else ""),
        state=entry.state,
        tone=LINK_TONES.get(entry.state, BAD),
        why=entry.why,
    )


def alerts(told: AlertsPage) -> tuple[Alert, ...]:
    """The worst first, of those the latest; what is well is left out."""
    shown = [_alert(entry) for entry in told.alerts if entry.state not in QUIET]
    return tuple(sorted(shown, key=lambda alert: (ORDER.index(alert.tone), -alert.since_s, alert.rule)))


def _alert(entry: AlertEntry) -> Alert:
    return Alert(
        rule=entry.rule,
        state=entry.state,
        tone=ALERT_TONES.get(entry.state, BAD),
        severity=entry.severity,
        summary=entry.summary,
        labels=", ".join(f"{key}={value}" for key, value in sorted(entry.labels.items())),
        since_s=entry.since_s,
        silenced=entry.silenced,
    )


def line(told: SeriesPage) -> tuple[Point, ...]:
    """All series as one."""
    return summed([Point(at, value) for at, value in entry.points] for entry in told.series)

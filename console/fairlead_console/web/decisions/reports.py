"""Federation links and alerts, read from what their daemons tell, worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_console.web.decisions.graph import Point
from fairlead_console.web.decisions.services import BAD, GOOD, IDLE, WAIT
from fairlead_daemon.errors import Refused

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


def links(told: object) -> tuple[Link, ...]:
    """From the messaging daemon's `/status`. Raises Refused when it holds no list of links."""
    found = [_link(entry) for entry in _entries(told, "links")]
    return tuple(sorted(found, key=lambda link: (ORDER.index(link.tone), link.target, link.source, link.what)))


def _link(entry: Mapping[str, Any]) -> Link:
    state = _text(entry, "state") or "unknown"
    vhost = _text(entry, "vhost")
    return Link(
        source=_text(entry, "upstream"),
        target=_text(entry, "broker"),
        what=f"{_text(entry, 'kind')} {_text(entry, 'name')}" + (f" in {vhost}" if vhost not in {"", "/"} else ""),
        state=state,
        tone=LINK_TONES.get(state, BAD),
        why=_text(entry, "why"),
    )


def alerts(told: object) -> tuple[Alert, ...]:
    """From the monitor's `/api/alerts`. Raises Refused when it holds no list of alerts."""
    found = [_alert(entry) for entry in _entries(told, "alerts")]
    shown = [alert for alert in found if alert.state not in QUIET]
    return tuple(sorted(shown, key=lambda alert: (ORDER.index(alert.tone), -alert.since_s, alert.rule)))


def _alert(entry: Mapping[str, Any]) -> Alert:
    state = _text(entry, "state")
    labels = entry.get("labels")
    return Alert(
        rule=_text(entry, "rule"),
        state=state,
        tone=ALERT_TONES.get(state, BAD),
        severity=_text(entry, "severity"),
        summary=_text(entry, "summary"),
        labels=", ".join(f"{k}={v}" for k, v in sorted(labels.items())) if isinstance(labels, Mapping) else "",
        since_s=_number(entry.get("since_s")),
        silenced=bool(entry.get("silenced")),
    )


def points(told: object) -> tuple[Sequence[Point], ...]:
    """Lines of the monitor's `/api/series`: `{"series": [{"points": [[time_s, value], …]}]}`."""
    return tuple(
        tuple(Point(float(at), float(value)) for at, value in entry.get("points", ()))
        for entry in _entries(told, "series")
    )


def _entries(told: object, key: str) -> Sequence[Mapping[str, Any]]:
    found = told.get(key) if isinstance(told, Mapping) else told
    if not isinstance(found, list) or not all(isinstance(entry, Mapping) for entry in found):
        raise Refused(f"its answer has no list of {key}")
    return found


def _text(entry: Mapping[str, Any], key: str) -> str:
    return str(entry.get(key) or "")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

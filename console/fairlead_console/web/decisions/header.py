"""The first lines of the page: how far what it shows may be believed."""

from dataclasses import dataclass

from fairlead_console.web.decisions.services import BAD, GOOD, WAIT
from fairlead_discovery.snapshots import Snapshot, Trust

MEANING = {
    Trust.LIVE: "The registry is in sight",
    Trust.STALE: "The registry is out of sight: this is the last good state",
    Trust.HELD: "The registry is not believed: this is the last good state, until `fairlead registry confirm`",
}
TONES = {Trust.LIVE: GOOD, Trust.STALE: BAD, Trust.HELD: WAIT}
MINUTE_S, HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    trust: str
    tone: str
    meaning: str
    revision: str
    age: str
    bad: tuple[tuple[str, str], ...]
    """Nodes of the registry that could not be read, with the reason."""


def header(snapshot: Snapshot, *, age_s: float) -> Header:
    why = f" ({snapshot.why})" if snapshot.why else ""
    return Header(
        trust=str(snapshot.trust),
        tone=TONES[snapshot.trust],
        meaning=f"{MEANING[snapshot.trust]}{why}",
        revision=str(snapshot.revision) if snapshot.revision >= 0 else "none yet",
        age="current" if snapshot.trust is Trust.LIVE else f"{duration(age_s)} old",
        bad=tuple(sorted(snapshot.bad.items())),
    )


def duration(seconds: float) -> str:
    """`4 s`, `3 min`, `2 h 5 min`."""
    whole = int(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S} min"

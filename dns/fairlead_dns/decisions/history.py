"""What a name answered at a time, and what changed from one serial to another: read from the journal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.compose import RRset
from fairlead_dns.decisions.journal import Change, Held, Journal, NameChange
from fairlead_dns.decisions.naming import Record
from fairlead_dns.decisions.why import text_of

LAST_S = 253_402_300_800  # the end of the year 9999
AGO_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Moment:
    """When something changed, and with which serial."""

    at_s: float
    serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a name had at a time. `since`: by which change, None when it was so before all that is remembered. `until`:
    by which change no longer, None: it still has it. `remembered` False: the time lies before what is remembered, and
    `held` is the oldest that is.
    """

    held: Held
    since: Moment | None
    until: Moment | None
    remembered: bool = True


@dataclass(frozen=True, slots=True)
class Memory:
    """A journal, what a name has now, and when we began to look."""

    journal: Journal
    live: Held
    begun_s: float

    @property
    def begins_s(self) -> float:
        """Unix time from which on everything is known."""
        changes = self.journal.changes
        if not self.journal.forgotten:
            return self.begun_s
        return changes[0].at_s if changes else float("inf")


def past(memory: Memory, name: bytes, at_s: float) -> Past:
    since: Moment | None = None
    held, begins_s = memory.live, memory.begins_s
    for change, one in touching(memory.journal.changes, name):
        moment = Moment(change.at_s, change.serial)
        if change.at_s > at_s:
            remembered = since is not None or at_s >= begins_s
            return Past(held=one.before, since=since, until=moment, remembered=remembered)
        since, held = moment, one.after
    return Past(held=held, since=since, until=None, remembered=since is not None or at_s >= begins_s)


def touching(changes: Iterable[Change], name: bytes) -> Iterator[tuple[Change, NameChange]]:
    """The changes of one name, oldest first."""
    return ((change, one) for change in changes for one in change.names if one.name == name)


# --- as it is shown ---------------------------------------------------------------------------------------------------


def rows(held: Iterable[RRset]) -> list[str]:
    """`A 10.0.0.1`."""
    return [text_of(Record(rrset.owner, rrset.kind, data)) for rrset in held for data in rrset.data]


def stamp(at_s: float) -> str:
    """`2026-11-20T14:02:00.123Z`."""
    return f"{datetime.fromtimestamp(at_s, UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def moment_row(moment: Moment | None) -> dict[str, Any] | None:
    return None if moment is None else {"time": stamp(moment.at_s), "serial": moment.serial}


def name_row(change: Change, one: NameChange) -> dict[str, Any]:
    """One change of one name."""
    return {
        "time": stamp(change.at_s),
        "serial": change.serial,
        "removed": rows(one.removed()),
        "added": rows(one.added()),
    }


def change_row(change: Change, closed: Callable[[bytes], bytes]) -> dict[str, Any]:
    """One change with all its names but those that are `closed` (as View.closed)."""
    names = [
        {"name": wire.text(n.name), "removed": rows(n.removed()), "added": rows(n.added())}
        for n in change.names
        if not closed(n.name)
    ]
    return {"time": stamp(change.at_s), "serial": change.serial, "serial_before": change.serial_before, "names": names}


def after(changes: Sequence[Change], serial: int) -> list[Change] | None:
    """The changes after `serial`, oldest first; None when it is not one that is remembered."""
    found: list[Change] = []
    for change in reversed(changes):
        if change.serial == serial:
            return found[::-1]
        found.append(change)
        if change.serial_before == serial:
            return found[::-1]
    return None


def moment(text: str, *, now_s: float) -> float:
    """Unix time of `2026-11-20T14:02Z`, `14:02` (the last one there was, UTC unless an offset is given), `5m` (ago), or
    of seconds since 1970. Raises ValueError with what is expected.
    """
    wrong = f"{text[:40]!r} is no time: expected 14:02, 2026-11-20T14:02:00Z, 5m (ago) or seconds since 1970"
    try:
        found = _parsed(text, now_s)
    except (ValueError, OverflowError) as error:
        raise ValueError(wrong) from error
    if not 0 <= found < LAST_S:
        raise ValueError(wrong)
    return found


def _parsed(text: str, now_s: float) -> float:
    number = text.removesuffix("ago").strip()
    if number and number[-1] in AGO_S and number[:-1].replace(".", "", 1).isdigit():
        return now_s - float(number[:-1]) * AGO_S[number[-1]]
    if text.replace(".", "", 1).isdigit():
        return float(text)
    if len(text) >= len("2026-11-20"):
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    return _clock(text, now_s)


def _clock(text: str, now_s: float) -> float:
    today = datetime.fromtimestamp(now_s, UTC).date().isoformat()
    parsed = datetime.fromisoformat(f"{today}T{text}")
    found = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return (found if found.timestamp() <= now_s else found - timedelta(days=1)).timestamp()

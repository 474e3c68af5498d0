"""When may a task that was told to leave be killed? One pure rule, for the master and whoever plays its part."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead_discovery.records import NameServer, Progress, Reason

TTL_MARGIN_S = 1.0
"""Between a name server's answer and the arrival of its client's first packet."""
DEAD_RECORD_S = 2.0
"""How long the record of a task that died while published stays: readers tell a death from a disappearance by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A task told to leave. `revision` None: its withdrawal is not committed. Times by one monotonic clock."""

    task: str
    reason: Reason
    deadline_s: float
    revision: int | None = None
    committed_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Who may still send work to a task that has left. `progress` is by balancer id, of registered ones."""

    largest_ttl_s: float = 0.0
    balancers: frozenset[str] = frozenset()
    progress: Mapping[str, Progress] | None = None


def due(departures: Iterable[Departure], readers: Readers, *, now_s: float) -> frozenset[str]:
    """Task ids that may be killed now: nobody can be sent there any more, or the deadline has come."""
    return frozenset(d.task for d in departures if is_due(d, readers, now_s=now_s))


def is_due(departure: Departure, readers: Readers, *, now_s: float) -> bool:
    if now_s >= departure.deadline_s or departure.reason in {Reason.UNHEALTHY, Reason.DEAD}:
        return True
    if departure.revision is None or now_s - departure.committed_s < readers.largest_ttl_s + TTL_MARGIN_S:
        return False
    progress = readers.progress or {}
    return all(drained(departure, progress.get(b)) for b in readers.balancers)


def drained(departure: Departure, progress: Progress | None) -> bool:
    """A registered balancer that says nothing may still be serving: it has not drained anything."""
    if progress is None or departure.revision is None or progress.applied_revision < departure.revision:
        return False
    return departure.task not in progress.busy and not progress.busy_more


LARGEST_TTL_S = 86_400
"""No name server of ours gives out more than a day; a record that says so is a mistake, and would hold up every kill."""
WENT_MOST = 100


def ttl_problem(server: NameServer) -> str:
    """Why a name server's announcement is not heeded, "" when it is."""
    if 0 <= server.largest_ttl_s <= LARGEST_TTL_S:
        return ""
    return f"largest_ttl_s {server.largest_ttl_s} is not from 0 to {LARGEST_TTL_S}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NameServers:
    """TTLs that may still be cached: those of servers that are announced, and of those that went, for that long."""

    announced: Mapping[str, float]
    went: tuple[tuple[float, float], ...] = ()
    """(ttl_s, until_s), the largest WENT_MOST first."""

    def largest_ttl_s(self, *, now_s: float) -> float:
        return max((*self.announced.values(), *(ttl for ttl, until in self.went if until > now_s)), default=0.0)


def seen(before: NameServers, announced: Mapping[str, float], *, now_s: float) -> NameServers:
    """After a look at the announcements: what a server that went has answered may be believed for its TTL."""
    went = [(ttl, until) for ttl, until in before.went if until > now_s]
    went += [(ttl, now_s + ttl) for name, ttl in before.announced.items() if name not in announced]
    return NameServers(announced=dict(announced), went=tuple(sorted(went, reverse=True)[:WENT_MOST]))

"""Which servers of a backend are near, and when the near ones do not suffice.

A backend has near slots and far ones. Far ones are HAProxy's backups: they get requests when no near server is up, at
once and by HAProxy itself. When too few of the near ones are up, or requests wait for them, the next tier becomes near
too: that is decided here, from what HAProxy counts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from fairlead_discovery.decisions.localities import NOWHERE, SAME_ZONE, Place, merged, tier
from fairlead_lb.decisions.values import Backend, Key, Server, Slots

ENOUGH = 0.7
"""Of the near servers so many must be up: fewer would carry half as much again."""
HOLD_S = 30.0
LONGEST = 10
"""Going back to the near ones too early each time doubles the pause, up to so many times HOLD_S."""
FAR = "f"
"""Far slots are called `f1`, near ones `s1`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where this balancer stands. `machine`: addresses of its own machine, empty when that is no tier. `least`: servers
    a tier must have to be nearer than the next one.
    """

    place: Place = NOWHERE
    machine: frozenset[str] = frozenset()
    least: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """`levels`: how many tiers beyond the nearest are near too, for now. Without a standing nothing is far."""

    standing: Standing | None = None
    levels: Mapping[Key, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spill:
    """`level`: so many tiers more are near, at least until `until_s`, while the nearest tier has these tasks; `times`: by
    how much the pause has grown.
    """

    level: int
    until_s: float
    nearest: frozenset[str]
    times: int = 1


Spills = Mapping[Key, Spill]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Of a backend: near servers that are up, and requests that wait."""

    up: int
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look finds, by backend; `loads` may lack some."""

    loads: Mapping[str, Load]
    backends: Mapping[str, Backend]
    slots: Mapping[str, Slots]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spilling:
    """What has spilled over, and which backends had requests waiting at the last look."""

    spills: Spills = field(default_factory=dict)
    queued: frozenset[str] = frozenset()

    @property
    def levels(self) -> Mapping[Key, int]:
        return {key: spill.level for key, spill in self.spills.items() if spill.level}


def is_far(slot: str) -> bool:
    return slot.startswith(FAR)


Placed = tuple[tuple[Server, ...], Standing | None, int, tuple[Server, ...]]
"""What it was worked out from, and the servers as they are placed."""
Placings = Mapping[Key, Placed]
"""By backend."""


def placings(servers: Iterable[tuple[Key, tuple[Server, ...]]], last: Placings, rules: Near) -> Placings:
    """Of every backend; those whose servers are the very same as last time are not worked out again."""
    standing = rules.standing
    found: dict[Key, Placed] = {}
    for key, these in servers if standing is not None else ():
        level, before = rules.levels.get(key, 0), last.get(key)
        if before is None or before[0] is not these or before[1] is not standing or before[2] != level:
            before = (these, standing, level, placed(these, standing, level))
        found[key] = before
    return found


def placed(servers: tuple[Server, ...], standing: Standing | None, level: int) -> tuple[Server, ...]:
    """With `far` set for all that are behind the nearest tier and `level` tiers more. None: nothing is far."""
    if standing is None or len(servers) < 2:
        return servers
    return tuple(
        msgspec.structs.replace(server, far=True) if rank > level else server
        for server, rank in zip(servers, _ranks(servers, standing), strict=True)
    )


def _ranks(servers: Sequence[Server], standing: Standing) -> list[int]:
    """0 for those of the nearest tier that there is, and so on."""
    tiers = [_tier(server, standing) for server in servers]
    counts_as = merged(Counter(tiers), standing.least)
    ranks = {number: rank for rank, number in enumerate(sorted(set(counts_as.values())))}
    return [ranks[counts_as[number]] for number in tiers]


def _tier(server: Server, standing: Standing) -> int:
    found = tier(standing.place, Place(server.zone, server.region), own=server.host in standing.machine)
    return found if standing.machine else max(found, SAME_ZONE)


def spill(last: Spilling, seen: Seen, standing: Standing, now_s: float) -> Spilling:
    """One look."""
    spills: dict[Key, Spill] = {}
    for name, backend in seen.backends.items():
        before = last.spills.get(backend.key)
        if before is None and not (_doubtful(seen, name, name in last.queued) and any(s.far for s in backend.servers)):
            continue
        ranks = _ranks(backend.servers, standing)
        nearest = frozenset(s.task for s, rank in zip(backend.servers, ranks, strict=True) if not rank)
        if before is not None and before.nearest != nearest:
            before = None
        further = max(ranks, default=0) - (before.level if before is not None else 0)
        short = _short(seen, name, further=further, queued_before=name in last.queued)
        after = _next(before, nearest, short=short, now_s=now_s)
        if after is not None:
            spills[backend.key] = after
    return Spilling(spills=spills, queued=frozenset(name for name, load in seen.loads.items() if load.queued))


def _short(seen: Seen, name: str, *, further: int, queued_before: bool) -> bool:
    """Whether a tier more would help. With no near server up HAProxy has turned to all that are far: right, when those
    are of one tier. A queue counts when it was there a second ago too.
    """
    load = seen.loads.get(name)
    if load is None or further < 1 or (not load.up and further == 1):
        return False
    return _doubtful(seen, name, queued_before)


def _doubtful(seen: Seen, name: str, queued_before: bool) -> bool:
    load = seen.loads.get(name)
    if load is None or (load.queued > 0 and queued_before):
        return load is not None
    return load.up < ENOUGH * _in_service(seen.backends[name], seen.slots.get(name, {}))


def _in_service(backend: Backend, slots: Slots) -> int:
    """Near servers as HAProxy has them; those that are put aside were counted down already."""
    weights = {server.task: server.weight for server in backend.servers if not server.far}
    return sum(weights.get(slot.task, 0) > 0 for place, slot in slots.items() if not is_far(place) and slot.serves)


def _next(before: Spill | None, nearest: frozenset[str], *, short: bool, now_s: float) -> Spill | None:
    """One tier more at once, one tier less after a pause, forgotten after another one."""
    if short:
        again = before is not None and before.level == 0  # it came back too early
        times = 1 if before is None else min(LONGEST, before.times * 2) if again else before.times
        level = 1 if before is None else before.level + 1
        return Spill(level=level, until_s=now_s + HOLD_S * times, nearest=nearest, times=times)
    if before is None or now_s < before.until_s:
        return before
    if not before.level:
        return None
    return replace(before, level=before.level - 1, until_s=now_s + HOLD_S * before.times)


def loads(csv: str) -> Mapping[str, Load]:
    """`show stat -1 2 -1`: `# pxname,svname,qcur,…`, backends alone."""
    head, _, body = csv.partition("\n")
    columns = head.removeprefix("# ").split(",")
    if "act" not in columns:
        return {}
    name, queued, active = (columns.index(word) for word in ("pxname", "qcur", "act"))
    rows = (line.split(",", active + 1) for line in body.splitlines() if line)
    return {row[name]: Load(up=_number(row[active]), queued=_number(row[queued])) for row in rows if len(row) > active}


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0

"""Rails: what may vanish from services at once, and how often an endpoint may come and go.

What leaves in order leaves a record (`leaving/<task>`). What vanishes without one is held: all of it when the service
would be empty, else what exceeds `removed_percent` of the service, or of everything, in one interval. Held endpoints
stay in HAProxy, whose checks take out those that do not answer. They go when a record comes, when they come back, when
somebody else has their address, when their route is taken away, when a person says so, or when `hold_s` is over.
Accounted for without a record: as many as came new, and all that stood on agents that vanished as a whole.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from fairlead_discovery.decisions.delta import Delta, differing
from fairlead_discovery.decisions.trust import RECORD_MEMORY_S, withdrawn
from fairlead_discovery.records import Leaving, Member, Reason
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions.flapping import Damper, FlapLimits, Place

Members = Mapping[str, Member]
LEAST_REMOVED = 4
"""Of everything; with fewer one cannot tell a disaster from an ordinary day (as in discovery's trust)."""
DISORDER = frozenset({Reason.UNHEALTHY, Reason.DEAD})
NOBODY: Members = {}
EMPTY = "the service would be empty"
PACED = "too many at once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`hold_s` 0: nothing is held."""

    hold_s: float = 300.0
    removed_percent: float = 50.0
    interval_s: float = 10.0
    flaps: FlapLimits = field(default_factory=FlapLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    member: Member
    since_s: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """What becomes of one service: `members` are those to serve."""

    members: Members
    held: Mapping[str, Held] = field(default_factory=dict)
    """By node name."""
    damped: Mapping[str, float] = field(default_factory=dict)
    """Node name -> until when."""


class Rails:
    """`let_through` every snapshot that is believed, in order; `ruled` says what was done to it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ruled: dict[str, Ruled] = {}
        """Services that are not served as the registry has them."""
        self._damper = Damper(limits.flaps)
        self.last: Snapshot | None = None
        """As the registry has it."""
        self._given: Mapping[str, Members] = {}
        self._recorded: dict[str, tuple[float, Reason]] = {}
        self._removed: deque[tuple[float, str, int]] = deque()
        self._said_s = -1.0

    def confirm(self, *, said_s: float) -> None:
        """A person's word: what has vanished until then has rightly vanished."""
        self._said_s = max(self._said_s, said_s)

    def due_s(self, *, now_s: float) -> float | None:
        """Seconds until the clock alone changes something; None when it does not."""
        held = [h for there in self.ruled.values() for h in there.held.values()]
        times = [h.since_s + self.limits.hold_s for h in held]
        times += [until for there in self.ruled.values() for until in there.damped.values()]
        if held and self._removed:
            times.append(self._removed[0][0] + self.limits.interval_s)
        if any(h.since_s <= self._said_s for h in held):
            times.append(now_s)
        return max(0.0, min(times) - now_s) if times else None

    def let_through(self, snapshot: Snapshot, *, now_s: float) -> Snapshot:
        """With what is held and without what is damped; the very same when that is nothing."""
        self._remember(snapshot.leaving, now_s)
        last, self.last = self.last, snapshot
        if last is None:
            self._given = snapshot.members
            return snapshot
        changed = differing(last.members, snapshot.members, snapshot.delta)
        self._note(last, snapshot, changed, now_s)
        looked_at = {*changed, *self.ruled}
        if not self.ruled and all(self._in_order(s, last, snapshot, now_s) for s in changed):
            self._given = snapshot.members
            return snapshot
        self._rule(looked_at, last, snapshot, changed, now_s)
        return self._snapshot(snapshot, looked_at)

    # --- one look ------------------------------------------------------------------------------------------------

    def _in_order(self, service: str, last: Snapshot, snapshot: Snapshot, now_s: float) -> bool:
        before, now = last.members.get(service, NOBODY), snapshot.members.get(service, NOBODY)
        tasks = {m.task.id for m in now.values()}
        if any(m.task.id not in tasks and m.task.id not in self._recorded for m in before.values()):
            return False
        return not any(self._damper.until_s(_place(service, m), now_s=now_s) for m in now.values())

    def _rule(
        self, services: Iterable[str], last: Snapshot, snapshot: Snapshot, changed: Iterable[str], now_s: float
    ) -> None:
        while self._removed and now_s - self._removed[0][0] >= self.limits.interval_s:
            self._removed.popleft()
        vanished = {s: self._vanished(s, last, snapshot, now_s) for s in services}
        gone = {s: there for s, there in vanished.items() if there}
        fresh = any(h.since_s == now_s for there in gone.values() for h in there.values())
        everyone = snapshot.members if fresh else {s: snapshot.members.get(s, NOBODY) for s in changed}
        claimed = {a for there in everyone.values() for m in there.values() for a in _addresses(m)} if gone else set()
        agents = _gone_agents(gone, last, snapshot) if gone else frozenset()
        for service in services:
            free = {n: h for n, h in vanished[service].items() if not claimed.intersection(_addresses(h.member))}
            held = self._held(service, free, snapshot, agents, now_s)
            self._put(service, snapshot.members.get(service, NOBODY), held, now_s)

    def _vanished(self, service: str, last: Snapshot, snapshot: Snapshot, now_s: float) -> dict[str, Held]:
        """What was served until now and has gone without a word; the longest held first."""
        if not self.limits.hold_s or (service in last.routes and service not in snapshot.routes):
            return {}
        tasks = {m.task.id for m in snapshot.members.get(service, NOBODY).values()}
        before = self.ruled[service].held if service in self.ruled else {}
        candidates = dict(before)
        for name, member in last.members.get(service, NOBODY).items():
            candidates.setdefault(name, Held(member=member, since_s=now_s, why=""))
        return {
            name: one
            for name, one in sorted(candidates.items(), key=lambda item: item[1].since_s)
            if one.member.task.id not in tasks
            and one.member.task.id not in self._recorded
            and now_s - one.since_s < self.limits.hold_s
            and not (name in before and one.since_s <= self._said_s)
        }

    def _held(
        self, service: str, vanished: Mapping[str, Held], snapshot: Snapshot, agents: frozenset[str], now_s: float
    ) -> Mapping[str, Held]:
        now = snapshot.members.get(service, NOBODY)
        if not now:
            return {name: replace(one, why=EMPTY) for name, one in vanished.items()}
        last = self._given.get(service, NOBODY)
        known = {m.task.id for m in last.values()}
        replaced = sum(m.task.id not in known for m in now.values())
        lasting = {n: h for n, h in vanished.items() if h.member.task.agent not in agents}
        may_go = self._budget(service, len(now) + len(lasting))
        going = list(lasting)[: may_go + replaced]
        if counted := len(going) - replaced if len(going) > replaced else 0:
            self._removed.append((now_s, service, counted))
        return {name: replace(one, why=PACED) for name, one in lasting.items() if name not in going}

    def _budget(self, service: str, size: int) -> int:
        """How many more may go in this interval, of the service and of everything."""
        mine = sum(count for _, name, count in self._removed if name == service)
        everyone = sum(count for _, _, count in self._removed)
        all_known = sum(map(len, self._given.values())) + everyone
        part = self.limits.removed_percent / 100
        of_mine = max(1, int((size + mine) * part)) - mine
        of_all = max(LEAST_REMOVED, int(all_known * part)) - everyone
        return max(0, min(of_mine, of_all))

    def _put(self, service: str, now: Members, held: Mapping[str, Held], now_s: float) -> None:
        damped = {n: until for n, m in now.items() if (until := self._damper.until_s(_place(service, m), now_s=now_s))}
        if len(damped) == len(now):
            damped = {}  # rather one that flaps than none
        if not held and not damped:
            self.ruled.pop(service, None)
            return
        members = {**{n: m for n, m in now.items() if n not in damped}, **{n: h.member for n, h in held.items()}}
        before = self._given.get(service, NOBODY)
        same = members.keys() == before.keys()  # a member's name says its content
        self.ruled[service] = Ruled(members=before if same else members, held=held, damped=damped)

    def _snapshot(self, snapshot: Snapshot, looked_at: Iterable[str]) -> Snapshot:
        if self.ruled:
            given: dict[str, Members] = {**snapshot.members, **{s: there.members for s, there in self.ruled.items()}}
            members: Mapping[str, Members] = given
        else:
            members = snapshot.members
        delta = Delta(since=self._given, keys=frozenset(looked_at))
        self._given = members
        return replace(snapshot, members=members, delta=delta)

    # --- memory --------------------------------------------------------------------------------------------------

    def _remember(self, leaving: Mapping[str, Leaving], now_s: float) -> None:
        if self.last is not None and leaving is self.last.leaving:
            return
        for task, record in leaving.items():
            self._recorded.pop(task, None)
            self._recorded[task] = (now_s, record.reason)
        while self._recorded and now_s - next(iter(self._recorded.values()))[0] > RECORD_MEMORY_S:
            del self._recorded[next(iter(self._recorded))]

    def _note(self, last: Snapshot, snapshot: Snapshot, changed: Iterable[str], now_s: float) -> None:
        for service in changed:
            before, now = last.members.get(service, NOBODY), snapshot.members.get(service, NOBODY)
            for name in before.keys() - now.keys():
                recorded = self._recorded.get(before[name].task.id)
                if recorded is None or recorded[1] in DISORDER:
                    self._damper.departed(_place(service, before[name]), now_s=now_s)
            for name in now.keys() - before.keys():
                if (task := now[name].task.id) not in snapshot.leaving:
                    self._recorded.pop(task, None)  # it is back: its next departure needs a record of its own
                self._damper.arrived(_place(service, now[name]), now_s=now_s)


def _place(service: str, member: Member) -> Place:
    return service, member.serviceEndpoint.host, member.serviceEndpoint.port


def _addresses(member: Member) -> Iterator[tuple[str, int]]:
    host = member.serviceEndpoint.host
    yield host, member.serviceEndpoint.port
    for port in member.ports:
        yield host, port.host_port
    for place in member.additionalEndpoints.values():
        yield place.host, place.port


def _gone_agents(gone: Mapping[str, Mapping[str, Held]], last: Snapshot, snapshot: Snapshot) -> frozenset[str]:
    """Agents that were withdrawn as a whole: their tasks have gone in order (architecture 3.5)."""
    touched = {h.member.task.agent for there in gone.values() for h in there.values()} - {""}
    if not touched:
        return frozenset()
    good = {s: {m.task.id: m.task.agent for m in there.values()} for s, there in last.members.items()}
    new = {s: {m.task.id: m.task.agent for m in there.values()} for s, there in snapshot.members.items()}
    return withdrawn(good, new, touched)

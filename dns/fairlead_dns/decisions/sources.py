"""Who gives names now, and what changes when they change: snapshots, frameworks, agents, masters into record diffs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from fairlead_discovery.decisions.delta import differing
from fairlead_discovery.records import Member, Portless
from fairlead_discovery.snapshots import Snapshot
from fairlead_dns.decisions.claims import Claims
from fairlead_dns.decisions.naming import Record, Rules
from fairlead_dns.decisions.speaking import of_task
from fairlead_dns.decisions.traits import Traits, health
from fairlead_dns.decisions.zone import Zone

Task = Member | Portless
Services = Mapping[str, Mapping[str, Task]]
STEP = 50  # tasks; about 3 ms of CPU


@dataclass(frozen=True, slots=True)
class Step:
    """One service, before and after; `added` and `removed` are the names of nodes."""

    service: str
    before: Mapping[str, Task]
    after: Mapping[str, Task]
    added: Sequence[str]
    removed: Sequence[str]

    @classmethod
    def between(cls, service: str, before: Mapping[str, Task], after: Mapping[str, Task]) -> "Step":
        added = [n for n, task in after.items() if before.get(n) is not task and before.get(n) != task]
        removed = [n for n, task in before.items() if after.get(n) is not task and after.get(n) != task]
        return cls(service, before, after, added, removed)

    def newcomers(self) -> frozenset[str]:
        """Of `added`, those whose task was not there before."""
        known = {self.before[name].task.id for name in self.removed}
        return frozenset(name for name in self.added if self.after[name].task.id not in known)


@dataclass(slots=True)
class Sources:
    """The zone with its contributors. Each `take_…` brings one kind up to date and returns the names touched.

    A task's records are a pure function of its record: they are made again for removal instead of being kept.
    """

    rules: Rules
    zone: Zone
    traits: Traits = field(default_factory=Traits)
    members: Services = field(default_factory=dict)
    portless: Services = field(default_factory=dict)
    others: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    claims: Claims = field(init=False)
    rivals: dict[str, str] = field(default_factory=dict)
    """Services that share a name with another one, by what tells them apart: as their records stand in the zone."""

    def __post_init__(self) -> None:
        self.claims = Claims(self.rules)

    def take_snapshot(self, snapshot: Snapshot, *, now_s: float | None = None) -> set[bytes]:
        return set[bytes]().union(*self.steps(snapshot, now_s=now_s))

    def steps(self, snapshot: Snapshot, *, now_s: float | None = None) -> Iterator[set[bytes]]:
        """The same in steps of at most STEP tasks, so that queries are answered between them; to be run to the end.

        Of a service what is new comes before what is old goes. Yields the names touched by each step. `now_s`: tasks
        that are new to us begin to warm up now; None: they are as old as ourselves.
        """
        members = differing(self.members, snapshot.members, snapshot.delta)
        portless = differing(self.portless, snapshot.portless, None)
        steps = [Step.between(s, self.members.get(s, {}), snapshot.members.get(s, {})) for s in members]
        steps += [Step.between(s, self.portless.get(s, {}), snapshot.portless.get(s, {})) for s in portless]
        moved: set[str] = set()
        yield from self._claim_all(steps, moved)
        turned = {service for service in moved if self.claims.rival(service) != self.rivals.get(service, "")}
        for step in steps:
            yield from self._take(step, now_s)
        for service in turned:
            yield from self._rename(service, self.members.get(service, {}), snapshot.members.get(service, {}))
            yield from self._rename(service, self.portless.get(service, {}), snapshot.portless.get(service, {}))
        self.members, self.portless = snapshot.members, snapshot.portless
        for service in turned:
            self._turn(service)

    def take_other(self, who: str, records: tuple[Record, ...]) -> set[bytes]:
        """Frameworks, agents, masters, ourselves: `who` replaces what it gave before."""
        before = self.others.get(who, ())
        if before == records:
            return set()
        if records:
            self.others[who] = records
        else:
            del self.others[who]
        return self.zone.apply(added=records, removed=before)

    def _claim_all(self, steps: Iterable["Step"], moved: set[str]) -> Iterator[set[bytes]]:
        """Puts into `moved` whose rivals may be others now. Touches no name: it yields for the sake of queries."""
        done = 0
        for step in steps:
            for added, removed in chain(((s, ()) for s in slices(step.added)), (((), s) for s in slices(step.removed))):
                moved |= self.claims.take(
                    step.service,
                    added=(step.after[name] for name in added),
                    removed=(step.before[name] for name in removed),
                )
                done += len(added) + len(removed)
                if done >= 2 * STEP:  # it is quick
                    done = 0
                    yield set()

    def _rename(self, service: str, before: Mapping[str, Task], tasks: Mapping[str, Task]) -> Iterator[set[bytes]]:
        """What stays of a service that has come to share a name with another one, or shares it no more."""
        kept = [name for name, task in tasks.items() if before.get(name) == task]
        for some in slices(kept):
            touched: set[bytes] = set()
            for name in some:
                old = self._of(service, tasks[name], self.rivals.get(service, ""))
                new = self._of(service, tasks[name])
                self.traits.remove(name, tasks[name], old)
                self.traits.add(name, tasks[name], new, new_s=None)
                touched |= self.zone.apply(added=new, removed=old)
            yield touched

    def _turn(self, service: str) -> None:
        rival = self.claims.rival(service)
        if rival:
            self.rivals[service] = rival
        else:
            self.rivals.pop(service, None)

    def _take(self, step: "Step", now_s: float | None) -> Iterator[set[bytes]]:
        service, was = step.service, self.rivals.get(step.service, "")
        newcomers = step.newcomers() if now_s is not None else frozenset()
        for some in slices(step.added):
            given = [(name, step.after[name], self._of(service, step.after[name])) for name in some]
            for name, task, records in given:
                self.traits.add(name, task, records, new_s=now_s if name in newcomers else None)
            yield self._apply(given, added=True)
        for some in slices(step.removed):
            taken = [(name, step.before[name], self._of(service, step.before[name], was)) for name in some]
            for name, task, records in taken:
                self.traits.remove(name, task, records)
            yield self._apply(taken, added=False)

    def _apply(self, given: Sequence[tuple[str, Task, tuple[Record, ...]]], *, added: bool) -> set[bytes]:
        """Names touched. All names of a changed task are: it may give the same records with another weight."""
        records = [record for _, _, some in given for record in some]
        touched = self.zone.apply(added=records) if added else self.zone.apply(removed=records)
        touched.update(record.owner for record in records)
        return touched

    def _of(self, service: str, task: Task, rival: str | None = None) -> tuple[Record, ...]:
        """`rival` None: as it is told apart now."""
        told_apart = self.claims.rival(service) if rival is None else rival
        return of_task(task, self.rules, told_apart) if health(task) > 0 else ()


def slices(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[at : at + STEP] for at in range(0, len(names), STEP))

"""Who gives names now, and what changes when they change: snapshots, frameworks, agents, masters into record diffs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
        moved: set[str] = set()
        for old, new in ((self.members, snapshot.members), (self.portless, snapshot.portless)):
            yield from self._claim_all(old, new, moved)
        turned = {service for service in moved if self.claims.rival(service) != self.rivals.get(service, "")}
        yield from self._take_all(self.members, snapshot.members, turned, now_s)
        yield from self._take_all(self.portless, snapshot.portless, turned, now_s)
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

    def _claim_all(self, old: Services, new: Services, moved: set[str]) -> Iterator[set[bytes]]:
        """Puts into `moved` whose rivals may be others now. Touches no name: it yields for the sake of queries."""
        for count, service in enumerate(changed(old, new)):
            before, after = old.get(service, {}), new.get(service, {})
            moved |= self.claims.take(
                service,
                added=(task for name, task in after.items() if before.get(name) != task),
                removed=(task for name, task in before.items() if after.get(name) != task),
            )
            if count % STEP == 0:
                yield set()

    def _take_all(self, old: Services, new: Services, turned: set[str], now_s: float | None) -> Iterator[set[bytes]]:
        for service in changed(old, new):
            yield from self._take(service, old.get(service, {}), new.get(service, {}), now_s)
        for service in turned:
            before, after = old.get(service, {}), new.get(service, {})
            yield from self._rename(service, [n for n, task in after.items() if before.get(n) == task], after)

    def _rename(self, service: str, kept: Sequence[str], tasks: Mapping[str, Task]) -> Iterator[set[bytes]]:
        """What stays of a service that has come to share a name with another one, or shares it no more."""
        for some in slices(kept):
            touched: set[bytes] = set()
            for name in some:
                before, after = (
                    self._of(service, tasks[name], self.rivals.get(service, "")),
                    self._of(service, tasks[name]),
                )
                self.traits.remove(name, tasks[name], before)
                self.traits.add(name, tasks[name], after, new_s=None)
                touched |= self.zone.apply(added=after, removed=before)
            yield touched

    def _turn(self, service: str) -> None:
        rival = self.claims.rival(service)
        if rival:
            self.rivals[service] = rival
        else:
            self.rivals.pop(service, None)

    def _take(
        self, service: str, before: Mapping[str, Task], after: Mapping[str, Task], now_s: float | None
    ) -> Iterator[set[bytes]]:
        added = [name for name, task in after.items() if before.get(name) != task]
        removed = [name for name, task in before.items() if after.get(name) != task]
        known = {task.task.id for task in before.values()} if added and now_s is not None else set()
        for some in slices(added):
            given = [(name, after[name], self._of(service, after[name])) for name in some]
            for name, task, records in given:
                self.traits.add(name, task, records, new_s=None if task.task.id in known else now_s)
            yield self._apply(given, added=True)
        for some in slices(removed):
            was = self.rivals.get(service, "")
            taken = [(name, before[name], self._of(service, before[name], was)) for name in some]
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


def changed(old: Services, new: Services) -> list[str]:
    """Services whose mapping is another object: all that a snapshot says of what has changed."""
    found = [service for service, tasks in new.items() if old.get(service) is not tasks]
    if len(old) + len(found) > len(new):  # some are gone, or nearly all are new
        found += old.keys() - new.keys()
    return found


def slices(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[at : at + STEP] for at in range(0, len(names), STEP))

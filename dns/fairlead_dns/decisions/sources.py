"""Who gives names now, and what changes when they change: snapshots, frameworks, agents, masters into record diffs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fairlead_discovery.records import Member, Portless
from fairlead_discovery.snapshots import Snapshot
from fairlead_dns.decisions.naming import Record, Rules, of_task
from fairlead_dns.decisions.zone import Zone

Task = Member | Portless
Services = Mapping[str, Mapping[str, Task]]


@dataclass(slots=True)
class Sources:
    """The zone with its contributors. Each `take_…` brings one kind up to date and returns the names touched.

    A task's records are a pure function of its record: they are made again for removal instead of being kept.
    """

    rules: Rules
    zone: Zone
    members: Services = field(default_factory=dict)
    portless: Services = field(default_factory=dict)
    others: dict[str, tuple[Record, ...]] = field(default_factory=dict)

    def take_snapshot(self, snapshot: Snapshot) -> set[bytes]:
        touched = self._take(self.members, snapshot.members) | self._take(self.portless, snapshot.portless)
        self.members, self.portless = snapshot.members, snapshot.portless
        return touched

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

    def _take(self, old: Services, new: Services) -> set[bytes]:
        touched: set[bytes] = set()
        for service in old.keys() | new.keys():
            before, after = old.get(service, {}), new.get(service, {})
            if before is not after:
                touched |= self._take_service(before, after)
        return touched

    def _take_service(self, before: Mapping[str, Task], after: Mapping[str, Task]) -> set[bytes]:
        return self.zone.apply(
            added=self._records(record for name, record in after.items() if before.get(name) != record),
            removed=self._records(record for name, record in before.items() if after.get(name) != record),
        )

    def _records(self, tasks: Iterable[Task]) -> Iterable[Record]:
        for task in tasks:
            yield from of_task(task, self.rules)

"""The index of names: what exists, and with which records. A change costs only its own names.

Two tasks may give the same record (both on one agent): each record is counted by its contributors. A name that only
has names below it (`_tcp.marathon.mesos`) exists without records: an empty non-terminal, NODATA and never NXDOMAIN.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Record

Sets = dict[int, dict[bytes, int]]
"""Type -> record data -> how many contributors."""
NOTHING: Mapping[int, Mapping[bytes, int]] = {}


@dataclass(slots=True)
class Zone:
    """Owned by one task. `apexes` always exist."""

    apexes: frozenset[bytes]
    names: dict[bytes, Sets] = field(default_factory=dict)
    below: dict[bytes, int] = field(default_factory=dict)
    """How many names with records lie below each name."""

    def exists(self, name: bytes) -> bool:
        return name in self.names or name in self.below or name in self.apexes

    def sets(self, name: bytes) -> Mapping[int, Mapping[bytes, int]]:
        """Type -> record data of a name; empty when it has none."""
        return self.names.get(name, NOTHING)

    def apply(self, *, added: Iterable[Record] = (), removed: Iterable[Record] = ()) -> set[bytes]:
        """Adds first, so that what stays never vanishes. Returns the names whose answers may be others now."""
        touched: set[bytes] = set()
        for record in added:
            self._add(record, touched)
        for record in removed:
            self._remove(record, touched)
        return touched

    def records(self) -> Iterator[Record]:
        """Every record once, in no order."""
        for owner, sets in self.names.items():
            for kind, data in sets.items():
                yield from (Record(owner, kind, rdata) for rdata in data)

    def _add(self, record: Record, touched: set[bytes]) -> None:
        sets = self.names.get(record.owner)
        if sets is None:
            sets = self.names[record.owner] = {}
            self._appear(record.owner, touched)
        data = sets.setdefault(record.kind, {})
        count = data.get(record.rdata, 0)
        data[record.rdata] = count + 1
        if not count:
            touched.add(record.owner)

    def _remove(self, record: Record, touched: set[bytes]) -> None:
        sets = self.names[record.owner]
        data = sets[record.kind]
        count = data[record.rdata]
        if count > 1:
            data[record.rdata] = count - 1
            return
        touched.add(record.owner)
        del data[record.rdata]
        if not data:
            del sets[record.kind]
        if not sets:
            del self.names[record.owner]
            self._vanish(record.owner, touched)

    def _ancestors(self, name: bytes) -> Iterator[bytes]:
        while name not in self.apexes and name != b"\0":
            name = wire.parent(name)
            yield name

    def _appear(self, name: bytes, touched: set[bytes]) -> None:
        for ancestor in self._ancestors(name):
            count = self.below.get(ancestor, 0)
            self.below[ancestor] = count + 1
            if not count:
                touched.add(ancestor)

    def _vanish(self, name: bytes, touched: set[bytes]) -> None:
        for ancestor in self._ancestors(name):
            count = self.below[ancestor] - 1
            if count:
                self.below[ancestor] = count
            else:
                del self.below[ancestor]
                touched.add(ancestor)

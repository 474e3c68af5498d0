"""The index of names: what exists, and with which records. A change costs only its own names.

Two tasks may give the same record (both on one agent): each record is counted by its contributors. A name that only
has names below it (`_tcp.marathon.mesos`) exists without records: an empty non-terminal, NODATA and never NXDOMAIN.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import ZONE_TTL, Record

Sets = dict[int, dict[bytes, int]]
"""Type -> record data -> how many contributors."""
NOTHING: Mapping[int, Mapping[bytes, int]] = {}
ARPA = b"\4arpa\0"
LONGEST_TTL_S = 2**31 - 1


@dataclass(slots=True)
class Zone:
    """Owned by one task. `apexes` always exist. An address' reverse name that is in none of them is a zone of its own,
    so that we answer for the addresses we know, and for no others of their network.
    """

    apexes: set[bytes]
    points: set[bytes] = field(default_factory=set)
    """Those of the apexes that are reverse names of single addresses, and go with their last record."""
    names: dict[bytes, Sets] = field(default_factory=dict)
    below: dict[bytes, int] = field(default_factory=dict)
    """How many names with records lie below each name."""
    longest_ttl_s: int = LONGEST_TTL_S
    """No TTL is above it, whatever a record says: what has been announced, for kills wait that long."""
    given_ttls: dict[tuple[bytes, int], dict[int, int]] = field(default_factory=dict)
    """(name, type) -> TTL -> how many contributors: only of records that have one of their own."""
    _given_ttls: dict[int, int] = field(default_factory=dict)
    """TTL -> how many records have it as their own."""
    fixed_ttls: Mapping[tuple[bytes, int], tuple[int, int]] = field(default_factory=dict)
    """(name, type) -> TTL and number of the records that a person has written: no kill waits for those."""
    note: Callable[[bytes], None] | None = None
    """Called before a name's records change."""

    def exists(self, name: bytes) -> bool:
        return name in self.names or name in self.below or name in self.apexes

    def sets(self, name: bytes) -> Mapping[int, Mapping[bytes, int]]:
        """Type -> record data of a name; empty when it has none."""
        return self.names.get(name, NOTHING)

    def ttl_s(self, name: bytes, kind: int, default_s: int) -> int:
        """The one TTL of a set: the least of its records', of which those without one have `default_s`."""
        fixed_s, written = self.fixed_ttls.get((name, kind), (0, 0))
        if written:
            alone = written == sum(self.sets(name)[kind].values())
            return fixed_s if alone else min(fixed_s, self._usual_ttl_s(name, kind, default_s))
        return self._usual_ttl_s(name, kind, default_s)

    def _usual_ttl_s(self, name: bytes, kind: int, default_s: int) -> int:
        given = self.given_ttls.get((name, kind))
        if given is None:
            return min(default_s, self.longest_ttl_s)
        everyone = sum(given.values()) == sum(self.sets(name)[kind].values())
        return min(*given, self.longest_ttl_s, self.longest_ttl_s if everyone else default_s)

    @property
    def largest_given_ttl_s(self) -> int:
        """The largest TTL any record has of its own, 0 when none has."""
        return max(self._given_ttls, default=0)

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
        if self.note is not None:
            self.note(record.owner)
        sets = self.names.get(record.owner)
        if sets is None:
            sets = self.names[record.owner] = {}
            if record.owner.endswith(ARPA) and not self._is_inside(record.owner):
                self.points.add(record.owner)
                self.apexes.add(record.owner)
            self._appear(record.owner, touched)
        data = sets.setdefault(record.kind, {})
        count = data.get(record.rdata, 0)
        data[record.rdata] = count + 1
        if record.ttl_s != ZONE_TTL:
            _count(self.given_ttls.setdefault((record.owner, record.kind), {}), record.ttl_s, 1)
            _count(self._given_ttls, record.ttl_s, 1)
        if not count or (record.owner, record.kind) in self.given_ttls:
            touched.add(record.owner)

    def _remove(self, record: Record, touched: set[bytes]) -> None:
        if self.note is not None:
            self.note(record.owner)
        sets = self.names[record.owner]
        data = sets[record.kind]
        count = data[record.rdata]
        self._remove_ttl(record, touched)
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
            if record.owner in self.points:
                self.points.discard(record.owner)
                self.apexes.discard(record.owner)

    def _remove_ttl(self, record: Record, touched: set[bytes]) -> None:
        given = self.given_ttls.get((record.owner, record.kind))
        if given is None:
            return
        touched.add(record.owner)
        if record.ttl_s != ZONE_TTL:
            _count(given, record.ttl_s, -1)
            _count(self._given_ttls, record.ttl_s, -1)
        if not given:
            del self.given_ttls[record.owner, record.kind]

    def _is_inside(self, name: bytes) -> bool:
        while name != b"\0":
            if name in self.apexes:
                return True
            name = wire.parent(name)
        return False

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


def _count(counts: dict[int, int], key: int, change: int) -> None:
    counts[key] = counts.get(key, 0) + change
    if not counts[key]:
        del counts[key]

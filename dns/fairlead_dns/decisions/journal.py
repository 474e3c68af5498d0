"""What changed in a zone from one serial to the next, kept in memory within bounds: for IXFR and for history."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from fairlead_dns.decisions.compose import RRset

SERIALS = 2**32
RECORD_BYTES = 64  # what a record costs in memory beside its data, about

Held = tuple[RRset, ...]
"""Every set of one name, by type; () when it has none."""


def later(serial: int, than: int) -> bool:
    """RFC 1982: serials go round."""
    return 0 < (serial - than) % SERIALS < SERIALS // 2


def serial_of(soa: RRset) -> int:
    return int.from_bytes(soa.data[0][-20:-16], "big")


@dataclass(frozen=True, slots=True)
class NameChange:
    """One name: what it had, what it has."""

    name: bytes
    before: Held
    after: Held

    def removed(self) -> Iterator[RRset]:
        return _less(self.before, self.after)

    def added(self) -> Iterator[RRset]:
        return _less(self.after, self.before)


@dataclass(frozen=True, slots=True)
class Change:
    """The way from one SOA to the next. The SOA stands in `names` of no change."""

    before: RRset
    after: RRset
    at_s: float
    """Unix time."""
    names: tuple[NameChange, ...]

    @property
    def serial(self) -> int:
        return serial_of(self.after)

    @property
    def serial_before(self) -> int:
        return serial_of(self.before)

    def cost_bytes(self) -> int:
        sets = (rrset for change in self.names for rrset in (*change.before, *change.after))
        return RECORD_BYTES * 4 + sum(
            RECORD_BYTES * 2 + sum(map(len, s.data)) + RECORD_BYTES * len(s.data) for s in sets
        )

    def records(self) -> int:
        return 2 + sum(len(s.data) for c in self.names for s in (*c.removed(), *c.added()))


@dataclass(slots=True)
class Journal:
    """The last changes of one zone, oldest first; at most `most_changes` and about `most_bytes`."""

    most_changes: int = 1000
    most_bytes: int = 8 * 1024 * 1024
    changes: deque[Change] = field(default_factory=deque)
    forgotten: bool = False
    """There were changes before these."""
    _bytes: deque[int] = field(default_factory=deque)
    _sum_bytes: int = 0

    def append(self, change: Change) -> None:
        cost = change.cost_bytes()
        self.changes.append(change)
        self._bytes.append(cost)
        self._sum_bytes += cost
        while self.changes and (len(self.changes) > self.most_changes or self._sum_bytes > self.most_bytes):
            self.forgotten = True
            self.changes.popleft()
            self._sum_bytes -= self._bytes.popleft()

    def since(self, serial: int, current: int) -> tuple[Change, ...] | None:
        """Every change from `serial` to `current`, in order. None when they are not all here, or when something changed
        without a new serial: then a client that says `serial` may have either.
        """
        found: list[Change] = []
        wanted = current
        for change in reversed(self.changes):
            if wanted == serial:
                break
            if change.serial != wanted or not later(change.serial, change.serial_before):
                return None
            found.append(change)
            wanted = change.serial_before
        return tuple(reversed(found)) if wanted == serial else None


def _less(some: Held, others: Held) -> Iterator[RRset]:
    """Records of `some` that `others` lack; another TTL makes another record."""
    known = {(s.kind, s.ttl_s): frozenset(s.data) for s in others}
    for rrset in some:
        left = known.get((rrset.kind, rrset.ttl_s), frozenset())
        data = tuple(d for d in rrset.data if d not in left)
        if data:
            yield RRset(rrset.owner, rrset.kind, rrset.ttl_s, data)

"""What answers know of those who give a record, beside the record: where they stand and how much they can take.

Only what is out of the ordinary is kept: places when they matter, weights other than 1. So a zone without either costs
nothing, and a change costs what it changes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_discovery.decisions.localities import NOWHERE, Place
from fairlead_discovery.records import Member, Portless
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Record

HEALTH = {"": 1.0, "ALIVE": 1.0, "WARNING": 0.5}
"""Part of its weight that a member's status leaves it; any other status (STARTING, STOPPING, DEAD …) leaves nothing."""
HEAVIEST = 1_000_000.0
STEPS = 10  # in which a new member warms up: each costs a rebuilding of its names' answers

_Key = tuple[bytes, int, bytes]
"""Owner, type, data."""


def health(task: Member | Portless) -> float:
    """0: it gets no names."""
    return HEALTH.get(task.status or "", 0.0) if isinstance(task, Member) else 1.0


def capacity(task: Member | Portless) -> float:
    """Weight as published, by health; 1 is what most have. From 0 to HEAVIEST, whatever stands in the record."""
    if not isinstance(task, Member):
        return 1.0
    return min(task.weight, HEAVIEST) * health(task) if task.weight > 0 else 0.0


@dataclass(slots=True)
class _Warming:
    """A new member: since when, what it will have, the records it gives, how far it is (0 to STEPS)."""

    task: str
    since_s: float
    weight: float
    records: tuple[Record, ...]
    step: int = 0

    def current(self) -> float:
        return self.weight * (self.step + 1) / (STEPS + 1)


@dataclass(slots=True)
class Traits:
    """Owned by one task. `who` is a member's node name, which says its content. Times are a steady clock's."""

    places: bool = False
    """Whether it matters where a record's givers stand."""
    warm_up_s: float = 0.0
    _places: dict[bytes, dict[Place, int]] = field(default_factory=dict)
    """Address -> place -> how many givers say so."""
    _weights: dict[_Key, dict[str, float]] = field(default_factory=dict)
    """Record -> giver -> weight, of those whose weight is not 1."""
    _warming: dict[str, _Warming] = field(default_factory=dict)
    _nodes: dict[str, dict[str, float]] = field(default_factory=dict)
    """Task that warms up -> its nodes -> since when: a task whose record changes goes on where it was."""

    def add(self, who: str, task: Member | Portless, records: tuple[Record, ...], *, new_s: float | None) -> None:
        """`new_s`: now, when this task was not there before and shall warm up."""
        weight = capacity(task)
        since_s = self._since_s(task.task.id, new_s)
        if since_s is not None:
            self._nodes.setdefault(task.task.id, {})[who] = since_s
            warming = self._warming[who] = _Warming(task.task.id, since_s, weight, records)
            weight = warming.current()
        self._weigh(who, weight, records)
        if self.places:
            self._stand(task, records, 1)

    def remove(self, who: str, task: Member | Portless, records: tuple[Record, ...]) -> None:
        self._cease(who)
        self._weigh(who, 1.0, records)
        if self.places:
            self._stand(task, records, -1)

    def tick(self, now_s: float) -> Iterator[set[bytes]]:
        """Warms up who is new. Yields the names whose answers are others by each step of it; to be run to the end."""
        for who in tuple(self._warming):
            warming = self._warming.get(who)  # it may have gone between two steps
            step = 0 if warming is None else min(STEPS, int((now_s - warming.since_s) / self.warm_up_s * STEPS))
            if warming is None or step == warming.step:
                continue
            warming.step = step
            self._weigh(who, warming.current(), warming.records)
            if step == STEPS:
                self._cease(who)
            yield {record.owner for record in warming.records}

    @property
    def warming(self) -> int:
        return len(self._warming)

    def warmth(self, task: str) -> float:
        """Part of its weight that a task has by now."""
        return min(((self._warming[who].step + 1) / (STEPS + 1) for who in self._nodes.get(task, ())), default=1.0)

    def weight(self, name: bytes, kind: int, rdata: bytes, givers: int) -> float:
        """Of a record that `givers` give."""
        unusual = self._weights.get((name, kind, rdata))
        return float(givers) if unusual is None else givers - len(unusual) + sum(unusual.values())

    def are_equal(self, name: bytes, kind: int, givers: Mapping[bytes, int]) -> bool:
        """Whether all records of a set have the same weight. `givers`: of each record, how many give it."""
        unusual = self._weights and any((name, kind, rdata) in self._weights for rdata in givers)
        return not unusual and len(set(givers.values())) == 1

    def place(self, address: bytes) -> Place:
        """What most of its givers say."""
        said = self._places.get(address)
        return max(said, key=lambda place: (said[place], place.zone, place.region)) if said else NOWHERE

    def _since_s(self, task: str, new_s: float | None) -> float | None:
        if task in self._nodes:
            return min(self._nodes[task].values())
        return new_s if self.warm_up_s > 0 else None

    def _cease(self, who: str) -> None:
        warming = self._warming.pop(who, None)
        if warming is not None:
            del self._nodes[warming.task][who]
            if not self._nodes[warming.task]:
                del self._nodes[warming.task]

    def _weigh(self, who: str, weight: float, records: Iterable[Record]) -> None:
        for record in records:
            key = record.owner, record.kind, record.rdata
            if weight != 1.0:
                self._weights.setdefault(key, {})[who] = weight
                continue
            unusual = self._weights.get(key)
            if unusual is not None and unusual.pop(who, None) is not None and not unusual:
                del self._weights[key]

    def _stand(self, task: Member | Portless, records: Iterable[Record], change: int) -> None:
        if not isinstance(task, Member) or not (task.zone or task.region):
            return
        place = Place(task.zone, task.region)
        for address in {record.rdata for record in records if record.kind in (wire.A, wire.AAAA)}:
            said = self._places.setdefault(address, {})
            said[place] = said.get(place, 0) + change
            if not said[place]:
                del said[place]
            if not said:
                del self._places[address]

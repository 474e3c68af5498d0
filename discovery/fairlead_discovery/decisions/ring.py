"""Who owns a key: slots, virtual nodes, exact quotas, replicas apart. Pure integers, so every reader and every language
computes the same owners (docs/ring.md specifies it, tests/discovery/ring_vectors.json holds golden vectors).

key --SHA-256, first 64 bits--> slot (one of 2^k equal parts) --clockwise over the members' points--> owners
"""

import hashlib
import struct
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from operator import sub

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.ring_quotas import Limits, limits, quotas

SPACE_BITS = 64
SPACE = 1 << SPACE_BITS
MILLION = 1_000_000
WORDS = 4
"""Points in one SHA-256 digest: four 64-bit words, the first byte the highest."""
SLOTS = (16, 1 << 20)
POINTS = (1, 4096)
REPLICAS = (1, 16)
WEIGHT = (1, 1_000_000)
"""In thousandths."""

_first = struct.Struct(">Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a ring's owners depend on beside its members. Changing one moves keys: chosen once, when it is made."""

    slots: int = 16384
    """Equal parts of the key space, the units that move; a power of two. Shares are exact to one slot."""
    points: int = 512
    """Virtual nodes of a member of weight 1. More of them: fewer slots move than must, and building takes longer."""
    replicas: int = 1
    bound_percent: int = 100
    """No member owns more than this part of its fair share. 100: exact; 125: fewer slots move, shares differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A member as the ring sees it. Copies never share a machine; racks and zones count where any member has one."""

    name: str
    weight_milli: int = 1000
    machine: str = ""
    """ "" is a machine of its own."""
    rack: str = ""
    zone: str = ""


class Ring:
    """Owners of every slot, computed at once. Raises Refused naming what is wrong with shape or members."""

    def __init__(self, shape: Shape, places: Iterable[Place]) -> None:
        self.shape = shape
        self.places: tuple[Place, ...] = tuple(sorted(places, key=lambda place: place.name))
        check(shape, self.places)
        self._shift = SPACE_BITS - shape.slots.bit_length() + 1
        self.table: tuple[tuple[str, ...], ...] = _named(shape, self.places)
        """By slot: its owners' names, the first one first; fewer than `replicas` when there are too few machines."""

    def slot(self, key: str) -> int:
        value: int = _first.unpack_from(hashlib.sha256(key.encode()).digest())[0]
        return value >> self._shift

    def owners(self, key: str) -> tuple[str, ...]:
        return self.table[_first.unpack_from(hashlib.sha256(key.encode()).digest())[0] >> self._shift]

    def owner(self, key: str) -> str:
        """Raises IndexError when the ring has no members."""
        name: str = self.table[_first.unpack_from(hashlib.sha256(key.encode()).digest())[0] >> self._shift][0]
        return name


def check(shape: Shape, places: Sequence[Place]) -> None:
    """`places` in order of name. Raises Refused."""
    for name, (least, most) in {"slots": SLOTS, "points": POINTS, "replicas": REPLICAS}.items():
        value = getattr(shape, name)
        if not least <= value <= most:
            raise Refused(f"ring: {name} is {value}, expected {least} to {most}")
    if shape.slots & (shape.slots - 1):
        raise Refused(f"ring: slots is {shape.slots}, expected a power of two")
    if shape.bound_percent < 100:
        raise Refused(f"ring: bound_percent is {shape.bound_percent}, below 100 not every slot would have an owner")
    for place, other in pairwise(places):
        if place.name == other.name:
            raise Refused(f"ring: two members are called {place.name!r}")
    for place in places:
        if not WEIGHT[0] <= place.weight_milli <= WEIGHT[1]:
            raise Refused(f"ring: {place.name}: weight is {place.weight_milli / 1000:g}, expected 0.001 to 1000")


def member_points(name: str, count: int) -> tuple[int, ...]:
    """SHA-256 of `name#0`, `name#1` …, in UTF-8, each four 64-bit words; the first `count` of them."""
    start, blocks = f"{name}#".encode(), -(-count // WORDS)
    digests = b"".join([hashlib.sha256(b"%b%d" % (start, k)).digest() for k in range(blocks)])
    return struct.unpack(f">{WORDS * blocks}Q", digests)[:count]


@dataclass(frozen=True, slots=True)
class _Circle:
    """All points in order, each followed by the index of the member it belongs to in its last `bits`."""

    marks: Sequence[int]
    owners: Sequence[int]
    bits: int


def _circle(shape: Shape, places: Sequence[Place]) -> _Circle:
    """Of equal points the first name's counts. One number for both sorts twice as fast as a pair."""
    bits = len(places).bit_length()
    marks: list[int] = []
    for index, place in enumerate(places):
        count = max(1, (shape.points * place.weight_milli + 500) // 1000)
        marks += [point << bits | index for point in member_points(place.name, count)]
    marks.sort()
    if min(map(sub, islice(marks, 1, None), marks), default=SPACE) < 1 << bits:  # equal points, perhaps
        marks = sorted({mark >> bits: mark for mark in reversed(marks)}.values())
    mask = (1 << bits) - 1
    return _Circle(marks, [mark & mask for mark in marks], bits)


def _columns(shape: Shape, places: Sequence[Place]) -> list[list[int]]:
    """Owners of every slot as indices into `places`: first ones, second ones … (-1 for none), each by slot."""
    circle = _circle(shape, places)
    starts, order = _starts(shape, circle)
    bounds = limits(places, shape.replicas)
    most = quotas(shape, places, bounds, copies=1)
    first, loads = _first_owners(circle.owners, starts, order, most)
    columns = [first]
    for rank in range(1, min(shape.replicas, len({_machine(p) for p in places}))):
        walk = _Walk(circle.owners, places, bounds, loads, quotas(shape, places, bounds, copies=rank + 1))
        columns.append(walk.next_owners(columns, starts, order))
        loads = walk.loads()
    return columns


def _starts(shape: Shape, circle: _Circle) -> tuple[list[int], list[int]]:
    """By slot, the index of the first point at or after its own place; and the slots, the nearest to theirs first.

    What is close to its member's point stays there when quotas bind: fewer slots move than in order of slots.
    """
    marks, bits = circle.marks, circle.bits
    low = SPACE_BITS - shape.slots.bit_length() + 1 + bits
    in_slot = dict(zip([mark >> low for mark in reversed(marks)], range(len(marks) - 1, -1, -1), strict=True))
    at, mark = 0, marks[0] + (SPACE << bits)
    starts, far = [0] * shape.slots, [0] * shape.slots
    for slot in range(shape.slots - 1, -1, -1):
        if slot in in_slot:
            at = in_slot[slot]
            mark = marks[at]
        starts[slot] = at
        far[slot] = (mark - (slot << low)) >> bits
    return starts, sorted(range(shape.slots), key=far.__getitem__)


def _first_owners(
    circle: Sequence[int], starts: Sequence[int], order: Sequence[int], most: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Each slot goes to the first member clockwise that has not got its quota yet; the quotas' sum suffices.

    Returns owners by slot, and how many slots each member got.
    """
    room, size = list(most), len(circle)
    owners = [0] * len(starts)
    for slot in order:
        at = starts[slot]
        while not room[owner := circle[at]]:
            at = at + 1 if at + 1 < size else 0
        room[owner] -= 1
        owners[slot] = owner
    return owners, [whole - left for whole, left in zip(most, room, strict=True)]


def _machine(place: Place) -> str:
    return f"m{place.machine}" if place.machine else f"n{place.name}"


_Away = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Machines, racks and zones where the next copy must not go, by number. Plain, for each slot needs one."""


class _Walk:
    """Adds one more owner to each slot: the first clockwise on another machine, within quota, racks and zones. Where
    there is none, whoever has the least of its quota; if need be racks, then zones are given up.
    """

    def __init__(
        self, circle: Sequence[int], places: Sequence[Place], bounds: Limits, loads: Sequence[int], most: Sequence[int]
    ) -> None:
        self._circle = circle
        self._bounds = bounds
        self._most = most
        self._room = [whole - load for whole, load in zip(most, loads, strict=True)]
        """Negative where a member got more than its quota."""
        self._machines = _numbered(_machine(p) for p in places)
        self._racks = _numbered((p.zone, p.rack) for p in places)
        self._zones = _numbered(p.zone for p in places)

    def loads(self) -> list[int]:
        return [whole - left for whole, left in zip(self._most, self._room, strict=True)]

    def next_owners(self, columns: Sequence[list[int]], starts: Sequence[int], order: Iterable[int]) -> list[int]:
        """One more column."""
        machines, racks, zones, bounds, room = self._machines, self._racks, self._zones, self._bounds, self._room
        held = len(columns)
        out = [-1] * len(starts)
        for slot in order:
            owners = [i for column in columns if (i := column[slot]) >= 0]
            away = (
                [machines[i] for i in owners],
                _full([racks[i] for i in owners], bounds.rack) if held >= bounds.rack else (),
                _full([zones[i] for i in owners], bounds.zone) if held >= bounds.zone else (),
            )
            found = self._seek(starts[slot], away)
            if found < 0:
                found = self._relaxed(away)
            if found >= 0:
                out[slot] = found
                room[found] -= 1
        return out

    def _relaxed(self, away: _Away) -> int:
        machines, _, zones = away
        choices = map(self._least, (away, (machines, (), zones), (machines, (), ())))
        return next((found for found in choices if found >= 0), -1)

    def _seek(self, start: int, away: _Away) -> int:
        """The first clockwise with room; -1 when nobody fits."""
        circle, room, machines, racks, zones = self._circle, self._room, self._machines, self._racks, self._zones
        no_machines, no_racks, no_zones = away
        size, patience = len(circle), len(room)
        for at in range(start - size, start):  # indices below nought count from the end: the circle closes
            owner = circle[at]
            if (
                room[owner] > 0
                and machines[owner] not in no_machines
                and zones[owner] not in no_zones
                and racks[owner] not in no_racks
            ):
                return owner
            if at - start + size == patience and not any(room[i] > 0 for i in self._fitting(away)):
                return -1  # a long way, and there is nobody at all
        return -1

    def _least(self, away: _Away) -> int:
        """Whoever has the least of its quota, the first by name among equals: nobody is much over it."""
        most, room = self._most, self._room
        return min(self._fitting(away), key=lambda i: (most[i] - room[i]) * MILLION // max(1, most[i]), default=-1)

    def _fitting(self, away: _Away) -> Iterator[int]:
        machines, racks, zones = away
        return (
            i
            for i in range(len(self._most))
            if self._machines[i] not in machines and self._zones[i] not in zones and self._racks[i] not in racks
        )


def _numbered(names: Iterable[Hashable]) -> list[int]:
    """Equal ones get the same number."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _full(held: Sequence[int], most: int) -> Sequence[int]:
    return [one for one in held if held.count(one) >= most]


def _named(shape: Shape, places: Sequence[Place]) -> tuple[tuple[str, ...], ...]:
    """Equal owners are one object: 16,384 slots of a small ring hold few."""
    if not places:
        return ((),) * shape.slots
    names = [place.name for place in places]
    columns = _columns(shape, places)
    if len(columns) == 1:
        alone = [(name,) for name in names]
        return tuple(map(alone.__getitem__, columns[0]))
    owners = [*zip(*columns, strict=True)]
    shared = {one: tuple([names[i] for i in one if i >= 0]) for one in set(owners)}
    return tuple(map(shared.__getitem__, owners))


def copies(ring: Ring) -> Mapping[str, tuple[int, int]]:
    """By member: slots it is the first owner of, slots it holds in all."""
    first, every = dict.fromkeys((p.name for p in ring.places), 0), dict.fromkeys((p.name for p in ring.places), 0)
    for owners in ring.table:
        for name in owners:
            every[name] += 1
        if owners:
            first[owners[0]] += 1
    return {name: (first[name], every[name]) for name in first}

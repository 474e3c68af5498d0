"""Who owns a key: slots, virtual nodes, exact quotas, replicas apart. Pure integers, so every reader and every language
computes the same owners (docs/ring.md specifies it, tests/discovery/ring_vectors.json holds golden vectors).

key --SHA-256, first 64 bits--> slot (one of 2^k equal parts) --clockwise over the members' points--> owners
"""

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeVar

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.ring_quotas import Limits, limits, quotas

K = TypeVar("K")
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

_words = struct.Struct(f">{WORDS}Q")
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
        self.table: tuple[tuple[str, ...], ...] = _named(self.places, _table(shape, self.places))
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


def member_points(name: str, count: int) -> Sequence[int]:
    """SHA-256 of `name#0`, `name#1` …, in UTF-8, each four 64-bit words; the first `count` of them."""
    blocks = range(-(-count // WORDS))
    words = chain.from_iterable(_words.unpack(hashlib.sha256(f"{name}#{k}".encode()).digest()) for k in blocks)
    return tuple(words)[:count]


def _circle(shape: Shape, places: Sequence[Place]) -> tuple[list[int], list[int]]:
    """All points in order, and the index of the member each belongs to. Of equal points the first name's counts."""
    whose: dict[int, int] = {}
    for index in range(len(places) - 1, -1, -1):
        place = places[index]
        count = max(1, (shape.points * place.weight_milli + 500) // 1000)
        whose.update(dict.fromkeys(member_points(place.name, count), index))
    points = sorted(whose)
    return points, list(map(whose.__getitem__, points))


def _table(shape: Shape, places: Sequence[Place]) -> list[list[int]]:
    """Owners of every slot as indices into `places`."""
    table: list[list[int]] = [[] for _ in range(shape.slots)]
    if not places:
        return table
    points, circle = _circle(shape, places)
    starts = _starts(shape, points)
    bounds = limits(places, shape.replicas)
    loads = [0] * len(places)
    _first_owners(circle, starts, loads, quotas(shape, places, bounds, copies=1), table)
    for rank in range(1, min(shape.replicas, len({_machine(p) for p in places}))):
        walk = _Walk(circle, places, bounds, loads, quotas(shape, places, bounds, copies=rank + 1))
        for slot, start in starts:
            walk.extend(table[slot], start)
    return table


def _starts(shape: Shape, points: Sequence[int]) -> list[tuple[int, int]]:
    """Each slot with the index of the first point at or after its own place, the nearest pairs first.

    What is close to its member's point stays there when quotas bind: fewer slots move than in order of slots.
    """
    step = 1 << (SPACE_BITS - shape.slots.bit_length() + 1)
    far = []
    for slot in range(shape.slots):
        place = slot * step
        at = bisect_left(points, place)
        far.append((points[at] - place, slot, at) if at < len(points) else (points[0] - place + SPACE, slot, 0))
    return [(slot, at) for _, slot, at in sorted(far)]


def _first_owners(
    circle: Sequence[int],
    starts: Sequence[tuple[int, int]],
    loads: list[int],
    most: Sequence[int],
    table: list[list[int]],
) -> None:
    """Each slot goes to the first member clockwise that has not got its quota yet; the quotas' sum suffices."""
    size = len(circle)
    for slot, start in starts:
        at = start
        while loads[owner := circle[at]] >= most[owner]:
            at = at + 1 if at + 1 < size else 0
        loads[owner] += 1
        table[slot].append(owner)


def _machine(place: Place) -> str:
    return f"m{place.machine}" if place.machine else f"n{place.name}"


class _Walk:
    """Adds one more owner to each slot: the first clockwise on another machine, within quota, racks and zones. Where
    there is none, whoever has the least of its quota; if need be racks, then zones are given up.
    """

    def __init__(
        self, circle: Sequence[int], places: Sequence[Place], bounds: Limits, loads: list[int], most: Sequence[int]
    ) -> None:
        self._circle = circle
        self._bounds = bounds
        self._loads = loads
        self._most = most
        self._machines = [_machine(p) for p in places]
        self._racks = [(p.zone, p.rack) for p in places]
        self._zones = [p.zone for p in places]

    def extend(self, owners: list[int], start: int) -> None:
        taken = frozenset(self._machines[i] for i in owners)
        racks = _full([self._racks[i] for i in owners], self._bounds.rack)
        zones = _full([self._zones[i] for i in owners], self._bounds.zone)
        found = self._seek(start, _Away(taken, racks, zones))
        for away in (_Away(taken, racks, zones), _Away(taken, zones=zones), _Away(taken)) if found < 0 else ():
            found = self._least(away)
            if found >= 0:
                break
        if found >= 0:
            owners.append(found)
            self._loads[found] += 1

    def _seek(self, start: int, away: "_Away") -> int:
        """The first clockwise with room; -1 when nobody fits."""
        circle, loads, most = self._circle, self._loads, self._most
        machines, racks, zones = self._machines, self._racks, self._zones
        size, patience = len(circle), len(loads)
        for at in range(start, start + size):
            owner = circle[at - size]  # indices below nought count from the end: the circle closes
            if (
                loads[owner] < most[owner]
                and machines[owner] not in away.machines
                and zones[owner] not in away.zones
                and racks[owner] not in away.racks
            ):
                return owner
            if at - start == patience and not any(loads[i] < most[i] for i in self._fitting(away)):
                return -1  # a long way, and there is nobody at all
        return -1

    def _least(self, away: "_Away") -> int:
        """Whoever has the least of its quota, the first by name among equals: nobody is much over it."""
        return min(self._fitting(away), key=lambda i: self._loads[i] * MILLION // max(1, self._most[i]), default=-1)

    def _fitting(self, away: "_Away") -> Iterator[int]:
        return (
            i
            for i in range(len(self._most))
            if self._machines[i] not in away.machines
            and self._zones[i] not in away.zones
            and self._racks[i] not in away.racks
        )


@dataclass(frozen=True, slots=True)
class _Away:
    """Where the next copy must not go."""

    machines: frozenset[str]
    racks: frozenset[tuple[str, str]] = frozenset()
    zones: frozenset[str] = frozenset()


def _full(held: Sequence[K], most: int) -> frozenset[K]:
    return frozenset(one for one in held if held.count(one) >= most)


def _named(places: Sequence[Place], table: Sequence[Sequence[int]]) -> tuple[tuple[str, ...], ...]:
    """Equal owners are one object: 16,384 slots of a small ring hold few."""
    names = [place.name for place in places]
    shared: dict[tuple[int, ...], tuple[str, ...]] = {}
    out = []
    for owners in map(tuple, table):
        known = shared.get(owners)
        if known is None:
            known = shared[owners] = tuple(names[i] for i in owners)
        out.append(known)
    return tuple(out)


def copies(ring: Ring) -> Mapping[str, tuple[int, int]]:
    """By member: slots it is the first owner of, slots it holds in all."""
    first, every = dict.fromkeys((p.name for p in ring.places), 0), dict.fromkeys((p.name for p in ring.places), 0)
    for owners in ring.table:
        for name in owners:
            every[name] += 1
        if owners:
            first[owners[0]] += 1
    return {name: (first[name], every[name]) for name in first}

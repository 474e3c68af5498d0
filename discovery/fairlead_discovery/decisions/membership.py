"""Who is in a ring, and who is about to be: one versioned document a service, below paths.RINGS.

Owners in use are computed from members that are `active` or `leaving`, the owners to come from those `active` or
`joining`, with the weights they are to have. A data service copies what `moves` names, says `ready`, and when all who
gain are ready ownership moves.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from msgspec.structs import replace

from fairlead_daemon.errors import Conflict, Refused
from fairlead_discovery.decisions.given_names import MEMBER_BYTES, checked
from fairlead_discovery.decisions.ring import WEIGHT, Place, Ring, Shape, check, copies
from fairlead_discovery.records import Record

DEFAULT = Shape()


class State(enum.StrEnum):
    ACTIVE = "active"
    JOINING = "joining"
    """Owns nothing yet; gets its slots' data from the others."""
    LEAVING = "leaving"
    """Owns its slots until their next owners are ready."""


IN_USE = frozenset({State.ACTIVE, State.LEAVING})
TO_COME = frozenset({State.ACTIVE, State.JOINING})


class RingMember(Record, frozen=True, kw_only=True):
    """`weight` is relative, in thousandths at the finest. `machine` "": one of its own."""

    name: str
    weight: float = 1.0
    next_weight: float | None = None
    """What it is to weigh when ownership moves."""
    machine: str = ""
    rack: str = ""
    zone: str = ""
    state: State = State.ACTIVE

    @property
    def coming_weight(self) -> float:
        return self.weight if self.next_weight is None else self.next_weight

    def place(self, weight: float | None = None) -> Place:
        """By `weight`, or its own. Raises Refused naming what was given when it is out of bounds."""
        weighs = self.weight if weight is None else weight
        milli = int(weighs * 1000 + 0.5) if math.isfinite(weighs) else 0
        if not WEIGHT[0] <= milli <= WEIGHT[1]:
            raise Refused(f"ring: {self.name}: weight is {weighs:g}, expected 0.001 to 1000")
        return Place(
            name=self.name,
            weight_milli=milli,
            machine=self.machine,
            rack=self.rack,
            zone=self.zone,
        )


class Membership(Record, frozen=True, kw_only=True):
    """`version` rises with every change of `members`; `ready` are the gaining members that have their data."""

    service: str
    version: int = 1
    slots: int = DEFAULT.slots
    points: int = DEFAULT.points
    replicas: int = 1
    bound_percent: int = 100
    members: tuple[RingMember, ...] = ()
    ready: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        return Shape(slots=self.slots, points=self.points, replicas=self.replicas, bound_percent=self.bound_percent)

    @property
    def pending(self) -> bool:
        return any(member.state is not State.ACTIVE or member.next_weight is not None for member in self.members)


@dataclass(frozen=True, slots=True)
class Move:
    """`receiver` is to hold `slot` next; any of `sources`, its owners in use, can give the data."""

    slot: int
    receiver: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rings:
    """A membership's two rings: `use` answers who owns a key now, `next` who will. The same when nothing is pending."""

    membership: Membership
    use: Ring
    next: Ring

    def owners(self, key: str) -> tuple[str, ...]:
        """Read from these."""
        return self.use.owners(key)

    def writers(self, key: str) -> tuple[str, ...]:
        """Write to these: the owners, and those who will be, so that a hand-over loses no write."""
        slot = self.use.slot(key)
        return tuple(dict.fromkeys(self.use.table[slot] + self.next.table[slot]))


def rings(membership: Membership) -> Rings:
    """Raises Refused when shape or members are impossible."""
    use = frozenset(member.place() for member in membership.members if member.state in IN_USE)
    coming = frozenset(m.place(m.coming_weight) for m in membership.members if m.state in TO_COME)
    return Rings(membership=membership, use=_ring(membership.shape, use), next=_ring(membership.shape, coming))


@lru_cache(maxsize=16)
def _ring(shape: Shape, places: frozenset[Place]) -> Ring:
    """Kept: acknowledgements change the document, and not the rings."""
    return Ring(shape, places)


def moves(both: Rings) -> tuple[Move, ...]:
    """What must be copied before ownership moves, in order of slots. Empty when nothing is pending."""
    return tuple(
        Move(slot, name, before)
        for slot, (before, after) in enumerate(zip(both.use.table, both.next.table, strict=True))
        if before != after
        for name in after
        if name not in before
    )


def receivers(both: Rings) -> frozenset[str]:
    """Those who gain a slot, and must say that they are ready."""
    return frozenset(move.receiver for move in moves(both))


def check_new(membership: Membership) -> None:
    """Raises Refused for an impossible name, shape or member of a ring that is to be made."""
    checked("ring", membership.service)
    for member in membership.members:
        checked(f"ring {membership.service}: member", member.name, most_bytes=MEMBER_BYTES)
    check(membership.shape, [member.place() for member in membership.members])


# --- changes: each gives the new document, or raises Conflict (look again) or Refused (impossible)


def join(membership: Membership, member: RingMember) -> Membership:
    """The very first members own at once: there is nobody to hand over."""
    if any(known.name == member.name for known in membership.members):
        raise Conflict(f"ring {membership.service}: {member.name} is a member already")
    checked(f"ring {membership.service}: member", member.name, most_bytes=MEMBER_BYTES)
    owned = any(known.state in IN_USE for known in membership.members)
    state = State.JOINING if owned else State.ACTIVE
    return _begun(_changed(membership, (*membership.members, replace(member, state=state))))


def leave(membership: Membership, name: str) -> Membership:
    """In order: it owns its slots until the others have them. One that was still joining goes at once."""
    if find(membership, name).state is State.JOINING:
        return remove(membership, name)
    staying = [m for m in membership.members if m.state in TO_COME and m.name != name]
    if not staying:
        raise Refused(f"ring {membership.service}: {name} is the last member, nobody is left to hand over to")
    return _begun(_altered(membership, replace(find(membership, name), state=State.LEAVING, next_weight=None)))


def weigh(membership: Membership, name: str, weight: float) -> Membership:
    """It owns by its old weight until who gains is ready. One that joins has nothing yet, and gets it at once."""
    member = find(membership, name)
    if member.state is State.LEAVING:
        raise Refused(f"ring {membership.service}: {name} is leaving, its weight does not matter any more")
    if member.coming_weight == weight:
        return membership
    if member.state is State.JOINING:
        return _begun(_altered(membership, replace(member, weight=weight)))
    return _begun(_altered(membership, replace(member, next_weight=None if weight == member.weight else weight)))


def remove(membership: Membership, name: str) -> Membership:
    """At once, without hand-over: it is dead, and what only it held is lost."""
    find(membership, name)
    left = tuple(member for member in membership.members if member.name != name)
    if not any(member.state in IN_USE for member in left):
        left = tuple(replace(member, state=State.ACTIVE) for member in left)
    return _changed(membership, left)


def cancel(membership: Membership, name: str) -> Membership:
    """Takes a pending join, leave or change of weight back."""
    member = find(membership, name)
    if member.state is State.ACTIVE and member.next_weight is None:
        raise Refused(f"ring {membership.service}: nothing is pending for {name}")
    if member.state is State.JOINING:
        return remove(membership, name)
    return _begun(_altered(membership, replace(member, state=State.ACTIVE, next_weight=None)))


def ready(membership: Membership, name: str, *, version: int) -> Membership:
    """`name` has all it is to get by the hand-over of `version`. When everybody has, ownership moves.

    Raises Conflict when the members have changed since: what there is to copy has changed too.
    """
    if version != membership.version:
        raise Conflict(f"ring {membership.service}: version is {membership.version} by now, not {version}; look again")
    both = rings(membership)
    awaited = receivers(both)
    if name not in awaited:
        raise Refused(f"ring {membership.service}: {name} is to get nothing at version {version}")
    said = tuple(sorted({*membership.ready, name} & awaited))
    if frozenset(said) == awaited:
        return settle(membership)
    return replace(membership, ready=said)


def settle(membership: Membership) -> Membership:
    """Ownership moves now, whoever is ready or not."""
    if not membership.pending:
        raise Refused(f"ring {membership.service}: nothing is pending")
    staying = (member for member in membership.members if member.state is not State.LEAVING)
    settled = (replace(m, state=State.ACTIVE, weight=m.coming_weight, next_weight=None) for m in staying)
    return _changed(membership, tuple(settled))


def find(membership: Membership, name: str) -> RingMember:
    """Raises Refused."""
    for member in membership.members:
        if member.name == name:
            return member
    raise Refused(f"ring {membership.service}: no member is called {name}")


def _altered(membership: Membership, member: RingMember) -> Membership:
    return _changed(membership, tuple(member if m.name == member.name else m for m in membership.members))


def _begun(membership: Membership) -> Membership:
    """Where nobody gains anything (each of the others has every slot), there is nothing to wait for."""
    return settle(membership) if membership.pending and not receivers(rings(membership)) else membership


def _changed(membership: Membership, members: Sequence[RingMember]) -> Membership:
    """By name, checked, one version on; nobody is ready for the new hand-over yet."""
    ordered = tuple(sorted(members, key=lambda member: member.name))
    changed = replace(membership, members=ordered, version=membership.version + 1, ready=())
    for weighed in (RingMember.place, lambda member: member.place(member.coming_weight)):
        check(changed.shape, [weighed(member) for member in ordered])
    return changed


# --- what a person wants to know


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """One member's part, now. `first` and `copies` count slots; `share` and `fair` are parts of all copies (0 to 1)."""

    name: str
    state: State
    weight: float
    next_weight: float | None
    machine: str
    rack: str
    zone: str
    first: int
    copies: int
    share: float
    fair: float


def balance(membership: Membership) -> tuple[Balance, ...]:
    """Owners in use, by name; members that join own nothing yet."""
    ring = rings(membership).use
    held = copies(ring)
    every = sum(count for _, count in held.values()) or 1
    weight = sum(member.weight for member in membership.members if member.state in IN_USE) or 1.0
    return tuple(_balance(member, held.get(member.name, (0, 0)), every, weight) for member in membership.members)


def _balance(member: RingMember, held: tuple[int, int], every: int, weight: float) -> Balance:
    return Balance(
        name=member.name,
        state=member.state,
        weight=member.weight,
        next_weight=member.next_weight,
        machine=member.machine,
        rack=member.rack,
        zone=member.zone,
        first=held[0],
        copies=held[1],
        share=held[1] / every,
        fair=member.weight / weight if member.state in IN_USE else 0.0,
    )


def short_slots(ring: Ring) -> int:
    """Slots with fewer owners than asked: there are too few machines."""
    return sum(len(owners) < ring.shape.replicas for owners in ring.table)


def flows(both: Rings) -> Mapping[tuple[str, str], int]:
    """Slots that move, by (first source, receiver); "" for a source when nobody has the data."""
    counts: dict[tuple[str, str], int] = {}
    for move in moves(both):
        pair = (move.sources[0] if move.sources else "", move.receiver)
        counts[pair] = counts.get(pair, 0) + 1
    return dict(sorted(counts.items()))

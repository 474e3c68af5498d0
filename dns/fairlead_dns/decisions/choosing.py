"""What one client gets of one set of records: how near each stands to it, which part, in which orders, as which data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fairlead_discovery.decisions.localities import NOWHERE, OWN_MACHINE, Place, tier
from fairlead_dns.decisions import selection, wire
from fairlead_dns.decisions.clients import Client
from fairlead_dns.decisions.selection import Candidate, Chance

VARIANTS = 64
PART_VARIANTS = 8  # there may be thousands of networks
LIMITED = frozenset({wire.A, wire.AAAA})


@dataclass(frozen=True, slots=True)
class Group:
    """A set of records to choose from. `sizes`: bytes of each as a record. `places`, `addresses`: of the machine each
    leads to; empty where they do not matter.
    """

    kind: int
    candidates: Sequence[Candidate]
    sizes: Mapping[bytes, int]
    room: int
    limited: bool
    places: Sequence[Place] = ()
    addresses: Sequence[frozenset[bytes]] = ()

    def standing(self, places: Sequence[Place], addresses: Sequence[frozenset[bytes]]) -> "Group":
        return replace(self, places=places if any(p != NOWHERE for p in places) else (), addresses=addresses)

    @property
    def bytes_all(self) -> int:
        return sum(self.sizes.values())

    @property
    def by_place(self) -> bool:
        return bool(self.places)

    @property
    def by_network(self) -> bool:
        """Not everybody gets all of it."""
        return self.limited or self.bytes_all > self.room

    @property
    def own(self) -> frozenset[bytes]:
        return frozenset[bytes]().union(*self.addresses)


@dataclass(frozen=True, slots=True)
class Chosen:
    """`cut`: there was no room for more, so that who can come by TCP gets more there."""

    candidates: Sequence[Candidate]
    cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """What has been set. `record_limit`: most addresses in an answer, 0 for no limit, whatever the transport.
    `least`: records that a tier must have to be nearer than the next one.
    """

    record_limit: int = 0
    prefer_own_machine: bool = False
    least: int = 1

    def group(self, kind: int, candidates: Sequence[Candidate], sizes: Mapping[bytes, int], *, room: int) -> Group:
        return Group(kind, candidates, sizes, room, self.limits(kind, len(candidates)))

    def limits(self, kind: int, count: int) -> bool:
        """Whether nobody gets all of so many."""
        return kind in LIMITED and 0 < self.record_limit < count

    def rounds(self, group: Group) -> int:
        """Replies in one round for one kind of client, at most."""
        return min(len(group.candidates), PART_VARIANTS if group.by_network else VARIANTS)

    def tiers(self, group: Group, client: Client) -> list[Candidate]:
        """The group's candidates as near as they stand to this client."""
        if not group.places and not group.addresses:
            return list(group.candidates)
        places = group.places or [NOWHERE] * len(group.candidates)
        machines = group.addresses or [frozenset[bytes]()] * len(group.candidates)
        ranked = [
            replace(candidate, tier=tier(client.place, place, own=client.address in machine))
            for candidate, place, machine in zip(group.candidates, places, machines, strict=True)
        ]
        if client.place == NOWHERE and all(c.tier != OWN_MACHINE for c in ranked):
            return list(group.candidates)
        return selection.merged(ranked, self.least)

    def limit(self, group: Group, client: Client) -> list[Candidate]:
        """What this client may get of it, however it comes."""
        ranked = self.tiers(group, client)
        return selection.part(ranked, client.network, self.record_limit) if group.limited else ranked

    def choose(self, group: Group, client: Client) -> Chosen:
        chosen = self.limit(group, client)
        if sum(group.sizes[c.rdata] for c in chosen) <= group.room:
            return Chosen(chosen, cut=False)
        return Chosen(selection.part(chosen, client.network, _fitting(chosen, group, client)), cut=True)

    def turns(self, chosen: Chosen, group: Group, chance: Chance) -> Iterator[list[bytes]]:
        """Data in one order after the other, one round."""
        most = PART_VARIANTS if group.by_network else VARIANTS
        data = dict(zip((c.rdata for c in chosen.candidates), spoken(group.kind, chosen.candidates), strict=True))
        count = selection.how_many(chosen.candidates, most)
        for order in selection.orders(chosen.candidates, count, chance):
            yield [data[c.rdata] for c in order]


def _fitting(chosen: Sequence[Candidate], group: Group, client: Client) -> int:
    """How many of them there is room for, taken as this client prefers them."""
    room = group.room
    for count, candidate in enumerate(selection.steady(chosen, client.network)):
        room -= group.sizes[candidate.rdata]
        if room < 0:
            return count
    return len(chosen)


def spoken(kind: int, candidates: Sequence[Candidate]) -> list[bytes]:
    """The data as given to a client: SRV records carry their tier as priority and their weight as weight."""
    if kind != wire.SRV:
        return [c.rdata for c in candidates]
    factors = selection.numbers(candidates)
    if all(c.tier == 0 for c in candidates) and set(factors) <= {1}:
        return [c.rdata for c in candidates]
    return [wire.srv_graded(c.rdata, c.tier, factor) for c, factor in zip(candidates, factors, strict=True)]

"""What of an upstream's reply belongs to the question. The rest is dropped: nobody asked for it, and it may be a lie.

ANSWER keeps the chain from the question's name, over CNAME and DNAME, to the type asked for. A chain that leads to a
name of our own ends there: we know better. AUTHORITY keeps the SOA of "there is none", and with DO what proves what is
kept. ADDITIONAL keeps nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.forward_records import CNAME, DNAME, NSEC, NSEC3, RRSIG, Record, name_at, name_end

SIGNER_AT = 18
PROOFS = frozenset({NSEC, NSEC3})
WEEK_S = 7 * 86_400


class OwnZones(Protocol):
    """Names in wire form, folded."""

    def has(self, name: bytes) -> bool:
        """Whether we answer for it ourselves."""

    def below(self, name: bytes) -> bool:
        """Whether one of our zones is at it or below it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a reply is taken. `longest_s`: no TTL is larger."""

    do: bool = False
    own: OwnZones | None = None
    longest_s: int = WEEK_S

    def is_ours(self, name: bytes) -> bool:
        return self.own is not None and self.own.has(name)


@dataclass(slots=True)
class Chain:
    """`name`: where it ends. `answered`: the type asked for is there. `ours`: that name is our own."""

    name: bytes
    kept: set[int] = field(default_factory=set)
    """Where the records begin."""
    answered: bool = False
    ours: bool = False


def chain(packet: bytes, answers: Iterable[Record], question: bytes, terms: Terms) -> Chain:
    """Bounded by the number of records: no name is passed twice."""
    sets = _by_owner(packet, answers)
    made, kind, passed = Chain(question[:-4].lower()), int.from_bytes(question[-4:-2]), set[bytes]()
    while made.name not in passed:
        passed.add(made.name)
        found = _of_type(packet, sets.get(made.name, ()), kind, terms)
        if found:
            made.kept.update(found)
            made.answered = True
            return made
        target = _step(packet, sets, made, terms)
        if target is None:
            return made
        made.name = target
        if terms.is_ours(target):
            made.ours = True
            return made
    return made


def _by_owner(packet: bytes, found: Iterable[Record]) -> dict[bytes, list[Record]]:
    sets: dict[bytes, list[Record]] = {}
    for record in found:
        if record.klass == wire.IN:
            sets.setdefault(name_at(packet, record.start).lower(), []).append(record)
    return sets


def _of_type(packet: bytes, found: Sequence[Record], kind: int, terms: Terms) -> list[int]:
    """Where they begin, with DO those that sign them too; nothing when there are only signatures."""
    chosen = [r.start for r in found if r.kind == kind]
    if chosen and terms.do and kind != RRSIG:
        chosen += [r.start for r in found if _signed(packet, r) == kind]
    return chosen


def _signed(packet: bytes, record: Record) -> int | None:
    """The type that an RRSIG covers."""
    if record.kind != RRSIG:
        return None
    return int.from_bytes(packet[record.data_at : min(record.data_at + 2, record.end)])


def _step(packet: bytes, sets: dict[bytes, list[Record]], made: Chain, terms: Terms) -> bytes | None:
    """The next name of the chain, None at its end; what leads there is kept."""
    target = None
    here = sets.get(made.name, ())
    aliases = [r for r in here if r.kind == CNAME and r.data_at < r.end]
    if aliases:
        target = name_at(packet, aliases[0].data_at).lower()
        made.kept.add(aliases[0].start)
        if terms.do:
            made.kept.update(r.start for r in here if _signed(packet, r) == CNAME)
    for owner in above(made.name):
        found = sets.get(owner, ())
        moved = _moved(packet, found, made.name, owner)
        if moved is not None and target in (None, moved) and not (terms.own is not None and terms.own.below(owner)):
            made.kept.update(_of_type(packet, found, DNAME, terms))
            return moved
    return target


def _moved(packet: bytes, found: Sequence[Record], name: bytes, owner: bytes) -> bytes | None:
    """Where the owner's DNAME, if it has one alone, leads `name` (RFC 6672)."""
    dnames = [r for r in found if r.kind == DNAME and r.data_at < r.end]
    if len(dnames) != 1:
        return None
    moved = name[: -len(owner)] + name_at(packet, dnames[0].data_at).lower()
    return moved if len(moved) <= wire.NAME_LIMIT else None


def above(name: bytes) -> Iterator[bytes]:
    """The names that `name` is below, the root last."""
    while name[0]:
        name = wire.parent(name)
        yield name


def authority(packet: bytes, found: Sequence[Record], made: Chain, terms: Terms) -> set[int]:
    """Where those of AUTHORITY that belong to the chain begin. `found`: of the whole reply. Raises MalformedError."""
    beside = [r for r in found if r.section == 1 and r.klass == wire.IN]
    zones, kept = set[bytes](), set[int]()
    if not made.answered and not made.ours:
        for record in beside:
            owner = name_at(packet, record.start).lower()
            if record.kind == wire.SOA and record.data_at < record.end and is_within(made.name, owner):
                zones.add(owner)
                kept.add(record.start)
                break
    if terms.do:
        zones |= _signers(packet, (r for r in found if r.start in made.kept and r.kind == RRSIG))
        kept |= {r.start for r in beside if _proves(packet, r, zones, terms)}
    return kept


def is_within(name: bytes, zone: bytes) -> bool:
    return name == zone or zone in above(name)


def _signers(packet: bytes, signatures: Iterable[Record]) -> set[bytes]:
    """The zones that they are of, where a zone may sign them."""
    zones = set()
    for record in signatures:
        name_end(packet, record.data_at + SIGNER_AT)
        zone = name_at(packet, record.data_at + SIGNER_AT).lower()
        if is_within(name_at(packet, record.start).lower(), zone):
            zones.add(zone)
    return zones


def _proves(packet: bytes, record: Record, zones: set[bytes], terms: Terms) -> bool:
    """NSEC, NSEC3 and signatures of one of the zones, of no name of ours."""
    if record.kind not in PROOFS and _signed(packet, record) not in {*PROOFS, wire.SOA}:
        return False
    owner = name_at(packet, record.start).lower()
    return not terms.is_ours(owner) and any(is_within(owner, zone) for zone in zones)

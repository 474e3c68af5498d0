"""A zone from a master file: checked once, then an immutable value whose answers are a pure function (RFC 1034, 4.3.2).

Wildcards by RFC 4592, DNAME by RFC 6672, delegations with glue. Without DNSSEC: its records are data like any other.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, repeat
from types import MappingProxyType

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import EDNS_BYTES, Asked, Next, View, error
from fairlead_dns.decisions.compose import CNAME, DNAME, DS, MX, RRset, reply
from fairlead_dns.decisions.front import Route
from fairlead_dns.decisions.journal import Change, Held, Journal, NameChange
from fairlead_dns.decisions.zone_version import reply_with, wish_of

YXDOMAIN = 6
PACKETS = 10_000  # of a zone; each costs about 300 bytes
CHAIN = 16  # aliases followed in one answer
SIGNATURES = frozenset({46, 47})  # RRSIG and NSEC may stand beside a CNAME
TARGET_AT = {wire.NS: 0, MX: 2, wire.SRV: 6}
Sets = Mapping[int, RRset]
EVERYTHING = View().closed
"""Of a client that may ask for all."""


class BadZoneError(ValueError):
    """A zone that cannot be served. The message names file, line and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record of a file. `place` is `file:line`; names in wire form, the owner folded."""

    owner: bytes
    kind: int
    ttl_s: int
    rdata: bytes
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticZone:
    """`names` holds every owner's sets by type; `between` the names that exist only because others lie below them."""

    apex: bytes
    names: Mapping[bytes, Sets]
    between: frozenset[bytes]
    cuts: frozenset[bytes]
    warnings: tuple[str, ...] = ()

    @property
    def soa(self) -> RRset:
        return self.names[self.apex][wire.SOA]

    @property
    def serial(self) -> int:
        return int.from_bytes(self.soa.data[0][-20:-16], "big")

    @property
    def negative(self) -> RRset:
        """The SOA as it stands in negative answers (RFC 2308, 3)."""
        soa = self.soa
        least_s = min(soa.ttl_s, int.from_bytes(soa.data[0][-4:], "big"))
        return RRset(soa.owner, wire.SOA, least_s, soa.data)

    def exists(self, name: bytes) -> bool:
        return name in self.names or name in self.between

    def sets(self) -> Iterator[RRset]:
        """Every set, the SOA first."""
        yield self.soa
        for sets in self.names.values():
            yield from (rrset for rrset in sets.values() if rrset.kind != wire.SOA)


@dataclass(slots=True)
class Outcome:
    """An answer's parts. `glue`: names whose addresses must go along or the answer is cut."""

    rcode: int = wire.NOERROR
    authoritative: bool = True
    answer: list[RRset] = field(default_factory=list)
    authority: list[RRset] = field(default_factory=list)
    additional: list[RRset] = field(default_factory=list)
    glue: frozenset[bytes] = frozenset()
    endless: bool = False
    """The aliases lead back to where they were, or are more than CHAIN."""


def compile_zone(apex: bytes, entries: Iterable[Entry]) -> StaticZone:
    """Raises BadZoneError for what no server could serve; what is only doubtful stands in `warnings`."""
    kept = tuple(entries)
    places: dict[tuple[bytes, int], str] = {}
    data: dict[bytes, dict[int, dict[bytes, int]]] = {}
    warnings: list[str] = []
    for entry in kept:
        places.setdefault((entry.owner, entry.kind), entry.place)
        ttls = data.setdefault(entry.owner, {}).setdefault(entry.kind, {})
        if ttls and entry.ttl_s not in ttls.values():
            warnings.append(
                f"{entry.place}: {wire.text(entry.owner)} has records of one type with several TTLs: the least counts"
            )
        ttls[entry.rdata] = entry.ttl_s
    _check(apex, data, places)
    names = {
        owner: MappingProxyType(
            {kind: RRset(owner, kind, min(ttls.values()), tuple(ttls)) for kind, ttls in kinds.items()}
        )
        for owner, kinds in data.items()
    }
    zone = StaticZone(
        apex=apex,
        names=MappingProxyType(names),
        between=frozenset(_between(apex, names)),
        cuts=_cuts(apex, names),
    )
    warnings += _doubts(zone, places)
    return StaticZone(apex=apex, names=zone.names, between=zone.between, cuts=zone.cuts, warnings=tuple(warnings))


def zone_of(apex: bytes, sets: Iterable[RRset]) -> StaticZone:
    """The zone of which these are the sets: it has been checked before."""
    names: dict[bytes, dict[int, RRset]] = {}
    for rrset in sets:
        names.setdefault(rrset.owner, {})[rrset.kind] = rrset
    return StaticZone(apex=apex, names=names, between=frozenset(_between(apex, names)), cuts=_cuts(apex, names))


def _cuts(apex: bytes, names: Mapping[bytes, Sets]) -> frozenset[bytes]:
    return frozenset(owner for owner, sets in names.items() if wire.NS in sets and owner != apex)


def lookup(zone: StaticZone, name: bytes, kind: int, closed: Callable[[bytes], bytes] = EVERYTHING) -> Outcome:
    """The answer to a question at or below the zone's apex; `name` folded. `closed`: as View.closed, of all names that
    the answer leads to.
    """
    outcome = Outcome()
    seen = {name}
    for _ in range(CHAIN):
        following = _step(zone, name, kind, outcome)
        if following is None or not _at_or_below(following, zone.apex) or closed(following):
            break
        if following in seen:
            outcome.endless = True
            break
        seen.add(following)
        name = following
    else:
        outcome.endless = True
    _add_addresses(zone, outcome, closed)
    return outcome


def _step(zone: StaticZone, name: bytes, kind: int, outcome: Outcome) -> bytes | None:
    """Adds what this name has to the outcome; returns the name an alias leads to."""
    for ancestor in _downwards(name, zone.apex):
        sets = zone.names.get(ancestor)
        if sets is None:
            continue
        if ancestor in zone.cuts and (ancestor != name or kind != DS):
            _refer(zone, ancestor, outcome)
            return None
        if DNAME in sets and ancestor != name:
            following = _redirect(sets[DNAME], name, outcome)
            return None if kind in {CNAME, wire.ANY} else following  # the CNAME made of it is what was asked for
    sets = zone.names.get(name)
    if sets is None and name not in zone.between:
        source = _wildcard(zone, name)
        if not zone.exists(source):
            outcome.rcode = wire.NXDOMAIN
            outcome.authority.append(zone.negative)
            return None
        sets = zone.names.get(source)
    return _from_sets(zone, name, kind, sets or {}, outcome)


def _from_sets(zone: StaticZone, name: bytes, kind: int, sets: Sets, outcome: Outcome) -> bytes | None:
    wanted = min(sets, default=kind) if kind == wire.ANY else kind  # one type is enough (RFC 8482)
    found = sets.get(wanted)
    if found is not None:
        outcome.answer.append(RRset(name, found.kind, found.ttl_s, found.data))
        return None
    alias = sets.get(CNAME)
    if alias is not None:
        outcome.answer.append(RRset(name, CNAME, alias.ttl_s, alias.data))
        return alias.data[0].lower()
    outcome.authority.append(zone.negative)
    return None


def _refer(zone: StaticZone, cut: bytes, outcome: Outcome) -> None:
    servers = zone.names[cut][wire.NS]
    outcome.authoritative = bool(outcome.answer)
    outcome.authority.append(servers)
    if DS in zone.names[cut]:
        outcome.authority.append(zone.names[cut][DS])
    outcome.glue = frozenset(t for d in servers.data if _at_or_below(t := d.lower(), cut))


def _redirect(dname: RRset, name: bytes, outcome: Outcome) -> bytes | None:
    """A CNAME made of the DNAME; YXDOMAIN when the new name is too long."""
    if dname not in outcome.answer:  # an alias may lead through it again
        outcome.answer.append(dname)
    target = name[: len(name) - len(dname.owner)] + dname.data[0]
    if len(target) > wire.NAME_LIMIT:
        outcome.rcode = YXDOMAIN
        return None
    outcome.answer.append(RRset(name, CNAME, dname.ttl_s, (target,)))
    return target.lower()


def _wildcard(zone: StaticZone, name: bytes) -> bytes:
    """`*` below the closest name above that exists."""
    encloser = wire.parent(name)
    while not zone.exists(encloser):
        encloser = wire.parent(encloser)
    return b"\1*" + encloser


def _add_addresses(zone: StaticZone, outcome: Outcome, closed: Callable[[bytes], bytes]) -> None:
    """Of every name that the answer's or the authority's data leads to, once."""
    given = {(rrset.owner, rrset.kind) for rrset in outcome.answer}
    for rrset in (*outcome.answer, *outcome.authority):
        at = TARGET_AT.get(rrset.kind)
        for data in rrset.data if at is not None else ():
            target = data[at:].lower()
            sets = zone.names.get(target, {}) if not closed(target) else {}
            for kind in (wire.A, wire.AAAA):
                found = sets.get(kind)
                if found is not None and (found.owner, kind) not in given:
                    given.add((found.owner, kind))
                    outcome.additional.append(found)


def _check(
    apex: bytes, data: Mapping[bytes, Mapping[int, Mapping[bytes, int]]], places: Mapping[tuple[bytes, int], str]
) -> None:
    top = data.get(apex, {})
    if len(top.get(wire.SOA, ())) != 1:
        raise BadZoneError(f"{wire.text(apex)}: {len(top.get(wire.SOA, ()))} SOA records at the apex, expected one")
    if wire.NS not in top:
        raise BadZoneError(f"{wire.text(apex)}: no NS record at the apex")
    for owner, kinds in data.items():
        _check_owner(apex, owner, kinds, places)
        for above in _downwards(wire.parent(owner), apex) if owner != apex else ():
            if DNAME in data.get(above, ()):
                kind = next(iter(kinds))
                raise BadZoneError(
                    f"{places[owner, kind]}: {wire.text(owner)} lies below the DNAME of {wire.text(above)}"
                )


def _check_owner(
    apex: bytes, owner: bytes, kinds: Mapping[int, Mapping[bytes, int]], places: Mapping[tuple[bytes, int], str]
) -> None:
    name = wire.text(owner)
    if wire.SOA in kinds and owner != apex:
        raise BadZoneError(f"{places[owner, wire.SOA]}: SOA of {name}, which is not the apex {wire.text(apex)}")
    if CNAME in kinds and kinds.keys() - SIGNATURES != {CNAME}:
        raise BadZoneError(f"{places[owner, CNAME]}: {name} has a CNAME and other records")
    if DNAME in kinds and wire.NS in kinds and owner != apex:
        raise BadZoneError(f"{places[owner, DNAME]}: {name} has a DNAME and is delegated")
    for kind, word in ((wire.NS, "NS"), (DNAME, "DNAME")):
        if owner[:2] == b"\1*" and kind in kinds:
            raise BadZoneError(
                f"{places[owner, kind]}: {word} of the wildcard {name}, which has no meaning (RFC 4592, 4)"
            )
    for kind, word in ((CNAME, "CNAME"), (DNAME, "DNAME")):
        if len(kinds.get(kind, ())) > 1:
            raise BadZoneError(f"{places[owner, kind]}: {name} has several {word} records")


def _doubts(zone: StaticZone, places: Mapping[tuple[bytes, int], str]) -> Iterator[str]:
    for owner, sets in zone.names.items():
        for kind, at in TARGET_AT.items():
            for data in sets[kind].data if kind in sets else ():
                doubt = _doubt(zone, data[at:].lower())
                if doubt:
                    yield f"{places[owner, kind]}: {wire.text(data[at:])} {doubt}"
        if CNAME in sets and lookup(zone, owner, wire.A).endless:
            yield (
                f"{places[owner, CNAME]}: {wire.text(owner)} has no end: its aliases lead back to where they were,"
                f" or are more than {CHAIN}"
            )


def _doubt(zone: StaticZone, target: bytes) -> str:
    """What is wrong with a name that NS, MX or SRV give."""
    if target == b"\0" or not _at_or_below(target, zone.apex):
        return ""
    found = lookup(zone, target, wire.A)
    if any(rrset.kind == CNAME for rrset in found.answer):
        return "is an alias"
    if not found.authoritative or found.answer or lookup(zone, target, wire.AAAA).answer:
        return ""
    return "has no address"


def _between(apex: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
    known = set(names)
    found: set[bytes] = set()
    for name in known:
        above = name
        while above != apex:
            above = wire.parent(above)
            if above in known or above in found:
                break
            found.add(above)
            yield above


def _downwards(name: bytes, apex: bytes) -> list[bytes]:
    """From the apex to the name, both included."""
    found = [name]
    while found[-1] != apex:
        found.append(wire.parent(found[-1]))
    return found[::-1]


def _at_or_below(name: bytes, apex: bytes) -> bool:
    while len(name) > len(apex):
        name = wire.parent(name)
    return name == apex


@dataclass(slots=True)
class StaticAnswers:
    """The front's handler for one zone. Positive answers to packets that come again are kept whole, up to PACKETS."""

    zone: StaticZone
    _packets: list[tuple[dict[bytes, Next], bytes]] = field(default_factory=list)

    def reply(self, asked: Asked) -> bytes:
        if asked.opcode != wire.QUERY:
            return error(asked, wire.NOTIMP)
        if asked.query.kind in {wire.AXFR, wire.IXFR}:
            return error(asked, wire.REFUSED)
        if wish_of(asked) is None:
            return self._reply(asked)
        return reply_with(asked, self._reply, self.zone.apex, self.zone.serial)

    def _reply(self, asked: Asked) -> bytes:
        query = asked.query
        found = lookup(self.zone, query.name, query.kind, asked.view.closed)
        opt = b"" if query.edns is None else wire.opt_record(EDNS_BYTES, do=query.edns.do)
        flags = wire.QR | asked.flags | found.rcode | (wire.AA if found.authoritative else 0)
        sections = (found.answer, found.authority, found.additional)
        made = reply(asked.packet[:2], query.question, flags, sections, room=asked.room, opt=opt, needed=found.glue)
        if asked.repeats and query.name in self.zone.names and query.kind in self.zone.names[query.name]:
            self._keep(asked, made)
        return made

    def account(self, name: bytes) -> bytes:
        """The wildcard or the DNAME that answers for a name that has nothing of its own; else the name."""
        if self.zone.exists(name):
            return name
        for ancestor in _downwards(name, self.zone.apex)[:-1]:
            if DNAME in self.zone.names.get(ancestor, ()):
                return ancestor
        source = _wildcard(self.zone, name)
        return source if source in self.zone.names else name

    @property
    def route(self) -> Route:
        return Route(self, account=self.account)

    def replace(self, zone: StaticZone) -> None:
        """Nothing of the old zone is answered any more."""
        self.zone = zone
        self._forget()

    def _keep(self, asked: Asked, made: bytes) -> None:
        if len(self._packets) >= PACKETS:
            self._forget()
        self._packets.append((asked.view.fast, asked.packet[2:]))
        asked.view.fast[asked.packet[2:]] = repeat(made[2:]).__next__

    def _forget(self) -> None:
        for fast, packet in self._packets:
            fast.pop(packet, None)
        self._packets.clear()


@dataclass(frozen=True, slots=True)
class StaticView:
    """A zone as it is now, for a transfer."""

    zone: StaticZone

    @property
    def soa(self) -> RRset:
        return self.zone.soa

    def records(self) -> Iterator[RRset]:
        return islice(self.zone.sets(), 1, None)


@dataclass(slots=True)
class StaticSource:
    """A zone that is replaced as a whole, as transfer.Source."""

    zone: StaticZone
    journal: Journal
    begun_s: float = 0.0
    """Unix time of the first loading."""

    def held(self, name: bytes) -> Held:
        """The name's records as they stand, the SOA apart; nothing for what a wildcard gives."""
        return _held(self.zone, name)

    def exists(self, name: bytes) -> bool:
        return self.zone.exists(name)

    def soa(self) -> RRset:
        return self.zone.soa

    def view(self) -> StaticView:
        return StaticView(self.zone)

    def replace(self, zone: StaticZone, change: Change) -> None:
        self.journal.append(change)
        self.zone = zone


def hidden_from(apex: bytes, domains: Iterable[bytes]) -> bytes | None:
    """The domain, served from endpoints, whose names below `apex` a zone of that name hides."""
    above = [domain for domain in domains if domain != apex and _at_or_below(apex, domain)]
    return max(above, key=len, default=None)


def hidden_names(apex: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
    """Those of `names` at or below `apex`."""
    return (name for name in names if name.endswith(apex) and _at_or_below(name, apex))


def difference(old: StaticZone, new: StaticZone, *, at_s: float) -> Change:
    names = (name for name in (*old.names, *(n for n in new.names if n not in old.names)))
    changes = (NameChange(name, _held(old, name), _held(new, name)) for name in names)
    return Change(old.soa, new.soa, at_s, tuple(change for change in changes if change.before != change.after))


def _held(zone: StaticZone, name: bytes) -> Held:
    sets = zone.names.get(name, {})
    return tuple(sets[kind] for kind in sorted(sets) if kind != wire.SOA)

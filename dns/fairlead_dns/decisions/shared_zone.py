"""The zone as worker processes see it: what answers are made of, written into a store by who builds it, read by the rest.

Keys are names in wire form, and PLACE with an address. Only the writer knows who gives a record; what answers need of
that (how many, how much they can take, where they stand) is written beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from fairlead_discovery.decisions.localities import NOWHERE, Place
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.front import Route
from fairlead_dns.decisions.store import Reader, Writer
from fairlead_dns.decisions.traits import Traits
from fairlead_dns.decisions.zone import ARPA, NOTHING, Zone

PLACE = b"\xff"  # begins no name
REMEMBERED = 1024
ADDRESSES = (wire.A, wire.AAAA)


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """What stands under one name. No sets: it has only names below it."""

    sets: Mapping[int, Mapping[bytes, int]]
    """Type -> record data -> how many give it."""
    ttls: Mapping[int, int]
    weights: Mapping[int, Mapping[bytes, float]] = {}
    """Of records whose weight is not the number of their givers."""
    point: bool = False
    """The name is a zone of its own: the reverse name of one address."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Facts).decode
_place = msgspec.msgpack.Decoder(tuple[str, str]).decode


@dataclass(slots=True)
class Published:
    """Writes a zone's names into the store. `default_ttl_s`: of records that have none of their own."""

    store: Writer
    zone: Zone
    traits: Traits
    default_ttl_s: int

    def write(self, names: Iterable[bytes]) -> list[bytes]:
        """Brings these names up to date. Returns those of which anything is stored otherwise now."""
        return [name for name in names if self._write(name)]

    def _write(self, name: bytes) -> bool:
        moved = self._stand(name) if self.traits.places else False
        sets = self.zone.sets(name)
        if not sets and not self.zone.exists(name):
            return self.store.remove(name) or moved
        ttls = {kind: self.zone.ttl_s(name, kind, self.default_ttl_s) for kind in sets}
        facts = Facts(sets, ttls, self._weights(name, sets), name in self.zone.points)
        return self.store.put(name, _encode(facts)) or moved

    def _weights(self, name: bytes, sets: Mapping[int, Mapping[bytes, int]]) -> dict[int, dict[bytes, float]]:
        found: dict[int, dict[bytes, float]] = {}
        for kind, data in sets.items():
            for rdata, givers in data.items():
                weight = self.traits.weight(name, kind, rdata, givers)
                if weight != givers:
                    found.setdefault(kind, {})[rdata] = weight
        return found

    def _stand(self, name: bytes) -> bool:
        """Where the addresses stand that the name has or had. Returns whether one stands elsewhere now."""
        before = self.store.get(name)
        known = NOTHING if before is None else _decode(before).sets
        addresses = {a for sets in (known, self.zone.sets(name)) for kind in ADDRESSES for a in sets.get(kind, ())}
        moved = False
        for address in addresses:
            place = self.traits.place(address)
            if place == NOWHERE:
                moved |= self.store.remove(PLACE + address)
            else:
                moved |= self.store.put(PLACE + address, _encode((place.zone, place.region)))
        return moved


@dataclass(slots=True)
class Read:
    """The store as a reader of it has found it; `forget` when it is told of a change."""

    store: Reader
    _known: dict[bytes, Facts | None] = field(default_factory=dict)

    def facts(self, name: bytes) -> Facts | None:
        if name in self._known:
            return self._known[name]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        data = self.store.get(name)
        found = self._known[name] = None if data is None else _decode(data)
        return found

    def place(self, address: bytes) -> Place:
        data = self.store.get(PLACE + address)
        return NOWHERE if data is None else Place(*_place(data))

    def forget(self) -> None:
        self._known.clear()

    def is_point(self, name: bytes) -> bool:
        if not name.endswith(ARPA):
            return False
        facts = self.facts(name)
        return facts is not None and facts.point


class Apexes(set[bytes]):
    """Those of the settings, and the reverse names that are zones of their own."""

    def __init__(self, known: Iterable[bytes], read: Read) -> None:
        super().__init__(known)
        self._read = read

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, bytes) and self._read.is_point(name))


class Routes(dict[bytes, Route]):
    """The front's, with one for every reverse name that is a zone of its own."""

    def __init__(self, read: Read, point: Route) -> None:
        super().__init__()
        self._read, self._point = read, point

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, bytes) and self._read.is_point(name))

    def get(self, name: bytes, default: Route | None = None) -> Route | None:  # type: ignore[override]  # no other default is asked for
        found = super().get(name)
        return self._point if found is None and self._read.is_point(name) else found or default


class SharedZone(Zone):
    """Read only: what changes is changed by who writes the store."""

    def __init__(self, apexes: Iterable[bytes], read: Read) -> None:
        super().__init__(Apexes(apexes, read))
        self.read = read

    def exists(self, name: bytes) -> bool:
        return name in self.apexes or self.read.facts(name) is not None

    def sets(self, name: bytes) -> Mapping[int, Mapping[bytes, int]]:
        facts = self.read.facts(name)
        return NOTHING if facts is None else facts.sets

    def ttl_s(self, name: bytes, kind: int, default_s: int) -> int:
        facts = self.read.facts(name)
        return default_s if facts is None else facts.ttls.get(kind, default_s)


class SharedTraits(Traits):
    """Read only, as the zone."""

    def __init__(self, read: Read, *, places: bool) -> None:
        super().__init__(places=places)
        self.read = read

    def weight(self, name: bytes, kind: int, rdata: bytes, givers: int) -> float:
        return self._unusual(name, kind).get(rdata, float(givers))

    def are_equal(self, name: bytes, kind: int, givers: Mapping[bytes, int]) -> bool:
        return not self._unusual(name, kind) and len(set(givers.values())) == 1

    def place(self, address: bytes) -> Place:
        return self.read.place(address)

    def _unusual(self, name: bytes, kind: int) -> Mapping[bytes, float]:
        facts = self.read.facts(name)
        return {} if facts is None else facts.weights.get(kind, {})

"""Which of a service's endpoints gets the next request. Pure: chance, turns and loads are arguments."""

import enum
import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from fairlead_discovery.decisions.ring import WEIGHT, Place, Ring, Shape
from fairlead_discovery.records import Address, Member

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it fill 0 to 1 more evenly than any other number's: weighted turns without a schedule."""
ENDPOINT_RING = Shape(slots=4096, points=64)
"""Built again at the first keyed pick after a change, in a few milliseconds."""


class Strategy(enum.StrEnum):
    RANDOM = "random"
    """By weight."""
    ROUND_ROBIN = "round-robin"
    """In turns, by weight."""
    LEAST_OF_TWO = "least-of-two"
    """Of two at random, the one with less in flight for its weight."""
    LOCAL = "local"
    """The client's zone first; what that zone cannot take, given its weight, spills over to the others."""
    RENDEZVOUS = "rendezvous"
    """By key; a key moves only when its own endpoint goes. Takes time in proportion to the endpoints."""
    RING = "ring"
    """By key, exact shares, in constant time; a few keys more move."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one instance of a service is reached. `name` is `host:port`."""

    service: str
    task: str
    host: str
    port: int
    weight: float = 1.0
    zone: str = ""
    shard: int | None = None

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


def endpoints(service: str, members: Iterable[Member], port: str) -> Iterable[Endpoint]:
    """Of each member that has such a port ("": the first one)."""
    for member in members:
        address = address_of(member, port)
        if address is not None:
            yield Endpoint(
                service=service,
                task=member.task.id,
                host=address.host,
                port=address.port,
                weight=member.weight,
                zone=member.zone,
                shard=member.shard,
            )


def address_of(member: Member, port: str) -> Address | None:
    """Of the port so called, in any case; "" is the first one."""
    if not port:
        return member.serviceEndpoint
    exact = member.additionalEndpoints.get(port)
    if exact is not None:
        return exact
    folded = (address for name, address in member.additionalEndpoints.items() if name.lower() == port.lower())
    return next(folded, None)


@dataclass(frozen=True, slots=True)
class Wheel:
    """Endpoints with room on a wheel in proportion to weights. `edges` are all ends but the last."""

    edges: Sequence[float]
    total: float


def wheel(weights: Sequence[float]) -> Wheel:
    """Weights that are no positive numbers count as nothing, unless all are so: then all are equal."""
    sane = [w if math.isfinite(w) and w > 0 else 0.0 for w in weights]
    ends = list(accumulate(sane if any(sane) else [1.0] * len(sane)))
    return Wheel(edges=ends[:-1], total=ends[-1] if ends else 0.0)


class Pool:
    """All endpoints of one name, with what picking among them needs, made when first asked for. At least one."""

    __slots__ = ("_by_name", "_equal", "_local", "_ring", "endpoints", "wheel")

    def __init__(self, found: Iterable[Endpoint]) -> None:
        self.endpoints: tuple[Endpoint, ...] = tuple(sorted(found, key=lambda e: (e.host, e.port, e.task)))
        self.wheel = wheel([endpoint.weight for endpoint in self.endpoints])
        self._equal = len({endpoint.weight for endpoint in self.endpoints}) == 1
        self._local: dict[str, Wheel] = {}
        self._ring: Ring | None = None
        self._by_name = {endpoint.name: endpoint for endpoint in self.endpoints}

    def random(self, chance: float) -> Endpoint:
        """`chance` from 0 to below 1, here and below."""
        return self.endpoints[bisect_right(self.wheel.edges, chance * self.wheel.total)]

    def turn(self, number: int) -> Endpoint:
        if self._equal:
            return self.endpoints[number % len(self.endpoints)]
        return self.random(number * GOLDEN % 1.0)

    def local(self, zone: str, chance: float) -> Endpoint:
        found = self._local.get(zone)
        if found is None:
            found = self._local[zone] = wheel(local_weights(self.endpoints, zone))
        return self.endpoints[bisect_right(found.edges, chance * found.total)]

    def least_of_two(self, chances: tuple[float, float], loads: Mapping[str, int]) -> Endpoint:
        """`loads`: requests in flight by endpoint name."""
        one, other = self.random(chances[0]), self.random(chances[1])
        ahead = loads.get(one.name, 0) * other.weight <= loads.get(other.name, 0) * one.weight
        return one if ahead else other

    def rendezvous(self, key: str) -> Endpoint:
        return max(self.endpoints, key=lambda endpoint: _score(key, endpoint))

    def ring(self, key: str) -> Endpoint:
        if self._ring is None:
            self._ring = endpoint_ring(self.endpoints)
        return self._by_name[self._ring.owner(key)]


def _score(key: str, endpoint: Endpoint) -> float:
    """Weighted rendezvous: -weight / ln(h), h the hash of `key#host:port` from 0 to 1, both ends excluded."""
    data = hashlib.sha256(f"{key}#{endpoint.name}".encode()).digest()
    return -max(endpoint.weight, 0.0) / math.log((int.from_bytes(data[:6], "big") + 0.5) / (1 << 48))


def local_weights(found: Sequence[Endpoint], zone: str) -> list[float]:
    """Weights for a client in `zone`, when each zone's clients ask about equally much.

    A zone with its even part of the weight or more keeps its clients; one with less keeps as many as it can take,
    and the rest goes to zones that have more, in proportion to what they have more. No endpoint in it: all, by weight.
    """
    weights = dict.fromkeys(sorted({endpoint.zone for endpoint in found} | {zone}), 0.0)
    for endpoint in found:
        weights[endpoint.zone] += max(endpoint.weight, 0.0)
    fair = sum(weights.values()) / len(weights)
    if not zone or weights[zone] <= 0:
        return [endpoint.weight for endpoint in found]
    keep = min(1.0, weights[zone] / fair)
    surplus = {z: max(0.0, weight - fair) for z, weight in weights.items() if z != zone}
    spill = (1 - keep) / (sum(surplus.values()) or 1.0)
    shares = {z: spill * more / weights[z] for z, more in surplus.items() if more} | {zone: keep / weights[zone]}
    return [shares.get(endpoint.zone, 0.0) * max(endpoint.weight, 0.0) for endpoint in found]


def endpoint_ring(found: Iterable[Endpoint]) -> Ring:
    """The ring over published endpoints, members named `host:port`: what RING picks by."""
    milli = {e.name: round(e.weight * 1000) if math.isfinite(e.weight) else 0 for e in found}
    sane = {name: min(WEIGHT[1], max(WEIGHT[0], weight)) for name, weight in milli.items()}
    return Ring(ENDPOINT_RING, [Place(name=name, weight_milli=weight) for name, weight in sane.items()])

"""Who asks, as far as an answer depends on it: the zone and region of the client's network, and the network itself.

Clients share prebuilt answers by zone. Only where an answer must be cut does each network (/24, /56) get its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from fairlead_discovery.decisions.localities import NOWHERE, Place

NETWORK_BITS = {4: 24, 6: 56}
"""What one site or rack has, and what BIND's rate limiting takes for one client."""
KNOWN = 65_536


@dataclass(frozen=True, slots=True)
class Locality:
    """All addresses of `network` stand at `place`; the longest network that fits counts."""

    network: IPv4Network | IPv6Network
    place: Place


@dataclass(frozen=True, slots=True)
class Client:
    """`network` and `address` as bytes, b"" when not known."""

    place: Place = NOWHERE
    network: bytes = b""
    address: bytes = b""


UNKNOWN = Client()


@dataclass(slots=True)
class Clients:
    """Addresses into clients. Bounded: at KNOWN addresses it begins anew."""

    localities: tuple[Locality, ...] = ()
    _known: dict[str, Client] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.localities = longest_first(self.localities)

    def of(self, address: str) -> Client:
        """`10.1.2.3`, `fd00::1`, `fe80::1%eth0`; what is no address is nobody known."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            known = self._known[address] = self._parsed(address)
        return known

    def _parsed(self, text: str) -> Client:
        address = parse(text)
        if address is None:
            return UNKNOWN
        bits = NETWORK_BITS[address.version]
        network = int(address) >> (address.max_prefixlen - bits)
        return Client(self._place(address), network.to_bytes(-(-bits // 8), "big"), address.packed)

    def _place(self, address: IPv4Address | IPv6Address) -> Place:
        fitting = (each.place for each in self.localities if address in each.network)
        return next(fitting, NOWHERE)


def parse(text: str) -> IPv4Address | IPv6Address | None:
    """IPv4 in IPv6 clothes is IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def longest_first(localities: Iterable[Locality]) -> tuple[Locality, ...]:
    return tuple(sorted(localities, key=lambda each: -each.network.prefixlen))

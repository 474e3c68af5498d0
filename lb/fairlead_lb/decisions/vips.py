"""Virtual addresses on this machine: which service's port is reached at which `127.230.155.221:80`.

A place is such a text: HAProxy's bind carries it as its name, and the map `vips` leads from it to a backend. A place
that HAProxy listens on already changes hands without a reload.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from fairlead_discovery.decisions import labels
from fairlead_discovery.decisions import vips as shared
from fairlead_discovery.decisions.vips import Vip
from fairlead_discovery.records import Member, Port, Route
from fairlead_lb.decisions.derived import route_from_labels
from fairlead_lb.decisions.forbidden import FIRST_ORDINARY_PORT, Forbidden

LOOPBACK = IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, slots=True, kw_only=True)
class VipRules:
    """`literal`: networks of which labels may name addresses; `low_ports`: those below 1024 that VIPs may have."""

    network: IPv4Network
    literal: tuple[IPv4Network, ...] = ()
    low_ports: frozenset[int] = frozenset()
    forbidden: Forbidden = field(default_factory=Forbidden)

    def why_not(self, vip: Vip) -> str:
        """Empty when a service may have it."""
        if vip.literal and not any(IPv4Address(vip.host) in network for network in self.literal):
            return f"VIP {vip}: {vip.host} is in no network of ip_vips"
        if vip.port < FIRST_ORDINARY_PORT and vip.port not in self.low_ports:
            return f"VIP {vip}: port {vip.port} is none of vip_low_ports"
        if why := self.forbidden.reserved_why(vip.port):
            return f"VIP {vip}: {why}"
        return ""


Book = Mapping[str, tuple[Mapping[str, Member], frozenset[str]]]
"""Service -> the members it was read from, and the names of their VIPs."""


def book(before: Book, members: Mapping[str, Mapping[str, Member]]) -> Book:
    """Unchanged services are not read again."""
    return {
        service: kept
        if (kept := before.get(service)) is not None and kept[0] is there
        else (there, shared.names_of(there.values()))
        for service, there in members.items()
    }


def addresses(known: Book, network: IPv4Network) -> Mapping[str, str]:
    """Name -> address, as name servers give them."""
    return _addresses(frozenset[str]().union(*(names for _, names in known.values())), network)


_addresses = lru_cache(maxsize=4)(shared.addresses)


def place(vip: Vip, found: Mapping[str, str]) -> str:
    """`127.230.155.221:80`; "" for a name that got no address."""
    host = vip.host if vip.literal else found.get(vip.host, "")
    return host and f"{host}:{vip.port}"


def split(where: str) -> tuple[str, int]:
    """The inverse: address and port."""
    host, _, port = where.rpartition(":")
    return host, int(port)


def of_members(members: Mapping[str, Member], index: int) -> tuple[Vip, ...]:
    """What one port of a service asks for, in order."""
    return tuple(sorted({vip for port, owner in _ports(members, index) for vip in shared.of_port(port, owner)}))


def problems(members: Mapping[str, Member], index: int) -> tuple[str, ...]:
    return tuple(sorted({text for port, owner in _ports(members, index) for text in shared.problems(port, owner)}))


def _ports(members: Mapping[str, Member], index: int) -> Iterator[tuple[Port, str]]:
    for member in members.values():
        for port in member.ports:
            if port.index == index and port.labels:
                yield port, member.task.framework


def route_from_vips(service: str, members: Mapping[str, Member]) -> tuple[Route, tuple[str, ...]] | None:
    """As `route_from_labels`; a foreign task that has nothing but VIPs is routed for their sake."""
    found = route_from_labels(service, members)
    if found is not None or not members:
        return found
    speaker = members[min(members)]
    ports: Sequence[Port] = [port for port in speaker.ports if shared.asked(port.labels)]
    if speaker.task.app or not ports:
        return None
    return Route(service=service, ports=labels.plain_ports(ports), source="vips"), ()

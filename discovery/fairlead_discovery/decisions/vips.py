"""Virtual addresses of services, from DC/OS' labels of ports: what DNS answers and what node balancers listen on.

VIP_0=/web:80   VIP_1=web:8080      `web.<framework>.l4lb.thisdcos.directory`, at an address made of that name
VIP_0=10.99.0.1:80                  that very address

Both sides work the addresses out from the names alone, so that they agree on every machine.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from fairlead_discovery.decisions import dns_labels
from fairlead_discovery.records import Member, Port

DOMAIN = "l4lb.thisdcos.directory"
RANGE = "127.128.0.0/9"
"""Every machine's own, without any set-up; of 1,000 names none share a first choice in 15 of 16 clusters."""
LONGEST_PREFIX = 28
MOST_TRIES = 1000
_LABEL = re.compile(r"VIP_\d{1,4}", re.ASCII)
_VALUE = re.compile(r"(?P<host>[^:]{1,255}):(?P<port>\d{1,5})", re.ASCII)


class BadVip(ValueError):  # noqa: N818  # named as the five errors are
    """Of a label or a range; the reason alone."""


@dataclass(frozen=True, slots=True, order=True)
class Vip:
    """`host`: `web.marathon`, which is a name below DOMAIN; or the IPv4 address that the label gives (`literal`)."""

    host: str
    port: int
    literal: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@lru_cache(maxsize=16384)
def read(text: str, framework: str) -> Vip:
    """Of a label's value. Slashes go, as in DC/OS: `/shop/web:80` is `shopweb`. Raises BadVip."""
    match = _VALUE.fullmatch(text)
    number = int(match["port"]) if match else 0
    if match is None or not 0 < number <= 65_535:
        raise BadVip(f"{text[:60]!a} is no VIP, as in /name:80 or 10.0.0.1:80")
    literal = _address(match["host"])
    if literal is not None:
        return Vip(str(literal), number, literal=True)
    name = dns_labels.rfc1123(match["host"].replace("/", ""))
    owner = dns_labels.domain_fragment(framework, dns_labels.rfc1123)
    if not name or not owner:
        raise BadVip(f"{match['host'][:60]!a} is no name")
    return Vip(f"{name}.{owner}", number)


def of_port(port: Port, framework: str) -> tuple[Vip, ...]:
    """What its labels ask for; what cannot be read is left out (`problems` tells of it), and so are UDP ports."""
    return tuple(vip for _, vip in _read_all(port, framework) if isinstance(vip, Vip))


def problems(port: Port, framework: str) -> tuple[str, ...]:
    """`VIP_0: '…' is no VIP, as in /name:80 or 10.0.0.1:80`"""
    return tuple(f"{label}: {found}" for label, found in _read_all(port, framework) if not isinstance(found, Vip))


def asked(labels: Iterable[str]) -> bool:
    """Whether any name is that of such a label."""
    return any(map(_LABEL.fullmatch, labels))


def _read_all(port: Port, framework: str) -> Iterator[tuple[str, Vip | str]]:
    for label in sorted(filter(_LABEL.fullmatch, port.labels)):
        if port.protocols == ("udp",):
            yield label, "UDP has no VIP here"
            continue
        try:
            yield label, read(port.labels[label], framework)
        except BadVip as error:
            yield label, str(error)


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def names_of(members: Iterable[Member]) -> frozenset[str]:
    """Named hosts of a service: `web.marathon`."""
    labelled = ((port, member) for member in members for port in member.ports if port.labels)
    return frozenset(
        vip.host for port, member in labelled for vip in of_port(port, member.task.framework) if not vip.literal
    )


@dataclass(slots=True)
class VipNames:
    """The named VIPs of all services. Owned by one task; a change costs the services that changed."""

    by_service: dict[str, frozenset[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def take(self, services: Iterable[str], members: Mapping[str, Mapping[str, Member]]) -> bool:
        """Whether there may be others now."""
        changed: set[str] = set()
        for service in services:
            now = names_of(members.get(service, {}).values())
            was = self.by_service.pop(service, frozenset())
            if now:
                self.by_service[service] = now
            for name, step in (*((n, 1) for n in now - was), *((n, -1) for n in was - now)):
                self.counts[name] += step
                changed.add(name)
        for name in changed:
            if not self.counts[name]:
                del self.counts[name]
        return bool(changed)


def parse_range(text: str) -> IPv4Network:
    """Raises BadVip."""
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise BadVip(str(error)) from error
    if network.prefixlen > LONGEST_PREFIX:
        raise BadVip(f"{network} is too small, at least a /{LONGEST_PREFIX} is needed")
    return network


def addresses(names: Collection[str], network: IPv4Network) -> Mapping[str, str]:
    """Name -> address, no two the same. Made of the name's digest; where two names choose the same one, the first by
    alphabet has it and the other makes a second choice. Names that find none, in a range too small, are left out.
    """
    room = network.num_addresses - 2
    first = int(network.network_address) + 1
    held: dict[int, str] = {}
    for name in sorted(names):
        choices = (_choice(name, number) % room for number in range(MOST_TRIES))
        free = next((choice for choice in choices if choice not in held), None)
        if free is not None:
            held[free] = name
    return {name: str(IPv4Address(first + offset)) for offset, name in held.items()}


def _choice(name: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{name}#{number}".encode()).digest()[:8], "big")

"""All name rules in one place: what a task, a framework, an agent and the masters are called, as Mesos-DNS called them.

T task label, H task hash, S agent tail, F framework labels, C = T-H-S (one instance):

T.F.domain  C.F.domain                         A/AAAA of the first populated address source
T.F.slave.domain  C.F.slave.domain             A/AAAA of the agent
_T._tcp|_udp.F.domain  and  …F.slave.domain    SRV, without DiscoveryInfo   -> C.F.slave.domain:host port
_T._tcp|_udp.F.slave.domain                    SRV, with DiscoveryInfo      -> C.F.slave.domain:host port
[_port.]_T._proto.F.domain                     SRV, with DiscoveryInfo      -> C.F.domain:number
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.records import Agent, Discovery, Framework, MasterInfo, Member, Port, Portless, TaskRef
from fairlead_dns.decisions import wire

TTL_LABEL = "FAIRLEAD_DNS_TTL"
"""On an app or in a DiscoveryInfo: the TTL of the service's names in seconds; what is no number is as none."""
BOTH = ("tcp", "udp")
HIGHEST_PORT = 65535


ZONE_TTL = -1


class Record(NamedTuple):
    """One record: owner in wire form, type, data in wire form (targets uncompressed), and a TTL of its own if it has
    one: a set's TTL is then the least of its records' (RFC 2181 wants one for all).
    """

    owner: bytes
    kind: int
    rdata: bytes
    ttl_s: int = ZONE_TTL


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How names are made. `domain` is text (`mesos`); `ip_sources` in order, the first that has an address wins."""

    domain: str = "mesos"
    ip_sources: tuple[str, ...] = ("netinfo", "mesos", "host")
    srv_weight: int = 1
    rfc952: bool = False
    reverse_zones: tuple[str, ...] = ()
    longest_ttl_s: int = 25
    """The most that a service may ask for by TTL_LABEL: more is taken as this."""

    @property
    def spec(self) -> labels.Spec:
        return labels.rfc952 if self.rfc952 else labels.rfc1123


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instance:
    """One running task, whichever record it came in. Addresses are (type, bytes)."""

    task: TaskRef
    discovery: Discovery
    ports: tuple[Port, ...]
    own: tuple[tuple[int, bytes], ...]
    agents: tuple[tuple[int, bytes], ...]


def of_task(task: Member | Portless, rules: Rules) -> tuple[Record, ...]:
    """Every record of one task, each once. Names that no resolver could ask for are left out."""
    instance = _instance(task, rules)
    framework = labels.domain_fragment(instance.task.framework, rules.spec)
    if not framework:
        return ()
    found: dict[Record, None] = {}
    for name in labels.spoken_names(instance.task.name, instance.discovery.name, rules.spec):
        found.update(dict.fromkeys(_of_name(instance, name, framework, rules)))
    return timed(found, instance.discovery, rules)


def timed(records: Iterable[Record], discovery: Discovery, rules: Rules) -> tuple[Record, ...]:
    """With the TTL that the service asks for, if it does."""
    wish = discovery.labels.get(TTL_LABEL, "")
    if not (wish.isascii() and wish.isdigit()):
        return tuple(records)
    ttl_s = min(int(wish[:9]), rules.longest_ttl_s)
    return tuple(record._replace(ttl_s=ttl_s) for record in records)


def of_framework(framework: Framework, addresses: Iterable[str], rules: Rules) -> tuple[Record, ...]:
    """`F.domain` A, and `_framework._tcp.F.domain` SRV when its port is known."""
    fragment = labels.domain_fragment(framework.name, rules.spec)
    parsed = _parsed(addresses)
    if not fragment or not parsed:
        return ()
    owner = (*fragment.split("."), rules.domain)
    srv = [(("_framework", "_tcp", *owner), owner, framework.port)] if _is_port(framework.port) else []
    return tuple(_records({owner: parsed}, srv, rules))


def of_agent(agent: Agent, addresses: Iterable[str], rules: Rules) -> tuple[Record, ...]:
    """`slave.domain` A of every agent, `_slave._tcp.domain` SRV, and its PTR."""
    parsed = _parsed(addresses)
    owner = ("slave", rules.domain)
    srv = [(("_slave", "_tcp", rules.domain), owner, agent.port)] if _is_port(agent.port) and parsed else []
    return (*_records({owner: parsed}, srv, rules), *_pointers(parsed, owner, rules))


def of_masters(masters: Sequence[MasterInfo], leader: MasterInfo | None, rules: Rules) -> tuple[Record, ...]:
    """`leader`, `master`, `masterN` in the order given; a leader outside the list takes the next index."""
    known = list(masters)
    if leader is not None and leader.id not in {m.id for m in known}:
        known.append(leader)
    hosts: dict[tuple[str, ...], tuple[tuple[int, bytes], ...]] = {}
    everyone: tuple[tuple[int, bytes], ...] = ()
    for index, master in enumerate(known):
        hosts[f"master{index}", rules.domain] = _parsed([master.address.ip])
        everyone += _parsed([master.address.ip])
    hosts["master", rules.domain] = everyone
    srv = []
    if leader is not None:
        owner = ("leader", rules.domain)
        hosts[owner] = _parsed([leader.address.ip])
        srv = [(("_leader", f"_{p}", rules.domain), owner, leader.address.port) for p in BOTH]
    return tuple(dict.fromkeys(_records(hosts, srv, rules)))


def of_server(mname: str, addresses: Iterable[str]) -> tuple[Record, ...]:
    """The name server's own name, which SOA and NS give."""
    owner = wire.parse_text(mname)
    return () if owner is None else tuple(Record(owner, kind, data) for kind, data in _parsed(addresses))


def slave_labels(labels_: Sequence[str], domain: str) -> tuple[str, ...]:
    return (*labels_, "slave", domain)


def _instance(task: Member | Portless, rules: Rules) -> _Instance:
    host = task.ips.host
    if not host and isinstance(task, Member):
        host = (task.serviceEndpoint.host,)
    agents = _parsed(host)
    sources: Mapping[str, tuple[str, ...]] = {
        "host": host,
        "mesos": task.ips.mesos,
        "netinfo": task.ips.netinfo,
        "docker": task.ips.docker,
    }
    own = next(filter(None, (_parsed(sources[s]) for s in rules.ip_sources)), ())
    ports = task.ports if isinstance(task, Member) else ()
    return _Instance(task=task.task, discovery=task.discovery, ports=ports, own=own, agents=agents)


def _parsed(addresses: Iterable[str]) -> tuple[tuple[int, bytes], ...]:
    """Literal addresses only, each once, in order."""
    return tuple(dict.fromkeys(a for a in map(wire.address, addresses) if a is not None))


def _of_name(instance: _Instance, name: tuple[str, ...], framework: str, rules: Rules) -> Iterator[Record]:
    """All records for one spelling. A raw name's last label takes the suffix: `server.dev-<H>-<S>.F.domain`."""
    fragment = framework.split(".")
    tail = f"{labels.task_hash(instance.task.id)}-{labels.agent_tail(instance.task.agent)}"
    canonical = (*name[:-1], labels.fit(f"{name[-1]}-{tail}".lstrip("-")), *fragment)
    shared = (*name, *fragment)
    hosts = {
        (*canonical, rules.domain): instance.own,
        slave_labels(canonical, rules.domain): instance.agents,
    }
    if name[-1]:
        hosts[*shared, rules.domain] = instance.own
        hosts[slave_labels(shared, rules.domain)] = instance.agents
    yield from _records(hosts, _services(instance, name, fragment, canonical, rules), rules)
    foreign = tuple(a for a in instance.own if a not in instance.agents)
    yield from _pointers(foreign, (*canonical, rules.domain), rules)


_Srv = tuple[tuple[str, ...], tuple[str, ...], int]
"""Owner labels, target labels, port."""


def _services(
    instance: _Instance, name: tuple[str, ...], fragment: Sequence[str], canonical: tuple[str, ...], rules: Rules
) -> Iterator[_Srv]:
    if not name[-1]:
        return
    first = (labels.fit(f"_{name[0]}"), *name[1:])
    on_agent = slave_labels(canonical, rules.domain)
    for port in instance.ports:
        for protocol in BOTH:
            owner = (*first, f"_{protocol}", *fragment)
            if instance.agents and _is_port(port.host_port):
                yield slave_labels(owner, rules.domain), on_agent, port.host_port
                if not instance.discovery.name:
                    yield (*owner, rules.domain), on_agent, port.host_port
        if instance.discovery.name and instance.own and _is_port(port.number):
            yield from _discovered(port, first, (*fragment, rules.domain), (*canonical, rules.domain), rules)


def _discovered(
    port: Port, first: tuple[str, ...], tail: tuple[str, ...], target: tuple[str, ...], rules: Rules
) -> Iterator[_Srv]:
    named = labels.fit(f"_{rules.spec(port.name)}") if rules.spec(port.name) else ""
    for protocol in port.protocols or BOTH:
        spoken = rules.spec(protocol)
        for known in (spoken,) if spoken else BOTH:
            owner = (*first, labels.fit(f"_{known}"), *tail)
            yield owner, target, port.number
            if named:
                yield (named, *owner), target, port.number


def _records(
    hosts: Mapping[tuple[str, ...], Iterable[tuple[int, bytes]]], services: Iterable[_Srv], rules: Rules
) -> Iterator[Record]:
    for owner_labels, addresses in hosts.items():
        owner = _wire(owner_labels)
        if owner is not None:
            yield from (Record(owner, kind, data) for kind, data in addresses)
    for owner_labels, target_labels, port in services:
        owner, target = _wire(owner_labels), _wire(target_labels)
        if owner is not None and target is not None:
            yield Record(owner, wire.SRV, wire.srv_rdata(rules.srv_weight, port, target))


@lru_cache(maxsize=16384)
def _wire(parts: tuple[str, ...]) -> bytes | None:
    """The last part is the domain, which may be several labels. Kept, for instances of a service share most names."""
    return wire.name((*parts[:-1], *parts[-1].split(".")))


def _pointers(addresses: Iterable[tuple[int, bytes]], target_labels: tuple[str, ...], rules: Rules) -> Iterator[Record]:
    target = _wire(target_labels)
    zones = [z for z in map(wire.parse_text, rules.reverse_zones) if z is not None]
    for _, data in addresses if target is not None and zones else ():
        owner = wire.reverse(data)
        if any(owner.endswith(zone) for zone in zones):
            assert target is not None
            yield Record(owner, wire.PTR, target)


def _is_port(number: int) -> bool:
    return 0 < number <= HIGHEST_PORT

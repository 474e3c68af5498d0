"""All name rules in one place: what a task, a framework, an agent and the masters are called, as Mesos-DNS called them.

T task label, H task hash, S agent tail, F framework labels, C = T-H-S (one instance):

T.F.domain  C.F.domain                         A/AAAA of the first populated address source
T.F.slave.domain  C.F.slave.domain             A/AAAA of the agent
_T._tcp|_udp.F.domain  and  …F.slave.domain    SRV, without DiscoveryInfo   -> C.F.slave.domain:host port
_T._tcp|_udp.F.slave.domain                    SRV, with DiscoveryInfo      -> C.F.slave.domain:host port
[_port.]_T._proto.F.domain                     SRV, with DiscoveryInfo      -> C.F.domain:number
<host name>.slave.domain                       A/AAAA of one agent
4.3.2.1.in-addr.arpa                           PTR -> C.F.domain, or <host name>.slave.domain
T-<digest>.F.domain                            the same as T.F.domain, where two services have that in common
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.decisions import label_names
from fairlead_discovery.decisions.vips import RANGE
from fairlead_discovery.records import Agent, Discovery, Framework, MasterInfo, Member, Port, Portless, TaskRef
from fairlead_dns.decisions import wire

BOTH = ("tcp", "udp")
HIGHEST_PORT = 65535
IP4_BYTES = 4
LOOPBACK = 127


ZONE_TTL = -1
CUT = "cut-"
"""Begins the label that stands for what was too long."""


class Record(NamedTuple):
    """One record: owner in wire form, type, data in wire form (targets uncompressed), and a TTL of its own if it has
    one: a set's TTL is then the least of its records' (RFC 2181 wants one for all).
    """

    owner: bytes
    kind: int
    rdata: bytes
    ttl_s: int = ZONE_TTL


class Dialect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One more way to call the same endpoints."""

    kind: Literal["consul", "kubernetes", "dcos", "l4lb", "numbered_ports", "svcb", "dns_sd"]
    """`consul`, `kubernetes`, `dcos` (dcos-net) and `l4lb` (DC/OS' VIPs) have a domain of their own; the others stand in
    `domain`."""
    domain: str = ""
    """Its zone. Empty: `consul`, `cluster.local`, `dcos.thisdcos.directory`, `l4lb.thisdcos.directory`."""
    datacenter: str = "dc1"
    """Consul: the name of ours, which may stand before the domain; and what prepared queries take for near."""
    queries: tuple[str, ...] = ()
    """Consul: files of prepared queries, or folders of such files (`*.json`)."""
    nearest: tuple[str, ...] = ()
    """Consul: the other data centres, which are members' regions or zones, nearest first, for NearestN."""
    vip_range: str = RANGE
    """l4lb: where VIPs get their addresses; the same as that of node balancers (`fairlead lb --node`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How names are made. `domain` is text (`mesos`); `ip_sources` in order, the first that has an address wins."""

    domain: str = "mesos"
    ip_sources: tuple[str, ...] = ("netinfo", "mesos", "host")
    srv_weight: int = 1
    rfc952: bool = False
    reverse_zones: tuple[str, ...] = ()
    pointers: bool = True
    """PTR of every address that a task or an agent has, also outside `reverse_zones`."""
    dialects: tuple[Dialect, ...] = ()
    aliases: frozenset[str] = frozenset()
    """Labels right below the domain that are taken: no framework is called so."""
    longest_ttl_s: int = 25
    """The most that a service may ask for by label_names.DNS_TTL: more is taken as this."""

    @property
    def spec(self) -> labels.Spec:
        return labels.rfc952 if self.rfc952 else labels.rfc1123


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One running task, whichever record it came in. Addresses are (type, bytes): its own, and its agent's.

    `rival`: not "" when another service has the same names; this one's digest, which tells it apart.
    """

    task: TaskRef
    discovery: Discovery
    ports: tuple[Port, ...]
    own: tuple[tuple[int, bytes], ...]
    agents: tuple[tuple[int, bytes], ...]
    rival: str = ""

    @property
    def framework(self) -> str:
        return self.task.framework


def of_task(task: Member | Portless, rules: Rules, rival: str = "") -> tuple[Record, ...]:
    """Every record of one task, each once. Names that no resolver could ask for are left out."""
    return timed(of_instance(instance(task, rules, rival), rules), task.discovery, rules)


def of_instance(one: Instance, rules: Rules) -> Iterable[Record]:
    framework = framework_labels(one.framework, rules.spec)
    found: dict[Record, None] = {}
    if framework:
        for name in _spoken(one, rules):
            found.update(dict.fromkeys(_of_name(one, name, framework, rules)))
        foreign = tuple(a for a in one.own if a not in one.agents)
        if foreign:
            target = (instance_label(one, rules), *framework.split("."), rules.domain)
            found.update(dict.fromkeys(_pointers(foreign, target, rules)))
    return found


def _spoken(one: Instance, rules: Rules) -> Iterator[tuple[str, ...]]:
    yield from labels.spoken_names(one.task.name, one.discovery.name, rules.spec)
    if one.rival:
        yield (apart(rules.spec(one.discovery.name or one.task.name), one.rival),)


def apart(label: str, rival: str) -> str:
    """`web` -> `web-1a2b3c4d`, cut if need be before the digest."""
    return f"{label[: labels.LABEL_LIMIT - 1 - len(rival)].rstrip('-')}-{rival}".lstrip("-") if rival else label


def instance_label(one: Instance, rules: Rules) -> str:
    """C of the mangled name: `web-a1b2c-s0`."""
    return _instance_of(rules.spec(one.discovery.name or one.task.name), one)


def _instance_of(label: str, one: Instance) -> str:
    parts = (label, labels.task_hash(one.task.id), labels.agent_tail(one.task.agent))
    return labels.fit("-".join(filter(None, parts)))


def timed(records: Iterable[Record], discovery: Discovery, rules: Rules) -> tuple[Record, ...]:
    """With the TTL that the service asks for, if it does."""
    wish = discovery.labels.get(label_names.DNS_TTL, "")
    if not (wish.isascii() and wish.isdigit()):
        return tuple(records)
    ttl_s = min(int(wish[:9]), rules.longest_ttl_s)
    return tuple(record._replace(ttl_s=ttl_s) for record in records)


def of_framework(
    framework: Framework, addresses: Iterable[str], rules: Rules, *, rival: bool = False
) -> tuple[Record, ...]:
    """`F.domain` A, and `_framework._tcp.F.domain` SRV when its port is known. `rival`: another name gives the same F;
    both have it, and each one with a digest beside it.
    """
    fragment = framework_labels(framework.name, rules.spec)
    if fragment in rules.aliases:
        fragment = told_apart(fragment, framework.name)
    found = parsed(addresses)
    if not fragment or not found:
        return ()
    spoken = (fragment, told_apart(fragment, framework.name)) if rival else (fragment,)
    owners = [(*each.split("."), rules.domain) for each in dict.fromkeys(spoken)]
    srv = [(("_framework", "_tcp", *o), o, framework.port) for o in owners] if is_port(framework.port) else []
    return tuple(records(dict.fromkeys(owners, found), srv, rules))


RESERVED = re.compile(r"leader|master\d*|ns\d+|(.*\.)?slave")
"""Names below the domain that are ours: a framework that is called so does not get them."""


@lru_cache(maxsize=4096)
def framework_labels(name: str, spec: labels.Spec) -> str:
    """F: `pod_1.Marathon` -> `pod-1.marathon`; one called like the masters or the agents gets a digest: `leader-1a2b3c4d`."""
    fragment = labels.domain_fragment(name, spec)
    if not RESERVED.fullmatch(fragment):
        return fragment
    return told_apart(fragment, name)


def told_apart(fragment: str, name: str) -> str:
    """`x.leader` -> `x.leader-1a2b3c4d`, by a digest of the whole name."""
    before, dot, last = fragment.rpartition(".")
    return before + dot + apart(last, _digest(name))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[: labels.SUFFIX_LENGTH]


def of_agent(agent: Agent, addresses: Iterable[str], rules: Rules, *, rival: bool = False) -> tuple[Record, ...]:
    """`slave.domain` A of every agent, `_slave._tcp.domain` SRV, one name of its own, and its PTR. `rival`: another host
    name gives the same label; both have it, and each one with a digest, to which the PTR leads.
    """
    found = parsed(addresses)
    owner, label = ("slave", rules.domain), agent_label(agent)
    alone = (told_apart(label, agent_name(agent)) if rival else label, "slave", rules.domain)
    hosts = {owner: found, (label, "slave", rules.domain): found, alone: found}
    srv = [(("_slave", "_tcp", rules.domain), owner, agent.port)] if is_port(agent.port) and found else []
    return (*records(hosts, srv, rules), *_pointers(found, alone, rules))


def agent_name(agent: Agent) -> str:
    """What its label is made of: its host name; its id's last field where it has none."""
    given = agent.hostname if wire.address(agent.hostname) is None else ""
    return given if labels.legal(given).strip("-") else f"agent-{labels.agent_tail(agent.id)}"


def agent_label(agent: Agent) -> str:
    """`box1.rack-2` -> `box1-rack-2`; `agent-s7` where there is no host name."""
    return labels.fit(labels.legal(agent_name(agent)).strip("-"))


def of_masters(masters: Sequence[MasterInfo], leader: MasterInfo | None, rules: Rules) -> tuple[Record, ...]:
    """`leader`, `master`, `masterN` in the order given; a leader outside the list takes the next index."""
    known = list({each.id: each for each in masters}.values())
    if leader is not None and leader.id not in {m.id for m in known}:
        known.append(leader)
    hosts: dict[tuple[str, ...], tuple[tuple[int, bytes], ...]] = {}
    everyone: tuple[tuple[int, bytes], ...] = ()
    for index, master in enumerate(known):
        hosts[f"master{index}", rules.domain] = parsed([master.address.ip])
        everyone += parsed([master.address.ip])
    hosts["master", rules.domain] = everyone
    srv = []
    if leader is not None:
        owner = ("leader", rules.domain)
        hosts[owner] = parsed([leader.address.ip])
        srv = [(("_leader", f"_{p}", rules.domain), owner, leader.address.port) for p in BOTH]
    return tuple(dict.fromkeys(records(hosts, srv, rules)))


def of_server(mname: str, addresses: Iterable[str]) -> tuple[Record, ...]:
    """The name server's own name, which SOA and NS give."""
    owner = wire.parse_text(mname)
    return () if owner is None else tuple(Record(owner, kind, data) for kind, data in parsed(addresses))


def slave_labels(labels_: Sequence[str], domain: str) -> tuple[str, ...]:
    return (*labels_, "slave", domain)


def instance(task: Member | Portless, rules: Rules, rival: str = "") -> Instance:
    host = task.ips.host
    if not host and isinstance(task, Member):
        host = (task.serviceEndpoint.host,)
    agents = parsed(host)
    sources: Mapping[str, tuple[str, ...]] = {
        "host": host,
        "mesos": task.ips.mesos,
        "netinfo": task.ips.netinfo,
        "docker": task.ips.docker,
    }
    own = next(filter(None, (parsed(sources[s]) for s in rules.ip_sources if sources[s])), ())
    ports = task.ports if isinstance(task, Member) else ()
    return Instance(task=task.task, discovery=task.discovery, ports=ports, own=own, agents=agents, rival=rival)


def parsed(addresses: Iterable[str]) -> tuple[tuple[int, bytes], ...]:
    """Literal addresses only, each once, in order."""
    return tuple(dict.fromkeys(a for a in map(wire.address, addresses) if a is not None))


def _of_name(one: Instance, name: tuple[str, ...], framework: str, rules: Rules) -> Iterator[Record]:
    """All records for one spelling. A raw name's last label takes the suffix: `server.dev-<H>-<S>.F.domain`."""
    fragment = framework.split(".")
    canonical = (*name[:-1], _instance_of(name[-1], one), *fragment)
    shared = (*name, *fragment)
    hosts = {
        (*canonical, rules.domain): one.own,
        slave_labels(canonical, rules.domain): one.agents,
    }
    if name[-1]:
        hosts[*shared, rules.domain] = one.own
        hosts[slave_labels(shared, rules.domain)] = one.agents
    yield from records(hosts, _services(one, name, fragment, canonical, rules), rules)


Srv = tuple[tuple[str, ...], tuple[str, ...], int]
"""Owner labels, target labels, port."""


def _services(
    one: Instance, name: tuple[str, ...], fragment: Sequence[str], canonical: tuple[str, ...], rules: Rules
) -> Iterator[Srv]:
    if not name[-1]:
        return
    first = (labels.fit(f"_{name[0]}"), *name[1:])
    on_agent = slave_labels(canonical, rules.domain)
    for port in one.ports:
        for protocol in BOTH:
            owner = (*first, f"_{protocol}", *fragment)
            if one.agents and is_port(port.host_port):
                yield slave_labels(owner, rules.domain), on_agent, port.host_port
                if not one.discovery.name:
                    yield (*owner, rules.domain), on_agent, port.host_port
        if one.discovery.name and one.own and is_port(port.number):
            yield from _discovered(port, first, (*fragment, rules.domain), (*canonical, rules.domain), rules)


def _discovered(
    port: Port, first: tuple[str, ...], tail: tuple[str, ...], target: tuple[str, ...], rules: Rules
) -> Iterator[Srv]:
    named = labels.fit(f"_{rules.spec(port.name)}") if rules.spec(port.name) else ""
    for protocol in port.protocols or BOTH:
        spoken = rules.spec(protocol)
        for known in (spoken,) if spoken else BOTH:
            owner = (*first, labels.fit(f"_{known}"), *tail)
            yield owner, target, port.number
            if named:
                yield (named, *owner), target, port.number


def records(
    hosts: Mapping[tuple[str, ...], Iterable[tuple[int, bytes]]], services: Iterable[Srv], rules: Rules
) -> Iterator[Record]:
    """Address records and SRV of what has a legal name. The last label of each name is a whole domain."""
    for owner_labels, addresses in hosts.items():
        owner = wired(owner_labels)
        if owner is not None:
            yield from (Record(owner, kind, data) for kind, data in addresses)
    for owner_labels, target_labels, port in services:
        owner, target = wired(owner_labels), wired(target_labels)
        if owner is not None and target is not None:
            yield Record(owner, wire.SRV, wire.srv_rdata(rules.srv_weight, port, target))


@lru_cache(maxsize=16384)
def wired(parts: tuple[str, ...]) -> bytes | None:
    """The last part is the domain, which may be several labels. Kept, for instances of a service share most names. A
    name over 255 bytes is cut, see shortened.
    """
    return wire.name((*parts[:-1], *parts[-1].split("."))) or wire.name(shortened(parts))


def shortened(parts: tuple[str, ...]) -> tuple[str, ...]:
    """`_http._web._tcp.<200 bytes of framework>.mesos` -> `_http._web._tcp.cut-1a2b3c4d.mesos`: as many labels from the
    left as there is room for, and a digest of the rest. Mesos-DNS published names that nobody could ask for.
    """
    domain = parts[-1].split(".")
    room = wire.NAME_LIMIT - 1 - sum(len(label.encode()) + 1 for label in domain) - len(CUT) - labels.SUFFIX_LENGTH - 1
    kept = 0
    while kept < len(parts) - 1 and room > len(parts[kept].encode()):
        room -= len(parts[kept].encode()) + 1
        kept += 1
    return (*parts[:kept], CUT + _digest(".".join(parts[kept:-1])), *domain)


def _pointers(addresses: Iterable[tuple[int, bytes]], target_labels: tuple[str, ...], rules: Rules) -> Iterator[Record]:
    """Nobody else's addresses: those of the machine itself (127.0.0.1) mean another one for whoever asks."""
    target = wired(target_labels)
    zones = [z for z in map(wire.parse_text, rules.reverse_zones) if z is not None]
    for _, data in addresses if target is not None else ():
        owner = wire.reverse(data)
        if (rules.pointers and not _is_local(data)) or any(owner.endswith(zone) for zone in zones):
            assert target is not None
            yield Record(owner, wire.PTR, target)


def _is_local(data: bytes) -> bool:
    return data[0] == LOOPBACK if len(data) == IP4_BYTES else data == bytes(15) + b"\1" or data[:2] == b"\xfe\x80"


def is_port(number: int) -> bool:
    return 0 < number <= HIGHEST_PORT

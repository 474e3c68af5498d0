"""Other systems' names for the same endpoints. A dialect is a pure function of one task (or agent) into records.

Consul       svc.service.domain  tag.svc.service.domain       A/AAAA, and SRV -> <hex ip>.addr.dc.domain
             _svc._tcp.service.domain  _svc._tag.service.domain   SRV, also without `service`
             node.node.domain                                 A/AAAA of an agent
             each also with the data centre: svc.service.dc1.domain
Kubernetes   svc.ns.svc.domain                                A/AAAA, and SRV of every named port
             _port._proto.svc.ns.svc.domain                   SRV -> 10-0-0-1.svc.ns.svc.domain
             10-0-0-1.ns.pod.domain                           A/AAAA
dcos-net     T.F.agentip.domain  T.F.containerip.domain  T.F.autoip.domain      A/AAAA
l4lb         V.F.domain                                       A of the VIP that the label VIP_n of a port names

A service is reached at its own address and port number when it has an address of its own, else at its agent's.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.decisions import label_names, vips
from fairlead_discovery.records import Port
from fairlead_dns.decisions import naming, wire
from fairlead_dns.decisions.naming import IP4_BYTES, Dialect, Instance, Record, Rules, apart, is_port, wired

DOMAINS = {"consul": "consul", "kubernetes": "cluster.local", "dcos": "dcos.thisdcos.directory", "l4lb": vips.DOMAIN}
NAMESPACE = "default"
KUBERNETES_VERSION = b"1.1.0"
CONSUL_PRIORITY = 1

Addresses = tuple[tuple[int, bytes], ...]


class Reached(NamedTuple):
    """Where a task is spoken to: addresses, and each port's number there."""

    addresses: Addresses
    own: bool

    def port(self, port: Port) -> int:
        return port.number if self.own else port.host_port


def reached(one: Instance) -> Reached:
    own = bool(one.own) and one.own != one.agents
    return Reached(one.own if own else one.agents, own)


def domain_of(dialect: Dialect) -> str:
    return dialect.domain.strip(".").lower() or DOMAINS.get(dialect.kind, "")


def consul(one: Instance, dialect: Dialect, rules: Rules) -> Iterator[Record]:
    """One port a service: the first, or the one of that name asked for as a tag."""
    at = reached(one)
    for service in consul_services(one, rules):
        for suffix in consul_suffixes("service", dialect):
            yield from _consul_ways(one, at, (service, *suffix), dialect, rules)


def _consul_ways(one: Instance, at: Reached, name: tuple[str, ...], dialect: Dialect, rules: Rules) -> Iterator[Record]:
    service, *tail = name
    first = one.ports[0] if one.ports else None
    underscored = labels.fit(f"_{service}")
    yield from addressed(name, at.addresses)
    for owner in (name, (underscored, "_tcp", *tail), (underscored, "_tcp", *tail[1:])):
        yield from consul_srv(owner, first, at, dialect)
    for tag, port in consul_tags(one, rules).items():
        yield from addressed((tag, *name), at.addresses)
        spoken = (underscored, labels.fit(f"_{tag}"))
        for owner in ((tag, *name), (*spoken, *tail), (*spoken, *tail[1:])):
            yield from consul_srv(owner, port or first, at, dialect)


def consul_srv(owner: tuple[str, ...], port: Port | None, at: Reached, dialect: Dialect) -> Iterator[Record]:
    """Targets are named by their address in hex, as Consul names addresses that are no node's."""
    for kind, data in at.addresses if port is not None else ():
        assert port is not None
        target = (data.hex(), "addr", dialect.datacenter, domain_of(dialect))
        yield from served(owner, target, (CONSUL_PRIORITY, 1, at.port(port)))
        yield from addressed(target, ((kind, data),))


def consul_services(one: Instance, rules: Rules) -> tuple[str, ...]:
    label = rules.spec(one.discovery.name or one.task.name)
    return tuple(dict.fromkeys(filter(None, (label, one.rival and apart(label, one.rival)))))


def consul_tags(one: Instance, rules: Rules) -> Mapping[str, Port | None]:
    """Tag -> the port it chooses: tags that were given choose none, a port's name chooses that port."""
    given = {rules.spec(tag): None for tag in one.discovery.labels.get(label_names.DNS_TAGS, "").split(",")}
    named = {rules.spec(port.name): port for port in one.ports}
    return {tag: port for tag, port in {**named, **given}.items() if tag not in ("", "tcp")}


def consul_node(label: str, addresses: Addresses, dialect: Dialect) -> Iterator[Record]:
    for suffix in consul_suffixes("node", dialect):
        yield from addressed((label, *suffix), addresses)


def consul_suffixes(keyword: str, dialect: Dialect) -> Iterator[tuple[str, ...]]:
    domain = domain_of(dialect)
    yield keyword, domain
    if dialect.datacenter:
        yield keyword, dialect.datacenter, domain


def kubernetes(one: Instance, dialect: Dialect, rules: Rules) -> Iterator[Record]:
    """A headless service of each: one address a task. Ports without a name have no SRV, as there."""
    at, domain = reached(one), domain_of(dialect)
    for service, namespace in kubernetes_services(one, rules):
        base = (service, namespace, "svc", domain)
        yield from addressed(base, at.addresses)
        for address in at.addresses:
            endpoint = (dashed(address[1]), *base)
            yield from addressed(endpoint, (address,))
            yield from addressed((dashed(address[1]), namespace, "pod", domain), (address,))
            for port in one.ports:
                yield from _kubernetes_port(port, at, base, endpoint, rules)


def _kubernetes_port(
    port: Port, at: Reached, base: tuple[str, ...], endpoint: tuple[str, ...], rules: Rules
) -> Iterator[Record]:
    name = rules.spec(port.name)
    if not name:
        return
    rdata = (0, rules.srv_weight, at.port(port))
    yield from served(base, endpoint, rdata)
    for protocol in filter(None, map(rules.spec, port.protocols or ("tcp", "udp"))):
        yield from served((labels.fit(f"_{name}"), labels.fit(f"_{protocol}"), *base), endpoint, rdata)


def kubernetes_services(one: Instance, rules: Rules) -> Iterator[tuple[str, str]]:
    """`/shop/eu/web` is service `web` in namespace `shop-eu`; `/web` is in `default`; a foreign framework's `worker`
    is in a namespace called as the framework.
    """
    folder, _, last = one.task.app.strip("/").rpartition("/")
    called = last if one.task.app else one.discovery.name or one.task.name
    of = (folder.replace("/", "-") or NAMESPACE) if one.task.app else one.framework
    service, namespace = rules.spec(called), rules.spec(one.discovery.labels.get(label_names.DNS_NAMESPACE, "") or of)
    if namespace and service:
        yield service, namespace
        if one.rival:
            yield apart(service, one.rival), namespace


def kubernetes_itself(dialect: Dialect) -> Iterator[Record]:
    """The version of its own specification, by which clients know such a server."""
    owner = wired(("dns-version", domain_of(dialect)))
    if owner is not None:
        yield Record(owner, TXT, bytes((len(KUBERNETES_VERSION),)) + KUBERNETES_VERSION)


def dcos(one: Instance, dialect: Dialect, rules: Rules) -> Iterator[Record]:
    """`autoip`: the agent's address where the task's ports are reached there, else the container's."""
    mapped = any(port.host_port and port.host_port != port.number for port in one.ports)
    container = one.own or one.agents
    auto = one.agents if mapped or not one.own else one.own
    fragment = naming.framework_labels(one.framework, rules.spec)
    for task in consul_services(one, rules) if fragment else ():
        for kind, addresses in (("agentip", one.agents), ("containerip", container), ("autoip", auto)):
            yield from addressed((task, *fragment.split("."), kind, domain_of(dialect)), addresses)


def l4lb(name: str, address: str, dialect: Dialect) -> tuple[Record, ...]:
    """Of one VIP: `web.marathon` at the address that node balancers listen on."""
    return tuple(addressed((*name.split("."), domain_of(dialect)), naming.parsed((address,))))


TXT = 16


def dashed(data: bytes) -> str:
    """`10-0-0-1`; all eight groups of an IPv6 address, for a label may not begin with a dash."""
    if len(data) == IP4_BYTES:
        return "-".join(map(str, data))
    return "-".join(data[at : at + 2].hex() for at in range(0, len(data), 2))


def addressed(owner_labels: tuple[str, ...], addresses: Iterable[tuple[int, bytes]]) -> Iterator[Record]:
    owner = wired(owner_labels)
    if owner is not None:
        yield from (Record(owner, kind, data) for kind, data in addresses)


def served(
    owner_labels: tuple[str, ...], target_labels: tuple[str, ...], numbers: tuple[int, int, int]
) -> Iterator[Record]:
    """SRV. `numbers`: priority, weight, port; none where that is no port."""
    owner, target = wired(owner_labels), wired(target_labels)
    priority, weight, port = numbers
    if owner is not None and target is not None and is_port(port):
        yield Record(owner, wire.SRV, priority.to_bytes(2, "big") + wire.srv_rdata(weight, port, target)[2:])

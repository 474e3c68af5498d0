"""Why a name has the records it has: who gives them, under which node, by which way of naming, and what was left out."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from itertools import islice

from fairlead_discovery.records import Member, Portless
from fairlead_dns.decisions import naming, wire
from fairlead_dns.decisions.mesosdns import shown
from fairlead_dns.decisions.naming import Record, Rules
from fairlead_dns.decisions.sources import Sources
from fairlead_dns.decisions.speaking import OF_TASK
from fairlead_dns.decisions.traits import health

GIVERS = 100
SCANNED = 2_000
KEPT_BY_CUT = 54  # of a label that is cut the beginning stays: dns_labels.fit
OCTETS, HEX4, GROUPS, HEX6 = 4, 8, 8, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Giver:
    """A task that gives some of the records. `node` is its node's name under the service's folder."""

    service: str
    node: str
    task: str
    agent: str
    dialect: str
    """`mesos`, or a dialect's kind."""
    records: tuple[str, ...]
    """As `A 10.0.0.1`."""
    withheld: str = ""
    """Not "": it would give them, but for this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """`givers` are at most GIVERS; `others` are frameworks, agents, masters, settings: who -> records."""

    name: str
    exists: bool
    empty: bool
    """It exists only because names below it have records."""
    givers: tuple[Giver, ...] = ()
    others: Mapping[str, tuple[str, ...]]
    shared_by: tuple[str, ...] = ()
    """Services that have a name in common with a giver's, and the givers themselves: [] where nobody has. Frameworks and
    agents likewise, by who they are in `others`."""
    apart: Mapping[str, str]
    """Of these, service -> the label that is its alone."""
    too_long: Mapping[str, tuple[str, ...]]
    """Service, or who of `others` -> names of it that were cut, or are not published as they are written."""


def why(sources: Sources, name: bytes) -> Why:
    """`name` in wire form, folded. Costs what the services cost that could be meant, not what the zone does."""
    givers = tuple(islice(_givers(sources, name), GIVERS))
    if not givers and sources.zone.sets(name):
        givers = tuple(islice(_among(sources, name, islice(_tasks(sources), SCANNED)), GIVERS))
    services = tuple(dict.fromkeys(giver.service for giver in givers))
    rivals = {holder for s in services for holder in _rivals(sources, s)}
    others = _others(sources, name)
    hosts = {
        who
        for each in sources.claims.hosts.values()
        for them in each.shared.values()
        if {*them} & {*others}
        for who in them
    }
    apart = {who: label for each in sources.claims.hosts.values() for who, label in each.apart.items() if who in hosts}
    return Why(
        name=wire.text(name),
        exists=sources.zone.exists(name),
        empty=sources.zone.exists(name) and not sources.zone.sets(name),
        givers=givers,
        others=others,
        shared_by=tuple(sorted(rivals | hosts)),
        apart={s: _apart(sources, s) for s in sorted(rivals)} | apart,
        too_long={who: names for who, names in sources.claims.shortened().items() if who in {*services, *others}},
    )


Named = tuple[str, str, Member | Portless]
"""Service, node, task."""


def _tasks(sources: Sources) -> Iterator[Named]:
    for services in (sources.members, sources.portless):
        for service, tasks in services.items():
            yield from ((service, node, task) for node, task in tasks.items())


def _givers(sources: Sources, name: bytes) -> Iterator[Giver]:
    labels = [label.decode("ascii", "replace") for label in wire.labels(name)]
    addresses = frozenset(_addresses(labels))
    text = " ".join((".".join(labels), *map(wire.text, sources.zone.sets(name).get(wire.PTR, ()))))
    for services in (sources.members, sources.portless):
        for service, tasks in services.items():
            meant = _may_mean(sources, service, text)
            named = ((service, node, task) for node, task in tasks.items() if meant or _has(task, addresses))
            if meant or addresses:
                yield from _among(sources, name, named)


def _may_mean(sources: Sources, service: str, text: str) -> bool:
    claimed = sources.claims.counts.get(service)
    return claimed is None or any(_stands_in(name.partition(".")[0][:KEPT_BY_CUT], text) for name in claimed)


def _stands_in(label: str, text: str) -> bool:
    """As a label, or as what one begins with before a `-`: else `a` would mean `payments`."""
    at = text.find(label)
    while at >= 0:
        end = at + len(label)
        if (at == 0 or text[at - 1] in "._ ") and (
            text[end : end + 1] in {"", ".", "-", " "} or len(label) == KEPT_BY_CUT
        ):
            return True
        at = text.find(label, at + 1)
    return False


def _has(task: Member | Portless, addresses: frozenset[str]) -> bool:
    ips = task.ips
    if isinstance(task, Member) and task.serviceEndpoint.host in addresses:
        return True
    return any(ip in addresses for some in (ips.host, ips.netinfo, ips.mesos, ips.docker) for ip in some)


def _addresses(labels: list[str]) -> Iterator[str]:
    """Those that a name speaks of: `10-0-0-1.…`, `0a000001.addr.…`. What a reverse name points to is in the zone."""
    first = labels[0] if labels else ""
    if re.fullmatch(r"\d+-\d+-\d+-\d+", first):
        yield first.replace("-", ".")
    elif re.fullmatch(r"([0-9a-f]{4}-){7}[0-9a-f]{4}|[0-9a-f]{8}|[0-9a-f]{32}", first):
        yield from _packed(first.replace("-", ""))


def _packed(text: str) -> Iterator[str]:
    if re.fullmatch(r"[0-9a-f]+", text):
        raw = bytes.fromhex(text)
        yield str(IPv6Address(raw) if len(text) == HEX6 else ip_address(raw))


def _among(sources: Sources, name: bytes, tasks: Iterator[Named]) -> Iterator[Giver]:
    for service, node, task in tasks:
        for dialect, records in _by_dialect(task, sources.rules, sources.rivals.get(service, "")):
            told = tuple(text_of(record) for record in records if record.owner == name)
            if told:
                status = task.status if isinstance(task, Member) else ""
                yield Giver(
                    service=service,
                    node=node,
                    task=task.task.id,
                    agent=task.task.agent,
                    dialect=dialect,
                    records=told,
                    withheld="" if health(task) > 0 else f"status {status}",
                )


def _by_dialect(task: Member | Portless, rules: Rules, rival: str) -> Iterator[tuple[str, tuple[Record, ...]]]:
    yield "mesos", naming.of_task(task, rules, rival)
    one = naming.instance(task, rules, rival)
    for dialect in rules.dialects:
        if dialect.kind in OF_TASK:  # others are of no single task
            yield dialect.kind, tuple(dict.fromkeys(OF_TASK[dialect.kind](one, dialect, rules)))


def _others(sources: Sources, name: bytes) -> dict[str, tuple[str, ...]]:
    found = {}
    for who, records in sources.others.items():
        told = tuple(text_of(record) for record in records if record.owner == name)
        if told:
            found[who.strip()] = told
    return found


def _rivals(sources: Sources, service: str) -> Iterator[str]:
    for name in sources.claims.counts.get(service, ()):
        if name in sources.claims.shared:
            yield from sources.claims.holders[name]


def _apart(sources: Sources, service: str) -> str:
    for services in (sources.members, sources.portless):
        for task in services.get(service, {}).values():
            label = sources.rules.spec(task.discovery.name or task.task.name)
            return naming.apart(label, sources.claims.rival(service))
    return ""


def text_of(record: Record) -> str:
    """`A 10.0.0.1`, `SRV web.mesos.:80`, `PTR web.mesos.`; other types by number and length."""
    if record.kind in (wire.A, wire.AAAA, wire.SRV):
        return f"{wire.TYPE_NAMES[record.kind]} {shown(record)}"
    if record.kind == wire.PTR:
        return f"PTR {wire.text(record.rdata)}."
    return f"TYPE{record.kind} \\# {len(record.rdata)} {record.rdata.hex()}"

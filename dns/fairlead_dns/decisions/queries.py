"""Consul's prepared queries: a name whose answer is a service's, chosen by tags, the next data centre's when ours has none.

{"Name": "web", "Service": {"Service": "web", "Tags": ["blue", "!old"], "Near": "_ip", "OnlyPassing": true,
 "Failover": {"NearestN": 2, "Datacenters": ["dc2"]}}, "DNS": {"TTL": "10s"}}

`web.query.consul` has A, AAAA and SRV. A data centre is a member's region or zone. Members are ours
but for those that stand in one of the others named. `Near` is how all answers are ordered: see `localities`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.records import Member, Portless
from fairlead_dns.decisions import dialects, naming
from fairlead_dns.decisions.naming import ZONE_TTL, Dialect, Instance, Record, Rules
from fairlead_dns.decisions.traits import health

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Target(msgspec.Struct, frozen=True, rename={"datacenter": "Datacenter", "peer": "PeerName"}):
    """One entry of Failover.Targets."""

    datacenter: str = ""
    peer: str = ""


class Failover(
    msgspec.Struct, frozen=True, rename={"nearest": "NearestN", "datacenters": "Datacenters", "targets": "Targets"}
):
    """Where to look when our own data centre has none."""

    nearest: int = 0
    datacenters: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


class Wanted(
    msgspec.Struct,
    frozen=True,
    rename={
        "service": "Service",
        "failover": "Failover",
        "passing": "OnlyPassing",
        "near": "Near",
        "tags": "Tags",
        "service_meta": "ServiceMeta",
        "node_meta": "NodeMeta",
        "connect": "Connect",
    },
):
    """The `Service` of a query."""

    service: str
    failover: Failover = Failover()
    passing: bool = False
    near: str = ""
    tags: tuple[str, ...] = ()
    service_meta: Mapping[str, str] = {}
    node_meta: Mapping[str, str] = {}
    connect: bool = False


class Answered(msgspec.Struct, frozen=True, rename={"ttl": "TTL"}):
    """The `DNS` of a query."""

    ttl: str = ""


class Query(
    msgspec.Struct,
    frozen=True,
    rename={"name": "Name", "service": "Service", "dns": "DNS", "template": "Template"},
):
    """One prepared query, as Consul's API takes it; what it does not say here is not asked for."""

    name: str
    service: Wanted
    dns: Answered = Answered()
    template: Mapping[str, Any] | None = None

    @property
    def ttl_s(self) -> int:
        found = DURATION.fullmatch(self.dns.ttl)
        return int(float(found[1]) * UNITS_S[found[2]]) if found else ZONE_TTL


LONGEST_TTL_S = 7 * 86_400
"""Longer is a typing error."""


class BadQueryError(ValueError):
    """A prepared query that cannot be served, with the reason."""


def read_query(text: bytes) -> tuple[Query, ...]:
    """One query or a list of them. Raises BadQueryError."""
    try:
        many = text.lstrip()[:1] == b"["
        read = msgspec.json.decode(text, type=tuple[Query, ...] if many else Query)
    except msgspec.DecodeError as error:
        raise BadQueryError(str(error)) from error
    queries = read if isinstance(read, tuple) else (read,)
    for query in queries:
        _check(query)
    return queries


def _check(query: Query) -> None:
    """What we would have to answer wrongly is refused."""
    where = query.name or "a query without Name"
    if query.template is not None or not query.name:
        raise BadQueryError(f"{where}: templates are not served, give each query a Name")
    if not labels.rfc1123(query.name) or len(labels.legal(query.name)) > labels.LABEL_LIMIT:
        raise BadQueryError(f"{where}: no DNS label can be made of it")
    if not query.service.service:
        raise BadQueryError(f"{where}: Service.Service is empty")
    if query.service.connect or query.service.node_meta:
        raise BadQueryError(f"{where}: Connect and NodeMeta are not served")
    if any(target.peer for target in query.service.failover.targets):
        raise BadQueryError(f"{where}: Failover.Targets: peers are not served")
    if query.ttl_s > LONGEST_TTL_S:
        raise BadQueryError(f"{where}: DNS.TTL: {query.dns.ttl} is longer than {LONGEST_TTL_S // 86_400} days")
    if query.dns.ttl and not DURATION.fullmatch(query.dns.ttl):
        raise BadQueryError(f"{where}: DNS.TTL: {query.dns.ttl!r} is no duration such as 10s")


def answer(query: Query, members: Iterable[Member], dialect: Dialect, rules: Rules) -> tuple[Record, ...]:
    """The records of `<name>.query.<domain>`, of what the query chooses of its service's members."""
    passing = 1.0 if query.service.passing else 0.0
    fit = [m for m in members if health(m) > 0 and health(m) >= passing and _has_tags(query, m, rules)]
    chosen = _chosen(query, fit, dialect)
    found: dict[Record, None] = {}
    for member in chosen:
        one = naming.instance(member, rules)
        found.update(dict.fromkeys(_named(query, one, dialect, rules)))
    ttl_s = query.ttl_s if query.ttl_s == ZONE_TTL else min(query.ttl_s, rules.longest_ttl_s)
    return tuple(record._replace(ttl_s=ttl_s) for record in found)


def _named(query: Query, one: Instance, dialect: Dialect, rules: Rules) -> Iterator[Record]:
    label = labels.rfc1123(query.name)
    at = dialects.reached(one)
    tags = dialects.consul_tags(one, rules)
    port = next((tags[rules.spec(t)] for t in query.service.tags if tags.get(rules.spec(t))), None)
    for tail in dialects.consul_suffixes("query", dialect):
        yield from dialects.addressed((label, *tail), at.addresses)
        for owner in ((label, *tail), (labels.fit(f"_{label}"), "_tcp", *tail)):
            yield from dialects.consul_srv(owner, port or (one.ports[0] if one.ports else None), at, dialect)


def _has_tags(query: Query, member: Member, rules: Rules) -> bool:
    one = naming.instance(member, rules)
    tags = dialects.consul_tags(one, rules)
    meta = all(member.discovery.labels.get(k) == v for k, v in query.service.service_meta.items())
    return meta and all((rules.spec(t.removeprefix("!")) in tags) != t.startswith("!") for t in query.service.tags)


def _chosen(query: Query, members: Sequence[Member], dialect: Dialect) -> list[Member]:
    """Ours, or else those of the first data centre of the failover that has any."""
    failover = query.service.failover
    named = (*failover.datacenters, *(target.datacenter for target in failover.targets))
    elsewhere = {*named, *dialect.nearest} - {dialect.datacenter}
    ours = [m for m in members if not elsewhere & {m.zone, m.region}]
    order = dict.fromkeys((*dialect.nearest[: failover.nearest], *named))
    return ours or next(filter(None, ([m for m in members if dc in (m.zone, m.region)] for dc in order)), [])


@dataclass(slots=True)
class Queries:
    """The queries of all Consul dialects, by the service whose change concerns them."""

    rules: Rules
    known: dict[str, tuple[Query, Dialect]] = field(default_factory=dict)
    """`<name>.query.<domain>` -> what is asked for."""

    def put(self, queries: Iterable[tuple[Query, Dialect]]) -> None:
        self.known = {f"{q.name.lower()}.query.{dialects.domain_of(d)}": (q, d) for q, d in queries}

    def concerned(self, tasks: Iterable[Member | Portless]) -> set[str]:
        """Queries that a change of these tasks may answer differently."""
        labels_ = {label for task in tasks for label in self._labels(task)}
        return {key for key, (query, _) in self.known.items() if self.rules.spec(query.service.service) in labels_}

    def records(self, key: str, members: Iterable[Member]) -> tuple[Record, ...]:
        """`members`: at least those of the query's service."""
        query, dialect = self.known[key]
        wanted = self.rules.spec(query.service.service)
        return answer(query, (m for m in members if wanted in self._labels(m)), dialect, self.rules)

    def service(self, key: str) -> str:
        """As in Claims: `web.service`."""
        return f"{self.rules.spec(self.known[key][0].service.service)}.service"

    def _labels(self, task: Member | Portless) -> tuple[str, ...]:
        return dialects.consul_services(naming.instance(task, self.rules), self.rules)

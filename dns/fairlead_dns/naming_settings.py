"""What `fairlead dns` can be told about names: dialects, records beside those of tasks, where the tasks are read from."""

from dataclasses import replace
from pathlib import Path

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import DaemonSettings
from fairlead_discovery.decisions.vips import BadVip, parse_range
from fairlead_dns.adapters.regular import read_regular
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.dialects import DOMAINS, domain_of
from fairlead_dns.decisions.masterfile import BadZoneError, parse
from fairlead_dns.decisions.naming import RESERVED, Dialect, Record, Rules
from fairlead_dns.decisions.queries import BadQueryError, Query, read_query
from fairlead_dns.decisions.static import Entry

EXTRA_TTL_S = 3600
"""Most of an extra record: nobody is killed for it, but a mistake should not stay for days."""
CNAME = 5
NOT_EXTRA = {wire.SOA: "SOA", wire.NS: "NS", 39: "DNAME"}


class MesosSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Mesos master whose state gives the names, as in Mesos-DNS: for clusters that have no fairlead registry."""

    zk: str = ""
    """Where the leading master is found: `zk://h1:2181,h2:2181/mesos`; Mesos-DNS' zk."""
    masters: tuple[str, ...] = ()
    """Masters as `host:port`, asked in order while `zk` gives none; Mesos-DNS' masters."""
    refresh_s: float = 10.0
    """How often the state is read; Mesos-DNS' refreshSeconds, where it was 60."""
    events: bool = True
    """Read at once when the master's operator API tells of a change, at most as often as five readings take."""
    timeout_s: float = 60.0
    """How long one reading may take; Mesos-DNS' stateTimeoutSeconds."""
    https: bool = False
    """The master speaks TLS; Mesos-DNS' mesosHTTPSOn."""
    ca_file: str = ""
    """Authorities that its certificate is checked against. Empty: the system's; Mesos-DNS' caCertFile."""
    cert_file: str = ""
    """Our certificate for a master that asks for one; Mesos-DNS' certFile."""
    key_file: str = ""
    """Its key; Mesos-DNS' keyFile."""
    credentials_file: str = ""
    """JSON with `principal` and `secret`, or with Mesos-DNS' `mesosCredentials`, for a master that wants Basic."""
    settle_s: float = 75.0
    """More than half of the tasks gone at once is not believed for so long: agents have that long to register anew."""
    serials: str = ""
    """A registry's URL, in which all name servers of this master agree on the serial of each content, so that a secondary
    may have several of them as primaries. Empty: a server's serials are its own."""


class NamingSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mesos-DNS' names are always there; these come beside them."""

    mesos_dns_config: str = ""
    """Mesos-DNS' JSON file, read as it is; keys that are set here as well count as set here."""
    mesos: MesosSource | None = None
    """Names from a Mesos master instead of the registry, which is not opened then."""
    mesos_dns_api: bool = True
    """Whether Mesos-DNS' HTTP API is there, under /v1; Mesos-DNS' httpon."""
    dialects: tuple[Dialect, ...] = ()
    """The same endpoints by other systems' names: `consul`, `kubernetes`, `dcos`, `l4lb`, `numbered_ports`, `svcb`,
    `dns_sd`."""
    records: tuple[str, ...] = ()
    """Records of ours in `domain`, as lines of a zone file: `www 60 A 10.0.0.7`. No NS, SOA, DNAME: use a zone.
    A CNAME only right below `domain`, where no task has a name."""
    pointers: bool = True
    """PTR of every address of a task or an agent, also outside `reverse_zones`; no other address of its network."""
    service_ttl_max_s: int = 25
    """Most that a service gets by FAIRLEAD_DNS_TTL: while one has it, every kill waits so long."""
    soa_refresh_s: int = 60
    """How often secondaries look whether the zone is newer; Mesos-DNS' SOARefresh."""
    soa_retry_s: int = 600
    """How soon they look again when that failed; Mesos-DNS' SOARetry."""
    soa_expire_s: int = 86400
    """How long they answer without us; Mesos-DNS' SOAExpire."""


def with_naming(rules: Rules, settings: NamingSettings) -> Rules:
    """Raises BadSettings naming the key."""
    for at, dialect in enumerate(settings.dialects):
        _check_dialect(f"dialects[{at}]", dialect, settings.dialects[:at])
    if not 0 <= settings.service_ttl_max_s <= EXTRA_TTL_S:
        raise BadSettings(f"service_ttl_max_s: {settings.service_ttl_max_s} is not between 0 and {EXTRA_TTL_S}")
    if settings.mesos is not None:
        _check_mesos(settings.mesos)
    domain = rules.domain
    return replace(
        rules,
        aliases=aliases(extra_records(settings, domain)) if wire.parse_text(domain) else frozenset(),
        pointers=settings.pointers,
        dialects=settings.dialects,
        longest_ttl_s=settings.service_ttl_max_s,
    )


def _check_mesos(source: MesosSource) -> None:
    if not source.zk and not source.masters:
        raise BadSettings("mesos: neither zk nor masters say where a master is")
    for key, least, most in (("refresh_s", 0.05, 86400), ("timeout_s", 0.1, 3600), ("settle_s", 0, 3600)):
        if not least <= getattr(source, key) <= most:
            raise BadSettings(f"mesos.{key}: {getattr(source, key)} is not between {least} and {most}")


def _check_dialect(key: str, dialect: Dialect, before: tuple[Dialect, ...]) -> None:
    own = dialect.kind in DOMAINS
    if not own and dialect.domain:
        raise BadSettings(f"{key}.domain: {dialect.kind} stands in the main domain")
    if dialect.queries and dialect.kind != "consul":
        raise BadSettings(f"{key}.queries: only consul has prepared queries")
    if any((b.kind, domain_of(b)) == (dialect.kind, domain_of(dialect)) for b in before):
        raise BadSettings(f"{key}: {dialect.kind} is there twice")
    if own and not _is_name(domain_of(dialect)):
        raise BadSettings(f"{key}.domain: {dialect.domain!r} is no domain name")
    try:
        parse_range(dialect.vip_range)
    except BadVip as error:
        raise BadSettings(f"{key}.vip_range: {error}") from error
    if dialect.kind == "consul" and dialect.datacenter and not _is_name(dialect.datacenter):
        raise BadSettings(f"{key}.datacenter: {dialect.datacenter!r} is no label")


def _is_name(text: str) -> bool:
    return wire.parse_text(text) not in (None, b"\0")


def extra_records(settings: NamingSettings, domain: str) -> tuple[Record, ...]:
    """Raises BadSettings naming the line."""
    apex = wire.parse_text(domain)
    assert apex is not None
    text = "".join(f"{line}\n" for line in ("$TTL 60", *settings.records))
    try:
        entries = parse("records", apex, lambda _file: text)
    except BadZoneError as error:
        raise BadSettings(f"{_counted(str(error))}") from error
    for entry in entries:
        if entry.kind in NOT_EXTRA:
            raise BadSettings(f"{_counted(entry.place)}: a {NOT_EXTRA[entry.kind]} record needs a zone of its own")
        if b"*" in wire.labels(entry.owner):
            raise BadSettings(f"{_counted(entry.place)}: a wildcard needs a zone of its own")
        if entry.kind == CNAME:
            _check_alias(entry, entries, apex)
    return tuple(Record(e.owner, e.kind, e.rdata, min(e.ttl_s, EXTRA_TTL_S)) for e in entries)


def _check_alias(alias: Entry, entries: tuple[Entry, ...], apex: bytes) -> None:
    """Beside an alias nothing else may stand, and we do not know what tasks will be called."""
    label = wire.labels(alias.owner)[0].decode("ascii", "replace")
    if wire.parent(alias.owner) != apex or label.startswith("_") or RESERVED.fullmatch(label):
        raise BadSettings(f"{_counted(alias.place)}: a CNAME stands right below the domain only, and not for {label!r}")
    if sum(entry.owner == alias.owner for entry in entries) > 1:
        raise BadSettings(f"{_counted(alias.place)}: other records beside the CNAME of {label!r}")


def aliases(records: tuple[Record, ...]) -> frozenset[str]:
    """Names right below the domain that are aliases: a framework called so is called otherwise."""
    return frozenset(wire.labels(r.owner)[0].decode("ascii", "replace") for r in records if r.kind == CNAME)


def _counted(text: str) -> str:
    """`records:3: …` is the second record: ours is the first line."""
    place, sign, rest = text.removeprefix("records:").partition(":")
    return f"records[{int(place) - 2}]{sign}{rest}" if place.isdigit() else text


def read_queries(settings: NamingSettings) -> tuple[tuple[Query, Dialect], ...]:
    """Of all files that the dialects name. Raises BadSettings naming the file."""
    found: dict[tuple[str, str], tuple[Query, Dialect]] = {}
    for dialect in settings.dialects:
        for file in query_files(dialect):
            try:
                read = read_query(read_regular(file))
            except OSError as error:
                raise BadSettings(f"{file}: {error.strerror}") from error
            except BadQueryError as error:
                raise BadSettings(f"{file}: {error}") from error
            for query in read:
                key = (domain_of(dialect), query.name.lower())
                if key in found:
                    raise BadSettings(f"{file}: {query.name} is there twice")
                found[key] = query, dialect
    return tuple(found.values())


def query_files(dialect: Dialect) -> list[Path]:
    """The files named, and in the folders named all `*.json`, in the order of their names."""
    files: list[Path] = []
    for given in map(Path, dialect.queries):
        files += sorted(given.glob("*.json")) if given.is_dir() else [given]
    return files

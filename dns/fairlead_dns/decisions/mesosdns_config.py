"""Mesos-DNS' config.json as it is, into our settings: every key of its README, in any case of letters.

What a key has no meaning for here is said in words; a value of a wrong type is refused by its key.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import msgspec

from fairlead_daemon.errors import BadSettings

SOURCES = ("netinfo", "mesos", "host", "docker")
AUTHENTICATIONS = ("", "none", "basic", "iam")
NEGATIVE_TTL_MAX_S = 5
LONGEST_TTL_S = 3600
LONGEST_WAIT_S = 60
PORTS = range(65536)
HIGHEST_WEIGHT = 65535
ZOOKEEPER_PORT = 2181


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """`values` by our settings' keys; `mesos` by those of `[mesos]`; `notes` for a person."""

    values: Mapping[str, Any]
    mesos: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    """One file being read. `given`: its values by key in lower case."""

    place: str
    given: Mapping[str, object]
    values: dict[str, Any] = field(default_factory=dict)
    mesos: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, key: str, kind: type, default: Any) -> Any:
        """Raises BadSettings naming file and key. Go's `null` is as not given."""
        value = self.given.get(key.lower())
        if value is None:
            return default
        try:
            return msgspec.convert(value, kind, strict=True)
        except msgspec.ValidationError as error:
            raise BadSettings(f"{self.place}: {key}: {error}") from error

    def has(self, key: str) -> bool:
        return self.given.get(key.lower()) is not None

    def number(self, key: str, default: int, most: int) -> int:
        value: int = self.take(key, int, default)
        if not 0 <= value <= most:
            raise self.wrong(key, f"{value} is not between 0 and {most:,}")
        return value

    def wrong(self, key: str, why: str) -> BadSettings:
        return BadSettings(f"{self.place}: {key}: {why}")

    def note(self, text: str) -> None:
        self.notes.append(text)


def read(data: bytes, *, place: str) -> Mapped:
    """Defaults are Mesos-DNS' own where clients see the difference.

    Raises BadSettings naming `place` and key.
    """
    try:
        raw = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise BadSettings(f"{place}: {error}") from error
    _refuse_twice(place, raw)
    reading = _Reading(place, {key.lower(): value for key, value in raw.items()})
    for step in (_zone, _listeners, _forwarding, _naming, _source, _without_meaning):
        step(reading)
    for key in raw:
        if key.lower() not in KNOWN:
            reading.note(f"{key}: no key of Mesos-DNS, not used")
    return Mapped(values=reading.values, mesos=reading.mesos, notes=tuple(reading.notes))


def _refuse_twice(place: str, keys: Iterable[str], above: str = "") -> None:
    """Raises BadSettings when a key is there in two spellings. An equal one twice counts once, as everywhere in JSON."""
    before: dict[str, str] = {}
    for key in keys:
        other = before.setdefault(key.lower().strip("."), key)
        if other != key:
            raise BadSettings(f"{place}: {above}{key}: there as {other} too")


def _zone(reading: _Reading) -> None:
    values = reading.values
    domain = reading.take("domain", str, "mesos").strip(".").lower()
    values["domain"] = domain
    values["ttl_s"] = reading.number("ttl", 60, LONGEST_TTL_S)
    values["soa_mname"] = reading.take("SOAMname", str, f"ns1.{domain}").rstrip(".")
    values["soa_rname"] = reading.take("SOARname", str, f"root.ns1.{domain}").rstrip(".")
    for key, ours, default in (
        ("SOARefresh", "soa_refresh_s", 60),
        ("SOARetry", "soa_retry_s", 600),
        ("SOAExpire", "soa_expire_s", 86400),
    ):
        values[ours] = reading.number(key, default, 30 * 86400)
    if reading.has("SOAMinttl"):
        least_s = reading.number("SOAMinttl", 60, 2**31 - 1)
        if 1 <= least_s <= NEGATIVE_TTL_MAX_S:
            values["negative_ttl_s"] = least_s
        else:
            reading.note("SOAMinttl: Mesos-DNS never used it; `negative_ttl_s` (1 to 5) counts")


def _listeners(reading: _Reading) -> None:
    values = reading.values
    port = reading.number("port", 53, PORTS[-1])
    if reading.take("dnson", bool, True):
        ip = _address(reading)
        values["listen"] = (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}",)
    else:
        values["listen"] = ()
    values["port"] = reading.number("httpport", 8123, PORTS[-1])
    values["host"] = reading.take("HTTPListener", str, "0.0.0.0")  # see _address
    values["mesos_dns_api"] = reading.take("httpon", bool, True)
    values["enumeration"] = reading.take("EnumerationOn", bool, True)


def _address(reading: _Reading) -> str:
    """0.0.0.0 is Mesos-DNS' default."""
    text: str = reading.take("listener", str, "0.0.0.0")
    try:
        return str(ip_address(text))
    except ValueError:
        raise reading.wrong("listener", f"{text!r} is no address") from None


def _forwarding(reading: _Reading) -> None:
    values = reading.values
    resolvers = reading.take("resolvers", tuple[str, ...], ("8.8.8.8",))
    zones = reading.take("zoneResolvers", dict[str, tuple[str, ...]], {})
    if reading.take("externalon", bool, True):
        values["resolvers"] = resolvers
        _refuse_twice(reading.place, zones, "zoneResolvers.")
        values["zone_resolvers"] = {zone.strip("."): places for zone, places in zones.items()}
        if not reading.has("resolvers"):
            reading.note("resolvers: not given, so other names are asked of 8.8.8.8, as Mesos-DNS did")
    if reading.has("timeout"):
        values["patience_s"] = float(max(1, reading.number("timeout", 5, LONGEST_WAIT_S)))
    if not reading.take("recurseon", bool, True):
        reading.note("recurseon: the RA bit says what is true: set for clients whose questions are forwarded")


def _naming(reading: _Reading) -> None:
    values = reading.values
    sources = reading.take("IPSources", tuple[str, ...], ("netinfo", "mesos", "host"))
    for source in sources:
        if source not in SOURCES:
            raise reading.wrong("IPSources", f"{source!r} is none of {', '.join(SOURCES)}")
    if not sources:
        raise reading.wrong("IPSources", "empty, so that no task would have an address")
    values["ip_sources"] = sources
    values["enforce_rfc952"] = reading.take("enforceRFC952", bool, False)
    values["srv_weight"] = reading.number("srvRecordDefaultWeight", 1, HIGHEST_WEIGHT)


def _source(reading: _Reading) -> None:
    mesos = reading.mesos
    zk, masters = reading.take("zk", str, ""), reading.take("masters", tuple[str, ...], ())
    if zk and not re.fullmatch(r"zk://([^@/]+@)?[^/]+/.+", zk):
        raise reading.wrong("zk", f"{zk!r} is not as zk://host:port,host:port/mesos")
    for master in masters:
        if not re.fullmatch(r".+:\d+", master):
            raise reading.wrong("masters", f"{master!r} is not host:port")
    mesos.update(zk=_with_ports(zk), masters=masters)
    mesos["refresh_s"] = float(max(1, reading.number("refreshSeconds", 60, 86400)))
    mesos["timeout_s"] = float(max(1, reading.number("stateTimeoutSeconds", 300, 86400)))
    mesos["https"] = reading.take("mesosHTTPSOn", bool, False)
    for key, ours in (("caCertFile", "ca_file"), ("certFile", "cert_file"), ("keyFile", "key_file")):
        mesos[ours] = reading.take(key, str, "")
    if mesos["https"] and not mesos["ca_file"]:
        reading.note("caCertFile: not given, so a master must have a certificate of the system's authorities")
    _authentication(reading)
    if reading.has("zkDetectionTimeout") and reading.number("zkDetectionTimeout", 30, 86400):
        reading.note("zkDetectionTimeout: no exit without a leader; the last names are answered on, and marked stale")


def _with_ports(zk: str) -> str:
    """`zk://h1,h2:2182/mesos` -> `zk://h1:2181,h2:2182/mesos`, as Go's client took it."""
    head, sign, path = zk.removeprefix("zk://").partition("/")
    credentials, at, hosts = head.rpartition("@")
    placed = (host if re.search(r":\d+$", host) else f"{host}:{ZOOKEEPER_PORT}" for host in hosts.split(","))
    return f"zk://{credentials}{at}{','.join(placed)}{sign}{path}" if zk else ""


def _authentication(reading: _Reading) -> None:
    way = reading.take("mesosAuthentication", str, "").lower()
    if way not in AUTHENTICATIONS:
        raise reading.wrong("mesosAuthentication", f"{way!r} is neither basic nor iam")
    if way == "iam":
        raise reading.wrong("mesosAuthentication", "iam is not spoken here: use basic, or none")
    reading.take("iamConfigFile", str, "")
    credentials = reading.take("mesosCredentials", dict[str, str], {})
    if way == "basic" and not (credentials.get("principal") and credentials.get("secret")):
        raise reading.wrong("mesosCredentials", "basic needs principal and secret")
    reading.mesos["credentials_file"] = reading.place if way == "basic" else ""
    if way != "basic" and any(credentials.values()):
        reading.note("mesosCredentials: not used without mesosAuthentication: basic")


def _without_meaning(reading: _Reading) -> None:
    if not reading.take("SetTruncateBit", bool, True):
        reading.note("SetTruncateBit: a cut answer always says so, else clients would take it for whole")


KNOWN: Mapping[str, Callable[[_Reading], None]] = {
    key.lower(): step
    for step, keys in (
        (_zone, ("domain", "ttl", "SOAMname", "SOARname", "SOARefresh", "SOARetry", "SOAExpire", "SOAMinttl")),
        (_listeners, ("port", "listener", "dnson", "httpport", "HTTPListener", "httpon", "EnumerationOn")),
        (_forwarding, ("resolvers", "zoneResolvers", "externalon", "timeout", "recurseon")),
        (_naming, ("IPSources", "enforceRFC952", "srvRecordDefaultWeight")),
        (_source, ("zk", "masters", "refreshSeconds", "stateTimeoutSeconds", "zkDetectionTimeout", "mesosHTTPSOn")),
        (_source, ("caCertFile", "certFile", "keyFile")),
        (_authentication, ("mesosAuthentication", "mesosCredentials", "iamConfigFile")),
        (_without_meaning, ("SetTruncateBit",)),
    )
    for key in keys
}
"""Every key of Mesos-DNS, and who reads it."""

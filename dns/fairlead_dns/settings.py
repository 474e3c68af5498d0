"""What `fairlead dns` can be told."""

import os
import socket
from typing import Literal

from fairlead_daemon.errors import BadSettings
from fairlead_dns.answer_settings import NEGATIVE_TTL_S
from fairlead_dns.decisions import speaking, wire
from fairlead_dns.decisions.answer import Authority
from fairlead_dns.decisions.naming import Rules
from fairlead_dns.naming_settings import with_naming
from fairlead_dns.transfer_settings import TransferSettings

LONGEST_TTL_S = 3600  # every kill waits a TTL out: more is a typing error
LONGEST_SOA_S = 30 * 86400
HIGHEST_WEIGHT = 65535


class DnsSettings(TransferSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mesos-DNS' own key is named where there is one."""

    port: int = 8123
    """Port of the HTTP API, /metrics and /health; Mesos-DNS' httpport. 0 lets the kernel choose."""
    id: str = ""
    """Names this server in the registry and its file of last good names in data_dir. Empty: the host's name."""
    listen: tuple[str, ...] = ("127.0.0.1:8053",)
    """Addresses for UDP and TCP, `ip:port` or `[ip6]:port`. Several processes may share one."""
    listen_optional: tuple[str, ...] = ()
    """Further addresses, such as 127.0.53.53:53: one that cannot be had is a warning, no error."""
    workers: int | Literal["auto"] = 1
    """Processes that answer, `auto`: one a core. One of them more reads the registry and builds the names, once for all."""
    domain: str = "mesos"
    """The zone; Mesos-DNS' domain. Names outside it are refused, so that clients ask their next server."""
    ttl_s: int = 5
    """How long clients keep an answer, and how long a kill waits for them. Mesos-DNS used 60."""
    negative_ttl_s: int = 2
    """How long clients keep "no such name", 1 to 5: a new service is invisible that long to who asked too early."""
    soa_mname: str = ""
    """Name of this server in SOA and NS; Mesos-DNS' SOAMname. Empty: `ns1.<domain>`."""
    soa_rname: str = ""
    """Mailbox in SOA as a name; Mesos-DNS' SOARname. Empty: `root.ns1.<domain>`."""
    ip_sources: tuple[Literal["netinfo", "mesos", "host", "docker"], ...] = ("netinfo", "mesos", "host")
    """Where a task's own addresses come from: the first source that has one; Mesos-DNS' IPSources."""
    srv_weight: int = 1
    """Weight in SRV records; Mesos-DNS' srvRecordDefaultWeight."""
    enforce_rfc952: bool = False
    """Labels of at most 24 characters that begin with a letter; Mesos-DNS' enforceRFC952."""
    reverse_zones: tuple[str, ...] = ()
    """Reverse zones answered with PTR of agents and of tasks with addresses of their own, as `10.in-addr.arpa`."""
    enumeration: bool = True
    """Whether the HTTP API shows names that were not asked for: /v1/enumerate, /v1/axfr, lists, changes, names like a
    missing one, collisions; Mesos-DNS' EnumerationOn."""
    tcp_connections: int = 256
    """Most TCP connections at once; the longest idle one is closed for a new one."""
    tcp_per_client: int = 32
    """Most TCP connections of one address; its longest idle one is closed for a new one."""
    tcp_idle_s: float = 10.0
    """A TCP connection on which no query has been answered for so long is closed, whatever the reason."""
    waiting: int = 1000
    """Most questions at once that wait for upstreams; for one more the one that waits longest gets SERVFAIL."""
    patience_s: float = 5.0
    """A question that has waited so long for another server gets SERVFAIL."""


MOST_WORKERS = 64


def worker_count(settings: DnsSettings) -> int:
    """`auto`: as many cores as this process may use."""
    return len(os.sched_getaffinity(0)) if settings.workers == "auto" else settings.workers


def server_id(settings: DnsSettings) -> str:
    return settings.id or socket.gethostname()


def rules(settings: DnsSettings) -> Rules:
    """Raises BadSettings naming the key."""
    own = Rules(
        domain=settings.domain.strip(".").lower(),
        ip_sources=settings.ip_sources,
        srv_weight=settings.srv_weight,
        rfc952=settings.enforce_rfc952,
        reverse_zones=settings.reverse_zones,
    )
    return with_naming(own, settings)


def mname(settings: DnsSettings) -> str:
    return settings.soa_mname or f"ns1.{settings.domain.strip('.')}"


def authority(settings: DnsSettings) -> Authority:
    """Raises BadSettings naming the key."""
    _check_number("ttl_s", settings.ttl_s, 0, LONGEST_TTL_S)
    _check_number("negative_ttl_s", settings.negative_ttl_s, *NEGATIVE_TTL_S)
    _check_number("srv_weight", settings.srv_weight, 0, HIGHEST_WEIGHT)
    _check_number("tcp_connections", settings.tcp_connections, 1, 100_000)
    _check_number("tcp_per_client", settings.tcp_per_client, 1, 100_000)
    _check_number("tcp_idle_s", settings.tcp_idle_s, 0.1, 3600)
    _check_number("workers", worker_count(settings), 1, MOST_WORKERS)
    _check_number("waiting", settings.waiting, 1, 1_000_000)
    _check_number("patience_s", settings.patience_s, 0.1, 60)
    for key in ("soa_refresh_s", "soa_retry_s", "soa_expire_s"):
        _check_number(key, getattr(settings, key), 1, LONGEST_SOA_S)
    domain = settings.domain.strip(".")
    return Authority(
        apexes=tuple(
            dict.fromkeys(
                (
                    _name("domain", domain),
                    *(_name("reverse_zones", z) for z in settings.reverse_zones),
                    *(_name("dialects", z) for z in speaking.apexes(rules(settings))),
                )
            )
        ),
        mname=_name("soa_mname", mname(settings)),
        rname=_name("soa_rname", (settings.soa_rname or f"root.ns1.{domain}").replace("@", ".")),
        ttl_s=settings.ttl_s,
        negative_ttl_s=settings.negative_ttl_s,
        refresh_s=settings.soa_refresh_s,
        retry_s=settings.soa_retry_s,
        expire_s=settings.soa_expire_s,
    )


def _name(key: str, text: str) -> bytes:
    wired = wire.parse_text(text)
    if wired is None or wired == b"\0":
        raise BadSettings(f"{key}: {text!r} is no domain name")
    return wired


def _check_number(key: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BadSettings(f"{key}: {value} is not between {least:g} and {most:g}")

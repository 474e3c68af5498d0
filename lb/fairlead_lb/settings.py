"""The settings of `fairlead lb`."""

import grp
import hashlib
import os
import pwd
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any, Literal

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions import words
from fairlead_discovery.decisions.localities import NOWHERE, Place
from fairlead_discovery.decisions.ports import parse_ranges
from fairlead_discovery.decisions.vips import RANGE, BadVip, parse_range
from fairlead_lb.bamboo.settings import BambooSettings
from fairlead_lb.decisions import grammar
from fairlead_lb.decisions.flapping import FlapLimits
from fairlead_lb.decisions.forbidden import FIRST_ORDINARY_PORT, Forbidden
from fairlead_lb.decisions.nearness import Standing
from fairlead_lb.decisions.rails import Limits
from fairlead_lb.decisions.values import Frame
from fairlead_lb.decisions.vips import VipRules
from fairlead_lb.mesh_settings import with_mesh

_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9/._+@%:~-]+")


MOST_SPARES = 1000
LONGEST_OLD_WORKER_S = 2_000_000.0
"""HAProxy counts in milliseconds, of which it takes 24 days."""
NODE_CHECK_S = 30.0
"""Every machine checks every server: seldom, then, for one failed connection is enough to put it aside."""
CHECK_S = 2.0


class LbSettings(BambooSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `fairlead lb` can be told."""

    port: int = 9090
    """Port of the admin pages (`/status`, marathon-lb's `/_haproxy_…`); marathon-lb's default."""
    bind: str = ""
    """Address HAProxy listens on. Empty: the same as `host`. It takes an IP address, `0.0.0.0` for all."""
    http_port: int = 80
    """HAProxy's port for virtual hosts. Busy: the start is refused."""
    https_port: int = 443
    """The same over TLS; off without `certificate` and `certificate_key_file`, and with 0."""
    health_port: int = 0
    """Where HAProxy itself answers `GET /_haproxy_health_check`, whether fairlead lb runs or not: for VRRP, anycast and
    balancers in front. 0: nowhere."""
    certificate: str = ""
    """PEM file with certificate, chain and key, or a folder of such (`*.pem`, `default.pem` first). Replaced files are
    served within seconds, without a reload; a bad one leaves its last good one. Empty: no TLS."""
    certificate_key_file: str = ""
    """Opens certificates that `fairlead lb certificate put` has sealed in the registry (`fairlead lb certificate key` makes
    it, mode 0600): they are served beside those of `certificate`. Empty: the registry's are not looked at."""
    tls_passthrough: bool = False
    """Whether `https_port` serves routes of mode `tls` too: by the name a client asks for, passed on as it is. The rest
    ends its TLS here as ever, after a hop inside HAProxy; without `certificate` it is refused."""
    service_ports: str = "10100-10999"
    """Ports for services, held from the start: a new service needs no new bind. A file descriptor a port. Empty: none."""
    reserved_ports: str = ""
    """Ports HAProxy never binds for a service, as `5050-5060,31000-32000`: other daemons', tasks'. Its own always are."""
    allow_low_ports: bool = False
    """Whether services may have ports below 1024; root's HAProxy could take ssh's while that restarts."""
    haproxy: str = "haproxy"
    """HAProxy 2.6 or later: a path, or a name found on PATH and in /usr/sbin."""
    user: str = "auto"
    """Whom HAProxy's workers become when started by root. `auto`: `haproxy` of Debian's package, else `nobody`."""
    groups: str = "*"
    """Serves ports whose label HAPROXY_GROUP has one of these, as `external,internal`; `*` serves all, empty those without."""
    spare_backends: int = 8
    """Empty backends of each usual kind, so that a new service needs no reload of HAProxy. 0: each new one needs one."""
    max_connections: int = 4096
    """Connections HAProxy serves at once; lowered to what the limit of open files allows."""
    sticky_header: str = "X-User"
    """Which header tells a client from another where a split is sticky by header; whoever sets it chooses."""
    keepalive_s: float = 30.0
    """How long an idle client connection is kept; an old worker lives as long after a reload."""
    old_worker_s: float = 21_600.0
    """How long a session may last on after a reload: then HAProxy ends what its old worker still has. 0: for ever."""
    old_workers: int = 20
    """How many workers may finish sessions beside each other after reloads; one more, and the oldest is ended with what
    it still has. 0: any number."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies before this balancer that end TLS (`["10.0.0.0/24"]`): their `X-Forwarded-Proto: https` is
    believed, for `https_only` and by servers. This machine's own always is; anybody else's is taken away."""
    node: bool = False
    """One a machine (`--node`): services on localhost's service ports, and DC/OS' VIPs. Kills do not wait for it. Other
    defaults hold then: see NODE_DEFAULTS."""
    locality: Literal["off", "zone", "machine"] = "off"
    """Whether servers of the own zone, then region, come before others; `machine`: those of this machine before them."""
    locality_least: int = 1
    """Servers a tier must have to be nearer than the next one."""
    zone: str = ""
    """Where this balancer stands. Without `zone` and `region`: as this machine's agent says in the registry."""
    region: str = ""
    """See `zone`."""
    machine: tuple[str, ...] = ()
    """Addresses by which agents of this machine are known. Empty: those of its interfaces."""
    vip_range: str = RANGE
    """Node: where named VIPs get their addresses; the same for name servers. Beyond 127.0.0.0/8 it takes root, and makes
    the whole range this machine's own (`ip route add local`)."""
    vip_low_ports: tuple[int, ...] = (80, 443)
    """Node: ports below 1024 that VIPs may have. While a VIP has one, no other process of this machine can listen on it
    at all addresses."""
    ip_vips: tuple[str, ...] = ()
    """Node: networks of which VIP labels may name addresses (`10.99.0.0/24`), which takes root and makes them this
    machine's own. Empty: no label may."""
    hold_s: float = 300.0
    """How long endpoints that vanish without a leaving record are served on where their service would be empty or lose
    too many at once. `fairlead registry confirm` lets them go at once. 0: they are never held."""
    removed_percent: float = 50.0
    """Of a service's endpoints, or of all, that may vanish without a leaving record in one interval. 100: any number."""
    removal_interval_s: float = 10.0
    """The interval of `removed_percent`."""
    flaps: int = 5
    """An endpoint that left so often in disorder within `flap_window_s` is held down when it comes again: 10 s, twice as
    long each time, at most 300 s; never a service's last. 0: none is."""
    flap_window_s: float = 60.0
    """The window of `flaps`."""
    panic_percent: float = 50.0
    """When HAProxy's checks leave fewer of a service's servers up, all of them are served for 30 s; Envoy's default. 0:
    never."""
    rollout: Literal["one-first", "together"] = "one-first"
    """With several balancers: changes that need a reload come to one of them, and to the next when it has been well for 6 s.
    `together`: to all at once. Node balancers do not wait for one another."""
    id: str = ""
    """This balancer's name in the registry; kills wait for every registered one. Empty: `<host name>-<admin port>`."""


NODE_DEFAULTS: Mapping[str, object] = {
    "port": 9191,
    "http_port": 9081,
    "https_port": 0,
    "reserved_ports": "31000-32000",
    "locality": "machine",
    "panic_percent": 0.0,
}
"""What a node balancer has unless it is told otherwise: nothing that an edge balancer on the same machine has too, but
for the service ports, which that should listen on at another address. Tasks' own ports are no VIPs' ports. Agents check
the tasks: what a node balancer finds by itself is that it does not reach one.
"""


def node_defaults(given: Mapping[str, Any]) -> Mapping[str, Any]:
    return NODE_DEFAULTS if given.get("node") is True else {}


def frame(settings: LbSettings) -> Frame:
    """Raises BadSettings naming the key."""
    folder = lb_folder(settings)
    if not _WORD.fullmatch(str(folder)):
        raise BadSettings(f"data_dir: {folder}: HAProxy's configuration takes no blanks or quotes in a path")
    address = grammar.address(settings.bind or settings.host)
    if address is None:
        raise BadSettings(f"bind: {settings.bind or settings.host}: not an IP address")
    may_be_off = {"https_port": settings.https_port, "health_port": settings.health_port}
    for key, port in (("http_port", settings.http_port), *may_be_off.items()):
        if not (key in may_be_off and port == 0) and not 0 < port < 65_536:
            raise BadSettings(f"{key}: {port}: not a port")
    if settings.old_worker_s != 0 and not 1 <= settings.old_worker_s <= LONGEST_OLD_WORKER_S:
        raise BadSettings(f"old_worker_s: {settings.old_worker_s:g}: not 0, nor between 1 and {LONGEST_OLD_WORKER_S:g}")
    if settings.old_workers < 0:
        raise BadSettings(f"old_workers: {settings.old_workers}: below 0")
    account = worker_account(settings.user, root=os.geteuid() == 0)
    made = Frame(
        folder=str(folder),
        sockets=str(socket_folder(folder)),
        host=address,
        http_port=settings.http_port,
        https_port=settings.https_port if ends_tls(settings) or settings.tls_passthrough else 0,
        health_port=settings.health_port,
        passthrough=bool(settings.tls_passthrough and settings.https_port),
        max_connections=settings.max_connections,
        keepalive_s=settings.keepalive_s,
        old_worker_s=settings.old_worker_s,
        sticky_header=_header(settings.sticky_header),
        user=account[0],
        group=account[1],
        far_slots=settings.locality != "off",
        trusted=_networks("trusted_proxies", settings.trusted_proxies),
        passive_s=NODE_CHECK_S if settings.node else CHECK_S if settings.locality != "off" else 0.0,
    )
    return with_mesh(made, settings, log_name(folder))


def log_name(folder: Path) -> str:
    """Where HAProxy's log is taken, `127.83.12.201:24514`: a loopback address and port of this balancer alone."""
    digest = hashlib.sha256(str(folder).encode()).digest()
    return f"127.{digest[0] % 254 + 1}.{digest[1]}.{digest[2] % 254 + 1}:{20000 + int.from_bytes(digest[3:5], 'big') % 9000}"


def _networks(key: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Canonical. Raises BadSettings."""
    found: list[str] = []
    for at, text in enumerate(texts):
        try:
            found.append(str(ip_network(text)))
        except ValueError as error:
            raise BadSettings(f"{key}[{at}]: {error}") from error
    return tuple(found)


def _header(name: str) -> str:
    """Raises BadSettings."""
    if not _HEADER.fullmatch(name):
        raise BadSettings(f"sticky_header: {name[:80]}: not a header's name")
    return name


def worker_account(user: str, *, root: bool) -> tuple[str, str]:
    """User and group of HAProxy's workers, ("", "") when we may not change them. Raises BadSettings."""
    if not root:
        return "", ""
    for name in ("haproxy", "nobody") if user == "auto" else (user,):
        try:
            entry = pwd.getpwnam(name)
            return name, grp.getgrgid(entry.pw_gid).gr_name
        except KeyError:
            continue
    raise BadSettings(f"user: there is no account {user}")


def ends_tls(settings: LbSettings) -> bool:
    """Whether there are to be certificates."""
    return bool(settings.certificate or settings.certificate_key_file)


def with_tls(frame: Frame, certificates: str) -> Frame:
    """The same with that list of certificates, which must not be empty: HAProxy would not start. "": TLS does not end here."""
    return msgspec.structs.replace(frame, certificates=certificates)


def lb_folder(settings: LbSettings) -> Path:
    return Path(settings.data_dir).absolute() / ("lb-node" if settings.node else "lb")


LONGEST_SOCKET_FOLDER = 80  # HAProxy takes 97 characters, and appends `.<pid>.tmp` while it binds


def socket_folder(folder: Path) -> Path:
    """Raises BadSettings when HAProxy could not bind there."""
    place = folder / "run"
    if len(str(place)) > LONGEST_SOCKET_FOLDER:
        raise BadSettings(
            f"data_dir: {folder.parent}: too long for HAProxy's sockets, {LONGEST_SOCKET_FOLDER} characters"
        )
    return place


def service_ports(settings: LbSettings) -> tuple[int, int]:
    """(0, 0) when there are none. Raises BadSettings."""
    if not settings.service_ports:
        return 0, 0
    match = _RANGE.fullmatch(settings.service_ports)
    low, high = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < low <= high < 65_536:
        raise BadSettings(f"service_ports: {settings.service_ports}: expected LOW-HIGH, as in 10100-10999")
    if low < FIRST_ORDINARY_PORT and not settings.allow_low_ports:
        raise BadSettings(f"service_ports: {settings.service_ports}: ports below 1024 need allow_low_ports")
    return low, high


def spare_backends(settings: LbSettings) -> int:
    """Raises BadSettings."""
    if not 0 <= settings.spare_backends <= MOST_SPARES:
        raise BadSettings(f"spare_backends: {settings.spare_backends}: not between 0 and {MOST_SPARES}")
    return settings.spare_backends


def groups(settings: LbSettings) -> frozenset[str]:
    """With "" for ports that have no group, when the setting is empty. Raises BadSettings."""
    try:
        return frozenset(words.names(settings.groups)) or frozenset({""})
    except words.BadLabel as error:
        raise BadSettings(f"groups: {error}") from error


def limits(settings: LbSettings) -> Limits:
    """Raises BadSettings naming the key."""
    for key in ("removed_percent", "panic_percent"):
        if not 0 <= getattr(settings, key) <= 100:
            raise BadSettings(f"{key}: {getattr(settings, key):g}: not between 0 and 100")
    for key in ("hold_s", "flaps"):
        if getattr(settings, key) < 0:
            raise BadSettings(f"{key}: {getattr(settings, key):g}: below 0")
    for key in ("removal_interval_s", "flap_window_s"):
        if getattr(settings, key) <= 0:
            raise BadSettings(f"{key}: {getattr(settings, key):g}: not above 0")
    return Limits(
        hold_s=settings.hold_s,
        removed_percent=settings.removed_percent,
        interval_s=settings.removal_interval_s,
        flaps=FlapLimits(most=settings.flaps, window_s=settings.flap_window_s),
    )


def forbidden(settings: LbSettings) -> Forbidden:
    """Raises BadSettings naming the key."""
    return Forbidden(
        own=frozenset(_own_ports(settings)) - {0},
        reserved=parse_ranges(settings.reserved_ports, place="reserved_ports"),
        low_allowed=settings.allow_low_ports,
    )


def standing(settings: LbSettings, own: Collection[str], place: Place) -> Standing | None:
    """`own`: addresses of this machine; `place`: what its agent says. None without locality."""
    if settings.locality == "off":
        return None
    told = Place(settings.zone, settings.region)
    return Standing(
        place=told if told != NOWHERE else place,
        machine=frozenset(settings.machine or own) if settings.locality == "machine" else frozenset(),
        least=settings.locality_least,
    )


def _own_ports(settings: LbSettings) -> Iterator[int]:
    yield from (settings.port, settings.http_port, settings.health_port, settings.mesh_port, settings.mesh_tcp_port)
    yield settings.https_port if ends_tls(settings) or settings.tls_passthrough else 0


def vip_rules(settings: LbSettings) -> VipRules | None:
    """None for a balancer that is no machine's own. Raises BadSettings naming the key."""
    if not settings.node:
        return None
    literal: list[IPv4Network] = []
    for at, text in enumerate(settings.ip_vips):
        try:
            literal.append(IPv4Network(text))
        except ValueError as error:
            raise BadSettings(f"ip_vips[{at}]: {error}") from error
    try:
        network = parse_range(settings.vip_range)
    except BadVip as error:
        raise BadSettings(f"vip_range: {error}") from error
    return VipRules(
        network=network,
        literal=tuple(literal),
        low_ports=frozenset(settings.vip_low_ports),
        forbidden=forbidden(settings),
    )


def balancer_id(settings: LbSettings) -> str:
    return settings.id or f"{socket.gethostname()}-{settings.port}"

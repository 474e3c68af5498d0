"""The typed records that two subsystems share. Unknown keys are ignored, so that neighbouring versions work together.

Canonical JSON (sorted keys, no blanks) is what is stored, and what digests are taken over.
"""

import enum
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from fairlead_daemon.errors import Refused

R = TypeVar("R")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of what is stored. The garbage collector leaves records alone, for none can be part of a cycle: a registry
    of 100,000 endpoints cost it 50 ms at a time.
    """


_encoder = msgspec.json.Encoder(order="sorted")


def encode(record: object) -> bytes:
    return _encoder.encode(record)


def rewritten(before: bytes, record: Record) -> bytes:
    """The record in the place of `before`, whose keys that its type does not know stay: a neighbouring version's."""
    old, new = (msgspec.json.decode(data or b"{}") for data in (before, encode(record)))
    return encode(_with_unknown(old, new, type(record)))


def _with_unknown(old: object, new: object, kind: object) -> object:
    if not (isinstance(old, dict) and isinstance(new, dict) and isinstance(kind, type) and issubclass(kind, Record)):
        return new
    known = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    inner = {key: _with_unknown(old.get(key), value, known.get(key)) for key, value in new.items()}
    return {key: value for key, value in old.items() if key not in known} | inner


def decode(kind: type[R], data: bytes, *, place: str) -> R:
    """Raises Refused naming `place` and the field, as in `/fairlead/leaving/t1: deadline: Expected float`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{place}: {error}") from error


class Address(Record, frozen=True, kw_only=True):
    host: str
    port: int


class TaskRef(Record, frozen=True, kw_only=True):
    """Which task a member is. `app` is the full app id for our service scheduler, else ""."""

    id: str
    name: str
    framework: str
    framework_id: str
    agent: str
    app: str = ""
    version: str = ""


class Discovery(Record, frozen=True, kw_only=True):
    """Mesos' DiscoveryInfo, as far as names and balancers need it."""

    name: str = ""
    visibility: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    given: bool = False
    """Whether the framework gave a DiscoveryInfo at all: Mesos-DNS makes other SRV records then."""


class Port(Record, frozen=True, kw_only=True):
    """One port of a task. `number` is the discovery port, `host_port` where it is reached on the agent."""

    index: int
    number: int
    host_port: int
    name: str = ""
    protocols: tuple[str, ...] = ("tcp",)
    """As given, in lower case; empty when the framework said none: DNS then makes both tcp and udp."""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Of the port in the DiscoveryInfo, as `VIP_0` (DC/OS)."""


class Ips(Record, frozen=True, kw_only=True):
    """A task's addresses by Mesos-DNS' IPSources."""

    host: tuple[str, ...] = ()
    mesos: tuple[str, ...] = ()
    netinfo: tuple[str, ...] = ()
    docker: tuple[str, ...] = ()


class Member(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One endpoint: what stands in a member node. The first four keys are the ServerSet format."""

    serviceEndpoint: Address  # noqa: N815  # ServerSet's spelling
    task: TaskRef
    additionalEndpoints: Mapping[str, Address] = msgspec.field(default_factory=dict)  # noqa: N815  # see above
    shard: int | None = None
    discovery: Discovery = Discovery()
    ports: tuple[Port, ...] = ()
    ips: Ips = Ips()
    zone: str = ""
    region: str = ""
    weight: float = 1.0
    status: str | msgspec.UnsetType = msgspec.UNSET
    """"ALIVE": always given, so that omit_defaults keeps it (ServerSet readers demand it)."""


class Portless(Record, frozen=True, kw_only=True):
    """A running task without ports: a name, no member."""

    task: TaskRef
    discovery: Discovery = Discovery()
    ips: Ips = Ips()


class Reason(enum.StrEnum):
    KILL = "kill"
    SCALE = "scale"
    DRAIN = "drain"
    UNHEALTHY = "unhealthy"
    DEAD = "dead"

    @classmethod
    def _missing_(cls, _value: object) -> "Reason":
        """One that only a newer version knows: the task leaves all the same, and is drained."""
        return cls.KILL


class Leaving(Record, frozen=True, kw_only=True):
    """A task withdrawn and about to be killed. `deadline_s` is wall clock, seconds since 1970.

    `members` are the node names taken away with it: readers tell a departure from a disappearance by them.
    """

    task: str
    service: str
    member: str
    reason: Reason
    deadline_s: float


class Check(Record, frozen=True, kw_only=True):
    """How a balancer asks a server for its health; path "" is a plain TCP connect."""

    path: str = ""
    interval_s: float = 2.0
    timeout_s: float = 2.0
    fall: int = 3


class Rate(Record, frozen=True, kw_only=True):
    """At most `count` requests in `per_s` seconds, 1 or 60."""

    count: int
    per_s: int = 1


class Abort(Record, frozen=True, kw_only=True):
    """Of a hundred requests so many get an error at once, for tests; hundredths count."""

    percent: float
    status: int = 503


class Delay(Record, frozen=True, kw_only=True):
    """Of a hundred requests so many wait before they go on, for tests; hundredths count."""

    percent: float
    delay_s: float


class Traffic(Record, frozen=True, kw_only=True):
    """How the requests of one port of a service are let in, limited, repeated and rewritten. 0 and empty: not at all."""

    allow: tuple[str, ...] = ()
    """Networks that may come in; empty: all."""
    deny: tuple[str, ...] = ()
    realm: str = ""
    users: tuple[str, ...] = ()
    """`name:hash` as of crypt(3); with any, a request needs HTTP Basic credentials."""
    https_only: bool = False
    """Plain requests are redirected."""
    hsts: bool = False
    rate: Rate | None = None
    """Of all clients together, through one balancer."""
    client_rate: Rate | None = None
    """Of each client address."""
    server_connections: int = 0
    """At once to one server; more requests wait."""
    server_queue: int = 0
    """As many wait for one server before others are asked."""
    queue_timeout_s: float = 5.0
    connect_timeout_s: float = 1.0
    tunnel_timeout_s: float = 3600.0
    """Idle WebSockets and CONNECTs."""
    retries: int = 3
    retry_on: tuple[str, ...] = ()
    """What of HAProxy's `retry-on` else than no connection and an empty answer."""
    retry_budget_percent: float = 0.0
    """Of requests; when more were repeated in the last seconds, none is any more."""
    eject_after: int = 0
    """Errors in a row that put a server aside."""
    eject_share_percent: float = 50.0
    """Of a server's answers of the last seconds: so many errors put it aside too, where `eject_after` is given. 0: none do."""
    eject_least: int = 20
    """Fewer answers say nothing about a share."""
    eject_s: float = 10.0
    eject_at_most_percent: float = 50.0
    """Of the servers; never the last one."""
    max_connections: int = 0
    """Requests (connections, over TCP) under way to the whole service through one balancer; the rest is refused."""
    max_pending: int = 0
    """Of them waiting for a server."""
    break_at_percent: float = 0.0
    """Of answers being errors: the whole service gets no requests for a while."""
    break_s: float = 10.0
    break_least: int = 20
    """Answers in ten seconds that are enough to judge."""
    abort: Abort | None = None
    delay: Delay | None = None
    strip_path: str = ""
    """`/svc1`: the server sees `/x` for `/svc1/x`."""
    location_prefix: str = ""
    """Put before the path of a redirect's Location."""
    deadlines: bool = False
    """A client's own limit (`X-Request-Timeout: 1500` milliseconds, or gRPC's `grpc-timeout`) shortens the server's."""
    protocol: str = ""
    """To servers: `h2` (gRPC), else HTTP/1.1."""


class RoutePort(Record, frozen=True, kw_only=True):
    """What a balancer needs to know of one port of a service.

    `service_port` 0: no port of its own, only virtual hosts. `mode` is "http", "tcp", or "tls": TCP found by the name a
    client asks for (SNI), and passed on as it is.
    """

    index: int
    name: str = ""
    service_port: int = 0
    mode: str = "http"
    vhosts: tuple[str, ...] = ()
    path: str = ""
    sticky: bool = False
    balance: str = "roundrobin"
    check: Check | None = None
    reuse: bool = False
    """Connections to servers may be reused: the service never closes an idle one under a request."""
    retry_non_idempotent: bool = False
    """Opt-in: POSTs are retried on another server too, and may then be executed twice."""
    mtls: bool = False
    """Servers speak TLS with the service's own certificate of the identity authority, and are shown the balancer's."""
    timeout_server_s: float = 60.0
    groups: tuple[str, ...] = ()
    """Balancers of these groups serve it; empty: those that serve ports without a group."""
    traffic: Traffic = Traffic()


class Colour(Record, frozen=True, kw_only=True):
    """One of the apps that stand in for one another while a new version comes: marathon-lb's `HAPROXY_DEPLOYMENT_*`."""

    group: str
    """The id they share for balancers, beside their own ids: `/shop/web` for `/shop/web-blue` and `/shop/web-green`."""
    name: str = ""
    """`blue` or `green`; for people."""
    backend: str = ""
    """What balancers call the group: as the label has it, for names (`web_10100`)."""
    started_at: str = ""
    """ISO 8601, so that text orders as time."""
    scaled_at: str = ""
    """When its number of instances was last changed."""
    target: int = 1
    """Instances that shall serve, of all colours together."""
    new: int = 0
    """Not 0: both colours stay, so many of the newer one."""


class Route(Record, frozen=True, kw_only=True):
    """What a balancer needs and a task does not know. `app` is for names (`shop_web_10100`) and people."""

    service: str
    app: str = ""
    ports: tuple[RoutePort, ...] = ()
    source: str = "services"
    not_taken: tuple[str, ...] = ()
    """Labels that ask for lines of HAProxy's own configuration: balancers name them, and do nothing else with them."""
    colour: Colour | None = None


class Balancer(Record, frozen=True, kw_only=True):
    """A registered balancer; persistent. It must have drained a task before that is killed. `node`: one a machine."""

    id: str
    admin: str
    node: bool = False
    mesh_host: str = ""
    """Where `mesh_port` is; "": at each of `hosts`."""
    mesh_port: int = 0
    """Where other machines' balancers ask it, over mTLS; 0: they do not."""
    hosts: tuple[str, ...] = ()
    """Addresses of its machine, as tasks there have them."""


class Progress(Record, frozen=True, kw_only=True):
    """What a balancer has applied, read back from HAProxy. `busy`: leaving task ids that still have sessions."""

    applied_revision: int
    busy: tuple[str, ...] = ()
    busy_more: bool = False
    written_s: float = 0.0
    """Unix time by the balancer's clock; written anew every 10 s. 0: by a balancer that does not tell."""


BUSY_LIMIT = 1000


class NameServer(Record, frozen=True, kw_only=True):
    """An announced DNS server with the largest TTL it gives out: kills wait that long."""

    id: str
    address: str
    largest_ttl_s: int


class Agent(Record, frozen=True, kw_only=True):
    """Announced by the agent itself: readers' stand-in when no master leads."""

    id: str
    host: str
    port: int
    boot_id: str
    hostname: str = ""
    zone: str = ""
    region: str = ""
    attributes: Mapping[str, str] = msgspec.field(default_factory=dict)


class Lease(Record, frozen=True, kw_only=True):
    """Announced beside a member that no master stands for: when it ends, the leading master withdraws the member."""

    task: str
    service: str
    host: str = ""
    port: int = 0


class MasterAddress(Record, frozen=True, kw_only=True):
    hostname: str
    ip: str
    port: int


class MasterInfo(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Mesos' MasterInfo JSON, exactly: what stands in json.info_<seq>. `ip` is the little-endian integer."""

    address: MasterAddress
    hostname: str
    id: str
    ip: int
    pid: str
    port: int
    version: str


class Framework(Record, frozen=True, kw_only=True):
    """A registered framework, for names (`F.domain`) and for failover after the master's."""

    id: str
    name: str
    hostname: str = ""
    ip: str = ""
    port: int = 0
    active: bool = True


SCHEMA = 1
"""Daemons of this version work on registries of it and of its two neighbours, and refuse others."""


class Cluster(Record, frozen=True, kw_only=True):
    """/fairlead/cluster: whose registry this is. `base` plus the revision node's version is the revision."""

    uuid: str
    schema: int = 1
    base: int = 0
    epoch_base: int = 0
    """Added to the versions of epoch nodes. A new cluster begins above every older one's epochs, so that agents do not
    refuse its leaders: seconds since 1970 at its making."""
    importing: str = ""
    """Not "": an import into it is not finished; only the importing process works on it."""
    moved: str = ""
    """The URL of the registry that goes on in this one's place; this one is read only."""

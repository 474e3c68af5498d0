"""The values the balancer's decisions are made of. Structs, because a picture of them is kept on disk."""

import enum
from collections.abc import Iterator, Mapping

import msgspec

from fairlead_discovery.records import Check, Traffic
from fairlead_lb.decisions.conditions import FrontRule
from fairlead_lb.decisions.router_lines import FrontRouter

DUMMY_HOST = "127.0.0.1"
DUMMY_PORT = 1
"""Where an empty slot points. Setting it purges the slot's pool of idle connections (quarantine's last step)."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is kept in the picture."""


class Key(msgspec.Struct, frozen=True, order=True):
    """One port of one service: what a backend stands for. Two keys never share a backend."""

    service: str
    index: int

    def __str__(self) -> str:
        return f"{self.service} port {self.index}"


class Shape(Value, frozen=True):
    """How a backend treats its requests. What of it maps turn while HAProxy runs is said in `dials`."""

    mode: str = "http"
    balance: str = "roundrobin"
    sticky: bool = False
    reuse: bool = False
    retry_non_idempotent: bool = False
    mtls: bool = False
    between: str = ""
    """Of the way from balancer to balancer: see `between`."""
    timeout_server_s: float = 60.0
    check: Check | None = None
    traffic: Traffic = Traffic()
    timed: bool = False
    """Whether routers give some of its requests a time limit of their own."""


class Server(Value, frozen=True):
    """One task behind a backend. `weight` is HAProxy's, 1 to 256; 0 when it shall have no requests: its member says so, or it
    is put aside.
    """

    task: str
    host: str
    port: int
    weight: int = 100
    zone: str = ""
    region: str = ""
    far: bool = False
    """Gets requests only when no near one is up."""


class Backend(Value, frozen=True):
    """A wanted backend; servers are sorted by task."""

    name: str
    key: Key
    app: str
    shape: Shape
    servers: tuple[Server, ...] = ()


class Admin(enum.StrEnum):
    """A slot's administrative state in HAProxy."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


class Slot(Value, frozen=True):
    """A server line as HAProxy has it now.

    `used` counts connections to it in all workers; `task` is "" when the slot is empty or its task is unknown;
    `unchecked`: its health checks were stopped while it runs (see `panic`).
    """

    host: str = DUMMY_HOST
    port: int = DUMMY_PORT
    admin: Admin = Admin.MAINT
    weight: int = 100
    used: int = 0
    up: bool = False
    unchecked: bool = False
    task: str = ""

    @property
    def empty(self) -> bool:
        return self.port == DUMMY_PORT and self.host == DUMMY_HOST

    @property
    def serves(self) -> bool:
        """It is meant to; whether it is up is another question."""
        return self.admin is Admin.READY and not self.empty


Slots = Mapping[str, Slot]
"""By slot name (`s1`, `s2` …), in the order of the file."""


class Maps(Value, frozen=True):
    """What the map files hold.

    `hosts`: `shop.example.com/cart/` -> backend (longest prefix wins, see `map_keys`); `wilds`: `.example.com` ->
    `*.example.com`, longest suffix first; `ports`: service port -> backend; `modes`: service port -> `http`, absent for
    TCP; `vips`: place (`127.230.155.221:80`) -> backend, and such places are in `modes` too;
    `names`: name that TLS clients ask for, `.example.com` for whatever ends so -> backend, which gets it as it is;
    `checks`: backend -> path of its health check; `timeouts`: backend -> milliseconds a server may take; `rates`,
    `client_rates`: backend -> requests it takes in its period; `aborts`, `delays`: backend -> of 10,000 requests so many
    are refused, or wait; `budgets`: backend -> `spent`, when nothing more is repeated; absent where it is the default.
    `guarded`: backend -> its service, where callers may be
    refused; `intentions`, `rules`: see `intentions`; `targets`: how callers name a service in the mesh -> backend;
    `max_connections`, `max_pending`: backend -> requests under way, waiting; `breakers`: backend -> Unix time until
    which it gets none;
    `aims`: backend -> what another machine's balancer is asked for;
    `cookies`: backend -> what tells its service's cookie from those of others on one host;
    `server_names`: backend -> the name its servers must have, where they speak TLS.
    `ways`, `shares`, `least`, `falls`, `pins`: see `splits`; `routers`: backend -> its router; `hops`: a router's leg
    -> backend, see `router_lines`; `plain`: host -> backend, `special`: backend -> `yes`: see `plain`.
    """

    hosts: Mapping[str, str] = msgspec.field(default_factory=dict)
    wilds: Mapping[str, str] = msgspec.field(default_factory=dict)
    ports: Mapping[str, str] = msgspec.field(default_factory=dict)
    modes: Mapping[str, str] = msgspec.field(default_factory=dict)
    names: Mapping[str, str] = msgspec.field(default_factory=dict)
    vips: Mapping[str, str] = msgspec.field(default_factory=dict)
    checks: Mapping[str, str] = msgspec.field(default_factory=dict)
    timeouts: Mapping[str, str] = msgspec.field(default_factory=dict)
    rates: Mapping[str, str] = msgspec.field(default_factory=dict)
    client_rates: Mapping[str, str] = msgspec.field(default_factory=dict)
    aborts: Mapping[str, str] = msgspec.field(default_factory=dict)
    delays: Mapping[str, str] = msgspec.field(default_factory=dict)
    budgets: Mapping[str, str] = msgspec.field(default_factory=dict)
    guarded: Mapping[str, str] = msgspec.field(default_factory=dict)
    intentions: Mapping[str, str] = msgspec.field(default_factory=dict)
    rules: Mapping[str, str] = msgspec.field(default_factory=dict)
    targets: Mapping[str, str] = msgspec.field(default_factory=dict)
    server_names: Mapping[str, str] = msgspec.field(default_factory=dict)
    cookies: Mapping[str, str] = msgspec.field(default_factory=dict)
    max_connections: Mapping[str, str] = msgspec.field(default_factory=dict)
    max_pending: Mapping[str, str] = msgspec.field(default_factory=dict)
    breakers: Mapping[str, str] = msgspec.field(default_factory=dict)
    aims: Mapping[str, str] = msgspec.field(default_factory=dict)
    ways: Mapping[str, str] = msgspec.field(default_factory=dict)
    shares: Mapping[str, str] = msgspec.field(default_factory=dict)
    least: Mapping[str, str] = msgspec.field(default_factory=dict)
    falls: Mapping[str, str] = msgspec.field(default_factory=dict)
    pins: Mapping[str, str] = msgspec.field(default_factory=dict)
    routers: Mapping[str, str] = msgspec.field(default_factory=dict)
    hops: Mapping[str, str] = msgspec.field(default_factory=dict)
    plain: Mapping[str, str] = msgspec.field(default_factory=dict)
    special: Mapping[str, str] = msgspec.field(default_factory=dict)


DIALS = (
    "special",  # first: whatever a backend looks up after it
    "checks",
    "timeouts",
    "rates",
    "client_rates",
    "aborts",
    "delays",
    "budgets",
    "guarded",
    "server_names",
    "cookies",
    "max_connections",
    "max_pending",
    "breakers",
    "aims",
)
VERDICTS = ("rules", "intentions")
"""What is judged by; those before are what those after refer to."""
SPLITS = ("shares", "least", "falls", "pins", "ways")
ROUTERS = ("hops", "routers")
MAP_NAMES = (
    "hosts",
    "plain",
    "wilds",
    "ports",
    "modes",
    "names",
    "vips",
    "targets",
    *VERDICTS,
    *DIALS,
    *SPLITS,
    *ROUTERS,
)
LAYOUT = 15
"""Of the rendered file. 0: before health checks and timeouts came from maps; 1: before traffic rules; 2: before keys
for any host; 3: before intentions; 4: before splits;
5: before names of TLS that is passed on; 6: before names of servers; 7: before services of the mesh named by SNI alone;
8: before cookies of services; 9: before routers; 10: before circuit breakers;
11: before plain hosts; 12: while X-Forwarded-Proto was believed of anybody; 13: before calls from balancer to
balancer."""


class Frame(Value, frozen=True):
    """What of the configuration does not come from routes: settings, places, limits."""

    folder: str
    """Absolute; maps lie in `<folder>/maps`."""
    sockets: str
    """Absolute and short; worker sockets lie here."""
    host: str = "127.0.0.1"
    http_port: int = 80
    https_port: int = 0
    health_port: int = 0
    """Where HAProxy itself says that it serves; 0: nowhere."""
    certificates: str = ""
    """HAProxy's list of certificate files; "": no TLS."""
    passthrough: bool = False
    """Whether `https_port` looks at the names that TLS clients ask for before it ends their TLS."""
    max_connections: int = 4096
    keepalive_s: float = 30.0
    old_worker_s: float = 0.0
    """How long a worker finishes sessions after a reload; 0: for ever."""
    sticky_header: str = "X-User"
    user: str = ""
    """Whom a worker becomes when its master is root; "": it stays who it is."""
    group: str = ""
    mesh_port: int = 0
    """Callers with a certificate, over HTTP; 0: none."""
    mesh_tcp_port: int = 0
    """The same for TCP services, named by SNI."""
    mesh_host: str = ""
    """Where both listen; "": at `host`."""
    between: bool = False
    """Whether balancers' word for whom they ask is taken."""
    identity: str = ""
    """Folder of our own identity; "": none yet, and no mesh."""
    identity_name: str = ""
    """Its common name."""
    access_log: str = "off"
    """`off`, `denied` (refused by an intention) or `all`."""
    access_log_query: bool = False
    log_name: str = ""
    """`127.83.12.201:24514`, where the log's lines are taken; "": none are sent."""
    request_ids: bool = False
    trace_sampled: int = -1
    """Of 10,000 new traces; -1: no trace headers."""
    far_slots: bool = False
    """Whether backends have slots for servers that are far."""
    trusted: tuple[str, ...] = ()
    """Networks of proxies whose X-Forwarded-Proto is believed, beside this machine's own."""
    passive_s: float = 0.0
    """Not 0: one connection that fails puts a server aside until a check succeeds, every server is checked, and checks
    of servers that are up come at most so often."""

    @property
    def listeners(self) -> tuple[tuple[str, str, int], ...]:
        """Setting, address and port of what HAProxy cannot do without; port 0: off."""
        own = tuple((name, self.host, getattr(self, name)) for name in ("http_port", "https_port", "health_port"))
        at = self.mesh_host or self.host
        mesh = (("mesh_port", at, self.mesh_port), ("mesh_tcp_port", at, self.mesh_tcp_port))
        return (*own, *mesh) if self.identity else own


class Structure(Value, frozen=True):
    """The part of a running configuration that only a reload changes; but spare backends get their owners without.

    `shapes` are casings (see `dials`). A backend without an owner is a spare.
    """

    frame: Frame
    layout: int = 0
    generation: int = 0
    connections: int = 4096
    """HAProxy's maxconn: `frame.max_connections`, or fewer where the limit of open files is lower."""
    binds: tuple[tuple[int, int], ...] = ()
    """Service ports HAProxy listens on: inclusive ranges, ascending."""
    vips: tuple[str, ...] = ()
    """Places (see Maps) HAProxy listens on beside, in order."""
    shapes: Mapping[str, Shape] = msgspec.field(default_factory=dict)
    owners: Mapping[str, Key] = msgspec.field(default_factory=dict)
    rules: tuple[FrontRule, ...] = ()
    routers: tuple[FrontRouter, ...] = ()


class Picture(Value, frozen=True):
    """Everything a configuration is rendered from: HAProxy started with it serves as the last one did."""

    structure: Structure
    slots: Mapping[str, Slots] = msgspec.field(default_factory=dict)
    maps: Maps = Maps()


def ports_of(structure: Structure) -> Iterator[int]:
    """Service ports it listens on, ascending."""
    return (port for low, high in structure.binds for port in range(low, high + 1))


def bound(structure: Structure, port: int) -> bool:
    return any(low <= port <= high for low, high in structure.binds)

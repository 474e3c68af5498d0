"""From balancer to balancer: which machine a caller's node balancer asks, and what the server's one does with it.

An HTTP port of a service becomes two: one whose servers are machines, each a node balancer's mesh port, spoken to over
mTLS; and one, its home, whose servers are the tasks of this machine, for what comes from balancers alone. What tells a
client from another is done at the caller's side, what tells a task from another at the server's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from fairlead_discovery.decisions.identity import word
from fairlead_discovery.records import Balancer, Check, Traffic
from fairlead_lb.decisions.parts import MOST_WEIGHT, Part
from fairlead_lb.decisions.values import Key, Server, Shape

HOME = 1000
"""Added to a port's index: its home's. A route has at most a hundred ports."""
FAR, NEAR = "to a machine", "from a machine"
"""`Shape.between` of the two."""
OF_TASKS = (
    "server_connections",
    "server_queue",
    *(name for name in Traffic.__struct_fields__ if name.startswith("eject_")),
)
"""Traffic rules that look at single tasks: for who has them before him."""
OF_BOTH = ("queue_timeout_s", "connect_timeout_s", "tunnel_timeout_s", "protocol")
_PLAIN = Traffic()


Door = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """`doors`: address of a machine -> where its node balancer takes callers; `own`: this machine's addresses."""

    own: frozenset[str] = frozenset()
    doors: Mapping[str, Door] = field(default_factory=dict)


Made = Mapping[Key, tuple[Part, tuple[Part, ...], str]]
"""By port: what it was made of, what was made of it, and machines that are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """`missing`: by service, machines without a mesh port: what runs there is not reached, for it would be in plain."""

    between: Between | None = None
    parts: tuple[Part, ...] = ()
    made: Made = field(default_factory=dict)

    @property
    def missing(self) -> Mapping[str, str]:
        return {key.service: why for key, (_, _, why) in self.made.items() if why}


def doors(records: Iterable[Balancer]) -> Mapping[str, Door]:
    """Where node balancers take callers of other machines."""
    there = [one for one in records if one.node and one.mesh_port]
    return {host: (one.mesh_host or host, one.mesh_port) for one in there for host in one.hosts}


def spread(flat: Iterable[Part], between: Between | None, last: Spread) -> Spread:
    """Ports of other modes, and those whose tasks speak TLS themselves, stay as they are; what is as it was last time is
    the same object.
    """
    if between is None:
        return Spread(parts=tuple(flat))
    known: Made = last.made if last.between is between else {}
    made: dict[Key, tuple[Part, tuple[Part, ...], str]] = {}
    for part in flat:
        before = known.get(part.key)
        made[part.key] = before if before is not None and before[0] is part else (part, *_made(part, between))
    return Spread(between=between, parts=tuple(p for _, parts, _ in made.values() for p in parts), made=made)


def _made(part: Part, between: Between) -> tuple[tuple[Part, ...], str]:
    if part.shape.mode != "http" or part.shape.mtls:
        return (part,), ""
    without = sorted({s.host for s in part.servers} - between.doors.keys())
    why = f"no balancer takes callers over mTLS at {', '.join(without[:3])}" if without else ""
    far = replace(part, shape=_far(part.shape), servers=_machines(part.servers, between))
    home = Part(
        key=Key(part.key.service, part.key.index + HOME),
        app=part.app,
        shape=_near(part.shape),
        service_port=0,
        hosts=(),
        servers=tuple(s for s in part.servers if s.host in between.own),
        groups=part.groups,
    )
    return (far, home), why


def _machines(servers: Iterable[Server], between: Between) -> tuple[Server, ...]:
    """One for each machine, as heavy as its tasks together."""
    by_host: dict[str, list[Server]] = {}
    for server in servers:
        if server.host in between.doors:
            by_host.setdefault(server.host, []).append(server)
    sums = {host: sum(s.weight for s in tasks) for host, tasks in by_host.items()}
    scale = min(1.0, MOST_WEIGHT / max(sums.values(), default=1))
    return tuple(
        Server(
            task=f"machine:{host}",
            host=between.doors[host][0],
            port=between.doors[host][1],
            weight=max(1, round(sums[host] * scale)),
            zone=tasks[0].zone,
            region=tasks[0].region,
        )
        for host, tasks in sorted(by_host.items())
    )


def _far(shape: Shape) -> Shape:
    """A machine is looked at by a handshake: what its tasks answer, its own balancer looks after."""
    rules = msgspec.structs.replace(shape.traffic, **{name: getattr(_PLAIN, name) for name in OF_TASKS})
    check = Check() if shape.check is not None else None
    return msgspec.structs.replace(shape, mtls=True, reuse=True, check=check, traffic=rules, between=FAR)


def _near(shape: Shape) -> Shape:
    """Rules for clients were applied where the client came in: here all come from balancers."""
    rules = Traffic(**{name: getattr(shape.traffic, name) for name in (*OF_TASKS, *OF_BOTH)})
    return msgspec.structs.replace(shape, traffic=_PLAIN if rules == _PLAIN else rules, between=NEAR)


def aims(named: Iterable[tuple[Part, str]]) -> Mapping[str, str]:
    """Backend -> the service and port that a machine's balancer is asked for."""
    return {name: aim(part.key) for part, name in named if part.shape.between == FAR}


def aim(key: Key) -> str:
    return word(key.service) if key.index % HOME == 0 else f"{word(key.service)}/{key.index % HOME}"


def homes(named: Iterable[tuple[Part, str]]) -> Mapping[str, str]:
    """How a balancer names the tasks of this machine -> their backend."""
    return {f"home/{aim(part.key)}": name for part, name in named if part.shape.between == NEAR}

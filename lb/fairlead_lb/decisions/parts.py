"""One service's share of the routes, from its route record and its members alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.vips import Vip
from fairlead_discovery.decisions.words import shown
from fairlead_discovery.records import Member, Route, RoutePort
from fairlead_lb.decisions import grammar, map_keys, vips
from fairlead_lb.decisions.values import DUMMY_HOST, DUMMY_PORT, Key, Server, Shape

FULL_WEIGHT = 100  # HAProxy's weight of a member of weight 1; leaves room both ways in 1 to 256
MOST_WEIGHT = 256
AddressOf = Callable[[Member], tuple[str, int]]
MOST_PORTS = 100
"""Of one service. Each is a backend, and HAProxy's check of them all holds up every reload."""
MOST_HOSTS = 1000
OPERATOR = "operator"
"""`source` of routes that are written by hand; those of apps belong to the service scheduler."""
BALANCERS = "balancer:"
"""Others would show their own certificates to who is called so, and be taken for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one port of a service asks for. `hosts` are map keys (`shop.example.com/cart/`), `names` those of TLS that is
    passed on (`db.example.com`, `.example.com` for whatever ends so).
    """

    key: Key
    app: str
    shape: Shape
    service_port: int
    hosts: tuple[str, ...]
    servers: tuple[Server, ...]
    groups: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    vips: tuple[Vip, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """With what they were made from, so that an unchanged service is not worked out again."""

    route: Route
    members: Mapping[str, Member]
    parts: tuple[Part, ...]
    derived: bool = False
    """From the members' labels; nobody wrote it."""
    problems: tuple[str, ...] = ()


def checked(route: Route) -> tuple[tuple[RoutePort, Shape, tuple[str, ...]], ...]:
    """Every port of the route with its shape and map keys. Raises Refused naming port and field."""
    if len(route.ports) > MOST_PORTS:
        raise Refused(f"{len(route.ports)} ports; at most {MOST_PORTS}")
    if (hosts := sum(len(port.vhosts) for port in route.ports)) > MOST_HOSTS:
        raise Refused(f"{hosts} virtual hosts; at most {MOST_HOSTS}")
    return tuple(_checked_port(port, route.source) for port in route.ports)


def derive(service: str, route: Route, members: Mapping[str, Member], *, derived: bool = False) -> Parts:
    """Raises Refused when the route cannot be taken. A member without a usable address is left out, and named."""
    if service.startswith(BALANCERS):
        raise Refused(f"{BALANCERS} begins the identities of balancers, and no service's name")
    found: list[Part] = []
    problems: list[str] = []
    for port, shape, hosts in checked(route):
        servers, faults = _servers(members, port)
        problems += faults
        problems += vips.problems(members, port.index)
        if port.sticky and not shape.sticky:
            problems.append(f"port {port.index}: sticky: needs mode http, not {port.mode}; no client is kept")
        key = Key(service, port.index)
        found.append(
            Part(
                key=key,
                app=route.app,
                shape=shape,
                service_port=port.service_port,
                hosts=() if port.mode == "tls" else hosts,
                names=tuple(h.partition("/")[0].removeprefix("*") for h in hosts) if port.mode == "tls" else (),
                servers=tuple(servers),
                groups=frozenset(port.groups),
                vips=vips.of_members(members, port.index),
            )
        )
    return Parts(route=route, members=members, parts=tuple(found), derived=derived, problems=tuple(problems))


def _checked_port(port: RoutePort, source: str) -> tuple[RoutePort, Shape, tuple[str, ...]]:
    try:
        grammar.service_port(port.service_port)
        path = grammar.path(port.path)
        hosts = tuple(dict.fromkeys(_key(v, path, source) for v in port.vhosts))
        shape = grammar.shape(port)
        _check_together(path, hosts, port.mode)
    except Refused as error:
        raise Refused(f"port {port.index}: {error}") from error
    return port, shape, hosts


def _key(host: str, path: str, source: str) -> str:
    """`*` takes one path of everybody's hosts, so it is for operators, and for that path alone."""
    if host.strip() != map_keys.ANY_HOST:
        return map_keys.key(grammar.vhost(host), path)
    if source != OPERATOR or path != map_keys.CHALLENGES:
        raise Refused(f"virtual host '*': only an operator's route has it, for the path {map_keys.CHALLENGES}")
    return map_keys.key(map_keys.EVERY_HOST, path)


def _check_together(path: str, hosts: tuple[str, ...], mode: str) -> None:
    if path and not hosts:
        raise Refused(f"path {shown(path)}: needs a virtual host")
    if path and mode == "tls":
        raise Refused(f"path {shown(path)}: nobody sees it inside TLS that is passed on")
    if hosts and mode == "tcp":
        raise Refused("virtual hosts need mode http, or tls for names of TLS that is passed on, not tcp")
    if mode == "tls" and not hosts:
        raise Refused("mode tls needs a virtual host, the name that clients ask for")


def _servers(members: Mapping[str, Member], port: RoutePort) -> tuple[list[Server], list[str]]:
    found: dict[str, Server] = {}
    problems: list[str] = []
    heaviest = max((m.weight for m in members.values()), default=1.0)
    scale = min(FULL_WEIGHT, MOST_WEIGHT / heaviest) if heaviest > 0 else FULL_WEIGHT
    for member in members.values():
        place = address(member, port)
        if place is None:
            problems.append(f"task {member.task.id}: no usable address for port {port.index}")
            continue
        weight = min(MOST_WEIGHT, max(1, round(member.weight * scale))) if member.weight > 0 else 0
        found[member.task.id] = Server(
            task=member.task.id, host=place[0], port=place[1], weight=weight, zone=member.zone, region=member.region
        )
    return sorted(found.values(), key=lambda s: s.task), problems


def address(member: Member, port: RoutePort) -> tuple[str, int] | None:
    """The port by its index; a foreign ServerSet member without `ports` by name or number of an additional endpoint."""
    number = next((p.host_port for p in member.ports if p.index == port.index), 0)
    named = member.additionalEndpoints.get(port.name or str(port.index)) or member.additionalEndpoints.get(
        str(port.index)
    )
    host = named.host if named is not None else member.serviceEndpoint.host
    if not number and named is not None:
        number = named.port
    if not number and not member.ports and port.index == 0:
        number = member.serviceEndpoint.port
    usable = first_address((host, *member.ips.host, *member.ips.mesos))
    if usable is None or not 0 < number <= 65_535 or (usable, number) == (DUMMY_HOST, DUMMY_PORT):
        return None  # the last one is where empty slots point
    return usable, number


def first_address(hosts: Sequence[str]) -> str | None:
    return next((a for a in (grammar.address(h) for h in hosts) if a is not None), None)

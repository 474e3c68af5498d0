"""Which daemons `up` wants, each with its whole settings: the one place that knows every daemon's keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from fairlead_console.decisions.ports import LAST_PORT, Need, check_ranges, joined, parse_range, split_range
from fairlead_console.up.settings import UpSettings
from fairlead_daemon.errors import BadSettings

LOOPBACK = "127.0.0.1"
DNS_PROCESSES = 2  # with none answering, libc would ask upstream and believe its NXDOMAIN
KINDS = ("registry", "master", "agent", "services", "dns", "lb", "messaging", "monitor", "console")
LONGEST_DATA_DIR = 60  # HAProxy takes socket paths of 97 characters, and `/lb-sockets/…` comes on top


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the machine decides. `data_dir` is absolute."""

    data_dir: PurePath
    hostname: str
    root: bool
    haproxy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One daemon: `name` is its process (`agent-2`), `kind` its command (`agent`). `ready_url` is asked until 200."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    ready_url: str = ""
    needs: Sequence[Need] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Daemons in starting order: each may need those before it, and runs on without them."""

    daemons: Sequence[Wanted]
    registry: str
    addresses: Mapping[str, Any]
    off: Sequence[str] = ()
    """What does not run here and why, in words."""

    def needs(self) -> tuple[Need, ...]:
        return tuple(need for wanted in self.daemons for need in wanted.needs)


def plan(settings: UpSettings, place: Place) -> Plan:
    """Raises BadSettings naming the option."""
    _check(settings, place)
    registry = settings.registry or f"local:{place.data_dir}/registry.sock"
    daemons = [
        *([] if settings.registry else [_registry(place)]),
        _master(settings),
        *_agents(settings, place),
        _services(settings),
        *_name_servers(settings, place),
        *([_balancer(settings)] if place.haproxy else []),
        *([_node_balancer(settings, place)] if place.haproxy and settings.node else []),
        _messaging(settings),
        _monitor(settings, place),
        _console(settings, place),
    ]
    reserved = _reserved(settings, daemons)
    finished = tuple(_reserving(_finish(wanted, settings, place, registry), reserved) for wanted in daemons)
    result = Plan(
        daemons=finished, registry=registry, addresses=_addresses(settings, place, registry), off=_off(settings, place)
    )
    ranges = [(option, parse_range(getattr(settings, option), option=option)) for option in RANGES]
    check_ranges(ranges, result.needs())
    return result


RANGES = ("agent_ports", "service_ports")


def _check(settings: UpSettings, place: Place) -> None:
    if settings.agents < 1:
        raise BadSettings(f"agents: {settings.agents}: at least one is needed")
    if len(str(place.data_dir)) > LONGEST_DATA_DIR:
        raise BadSettings(f"data_dir: {place.data_dir}: over {LONGEST_DATA_DIR} characters; sockets below it need them")
    if settings.registry and not settings.registry.startswith("zk://"):
        raise BadSettings(f"registry: {settings.registry}: expected zk://host:port[,…][/chroot], or nothing for local")
    names = {*KINDS, *(f"agent-{n + 1}" for n in range(settings.agents)), "dns-1", "dns-2", "lb-node"}
    for unknown in settings.settings.keys() - names:
        raise BadSettings(f"settings.{unknown}: no such daemon, only {', '.join(sorted(names))}")


RESERVING = frozenset({"lb", "services"})
"""Kinds that keep services off the ports of others: a daemon or a task may be away from its own for a moment."""


def _reserved(settings: UpSettings, daemons: Sequence[Wanted]) -> str:
    """Ports of every daemon, and the tasks'."""
    ports = {need.port for wanted in daemons for need in wanted.needs if 0 < need.port <= LAST_PORT}
    return joined(ports, parse_range(settings.agent_ports, option="agent_ports"))


def _reserving(wanted: Wanted, reserved: str) -> Wanted:
    """Beside what a person reserves."""
    if wanted.kind not in RESERVING:
        return wanted
    told = ",".join(filter(None, (reserved, str(wanted.settings.get("reserved_ports", "")))))
    return replace(wanted, settings={**wanted.settings, "reserved_ports": told})


def _finish(wanted: Wanted, settings: UpSettings, place: Place, registry: str) -> Wanted:
    """What all daemons are told alike, then their own, then what a person wants otherwise."""
    values: dict[str, Any] = {
        "registry": registry,
        "data_dir": f"{place.data_dir}/{wanted.name}",
        "token": settings.token,
        "token_file": f"{place.data_dir}/token",
        "log_level": settings.log_level,
        **wanted.settings,
        **settings.settings.get(wanted.kind, {}),
        **settings.settings.get(wanted.name, {}),
    }
    return Wanted(name=wanted.name, kind=wanted.kind, settings=values, ready_url=wanted.ready_url, needs=wanted.needs)


def _http(name: str, port: int, *, kind: str = "", **settings: Any) -> Wanted:
    return Wanted(
        name=name,
        kind=kind or name,
        settings={"port": port, **settings},
        ready_url=f"http://{LOOPBACK}:{port}/ready",
    )


def _with(wanted: Wanted, *needs: Need) -> Wanted:
    return Wanted(name=wanted.name, kind=wanted.kind, settings=wanted.settings, ready_url=wanted.ready_url, needs=needs)


def _need(option: str, port: int) -> Need:
    return Need(option=option, address=LOOPBACK, port=port)


def _registry(place: Place) -> Wanted:
    return Wanted(name="registry", kind="registry", settings={}, ready_url=f"unix:{place.data_dir}/registry.sock")


def _master(settings: UpSettings) -> Wanted:
    return _with(_http("master", settings.master_port), _need("master_port", settings.master_port))


def _agents(settings: UpSettings, place: Place) -> list[Wanted]:
    whole = parse_range(settings.agent_ports, option="agent_ports")
    parts = split_range(whole, settings.agents, option="agent_ports")
    return [
        _with(
            _http(
                f"agent-{number + 1}",
                settings.agent_port + number,
                kind="agent",
                hostname=f"agent-{number + 1}",  # they play machines: constraints tell them apart by it
                resources=f"{settings.agent_resources};ports:[{low}-{high}]",
                dns_address=settings.dns_address if place.root else "",
            ),
            _need("agent_port", settings.agent_port + number),
        )
        for number, (low, high) in enumerate(parts)
    ]


def _services(settings: UpSettings) -> Wanted:
    return _with(
        _http("services", settings.services_port, service_ports=settings.service_ports),
        _need("services_port", settings.services_port),
    )


def listen_addresses(settings: UpSettings, place: Place) -> list[tuple[str, int, str]]:
    """Address, port and option of each place where names are served."""
    wide = [(settings.dns_address, 53, "dns_address")] if place.root and settings.dns_address else []
    return [(LOOPBACK, settings.dns_port, "dns_port"), *wide]


def _name_servers(settings: UpSettings, place: Place) -> list[Wanted]:
    listen = listen_addresses(settings, place)
    out = []
    for number in range(DNS_PROCESSES):
        http = settings.dns_http_port + number
        wanted = _http(
            f"dns-{number + 1}",
            http,
            kind="dns",
            id=f"{place.hostname}-{http}",
            listen=[f"{LOOPBACK}:{settings.dns_port}"],
            listen_optional=[f"{address}:{port}" for address, port, _ in listen[1:]],
            ttl_s=settings.ttl_s,
            **({"dialects": [{"kind": "l4lb"}]} if settings.node else {}),
        )
        needs = [Need(option=o, address=a, port=p, udp=udp) for a, p, o in listen for udp in (False, True)]
        out.append(_with(wanted, _need("dns_http_port", http), *needs))
    return out


def _balancer(settings: UpSettings) -> Wanted:
    """HTTPS is off, and its port anyone's, until there is a certificate."""
    own = settings.settings.get("lb", {})
    secure = bool(own.get("certificate") or own.get("certificate_key_file"))
    return _with(
        _http(
            "lb",
            settings.lb_admin_port,
            http_port=settings.lb_http_port,
            https_port=settings.lb_https_port,
            service_ports=settings.service_ports,
        ),
        _need("lb_admin_port", settings.lb_admin_port),
        _need("lb_http_port", settings.lb_http_port),
        *([_need("lb_https_port", settings.lb_https_port)] if secure else []),
    )


def _node_balancer(settings: UpSettings, place: Place) -> Wanted:
    """As a machine of its own has it, but at an address of its own too."""
    return _with(
        _http(
            "lb-node",
            settings.node_admin_port,
            kind="lb",
            node=True,
            bind=settings.node_address,
            http_port=settings.node_http_port,
            service_ports=settings.service_ports,
            id=f"{place.hostname}-node",
        ),
        _need("node_admin_port", settings.node_admin_port),
        Need(option="node_http_port", address=settings.node_address, port=settings.node_http_port),
    )


def _messaging(settings: UpSettings) -> Wanted:
    """Topologies are handed to it through the registry."""
    return _with(_http("messaging", settings.messaging_port), _need("messaging_port", settings.messaging_port))


def _monitor(settings: UpSettings, place: Place) -> Wanted:
    """Balancers and agents it finds in the registry."""
    where = _addresses(settings, place, "")
    told = {name: where[name] for name in ("master", "services", "messaging")}
    return _with(
        _http("monitor", settings.monitor_port, dns=where["dns_http"], **told),
        _need("monitor_port", settings.monitor_port),
    )


def _console(settings: UpSettings, place: Place) -> Wanted:
    where = _addresses(settings, place, "")
    told = {name: where[name] for name in ("master", "services", "lb", "messaging", "monitor") if name in where}
    domain = str(settings.settings.get("dns", {}).get("domain", "mesos"))
    return _with(
        _http("console", settings.console_port, domain=domain, **told), _need("console_port", settings.console_port)
    )


def _addresses(settings: UpSettings, place: Place, registry: str) -> dict[str, Any]:
    """What verbs need to find the daemons: the content of `addresses.json`."""

    def url(port: int) -> str:
        return f"http://{LOOPBACK}:{port}"

    return {
        "data_dir": str(place.data_dir),
        "registry": registry,
        "token_file": f"{place.data_dir}/token",
        "master": url(settings.master_port),
        "agents": [url(settings.agent_port + number) for number in range(settings.agents)],
        "services": url(settings.services_port),
        "dns": [f"{address}:{port}" for address, port, _ in listen_addresses(settings, place)],
        "dns_http": [url(settings.dns_http_port + number) for number in range(DNS_PROCESSES)],
        "messaging": url(settings.messaging_port),
        "monitor": url(settings.monitor_port),
        "console": url(settings.console_port),
        "lb": url(settings.lb_admin_port) if place.haproxy else "",
        "lb_http": url(settings.lb_http_port) if place.haproxy else "",
        "lb_node": url(settings.node_admin_port) if place.haproxy and settings.node else "",
    }


def _off(settings: UpSettings, place: Place) -> tuple[str, ...]:
    off = []
    if not place.haproxy:
        off.append("load balancer: no haproxy on PATH; apt-get install haproxy, then start again")
    if not place.root:
        off.append(f"names inside tasks ({settings.dns_address}:53, resolv.conf): needs root")
    return tuple(off)

"""Routes that an operator writes: `[[route]]` in TOML, what applying it would change, and what a request would meet."""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions import words
from fairlead_discovery.records import Check, Route, RoutePort, Traffic
from fairlead_lb.decisions.map_keys import ANY_HOST, EVERY_HOST
from fairlead_lb.decisions.parts import OPERATOR, checked

MOST_INDEX = 999


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One `[[route]]`: a port of a service. Durations are text as `500ms`, `5s`, `1m`."""

    service: str
    index: int = 0
    """Which of the service's ports; several entries of one service differ in it."""
    hosts: tuple[str, ...] = ()
    path: str = ""
    port: int = 0
    """Service port; 0: none."""
    mode: str = "http"
    balance: str = "roundrobin"
    sticky: bool = False
    check: str = ""
    """A path to ask for, `tcp` for a plain connect, empty for none."""
    check_every: str = "2s"
    check_timeout: str = "2s"
    check_fall: int = 3
    """Failed checks in a row until a server gets no requests."""
    timeout: str = "1m"
    """How long a server may take to answer."""
    reuse: bool = False
    retry_non_idempotent: bool = False
    mtls: bool = False
    """Servers speak TLS with a certificate of `fairlead ca`, and want the balancer's."""
    groups: tuple[str, ...] = ()
    traffic: Mapping[str, str | int | float | bool] = {}
    """As `rate = "100/s"`; the words are those of labels, see discovery's decisions/words.py."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    route: tuple[object, ...] = ()
    split: tuple[object, ...] = ()
    failover: tuple[object, ...] = ()
    router: tuple[object, ...] = ()
    resolver: tuple[object, ...] = ()
    intention: tuple[object, ...] = ()
    """These five are read by `split_files`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What leads from the routes that are there to those of a file."""

    added: Mapping[str, Route]
    changed: Mapping[str, tuple[Route, Route]]
    removed: Mapping[str, Route]

    @property
    def empty(self) -> bool:
        return not (self.added or self.changed or self.removed)


def parse(text: str, place: str) -> Mapping[str, Route]:
    """Service -> route. Raises Refused naming the file, the entry and the field."""
    try:
        found = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Refused(f"{place}: {error}") from error
    entries = [_entry(one, f"{place}: route {number}") for number, one in enumerate(found.route, 1)]
    return routes_of(entries, place)


def routes_of(entries: Collection[Entry], place: str) -> Mapping[str, Route]:
    """Raises Refused as `parse` does."""
    ports: dict[str, dict[int, RoutePort]] = {}
    for number, entry in enumerate(entries, 1):
        here = f"{place}: route {number} ({entry.service})"
        taken = ports.setdefault(entry.service, {})
        if not 0 <= entry.index <= MOST_INDEX:
            raise Refused(f"{here}: index {entry.index}: not between 0 and {MOST_INDEX}")
        if entry.index in taken:
            raise Refused(f"{here}: index {entry.index} is there twice")
        taken[entry.index] = _port(entry, here)
    made = {service: _route(service, tuple(there[i] for i in sorted(there))) for service, there in ports.items()}
    for service, route in made.items():
        _check(route, f"{place}: {service}")
    return made


def entries_of(route: Route) -> Iterator[Entry]:
    """The other way: what `show` prints."""
    for port in route.ports:
        check = port.check or Check()
        yield Entry(
            service=route.service,
            index=port.index,
            hosts=port.vhosts,
            path=port.path,
            port=port.service_port,
            mode=port.mode,
            balance=port.balance,
            sticky=port.sticky,
            check="" if port.check is None else check.path or "tcp",
            check_every=words.duration(check.interval_s),
            check_timeout=words.duration(check.timeout_s),
            check_fall=check.fall,
            timeout=words.duration(port.timeout_server_s),
            reuse=port.reuse,
            retry_non_idempotent=port.retry_non_idempotent,
            mtls=port.mtls,
            groups=port.groups,
            traffic={name: text for name, word in words.TRAFFIC.items() if (text := word.write(port.traffic))},
        )


def plan(now: Mapping[str, Route], wanted: Mapping[str, Route], *, prune: bool) -> Plan:
    """`prune` removes an operator's routes that the file does not have. Raises Refused for another's route."""
    for service in wanted:
        writable(now.get(service), service)
    gone = {s: r for s, r in now.items() if r.source == OPERATOR and s not in wanted} if prune else {}
    return Plan(
        added={s: r for s, r in wanted.items() if s not in now},
        changed={s: (now[s], r) for s, r in wanted.items() if s in now and now[s] != r},
        removed=gone,
    )


def writable(route: Route | None, service: str) -> None:
    """Raises Refused for a route that is made of an app's labels: the next deployment would overwrite it."""
    if route is not None and route.source != OPERATOR:
        raise Refused(
            f"{service}: its route is written by {route.source}, from the app's labels; change the app instead"
        )


def meets(hosts: Mapping[str, str], host: str, path: str) -> tuple[str, str] | None:
    """Which entry (`shop.example.com/cart`, `*.example.com`) a request meets, and its value, as HAProxy decides it:
    what is for every host first, then the exact host, then the longest wildcard, then `*/…`; below it the longest path, which ends at segments.
    """
    name = host.partition(":")[0].rstrip(".").lower()
    for candidate in (EVERY_HOST, name, *_wildcards(hosts, name), ANY_HOST):
        fitting = [key for key in hosts if _covers(key, candidate, path)]
        if fitting:
            best = max(fitting, key=len)
            return best, hosts[best]
    return None


def _wildcards(hosts: Collection[str], name: str) -> list[str]:
    """Only the longest that fits is looked at, as HAProxy's map has it."""
    wild = {key.partition("/")[0] for key in hosts if key.startswith("*.")}
    return sorted((w for w in wild if name.endswith(w[1:])), key=len, reverse=True)[:1]


def _covers(key: str, host: str, path: str) -> bool:
    there, _, rest = key.partition("/")
    return there == host and f"{path.rstrip('/')}/".startswith(f"/{rest}/" if rest else "/")


def _entry(found: object, place: str) -> Entry:
    try:
        return msgspec.convert(found, Entry)
    except msgspec.ValidationError as error:
        raise Refused(f"{place}: {error}") from error


def _port(entry: Entry, place: str) -> RoutePort:
    if entry.sticky and entry.mode != "http":
        raise Refused(
            f"{place}: sticky: a cookie keeps a client at its server, which needs mode http, not {entry.mode}"
        )
    return RoutePort(
        index=entry.index,
        service_port=entry.port,
        mode=entry.mode,
        vhosts=entry.hosts,
        path=entry.path,
        sticky=entry.sticky,
        balance=entry.balance,
        check=_check_of(entry, place),
        reuse=entry.reuse,
        retry_non_idempotent=entry.retry_non_idempotent,
        mtls=entry.mtls,
        timeout_server_s=_seconds(entry.timeout, f"{place}: timeout"),
        groups=entry.groups,
        traffic=_traffic(entry.traffic, place),
    )


def _traffic(given: Mapping[str, str | int | float | bool], place: str) -> Traffic:
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in words.TRAFFIC:
            raise Refused(f"{place}: traffic: {words.shown(name)} is none of {', '.join(words.TRAFFIC)}")
        try:
            found.update(words.TRAFFIC[name].read(str(value).lower() if isinstance(value, bool) else str(value)))
        except words.BadLabel as error:
            raise Refused(f"{place}: traffic: {name}: {error}") from error
    return Traffic(**found)


def _check_of(entry: Entry, place: str) -> Check | None:
    if not entry.check:
        return None
    if entry.check != "tcp" and not entry.check.startswith("/"):
        raise Refused(f"{place}: check {words.shown(entry.check)}: a path as /health, or tcp")
    path = "" if entry.check == "tcp" else entry.check
    return Check(
        path=path,
        interval_s=_seconds(entry.check_every, f"{place}: check_every"),
        timeout_s=_seconds(entry.check_timeout, f"{place}: check_timeout"),
        fall=entry.check_fall,
    )


def _route(service: str, ports: tuple[RoutePort, ...]) -> Route:
    framework, name = paths.split_service_key(service)
    if not framework or not name:
        raise Refused(f"{service}: no service key, as marathon:/shop/web or erp:db")
    app = name if name.startswith("/") else ""
    return Route(service=service, app=app, ports=ports, source=OPERATOR)


def _check(route: Route, place: str) -> None:
    try:
        checked(route)
    except Refused as error:
        raise Refused(f"{place}: {error}") from error
    if not all(port.vhosts or port.service_port for port in route.ports):
        raise Refused(f"{place}: needs hosts or a port, or nobody could reach it")


def _seconds(text: str, place: str) -> float:
    try:
        return words.seconds(text)
    except words.BadLabel as error:
        raise Refused(f"{place}: {error}") from error

"""Service ports: one an app's port, unique among all apps, from the setting's range unless the app names it."""

from collections.abc import Iterator, Mapping

import msgspec

from fairlead_core.services.decisions.app import App, HealthCheck, PortDefinition
from fairlead_core.services.decisions.problems import Problem, raise_if_any
from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import labels
from fairlead_discovery.records import Check, Route, RoutePort


def with_service_ports(app: App, *, taken: Mapping[int, str], first: int, last: int) -> App:
    """The app with each port 0 replaced by a free one. `taken` maps ports of other apps to their ids.

    Raises Invalid naming the app that has a port already, Refused when the range is used up.
    """
    raise_if_any(_conflicts(app, taken))
    own = {d.port for d in app.port_definitions if d.port}
    free = (n for n in range(first, last + 1) if n not in taken and n not in own)
    labelled = dict(_labelled(app))
    definitions = tuple(
        d
        if d.port or app.require_ports
        else msgspec.structs.replace(d, port=labelled.get(index) or _next(free, first, last))
        for index, d in enumerate(app.port_definitions)
    )
    return msgspec.structs.replace(app, port_definitions=definitions)


def _next(free: Iterator[int], first: int, last: int) -> int:
    try:
        return next(free)
    except StopIteration:
        raise Refused(f"All ports in the range [{first}-{last}] are already in use") from None


def _conflicts(app: App, taken: Mapping[int, str]) -> Iterator[Problem]:
    for index, definition in enumerate(app.port_definitions):
        if definition.port in taken:
            yield Problem(path=f"/portDefinitions({index})/port", error=_taken(definition.port, taken))
    for index, number in _labelled(app):
        if number in taken:
            yield Problem(path=f"/labels/HAPROXY_{index}_PORT", error=_taken(number, taken))


def _taken(number: int, taken: Mapping[int, str]) -> str:
    return f"service port {number} is taken by {taken[number]}"


def _labelled(app: App) -> Iterator[tuple[int, int]]:
    for index in range(len(app.port_definitions)):
        text = app.labels.get(f"HAPROXY_{index}_PORT", "")
        if text.isascii() and text.isdigit() and 0 < int(text) <= 65535:
            yield index, int(text)


def taken_ports(app: App) -> Mapping[int, str]:
    """Every service port of the app, for others to keep off."""
    numbers = {d.port for d in app.port_definitions if d.port} | {number for _, number in _labelled(app)}
    return dict.fromkeys(numbers, app.id)


def route_of(app: App, service: str) -> Route | None:
    """What balancers are told of the app; None without ports. Raises Invalid naming a label that would break them."""
    ports = tuple(
        RoutePort(
            index=index,
            name=definition.name or "",
            service_port=definition.port,
            mode=_mode(app, index, definition),
            check=_check(app, index),
        )
        for index, definition in enumerate(app.port_definitions)
        if definition.protocol != "udp"  # no balancer takes it
    )
    if not app.port_definitions:
        return None
    route, problems = labels.route_of(service, app.labels, ports, app=app.id)
    raise_if_any(Problem(path=f"/labels/{p.label}", error=p.reason) for p in problems)
    return route


def _mode(app: App, index: int, definition: PortDefinition) -> str:
    """As marathon-lb: HTTP for a port with an HTTP check (or one named so); a virtual host makes it HTTP anyway."""
    check = _checked_at(app, index)
    return "http" if definition.name == "http" or (check is not None and check.kind == "HTTP") else "tcp"


def _check(app: App, index: int) -> Check | None:
    check = _checked_at(app, index)
    if check is None or check.kind == "COMMAND":
        return None
    return Check(path=check.path or "/") if check.kind == "HTTP" else Check()


def _checked_at(app: App, index: int) -> HealthCheck | None:
    """The health check that asks this port."""
    return next((c for c in app.health_checks if c.port is None and (c.port_index or 0) == index), None)

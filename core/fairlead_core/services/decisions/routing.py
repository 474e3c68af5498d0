"""Service ports: one an app's port, unique among all apps, from the setting's range unless the app names it.

With `requirePorts` the number in a definition is a host port, which the task binds: a balancer that bound it too, on
the same machine, would keep the task from starting. Such a port has a service port only by the label HAPROXY_{n}_PORT.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from fairlead_core.services.decisions.app import App, HealthCheck, PortDefinition
from fairlead_core.services.decisions.problems import Problem, raise_if_any
from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import colours, labels
from fairlead_discovery.decisions.ports import Range, holds
from fairlead_discovery.decisions.words import BadLabel
from fairlead_discovery.records import Check, Route, RoutePort

LOWEST = 1024
LONGEST_CHECK_S = 3_600.0
MOST_FAILURES = 100
"""What a balancer takes; more of either says as much as never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRules:
    """Ports from `first` to `last` are given out; `reserved` ones are nobody's, below 1024 only with `low`."""

    first: int
    last: int
    reserved: tuple[Range, ...] = ()
    low: bool = False

    def refusal(self, number: int) -> str:
        """Why it can be no app's service port, "" when it can."""
        if number < LOWEST and not self.low:
            return f"service port {number} is below {LOWEST} (setting low_service_ports)"
        if holds(self.reserved, number):
            return f"service port {number} is reserved: a daemon or tasks listen there (setting reserved_ports)"
        return ""


def with_service_ports(app: App, rules: PortRules, *, taken: Mapping[int, str], held: Collection[int] = ()) -> App:
    """The app with each port 0 replaced by a free one. `taken` maps ports of other apps to their ids.

    Ports it has `held` before it may keep, whatever the rules say by now. Raises Invalid naming the field of a port
    that is another app's or reserved, Refused when the range is used up.
    """
    raise_if_any(_conflicts(app, rules, taken, held))
    labelled = dict(_labelled(app))
    own = {*service_ports(app).values(), *labelled.values()}
    free = (n for n in range(rules.first, rules.last + 1) if not (n in taken or n in own or rules.refusal(n)))
    definitions = tuple(
        d if d.port or app.require_ports else msgspec.structs.replace(d, port=labelled.get(index) or _next(free, rules))
        for index, d in enumerate(app.port_definitions)
    )
    return msgspec.structs.replace(app, port_definitions=definitions)


def service_ports(app: App) -> Mapping[int, int]:
    """By the port's index; those of labels are not among them. None with `requirePorts`: its numbers are host ports."""
    if app.require_ports:
        return {}
    return {index: d.port for index, d in enumerate(app.port_definitions) if d.port}


def _next(free: Iterator[int], rules: PortRules) -> int:
    try:
        return next(free)
    except StopIteration:
        raise Refused(f"All ports in the range [{rules.first}-{rules.last}] are already in use") from None


def _conflicts(app: App, rules: PortRules, taken: Mapping[int, str], held: Collection[int]) -> Iterator[Problem]:
    asked = [(f"/portDefinitions({index})/port", number) for index, number in service_ports(app).items()]
    asked += [(f"/labels/HAPROXY_{index}_PORT", number) for index, number in _labelled(app)]
    for path, number in asked:
        if number in taken:
            yield Problem(path=path, error=f"service port {number} is taken by {taken[number]}")
        elif number not in held and (why := rules.refusal(number)):
            yield Problem(path=path, error=why)


def _labelled(app: App) -> Iterator[tuple[int, int]]:
    for index in range(len(app.port_definitions)):
        text = app.labels.get(f"HAPROXY_{index}_PORT", "")
        if text.isascii() and text.isdigit() and 0 < int(text) <= 65535:
            yield index, int(text)


def taken_ports(app: App) -> Mapping[int, str]:
    """Every service port of the app, for others to keep off."""
    numbers = {*service_ports(app).values(), *(number for _, number in _labelled(app))}
    return dict.fromkeys(numbers, app.id)


def route_of(app: App, service: str) -> Route | None:
    """What balancers are told of the app; None without ports. Raises Invalid naming a label that would break them."""
    ports = tuple(
        RoutePort(
            index=index,
            name=definition.name or "",
            service_port=service_ports(app).get(index, 0),
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
    if route.colour is None or app.version_info is None:
        return route
    scaled = msgspec.structs.replace(route.colour, scaled_at=app.version_info.last_scaling_at)
    return msgspec.structs.replace(route, colour=scaled)


def group_of(app: App) -> str:
    """What apps have in common that share their service ports, each of them one colour of it; "" for nobody."""
    try:
        colour = colours.of_labels(app.id, app.labels)
    except BadLabel:
        return ""  # refused where its route is made
    return colour.group if colour is not None else ""


def _mode(app: App, index: int, definition: PortDefinition) -> str:
    """As marathon-lb: HTTP for a port with an HTTP check (or one named so); a virtual host makes it HTTP anyway."""
    check = _checked_at(app, index)
    return "http" if definition.name == "http" or (check is not None and check.kind == "HTTP") else "tcp"


def _check(app: App, index: int) -> Check | None:
    check = _checked_at(app, index)
    if check is None or check.kind == "COMMAND":
        return None
    """As the app has it for its agent. No failure limit (0: never killed) is the balancer's own."""
    return Check(
        path=(check.path or "/") if check.kind == "HTTP" else "",
        interval_s=min(LONGEST_CHECK_S, max(1.0, check.interval_seconds)),
        timeout_s=min(LONGEST_CHECK_S, max(1.0, check.timeout_seconds)),
        fall=min(MOST_FAILURES, check.max_consecutive_failures) or Check().fall,
    )


def _checked_at(app: App, index: int) -> HealthCheck | None:
    """The health check that asks this port."""
    return next((c for c in app.health_checks if c.port is None and (c.port_index or 0) == index), None)

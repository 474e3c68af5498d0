"""marathon-lb's labels, and fairlead's own, as a Route. What could break a balancer's configuration gets no further.

HAPROXY_0_VHOST=shop.example.org,www.example.org   HAPROXY_0_PATH=/cart   HAPROXY_0_PORT=10100   HAPROXY_0_MODE=http
HAPROXY_0_STICKY=true   HAPROXY_0_BALANCE=leastconn   HAPROXY_0_ENABLED=false   HAPROXY_GROUP=external
FAIRLEAD_0_REUSE=true   FAIRLEAD_0_RETRY_NON_IDEMPOTENT=true   FAIRLEAD_TIMEOUT=5s   (without the number: every port)
and all of words.py.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from fairlead_discovery import paths
from fairlead_discovery.decisions import colours, label_names, vips, words
from fairlead_discovery.decisions.words import BadLabel, flag, shown
from fairlead_discovery.records import Colour, Port, Route, RoutePort

HOST_LIMIT = 253
PATH_LIMIT = 256
BALANCES = ("roundrobin", "leastconn", "first", "source", "random", "uri")
"""HAProxy's algorithms that take no argument and let servers come and go while it runs."""
MODES = ("http", "tcp", "tls")
_LABEL = re.compile(r"(HAPROXY|FAIRLEAD)_(?:(\d{1,6})_)?([A-Z_]+)")
_RAW = re.compile(
    r"HAPROXY_\d{1,6}_(?:SSL_CERT|BIND_ADDR|BIND_OPTIONS|BACKEND_HEALTHCHECK_PORT_INDEX"
    r"|(?:[A-Z]+_)*(?:FRONTEND|BACKEND)(?:_[A-Z_]+)?)"
)
"""marathon-lb's labels that nothing comes of: they put their text into the configuration, or name another port to check."""
_CLOSED = "closed"
"""Among a port's values: nobody is let in."""
_OURS = re.compile(r"FAIRLEAD_(?:(\d{1,6})_)?(.*)", re.DOTALL)
_NEAR = 0.75
"""Of `difflib`: how alike a name must be to be taken for another one, misspelt."""
_NOT_NEEDED = "BACKEND_WEIGHT"
_HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&()*+,=:@%/-]*")


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """`str()`: `HAPROXY_0_VHOST: 'a b' is no host name`."""

    label: str
    reason: str
    closes: bool = False
    """Its port lets nobody in."""

    def __str__(self) -> str:
        return f"{self.label}: {self.reason}{'; until it is right nobody is let in' if self.closes else ''}"


def vhosts(text: str) -> tuple[str, ...]:
    """A comma list of host names, in lower case, without repetitions; `*.` may lead."""
    names = dict.fromkeys(part.strip().rstrip(".").lower() for part in text.split(","))
    for name in names:
        if not _HOST.fullmatch(name) or len(name) > HOST_LIMIT:
            raise BadLabel(f"{shown(name)} is no host name")
    return tuple(names)


def port_number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len("65535") else 0
    if not 1 <= number <= 65535:
        raise BadLabel(f"{shown(text)} is no port, 1 to 65535")
    return number


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in choices:
            raise BadLabel(f"{shown(text)} is none of {', '.join(choices)}")
        return text.lower()

    return read


Reader = Callable[[str], Any]
PER_PORT: Mapping[str, tuple[str, Reader]] = {
    "HAPROXY_VHOST": ("vhosts", vhosts),
    "HAPROXY_PATH": ("path", words.path),
    "HAPROXY_PORT": ("service_port", port_number),
    "HAPROXY_MODE": ("mode", one_of(MODES)),
    "HAPROXY_STICKY": ("sticky", flag),
    "HAPROXY_BALANCE": ("balance", one_of(BALANCES)),
    "HAPROXY_ENABLED": ("enabled", flag),
}
"""`HAPROXY_{n}_<key>`: what of the route it sets. Others of marathon-lb's are left alone."""
TRAFFIC_PER_PORT: Mapping[str, str] = {
    "HAPROXY_AUTH": "auth",
    "HAPROXY_BACKEND_NETWORK_ALLOWED_ACL": "allow",
    "HAPROXY_HTTP_BACKEND_PROXYPASS_PATH": "strip_path",
    "HAPROXY_HTTP_BACKEND_REVPROXY_PATH": "location_prefix",
    "HAPROXY_REDIRECT_TO_HTTPS": "https_only",
    "HAPROXY_USE_HSTS": "hsts",
}
"""marathon-lb's words for some of `words.TRAFFIC`."""
FOR_ANY_PORT: Mapping[str, tuple[str, Reader]] = {
    "HAPROXY_GROUP": ("groups", words.names),
    "FAIRLEAD_TIMEOUT": ("timeout_server_s", words.seconds),
    "FAIRLEAD_REUSE": ("reuse", flag),
    "FAIRLEAD_RETRY_NON_IDEMPOTENT": ("retry_non_idempotent", flag),
    "FAIRLEAD_MTLS": ("mtls", flag),
}
"""`FAIRLEAD_<key>` for every port, `FAIRLEAD_{n}_<key>` for one; so are those of `words.TRAFFIC`."""


def route_of(
    service: str, labels: Mapping[str, str], ports: Sequence[RoutePort], *, app: str = "", source: str = "services"
) -> tuple[Route, tuple[LabelProblem, ...]]:
    """The Route that labels make of a service's ports, and what is wrong with them.

    `ports` is what is known without labels: index, name, service port, check. A port that is not enabled is left
    out. A bad label counts as not given, and is among the problems.
    """
    values, problems = _values(labels, {port.index for port in ports})
    out: list[RoutePort] = []
    for port in ports:
        mine = {**values.get(None, {}), **values.get(port.index, {})}
        if mine.pop("enabled", True):
            out.append(_with(port, mine, problems))
    problems += _misspelt(labels)
    raw = tuple(sorted(label for label in labels if _is_raw(label) or vips.asked((label,))))
    colour = _colour(app or paths.split_service_key(service)[1], labels, problems)
    route = Route(service=service, app=app, ports=tuple(out), source=source, not_taken=raw, colour=colour)
    return route, tuple(problems)


def _colour(app_id: str, labels: Mapping[str, str], problems: list[LabelProblem]) -> Colour | None:
    try:
        return colours.of_labels(app_id, labels)
    except BadLabel as error:
        label, _, why = str(error).partition(": ")
        problems.append(LabelProblem(label, why))
        return None


def _is_raw(label: str) -> bool:
    if _RAW.fullmatch(label) is None or label.endswith(_NOT_NEEDED):
        return False
    _, number, key = label.split("_", 2)
    return _target(f"HAPROXY_{key}", number) is None


def _with(port: RoutePort, values: Mapping[str, Any], problems: list[LabelProblem]) -> RoutePort:
    """As marathon-lb: a virtual host makes it HTTP unless a label says otherwise; a path needs a virtual host."""
    of_traffic = {name: value for name, value in values.items() if name in words.FIELDS}
    if _CLOSED in values:
        of_traffic["deny"] = words.EVERYBODY
    plain = {name: value for name, value in values.items() if name not in {*words.FIELDS, _CLOSED}}
    changed = replace(port, **plain, traffic=replace(port.traffic, **of_traffic))
    if changed.vhosts and "mode" not in values:
        changed = replace(changed, mode="http")
    if changed.vhosts and changed.mode == "tcp":
        problems.append(LabelProblem(f"HAPROXY_{port.index}_VHOST", "a virtual host needs mode http, it is tcp"))
        changed = replace(changed, vhosts=(), path="")
    if changed.sticky and changed.mode != "http":
        reason = f"a client is kept at its server by a cookie, which needs mode http, it is {changed.mode}"
        problems.append(LabelProblem(f"HAPROXY_{port.index}_STICKY", reason))
        changed = replace(changed, sticky=False)
    if changed.path and not changed.vhosts:
        reason = f"a path needs a virtual host, HAPROXY_{port.index}_VHOST"
        problems.append(LabelProblem(f"HAPROXY_{port.index}_PATH", reason))
        changed = replace(changed, path="")
    return changed


Values = dict[int | None, dict[str, Any]]


def _values(labels: Mapping[str, str], known: set[int]) -> tuple[Values, list[LabelProblem]]:
    """By port index, None for every port."""
    values: Values = {}
    problems: list[LabelProblem] = []
    for label in sorted(labels):
        match = _LABEL.fullmatch(label)
        if match is None:
            continue
        family, number, key = match.groups()
        target = _target(f"{family}_{key}", number)
        if target is None:
            continue
        index = None if number is None else int(number)
        if index is not None and index not in known:
            problems.append(LabelProblem(label, f"the service has no port {index}"))
            continue
        try:
            found = target[1](labels[label])
            values.setdefault(index, {}).update(found if target[0] == words.MANY else {target[0]: found})
        except BadLabel as error:
            closed = _word(f"{family}_{key}", number) in words.ACCESS
            problems.append(LabelProblem(label, str(error), closed))
            if closed:
                values.setdefault(index, {})[_CLOSED] = True
    return values, problems


def _target(key: str, number: str | None) -> tuple[str, Reader] | None:
    if key in FOR_ANY_PORT:
        return FOR_ANY_PORT[key]
    if word := _word(key, number):
        return words.MANY, words.TRAFFIC[word].read
    return PER_PORT.get(key) if number is not None else None


def _word(key: str, number: str | None) -> str:
    """Of `words.TRAFFIC`; "" for none."""
    if key in TRAFFIC_PER_PORT:
        return TRAFFIC_PER_PORT[key] if number is not None else ""
    word = key.removeprefix("FAIRLEAD_").lower() if key.startswith("FAIRLEAD_") else ""
    return word if word in words.TRAFFIC else ""


def _misspelt(labels: Mapping[str, str]) -> Iterator[LabelProblem]:
    """Labels of ours that nobody reads: those with a port's number, and others that are nearly one that somebody does."""
    for label in sorted(labels):
        match = _OURS.fullmatch(label)
        if match is None or label in label_names.ALL:
            continue
        if _LABEL.fullmatch(label) is not None and _target(f"FAIRLEAD_{match[2]}", match[1]) is not None:
            continue
        known = _spellings(match[1])
        near = difflib.get_close_matches(match[2].upper(), known, 1, _NEAR)
        if near:
            yield LabelProblem(label, f"is no label of fairlead; {known[near[0]]} is")
        elif match[1] is not None:
            yield LabelProblem(label, "is no label of fairlead")


def _spellings(number: str | None) -> Mapping[str, str]:
    """What stands behind `FAIRLEAD_` or `FAIRLEAD_0_` in labels that are read, and the whole label it belongs to."""
    others = {label.removeprefix("FAIRLEAD_"): label for label in label_names.ALL}
    marathon_lb = {key.removeprefix("HAPROXY_"): key for key in (*PER_PORT, *TRAFFIC_PER_PORT)}
    mine = [key.removeprefix("FAIRLEAD_") for key in FOR_ANY_PORT if key.startswith("FAIRLEAD_")]
    mine += [word.upper() for word in words.TRAFFIC]
    here = "" if number is None else f"{number}_"
    theirs = {name: key.replace("HAPROXY_", f"HAPROXY_{number or 0}_") for name, key in marathon_lb.items()}
    return {**others, **theirs, **{name: f"FAIRLEAD_{here}{name}" for name in mine}}


def asks(labels: Mapping[str, str]) -> bool:
    """Whether any label says where a port is to be found: a foreign task without one gets no route."""
    matches = filter(None, map(_LABEL.fullmatch, labels))
    return any(match[2] is not None and f"{match[1]}_{match[3]}" in PER_PORT for match in matches)


def plain_ports(ports: Sequence[Port]) -> tuple[RoutePort, ...]:
    """Of a foreign task's ports: no service port but what labels give. UDP is nothing for HAProxy."""
    return tuple(
        RoutePort(index=port.index, name=port.name, mode="http" if port.name == "http" else "tcp")
        for port in ports
        if port.protocols != ("udp",)
    )

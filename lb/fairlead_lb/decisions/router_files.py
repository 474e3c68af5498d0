"""Routers as an operator writes them: `[[router]]` with its `[[router.route]]`, and the same in words."""

import types
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions import words
from fairlead_discovery.policies import Router, RouterLeg
from fairlead_discovery.records import Record
from fairlead_lb.decisions.routers import checked, destination


def router_of(entry: object, place: str) -> Router:
    """Of a table as TOML or JSON has it; `request_timeout` is text. Raises Refused naming the field."""
    given = _with_seconds(entry, place)
    try:
        made = msgspec.convert(given, Router)
    except msgspec.ValidationError as error:
        raise Refused(f"{place}: {error}") from error
    if strange := next(unknown_keys(given, Router), ""):
        raise Refused(f"{place}: Object contains unknown field `{strange}`")
    for service in (made.service, *(leg.destination.service for leg in made.route if leg.destination.service)):
        if not all(paths.split_service_key(service)):
            raise Refused(f"{place}: {service}: no service key, as marathon:/shop/web or erp:db")
    try:
        checked(made)
    except Refused as error:
        raise Refused(f"{place}: {error}") from error
    return made


def entry_of(router: Router) -> dict[str, Any]:
    """The other way: what `route show` prints, without what is as nothing was said."""
    found: dict[str, Any] = msgspec.to_builtins(router)
    del found["kind"]
    for leg in found.get("route", ()):
        if (timeout_s := leg.get("destination", {}).pop("request_timeout_s", 0)) > 0:
            leg["destination"]["request_timeout"] = words.duration(timeout_s)
    return found


def told(router: Router) -> str:
    """`GET /api… to erp:api, others stay`."""
    return ", ".join([*(f"{when(leg)} to {_where(router, leg)}" for leg in router.route), "others stay"])


def when(leg: RouterLeg) -> str:
    """What it asks of a request, in words; `all` for nothing."""
    m = leg.match
    path = m.path_exact or (m.path_prefix and f"{m.path_prefix}…") or (m.path_regex and f"~{m.path_regex}")
    said = [" ".join(filter(None, ("|".join(m.methods), path)))]
    for h in m.header:
        value = h.exact or (h.prefix and f"{h.prefix}…") or (h.suffix and f"…{h.suffix}")
        value = value or (h.contains and f"…{h.contains}…") or (h.regex and f"~{h.regex}")
        said.append(f"{h.name}{'!' if h.invert else ''}={value}" if value else f"{'no ' if h.invert else ''}{h.name}")
    said += [f"?{q.name}" + (f"={q.exact or f'~{q.regex}'}" if q.exact or q.regex else "") for q in m.query_param]
    return " ".join(filter(None, said)) or "all"


def _where(router: Router, leg: RouterLeg) -> str:
    key = destination(router, leg.destination)
    return f"{key.service}#{key.index}" if key.index else key.service


def _with_seconds(entry: object, place: str) -> object:
    """`request_timeout = "5s"` as the record has it. What is no table is left to the record's own check."""
    if not isinstance(entry, Mapping) or not isinstance(legs := entry.get("route", ()), list | tuple):
        return entry
    return {**entry, "kind": "router", "route": [_leg(leg, f"{place}: route {n}") for n, leg in enumerate(legs, 1)]}


def _leg(leg: object, place: str) -> object:
    there = leg.get("destination") if isinstance(leg, Mapping) else None
    if not isinstance(leg, Mapping) or not isinstance(there, Mapping):
        return leg
    if "request_timeout_s" in there:
        raise Refused(f"{place}: request_timeout_s: write request_timeout, as 5s")
    if "request_timeout" not in there:
        return leg
    rest = {key: value for key, value in there.items() if key != "request_timeout"}
    try:
        return {**leg, "destination": {**rest, "request_timeout_s": words.seconds(str(there["request_timeout"]))}}
    except words.BadLabel as error:
        raise Refused(f"{place}: request_timeout: {error}") from error


def unknown_keys(given: object, kind: object, place: str = "$") -> Iterator[str]:
    """What the record would ignore, as `$.route[0].match.paths`."""
    if isinstance(given, list | tuple):
        inner = next(iter(get_args(kind)), None)
        for number, one in enumerate(given):
            yield from unknown_keys(one, inner, f"{place}[{number}]")
    elif isinstance(given, Mapping) and (struct := _struct(kind)) is not None:
        known = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
        for key, value in given.items():
            if key not in known and (place, key) != ("$", "kind"):
                yield f"{place}.{key}"
            yield from unknown_keys(value, known.get(key), f"{place}.{key}")
    elif isinstance(given, Mapping) and len(pair := get_args(kind)) == len(("key", "value")):
        for key, value in given.items():
            yield from unknown_keys(value, pair[1], f"{place}.{key}")


def _struct(kind: object) -> type[Record] | None:
    """The record's type, also of one that may be left out."""
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next((k for k in kinds if isinstance(k, type) and not get_args(k) and issubclass(k, Record)), None)

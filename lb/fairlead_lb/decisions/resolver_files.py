"""Resolvers as an operator writes them: `[[resolver]]`, and the same in words."""

from collections.abc import Mapping
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions import words
from fairlead_discovery.policies import Resolver, subset_of
from fairlead_lb.decisions.resolvers import checked
from fairlead_lb.decisions.router_files import unknown_keys

_TIMES = ("connect_timeout", "request_timeout")


def resolver_of(entry: object, place: str) -> Resolver:
    """Of a table as TOML has it; times are text. Raises Refused naming the field."""
    given = _with_seconds(entry, place)
    try:
        made = msgspec.convert(given, Resolver)
    except msgspec.ValidationError as error:
        raise Refused(f"{place}: {error}") from error
    if strange := next(unknown_keys(given, Resolver), ""):
        raise Refused(f"{place}: Object contains unknown field `{strange}`")
    for service in (made.service, *([made.redirect.service] if made.redirect is not None else [])):
        if not all(paths.split_service_key(service)):
            raise Refused(f"{place}: {service}: no service key, as marathon:/shop/web or erp:db")
    try:
        return checked(made)
    except Refused as error:
        raise Refused(f"{place}: {error}") from error


def entry_of(resolver: Resolver) -> dict[str, Any]:
    """The other way: what `route show` prints, without what is as nothing was said."""
    found: dict[str, Any] = msgspec.to_builtins(resolver)
    del found["kind"]
    for name in _TIMES:
        if (value_s := found.pop(f"{name}_s", 0)) > 0:
            found[name] = words.duration(value_s)
    return found


def told(resolver: Resolver) -> str:
    """`v1 (version == v1), v2 (version == v2), v1 unless told otherwise`."""
    to = resolver.redirect
    said = [f"{name} ({subset.filter or 'all'})" for name, subset in resolver.subsets.items()]
    said += [f"{resolver.default_subset} unless told otherwise"] if resolver.default_subset else []
    said += [f"{subset_of(to.service, to.service_subset)} answers instead"] if to is not None else []
    said += [f"server by {resolver.load_balancer.policy}"] if resolver.load_balancer.policy else []
    for name in _TIMES:
        if value_s := getattr(resolver, f"{name}_s"):
            said.append(f"{name} {words.duration(value_s)}")
    return ", ".join(said) or "as its route says"


def _with_seconds(entry: object, place: str) -> object:
    """What is no table is left to the record's own check."""
    if not isinstance(entry, Mapping):
        return entry
    found = {"kind": "resolver", **entry}
    for name in _TIMES:
        if f"{name}_s" in found:
            raise Refused(f"{place}: {name}_s: write {name}, as 5s")
        if name in found:
            try:
                found[f"{name}_s"] = words.seconds(str(found.pop(name)))
            except words.BadLabel as error:
                raise Refused(f"{place}: {name}: {error}") from error
    return found

"""Resources as values: scalars in thousandths (Mesos' fixed point with 3 decimals), ports as ranges.

A bundle is keyed by (name, role): `("cpus", "*")` is unreserved. Mesos JSON in and out; its text form
`cpus:24;mem:24576;ports:[21000-24000];cpus(role):8` in.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_daemon.errors import Refused

Key = tuple[str, str]
Range = tuple[int, int]
"""First and last number, both included."""
UNRESERVED = "*"
NUMBER_MOST = 2**53
"""Of a range. A port's is 65535."""
SCALAR_MOST = 1e15
_ITEM = re.compile(r"^\s*([A-Za-z0-9_.-]+)\s*(?:\(\s*([^()]+?)\s*\))?\s*:\s*(.+?)\s*$")


def merge(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Sorted, disjoint, not touching."""
    out: list[Range] = []
    for begin, end in sorted(ranges):
        if out and begin <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((begin, end))
    return tuple(out)


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> tuple[Range, ...]:
    rest = list(merge(ranges))
    for low, high in merge(taken):
        cut: list[Range] = []
        for begin, end in rest:
            if end < low or begin > high:
                cut.append((begin, end))
                continue
            if begin < low:
                cut.append((begin, low - 1))
            if end > high:
                cut.append((high + 1, end))
        rest = cut
    return tuple(rest)


def covers(ranges: Iterable[Range], wanted: Iterable[Range]) -> bool:
    return not without(wanted, ranges)


@dataclass(frozen=True, slots=True)
class Resources:
    """A bundle; never negative, nothing empty is kept."""

    scalars: Mapping[Key, int] = field(default_factory=dict)
    """Thousandths: 1.5 cpus is 1500; mem and disk in thousandths of MB."""
    ranges: Mapping[Key, tuple[Range, ...]] = field(default_factory=dict)

    def __add__(self, other: "Resources") -> "Resources":
        scalars = dict(self.scalars)
        for key, value in other.scalars.items():
            scalars[key] = scalars.get(key, 0) + value
        ranges = dict(self.ranges)
        for key, value_ in other.ranges.items():
            ranges[key] = merge((*ranges.get(key, ()), *value_))
        return Resources(scalars, ranges)

    def __sub__(self, other: "Resources") -> "Resources":
        """What is left; what is not there cannot be taken (it stops at nothing)."""
        scalars = dict(self.scalars)
        for key, value in other.scalars.items():
            scalars[key] = scalars.get(key, 0) - value
        ranges = dict(self.ranges)
        for key, value_ in other.ranges.items():
            ranges[key] = without(ranges.get(key, ()), value_)
        return Resources({k: v for k, v in scalars.items() if v > 0}, {k: v for k, v in ranges.items() if v})

    def contains(self, other: "Resources") -> bool:
        return all(self.scalars.get(k, 0) >= v for k, v in other.scalars.items()) and all(
            covers(self.ranges.get(k, ()), v) for k, v in other.ranges.items()
        )

    def __bool__(self) -> bool:
        return bool(self.scalars or self.ranges)

    def total(self, name: str) -> float:
        """Over all roles, in units (cores, MB)."""
        return sum(v for (n, _), v in self.scalars.items() if n == name) / 1000

    def ports(self) -> tuple[Range, ...]:
        return merge(r for (n, _), rs in self.ranges.items() if n == "ports" for r in rs)

    def names(self) -> frozenset[str]:
        return frozenset(n for n, _ in (*self.scalars, *self.ranges))


def from_mesos(items: Sequence[Mapping[str, Any]], *, place: str = "resources") -> Resources:
    """From a list of Mesos Resource objects (`allocation_info` is ignored). Raises Refused naming the place."""
    scalars: dict[Key, int] = {}
    ranges: dict[Key, tuple[Range, ...]] = {}
    for position, item in enumerate(items):
        where = f"{place}[{position}]"
        try:
            key = (str(item["name"]), _role(item))
            if item.get("type") == "RANGES":
                pairs = [(int(r["begin"]), int(r["end"])) for r in item["ranges"]["range"]]
                ranges[key] = merge((*ranges.get(key, ()), *_checked(pairs, where, ports=key[0] == "ports")))
            elif item.get("type") == "SCALAR":
                scalars[key] = scalars.get(key, 0) + _thousandths(item["scalar"]["value"], where)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise Refused(f"{where}: not a Mesos resource ({error!r})") from error
    return Resources({k: v for k, v in scalars.items() if v}, {k: v for k, v in ranges.items() if v})


def _role(item: Mapping[str, Any]) -> str:
    reservations = item.get("reservations") or ()
    return str(reservations[-1]["role"] if reservations else item.get("role") or UNRESERVED)


def _thousandths(value: Any, where: str) -> int:
    number = float(value)
    if number < 0:
        raise Refused(f"{where}: {value} is negative")
    if number > SCALAR_MOST:
        raise Refused(f"{where}: {number:g} is more than {SCALAR_MOST:g}")
    return round(number * 1000)


def _checked(pairs: Iterable[Range], where: str, *, ports: bool) -> tuple[Range, ...]:
    out = tuple(pairs)
    most = 65535 if ports else NUMBER_MOST
    for begin, end in out:
        if end > most:
            raise Refused(f"{where}: range {begin}-{end} is beyond {most}")
        if begin > end or begin < 0:
            raise Refused(f"{where}: range {begin}-{end} is upside down or negative")
    return out


def to_mesos(resources: Resources, *, allocated_to: str = "") -> list[dict[str, Any]]:
    """Mesos Resource objects, sorted by name and role; `allocated_to` adds `allocation_info.role`."""
    extra: dict[str, Any] = {"allocation_info": {"role": allocated_to}} if allocated_to else {}
    out: list[dict[str, Any]] = [
        {"name": name, "type": "SCALAR", "scalar": {"value": value / 1000}, "role": role, **extra}
        for (name, role), value in sorted(resources.scalars.items())
    ]
    out += [
        {
            "name": name,
            "type": "RANGES",
            "role": role,
            **extra,
            "ranges": {"range": [{"begin": b, "end": e} for b, e in value]},
        }
        for (name, role), value in sorted(resources.ranges.items())
    ]
    return out


def parse(text: str, *, place: str = "resources") -> Resources:
    """The text form of Mesos' `--resources`. Raises Refused naming the item."""
    items: list[dict[str, Any]] = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        match = _ITEM.match(part)
        if match is None:
            raise Refused(f"{place}: {part!r}: expected name:value or name(role):value")
        name, role, value = match.groups()
        items.append({"name": name, "role": role or UNRESERVED, **_parsed_value(value, f"{place}: {part!r}")})
    return from_mesos(items, place=place)


def _parsed_value(value: str, where: str) -> dict[str, Any]:
    try:
        if value.startswith("["):
            pairs = [p.split("-") for p in value.strip("[] ").split(",") if p.strip()]
            return {"type": "RANGES", "ranges": {"range": [{"begin": int(p[0]), "end": int(p[-1])} for p in pairs]}}
        return {"type": "SCALAR", "scalar": {"value": float(value)}}
    except ValueError as error:
        raise Refused(f"{where}: expected a number or [low-high,…]") from error

"""Placement constraints: may one more instance go where this offer is, given where the others are?"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an instance is, or an offer comes from. Attribute values are text as in Mesos' flags."""

    hostname: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    zone: str = ""
    region: str = ""


def value_of(place: Place, name: str) -> str | None:
    """`hostname`, `@hostname`, `@zone`, `@region` or an attribute; None when the place has no such thing."""
    match name:
        case "hostname" | "@hostname":
            return place.hostname
        case "@zone":
            return place.zone or None
        case "@region":
            return place.region or None
    return place.attributes.get(name)


def allows(constraint: Sequence[str], here: Place, others: Sequence[Place]) -> bool:
    """Whether the constraint lets one more instance go `here`, beside the app's instances at `others`."""
    name, operator = constraint[0], constraint[1]
    wanted = constraint[2] if len(constraint) > 2 else ""
    value = value_of(here, name)
    if value is None:
        return operator == "UNLIKE"
    taken = Counter(value_of(other, name) for other in others)
    return OPERATORS[operator](value, wanted, taken)


def _group_by(value: str, wanted: str, taken: Mapping[str | None, int]) -> bool:
    """A new group always; a known one when there are enough groups and none is smaller."""
    if value not in taken:
        return True
    return len(taken) >= int(wanted or 0) and taken[value] == min(taken.values())


def _cluster(value: str, wanted: str, taken: Mapping[str | None, int]) -> bool:
    return value == wanted if wanted else not taken or value in taken


def _is(value: str, wanted: str, _taken: Mapping[str | None, int]) -> bool:
    if value == wanted:
        return True
    try:
        return abs(float(value) - float(wanted)) < 0.0005  # Mesos keeps scalars to three decimals
    except ValueError:
        return False


OPERATORS: Mapping[str, Callable[[str, str, Mapping[str | None, int]], bool]] = {
    "UNIQUE": lambda value, _wanted, taken: value not in taken,
    "CLUSTER": _cluster,
    "GROUP_BY": _group_by,
    "MAX_PER": lambda value, wanted, taken: taken.get(value, 0) < int(wanted),
    "LIKE": lambda value, wanted, _taken: re.fullmatch(wanted, value) is not None,
    "UNLIKE": lambda value, wanted, _taken: re.fullmatch(wanted, value) is None,
    "IS": _is,
}

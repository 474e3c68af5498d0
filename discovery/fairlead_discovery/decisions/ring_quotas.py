"""How many copies each member of a ring is to hold: in proportion to weights, as far as zones, racks and machines let it.

The limits are filled like water: what a zone, a rack or a machine cannot take goes to the others, by weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairlead_discovery.decisions.ring import Place, Shape


@dataclass(frozen=True, slots=True)
class Limits:
    """The most copies of one slot in one rack and in one zone."""

    rack: int
    zone: int


def limits(places: Sequence[Place], replicas: int) -> Limits:
    """Zones share the copies evenly; of three copies at most two are in one rack, as HDFS places blocks (of two, one).

    Without racks, or with a single one, there is no limit; zones alike.
    """
    zones = len({place.zone for place in places})
    racks = len({(place.zone, place.rack) for place in places if place.rack or zones == 1})
    has_racks = any(place.rack for place in places) and racks > 1
    return Limits(
        rack=max(1, 2 * replicas // 3) if has_racks else replicas,
        zone=-(-replicas // zones) if zones else replicas,
    )


def divide(total: int, weights: Sequence[int], most: Sequence[int]) -> list[int]:
    """`total` in proportion to `weights`, none over its `most`. Whole numbers by largest remainder, ties to the first.

    When `most` does not suffice all of it is given out, and the sum is less than `total`.
    """
    out = [0] * len(weights)
    open_, left = list(range(len(weights))), total
    while open_:
        weight = sum(weights[i] for i in open_)
        full = [i for i in open_ if left * weights[i] >= most[i] * weight]
        if not full:
            break
        for i in full:
            out[i] = most[i]
        left -= sum(most[i] for i in full)
        open_ = [i for i in open_ if out[i] != most[i]]
    if not open_:
        return out
    shares = {i: divmod(left * weights[i], weight) for i in open_}
    extra = left - sum(whole for whole, _ in shares.values())
    for i in sorted(open_, key=lambda i: -shares[i][1])[:extra]:
        out[i] = 1
    for i in open_:
        out[i] += shares[i][0]
    return out


def quotas(shape: Shape, places: Sequence[Place], bounds: Limits, *, copies: int) -> list[int]:
    """The most slots each place may hold of the first `copies` copies of all slots; `places` in order of name."""
    slots = shape.slots
    levels: tuple[tuple[Sequence[tuple[str, ...]], int], ...] = (
        ([(place.zone,) for place in places], slots * min(bounds.zone, copies)),
        ([(place.zone, place.rack) for place in places], slots * min(bounds.rack, copies)),
        ([_home(place) for place in places], slots),
        ([(*_home(place), place.name) for place in places], slots),
    )
    weights = [place.weight_milli for place in places]
    groups = [(tuple(range(len(places))), slots * copies)]
    for keys, most in levels:
        groups = [part for group, total in groups for part in _parts(group, total, keys, weights, most)]
    given = {group[0]: got for group, got in groups}
    return [-(-given[i] * shape.bound_percent // 100) for i in range(len(places))]


def _home(place: Place) -> tuple[str, str, str, str]:
    return place.zone, place.rack, place.machine, "" if place.machine else place.name


def _parts(
    group: tuple[int, ...], total: int, keys: Sequence[tuple[str, ...]], weights: Sequence[int], most: int
) -> list[tuple[tuple[int, ...], int]]:
    """The group split by key, in order of each part's first name, with what each part gets of `total`."""
    parts: dict[tuple[str, ...], list[int]] = {}
    for i in group:
        parts.setdefault(keys[i], []).append(i)
    shares = divide(total, [sum(weights[i] for i in part) for part in parts.values()], [most] * len(parts))
    return [(tuple(part), share) for part, share in zip(parts.values(), shares, strict=True)]

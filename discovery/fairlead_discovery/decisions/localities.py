"""How near a member stands to whoever wants it: for answers of name servers and for balancers, one rule."""

from collections.abc import Mapping
from dataclasses import dataclass

OWN_MACHINE, SAME_ZONE, SAME_REGION, ELSEWHERE = range(4)
"""Tiers, nearest first."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine or a client stands; "" is not known."""

    zone: str = ""
    region: str = ""


NOWHERE = Place()


def tier(here: Place, there: Place, *, own: bool) -> int:
    """First match wins. Zones of one name in different regions are different zones."""
    if own:
        return OWN_MACHINE
    near = not there.region or not here.region or there.region == here.region
    if there.zone and there.zone == here.zone and near:
        return SAME_ZONE
    if there.region and there.region == here.region:
        return SAME_REGION
    return ELSEWHERE


def merged(sizes: Mapping[int, int], least: int) -> Mapping[int, int]:
    """Tier -> the tier it counts as. One of fewer than `least` is too small to serve alone: it counts as the next one."""
    becomes: dict[int, int] = {}
    waiting: list[int] = []
    gathered = 0
    for number in sorted(sizes):
        waiting.append(number)
        gathered += sizes[number]
        if gathered >= least:
            becomes.update(dict.fromkeys(waiting, number))
            waiting, gathered = [], 0
    becomes.update(dict.fromkeys(waiting, max(sizes, default=0)))
    return becomes

"""Names a person may have meant."""

from collections.abc import Collection
from difflib import get_close_matches
from heapq import nlargest
from itertools import pairwise

MANY = 500
"""Of more names only so many are compared letter by letter, those that begin most alike: servers have other work."""


def nearest(name: str, known: Collection[str], *, most: int = 3) -> list[str]:
    """The most alike first; those that contain what was typed count too."""
    close = get_close_matches(name, _shortlist(name, known), n=most, cutoff=0.6)
    containing = sorted(other for other in known if name and name in other and other not in close)
    return [*close, *containing][:most]


def _shortlist(name: str, known: Collection[str]) -> Collection[str]:
    if len(known) <= MANY:
        return known
    asked, length = _pairs(name), len(name)
    return nlargest(MANY, known, key=lambda other: (len(asked & _pairs(other)), -abs(len(other) - length)))


def _pairs(name: str) -> set[tuple[str, str]]:
    """Neighbouring letters of what tells names apart: all before the first dot."""
    first = name.partition(".")[0]
    return set(pairwise(first))

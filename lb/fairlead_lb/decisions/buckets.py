"""A share of requests as entries of a map: HAProxy draws one of 10,000 buckets, and looks for its longest prefix.

A draw is written with five digits, `10000` to `19999`, so 5 % are the five entries `100` to `104`, and 10 % the one
entry `10`. A client whose bucket is fixed crosses over once when a share grows, and never back.
"""

from collections.abc import Iterator, Sequence

BUCKETS = 10_000
FIRST = 10_000


def hundredths(percent: float) -> int:
    """5 % -> 500 buckets."""
    return round(percent * 100)


def intervals(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Which buckets each share has: `low` inclusive, `high` not.

    The first grows upwards from the bottom, the last (of several) downwards from the top: of two neither moves the
    other's clients. Those between follow the first.
    """
    found: list[tuple[int, int]] = []
    low = 0
    for number, size in enumerate(sizes):
        if number and number == len(sizes) - 1:
            low = BUCKETS - size
        found.append((low, low + size))
        low += size
    return found


def prefixes(low: int, high: int) -> Iterator[str]:
    """As few as there are for the draws of `low` to `high` - 1."""
    while low < high:
        size = BUCKETS
        while low % size or low + size > high:
            size //= 10
        digits = len(str(BUCKETS // size))
        yield str(FIRST + low)[:digits]
        low += size

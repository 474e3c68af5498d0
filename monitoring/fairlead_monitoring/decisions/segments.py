"""Which segments of the spool may go. A segment is a file of whole lines, numbered; the newest one is still written to.

Carbon acknowledges nothing. A segment is given up when its last byte has been in carbon's kernel for `settle_s` on one
unbroken connection: by then carbon has written it to disk. When the connection breaks, carbon may have died with what it
held in memory: everything that is still in the spool is sent again. A point sent twice is the same point: same path,
same second, same value.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_NAME = re.compile(r"(\d{12})\.lines")


def name(number: int) -> str:
    """`000000000007.lines`."""
    return f"{number:012d}.lines"


def number(file_name: str) -> int | None:
    match = _NAME.fullmatch(file_name)
    return int(match[1]) if match else None


class Place(NamedTuple):
    """A byte of the spool. The next one to be sent, mostly."""

    segment: int
    offset: int


class _Sent(NamedTuple):
    total_bytes: int
    place: Place


class _Handed(NamedTuple):
    place: Place
    at_s: float


class Ledger:
    """What one connection has handed over. A new connection begins a new ledger."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._total_bytes = 0
        self._sent: deque[_Sent] = deque()
        self._handed: list[_Handed] = []

    def sent(self, count_bytes: int, place: Place) -> None:
        """`place` is the byte after them."""
        self._total_bytes += count_bytes
        self._sent.append(_Sent(self._total_bytes, place))

    def look(self, pending_bytes: int, now_s: float) -> None:
        """`pending_bytes` are sent and not yet in the peer's kernel."""
        there = None
        while self._sent and self._sent[0].total_bytes <= self._total_bytes - pending_bytes:
            there = self._sent.popleft().place
        if there is not None and (not self._handed or self._handed[-1].place.segment < there.segment):
            self._handed.append(_Handed(there, now_s))  # one entry a segment is enough: the first that is past others

    @property
    def handed(self) -> int:
        """Segments before this one are in the peer's kernel."""
        return self._handed[-1].place.segment if self._handed else 0

    def settled(self, segments: Iterable[int], now_s: float) -> list[int]:
        """Segments that may go."""
        done = [h.place.segment for h in self._handed if now_s - h.at_s >= self._settle_s]
        return [s for s in segments if done and s < done[-1]]


def too_much(sizes: Mapping[int, int], most_bytes: int) -> list[int]:
    """The oldest segments, so many that the rest fits; never the newest."""
    total = sum(sizes.values())
    out: list[int] = []
    for segment in sorted(sizes)[:-1]:
        if total <= most_bytes:
            break
        total -= sizes[segment]
        out.append(segment)
    return out

"""Port ranges of `up`: reading them, giving each agent its own part, finding what two options both claim."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions.ports import parse_ranges

LAST_PORT = 65535
Range = tuple[int, int]
"""First and last port, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A port that must be free before anything starts. `option` is what a person edits to move it."""

    option: str
    address: str
    port: int
    udp: bool = False

    def __str__(self) -> str:
        return f"{self.address}:{self.port}{'/udp' if self.udp else ''}"


def parse_range(text: str, *, option: str) -> Range:
    """`31000-31999` -> (31000, 31999). Raises BadSettings naming the option."""
    first, sign, last = text.partition("-")
    if not (sign and first.strip().isdigit() and last.strip().isdigit()):
        raise BadSettings(f"{option}: expected first-last, got {text!r}")
    begin, end = int(first), int(last)
    if not 0 < begin <= end <= LAST_PORT:
        raise BadSettings(f"{option}: {text} is no range of ports between 1 and {LAST_PORT}")
    return begin, end


def joined(ports: Iterable[int], *ranges: Range) -> str:
    """`5050-5053,31000-31999`: what daemons take as `reserved_ports`."""
    whole = ",".join([*map(str, ports), *(f"{low}-{high}" for low, high in ranges)])
    merged = parse_ranges(whole, place="reserved_ports")
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in merged)


def split_range(whole: Range, parts: int, *, option: str) -> tuple[Range, ...]:
    """Disjoint, in order, as equal as can be, together the whole. Raises BadSettings when there are too few ports."""
    begin, end = whole
    count = end - begin + 1
    if count < parts:
        raise BadSettings(f"{option}: {count} ports are too few for {parts} agents")
    edges = [begin + count * part // parts for part in range(parts + 1)]
    return tuple((low, high - 1) for low, high in pairwise(edges))


def check_ranges(ranges: Iterable[tuple[str, Range]], needs: Sequence[Need]) -> None:
    """Raises BadSettings when two options claim the same port."""
    named = [*ranges, *((need.option, (need.port, need.port)) for need in needs if not need.udp)]
    for (one, a), (other, b) in combinations(named, 2):
        if one != other and a[0] <= b[1] and b[0] <= a[1]:
            raise BadSettings(f"{one} and {other}: both claim port {max(a[0], b[0])}")

"""Ranges of ports in a setting's text: `5050,5051-5060,31000-32000`."""

from collections.abc import Iterable

from fairlead_daemon.errors import BadSettings

PORT_MOST = 65535
Range = tuple[int, int]
"""First and last port, both included."""


def parse_ranges(text: str, *, place: str) -> tuple[Range, ...]:
    """Sorted, disjoint, not touching; "" is none. Raises BadSettings naming `place` and the part that is no range."""
    return _merged(_range(part.strip(), place) for part in text.split(",") if part.strip())


def holds(ranges: Iterable[Range], port: int) -> bool:
    return any(first <= port <= last for first, last in ranges)


def _range(part: str, place: str) -> Range:
    first, sign, last = (word.strip() for word in part.partition("-"))
    low = _port(first, part, place)
    high = _port(last, part, place) if sign else low
    if low > high:
        raise BadSettings(f"{place}: {part}: the first port is above the last")
    return low, high


def _port(text: str, part: str, place: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(PORT_MOST)) else 0
    if not 1 <= number <= PORT_MOST:
        shown = part if len(part) <= 60 else f"{part[:60]}..."
        raise BadSettings(f"{place}: {shown!r}: expected ports from 1 to {PORT_MOST}, as 5050,31000-32000")
    return number


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    out: list[Range] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)

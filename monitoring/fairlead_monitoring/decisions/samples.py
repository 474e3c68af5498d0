"""Samples, and reading them from Prometheus' text form."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
"""Sorted by name."""


class Series(NamedTuple):
    """Which value: `fairlead_up{source="lb"}`."""

    name: str
    labels: Labels = ()

    def __str__(self) -> str:
        if not self.labels:
            return self.name
        pairs = ", ".join(f'{name}="{value}"' for name, value in self.labels)
        return f"{self.name}{{{pairs}}}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value. `time_s` is wall clock, seconds since 1970."""

    series: Series
    value: float
    time_s: float


@lru_cache(maxsize=50_000)
def _series(name: str, labels: Labels) -> Series:
    return Series(name, labels)


def series(name: str, /, **labels: str) -> Series:
    """One object for each series, so that an hour of samples holds each name once."""
    return _series(name, tuple(sorted(labels.items())))


def with_labels(one: Series, extra: Mapping[str, str]) -> Series:
    """Labels that the source gave itself win."""
    return _series(one.name, tuple(sorted({**extra, **dict(one.labels)}.items())))


UNWANTED = ("python_", "process_virtual_", "process_start_", "process_max_fds")
"""Prefixes of names that no rule or graph of ours asks for."""
UNWANTED_ENDS = ("_bucket", "_created")
LABELS_MOST = 16
TEXT_LONGEST = 256


def wanted(name: str) -> bool:
    return not name.startswith(UNWANTED) and not name.endswith(UNWANTED_ENDS)


class Page:
    """Reads one source's pages. Most lines are those of the page before: only new ones are parsed in full."""

    def __init__(self, extra: Mapping[str, str], *, most: int) -> None:
        self._extra = extra
        self._most = most
        self._known: dict[str, Series | None] = {}
        self.left_out = 0
        """Series of the last page that were over the bound."""

    def read(self, text: str) -> dict[Series, float]:
        """Raises ValueError naming the line that is no metric."""
        found: dict[Series, float] = {}
        known: dict[str, Series | None] = {}
        self.left_out = 0
        for line in text.splitlines():
            if not line or line[0] == "#":
                continue
            head, value = _split(line)
            one = self._known[head] if head in self._known else _parse(head, self._extra)
            known[head] = one
            if one is None or math.isnan(value):
                continue
            if len(found) >= self._most:
                self.left_out += 1
                continue
            found[one] = value
        self._known = known
        return found


def _split(line: str) -> tuple[str, float]:
    """`a{b="c d"} 1 1700000000` -> (`a{b="c d"}`, 1.0). The time of a sample is when it was read."""
    close = line.rfind("}")
    head, rest = (line[: close + 1], line[close + 1 :]) if close >= 0 else _partition(line)
    try:
        return head, float(rest.split()[0])
    except (IndexError, ValueError) as error:
        raise ValueError(f"no metric: {line[:80]!r}") from error


def _partition(line: str) -> tuple[str, str]:
    head, _, rest = line.partition(" ")
    return head, rest


def _parse(head: str, extra: Mapping[str, str]) -> Series | None:
    """None for what is not wanted."""
    if not wanted(head.partition("{")[0].strip()):
        return None
    try:
        for family in text_string_to_metric_families(f"{head} 1\n"):
            for sample in family.samples:
                labels = {k: v[:TEXT_LONGEST] for k, v in list(sample.labels.items())[:LABELS_MOST]}
                return with_labels(series(sample.name, **labels), extra)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"no metric: {head[:80]!r}") from error
    return None


def matches(labels: Labels, wanted_labels: Mapping[str, str]) -> bool:
    have = dict(labels)
    return all(have.get(k) == v for k, v in wanted_labels.items())


def increase(points: Iterable[tuple[float, float]]) -> float | None:
    """How much a counter grew over the points, restarts counted from zero. None with fewer than two points."""
    last: float | None = None
    total, count = 0.0, 0
    for _, value in points:
        if last is not None:
            total += value - last if value >= last else value
        last = value
        count += 1
    return total if count > 1 else None

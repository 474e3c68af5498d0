"""An hour of samples, compact: per source the times of its rounds, per series one value a round (NaN: absent).

A round is all that one look at a source gave. What is not in a source's newest round has no value now, so the series of
ended tasks end at once; what has been absent from a source's whole hour, or longer than `forget_s`, is forgotten.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_monitoring.decisions.samples import Sample, Series, matches

NAN = float("nan")


@dataclass(slots=True)
class _Track:
    """One source. Columns are as long as `times`, or shorter when the series came later."""

    times: "array[float]" = field(default_factory=lambda: array("d"))
    columns: "dict[Series, array[float]]" = field(default_factory=dict)
    seen_s: dict[Series, float] = field(default_factory=dict)
    begin: int = 0
    """Rounds before it are over: cut off together, now and then."""


class Ring:
    """Bounded: `most_series` in all; each source's rounds of the last `keep_s`."""

    def __init__(self, *, keep_s: float, forget_s: float, most_series: int) -> None:
        self._keep_s = keep_s
        self._forget_s = forget_s
        self._most_series = most_series
        self._tracks: dict[str, _Track] = {}
        self._by_name: dict[str, dict[Series, str]] = {}
        self._swept_s = 0.0
        self.left_out = 0
        """Values not kept because there are too many series, since the start."""

    def __len__(self) -> int:
        return sum(len(track.columns) for track in self._tracks.values())

    def add(self, source: str, time_s: float, values: Mapping[Series, float]) -> None:
        """Times of a source never go back: a round older than its last one takes the last one's time."""
        track = self._tracks.setdefault(source, _Track())
        time_s = max(time_s, track.times[-1]) if track.times else time_s
        track.times.append(time_s)
        length = len(track.times)
        room = self._most_series - len(self)
        for one, value in values.items():
            column = track.columns.get(one)
            if column is None:
                if room <= 0:
                    self.left_out += 1
                    continue
                room -= 1
                column = track.columns[one] = array("d")
                self._by_name.setdefault(one.name, {})[one] = source
            if (gap := length - 1 - len(column)) > 0:
                column.extend([NAN] * gap)
            column.append(value)
            track.seen_s[one] = time_s
        self._trim(track, time_s)

    def drop(self, source: str) -> None:
        """The source is no more, and with it all it said."""
        track = self._tracks.pop(source, None)
        for one in track.columns if track is not None else ():
            self._unlist(one, source)

    def sweep(self, now_s: float) -> None:
        """Forgets series and sources that have long been absent."""
        for source, track in list(self._tracks.items()):
            for one in [s for s, seen_s in track.seen_s.items() if now_s - seen_s > self._forget_s]:
                del track.columns[one], track.seen_s[one]
                self._unlist(one, source)
            if not track.columns and (not track.times or now_s - track.times[-1] > self._forget_s):
                del self._tracks[source]

    # --- questions

    def now(self, name: str, now_s: float, *, fresh_s: float) -> Iterator[tuple[Series, float]]:
        """Values of the newest rounds, as far as these are at most `fresh_s` old."""
        for one, source in self._by_name.get(name, {}).items():
            track = self._tracks[source]
            column = track.columns[one]
            if now_s - track.times[-1] <= fresh_s and len(column) == len(track.times) and not math.isnan(column[-1]):
                yield one, column[-1]

    def points(self, one: Series, since_s: float) -> list[tuple[float, float]]:
        """(time, value), oldest first."""
        source = self._by_name.get(one.name, {}).get(one)
        if source is None:
            return []
        track = self._tracks[source]
        column = track.columns[one]
        first = _first(track.times, since_s, track.begin)
        return [(t, v) for t, v in zip(track.times[first:], column[first:], strict=False) if not math.isnan(v)]

    def series(self, name: str, labels: Mapping[str, str] | None = None) -> list[Series]:
        return sorted(s for s in self._by_name.get(name, {}) if matches(s.labels, labels or {}))

    def names(self) -> list[str]:
        return sorted(self._by_name)

    def latest(self, now_s: float, *, fresh_s: float) -> Iterable[Sample]:
        """Everything that has a value now."""
        for track in self._tracks.values():
            if not track.times or now_s - track.times[-1] > fresh_s:
                continue
            length, time_s = len(track.times), track.times[-1]
            for one, column in track.columns.items():
                if len(column) == length and not math.isnan(column[-1]):
                    yield Sample(one, column[-1], time_s)

    # --- keeping it small

    def _trim(self, track: _Track, now_s: float) -> None:
        times = track.times
        while times[track.begin] < now_s - self._keep_s:
            track.begin += 1
        if track.begin < max(64, len(times) // 8):  # cutting moves every column: not at every round
            return
        cut, track.begin = track.begin, 0
        del times[:cut]
        for column in track.columns.values():
            del column[:cut]

    def _unlist(self, one: Series, source: str) -> None:
        known = self._by_name.get(one.name, {})
        if known.get(one) == source:
            del known[one]
            if not known:
                del self._by_name[one.name]


def _first(times: "array[float]", since_s: float, begin: int) -> int:
    """Index of the first round at or after `since_s`."""
    low, high = begin, len(times)
    while low < high:
        middle = (low + high) // 2
        if times[middle] < since_s:
            low = middle + 1
        else:
            high = middle
    return low

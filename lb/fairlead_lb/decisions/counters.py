"""HAProxy's counters over its reloads: what each worker has counted since the last look is added to totals that stay.

A worker counts from zero and ends with its last session. Backends and slots change hands; a count belongs to whoever
had them when it was read.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

COLUMNS = ("stot", "req_tot", "hrsp_5xx", "eresp")
GAUGES = ("scur", "act", "rtime", "ttime")
Counts = tuple[int, ...]
"""In the order of COLUMNS."""
FORGET_S = 600.0
PROXIES = frozenset({"frontend", "backend"})
OF_PROXIES = frozenset({"FRONTEND", "BACKEND"})
PIECE_CHARS = 200_000
NONE = frozenset({"", "0"})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `show stat`: `kind` is `frontend`, `backend`, or a server's slot."""

    proxy: str
    kind: str
    counts: Counts
    gauges: tuple[int, ...] = (0, 0, 0, 0)


def rows(csv: str) -> list[Row]:
    """Of any of `show stat`'s answers, without slots that had no session. Columns that are empty count nothing."""
    lines = csv.lstrip("# ").splitlines()
    if not lines:
        return []
    names = {name: place for place, name in enumerate(lines[0].split(","))}
    if not {"pxname", "svname", *COLUMNS, *GAUGES} <= names.keys():
        return []
    places = [names[c] for c in (*COLUMNS, *GAUGES)]
    proxy, kind, sessions = (names[name] for name in ("pxname", "svname", "stot"))
    first, most = max(proxy, kind, sessions) + 1, max(places) + 1
    found = []
    for line in lines[1:]:
        start = line.split(",", first)
        if len(start) > first and start[sessions] in NONE and start[kind] not in OF_PROXIES:
            continue  # a slot that nobody was ever sent to: most of thousands
        fields = line.split(",", most)
        if len(fields) < most:
            continue
        numbers = [int(text) if (text := fields[p]).isdigit() else 0 for p in places]
        name = fields[kind]
        found.append(
            Row(
                proxy=fields[proxy],
                kind=name.lower() if name in OF_PROXIES else name,
                counts=tuple(numbers[: len(COLUMNS)]),
                gauges=tuple(numbers[len(COLUMNS) :]),
            )
        )
    return found


def pieces(csv: str) -> Iterator[str]:
    """Of one answer, each with the columns' names: megabytes of it take a while to read."""
    head, _, _ = csv.partition("\n")
    begin = len(head) + 1
    while begin < len(csv):
        end = csv.find("\n", begin + PIECE_CHARS)
        end = len(csv) if end < 0 else end
        yield f"{head}\n{csv[begin:end]}"
        begin = end + 1


Label = tuple[str, ...]
Key = tuple[str, str]
"""Proxy and kind."""


@dataclass(slots=True)
class Totals:
    """Sums by label. They only grow; those of labels without a living row are forgotten after a while."""

    sums: dict[Label, Counts] = field(default_factory=dict)
    _last: dict[str, dict[Key, Counts]] = field(default_factory=dict)
    """By worker."""
    _seen_s: dict[Label, float] = field(default_factory=dict)

    def saw(self, worker: str, found: Iterable[Row], label: Callable[[Row], Label | None], *, now_s: float) -> None:
        """`worker` names one process for good. Rows without a label are counted for nobody."""
        last = self._last.setdefault(worker, {})
        for row in found:
            key = (row.proxy, row.kind)
            before = last.get(key)
            if before is None and not any(row.counts) and row.kind not in PROXIES:
                continue  # an empty slot
            last[key] = row.counts
            if (owner := label(row)) is None:
                continue
            self._seen_s[owner] = now_s
            grown = _grown(before, row.counts)
            if any(grown) or owner not in self.sums:
                self.sums[owner] = tuple(map(sum, zip(self.sums.get(owner, (0,) * len(COLUMNS)), grown, strict=True)))

    def forget(self, workers: Collection[str], *, now_s: float) -> None:
        """Workers that have ended, and labels that nobody has had for long."""
        self._last = {worker: there for worker, there in self._last.items() if worker in workers}
        old = [label for label, seen_s in self._seen_s.items() if now_s - seen_s > FORGET_S]
        for label in old:
            del self._seen_s[label]
            self.sums.pop(label, None)

    def kept(self) -> "Kept":
        """For the next life of this daemon."""
        return Kept(
            sums=[(list(label), counts) for label, counts in self.sums.items()],
            last={w: [(*key, counts) for key, counts in there.items()] for w, there in self._last.items()},
        )

    @classmethod
    def of(cls, kept: "Kept", *, now_s: float) -> "Totals":
        sums = {tuple(label): counts for label, counts in kept.sums if len(counts) == len(COLUMNS)}
        last = {w: {(p, k): counts for p, k, counts in there} for w, there in kept.last.items()}
        return cls(sums=sums, _last=last, _seen_s=dict.fromkeys(sums, now_s))


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Totals on disk."""

    sums: list[tuple[list[str], Counts]] = []
    last: Mapping[str, list[tuple[str, str, Counts]]] = {}


def _grown(before: Counts | None, now: Counts) -> Counts:
    """`clear counters` by hand starts again from zero."""
    if before is None or len(before) != len(now):
        return now
    return tuple(n - b if n >= b else n for n, b in zip(now, before, strict=True))

"""What backends have answered since a moment, from counters that begin anew with each worker of HAProxy."""

from collections.abc import Iterable, Mapping

import msgspec

P99 = 0.99


class Counts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answers of one backend. `times`: how many took so long, by `<digits of the microseconds>:<first two of them>`."""

    requests: int = 0
    errors: int = 0
    """Answers 5xx, those that HAProxy gave itself among them."""
    times: Mapping[str, int] = msgspec.field(default_factory=dict)

    def plus(self, other: "Counts") -> "Counts":
        return self._with(other, 1)

    def since(self, before: "Counts") -> "Counts":
        return self._with(before, -1)

    def _with(self, other: "Counts", sign: int) -> "Counts":
        times = {k: self.times.get(k, 0) + sign * other.times.get(k, 0) for k in sorted({*self.times, *other.times})}
        return Counts(
            requests=max(0, self.requests + sign * other.requests),
            errors=max(0, self.errors + sign * other.errors),
            times={k: n for k, n in times.items() if n > 0},
        )


def grown(total: Counts, before: Counts | None, now: Counts) -> Counts:
    """A running total, after a look. `before` None: the counters began anew, or were another service's until now."""
    if before is None or now.requests < before.requests:
        return total.plus(now)
    return total.plus(now.since(before))


def together(parts: Iterable[Counts]) -> Counts:
    found = Counts()
    for one in parts:
        found = found.plus(one)
    return found


def p99_ms(counts: Counts) -> float | None:
    """None without answers. The upper end of the bucket, so within a tenth above the truth."""
    return percentile_ms(counts.times, P99)


def percentile_ms(times: Mapping[str, int], part: float) -> float | None:
    total = sum(times.values())
    seen = 0
    for upper_us, count in sorted((_upper_us(bucket), count) for bucket, count in times.items()):
        seen += count
        if seen >= part * total:
            return upper_us / 1000
    return None


def _upper_us(bucket: str) -> int:
    """`4:12` -> 1300; `1:7` -> 8."""
    digits, _, first = bucket.partition(":")
    return (int(first) + 1) * int(10 ** max(0, int(digits) - len(first)))


def error_percent(counts: Counts) -> float:
    return 100 * counts.errors / counts.requests if counts.requests else 0.0


def backend_counts(csv: str) -> dict[str, tuple[Counts, int]]:
    """`show stat B 2 -1`: backend -> its counts without times, and how many of its servers are ready.

    As HAProxy's own `nbsrv` has it, the far ones (backups) count only when no near one is up.
    """
    found: dict[str, tuple[Counts, int]] = {}
    columns: list[str] = []
    for line in csv.splitlines():
        if line.startswith("# "):
            columns = line[2:].split(",")
            continue
        row = dict(zip(columns, line.split(","), strict=False))
        if row.get("svname") == "BACKEND":
            found[row["pxname"]] = _counts(row), _number(row, "act") or _number(row, "bck")
    return found


def _counts(row: Mapping[str, str]) -> Counts:
    """A connection of a TCP service counts as a request, one that reached no server as an error."""
    if row.get("mode") == "tcp":
        return Counts(requests=_number(row, "stot"), errors=_number(row, "econ") + _number(row, "eresp"))
    return Counts(requests=_number(row, "req_tot"), errors=_number(row, "hrsp_5xx"))


def _number(row: Mapping[str, str], column: str) -> int:
    text = row.get(column, "")
    return int(text) if text.isdigit() else 0


def backend_times(table: str) -> dict[str, dict[str, int]]:
    """`show table fairlead_times`: backend -> bucket -> answers."""
    found: dict[str, dict[str, int]] = {}
    for line in table.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
        backend, _, bucket = words.get("key", "").partition(":")
        count = words.get("gpc0", "")
        if bucket and count.isdigit():
            found.setdefault(backend, {})[bucket] = int(count)
    return found

"""Which servers are put aside for their errors, and whose requests are not repeated any more: from HAProxy's counts.

HAProxy puts a server aside by itself (`on-error mark-down`), but all of them at once when all answer with errors, and
then nobody is served. So it is decided here, with a cap: a server that is aside has weight 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fairlead_discovery.records import Traffic
from fairlead_lb.decisions import breaking
from fairlead_lb.decisions.breaking import CLOSED, Breaker, Breakers, Moment
from fairlead_lb.decisions.values import Backend, Key, Slots

LONGEST = 10
"""A server that comes back only to fail again stays away longer each time, up to so many times `eject_s`."""
WINDOW_FADES = 0.9
"""The same for the share of a server's answers that are errors: what ten seconds brought is most of it."""
FADES = 0.8
"""What counts of a second one second later, for budgets: half of it is forgotten in three seconds."""
FREE_RETRIES = 3.0
"""So many may always be repeated."""
BACKEND = "BACKEND"
_MINE = ("hrsp_5xx", "eresp", "econ")
_GOOD = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx")

Task = tuple[Key, str]
Shares = Mapping[Task, tuple[float, float]]
"""Faded sums of each server: answers, and those of them that were errors."""
Counts = Mapping[tuple[str, str], "Count"]
"""By backend and slot; BACKEND for the whole."""


@dataclass(frozen=True, slots=True)
class Count:
    """Since HAProxy's worker began."""

    good: int = 0
    errors: int = 0
    retries: int = 0

    def since(self, before: "Count") -> "Count":
        """A worker that is another one counts from 0."""
        if self.good < before.good or self.errors < before.errors or self.retries < before.retries:
            return self
        return Count(self.good - before.good, self.errors - before.errors, self.retries - before.retries)


@dataclass(frozen=True, slots=True)
class Away:
    """`until_s` by the clock the judge is given; `times` in a row it has been put aside."""

    until_s: float
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What follows from the counts so far. `capped` would be aside, were not too many already."""

    aside: frozenset[Task] = frozenset()
    spent: frozenset[Key] = frozenset()
    capped: frozenset[Task] = frozenset()
    counts: Counts = field(default_factory=dict)
    in_a_row: Mapping[Task, int] = field(default_factory=dict)
    shares: Shares = field(default_factory=dict)
    away: Mapping[Task, Away] = field(default_factory=dict)
    repeats: Mapping[Key, tuple[float, float]] = field(default_factory=dict)
    """Faded sums: requests, and those repeated."""
    breakers: Breakers = field(default_factory=dict)


def watched(backend: Backend) -> bool:
    rule = backend.shape.traffic
    return bool(rule.eject_after or rule.retry_budget_percent or rule.break_at_percent)


def counts(csv: str) -> Counts:
    """`show stat B 6 -1`: servers and the whole, as `# pxname,svname,…`."""
    head, _, body = csv.partition("\n")
    columns = head.removeprefix("# ").split(",")
    rows = (dict(zip(columns, line.split(","), strict=False)) for line in body.splitlines() if line)
    return {(row["pxname"], row["svname"]): _count(row) for row in rows if "pxname" in row and "svname" in row}


def _count(row: Mapping[str, str]) -> Count:
    good, errors = (sum(_number(row, name) for name in names) for names in (_GOOD, _MINE))
    if not row.get("hrsp_2xx"):  # TCP: a connection that came about is good
        good = max(0, _number(row, "stot") - errors)
    return Count(good=good, errors=errors, retries=_number(row, "wretr"))


def _number(row: Mapping[str, str], name: str) -> int:
    text = row.get(name, "")
    return int(text) if text.isdigit() else 0


def judge(
    last: Judgement, now: Counts, backends: Mapping[str, Backend], slots: Mapping[str, Slots], at: Moment
) -> Judgement:
    """`now` holds the backends that are watched; what is not in it has no judgement any more."""
    now_s = at.now_s
    rows: dict[Task, int] = {}
    shares: dict[Task, tuple[float, float]] = {}
    breakers: dict[Key, Breaker] = {}
    away: dict[Task, Away] = {}
    capped: set[Task] = set()
    repeats: dict[Key, tuple[float, float]] = {}
    spent: set[Key] = set()
    for name, backend in backends.items():
        if not watched(backend) or (name, BACKEND) not in now:
            continue
        news = {s: now[name, s].since(last.counts.get((name, s), Count())) for s in slots[name] if (name, s) in now}
        if backend.shape.traffic.eject_after:
            told = _told(last, backend, slots[name], news)
            mine = _rows(last, told, now_s)
            theirs = _shares(last, told, now_s)
            found = _away(last, backend, _failing(mine, theirs, backend.shape.traffic), now_s)
            rows.update({task: row for task, row in mine.items() if row})
            shares.update({task: share for task, share in theirs.items() if share[1]})
            away.update(found.away)
            capped |= found.capped
        if backend.shape.traffic.break_at_percent:  # by servers: the whole counts refusals as errors too
            fresh = [count for place, count in news.items() if (name, place) in last.counts]  # else all there ever was
            good, errors = sum(c.good for c in fresh), sum(c.errors for c in fresh)
            before = last.breakers.get(backend.key, CLOSED)
            breakers[backend.key] = breaking.after(before, backend.shape.traffic, good, errors, at)
        if (percent := backend.shape.traffic.retry_budget_percent) > 0:
            whole = now[name, BACKEND].since(last.counts.get((name, BACKEND), Count()))
            repeats[backend.key] = after = _faded(last.repeats.get(backend.key, (0.0, 0.0)), whole)
            if after[1] > max(FREE_RETRIES, after[0] * percent / 100):
                spent.add(backend.key)
    return Judgement(
        aside=frozenset(task for task, one in away.items() if one.until_s > now_s),
        spent=frozenset(spent),
        capped=frozenset(capped),
        counts=now,
        in_a_row=rows,
        shares=shares,
        away=away,
        repeats=repeats,
        breakers=breakers,
    )


def _told(last: Judgement, backend: Backend, slots: Slots, news: Mapping[str, Count]) -> Mapping[Task, Count]:
    """What each server answered since the last look; it stands in one slot, or in none yet. One that shall have no
    requests is no server: others cannot lean on it.
    """
    places = {slot.task: place for place, slot in slots.items() if slot.task}
    mine = ((s, (backend.key, s.task)) for s in backend.servers)
    return {task: news.get(places.get(s.task, ""), Count()) for s, task in mine if s.weight or task in last.away}


def _gone(last: Judgement, task: Task, now_s: float) -> bool:
    away = last.away.get(task)
    return away is not None and away.until_s > now_s


def _rows(last: Judgement, told: Mapping[Task, Count], now_s: float) -> Mapping[Task, int]:
    """Errors in a row of each server: one good answer, and they count anew, as after a time aside."""
    return {
        task: 0 if new.good or _gone(last, task, now_s) else last.in_a_row.get(task, 0) + new.errors
        for task, new in told.items()
    }


def _shares(last: Judgement, told: Mapping[Task, Count], now_s: float) -> Shares:
    """Of each server, which begins anew after a time aside."""
    found: dict[Task, tuple[float, float]] = {}
    for task, new in told.items():
        answers, errors = last.shares.get(task, (0.0, 0.0))
        after = answers * WINDOW_FADES + new.good + new.errors, errors * WINDOW_FADES + new.errors
        found[task] = (0.0, 0.0) if _gone(last, task, now_s) else after
    return found


def _failing(rows: Mapping[Task, int], shares: Shares, rule: Traffic) -> Mapping[Task, float]:
    """Every server, with the share of errors for which it should go aside; 0: it should not."""
    return {task: 1.0 if row >= rule.eject_after else _too_many(shares[task], rule) for task, row in rows.items()}


def _too_many(share: tuple[float, float], rule: Traffic) -> float:
    answers, errors = share
    if not rule.eject_share_percent or answers < rule.eject_least or errors * 100 < answers * rule.eject_share_percent:
        return 0.0
    return errors / answers


def _away(last: Judgement, backend: Backend, failing: Mapping[Task, float], now_s: float) -> Judgement:
    """Who is aside, or was so lately; at most the share of servers the rule allows, and never the last one."""
    rule = backend.shape.traffic
    kept = {t: one for t in failing if (one := last.away.get(t)) is not None and not _forgiven(one, rule, now_s)}
    gone = sum(one.until_s > now_s for one in kept.values())
    most = min(len(failing) - 1, max(1, int(len(failing) * rule.eject_at_most_percent / 100)))
    capped: set[Task] = set()
    for task in sorted(failing, key=lambda t: (-failing[t], t)):
        before = kept.get(task)
        if not failing[task] or (before is not None and before.until_s > now_s):
            continue
        if gone >= most:
            capped.add(task)
            continue
        times = min(LONGEST, before.times + 1 if before is not None else 1)
        kept[task] = Away(now_s + rule.eject_s * times, times)
        gone += 1
    return Judgement(away=kept, capped=frozenset(capped))


def _forgiven(away: Away, rule: Traffic, now_s: float) -> bool:
    """It has been back for as long as it was away."""
    return now_s >= away.until_s + rule.eject_s * away.times


def _faded(before: tuple[float, float], new: Count) -> tuple[float, float]:
    return before[0] * FADES + new.good + new.errors, before[1] * FADES + new.retries


def without_rows(judgement: Judgement) -> Judgement:
    """After a time in which nobody looked: what is in a row is not known."""
    return replace(judgement, counts={}, in_a_row={}, shares={})

"""Looks once a second at what HAProxy counts for backends that put servers aside, or repeat only so much."""

import time

from fairlead_daemon.logs import Log
from fairlead_lb import metrics
from fairlead_lb.decisions import breaking, judging
from fairlead_lb.decisions.breaking import CLOSED, Moment
from fairlead_lb.decisions.judging import Judgement
from fairlead_lb.desk import Desk

log = Log("lb")
WATCH_S = 1.0
FORGOTTEN_S = 5.0
"""After so long without a look nobody knows what was in a row."""


def due_in_s(desk: Desk) -> float | None:
    """None when nothing is watched."""
    if not desk.state.judgement.away and not desk.state.judgement.breakers and not _watches(desk):
        return None
    return desk.times.watched + WATCH_S - time.monotonic()


def _watches(desk: Desk) -> bool:
    """The wanted maps are another object whenever a backend has another shape (see shortcut)."""
    wanted = desk.state.wanted
    if desk.watched[0] is not wanted.maps:
        desk.watched = wanted.maps, any(map(judging.watched, wanted.backends.values()))
    return desk.watched[1]


async def look(desk: Desk) -> bool:
    """Whether another judgement follows: what is wanted must be worked out anew. Raises Unavailable."""
    serving, now = desk.state.serving, time.monotonic()
    if serving is None or (due := due_in_s(desk)) is None or due > 0:
        return False
    last = desk.state.judgement
    if now - desk.times.watched > FORGOTTEN_S:
        last = judging.without_rows(last)
    desk.times.watched = now
    backends = {n: b for n, b in desk.state.wanted.backends.items() if n in serving.slots and judging.watched(b)}
    counts: dict[tuple[str, str], judging.Count] = {}
    for csv in await desk.supervisor.stats_of(serving.structure, sorted(backends)) if backends else ():
        counts.update(judging.counts(csv))
    found = judging.judge(last, counts, backends, serving.slots, Moment(now, time.time()))
    desk.state.judgement = found
    _tell(last, found)
    return _ruling(found) != _ruling(last)


def _ruling(judged: Judgement) -> tuple[object, ...]:
    """What of it HAProxy is told."""
    return judged.aside, judged.spent, breaking.tripped(judged.breakers)


def _tell(last: Judgement, found: Judgement) -> None:
    for key, task in found.aside - last.aside:
        log.warning("server put aside for its errors", service=key.service, task=task)
    for key, task in last.aside - found.aside:
        log.info("server is back", service=key.service, task=task)
    for key in found.spent - last.spent:
        log.warning("retry budget spent: requests are not repeated", service=key.service)
    for key, breaker in found.breakers.items():
        if breaker.state != (before := last.breakers.get(key, CLOSED)).state:
            tell = log.info if breaker.state == "closed" else log.warning
            tell(f"circuit breaker is {breaker.state}", service=key.service, port=key.index, was=before.state)
    metrics.count_breakers(last.breakers, found.breakers)
    metrics.EJECTED.set(len(found.aside))
    metrics.EJECTIONS.inc(len(found.aside - last.aside))
    metrics.EJECTIONS_CAPPED.set(len(found.capped))
    metrics.BUDGETS_SPENT.set(len(found.spent))

"""Requests counted over HAProxy's reloads, and over restarts of this daemon: read from every worker, kept on disk."""

import time
from collections.abc import Callable

from fairlead_daemon.errors import Unavailable
from fairlead_daemon.logs import Log
from fairlead_lb import metrics
from fairlead_lb.decisions.counters import COLUMNS, PROXIES, Label, Row, Totals, rows
from fairlead_lb.decisions.rollout import Served
from fairlead_lb.desk import Desk

log = Log("lb")
PROXIES_ONLY = 3
"""`show stat`'s bits: 1 frontends, 2 backends, 4 servers."""
WITH_SERVERS = 7
PROXY_LABELS = ("proxy", "kind", "service")
SERVERS_S = 15.0
"""Servers are many: looked at more rarely."""


def begin(desk: Desk) -> None:
    """With what an earlier life has counted."""
    if (kept := desk.store.counters()) is not None:
        desk.totals = Totals.of(kept, now_s=time.monotonic())
        metrics.HAPROXY.sums = desk.totals.sums


async def look(desk: Desk, *, servers: bool = False) -> None:
    """After each audit. `servers`: also those, though they are not due. Raises Unavailable."""
    now_s, serving = time.monotonic(), desk.state.serving
    if serving is None:
        return
    servers = servers or now_s - desk.times.servers_counted > SERVERS_S
    label = labels(desk)
    current: list[Row] = []
    found = await desk.supervisor.show_stats(serving.structure, WITH_SERVERS if servers else PROXIES_ONLY)
    for worker, csv in found.items():
        read = rows(csv)
        current = current or read  # the serving worker's come first
        desk.totals.saw(worker, read, label, now_s=now_s)
    desk.totals.forget(found.keys(), now_s=now_s)
    metrics.HAPROXY.sums = desk.totals.sums
    metrics.HAPROXY.rows = [row for row in current if row.kind in PROXIES]
    desk.gate.counted(_served(desk.totals))
    if servers:
        desk.times.servers_counted = now_s
        desk.store.keep_counters(desk.totals.kept())


def _served(totals: Totals) -> Served:
    """By all frontends."""
    sums = [
        counts for label, counts in totals.sums.items() if len(label) == len(PROXY_LABELS) and label[1] == "frontend"
    ]
    return Served(
        sum(counts[COLUMNS.index("req_tot")] for counts in sums),
        sum(counts[COLUMNS.index("hrsp_5xx")] for counts in sums),
    )


async def look_before_reload(desk: Desk) -> None:
    """What the worker has counted until now: it may end at once. Counters hold up no reload."""
    try:
        await look(desk, servers=True)
    except Unavailable as error:
        log.debug("counters were not read before a reload", reason=str(error))


def labels(desk: Desk) -> Callable[[Row], Label | None]:
    """(proxy, kind, service), or (service, task) of whoever stands in a slot, or stood there last."""
    state = desk.state
    owners = {**state.former, **state.wanted.names, **(state.serving.structure.owners if state.serving else {})}

    def label(row: Row) -> Label | None:
        service = owners[row.proxy].service if row.proxy in owners else ""
        if row.kind in PROXIES:
            return row.proxy, row.kind, service
        task = desk.memory.served_last(row.proxy, row.kind)
        return (service, task) if service and task else None

    return label

"""Requests counted over HAProxy's reloads, and over restarts of this daemon: read from every worker, kept on disk."""

import asyncio
import time
from collections.abc import Callable, Collection

from fairlead_daemon.errors import Unavailable
from fairlead_daemon.logs import Log
from fairlead_lb import metrics
from fairlead_lb.decisions.counters import COLUMNS, PROXIES, Label, Row, Totals, pieces, rows
from fairlead_lb.decisions.rollout import ByService, Served
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


def look_beside(desk: Desk) -> None:
    """After each audit: HAProxy says it of thousands of slots, which no change of an endpoint shall wait for."""
    if desk.counting is not None and not desk.counting.done():
        return
    if desk.counting is not None:
        desk.counting.result()
    desk.counting = asyncio.create_task(_look(desk, None, servers=False))


async def end(desk: Desk) -> None:
    """With the loop."""
    if desk.counting is not None:
        desk.counting.cancel()
        await asyncio.wait({desk.counting})


async def _look(desk: Desk, after: "asyncio.Task[None] | None", *, servers: bool) -> None:
    """One after the other: what was read first is counted first."""
    if after is not None:
        await asyncio.wait({after})
    try:
        await look(desk, servers=servers)
    except Unavailable as error:
        log.debug("counters were not read", reason=str(error))


async def look(desk: Desk, *, servers: bool = False) -> None:
    """`servers`: also those, though they are not due. Raises Unavailable."""
    now_s, serving = time.monotonic(), desk.state.serving
    if serving is None:
        return
    servers = servers or now_s - desk.times.servers_counted > SERVERS_S
    label = labels(desk)
    current: list[Row] = []
    found = await desk.supervisor.show_stats(serving.structure, WITH_SERVERS if servers else PROXIES_ONLY)
    for worker, csv in found.items():
        kept: list[Row] = []
        for piece in pieces(csv):
            read = rows(piece)
            kept += (row for row in read if row.kind in PROXIES)
            desk.totals.saw(worker, read, label, now_s=now_s)
            await asyncio.sleep(0)  # others wait
        current = current or kept  # the serving worker's come first
    desk.totals.forget(found.keys(), now_s=now_s)
    metrics.HAPROXY.sums = desk.totals.sums
    metrics.HAPROXY.rows = current
    desk.gate.counted(served(desk.totals, _failing(desk)))
    if servers:
        desk.times.servers_counted = now_s
        desk.store.keep_counters(desk.totals.kept())


def served(totals: Totals, failing: Collection[str]) -> ByService:
    """By all backends, without services that are told to fail; "": those that are nobody's."""
    found: dict[str, Served] = {}
    for label, counts in totals.sums.items():
        if len(label) == len(PROXY_LABELS) and label[1] == "backend" and label[2] not in failing:
            so_far = found.get(label[2], Served(0, 0))
            requests, failed = counts[COLUMNS.index("req_tot")], counts[COLUMNS.index("hrsp_5xx")]
            found[label[2]] = Served(so_far.requests + requests, so_far.failed + failed)
    return found


def _failing(desk: Desk) -> frozenset[str]:
    """Services with a fault rule that aborts requests, in force or soon."""
    backends = desk.state.wanted.backends
    soon = {backends[name].key.service for name in desk.state.wanted.maps.aborts if name in backends}
    serving = desk.state.serving
    owners, now = (serving.structure.owners, serving.maps.aborts) if serving is not None else ({}, ())
    return frozenset(soon | {owners[name].service for name in now if name in owners})


async def look_before_reload(desk: Desk) -> None:
    """What the worker has counted until now: it may end at once. Counters hold up no reload."""
    desk.counting = asyncio.create_task(_look(desk, desk.counting, servers=True))
    await asyncio.wait({desk.counting})


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

"""Looks once a second whether the near servers of each backend suffice."""

import time

from fairlead_daemon.logs import Log
from fairlead_lb import metrics
from fairlead_lb.decisions import nearness
from fairlead_lb.decisions.nearness import Seen, Spilling
from fairlead_lb.desk import Desk

log = Log("lb")
LOOK_S = 1.0


def due_in_s(desk: Desk) -> float | None:
    """None when no server is nearer than another."""
    if desk.around.standing is None:
        return None
    return desk.times.spill_looked + LOOK_S - time.monotonic()


async def look(desk: Desk) -> bool:
    """Whether other servers are near now: what is wanted must be worked out anew. Raises Unavailable."""
    serving = desk.state.serving
    if desk.around.standing is None or serving is None or (due := due_in_s(desk)) is None or due > 0:
        return False
    desk.times.spill_looked = now = time.monotonic()
    backends = desk.state.wanted.backends.values()
    if not desk.state.spilling.spills and not any(s.far for b in backends for s in b.servers):
        return False
    loads = nearness.loads(await desk.supervisor.loads(serving.structure))
    last = desk.state.spilling
    seen = Seen(loads=loads, backends=desk.state.wanted.backends, slots=serving.slots)
    found = nearness.spill(last, seen, desk.around.standing, now)
    desk.state.spilling = found
    _tell(last, found)
    return found.levels != last.levels


def _tell(last: Spilling, found: Spilling) -> None:
    for key in found.levels.keys() | last.levels.keys():
        before, now = last.levels.get(key, 0), found.levels.get(key, 0)
        if now != before:
            log.info("near servers do not suffice" if now > before else "back to nearer servers",
                     service=key.service, tiers_more=now)  # fmt: skip
    metrics.SPILLED.set(len(found.levels))

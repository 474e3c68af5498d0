"""What this balancer has applied, and which leaving tasks still have sessions on it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead_discovery.records import BUSY_LIMIT, Leaving, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Connections to one slot, over all workers. `task` is "" when a predecessor's record of it is lost."""

    service: str
    task: str
    used: int


def progress(
    revision: int, leaving: Mapping[str, Leaving], sessions: Iterable[Session], *, uncounted: bool = False
) -> Progress:
    """`sessions` were read after `revision` had been applied. An unknown task's sessions count for every leaving
    task of its service: rather a kill too late than a request cut. `uncounted`: there may be others, of anybody.
    """
    working = [s for s in sessions if s.used]
    tasks = {s.task for s in working}
    unknown = {s.service for s in working if not s.task}
    busy = sorted(task for task, record in leaving.items() if task in tasks or record.service in unknown)
    return Progress(
        applied_revision=revision, busy=tuple(busy[:BUSY_LIMIT]), busy_more=uncounted or len(busy) > BUSY_LIMIT
    )

"""What of a foreign folder stays announced after much of it has vanished at once.

Owners that lost their sessions together come back one by one, under new node names. Until they had time for it, those
that are missing stay.
"""

import math
from collections.abc import Mapping

from fairlead_discovery.decisions.announcements import Service

LEAST = 3
"""Of fewer, more than half is one that goes."""
HANDOVER_S = 1.0
"""What stands under another name by now stays so long, until its successor is announced."""


def keep(
    kept: Mapping[str, float],
    standing: Mapping[str, Service],
    present: Mapping[str, Service],
    *,
    now_s: float,
    settle_s: float,
) -> dict[str, float]:
    """What of `standing` (announced) is kept although it is not among those `present` (in the folder), by task id:
    until when, infinite while the folder is empty. What is in neither goes. `kept`: the last answer.

    Kept is what vanished to nothing, or as more than half of at least three, until `settle_s` after the first
    return (or, where some had stayed, after it vanished). Clock: any that does not jump.
    """
    missing = standing.keys() - present.keys()
    if not present:
        return dict.fromkeys(missing, math.inf)
    here = {_place(service) for service in present.values()}
    replaced = {task for task in missing if _place(standing[task]) in here}
    due = dict.fromkeys(replaced, now_s + HANDOVER_S)
    fresh = missing - kept.keys()
    believed = standing.keys() - kept.keys()
    if len(believed) >= LEAST and 2 * len(fresh) > len(believed):
        due |= dict.fromkeys(fresh - replaced, now_s + settle_s)
    due |= {task: min(kept[task], due.get(task, now_s + settle_s)) for task in missing & kept.keys()}
    return {task: until_s for task, until_s in due.items() if until_s > now_s}


def _place(service: Service) -> tuple[str, int]:
    return service.host, service.port

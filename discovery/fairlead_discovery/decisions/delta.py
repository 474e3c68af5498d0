"""What has changed between two mappings, told along with the newer one, so that one change costs no look at the rest."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_discovery.decisions.sharing import Shared


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """`keys` are all whose values are not the same objects as in `since`, or that one of the two mappings lacks.

    It may name a few more. It holds on to one earlier mapping, not to a chain of them.
    """

    since: Mapping[str, Any]
    keys: frozenset[str]


def differing(before: Mapping[str, Any], after: Mapping[str, Any], delta: Delta | None) -> Collection[str]:
    """Keys whose values differ. `delta` belongs to `after`; when it tells of another `before` (we have missed a step)
    all that the two do not share is compared, by identity.
    """
    if before is after:
        return ()
    if delta is not None and delta.since is before:
        return delta.keys
    if isinstance(before, Shared) and isinstance(after, Shared):
        found = after.differing(before)
        if found is not None:
            return found
    gone = before.keys() - after.keys()
    return gone.union(key for key, value in after.items() if before.get(key) is not value)

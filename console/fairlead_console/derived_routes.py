"""Routes that nobody wrote: balancers make them of the labels of tasks."""

from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Any

from fairlead_daemon.errors import Unavailable


async def of_labels(opened: Any, written: Collection[str]) -> Mapping[str, Any]:
    """By service, of those that have no written route. Raises Unavailable when the registry cannot be read now."""
    from fairlead_discovery.reading import snapshots  # noqa: PLC0415  # `--help` is fast without it
    from fairlead_discovery.snapshots import Trust  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.derived import route_from_labels  # noqa: PLC0415  # see above

    async with aclosing(snapshots(opened)) as seen:  # type: ignore[type-var]  # it is a generator
        async for snapshot in seen:
            if snapshot.trust is Trust.STALE:
                raise Unavailable("the registry's endpoints cannot be read now")
            made = {s: route_from_labels(s, there) for s, there in snapshot.members.items() if s not in written}
            return {service: found[0] for service, found in sorted(made.items()) if found is not None}
    return {}

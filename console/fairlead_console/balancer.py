"""Asking the balancer and the registry about balancers."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fairlead_console.decisions.balancers import Registration, problems_of
from fairlead_console.use import Calls
from fairlead_daemon.errors import FairleadError, Refused

WAIT_S = 3.0
POLL_S = 0.2


async def status(calls: Calls, query: str = "") -> Mapping[str, Any]:
    """{} when there is no balancer, or it does not answer. `query`: what of it, `?summary=1` is cheap."""
    if not calls.addresses.lb:
        return {}
    try:
        async with asyncio.timeout(WAIT_S):
            return dict(await calls.url("GET", f"{calls.addresses.lb}/status{query}"))
    except (FairleadError, TimeoutError, TypeError, ValueError):
        return {}


async def app_problems(calls: Calls, app_id: str) -> list[str]:
    """What the app does not get of the balancer, once that has done what is due: ports show at a reload."""
    end_s = time.monotonic() + WAIT_S
    found = await status(calls, "?summary=1")
    while found.get("reload_due") and time.monotonic() < end_s:
        await asyncio.sleep(POLL_S)
        found = await status(calls, "?summary=1")
    return problems_of(found, app_id)


async def registrations(registry: Any) -> Sequence[Registration]:
    """Every registered balancer, by id. Raises Unavailable."""
    from fairlead_discovery import paths  # noqa: PLC0415  # `--help` is fast without it

    names = await registry.tree.names(paths.BALANCERS)
    return [await _registration(registry, paths.unescape(name)) for name in names]


async def _registration(registry: Any, name: str) -> Registration:
    """A record that cannot be read is a registration all the same: kills wait for it."""
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.records import Balancer, Progress  # noqa: PLC0415  # see above

    balancer = await _read(registry, Balancer, paths.below(paths.BALANCERS, name))
    progress = await _read(registry, Progress, paths.below(paths.PROGRESS, name))
    return Registration(
        id=name,
        admin=balancer.admin if balancer is not None else "?",
        node=balancer is not None and balancer.node,
        applied=progress.applied_revision if progress is not None else None,
        age_s=max(0.0, time.time() - progress.written_s) if progress is not None and progress.written_s else None,
    )


async def _read(registry: Any, kind: Any, place: str) -> Any:
    """None when it is not there, or unreadable."""
    from fairlead_discovery.records import decode  # noqa: PLC0415  # see above

    node = await registry.tree.get(place)
    try:
        return decode(kind, node.data, place=place) if node is not None else None
    except Refused:
        return None

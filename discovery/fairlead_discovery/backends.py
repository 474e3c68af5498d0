"""Opening a registry by its URL. A backend is one entry of STORES and nothing else."""

import asyncio
from collections.abc import Callable, Mapping

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.adapters import local, zookeeper_store
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.relocating import RelocatingStore
from fairlead_discovery.store import Store

FIRST_SIGHT_S = 2.0


def _memory(place: str) -> Store:
    return cluster(place).open(f"memory:{place}")


STORES: Mapping[str, Callable[[str], Store]] = {
    "local": local.open_store,
    "memory": _memory,
    "zk": zookeeper_store.open_store,
}
"""By scheme; called with what follows `scheme:` (and `//`), in a running event loop. Raises BadSettings."""


def check_url(url: str) -> tuple[str, str]:
    """`local:/run/r.sock` -> ("local", "/run/r.sock"). Raises BadSettings naming the `registry` key."""
    scheme, colon, place = url.partition(":")
    if not colon or scheme not in STORES:
        known = ", ".join(sorted(STORES))
        raise BadSettings(f"registry: {url!r} is no registry, expected one of {known} and its place")
    place = place.removeprefix("//")
    if not place:
        raise BadSettings(f"registry: {url!r} names no place")
    return scheme, place


FOLLOWED = ("local", "zk")
"""What `fairlead registry copy` moves; the twin in memory is for tests."""


def open_store(url: str) -> Store:
    """Raises BadSettings."""
    scheme, place = check_url(url)
    return STORES[scheme](place)


async def open_registry(url: str, *, follow: bool = True) -> ComposedRegistry:
    """A Registry with a session of its own. Close it to end the session.

    An absent registry is no error: it is looked for as long as the Registry is open. When it is moved by `fairlead
    registry copy` we go along, unless `follow` is False. Raises BadSettings.
    """
    store = open_store(url)
    if follow and url.partition(":")[0] in FOLLOWED:
        store = RelocatingStore(store, open_store)
    try:
        async with asyncio.timeout(FIRST_SIGHT_S):
            async for connection in store.connection.changes():
                if connection.in_sight:
                    break
    except TimeoutError:
        pass  # it comes into sight later; readers get the last good state, writers Unavailable
    return ComposedRegistry(store)

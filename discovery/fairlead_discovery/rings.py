"""Rings in the registry: read, followed, and changed by one writer at a time."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from fairlead_daemon.errors import Conflict, Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.decisions.membership import Membership, RingMember, Rings, check_new, rings
from fairlead_discovery.decisions.picking import Endpoint, endpoint_ring
from fairlead_discovery.decisions.service_names import Naming
from fairlead_discovery.records import decode, encode, rewritten
from fairlead_discovery.registry import NEW, Node, Registry
from fairlead_discovery.resolver import Resolver

log = Log("discovery")
TRIES = 10
"""Writers that met on one document, before the last gives up."""


class NoRing(Refused):
    """There is no ring of that name, nor an endpoint."""


async def read_ring(registry: Registry, service: str) -> Membership:
    """Raises Refused when there is none, or when it cannot be read; Unavailable."""
    return (await _read(registry, service))[0]


async def find_ring(registry: Registry, service: str, *, naming: Naming = Naming()) -> Membership:  # noqa: B008  # frozen
    """The ring of that name or, where there is none, the one made under another name of the service: its key, its app
    id, a DNS name (which is known while the service has endpoints). Raises Refused when there is none, or when it is
    not clear which one is meant; Unavailable.
    """
    try:
        return await read_ring(registry, service)
    except NoRing:
        async with Resolver(registry, naming=naming) as resolver:
            made = await _made_otherwise(registry, resolver, service)
            if made is None:
                raise
            return await read_ring(registry, made)


async def ring_or_endpoints(registry: Registry, service: str, *, naming: Naming = Naming()) -> Membership:  # noqa: B008  # frozen
    """As `find_ring` or, where no ring was made, that of the service's published endpoints (members `host:port`,
    version 0), as Resolver.pick with a key sees it. Raises Refused when there is neither, Unavailable.
    """
    with suppress(NoRing):
        return await read_ring(registry, service)
    async with Resolver(registry, naming=naming) as resolver:
        made = await _made_otherwise(registry, resolver, service)
        if made is not None:
            return await read_ring(registry, made)
        ring = endpoint_ring(_published(resolver, service))
    if not ring.places:
        raise NoRing(f"no ring is called {service}, and no endpoint; `fairlead ring create` makes a ring")
    members = (RingMember(name=place.name, weight=place.weight_milli / 1000) for place in ring.places)
    return Membership(
        service=service, version=0, slots=ring.shape.slots, points=ring.shape.points, members=tuple(members)
    )


async def _made_otherwise(registry: Registry, resolver: Resolver, service: str) -> str | None:
    """The name of the ring that was made under another name of the service. Raises Refused when there are several."""
    meant = _services(resolver, service)
    names = [paths.unescape(name) for name in await registry.tree.names(paths.RINGS)] if meant else []
    found = sorted(name for name in names if meant & _services(resolver, name))
    if len(found) > 1:
        raise Refused(f"{service} may be one of several rings: {', '.join(found)}; give the ring's own name")
    return found[0] if found else None


def _services(resolver: Resolver, name: str) -> frozenset[str]:
    try:
        return resolver.services(name)
    except Refused:  # a ring's name need not be a service's
        return frozenset()


def _published(resolver: Resolver, service: str) -> Sequence[Endpoint]:
    try:
        return resolver.endpoints(service)
    except Refused:  # see above
        return ()


async def _read(registry: Registry, service: str) -> tuple[Membership, Node]:
    path = paths.below(paths.RINGS, service)
    node = await registry.read(path)
    if node is None:
        raise NoRing(f"no ring is called {service}; `fairlead ring create` makes one")
    return decode(Membership, node.data, place=path), node


async def create_ring(registry: Registry, membership: Membership) -> None:
    """Raises Conflict when there is one of the service's name already, Refused for an impossible name or shape."""
    check_new(membership)
    try:
        await registry.write(paths.below(paths.RINGS, membership.service), encode(membership), expect=NEW)
    except Conflict as error:
        raise Conflict(f"there is a ring called {membership.service} already") from error


async def change_ring(registry: Registry, service: str, change: Callable[[Membership], Membership]) -> Membership:
    """Applies a change of decisions/membership.py to the newest document, again when somebody else was first.

    Raises what the change raises, Conflict after ten lost races, Unavailable (then perhaps done: read again).
    """
    for attempt in range(TRIES):
        before, node = await _read(registry, service)
        after = change(before)
        try:
            await registry.write(paths.below(paths.RINGS, service), rewritten(node.data, after), expect=node.version)
        except Conflict:
            if attempt == TRIES - 1:
                raise
            continue
        return after
    raise AssertionError("the last attempt returns or raises")


async def remove_ring(registry: Registry, service: str) -> None:
    """Raises Refused when there is none."""
    await read_ring(registry, service)
    await registry.remove(paths.below(paths.RINGS, service))


async def follow_ring(registry: Registry, service: str) -> AsyncIterator[Rings | None]:
    """The service's rings at once and at every change; None while there is no such document.

    A document that cannot be read is named in the log, and the last good one stands. Out of sight nothing comes.
    """
    name, last, fresh = paths.escape(service), None, True
    async for nodes in registry.follow(paths.RINGS):
        node = nodes.get(name)
        try:
            found = None if node is None else decode(Membership, node.data, place=paths.below(paths.RINGS, service))
            both = None if found is None else rings(found)
        except Refused as error:
            log.warning("ring unreadable, the last good one stands", why=str(error))
            continue
        if fresh or found != last:
            fresh, last = False, found
            yield both

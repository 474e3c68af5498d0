"""Registries read whole, and made like one another: export, import, copy.

An import first closes the registry (`Cluster.importing`): leaders' writes are refused, readers serve what they have
and call it stale. Then come the nodes, and the last transaction gives it its cluster, revision and epochs, and opens
it. Killed in between it stays closed, and the same import again finishes it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

import msgspec

from fairlead_daemon.errors import FairleadError, Refused, Unavailable, Unsafe
from fairlead_daemon.logs import Log
from fairlead_discovery import coordination, paths
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.decisions.archive import Image, Plan, plan
from fairlead_discovery.decisions.ops import Drop, Set
from fairlead_discovery.records import Cluster, decode, rewritten
from fairlead_discovery.registry import NEW, SESSION_S, Node, Sight

log = Log("discovery")
IN_SIGHT_S = 5.0
SIGHT_S = 120.0
"""How long a first whole sight may take: 100,000 endpoints on ZooKeeper need 12 s."""
AT_ONCE = 64
LEASES_END_S = int(SESSION_S) + 2
"""A holder may hear late that the registry has moved; from then on its lease runs out."""
_APART = frozenset({*paths.CLOCKED, paths.EPOCHS, paths.CLUSTER, paths.REVISION})
"""What a walk of the documents leaves out."""

Tell = Callable[[str, int, int], None]
"""`tell(what, done, of)`: progress, for a person."""


async def image_of(registry: ComposedRegistry, tell: Tell) -> Image:
    """Everything but what has no data. The clocked tree is of one revision; documents are as each is read.

    Raises Unavailable.
    """
    await _in_sight(registry)
    cluster, _, record = await _cluster(registry)
    clock = await registry.tree.get(paths.REVISION)
    sight = await _sight(registry, cluster.base + (clock.version if clock is not None else 0))
    nodes = {f"{folder}/{name}": data for folder, held in sight.folders.items() for name, data in held.items()}
    passing: set[str] = set()
    unreadable = dict(sight.unreadable)
    async for path, data, ends in _documents(registry, tell, unreadable):
        if ends:
            passing.add(path)
        elif data:
            nodes[path] = data
    return Image(
        cluster=cluster,
        revision=sight.revision,
        epoch=await _epoch(registry, cluster),
        nodes=nodes,
        passing=frozenset(passing),
        record=record,
        unreadable=unreadable,
    )


async def restore(registry: ComposedRegistry, wanted: Image, *, force: bool, tell: Tell, finish: bool = True) -> Plan:
    """Makes the registry like `wanted`; without `finish` it stays closed, to be gone on with.

    Raises Refused for a node that it would not take, Unsafe (nothing was done, in both cases) when it would empty a living registry, unless `force`.
    """
    registry.store.admin = True
    present = await image_of(registry, tell)
    todo = plan(present, wanted)
    if todo.dangers and not force and not present.cluster.importing:
        raise Unsafe(f"{'; '.join(todo.dangers)} ({todo.summary()}); --force does it")
    todo.check()
    note = f"of cluster {wanted.cluster.uuid} at revision {wanted.revision}; run it again to finish it"
    version = await _set_cluster(registry, importing=note)
    done, whole = 0, len(todo.created) + len(todo.changed) + len(todo.removed)
    for chunk in todo.chunks():
        await registry.store.multi(chunk, clocked=True)  # a sight of that revision holds it: see image_of
        done += len(chunk)
        tell("nodes written", done, whole)
    if finish:
        await _open(registry, todo, version)
    return todo


async def move(source: ComposedRegistry, target: ComposedRegistry, url: str, *, force: bool, tell: Tell) -> Plan:
    """Makes `target` (at `url`) go on as `source`, which is closed to writers for the last, short part of it.

    Raises what `restore` raises; then the source is as it was.
    """
    source.store.admin = True
    cluster, *_ = await _in_sight(source)
    if cluster.moved and cluster.moved != url and not force:
        raise Unsafe(f"that registry has moved to {cluster.moved} already; --force copies it all the same")
    most = await restore(target, await image_of(source, tell), force=force, tell=tell, finish=False)
    try:
        await _set_cluster(source, moved=url)
        last = await image_of(source, tell)
        await _let_leases_end(last, tell)
        return most.then(await restore(target, last, force=True, tell=tell))
    except BaseException:
        if not cluster.moved:
            with suppress(FairleadError):
                await _set_cluster(source, moved="")
        raise


async def _let_leases_end(image: Image, tell: Tell) -> None:
    """Who holds a lock must have ended before another can get it in the new place."""
    if any(coordination.is_lease(path) for path in image.passing):
        for second in range(LEASES_END_S):
            tell("s until no lock is held any more", second, LEASES_END_S)
            await asyncio.sleep(1.0)


async def _open(registry: ComposedRegistry, todo: Plan, version: int) -> None:
    """The last transaction: whose registry this is now."""
    clock = await registry.tree.get(paths.REVISION)
    base = todo.revision - (clock.version if clock is not None else 0)
    record = msgspec.structs.replace(todo.cluster, base=base)
    mark = paths.escape(record.uuid)
    marks = await registry.tree.names(paths.CLUSTER)
    roles = await registry.tree.names(paths.EPOCHS)
    await registry.store.multi(
        [
            Set(path=paths.CLUSTER, data=rewritten(todo.record, record), expect=version),
            *(Set(path=f"{paths.EPOCHS}/{role}") for role in roles),  # a leader of before knows what is no more
            *(Drop(path=f"{paths.CLUSTER}/{name}") for name in marks if name != mark),
            *([Set(path=f"{paths.CLUSTER}/{mark}", expect=NEW)] if mark not in marks else []),
        ]
    )
    await registry.store.renew()
    log.info("registry imported", cluster=record.uuid, revision=todo.revision, **todo.fields())


async def _set_cluster(registry: ComposedRegistry, **changes: str) -> int:
    """The record's new version."""
    cluster, version, before = await _in_sight(registry)
    data = rewritten(before, msgspec.structs.replace(cluster, **changes))
    done = await registry.store.multi([Set(path=paths.CLUSTER, data=data, expect=version)])
    await registry.store.renew()
    return int(done.results[0])


async def _in_sight(registry: ComposedRegistry) -> tuple[Cluster, int, bytes]:
    """The cluster's record, its version and how it stands, as soon as there is a connection. Raises Unavailable."""
    try:
        async with asyncio.timeout(IN_SIGHT_S):
            async with aclosing(registry.store.connection.changes()) as connections:  # type: ignore[type-var]  # a generator
                await anext(c async for c in connections if c.in_sight)
    except TimeoutError as error:
        raise Unavailable("registry out of sight") from error
    return await _cluster(registry)


async def _cluster(registry: ComposedRegistry) -> tuple[Cluster, int, bytes]:
    node = await registry.tree.get(paths.CLUSTER)
    if node is None:
        raise Unavailable(f"registry without {paths.CLUSTER}")
    return decode(Cluster, node.data, place=paths.CLUSTER), node.version, node.data


async def _sight(registry: ComposedRegistry, revision: int) -> Sight:
    try:
        async with asyncio.timeout(SIGHT_S), aclosing(registry.watch()) as sights:  # type: ignore[type-var]  # a generator
            return await anext(s async for s in sights if s.in_sight and s.revision >= revision)
    except TimeoutError as error:
        raise Unavailable(f"registry not read to revision {revision} within {SIGHT_S:.0f} s") from error


async def _epoch(registry: ComposedRegistry, cluster: Cluster) -> int:
    names = await registry.tree.names(paths.EPOCHS)
    nodes = [await registry.tree.get(f"{paths.EPOCHS}/{name}") for name in names]
    return cluster.epoch_base + max((node.version for node in nodes if node is not None), default=0)


async def _documents(
    registry: ComposedRegistry, tell: Tell, unreadable: dict[str, str]
) -> AsyncIterator[tuple[str, bytes, bool]]:
    """Path, data, and whether it ends with a session; level by level. What is closed to us goes into `unreadable`."""

    async def one(path: str) -> tuple[Node | None, tuple[str, ...]]:
        try:
            return await registry.tree.get(path), await registry.tree.names(path)
        except Refused as error:
            unreadable[path] = f"{path}: {error}"
            return None, ()

    level = [paths.ROOT]
    seen = 0
    while level:
        below: list[str] = []
        for start in range(0, len(level), AT_ONCE):
            part = level[start : start + AT_ONCE]
            for path, (node, names) in zip(part, await asyncio.gather(*map(one, part)), strict=True):
                below += [child for name in names if (child := f"{path}/{name}") not in _APART]
                if node is not None:
                    seen += 1
                    yield path, node.data, node.passing
            tell("documents read", seen, 0)
        level = below

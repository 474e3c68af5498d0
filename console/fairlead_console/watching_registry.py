"""`fairlead registry watch`: what changes in a registry, as lines."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing

import msgspec

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry

Nodes = Mapping[str, bytes]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """`change`: + made, ~ changed, - gone, ! out of sight or back. `revision` -1: not of the clocked tree."""

    revision: int
    change: str
    path: str
    text: str = ""


def difference(before: Nodes, now: Nodes, revision: int) -> Iterator[Line]:
    """Sorted by path."""
    for path in sorted(before.keys() | now.keys()):
        old, new = before.get(path), now.get(path)
        if old != new:
            change = "+" if old is None else "-" if new is None else "~"
            yield Line(revision=revision, change=change, path=path, text=(new or b"").decode("utf-8", "replace"))


async def lines(url: str, path: str) -> AsyncIterator[Line]:
    """What is there at first is not told, only what changes. Endless."""
    registry = await open_registry(url)
    clocked = path in {"/", paths.ROOT} or path.startswith(paths.CLOCKED)
    source = _clocked(registry, path) if clocked else _folder(registry, path)
    try:
        async with aclosing(source) as found:  # type: ignore[type-var]  # both are generators
            async for line in found:
                yield line
    finally:
        await registry.close()


async def _clocked(registry: ComposedRegistry, path: str) -> AsyncIterator[Line]:
    start = f"{path.rstrip('/')}/"
    before: Nodes | None = None
    seen = False
    async for sight in registry.watch():
        if before is not None and sight.in_sight != seen:
            yield Line(
                revision=sight.revision, change="!", path=path, text="in sight" if sight.in_sight else "out of sight"
            )
        seen = sight.in_sight
        if not seen:
            continue
        every = ((f"{folder}/{name}", data) for folder, held in sight.folders.items() for name, data in held.items())
        now = {where: data for where, data in every if where.startswith(start) or where == path}
        for line in difference(before if before is not None else now, now, sight.revision):
            yield line
        before = now


async def _folder(registry: ComposedRegistry, path: str) -> AsyncIterator[Line]:
    before: Nodes | None = None
    async for nodes in registry.follow(path):
        now = {f"{path}/{name}": node.data for name, node in nodes.items()}
        for line in difference(before if before is not None else now, now, -1):
            yield line
        before = now

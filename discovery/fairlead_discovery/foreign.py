"""Reading other people's registrations as they stand in the tree, and following them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

from fairlead_daemon.logs import Log
from fairlead_discovery import metrics
from fairlead_discovery.decisions.foreign_nodes import READERS, Reading, read_folder
from fairlead_discovery.registry import Node, Registry, Tree

AT_ONCE = 100
"""Reads under way at a time: they are pipelined, and nobody's queue is filled."""
NAMES_SAY_ALL = frozenset({"nerve-base64"})
log = Log("discovery")


async def read(tree: Tree, form: str, folder: str) -> Reading:
    """The endpoints of one folder: `/aurora/www/prod/web`, `/nerve/services/x`, `/discovery/<service>`,
    `/endpoints/<proid>`. Nodes that go meanwhile are left out. Raises Unavailable.
    """
    names = await tree.names(folder)
    if form in NAMES_SAY_ALL:
        return _told(folder, form, read_folder(form, ((name, b"") for name in names)))
    nodes: list[tuple[str, bytes]] = []
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        found = await asyncio.gather(*(tree.get(f"{folder}/{name}") for name in part))
        nodes += [(name, node.data) for name, node in zip(part, found, strict=True) if node is not None]
    return _told(folder, form, read_folder(form, nodes))


async def follow(registry: Registry, form: str, folder: str) -> AsyncIterator[Reading]:
    """At once, then at every change; out of sight nothing comes, the last answer stands."""
    skipped: Mapping[str, str] = {}
    async for nodes in registry.follow(folder):
        reading = read_folder(form, _data(nodes))
        if reading.skipped != skipped:
            skipped = reading.skipped
            _told(folder, form, reading)
        yield reading


def _data(nodes: Mapping[str, Node]) -> Iterable[tuple[str, bytes]]:
    return ((name, node.data) for name, node in sorted(nodes.items()))


def _told(folder: str, form: str, reading: Reading) -> Reading:
    assert form in READERS
    metrics.foreign_skipped.labels(format=form).set(len(reading.skipped))
    for name, why in reading.skipped.items():
        log.warning("node skipped", folder=folder, node=name, format=form, why=why)
    return reading

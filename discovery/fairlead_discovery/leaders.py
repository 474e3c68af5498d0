"""Who leads: for everybody who wants to speak with the master."""

from collections.abc import AsyncIterator, Mapping

from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.decisions.election import lowest
from fairlead_discovery.records import MasterInfo, decode
from fairlead_discovery.registry import Node, Registry

log = Log("discovery")


async def masters(registry: Registry, *, candidacy: str = paths.MASTER_CANDIDACY) -> AsyncIterator[MasterInfo | None]:
    """The leading master, None while nobody leads: at once when known, then at every change.

    Out of sight nothing comes: the last answer stands.
    """
    folder, _, stem = candidacy.rpartition("/")
    last: MasterInfo | None = None
    fresh = True
    async for nodes in registry.follow(folder):
        leader = leading(nodes, folder, stem)
        if fresh or leader != last:
            fresh, last = False, leader
            yield leader


def leading(nodes: Mapping[str, Node], folder: str, stem: str) -> MasterInfo | None:
    """The lowest candidate's MasterInfo; one that cannot be read counts as none, and is named in the log."""
    name = lowest(nodes, stem)
    if name is None:
        return None
    try:
        return decode(MasterInfo, nodes[name].data, place=f"{folder}/{name}")
    except Refused as error:
        log.warning("leader unreadable", why=str(error))
        return None

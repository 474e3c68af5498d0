"""The frameworks, agents and masters of last time, on disk: their names outlive a restart without the registry.

Services are kept by discovery's snapshots; these are documents, which no snapshot holds.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.records import Agent, Framework, MasterInfo
from fairlead_dns.names import Names

log = Log("dns")
CALM_S = 1.0  # changes of one second are written once


class Documents(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds."""

    frameworks: Mapping[str, Framework] = {}
    agents: Mapping[str, Agent] = {}
    masters: tuple[MasterInfo, ...] = ()
    leader: MasterInfo | None = None


def load(file: Path, names: Names) -> None:
    """Takes the names from the file; one that is missing or unreadable is as none."""
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=Documents)
    except FileNotFoundError:
        return
    except (OSError, msgspec.DecodeError) as error:
        log.warning("kept documents unreadable", file=file, why=str(error))
        return
    names.take_frameworks(kept.frameworks)
    names.take_agents(kept.agents)
    names.take_masters(kept.masters, kept.leader)


async def keep(file: Path, names: Names) -> None:
    """Writes what is known whenever it has changed."""
    while True:
        await names.documents_changed.wait()
        await asyncio.sleep(CALM_S)
        names.documents_changed.clear()
        data = msgspec.json.encode(
            Documents(frameworks=names.frameworks, agents=names.agents, masters=names.masters, leader=names.leader)
        )
        try:
            await asyncio.to_thread(replace_file, file, data)  # it waits for the disk
        except OSError as error:
            log.warning("documents not kept", file=file, why=str(error))

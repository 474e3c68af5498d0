"""A reader in a process of its own: `telling_reader.py URL KEEP` writes `<unix time> <trust> <revision>` per snapshot."""

import asyncio
import sys
import time
from pathlib import Path

from fairlead_discovery.backends import open_registry
from fairlead_discovery.reading import snapshots


async def main(url: str, keep: str) -> None:
    registry = await open_registry(url)
    async for snapshot in snapshots(registry, keep=Path(keep)):
        print(f"{time.time():.0f} {snapshot.trust.value} {snapshot.revision}", flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2]))

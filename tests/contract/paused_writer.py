"""A leader of role `master`: for each line on stdin it creates `leaving/<line>` under its first epoch's guard.

Says `leading`, then `done` or `refused` for each line. What is unavailable is tried again, as often as it takes.
"""

import asyncio
import sys

from fairlead_daemon.errors import Conflict, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.registry import Create, Guard, Standing


async def main(url: str) -> None:
    registry = await open_registry(url)
    elected: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()

    async def stand() -> None:
        async for standing in registry.campaign("master", b"paused"):
            if standing.leading and not elected.done():
                elected.set_result(standing)

    task = asyncio.create_task(stand())
    guard = Guard("master", (await elected).epoch)
    print("leading", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await write(registry, line.strip(), guard), flush=True)
    task.cancel()


async def write(registry: ComposedRegistry, name: str, guard: Guard) -> str:
    while True:
        try:
            await registry.commit([Create(f"{paths.LEAVING}/{name}")], guard=guard)
        except Unavailable:
            await asyncio.sleep(0.1)
        except Conflict:
            return "refused"
        else:
            return "done"


asyncio.run(main(sys.argv[1]))

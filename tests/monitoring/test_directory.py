"""Whom the monitor looks at, by what the registry says."""

import asyncio
import contextlib

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Balancer, encode
from fairlead_monitoring.directory import Directory
from fairlead_monitoring.settings import MonitorSettings
from harness.waiting import eventually


async def test_balancers_of_single_machines_are_left_alone():
    """They speak every 10 s only, and at 127.0.0.1 of their own machine."""
    registry = await open_registry("memory:directory")
    directory = Directory(MonitorSettings())
    following = asyncio.create_task(directory.run(registry))
    for one in (
        Balancer(id="node", admin="http://127.0.0.1:9191", node=True),
        Balancer(id="edge", admin="10.0.0.1:9090"),
    ):
        await registry.write(paths.below(paths.BALANCERS, one.id), encode(one))

    async def known() -> bool:
        return bool(directory.known.balancers)

    await eventually("the edge balancer is known", known)
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    await registry.close()

    assert {"edge": "http://10.0.0.1:9090"} == directory.known.balancers

"""The local registry killed with SIGKILL, again and again, in the middle of commits by several writers."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.conftest import Local
from fairlead_daemon.errors import Unavailable
from fairlead_discovery import paths
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.registry import Put
from harness.waiting import eventually

WRITERS = 4
LATEST_S = 0.06
"""A kill comes at a random moment of that much writing."""


@pytest.fixture
async def local(short_dir: Path) -> AsyncIterator[Local]:
    made = Local(short_dir)
    await made.start()
    yield made
    await made.close()


class Writer:
    """Writes one number to two nodes in each commit, one more each time."""

    def __init__(self, registry: ComposedRegistry, number: int) -> None:
        self.acknowledged = 0
        self.attempted = 0
        self.revision = 0
        self.registry = registry
        self.paths = (paths.route(f"w{number}:a"), paths.route(f"w{number}:b"))
        self.back = asyncio.Event()

    async def run(self) -> None:
        """Until a commit's outcome is unknown."""
        while True:
            self.attempted += 1
            data = b"%d" % self.attempted
            try:
                revision = await self.registry.commit([Put(path, data) for path in self.paths])
            except Unavailable:
                return
            assert revision > self.revision
            self.revision, self.acknowledged = revision, self.attempted

    async def stored(self) -> tuple[int, int]:
        nodes = [await self.registry.read(path) for path in self.paths]
        one, two = (int(node.data) if node is not None else 0 for node in nodes)
        return one, two


@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.soak)])
async def test_killed_in_the_middle_of_commits(local: Local, kills: int):
    """What was acknowledged is there, of what was not all or nothing, and the revision only rises."""
    writers = [Writer(await local.open(), n) for n in range(WRITERS)]
    landed = 0
    for _ in range(kills):
        tasks = [asyncio.create_task(writer.run()) for writer in writers]
        await asyncio.sleep(random.random() * LATEST_S)
        await local.stop()
        await asyncio.gather(*tasks)
        await local.start()
        await eventually("in sight again", lambda: _in_sight(writers))
        before = max(writer.revision for writer in writers)
        for writer in writers:
            one, two = await writer.stored()
            assert one == two
            assert writer.acknowledged <= one <= writer.attempted
            landed += one > writer.acknowledged
            writer.acknowledged = writer.attempted = one
        assert before < await writers[0].registry.commit([])

    assert sum(writer.acknowledged for writer in writers) > kills
    assert landed < kills * WRITERS  # else nothing was killed in the middle


async def _in_sight(writers: list[Writer]) -> bool:
    return all(writer.registry.store.connection.value.in_sight for writer in writers)

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.agents import Agent, agent
from harness.stub_master import StubMaster


@pytest.fixture
async def master() -> AsyncIterator[StubMaster]:
    async with StubMaster() as one:
        yield one


@pytest.fixture
async def one(short_dir: Path, master: StubMaster) -> AsyncIterator[Agent]:
    """A registered agent."""
    async with agent(short_dir, master.address) as it:
        await master.registered()
        yield it

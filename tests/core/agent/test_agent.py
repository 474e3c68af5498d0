"""A real agent, its real keeper and real processes, with a master that does what the test says."""

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
    async with agent(short_dir, master.address) as it:
        await master.registered()
        yield it


async def test_a_command_starts_runs_and_finishes(one: Agent, master: StubMaster):
    """Three updates in order; the command's output is in its sandbox."""
    await master.run("t1", "echo hello; echo trouble >&2")
    await master.until("t1", "TASK_FINISHED")

    assert ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"] == master.states("t1")
    assert ("hello\n", "trouble\n") == (one.output("t1"), one.output("t1", "stderr"))

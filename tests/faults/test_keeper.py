"""The keeper killed: its tasks end within 2 s, are reported, nothing leaks, another keeper takes its place."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_daemon.processes import alive, identify
from harness.agents import Agent, agent
from harness.stub_master import StubMaster
from harness.waiting import eventually

ESCAPING = "setsid sleep 100 & setsid setsid sleep 100 & (sleep 100 &) ; trap '' TERM; exec sleep 100"
"""Children in its group, in sessions of their own, orphaned; deaf to TERM."""


@pytest.fixture
async def master() -> AsyncIterator[StubMaster]:
    async with StubMaster() as one:
        yield one


@pytest.fixture
async def one(short_dir: Path, master: StubMaster) -> AsyncIterator[Agent]:
    """A registered agent."""
    async with agent(short_dir, master.address) as it:
        await master.registered()
        await eventually("a keeper", lambda: asyncio.to_thread(it.keeper))
        yield it


async def run_escaping(one: Agent, master: StubMaster) -> None:
    await master.run("t1", ESCAPING)
    await eventually("all its processes run", lambda: asyncio.to_thread(lambda: len(one.processes()) == 4))


async def test_a_dead_keepers_tasks_end_within_two_seconds_and_are_told(one: Agent, master: StubMaster):
    """The agent notices, ends all of them, daemonised ones too, tells the reason, and the next keeper takes tasks."""
    await run_escaping(one, master)
    keeper = one.kill_keeper()
    begin = time.monotonic()
    await eventually("all ended", lambda: asyncio.to_thread(lambda: not one.processes()))
    took_s = time.monotonic() - begin
    status = await master.until("t1", "TASK_FAILED")
    await master.run("t2", "exec sleep 100")
    await master.until("t2", "TASK_RUNNING")

    assert took_s < 2.0
    assert ("the keeper died; its tasks were ended", "REASON_EXECUTOR_TERMINATED") == (
        status["message"], status["reason"],
    )  # fmt: skip
    assert keeper != one.keeper()


async def test_without_an_agent_the_next_keeper_ends_them(one: Agent, master: StubMaster):
    """Agent and keeper killed together: what is left ends as soon as an agent is started again."""
    await run_escaping(one, master)
    await asyncio.to_thread(one.kill)
    one.kill_keeper()
    one.start()
    begin = time.monotonic()
    await eventually("all ended", lambda: asyncio.to_thread(lambda: not one.processes()))
    took_s = time.monotonic() - begin
    status = await master.until("t1", "TASK_FAILED")

    assert took_s < 5.0  # an agent and a keeper start in it, on a machine that others share
    assert "the keeper died; its tasks were ended" == status["message"]


async def test_a_keeper_killed_while_many_tasks_start_leaves_none_behind(one: Agent, master: StubMaster):
    """At whatever line it stands: each task is told RUNNING and failed, or started by the next keeper; none is doubled."""
    names = [f"t{n}" for n in range(30)]
    for name in names:
        await master.run(name, "exec sleep 100")
    await master.until("t3", "TASK_RUNNING")
    one.kill_keeper()

    async def all_settled() -> bool:
        ended = [n for n in names if master.states(n)[-1:] == ["TASK_FAILED"]]
        running = [n for n in names if master.states(n)[-1:] == ["TASK_RUNNING"]]
        return len(ended) + len(running) == 30 and len(await asyncio.to_thread(one.processes)) == len(running)

    await eventually("each runs or has failed", all_settled)

    assert "TASK_FAILED" == master.states("t3")[-1]
    assert all(s[:1] == ["TASK_STARTING"] for s in map(master.states, names))


async def test_a_keeper_that_is_asked_to_end_ends_its_tasks_first(one: Agent, master: StubMaster):
    """SIGTERM: the tasks get TERM, their exits are told as such; a new keeper is there afterwards."""
    await master.run("t1", "trap 'echo tidy; exit 5' TERM; while :; do sleep 0.05; done")
    await master.until("t1", "TASK_RUNNING")
    await asyncio.sleep(0.1)
    keeper = one.keeper()
    os.kill(keeper.pid, signal.SIGTERM)
    status = await master.until("t1", "TASK_FAILED")
    await eventually("another keeper", lambda: asyncio.to_thread(lambda: one.keeper() != keeper))

    assert "Command exited with status 5" == status["message"]
    assert "tidy\n" == one.output("t1")


async def test_the_keeper_has_nothing_of_its_starter(one: Agent):
    """A session of its own, no parent among us, standard streams that are files or null, a private folder."""
    keeper = one.keeper()
    fields = Path(f"/proc/{keeper.pid}/stat").read_text().rpartition(")")[2].split()
    streams = [os.readlink(f"/proc/{keeper.pid}/fd/{n}") for n in (0, 1, 2)]

    assert int(fields[1]) != one.server.pid
    assert os.getsid(keeper.pid) == keeper.pid
    assert ["/dev/null", str(one.data / "keeper" / "keeper.log"), str(one.data / "keeper" / "keeper.log")] == streams
    assert 0o700 == (one.data / "keeper").stat().st_mode & 0o777


RESERVED = 0b11 << 31  # signals 32 and 33 are the C library's own: nobody can reset them, whoever handed them down


async def test_tasks_hold_nothing_of_the_keeper(one: Agent, master: StubMaster):
    """Only the three standard streams are open in a task, and no signal is ignored."""
    await master.run("t1", "ls /proc/self/fd | wc -l; cat /proc/self/status | grep SigIgn")
    await master.until("t1", "TASK_FINISHED")
    lines = one.output("t1").splitlines()

    assert "4" == lines[0]  # 0, 1, 2 and the folder `ls` reads
    assert 0 == int(lines[1].split()[1], 16) & ~RESERVED


async def test_a_second_keeper_never_works_beside_the_first(one: Agent, master: StubMaster):
    """It leaves again; the first and its tasks are as they were."""
    await master.run("t1", "exec sleep 100")
    await master.until("t1", "TASK_RUNNING")
    before = one.keeper()
    process = await asyncio.create_subprocess_exec(
        one.server.command[0], "-m", "fairlead_core.agent.keeper", str(one.data / "keeper"), one.instance(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()

    assert b"another keeper is there" in output
    assert before == one.keeper()
    assert 1 == len(await asyncio.to_thread(one.processes))


async def test_a_stranger_in_the_keepers_place_is_not_believed(short_dir: Path, master: StubMaster):
    """An identity file that names another process is no keeper: a real one is started."""
    folder = short_dir / "data" / "keeper"
    folder.mkdir(parents=True)
    own = identify(os.getpid())
    assert own is not None, "we run"
    (folder / "identity.json").write_text(f"[{own.pid},{own.start_ticks}]")
    async with agent(short_dir, master.address) as one:
        await master.registered()
        await master.run("t1", "true")
        await master.until("t1", "TASK_FINISHED")
        keeper = one.keeper()

    assert keeper != own
    assert not alive(keeper)

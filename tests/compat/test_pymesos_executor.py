"""pymesos 0.3.15's executor driver, unchanged, as an executor of a real agent."""

import asyncio
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from fairlead_core.agent_protocol import ExecutorEnded, ExecutorMessage, ShutdownExecutor
from harness.agents import agent
from harness.servers import missing
from harness.stub_master import FRAMEWORK, StubMaster
from harness.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def packages() -> Path:
    """Where pymesos lies, pure Python: the environment's own interpreter may be out of the task's user's reach."""
    made = subprocess.run([ROOT / "scripts" / "compat-venv", "pymesos"], capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"pymesos cannot be installed: {made.stderr[-500:]}")
    return next(Path(made.stdout.strip()).glob("lib/python3*/site-packages"))


async def test_pymesos_executor_runs_tasks_and_sends_messages(short_dir: Path, packages: Path):
    """Two tasks to their ends, a message for each, and an orderly end at SHUTDOWN."""
    program = short_dir / "executor.py"
    program.write_bytes(Path(__file__).with_name("pymesos_executor.py").read_bytes())
    variables = [{"name": "PYTHONPATH", "value": str(packages)}]
    command = {"value": f"exec /usr/bin/python3 {program}", "environment": {"variables": variables}}
    executor = {"executor_id": {"value": "E"}, "type": "CUSTOM", "command": command}
    async with StubMaster() as master, agent(short_dir, master.address) as one:
        await master.registered()
        for name in ("t1", "t2"):
            data = b64encode(name.encode()).decode()
            await master.run(name, None, executor=executor, data=data, framework={**FRAMEWORK, "checkpoint": True})
        for name in ("t1", "t2"):
            await master.until(name, "TASK_FINISHED", within_s=20)
        await eventually("two messages", lambda: asyncio.sleep(0, len(master.others) == 2))
        await master.say(ShutdownExecutor(epoch=1, framework_id="F", executor_id="E"))
        await eventually("its end", lambda: asyncio.sleep(0, len(master.others) == 3))
        output = one.output("executor~E")

    assert [["TASK_RUNNING", "TASK_FINISHED"]] * 2 == [master.states(n) for n in ("t1", "t2")]
    assert {b"done t1", b"done t2"} == {b64decode(m.data) for m in master.others if isinstance(m, ExecutorMessage)}
    assert isinstance(master.others[2], ExecutorEnded)
    assert "registered E test\nshutdown\n" == output

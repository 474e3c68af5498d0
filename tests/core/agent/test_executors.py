"""Custom executors over the executor API, on a real agent."""

import asyncio
import json
import os
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead_core.agent.adapters.callers import owner_of
from fairlead_core.agent_protocol import ExecutorEnded, ExecutorMessage, ShutdownExecutor
from harness.agents import Agent, agent
from harness.stub_master import FRAMEWORK, StubMaster
from harness.waiting import eventually

SCRIPT = Path(__file__).parents[2] / "harness" / "small_executor.py"


async def run(one: Agent, master: StubMaster, task_id: str, what: str, **framework: object) -> None:
    copy = one.folder / "executor.py"
    if not copy.exists():
        copy.write_bytes(SCRIPT.read_bytes())
        copy.chmod(0o755)
    executor = {
        "executor_id": {"value": "E"},
        "type": "CUSTOM",
        "command": {"value": "exec /usr/bin/python3 executor.py", "uris": [{"value": str(copy)}]},
    }
    await master.run(
        task_id, executor=executor, command=None, data=b64encode(what.encode()).decode(),
        framework={**FRAMEWORK, **framework},
    )  # fmt: skip


async def test_an_executor_runs_tasks_and_tells_of_them(one: Agent, master: StubMaster):
    """Two tasks, one process; its updates come in order, completed with where they are."""
    await run(one, master, "t1", "finish")
    await run(one, master, "t2", "run")
    await master.until("t1", "TASK_FINISHED")
    running = await master.until("t2", "TASK_RUNNING")
    processes = await asyncio.to_thread(one.processes)

    assert ["TASK_RUNNING", "TASK_FINISHED"] == master.states("t1")
    assert ({"value": "E"}, {"value": master.agent_id}) == (running["executor_id"], running["agent_id"])
    assert 1 == len(processes)


async def test_a_kill_reaches_the_executor(one: Agent, master: StubMaster):
    """It answers with TASK_KILLED; it lives on."""
    await run(one, master, "t1", "run")
    await master.until("t1", "TASK_RUNNING")
    await master.kill("t1")
    await master.until("t1", "TASK_KILLED")

    assert 1 == len(await asyncio.to_thread(one.processes))


async def test_messages_go_both_ways(one: Agent, master: StubMaster):
    """Base64 as it came."""
    await run(one, master, "t1", "run")
    await master.until("t1", "TASK_RUNNING")
    await master.say(ExecutorMessage(epoch=1, framework_id="F", executor_id="E", data="SGk="))
    await eventually("the echo", lambda: asyncio.sleep(0, master.others))

    assert [ExecutorMessage(framework_id="F", executor_id="E", data="SGk=")] == master.others


async def test_an_executor_that_ends_takes_its_tasks_with_it(one: Agent, master: StubMaster):
    """Each is told TASK_FAILED with the exit status; the master hears of the executor's end."""
    await run(one, master, "t1", "run")
    await master.until("t1", "TASK_RUNNING")
    await run(one, master, "t2", "die")
    first, second = await master.until("t1", "TASK_FAILED"), await master.until("t2", "TASK_FAILED")
    await eventually("its end", lambda: asyncio.sleep(0, master.others))

    assert "Executor exited with status 3; its tasks were ended" == first["message"] == second["message"]
    assert [ExecutorEnded(framework_id="F", executor_id="E", status=3 << 8)] == master.others
    assert [] == await asyncio.to_thread(one.processes)


async def test_an_executor_is_shut_down_by_its_framework(one: Agent, master: StubMaster):
    """SHUTDOWN, and it goes."""
    await run(one, master, "t1", "run")
    await master.until("t1", "TASK_RUNNING")
    await master.say(ShutdownExecutor(epoch=1, framework_id="F", executor_id="E"))
    await master.until("t1", "TASK_FAILED")

    assert [] == await asyncio.to_thread(one.processes)


async def test_an_executor_outlives_its_agent(one: Agent, master: StubMaster):
    """It subscribes anew to the next agent, gets what is new, and nothing twice."""
    await run(one, master, "t1", "run", checkpoint=True)
    await master.until("t1", "TASK_RUNNING")
    before = await asyncio.to_thread(one.processes)
    await asyncio.to_thread(one.kill)
    one.start()
    register = await master.registered(2)
    await run(one, master, "t2", "finish", checkpoint=True)
    await master.until("t2", "TASK_FINISHED")
    await master.kill("t1")
    await master.until("t1", "TASK_KILLED")

    assert before == await asyncio.to_thread(one.processes)
    assert [("F", "E")] == [(e["framework_id"]["value"], e["executor_id"]["value"]) for e in register.executors]
    assert ["TASK_RUNNING", "TASK_KILLED"] == master.states("t1")


async def test_an_executor_that_cannot_start_fails_its_task_in_words(one: Agent, master: StubMaster):
    """The reason stands in the message."""
    executor = {"executor_id": {"value": "E"}, "command": {"value": "/no/such", "shell": False}}
    await master.run("t1", executor=executor, command=None)
    status = await master.until("t1", "TASK_FAILED")

    assert "cannot run /no/such: No such file or directory" in status["message"]


def post(one: Agent, body: dict[str, Any]) -> tuple[int, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{one.port}/api/v1/executor",
        msgspec.json.encode(body),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["message"]


IDS = {"framework_id": {"value": "F"}, "executor_id": {"value": "E"}}


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"type": "UPDATE", **IDS}, 400, "update.status.task_id"),
        ({"type": "NONSENSE", **IDS}, 400, "unknown type"),
        ({"type": "SUBSCRIBE"}, 400, "framework_id"),
        ({"type": "SUBSCRIBE", **IDS, "executor_id": {"value": "nobody"}}, 400, "cannot be found"),
    ],
)
async def test_calls_that_make_no_sense_are_answered_in_words(
    one: Agent, master: StubMaster, body: dict[str, Any], status: int, word: str
):
    """400 with the reason."""
    got, message = await asyncio.to_thread(post, one, body)

    assert status == got
    assert word in message


@pytest.mark.skipif(os.getuid() != 0, reason="another user's process needs root")
async def test_with_a_token_only_the_executors_own_user_is_heard(short_dir: Path, master: StubMaster):
    """Drivers know no token: the kernel says whose connection it is. The executor's own works; one it knows not does not."""
    async with agent(short_dir, master.address, token="on") as one:  # a mode
        await master.registered()
        await run(one, master, "t1", "run")
        await master.until("t1", "TASK_RUNNING")
        status = {"task_id": {"value": "t1"}, "state": "TASK_FAILED", "uuid": "x"}
        forged = json.dumps({"type": "UPDATE", **IDS, "update": {"status": status}})
        code = (
            "import urllib.request\n"
            f"r = urllib.request.Request('http://127.0.0.1:{one.port}/api/v1/executor', {forged!r}.encode(),"
            " {'Content-Type': 'application/json'})\n"
            "try: urllib.request.urlopen(r, timeout=5)\n"
            "except Exception as e: print(e)\n"
        )
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/python3", "-c", code, user="daemon", cwd="/", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()

        assert b"403" in output
        assert ["TASK_RUNNING"] == master.states("t1")


async def test_the_kernel_knows_whose_a_connection_is():
    """Over IPv4; a port that nobody holds is nobody's."""
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    ours = writer.get_extra_info("sockname")

    assert os.getuid() == owner_of((ours[0], ours[1]))
    assert None is owner_of(("127.0.0.1", 1))
    writer.close()
    server.close()

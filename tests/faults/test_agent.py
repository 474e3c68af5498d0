"""The agent killed, refused by its disk, left by its master: tasks run on, nothing is told twice, nothing is forgotten."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from harness.agents import Agent, agent
from harness.house import own_loopback_address
from harness.ports import free_port
from harness.stub_master import FRAMEWORK, StubMaster
from harness.waiting import eventually

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


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


async def test_a_killed_agents_tasks_run_on_and_are_adopted(one: Agent, master: StubMaster):
    """The same processes; the next agent registers with them; a KILL reaches them."""
    await master.run("t1", "exec sleep 100")
    await master.until("t1", "TASK_RUNNING")
    before = await asyncio.to_thread(one.processes)
    keeper = one.keeper()
    await asyncio.to_thread(one.kill)
    one.start()
    register = await master.registered(2)
    after = await asyncio.to_thread(one.processes)
    await master.kill("t1")
    await master.until("t1", "TASK_KILLED")

    assert (before, keeper) == (after, one.keeper())
    assert [("t1", "TASK_RUNNING", True)] == [
        (t.task["task_id"]["value"], t.status["state"], t.acknowledged) for t in register.tasks
    ]
    assert ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"] == master.states("t1")


async def test_an_exit_without_an_agent_is_told_by_the_next(one: Agent, master: StubMaster):
    """The keeper has written it down."""
    await master.run("t1", "while ! test -e go; do sleep 0.02; done; exit 7")
    await master.until("t1", "TASK_RUNNING")
    await asyncio.to_thread(one.kill)
    (one.sandbox("t1") / "go").touch()
    await eventually("it ended", lambda: asyncio.to_thread(lambda: not one.processes()))
    one.start()
    status = await master.until("t1", "TASK_FAILED")

    assert "Command exited with status 7" == status["message"]


async def test_an_update_checkpointed_and_not_sent_is_sent_by_the_next_agent(one: Agent, master: StubMaster):
    """Killed between checkpoint and send: the very same update comes, once it can."""
    await master.run("t1", "while ! test -e go; do sleep 0.02; done")
    await master.until("t1", "TASK_RUNNING")
    await asyncio.sleep(0.1)
    master.take = False
    (one.sandbox("t1") / "go").touch()

    def checkpointed() -> str:
        latest = one.checkpoint("t1")["stream"]["latest"]
        return str(latest["uuid"]) if latest["state"] == "TASK_FINISHED" else ""

    uuid = await eventually("the end is checkpointed", lambda: asyncio.to_thread(checkpointed))
    await asyncio.to_thread(one.kill)
    told_before = master.states("t1")
    master.take = True
    one.start()
    status = await master.until("t1", "TASK_FINISHED")

    assert ["TASK_STARTING", "TASK_RUNNING"] == told_before
    assert uuid == status["uuid"]


async def test_an_unacknowledged_update_comes_again_with_the_next_stream(one: Agent, master: StubMaster):
    """The same uuid, also through a kill of the agent; once acknowledged, the next follows."""
    master.acknowledge = False
    await master.run("t1", "true")
    first = await master.until("t1", "TASK_STARTING")
    await asyncio.to_thread(one.kill)
    one.start()
    await master.registered(2)

    async def twice() -> bool:
        return [u.status["uuid"] for u in master.updates].count(first["uuid"]) >= 2

    await eventually("it came again", twice)
    master.acknowledge = True
    await master.acknowledge_update(master.updates[-1])
    await master.until("t1", "TASK_FINISHED")

    assert ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"] == master.states("t1")


async def test_a_kill_begun_is_finished_by_the_next_agent(one: Agent, master: StubMaster):
    """The grace goes on where it was, and the end is TASK_KILLED."""
    await master.run("t1", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    await eventually("it is up", lambda: asyncio.to_thread(lambda: one.output("t1") == "up\n"))
    await master.kill("t1", grace_s=2)

    await eventually("it is checkpointed", lambda: asyncio.to_thread(lambda: one.checkpoint("t1")["life"]["killing"]))
    await asyncio.to_thread(one.kill)
    one.start()
    status = await master.until("t1", "TASK_KILLED", within_s=6)

    assert "Command terminated with signal Killed" == status["message"]


async def test_health_checks_go_on_after_a_kill_of_the_agent(one: Agent, master: StubMaster):
    """Healthy stays healthy without a second word; a failure afterwards is noticed."""
    port = free_port()
    check = {
        "type": "TCP",
        "tcp": {"port": port},
        "delay_seconds": 0,
        "interval_seconds": 0.1,
        "grace_period_seconds": 5,
        "consecutive_failures": 2,
    }
    await master.run(
        "t1", f"python3 -m http.server {port} & while ! test -e go; do sleep 0.02; done; kill $!; exec sleep 100",
        health_check=check,
    )  # fmt: skip
    await eventually("healthy", lambda: asyncio.sleep(0, [s for s in master.statuses("t1") if s.get("healthy")]))
    await asyncio.to_thread(one.kill)
    one.start()
    await master.registered(2)
    (one.sandbox("t1") / "go").touch()
    await master.until("t1", "TASK_KILLED")

    assert [None, None, True, False, False] == [s.get("healthy") for s in master.statuses("t1")]


async def test_an_agent_killed_again_and_again_starts_each_task_once(one: Agent, master: StubMaster):
    """Killed at whatever line it stands; every task given to it runs exactly once and is told of in order."""
    ran = one.folder / "ran"
    ran.touch()
    ran.chmod(0o666)
    for turn in range(6):
        names = [f"t{turn}-{n}" for n in range(4)]
        for name in names:
            await master.run(name, f"echo {name} >> {ran}; sleep 0.05")
        await asyncio.sleep(0.004 * turn)
        await asyncio.to_thread(one.kill)
        one.start()
        await master.registered(turn + 2)

    async def all_told() -> list[str]:
        told = sorted({u.status["task_id"]["value"] for u in master.updates})
        assert all("TASK_FINISHED" in master.states(name) for name in told), told
        assert not await asyncio.to_thread(one.processes), "something runs"
        assert not (await asyncio.to_thread(one.get, "/fairlead/tasks"))["tasks"], "something is unacknowledged"
        return told

    told = await eventually("all are told", all_told, within_s=20, every_s=0.2)

    assert told == sorted(ran.read_text().split())
    assert [["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]] * len(told) == [master.states(n) for n in told]


async def test_after_a_restart_of_the_machine_the_tasks_of_before_are_lost(one: Agent, master: StubMaster):
    """Another boot id: TASK_LOST, or TASK_GONE for a framework that knows the difference; one that had ended, ended."""
    aware = {**FRAMEWORK, "id": {"value": "F"}, "capabilities": [{"type": "PARTITION_AWARE"}]}
    await master.run("plain", "exec sleep 100")
    await master.run("aware", "exec sleep 100", framework=aware)
    await master.run("over", "while ! test -e go; do sleep 0.02; done; exit 7")
    for name in ("plain", "aware", "over"):
        await master.until(name, "TASK_RUNNING")
    keeper = one.keeper()
    await asyncio.to_thread(one.kill)
    (one.sandbox("over") / "go").touch()
    await eventually("it ended", lambda: asyncio.to_thread(lambda: len(one.processes()) == 2))
    await asyncio.sleep(0.1)
    os.kill(keeper.pid, signal.SIGKILL)
    for pid in await asyncio.to_thread(one.processes):
        os.kill(pid, signal.SIGKILL)
    _as_if_booted_before(one)
    one.start()
    lost, gone = await master.until("plain", "TASK_LOST"), await master.until("aware", "TASK_GONE")
    failed = await master.until("over", "TASK_FAILED")

    assert {"REASON_AGENT_RESTARTED"} == {lost["reason"], gone["reason"]}
    assert "Command exited with status 7" == failed["message"]


def _as_if_booted_before(one: Agent) -> None:
    """What the disk would say had the machine restarted since."""
    for file in (one.data / "agent" / "meta.json", *(one.data / "keeper" / "tasks").glob("*.json")):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "boot_id": "an earlier one"}))


@pytest.fixture
def small_disk(short_dir: Path) -> Iterator[Path]:
    """A file system of 256 KiB for the agent's checkpoints."""
    place = short_dir / "data" / "agent"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@as_root
async def test_a_full_disk_refuses_new_tasks_and_loses_none(short_dir: Path, small_disk: Path, master: StubMaster):
    """RUN is refused with the reason; a running task's end is held back until it can be written, then told."""
    async with agent(short_dir, master.address) as one:
        await master.registered()
        await master.run("t1", "while ! test -e go; do sleep 0.02; done")
        await master.until("t1", "TASK_RUNNING")
        await asyncio.sleep(0.1)
        _fill(small_disk / "filling")
        await master.run("t2", "true")
        refused = await master.until("t2", "TASK_FAILED")
        (one.sandbox("t1") / "go").touch()
        await eventually("it ended", lambda: asyncio.to_thread(lambda: not one.processes()))
        await asyncio.sleep(0.3)
        held_back = master.states("t1")
        (small_disk / "filling").unlink()
        await master.until("t1", "TASK_FINISHED")

    assert "the agent cannot write its checkpoint: No space left on device" == refused["message"]
    assert ["TASK_STARTING", "TASK_RUNNING"] == held_back


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError:
            return


async def test_an_agent_marked_gone_ends_its_tasks_and_begins_anew(one: Agent, master: StubMaster):
    """410 at registration: nothing runs any more, the id is forgotten, the daemon ends in order."""
    await master.run("t1", "exec sleep 100")
    await master.until("t1", "TASK_RUNNING")
    await asyncio.to_thread(one.kill)
    master.stream_status = 410
    one.start()
    code = await asyncio.to_thread(lambda: one.server.process and one.server.process.wait(15))
    left = await asyncio.to_thread(one.processes)
    master.stream_status = 200
    one.start()
    register = await master.registered(2)

    assert (0, []) == (code, left)
    assert ("", ()) == (register.agent_id, register.tasks)


async def test_the_next_master_gets_the_whole_state(short_dir: Path):
    """The master dies; the agent finds the next on the same address, with tasks, frameworks and the epoch it knows."""
    async with StubMaster(epoch=3) as first, agent(short_dir, first.address) as one:
        await first.registered()
        await first.run("t1", "exec sleep 100")
        await first.until("t1", "TASK_RUNNING")
        await asyncio.sleep(0.1)
        await first.stop()
        async with StubMaster(port=first.port, epoch=4) as second:
            register = await second.registered()
            await second.kill("t1")
            await second.until("t1", "TASK_KILLED")
        assert [] == await asyncio.to_thread(one.processes)

    assert (first.agent_id, 3) == (register.agent_id, register.epoch)
    assert [FRAMEWORK] == list(register.frameworks)


async def test_a_leader_of_the_past_is_refused_at_registration(short_dir: Path):
    """An agent that has seen epoch 9 does not obey a master that says 8."""
    async with StubMaster(epoch=9) as first, agent(short_dir, first.address):
        await first.registered()
        await first.stop()
        async with StubMaster(port=first.port, epoch=8) as paused:
            await paused.registered()
            with suppress(ConnectionError):  # the agent may have closed the stream already
                await paused.run("t1", "true")
            await paused.registered(2)
            assert [] == paused.updates


async def test_a_silent_master_is_left_and_found_again(one: Agent, master: StubMaster):
    """No ping for seconds: the stream is given up and opened anew."""
    master.ping = False
    register = await master.registered(2, within_s=8)

    assert master.agent_id == register.agent_id


@pytest.mark.skipif(os.getuid() != 0, reason="mount namespaces need root")
async def test_a_task_gets_its_own_resolv_conf_once_the_name_server_answers(short_dir: Path, master: StubMaster):
    """Ours first, then the machine's; the machine's file is untouched. Silent: it says why it leaves it alone."""
    address = own_loopback_address()
    async with agent(short_dir, master.address, dns_address=address) as one:
        await master.registered()
        await master.run("before", "cat /etc/resolv.conf")
        await master.until("before", "TASK_FINISHED")
        why = (await asyncio.to_thread(one.get, "/state"))["fairlead"]["resolving"]["why_not"]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Echo, local_addr=(address, 53))

        async def resolving() -> bool:
            return bool((await asyncio.to_thread(one.get, "/state"))["fairlead"]["resolving"]["active"])

        await eventually("the agent has seen it", resolving)
        await master.run("after", "cat /etc/resolv.conf")
        await master.until("after", "TASK_FINISHED")
        transport.close()
    machine = Path("/etc/resolv.conf").read_text()

    assert f"no DNS server has answered at {address} yet" == why
    assert machine == one.output("before")
    assert f"nameserver {address}" == one.output("after").splitlines()[1]
    assert machine.split()[1] in one.output("after").split()


class _Echo(asyncio.DatagramProtocol):
    """Answers every query with REFUSED."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str | object, int]) -> None:
        self.transport.sendto(data[:2] + b"\x81\x05" + data[4:], address)

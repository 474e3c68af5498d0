"""A real agent, its real keeper and real processes, with a master that does what the test says."""

import asyncio
import socket
from pathlib import Path

from fairlead_core.agent_protocol import ShutdownFramework
from harness.agents import Agent, agent
from harness.ports import free_port
from harness.stub_master import FRAMEWORK, StubMaster
from harness.waiting import eventually


def http_check(port: int, **more: object) -> dict[str, object]:
    return {
        "type": "HTTP",
        "http": {"port": port, "path": "/"},
        "delay_seconds": 0,
        "interval_seconds": 0.1,
        "timeout_seconds": 1,
        "consecutive_failures": 2,
        "grace_period_seconds": 5,
        **more,
    }


async def test_a_command_starts_runs_and_finishes(one: Agent, master: StubMaster):
    """Three updates in order; the command's output is in its sandbox."""
    await master.run("t1", "echo hello; echo trouble >&2")
    await master.until("t1", "TASK_FINISHED")

    assert ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"] == master.states("t1")
    assert ("hello\n", "trouble\n") == (one.output("t1"), one.output("t1", "stderr"))


async def test_a_failure_is_told_in_words(one: Agent, master: StubMaster):
    """The exit status or the signal stands in the message."""
    await master.run("t1", "exit 3")
    await master.run("t2", "kill -9 $$")

    assert "Command exited with status 3" == (await master.until("t1", "TASK_FAILED"))["message"]
    assert "Command terminated with signal Killed" == (await master.until("t2", "TASK_FAILED"))["message"]


async def test_a_status_says_where_the_task_is(one: Agent, master: StubMaster):
    """Agent, executor and address, as names are made of them."""
    await master.run("t1", "exec sleep 100")
    status = await master.until("t1", "TASK_RUNNING")

    assert ({"value": master.agent_id}, {"value": "t1"}) == (status["agent_id"], status["executor_id"])
    networks = status["container_status"]["network_infos"]
    assert [{"ip_addresses": [{"protocol": "IPv4", "ip_address": "127.0.0.1"}]}] == networks


async def test_a_killed_task_gets_term_and_may_tidy_up(one: Agent, master: StubMaster):
    """TERM goes to the whole group; the end is TASK_KILLED whatever its exit status."""
    await master.run("t1", "trap 'echo tidy; exit 0' TERM; while :; do sleep 0.05; done")
    await master.until("t1", "TASK_RUNNING")
    await master.kill("t1", grace_s=5)
    await master.until("t1", "TASK_KILLED", within_s=2)

    assert "tidy\n" == one.output("t1")


async def test_a_task_that_ignores_term_is_killed_after_its_grace(one: Agent, master: StubMaster):
    """KILL after `grace_s`, not before."""
    await master.run("t1", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    await eventually("it is up", lambda: asyncio.to_thread(lambda: one.output("t1") == "up\n"))
    begin = asyncio.get_running_loop().time()
    await master.kill("t1", grace_s=0.5)
    status = await master.until("t1", "TASK_KILLED", within_s=5)
    took_s = asyncio.get_running_loop().time() - begin

    assert 0.5 <= took_s < 2.5
    assert "Command terminated with signal Killed" == status["message"]


async def test_a_task_killed_while_it_is_prepared_never_runs(one: Agent, master: StubMaster):
    """RUN and KILL in one breath end in TASK_KILLED."""
    await master.run("t1", "exec sleep 100")
    await master.kill("t1")
    await master.until("t1", "TASK_KILLED")

    assert [] == await asyncio.to_thread(one.processes)


async def test_what_a_task_leaves_behind_ends_with_it(one: Agent, master: StubMaster):
    """Children in its group, and daemonised ones in sessions of their own."""
    await master.run("t1", "sleep 100 & setsid sleep 100 & setsid setsid sleep 100 & sleep 0.3")
    await master.until("t1", "TASK_FINISHED")

    assert [] == await asyncio.to_thread(one.processes)


async def test_the_environment_is_the_frameworks_and_nothing_of_the_agents(one: Agent, master: StubMaster):
    """MESOS_* are set; no secret of the agent's own environment gets through."""
    variables = [{"name": "PORT0", "value": "31007"}, {"name": "GREETING", "value": "a b\nc"}]
    command = {"value": "exec env -0", "environment": {"variables": variables}}
    await master.run("t1", command=command)
    await master.until("t1", "TASK_FINISHED")
    environment = dict(pair.split("=", 1) for pair in one.output("t1").strip("\0").split("\0"))

    assert ("31007", "a b\nc", "t1") == tuple(environment[k] for k in ("PORT0", "GREETING", "MESOS_TASK_ID"))
    assert str(one.sandbox("t1")) == environment["MESOS_SANDBOX"] == environment["MESOS_DIRECTORY"]
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "PWD", "PORT0", "GREETING", "MESOS_TASK_ID", "MESOS_SANDBOX"}
    assert set(environment) - allowed <= {"MESOS_DIRECTORY", "FAIRLEAD_TASK_KEY", "_", "SHLVL", "OLDPWD"}


async def test_arguments_go_without_a_shell(one: Agent, master: StubMaster):
    """Mesos' argv: the first argument is the program's name."""
    await master.run("t1", command={"shell": False, "value": "/bin/echo", "arguments": ["echo", "$HOME", "a b"]})
    await master.until("t1", "TASK_FINISHED")

    assert "$HOME a b\n" == one.output("t1")


async def test_a_program_that_is_not_there_is_named(one: Agent, master: StubMaster):
    """TASK_FAILED with the reason, without ever running."""
    await master.run("t1", command={"shell": False, "value": "/no/such/program"})
    status = await master.until("t1", "TASK_FAILED")

    assert "cannot run /no/such/program: No such file or directory" == status["message"]
    assert ["TASK_STARTING", "TASK_FAILED"] == master.states("t1")


async def test_local_files_are_fetched_and_others_refused(one: Agent, master: StubMaster, short_dir: Path):
    """Plain paths and file: URIs are copied in, an archive is unpacked, http is refused in words."""
    (short_dir / "script.sh").write_text("#!/bin/sh\necho fetched\n")
    (short_dir / "inner.txt").write_text("inner\n")
    process = await asyncio.create_subprocess_exec("tar", "-C", short_dir, "-czf", short_dir / "a.tgz", "inner.txt")
    await process.wait()
    uris = [{"value": str(short_dir / "script.sh"), "executable": True}, {"value": f"file://{short_dir}/a.tgz"}]
    await master.run("t1", command={"value": "./script.sh; cat inner.txt", "uris": uris})
    await master.run("t2", command={"value": "true", "uris": [{"value": "http://example.com/x"}]})
    await master.run("t3", command={"value": "true", "uris": [{"value": "/no/such/file"}]})
    await master.until("t1", "TASK_FINISHED")

    assert "fetched\ninner\n" == one.output("t1")
    assert "only files of the machine" in (await master.until("t2", "TASK_FAILED"))["message"]
    assert "No such file" in (await master.until("t3", "TASK_FAILED"))["message"]


async def test_what_this_agent_cannot_do_is_refused_in_words(one: Agent, master: StubMaster):
    """Container images, volumes, ports of another task, ids that are no folder names."""
    ports = {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31005, "end": 31006}]}}
    await master.run("image", "true", container={"type": "DOCKER", "docker": {"image": "x"}})
    await master.run("holder", "exec sleep 100", resources=[ports])
    await master.until("holder", "TASK_RUNNING")
    await master.run("thief", "true", resources=[ports])
    await master.run("..", "true")

    assert "container images" in (await master.until("image", "TASK_FAILED"))["message"]
    assert "taken by task holder" in (await master.until("thief", "TASK_FAILED"))["message"]
    assert "'..': is no id" in (await master.until("..", "TASK_ERROR"))["message"]


async def test_an_update_waits_for_the_acknowledgement_of_the_one_before(one: Agent, master: StubMaster):
    """With none acknowledged only the first comes; each acknowledgement lets one more through."""
    master.acknowledge = False
    await master.run("t1", "true")
    await master.until("t1", "TASK_STARTING")
    seen = [master.states("t1")]
    for state in ("TASK_RUNNING", "TASK_FINISHED"):
        await master.acknowledge_update(master.updates[-1])
        await master.until("t1", state)
        seen.append(master.states("t1"))

    assert [["TASK_STARTING"], ["TASK_STARTING", "TASK_RUNNING"], master.states("t1")] == seen
    assert "TASK_FINISHED" == master.states("t1")[-1]


async def test_a_stale_acknowledgement_changes_nothing(one: Agent, master: StubMaster):
    """Acknowledged twice, or with another uuid: the next update still waits for its own."""
    master.acknowledge = False
    await master.run("t1", "exec sleep 100")
    await master.until("t1", "TASK_STARTING")
    for _ in range(2):
        await master.acknowledge_update(master.updates[0])
    await master.until("t1", "TASK_RUNNING")
    await master.kill("t1")
    await eventually("it is dead", lambda: asyncio.to_thread(lambda: not one.processes()))
    await master.acknowledge_update(master.updates[0])
    await asyncio.sleep(0.1)

    assert ["TASK_STARTING", "TASK_RUNNING"] == master.states("t1")


async def test_run_and_kill_twice_do_nothing_twice(one: Agent, master: StubMaster):
    """One process, one end; a RUN of an ended id tells its end again and runs nothing."""
    script = f"echo ran >> {one.data}/../ran; exec sleep 100"
    (one.folder / "ran").touch()
    (one.folder / "ran").chmod(0o666)
    await master.run("t1", script)
    await master.run("t1", script)
    await master.until("t1", "TASK_RUNNING")
    await master.kill("t1")
    await master.kill("t1")
    await master.until("t1", "TASK_KILLED")
    before = len(master.updates)
    await master.run("t1", script)
    await eventually("it is told again", lambda: asyncio.sleep(0, len(master.updates) > before))

    assert ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"] == master.states("t1")
    assert "ran\n" == (one.folder / "ran").read_text()


async def test_a_kill_of_an_unknown_task_is_answered(one: Agent, master: StubMaster):
    """TASK_DROPPED, so that the master knows."""
    await master.kill("nobody")
    status = await master.until("nobody", "TASK_DROPPED")

    assert "REASON_TASK_UNKNOWN" == status["reason"]


async def test_an_older_leader_is_not_obeyed(one: Agent, master: StubMaster):
    """A command with a lower epoch than the highest seen does nothing; the current one's does."""
    master.epoch = 5
    await master.run("new", "exec sleep 100")
    await master.until("new", "TASK_RUNNING")
    await master.run("old", "exec sleep 100", epoch=4)
    await master.kill("new", epoch=4)
    await master.run("after", "exec sleep 100")
    await master.until("after", "TASK_RUNNING")

    assert [] == master.states("old")
    assert ["TASK_STARTING", "TASK_RUNNING"] == master.states("new")


async def test_a_frameworks_tasks_end_when_it_is_shut_down(one: Agent, master: StubMaster):
    """Its processes end, nobody is owed an update, and the next registration does not know them."""
    await master.run("t1", "exec sleep 100")
    await master.until("t1", "TASK_RUNNING")
    await master.say(ShutdownFramework(epoch=master.epoch, framework_id="F"))
    await eventually("it is dead", lambda: asyncio.to_thread(lambda: not one.processes()))

    assert ["TASK_STARTING", "TASK_RUNNING"] == master.states("t1")


async def test_a_healthy_task_is_told_at_once(one: Agent, master: StubMaster):
    """The first success of an HTTP check is noticed long before its interval, also within its delay."""
    port = free_port()
    check = http_check(port, interval_seconds=60, delay_seconds=30)
    begin = asyncio.get_running_loop().time()
    await master.run("t1", f"exec python3 -m http.server {port}", health_check=check)
    await eventually("healthy", lambda: asyncio.sleep(0, [s for s in master.statuses("t1") if s.get("healthy")]))
    took_s = asyncio.get_running_loop().time() - begin
    first = next(s for s in master.statuses("t1") if "healthy" in s)

    assert ("TASK_RUNNING", True) == (first["state"], first["healthy"])
    assert "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED" == first["reason"]
    assert took_s < 3


async def test_an_unhealthy_task_is_told_and_killed(one: Agent, master: StubMaster):
    """After consecutive failures: healthy=false, then TASK_KILLED, with the last failure in words."""
    port = free_port()
    script = f"timeout 1 python3 -m http.server {port}; exec sleep 100"
    await master.run("t1", script, health_check=http_check(port))
    status = await master.until("t1", "TASK_KILLED")
    healths = [s.get("healthy") for s in master.statuses("t1")]

    assert [None, None, True, False, False] == healths
    assert f"health check failed 2 times: GET http://127.0.0.1:{port}/" in status["message"]


async def test_a_task_that_never_gets_healthy_is_killed_after_its_grace_period(one: Agent, master: StubMaster):
    """Failures within the grace period do not count, later ones do."""
    check = {**http_check(1), "type": "TCP", "tcp": {"port": free_port()}, "grace_period_seconds": 0.5}
    await master.run("t1", "exec sleep 100", health_check=check)
    status = await master.until("t1", "TASK_KILLED")

    assert status["timestamp"] - master.statuses("t1")[1]["timestamp"] > 0.5
    assert [None, None, False, False] == [s.get("healthy") for s in master.statuses("t1")]


async def test_a_command_check_runs_as_the_task_in_its_sandbox(one: Agent, master: StubMaster):
    """It sees the sandbox and the environment of the task."""
    check = {**http_check(1), "type": "COMMAND", "command": {"value": 'test -e ready -a "$MESOS_TASK_ID" = t1'}}
    await master.run("t1", "sleep 0.3; touch ready; exec sleep 100", health_check=check)
    await eventually("healthy", lambda: asyncio.sleep(0, [s for s in master.statuses("t1") if s.get("healthy")]))

    assert ["TASK_STARTING", "TASK_RUNNING", "TASK_RUNNING"] == master.states("t1")


async def test_the_state_page_has_mesos_shape(one: Agent, master: StubMaster):
    """Id, resources, frameworks with executors with tasks; ended tasks stand among the completed."""
    await master.run("t1", "exec sleep 100")
    await master.run("t2", "true")
    await master.until("t2", "TASK_FINISHED")
    await master.until("t1", "TASK_RUNNING")
    state = await asyncio.to_thread(one.get, "/state")
    framework = state["frameworks"][0]

    assert (master.agent_id, "[31000-31100]") == (state["id"], state["resources"]["ports"])
    assert (4.0, 0.1) == (state["resources"]["cpus"], state["used_resources"]["cpus"])
    assert ["t1"] == [t["id"] for e in framework["executors"] for t in e["tasks"]]
    assert ["t2"] == [t["id"] for e in framework["completed_executors"] for t in e["completed_tasks"]]
    assert str(one.sandbox("t1")) == framework["executors"][0]["directory"]


async def test_a_redirect_leads_to_the_leader(short_dir: Path, master: StubMaster):
    """A master that does not lead names the one that does."""
    async with StubMaster() as standby:
        standby.redirect = master.address
        async with agent(short_dir, standby.address):
            register = await master.registered()

    assert "" == register.agent_id
    assert [] == standby.registers


async def test_an_agent_that_ends_in_order_says_goodbye_and_its_tasks_run_on(one: Agent, master: StubMaster):
    """SIGTERM stops the daemon and nothing it looks after; the next one adopts."""
    await master.run("t1", "exec sleep 100")
    await master.until("t1", "TASK_RUNNING")
    before = await asyncio.to_thread(one.processes)
    code = await asyncio.to_thread(one.server.stop)
    between = await asyncio.to_thread(one.processes)
    one.start()
    register = await master.registered(2)

    assert (0, 1) == (code, master.goodbyes)
    assert before == between
    assert ["t1"] == [t.task["task_id"]["value"] for t in register.tasks]
    assert "TASK_RUNNING" == register.tasks[0].status["state"]


async def test_two_agents_never_share_a_data_directory(one: Agent, master: StubMaster):
    """The second is refused with the reason, exit code 2."""
    second = Agent(one.folder, master.address)
    second.server.log = one.folder / "second.log"
    second.start()
    await asyncio.to_thread(lambda: second.server.process and second.server.process.wait(10))

    assert 2 == second.server.stop()
    assert "data_dir: another agent works in" in (one.folder / "second.log").read_text()


async def test_a_port_of_another_process_is_named_at_the_start(short_dir: Path):
    """Exit code 2, port and option in the message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = Agent(short_dir, "127.0.0.1:1", port=port).start()
        await asyncio.to_thread(lambda: one.server.process and one.server.process.wait(10))

    assert 2 == one.server.stop()
    assert f"port: cannot listen on 127.0.0.1:{port}" in one.log()


async def test_updates_carry_the_framework(one: Agent, master: StubMaster):
    """The register after a restart names it whole."""
    await master.run("t1", "exec sleep 100", framework={**FRAMEWORK, "id": {"value": "G"}})
    await master.until("t1", "TASK_RUNNING")

    assert {"G"} == {u.framework_id for u in master.updates}


async def test_what_is_kept_of_a_finished_task_is_short(short_dir: Path, master: StubMaster):
    """Whatever its environment was: in memory, on disk, and after a restart, which still knows how it ended."""
    variables = [{"name": f"V{n}", "value": "x" * 100_000} for n in range(10)]
    command = {"value": "exit 3", "environment": {"variables": variables}}
    async with agent(short_dir, master.address) as one:
        await master.registered()
        for name in ("t1", "t2"):
            await master.run(name, command, labels={"labels": [{"key": "big", "value": "y" * 10_000}]})
            await master.until(name, "TASK_FAILED")
        folder = next(one.data.rglob("completed"))
        await eventually("both are history", lambda: asyncio.sleep(0, len(list(folder.glob("*.json"))) == 2))
        sizes = [file.stat().st_size for file in folder.glob("*.json")]
        left = list((folder.parent / "tasks").glob("*.json"))
        one.kill()
        one.start()
        await eventually("it is back", lambda: asyncio.to_thread(one.get, "/ready"))
        kept = (await asyncio.to_thread(one.get, "/fairlead/tasks"))["completed"]

    assert all(size < 10_000 for size in sizes), sizes
    assert [] == left
    assert {"t1": "TASK_FAILED", "t2": "TASK_FAILED"} == {task["id"]: task["latest"]["state"] for task in kept}

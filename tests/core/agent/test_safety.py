"""Safe from the first day: as whom tasks run, what they and readers of their files can reach. On real processes."""

import asyncio
import json
import os
import urllib.error
from pathlib import Path

import pytest

from fairlead_core.agent.adapters.sandboxes import trim_logs
from harness.agents import Agent, agent
from harness.stub_master import StubMaster

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")
NOBODY = 65534


@as_root
async def test_a_root_agent_runs_tasks_as_nobody_without_groups(one: Agent, master: StubMaster):
    """Also when the framework is root's, which it is told; sandbox and logs are its own, and no capability is left."""
    await master.run("t1", {"value": "id -u; id -G; grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status"})
    starting = await master.until("t1", "TASK_STARTING")
    await master.until("t1", "TASK_FINISHED")
    uid, groups, *capabilities = one.output("t1").splitlines()

    assert "the task runs as 'nobody'" in starting["message"]
    assert (str(NOBODY), str(NOBODY)) == (uid, groups)
    assert {"0000000000000000"} == {line.split()[1] for line in capabilities}
    assert {NOBODY} == {p.stat().st_uid for p in (one.sandbox("t1"), one.sandbox("t1") / "stdout")}


@as_root
async def test_a_task_runs_as_the_user_it_names(one: Agent, master: StubMaster):
    """One that does not exist is refused in words; so is root under another name."""
    await master.run("t1", {"value": "id -un", "user": "daemon"})
    await master.run("t2", {"value": "id -un", "user": "nosuchuser"})
    await master.run("t3", {"value": "id -un", "user": "root"})
    await master.until("t1", "TASK_FINISHED")
    status = await master.until("t2", "TASK_FAILED")
    root = await master.until("t3", "TASK_FAILED")

    assert "daemon\n" == one.output("t1")
    assert "user 'nosuchuser' does not exist on this machine" == status["message"]
    assert "user 'root': this agent runs no task as root (setting allow_root_tasks)" == root["message"]


@as_root
async def test_root_tasks_need_the_agents_setting(short_dir: Path, master: StubMaster):
    """With it, a task that asks for root is root; one that does not is nobody."""
    async with agent(short_dir, master.address, allow_root_tasks=True) as one:
        await master.registered()
        await master.run("t1", {"value": "id -u", "user": "root"})
        await master.run("t2", "id -u", framework={"id": {"value": "F"}, "name": "x", "user": ""})
        await master.until("t1", "TASK_FINISHED")
        await master.until("t2", "TASK_FINISHED")

        assert ("0\n", f"{NOBODY}\n") == (one.output("t1"), one.output("t2"))


@as_root
async def test_sudos_user_is_the_default(short_dir: Path, master: StubMaster):
    """Whoever called sudo owns what their commands start."""
    one = Agent(short_dir, master.address)
    one.server.env = {"SUDO_USER": "daemon"}
    one.start()
    try:
        await master.registered()
        await master.run("t1", "id -un")
        await master.until("t1", "TASK_FINISHED")
        output = one.output("t1")
    finally:
        await asyncio.to_thread(one.end)

    assert "daemon\n" == output


@as_root
async def test_a_data_directory_that_the_tasks_user_cannot_reach_is_refused(short_dir: Path):
    """Exit code 2; the folder that bars the way is named."""
    barred = short_dir / "barred"
    barred.mkdir(mode=0o700)
    one = Agent(barred, "127.0.0.1:1")
    one.server.log = short_dir / "agent.log"
    one.start()
    await asyncio.to_thread(lambda: one.server.process and one.server.process.wait(10))

    assert 2 == one.server.stop()
    assert f"user nobody cannot enter {barred} (mode 700)" in (short_dir / "agent.log").read_text()


@as_root
async def test_the_tasks_environment_means_nothing_before_it_is_the_user(one: Agent, master: StubMaster):
    """A library that the framework's environment preloads is asked for by the task's programs only, never by root's.

    The loader complains on stderr once for each program that cannot load it: here `id` alone.
    """
    variables = [{"name": "LD_PRELOAD", "value": "/no/such.so"}]
    command = {"shell": False, "value": "/usr/bin/id", "arguments": ["id", "-u"]}
    await master.run("t1", {**command, "environment": {"variables": variables}})
    await master.until("t1", "TASK_FINISHED")
    heard = one.output("t1", "stderr") + (one.data / "keeper" / "keeper.log").read_text()

    assert f"{NOBODY}\n" == one.output("t1")
    assert 1 == heard.count("/no/such.so")


@as_root
async def test_files_are_fetched_with_the_users_rights(one: Agent, master: StubMaster):
    """A framework cannot read root's files through the agent."""
    secret = one.folder / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    await master.run("t1", {"value": "cat secret", "uris": [{"value": str(secret)}]})
    status = await master.until("t1", "TASK_FAILED")

    assert "Permission denied" in status["message"]
    assert "(as nobody)" in status["message"]


def answer(one: Agent, path: str) -> tuple[int, object]:
    try:
        return 200, one.get(path)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["message"]


async def test_sandboxes_can_be_read_and_nothing_else(one: Agent, master: StubMaster):
    """Browse and read as in Mesos; no `..`, no absolute path outside, no link that a task has planted, no pipe."""
    script = "echo hello; mkdir d; ln -s /etc d/etc; ln -s /etc/passwd passwd; mkfifo pipe"
    await master.run("t1", script)
    await master.until("t1", "TASK_FINISHED")
    box = one.sandbox("t1")
    names = await asyncio.to_thread(answer, one, f"/files/browse?path={box}")

    assert {"stdout", "stderr", "d", "passwd", "pipe"} == {Path(e["path"]).name for e in names[1]}
    assert (200, {"data": "hell", "offset": 0}) == await asyncio.to_thread(
        answer, one, "/files/read?path=F/t1/stdout&offset=0&length=4"
    )
    assert (200, {"data": "", "offset": 6}) == await asyncio.to_thread(answer, one, f"/files/read?path={box}/stdout")
    for path, status in (
        ("F/t1/../../../agent/meta.json", 404),
        ("F/t1/%2e%2e/%2e%2e/%2e%2e/agent/meta.json", 404),
        ("/etc/passwd", 422),
        (f"{box}/../../../agent/meta.json", 404),
        (f"{one.data}/sandboxes-x/y", 422),
        ("F/t1/passwd", 404),
        ("F/t1/d/etc/passwd", 404),
        ("F/t1/pipe", 404),
        ("F/t1/d", 404),
        ("F/t1/nothing", 404),
        ("", 422),
    ):
        got, message = await asyncio.to_thread(answer, one, f"/files/read?offset=0&path={path}")
        assert (status, path) == (got, path)
        assert "root:" not in str(message)
    assert 404 == (await asyncio.to_thread(answer, one, "/files/browse?path=F/t1/d/etc"))[0]


def test_a_log_beyond_its_limit_is_moved_and_writing_goes_on(tmp_path: Path):
    """The latest `limit` bytes stand in stdout.1; what comes next begins the log anew."""
    with (tmp_path / "stdout").open("ab", buffering=0) as log:
        log.write(b"a" * 500 + b"b" * 1000)
        trim_logs(tmp_path, 1000)
        log.write(b"c")

    assert b"b" * 1000 == (tmp_path / "stdout.1").read_bytes()
    assert b"c" == (tmp_path / "stdout").read_bytes()


def test_a_log_that_a_task_made_a_link_is_left_alone(tmp_path: Path):
    """Neither a symbolic link nor a second name leads the agent to another file; nor does a planted stdout.1."""
    other = tmp_path / "other"
    other.write_bytes(b"x" * 2000)
    box = tmp_path / "box"
    box.mkdir()
    (box / "stdout").symlink_to(other)
    (box / "stderr").hardlink_to(other)
    trim_logs(box, 1000)
    (box / "stdout").unlink()
    (box / "stdout").write_bytes(b"y" * 2000)
    (box / "stdout.1").symlink_to(other)
    trim_logs(box, 1000)

    assert b"x" * 2000 == other.read_bytes()
    assert b"y" * 1000 == (box / "stdout.1").read_bytes()
    assert not (box / "stdout.1").is_symlink()

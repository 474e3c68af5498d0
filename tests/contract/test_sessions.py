"""Announcements, elections and the sessions they live in, on every backend."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from fairlead_daemon.errors import Conflict
from fairlead_discovery import paths
from fairlead_discovery.registry import Guard
from harness.waiting import eventually

from .conftest import Backend
from .following import collecting

PATH = f"{paths.AGENTS}/a1"
WRITER = Path(__file__).with_name("paused_writer.py")


async def test_an_announcement_lives_and_ends(backend: Backend):
    """Made, updated, ended by its owner."""
    owner, reader = await backend.open(), await backend.open()
    async with collecting(reader.follow(paths.AGENTS)) as agents:
        announcement = await owner.announce(PATH, b"1")
        await agents.until(lambda a: "a1" in a and a["a1"].data == b"1")
        await announcement.update(b"2")
        await agents.until(lambda a: "a1" in a and a["a1"].data == b"2")
        await announcement.end()

        assert {} == await agents.until(lambda a: not a)


async def test_an_announcement_goes_with_its_session(backend: Backend):
    """Closing ends the session at once."""
    owner, reader = await backend.open(), await backend.open()
    await owner.announce(PATH, b"1")
    async with collecting(reader.follow(paths.AGENTS)) as agents:
        await agents.until(lambda a: "a1" in a)
        await owner.close()
        backend.opened.remove(owner)

        assert {} == await agents.until(lambda a: not a, within_s=5)


async def test_an_announcement_is_made_again_in_a_new_session(backend: Backend):
    """The session ends under its owner; the owner comes back with the latest data."""
    owner, reader = await backend.open(), await backend.open()
    announcement = await owner.announce(PATH, b"1")
    await announcement.update(b"2")
    before = owner.store.connection.value.session
    await backend.expire(owner)

    async def announced_again() -> bool:
        in_another = owner.store.connection.value.session != before
        return in_another and await owner.store.owned(paths.AGENTS) == ("a1",)

    await eventually("announced in the new session", announced_again)
    async with collecting(reader.follow(paths.AGENTS)) as agents:
        assert b"2" == (await agents.until(lambda a: "a1" in a))["a1"].data


async def test_an_announcement_outlives_the_registrys_restart(backend: Backend):
    """The session goes on: nobody sees it gone."""
    owner, reader = await backend.open(), await backend.open()
    await owner.announce(PATH, b"1")
    session = owner.store.connection.value.session
    async with collecting(reader.follow(paths.AGENTS)) as agents, collecting(owner.watch()) as sights:
        await agents.until(lambda a: "a1" in a)
        await backend.stop()
        await sights.until(lambda s: not s.in_sight)
        await backend.start()
        await sights.until(lambda s: s.in_sight)
        await asyncio.sleep(0.5)

        assert all("a1" in seen for seen in agents.all)
    assert session == owner.store.connection.value.session


async def test_a_successor_takes_an_announcement_over(backend: Backend):
    """A restarted daemon announces the same path while its predecessor's session still lives; that one's end harms nothing."""
    old, new = await backend.open(), await backend.open()
    reader = await backend.open()
    await old.announce(PATH, b"old")
    await new.announce(PATH, b"new")
    await old.close()
    backend.opened.remove(old)

    async with collecting(reader.follow(paths.AGENTS)) as agents:
        assert b"new" == (await agents.until(lambda a: "a1" in a))["a1"].data


async def test_one_candidate_leads_and_hands_over(backend: Backend):
    """The first leads, the others know its data; when it withdraws the next one leads with a higher epoch."""
    one, two = await backend.open(), await backend.open()
    async with collecting(two.watch()), collecting(one.campaign("master", b"1")) as first:
        leading = await first.until(lambda s: s.leading)
        async with collecting(two.campaign("master", b"2")) as second:
            follower = await second.until(lambda s: s.leader == b"1")
            assert not follower.leading
            assert not any(s.leading for s in second.all)
            await one.close()
            backend.opened.remove(one)
            successor = await second.until(lambda s: s.leading)

    assert (b"2", True) == (successor.leader, successor.epoch > leading.epoch)


async def test_candidacies_stand_where_they_are_told(backend: Backend):
    """The master's are `/mesos/json.info_<ten digits>`, as Mesos' clients look for them."""
    registry = await backend.open()
    async with collecting(registry.campaign("master", b"{}", candidacy=paths.MASTER_CANDIDACY)) as standings:
        await standings.until(lambda s: s.leading)
        (name,) = await registry.tree.names(paths.MESOS)
        node = await registry.tree.get(f"{paths.MESOS}/{name}")

    assert name.startswith("json.info_")
    assert 10 == len(name.removeprefix("json.info_"))
    assert node is not None
    assert b"{}" == node.data
    assert () == await registry.tree.names(paths.MESOS)


async def test_a_leader_whose_session_ended_leads_no_more(backend: Backend):
    """It steps down, another leads, its guard is refused; it stands again behind the other."""
    one, two = await backend.open(), await backend.open()
    async with collecting(one.campaign("master", b"1")) as first:
        old = (await first.until(lambda s: s.leading)).epoch
        async with collecting(two.campaign("master", b"2")) as second:
            await second.until(lambda s: s.leader == b"1")
            await backend.expire(one)
            new = (await second.until(lambda s: s.leading)).epoch
            await first.until(lambda s: not s.leading and s.leader == b"2")

            with pytest.raises(Conflict):
                await one.commit([], guard=Guard("master", old))
            await two.commit([], guard=Guard("master", new))
            assert 2 == len(await two.tree.names(paths.election("master").rpartition("/")[0]))


async def test_a_leader_out_of_sight_does_not_lead(backend: Backend):
    """`leading` is False at once; back within the session it leads on, with the epoch it had."""
    one = await backend.open()
    async with collecting(one.campaign("master", b"1")) as first:
        before = await first.until(lambda s: s.leading)
        await backend.stop()
        await first.until(lambda s: not s.leading)
        await backend.start()
        after = await first.until(lambda s: s.leading)

    assert before.epoch == after.epoch


async def test_roles_are_elected_apart(backend: Backend):
    """One process may lead two roles, and their epochs are their own."""
    one = await backend.open()
    async with collecting(one.campaign("master", b"m")) as masters, collecting(one.campaign("jobs", b"j")) as jobs:
        await masters.until(lambda s: s.leading)
        epoch = (await jobs.until(lambda s: s.leading)).epoch
        await one.commit([], guard=Guard("jobs", epoch))


@pytest.mark.timeout(90)
async def test_a_paused_writer_is_refused(real_backend: Backend, short_dir: Path):
    """A leader is stopped (SIGSTOP) for longer than its session; another is elected; when it goes on, it writes
    nothing, however often it tries.
    """
    other = await real_backend.open()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WRITER), real_backend.url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).startswith(b"leading")
            process.stdin.write(b"before\n")
            assert b"done\n" == await process.stdout.readline()
        async with collecting(other.campaign("master", b"other")) as standings:
            await standings.until(lambda s: s.leader is not None)
            os.kill(process.pid, signal.SIGSTOP)
            process.stdin.write(b"after\n")
            await standings.until(lambda s: s.leading, within_s=30)
            os.kill(process.pid, signal.SIGCONT)
            async with asyncio.timeout(30):
                assert b"refused\n" == await process.stdout.readline()
    finally:
        process.kill()
        await process.wait()

    assert await other.read(f"{paths.LEAVING}/before") is not None
    assert await other.read(f"{paths.LEAVING}/after") is None


async def test_a_killed_process_leaves_at_once_on_local(real_backend: Backend):
    """On one machine the registry sees that a process is dead: nobody waits 10 s for a session nobody can resume."""
    if real_backend.name != "local":
        pytest.skip("ZooKeeper cannot see processes")
    other = await real_backend.open()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WRITER), real_backend.url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"leading")
    async with collecting(other.campaign("master", b"other")) as standings:
        await standings.until(lambda s: s.leader is not None)
        process.kill()
        await process.wait()

        assert (await standings.until(lambda s: s.leading, within_s=2)).leader == b"other"

"""What only the local registry does: its file, its socket, clients that misbehave."""

import asyncio
import grp
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fairlead_daemon.errors import Unavailable
from fairlead_discovery import messages, paths
from fairlead_discovery.adapters import linked
from fairlead_discovery.adapters.database import Database
from fairlead_discovery.adapters.local import ClientEnd
from fairlead_discovery.hub import Hub
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Create, Put
from fairlead_discovery.snapshots import Trust
from harness.waiting import eventually

from .conftest import RUN_IMPATIENT_REGISTRY, RUN_REGISTRY, Local
from .following import collecting


@pytest.fixture
async def local(short_dir: Path, request: pytest.FixtureRequest):
    made = Local(short_dir, getattr(request, "param", RUN_REGISTRY))
    await made.start()
    yield made
    await made.close()


def run_registry(folder: Path, *settings: str) -> "subprocess.CompletedProcess[str]":
    """A registry that is expected to refuse to start."""
    base = (f"registry=local:{folder}/r.sock", f"data_dir={folder}/d")
    arguments = [part for setting in (*base, *settings) for part in ("--set", setting)]
    command = [sys.executable, "-c", RUN_REGISTRY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


async def test_a_second_registry_on_the_same_file_is_refused(local: Local, short_dir: Path):
    """Exit 2 with the reason; the first goes on."""
    second = await asyncio.to_thread(run_registry, short_dir, f"registry=local:{short_dir}/other.sock")
    assert (2, True) == (second.returncode, "another `fairlead registry` holds" in second.stderr)
    third = await asyncio.to_thread(run_registry, short_dir, f"data_dir={short_dir}/other")
    assert (2, True) == (third.returncode, "another registry serves" in third.stderr)

    assert await (await local.open()).commit([])


def test_bad_settings_are_named(short_dir: Path):
    """Exit 2: a place that is no local one, a path no socket can have, an unknown key, an unknown group."""
    for setting, reason in (
        ("registry=zk://h:2181", "serves `local:<socket>` only"),
        (f"registry=local:/tmp/{'x' * 200}", "at most 100 bytes"),
        ("colour=red", "colour: unknown key"),
        ("socket_group=no-such-group", "socket_group: no group 'no-such-group'"),
    ):
        refused = run_registry(short_dir, setting)
        assert (2, True) == (refused.returncode, reason in refused.stderr), refused.stderr


def test_a_damaged_file_is_named_and_left_alone(short_dir: Path):
    """A person decides what becomes of it."""
    file = short_dir / "d" / "registry.db"
    file.parent.mkdir()
    file.write_bytes(b"not a database at all " * 500)
    refused = run_registry(short_dir)

    assert (2, True) == (refused.returncode, str(file) in refused.stderr)
    assert "confirm" in refused.stderr
    assert file.read_bytes().startswith(b"not a database")


async def test_a_deleted_file_is_another_cluster(local: Local, short_dir: Path):
    """Deleted while it was down: readers hold what they had."""
    writer, reader = await local.open(), await local.open()
    revision = await writer.commit(
        [Create(paths.member("s:a", "member_t1_00000000"), b"{}"), Put(paths.route("s:a"), b"{}")]
    )
    async with collecting(snapshots(reader)) as seen:
        await seen.until(lambda s: s.revision == revision)
        await local.stop()
        for file in (short_dir / "d").glob("registry.db*"):
            file.unlink()
        await local.start()

        assert revision == (await seen.until(lambda s: s.trust is Trust.HELD)).revision


async def test_a_file_taken_away_under_it_is_written_anew(local: Local, short_dir: Path):
    """Nothing is lost: the state is in memory, whole."""
    writer = await local.open()
    await writer.commit([Create(paths.leaving("t1"), b"1")])
    (short_dir / "d" / "registry.db").unlink()
    revision = await writer.commit([Create(paths.leaving("t2"), b"2")])
    await local.stop()
    await local.start()

    reader = await local.open()
    assert revision + 1 == await reader.commit([])
    assert await reader.read(paths.leaving("t1"))
    assert await reader.read(paths.leaving("t2"))


async def test_socket_and_file_are_ours_alone(local: Local, short_dir: Path):
    """Mode 0600; with a group, 0660 and that group."""
    assert 0o600 == local.socket.stat().st_mode & 0o777
    assert 0o600 == (short_dir / "d" / "registry.db").stat().st_mode & 0o777
    await local.stop()
    group = grp.getgrgid(os.getgid()).gr_name
    local.server.command = [*local.server.command, "--set", f"socket_group={group}"]
    await local.start()

    assert (0o660, os.getgid()) == (local.socket.stat().st_mode & 0o777, local.socket.stat().st_gid)


async def raw(local: Local) -> tuple[ClientEnd, "asyncio.Queue[messages.AnyReply]"]:
    replies: asyncio.Queue[messages.AnyReply] = asyncio.Queue()
    _, end = await asyncio.get_running_loop().create_unix_connection(
        lambda: ClientEnd(replies.put_nowait, lambda: None), str(local.socket)
    )
    return end, replies


async def test_a_reader_that_does_not_read_holds_up_nobody(local: Local):
    """Its pushes wait and become one; it gets the newest state when it reads again."""
    writer, reader = await local.open(), await local.open()
    lazy, replies = await raw(local)
    lazy.send(messages.Hello(number=1))
    lazy.send(messages.Subscribe(number=2))
    await replies.get()
    await replies.get()
    assert lazy._transport is not None
    lazy._transport.pause_reading()
    async with collecting(reader.watch()) as sights:
        for n in range(60):
            last = await writer.commit([Put(paths.route("s:a"), b"%03d" % n + bytes(200_000))])
        await sights.until(lambda s: s.revision == last, within_s=5)
    lazy._transport.resume_reading()
    pushes = []
    async with asyncio.timeout(10):
        while not pushes or pushes[-1].revision < last:
            push = await replies.get()
            assert isinstance(push, messages.Push)
            pushes.append(push)

    assert len(pushes) < 50
    (node,) = pushes[-1].folders[paths.ROUTES].values()
    assert node is not None
    assert node[0].startswith(b"059")
    lazy.close()


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc", bytes(40)])
async def test_junk_ends_its_connection_and_nothing_else(local: Local, junk: bytes):
    """Whatever comes over the socket."""
    registry = await local.open()
    reader, writer = await asyncio.open_unix_connection(str(local.socket))
    writer.write(junk)
    writer.write_eof()
    async with asyncio.timeout(5):
        assert b"" == await reader.read()
    writer.close()

    assert await registry.commit([])


async def test_another_protocol_is_refused_with_both_versions(local: Local):
    """Neighbouring versions of fairlead meet on one machine during an upgrade."""
    end, replies = await raw(local)
    end.send(messages.Hello(number=1, version=99))
    async with asyncio.timeout(5):
        refusal = await replies.get()

    assert isinstance(refusal, messages.Failed)
    assert "version 1" in refusal.message
    assert "99" in refusal.message
    end.close()


@pytest.mark.parametrize("local", [RUN_IMPATIENT_REGISTRY], indirect=True, ids=["impatient"])
async def test_a_stopped_registry_ends_no_sessions(local: Local, monkeypatch: pytest.MonkeyPatch):
    """It was paused itself: nobody's silence counts against them."""
    monkeypatch.setattr(linked, "PING_S", 0.5)
    owner, reader = await local.open(), await local.open()
    await owner.announce(f"{paths.AGENTS}/a1", b"1")
    session = owner.store.connection.value.session
    async with collecting(reader.follow(paths.AGENTS)) as agents:
        await agents.until(lambda a: "a1" in a)
        local.server.pause()
        await asyncio.sleep(6)  # longer than a session may be silent
        local.server.resume()

        async def back() -> bool:
            return owner.store.connection.value.in_sight

        await eventually("in sight again", back)
        await owner.commit([])
        assert all("a1" in seen for seen in agents.all)
    assert session == owner.store.connection.value.session


class Ear:
    """A peer that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[messages.AnyReply] = []

    def send(self, message: messages.AnyReply) -> None:
        self.heard.append(message)

    def backed_up(self) -> bool:
        return False


async def test_what_cannot_be_stored_was_never_done(tmp_path: Path):
    """A full disk: the writer hears that it is unavailable, no reader ever sees the change, and it goes on after."""
    with closing(Database(tmp_path / "registry.db")) as database:
        hub = Hub(database.nodes, store=database.store, reload=database.reload)
        ear = Ear()
        client = hub.attach(ear)
        hub.receive(client, messages.Hello(number=1))
        await eventually_heard(ear, 1)
        pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
        database._connection.execute(f"PRAGMA max_page_count={pages + 2}")
        big = messages.Multi(number=2, ops=(messages_set("/x/big", bytes(300_000)),), clocked=True)
        hub.receive(client, big)
        failed = await eventually_heard(ear, 2)
        assert isinstance(failed, messages.Failed)
        assert ("unavailable", True) == (failed.kind, "full" in failed.message)
        hub.receive(client, messages.Get(number=3, path="/x/big"))
        assert messages.Got(number=3) == await eventually_heard(ear, 3)
        hub.receive(client, messages.Multi(number=4, ops=(messages_set("/x/small", b"1"),), clocked=True))
        done = await eventually_heard(ear, 4)
        await hub.close()

    assert isinstance(done, messages.Done)
    with closing(sqlite3.connect(tmp_path / "registry.db")) as file:
        assert [(done.revision,)] == file.execute(
            "SELECT version FROM nodes WHERE path = ?", (paths.REVISION,)
        ).fetchall()


def messages_set(path: str, data: bytes) -> "messages.AnyOp":
    from fairlead_discovery.decisions.ops import Set

    return Set(path=path, data=data)


async def eventually_heard(ear: Ear, number: int) -> messages.AnyReply:
    async def heard() -> list[messages.AnyReply]:
        return [m for m in ear.heard if isinstance(m, messages.Answer) and m.number == number]

    return (await eventually(f"answer {number}", heard))[0]


async def test_many_commits_share_a_flush(local: Local):
    """Group commit: a thousand at once take far fewer than a thousand flushes to disk."""
    writer = await local.open()
    await asyncio.gather(*(writer.commit([Create(paths.leaving(f"t{n}"))]) for n in range(1000)))
    log = local.server.log.read_text()
    port = log.partition("http=")[2].split()[0]
    reader, connection = await asyncio.open_connection(*port.split(":"))
    connection.write(f"GET /metrics HTTP/1.0\r\nHost: {port}\r\n\r\n".encode())
    text = (await reader.read()).decode()
    connection.close()
    flushes = next(
        float(line.split()[1]) for line in text.splitlines() if line.startswith("fairlead_registry_store_seconds_count")
    )

    assert flushes < 200


async def test_out_of_sight_is_said_within_a_second(local: Local):
    """Nobody waits long for a registry that is not there."""
    registry = await local.open()
    await local.stop()
    async with asyncio.timeout(3):
        with pytest.raises(Unavailable):
            await registry.commit([])

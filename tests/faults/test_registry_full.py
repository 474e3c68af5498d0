"""Full disks: writes are refused with the cause, what is there is read by old readers and new, and room heals it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from contract.conftest import Local
from contract.following import collecting
from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Create, Put
from fairlead_discovery.snapshots import Trust
from harness.ensemble import Ensemble, Member, on_loopback
from harness.small_disk import SmallDisk, small_disk
from harness.waiting import eventually

BIG = bytes(100_000)
ROUTE = paths.route("s:a")
MEMBER = paths.member("s:a", "member_t1_00000000")


async def refused(registry: ComposedRegistry) -> Unavailable | None:
    """The refusal of a commit that needs room."""
    try:
        await registry.commit([Put(ROUTE, BIG)])
    except Unavailable as error:
        return error
    return None


async def commits(registry: ComposedRegistry, data: bytes = b"") -> int:
    try:
        return await registry.commit([Put(ROUTE, data)])
    except FairleadError as error:
        raise AssertionError(str(error)) from error


async def test_the_local_registrys_disk_is_full(short_dir: Path):
    """Writers hear why; readers go on, newcomers too; a session opened meanwhile is as good as any afterwards."""
    with small_disk(short_dir / "d", megabytes=4) as disk:
        local = Local(short_dir)
        await local.start()
        try:
            writer, reader = await local.open(), await local.open()
            revision = await writer.commit([Create(MEMBER, b"{}")])
            async with collecting(reader.watch()) as sights:
                await sights.until(lambda s: s.revision == revision)
                disk.fill()
                error = await eventually("a refused commit", lambda: refused(writer))
                assert "registry.db: database or disk is full" in str(error)
                last = sights.last.revision
                assert await writer.read(MEMBER) is not None
                newcomer = await local.open()
                async with collecting(newcomer.watch()) as seen:
                    assert last == (await seen.until(lambda s: s.in_sight)).revision
                assert sights.last.in_sight

                disk.clear()
                made = await eventually("room again", lambda: commits(writer), within_s=20)
                await sights.until(lambda s: s.revision >= made)
            await newcomer.announce(f"{paths.AGENTS}/a1", b"1")
            session = newcomer.store.connection.value.session
            await local.stop()
            await local.start()

            async def still_there() -> bool:
                return newcomer.store.connection.value.in_sight and await newcomer.store.owned(paths.AGENTS) == ("a1",)

            await eventually("its session outlives a restart", still_there, within_s=20)
            assert session == newcomer.store.connection.value.session
        finally:
            await local.close()


def log_elsewhere(member: Member, folder: Path) -> None:
    """Its transaction log stands there."""
    config = member.folder / "zoo.cfg"
    config.write_text(config.read_text() + f"dataLogDir={folder}\n")


@pytest.fixture
def three() -> Iterator[tuple[Ensemble, SmallDisk]]:
    """The first server's transaction log is on a small disk."""
    folder = Path(tempfile.mkdtemp(prefix="fe-", dir="/tmp"))
    ensemble = on_loopback(folder, 3)
    with small_disk(folder / "log", megabytes=4) as disk:
        log_elsewhere(ensemble.members[0], disk.folder)
        try:
            yield ensemble.start(), disk
        finally:
            ensemble.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_zookeeper_servers_disk_is_full(three: tuple[Ensemble, SmallDisk]):
    """It says so in its log and drops out of the ensemble, again and again; the majority goes on, readers notice
    nothing. With room it comes back by itself.
    """
    ensemble, disk = three
    full, *others = ensemble.members
    url = f"{ensemble.url}/{uuid4().hex}"
    writer, reader = await open_registry(url), await open_registry(url)
    try:
        await eventually("a first commit", lambda: commits(writer), within_s=20)
        await writer.commit([Create(MEMBER, b"{}")])
        async with collecting(snapshots(reader)) as seen:
            await seen.until(lambda s: s.trust is Trust.LIVE and s.revision > 0)
            disk.fill()

            async def said() -> bool:
                await refused(writer)
                return "No space left on device" in full.server.log.read_text()

            await eventually("the server has said so", said, within_s=30)
            revision = await eventually("the others take commits", lambda: commits(writer, BIG), within_s=30)
            await seen.until(lambda s: s.revision >= revision and s.trust is Trust.LIVE, within_s=30)
            assert all(s.trust is not Trust.HELD for s in seen.all)

            disk.clear()
            ensemble.wait_whole()
            others[0].kill()  # now it is needed
            revision = await eventually("commits by it and another", lambda: commits(writer), within_s=40)
            await seen.until(lambda s: s.revision >= revision and s.trust is Trust.LIVE, within_s=40)
    finally:
        await writer.close()
        await reader.close()

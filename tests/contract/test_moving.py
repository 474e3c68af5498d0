"""Registries exported, imported and moved while others work on them: local and a real ZooKeeper."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_daemon.errors import Conflict, FairleadError, Refused, Unsafe
from fairlead_discovery import moving, paths
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.decisions.archive import Image
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Address, Member, TaskRef, encode
from fairlead_discovery.registry import Create, Delete, Guard
from fairlead_discovery.snapshots import Trust
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

from .conftest import Backend, Local, OnZooKeeper
from .following import collecting

SERVICES = 5


def silent(_what: str, _done: int, _of: int) -> None:
    """No person looks."""


def publish(service: int, number: int) -> Create:
    data = encode(
        Member(
            serviceEndpoint=Address(host="10.0.0.1", port=31000 + number),
            task=TaskRef(id=f"t{service}.{number}", name="web", framework="s", framework_id="f", agent="a1"),
            status="ALIVE",
        )
    )
    return Create(paths.member(f"s:{service}", paths.member_name(f"t{service}.{number}", data)), data)


async def fill(registry: ComposedRegistry) -> int:
    """Twenty endpoints in five services, a document that is no text, an announcement, a leadership; the revision."""
    await registry.announce(f"{paths.AGENTS}/a1", b"{}")
    await registry.write(paths.below(paths.INSTANCES, "/a"), b"\xff\x00")
    revision = 0
    for number in range(4):
        revision = await registry.commit([publish(service, number) for service in range(SERVICES)])
    return revision


async def image(registry: ComposedRegistry) -> Image:
    return await moving.image_of(registry, silent)


@pytest.fixture
async def zookeeper_backend(contract_zookeeper: ZooKeeper) -> AsyncIterator[Backend]:
    made = OnZooKeeper(contract_zookeeper)
    yield made
    await made.close()


@pytest.fixture(params=["local to zookeeper", "zookeeper to local"])
async def pair(
    request: pytest.FixtureRequest, short_dir: Path, zookeeper_backend: Backend
) -> AsyncIterator[tuple[Backend, Backend]]:
    """Where from, and where to."""
    local = Local(short_dir)
    await local.start()
    yield (local, zookeeper_backend) if request.param.startswith("local") else (zookeeper_backend, local)
    await local.close()


async def test_an_image_leaves_out_what_ends_with_a_session(backend: Backend):
    """Every other node is in it, byte for byte, with cluster and revision."""
    registry = await backend.open()
    revision = await fill(registry)
    taken = await image(registry)

    assert (revision, registry.store.cluster.uuid) == (taken.revision, taken.cluster.uuid)
    assert b"\xff\x00" == taken.nodes[paths.below(paths.INSTANCES, "/a")]
    assert {f"{paths.AGENTS}/a1"} == taken.passing
    assert 4 * SERVICES + 1 == len(taken.nodes)


async def test_an_import_restores_what_was_lost(backend: Backend):
    """Readers see every endpoint again, one revision on, and never doubt it: it is the same cluster."""
    registry, other = await backend.open(), await backend.open()
    await fill(registry)
    saved = await image(registry)
    gone = [path for path in saved.nodes if paths.clocked_folder(path)][:3]
    damaged = await registry.commit([*map(Delete, gone), publish(0, 9)])
    async with collecting(snapshots(other)) as seen:
        await seen.until(lambda s: s.revision == damaged)
        done = await moving.restore(registry, saved, force=False, tell=silent)
        await seen.until(lambda s: s.revision == done.revision and s.trust is Trust.LIVE)

        assert all(s.trust is not Trust.HELD for s in seen.all)
    after = await image(await backend.open())

    assert (saved.nodes, damaged + 1) == (after.nodes, after.revision)
    assert damaged + 2 == await other.commit([])


async def test_an_import_that_would_empty_a_living_registry_is_refused(backend: Backend):
    """Nothing is touched; `force` does it."""
    registry = await backend.open()
    empty = await image(registry)
    revision = await fill(registry)

    with pytest.raises(Unsafe, match="empty a registry with 20 endpoints"):
        await moving.restore(registry, empty, force=False, tell=silent)
    assert revision + 1 == await registry.commit([])

    await moving.restore(registry, empty, force=True, tell=silent)
    assert {} == (await image(registry)).nodes


async def test_an_import_cut_off_in_the_middle_keeps_the_registry_closed(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
):
    """Nobody works on half of it: writers are refused, readers call what they have stale. The same again finishes it."""
    registry, other = await backend.open(), await backend.open()
    await fill(registry)
    saved = await image(registry)
    await registry.commit([Delete(path) for path in saved.nodes if paths.clocked_folder(path)][:9])
    async with collecting(snapshots(other)) as seen:
        await seen.until(lambda s: s.trust is Trust.LIVE)
        await moving.restore(registry, saved, force=True, tell=silent, finish=False)
        await seen.until(lambda s: s.trust is Trust.STALE)
        with pytest.raises(FairleadError):
            await other.commit([])
        newcomer = await backend.open()
        assert not newcomer.store.connection.value.in_sight

        await moving.restore(await backend.open(), saved, force=False, tell=silent)
        await seen.until(lambda s: s.trust is Trust.LIVE)
    assert saved.nodes == (await image(await backend.open())).nodes


async def test_leaders_of_before_are_refused_after_an_import(backend: Backend):
    """They know what is no more: they must be elected again, with a higher epoch, and read."""
    registry, leader = await backend.open(), await backend.open()
    async with collecting(leader.campaign("master", b"1")) as standings:
        old = (await standings.until(lambda s: s.leading)).epoch
        await fill(registry)
        await moving.restore(registry, await image(registry), force=False, tell=silent)

        async def refused() -> bool:
            with pytest.raises(Conflict):
                await leader.commit([], guard=Guard("master", old))
            return True

        await eventually("the old epoch is refused", refused)
    async with collecting(leader.campaign("master", b"1")) as standings:
        assert old < (await standings.until(lambda s: s.leading)).epoch


async def test_a_running_set_up_moves_without_withdrawing_an_endpoint(pair: tuple[Backend, Backend], short_dir: Path):
    """A reader goes over with its state on disk: never held, no service ever empty, the revision goes on."""
    old, new = pair
    source, target = await old.open(follow=False), await new.open(follow=False)
    revision = await fill(source)
    writer, keep = await old.open(follow=False), short_dir / "kept"
    seen = []
    async with collecting(snapshots(writer, keep=keep)) as before:
        await before.until(lambda s: s.trust is Trust.LIVE and len(s.members) == SERVICES)
        await moving.move(source, target, new.url, force=False, tell=silent)
        seen += before.all

        with pytest.raises(Refused, match="has moved to"):
            await eventually_refused(writer)
    follower = await new.open()
    async with collecting(snapshots(follower, keep=keep)) as after:
        await after.until(lambda s: s.trust is Trust.LIVE)
        assert revision + 1 == await follower.commit([publish(0, 7)])
        await after.until(lambda s: s.revision == revision + 1)
        seen += after.all

    full = [s for s in seen if s.revision >= revision]
    assert {SERVICES} == {len(s.members) for s in full}
    assert all(s.trust is not Trust.HELD for s in seen)
    assert 4 * SERVICES + 1 == sum(map(len, full[-1].members.values()))


async def test_a_set_up_moves_back(pair: tuple[Backend, Backend]):
    """What was changed in the new place is there; the old one is written again."""
    old, new = pair
    source, target = await old.open(follow=False), await new.open(follow=False)
    await fill(source)
    await moving.move(source, target, new.url, force=False, tell=silent)
    revision = await (await new.open()).commit([publish(0, 8)])
    await moving.move(target, source, old.url, force=False, tell=silent)
    here = await old.open()

    assert revision < await here.commit([])
    assert publish(0, 8).path in (await image(here)).nodes


async def test_a_move_that_fails_leaves_the_old_registry_as_it_was(pair: tuple[Backend, Backend]):
    """The target goes away while it is written: the source is open again."""
    old, new = pair
    source, target = await old.open(follow=False), await new.open(follow=False)
    await fill(source)

    async def gone(_version: int) -> None:
        raise Refused("gone")

    target.store.renew = lambda: gone(0)
    with pytest.raises(FairleadError):
        await moving.move(source, target, new.url, force=False, tell=silent)

    assert await (await old.open()).commit([])


async def eventually_refused(registry: ComposedRegistry) -> None:
    """Until then the client may not have heard of it: its outcome is unknown."""
    async with asyncio.timeout(10):
        while True:
            try:
                await registry.commit([])
            except Refused:
                raise
            except FairleadError:
                await asyncio.sleep(0.05)

"""Snapshots: what readers get of a real (in-memory) registry, also when it is gone, empty, or lies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from contract.following import Collected, collecting
from fairlead_discovery import backends, paths, reading
from fairlead_discovery.adapters.memory import MemoryCluster, cluster
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.keeping import load
from fairlead_discovery.reading import confirm, snapshots
from fairlead_discovery.registry import Delete, Put
from fairlead_discovery.snapshots import Snapshot, Trust

from .records_of import WEB, leave, path, publish, route, withdraw


class House:
    """One in-memory registry, a writer, and readers."""

    def __init__(self, place: str, writer: ComposedRegistry) -> None:
        self.place = place
        self.writer = writer
        self.faults: MemoryCluster = cluster(place)

    @asynccontextmanager
    async def reading(self, keep: Path | None = None) -> AsyncIterator[Collected[Snapshot]]:
        registry = await open_registry(f"memory:{self.place}")
        try:
            async with collecting(snapshots(registry, keep=keep)) as collected:
                yield collected
        finally:
            await registry.close()


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(reading, "CONFIRM_POLL_S", 0.05)
    monkeypatch.setattr(reading, "UNLED_S", 0.1)
    monkeypatch.setattr(backends, "FIRST_SIGHT_S", 0.1)
    place = uuid4().hex
    writer = await open_registry(f"memory:{place}")
    yield House(place, writer)
    await writer.close()


def tasks(snapshot: Snapshot) -> set[str]:
    return {m.task.id for members in snapshot.members.values() for m in members.values()}


def live(revision: int):
    return lambda s: s.trust is Trust.LIVE and s.revision == revision


async def test_a_snapshot_holds_what_was_committed(house: House):
    """Members by service and node name, leaving records by task, routes by service; live, of age 0."""
    async with house.reading() as seen:
        revision = await house.writer.commit([publish(1), publish(2), route(), leave(7)])
        snapshot = await seen.until(live(revision))

    assert {path(1).rpartition("/")[2], path(2).rpartition("/")[2]} == set(snapshot.members[WEB])
    assert ({"t7"}, {WEB}, 0.0, {}) == (set(snapshot.leaving), set(snapshot.routes), snapshot.age_s, snapshot.bad)


async def test_what_is_leaving_is_no_member(house: House):
    """Also while its node still stands."""
    await house.writer.commit([publish(1), publish(2), leave(2)])
    async with house.reading() as seen:
        assert {"t1"} == tasks(await seen.until(lambda s: s.trust is Trust.LIVE))
        revision = await house.writer.commit([leave(1)])

        assert {} == (await seen.until(live(revision))).members


async def test_unchanged_services_are_the_same_objects(house: House):
    """Readers compare by identity: also for services of which something is hidden."""
    first = await house.writer.commit(
        [publish(1), publish(2), leave(2), publish(3, service="etl:x"), publish(4, service="etl:y")]
    )
    async with house.reading() as seen:
        before = await seen.until(live(first))
        second = await house.writer.commit([publish(5, service="etl:y")])
        after = await seen.until(live(second))

    assert before.members[WEB] is after.members[WEB]
    assert before.members["etl:x"] is after.members["etl:x"]
    assert before.members["etl:y"] is not after.members["etl:y"]
    assert before.leaving is after.leaving


async def test_bad_nodes_are_named_and_the_rest_served(house: House):
    """One broken record takes nobody else down."""
    bad = paths.member(WEB, "member_t9_00000000")
    revision = await house.writer.commit([publish(1), Put(bad, b'{"task":'), Put(paths.leaving("x"), b"[]")])
    async with house.reading() as seen:
        snapshot = await seen.until(live(revision))

    assert ({"t1"}, {bad, paths.leaving("x")}) == (tasks(snapshot), set(snapshot.bad))
    assert snapshot.bad[bad].startswith(bad)


async def test_out_of_sight_the_last_good_is_served(house: House):
    """Stale, with its age; live again when the registry is back."""
    revision = await house.writer.commit([publish(1)])
    async with house.reading() as seen:
        await seen.until(live(revision))
        house.faults.stop()
        stale = await seen.until(lambda s: s.trust is Trust.STALE)
        assert ({"t1"}, revision) == (tasks(stale), stale.revision)
        house.faults.start()

        assert {"t1"} == tasks(await seen.until(live(revision)))


async def test_after_a_restart_the_state_on_disk_is_served(house: House, tmp_path: Path):
    """The registry is away and the reader new: what it kept, stale, with its age."""
    keep = tmp_path / "state"
    revision = await house.writer.commit([publish(1), route()])
    async with house.reading(keep) as seen:
        await seen.until(live(revision))
    house.faults.stop()

    async with house.reading(keep) as seen:
        stale = await seen.until(lambda s: s.trust is Trust.STALE)

    assert ({"t1"}, {WEB}, revision) == (tasks(stale), set(stale.routes), stale.revision)
    assert 0 < stale.age_s < 60
    assert 0o600 == keep.stat().st_mode & 0o777


async def test_who_has_never_seen_anything_says_so(house: House, tmp_path: Path):
    """Revision -1, stale, empty: nothing is known, which is not the same as nothing being there."""
    house.faults.stop()
    (tmp_path / "state").write_bytes(b"\x00 no state")
    async with house.reading(tmp_path / "state") as seen:
        first = await seen.until(lambda s: True)

    assert (-1, Trust.STALE, {}) == (first.revision, first.trust, first.members)


async def test_an_empty_registry_is_held_until_confirmed(house: House, tmp_path: Path):
    """It comes back as another cluster: the last good is served, also by a reader that starts now, until a person says so."""
    keep = tmp_path / "state"
    revision = await house.writer.commit([publish(1), route()])
    async with house.reading(keep) as seen:
        await seen.until(live(revision))
        house.faults.restart_empty()
        held = await seen.until(lambda s: s.trust is Trust.HELD)
        assert ({"t1"}, revision) == (tasks(held), held.revision)
        assert "another" in held.why
    async with house.reading(keep) as seen:
        held = await seen.until(lambda s: s.trust is Trust.HELD)
        assert {"t1"} == tasks(held)

        await confirm(house.writer)
        believed = await seen.until(lambda s: s.trust is Trust.LIVE)
    async with house.reading(keep) as later:
        assert Trust.LIVE is (await later.until(lambda s: s.revision >= 0)).trust

    assert ({}, {}) == (believed.members, believed.routes)


async def test_a_reader_that_was_away_accepts_an_earlier_confirmation(house: House, tmp_path: Path):
    """A person has said it once; whoever comes later need not ask again."""
    keep = tmp_path / "state"
    revision = await house.writer.commit([publish(1)])
    async with house.reading(keep) as seen:
        await seen.until(live(revision))
    house.faults.restart_empty()
    async with collecting(house.writer.watch()) as sights:
        await sights.until(lambda s: s.in_sight and s.revision == 0)
    await confirm(house.writer)
    later = await house.writer.commit([publish(2)])

    async with house.reading(keep) as seen:
        assert {"t2"} == tasks(await seen.until(live(later)))


async def test_a_mass_disappearance_is_held_and_heals(house: House):
    """Eight of ten tasks without a leaving record: held; when they come back, live without anybody's word."""
    revision = await house.writer.commit([publish(n) for n in range(10)])
    async with house.reading() as seen:
        await seen.until(live(revision))
        await house.writer.commit([withdraw(n) for n in range(8)])
        held = await seen.until(lambda s: s.trust is Trust.HELD)
        assert (10, revision) == (len(tasks(held)), held.revision)
        assert "8 of 10 tasks" in held.why
        back = await house.writer.commit([publish(n) for n in range(6)])

        assert 8 == len(tasks(await seen.until(live(back))))


async def test_a_disappearance_in_small_steps_is_one_too(house: House):
    """A leader that lost its memory withdraws task by task, in commits of their own."""
    revision = await house.writer.commit([publish(n) for n in range(10)])
    async with house.reading() as seen:
        await seen.until(live(revision))
        for n in range(9):
            await house.writer.commit([withdraw(n)])
            await asyncio.sleep(0.01)
        held = await seen.until(lambda s: s.trust is Trust.HELD)

    assert 10 == len(tasks(held))


async def test_what_leaves_in_order_is_believed(house: House):
    """All ten at once: with records there is no disaster, also when the records have gone again."""
    revision = await house.writer.commit([*(publish(n) for n in range(10)), route()])
    async with house.reading() as seen:
        await seen.until(live(revision))
        first = await house.writer.commit([c for n in range(10) for c in (withdraw(n), leave(n))])
        await seen.until(live(first))
        last = await house.writer.commit([Delete(paths.leaving(f"t{n}")) for n in range(10)])

        assert {} == (await seen.until(live(last))).members


async def test_a_disaster_is_confirmed_by_a_person(house: House):
    """`fairlead registry confirm`: from then on it is believed; an old word does not settle the next disaster."""
    revision = await house.writer.commit([publish(n) for n in range(20)])
    async with house.reading() as seen:
        await seen.until(live(revision))
        await house.writer.commit([withdraw(n) for n in range(12)])
        await seen.until(lambda s: s.trust is Trust.HELD)
        await confirm(house.writer)
        assert 8 == len(tasks(await seen.until(lambda s: s.trust is Trust.LIVE)))
        await asyncio.sleep(0.05)
        await house.writer.commit([withdraw(n) for n in range(12, 20)])
        held = await seen.until(lambda s: s.trust is Trust.HELD)
        await asyncio.sleep(0.3)

    assert Trust.HELD is seen.last.trust
    assert 8 == len(tasks(held))


async def test_a_revision_that_goes_back_is_held(house: House, tmp_path: Path):
    """A registry restored from a copy: same cluster, older clock."""
    revision = await house.writer.commit([publish(1)])
    async with house.reading(tmp_path / "state") as seen:
        await seen.until(live(revision))
    kept = load(tmp_path / "state")
    assert kept is not None
    assert revision == kept.revision
    await house.writer.remove(paths.REVISION)
    await house.writer.commit([])

    async with house.reading(tmp_path / "state") as seen:
        held = await seen.until(lambda s: s.trust is Trust.HELD)

    assert f"went back from {revision} to 0" in held.why


async def test_without_a_master_members_go_with_their_agents(house: House):
    """No leader: whose agent is not announced any more is left out, but no service to zero; with a leader all return."""
    await house.writer.write("/mesos/json.info_0000000001", b"{}")
    agent = await house.writer.announce(paths.below(paths.AGENTS, "a1"), b"{}")
    other = await house.writer.announce(paths.below(paths.AGENTS, "a2"), b"{}")
    revision = await house.writer.commit(
        [publish(1, agent="a1"), publish(2, agent="a2"), publish(3, service="etl:x", agent="a2")]
    )
    async with house.reading() as seen:
        await seen.until(live(revision))
        await other.end()
        await asyncio.sleep(0.3)
        assert {"t1", "t2", "t3"} == tasks(seen.last)
        await house.writer.remove("/mesos/json.info_0000000001")
        assert {"t1", "t3"} == tasks(await seen.until(lambda s: len(tasks(s)) == 2))
        await agent.end()
        assert {"t1", "t2", "t3"} == tasks(await seen.until(lambda s: len(tasks(s)) == 3))
        await agent.update(b"{}")
        await seen.until(lambda s: len(tasks(s)) == 2)
        await house.writer.write("/mesos/json.info_0000000002", b"{}")

        assert {"t1", "t2", "t3"} == tasks(await seen.until(lambda s: len(tasks(s)) == 3))


async def test_a_slow_taker_gets_the_newest(house: House):
    """Snapshots are not queued up: what was missed in between is in the last one."""
    registry = await open_registry(f"memory:{house.place}")
    source = snapshots(registry)
    await anext(source)
    for n in range(50):
        last = await house.writer.commit([publish(n)])
    await asyncio.sleep(0.1)

    snapshot = await anext(source)
    assert (last, 50) == (snapshot.revision, len(tasks(snapshot)))
    await source.aclose()  # type: ignore[attr-defined]
    await registry.close()

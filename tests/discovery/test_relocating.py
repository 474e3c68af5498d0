"""A store that goes along when its registry moves, over two registries in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import msgspec
import pytest

from contract.following import collecting
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_discovery import coordination, moving, paths, relocating
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.backends import open_registry, open_store
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.records import Cluster, decode, encode
from fairlead_discovery.registry import Create, Put, Sight
from fairlead_discovery.relocating import RelocatingStore
from harness.waiting import eventually

MEMBER = paths.member("s:a", "member_t1_00000000")


@dataclass
class Move:
    """Two places, and registries that go along from the first to the second."""

    old: str
    new: str
    opened: list[ComposedRegistry]

    def follower(self) -> ComposedRegistry:
        registry = ComposedRegistry(RelocatingStore(open_store(self.old), open_store))
        self.opened.append(registry)
        return registry

    async def at(self, url: str) -> ComposedRegistry:
        registry = await open_registry(url)
        self.opened.append(registry)
        return registry

    async def copy(self) -> None:
        source, target = await self.at(self.old), await self.at(self.new)
        await moving.move(source, target, self.new, force=False, tell=lambda _what, _done, _of: None)

    async def gone_along(self, registry: ComposedRegistry) -> None:
        async def there() -> bool:
            return registry.store.now.place == self.new

        await eventually("it went along", there)


@asynccontextmanager
async def a_move() -> AsyncIterator[Move]:
    made = Move(f"memory:{uuid4().hex}", f"memory:{uuid4().hex}", [])
    try:
        yield made
    finally:
        await asyncio.gather(*(registry.close() for registry in made.opened))


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relocating, "READERS_LATER_S", 0.05)
    monkeypatch.setattr(relocating, "SETTLE_S", 0.1)


async def test_a_reader_goes_on_from_its_revision():
    """No sight lacks the endpoint, no revision goes back, and what is written in the new place is seen."""
    async with a_move() as move:
        reader = move.follower()
        async with collecting(reader.watch()) as sights:
            await sights.until(lambda s: s.in_sight)
            revision = await reader.commit([Create(MEMBER, b"{}")])
            await sights.until(lambda s: s.revision == revision)
            after = len(sights.all)
            await move.copy()
            await move.gone_along(reader)
            later = await (await move.at(move.new)).commit([Put(paths.route("s:a"), b"{}")])
            await sights.until(lambda s: s.revision == later)
            seen = sights.all[after:]

        assert all(paths.endpoint_folder("s:a") in s.folders for s in seen)
        assert sorted(s.revision for s in seen) == [s.revision for s in seen]


async def test_announcements_and_leaderships_go_along(monkeypatch: pytest.MonkeyPatch):
    """Made anew there; in the old place they stay until everybody has had the time to go, then they end."""
    monkeypatch.setattr(relocating, "LINGER_S", 0.5)
    async with a_move() as move:
        owner = move.follower()
        await owner.announce(f"{paths.AGENTS}/a1", b"1")
        old, new = await move.at(move.old), await move.at(move.new)
        async with collecting(owner.campaign("master", b"m")) as standings:
            epoch = (await standings.until(lambda s: s.leading)).epoch
            async with collecting(old.follow(paths.AGENTS)) as left, collecting(new.follow(paths.AGENTS)) as there:
                await move.copy()
                await there.until(lambda a: "a1" in a)
                await standings.until(lambda s: s.leading and s.epoch > epoch)
                stayed = "a1" in left.all[-1]
                await left.until(lambda a: not a)

        assert stayed


async def test_writes_wait_for_the_new_place_and_no_old_version_counts_there():
    """While it moves nothing is done, and nobody is refused for good."""
    async with a_move() as move:
        writer, reader = move.follower(), move.follower()
        path = paths.below(paths.INSTANCES, "x")
        version = await writer.write(path, b"1")
        async with collecting(reader.watch()) as sights:
            await sights.until(lambda s: s.in_sight)
            await move.copy()
            for registry in (writer, reader):
                with pytest.raises(Unavailable, match="move"):
                    await registry.write(path, b"2", expect=version)
            await move.gone_along(writer)
            assert b"1" == (await writer.read(path)).data

            async def written() -> bool:
                node = await writer.read(path)
                await writer.write(path, b"3", expect=node.version)
                return True

            await eventually("written", lambda: tolerant(written))
        assert b"3" == (await (await move.at(move.new)).read(path)).data


async def tolerant(body) -> bool:
    try:
        return await body()
    except Unavailable as error:
        raise AssertionError(str(error)) from error


async def test_who_comes_after_the_move_sees_nothing_of_before(monkeypatch: pytest.MonkeyPatch):
    """The old registry still stands, with an old state: it is never shown, not even while the new one is away."""
    monkeypatch.setattr(relocating, "IN_SIGHT_S", 0.2)
    async with a_move() as move:
        await (await move.at(move.old)).commit([Create(MEMBER, b"{}")])
        await move.copy()
        new = await move.at(move.new)
        revision = await new.commit([Put(paths.route("s:b"), b"{}")])
        cluster(move.new.removeprefix("memory:")).stop()
        late = move.follower()
        async with collecting(late.watch()) as sights:
            await asyncio.sleep(0.5)
            assert not any(s.in_sight for s in sights.all)
            with pytest.raises(Unavailable, match="has moved to"):
                await late.read(MEMBER)
            cluster(move.new.removeprefix("memory:")).start()

            assert revision == (await sights.until(lambda s: s.in_sight)).revision


async def test_no_lock_is_held_in_both_places(monkeypatch: pytest.MonkeyPatch):
    """The new registry opens when every lease of before has run out; its holder knows by then."""
    monkeypatch.setattr(moving, "LEASES_END_S", 3)
    monkeypatch.setattr(coordination, "LEASE_S", 2.0)
    async with a_move() as move:
        holder, next_one = move.follower(), move.follower()
        async with AsyncExitStack() as holding:
            held = await holding.enter_async_context(coordination.lock(holder, "x"))
            copying = asyncio.create_task(move.copy())
            ending = asyncio.create_task(end_when_lost(held, holding))  # else it stands for the lock there too
            async with coordination.lock(next_one, "x", wait_s=60) as then:
                assert held.lost.is_set()
                assert held.fence < then.fence
            await asyncio.gather(copying, ending)


async def end_when_lost(held: coordination.Held, holding: AsyncExitStack) -> None:
    await held.lost.wait()
    await holding.aclose()


async def test_who_cannot_reach_the_new_place_is_stale(monkeypatch: pytest.MonkeyPatch):
    """It shows what it had, as out of sight, writes nothing, and goes along as soon as it can."""
    monkeypatch.setattr(relocating, "IN_SIGHT_S", 0.1)
    async with a_move() as move:
        reader = move.follower()
        place = uuid4().hex
        cluster(place).stop()
        reader.store._reopen = lambda _url: open_store(f"memory:{place}")
        async with collecting(reader.watch()) as sights:
            await sights.until(lambda s: s.in_sight)
            revision = await reader.commit([Create(MEMBER, b"{}")])
            await sights.until(lambda s: s.revision == revision)
            await move.copy()
            stale = await sights.until(lambda s: not s.in_sight and s.revision == revision)
            await asyncio.sleep(0.3)
            assert not sights.last.in_sight
            assert paths.endpoint_folder("s:a") in stale.folders
            with pytest.raises(Unavailable, match="has moved to"):
                await reader.commit([])
            reader.store._reopen = open_store

            assert revision <= (await sights.until(lambda s: s.in_sight)).revision


async def test_a_bug_in_what_is_followed_reaches_the_reader():
    """It is not left waiting for ever."""
    async with a_move() as move:
        reader = move.follower()

        async def broken() -> AsyncIterator[Sight]:
            yield Sight(in_sight=False)
            raise ZeroDivisionError

        reader.store.now.sights = broken
        with pytest.raises(ZeroDivisionError):
            async for _ in reader.watch():
                pass


async def test_another_cluster_is_not_gone_to():
    """Whatever stands in the record: only where our own cluster goes on."""
    async with a_move() as move:
        follower = move.follower()
        await follower.commit([Create(MEMBER, b"{}")])
        other = await move.at(move.new)
        await other.commit([])
        source = await move.at(move.old)
        node = await source.read(paths.CLUSTER)
        record = msgspec.structs.replace(decode(Cluster, node.data, place=""), moved=move.new)
        await source.write(paths.CLUSTER, encode(record))
        await asyncio.sleep(0.5)

        with pytest.raises(Unavailable, match="has moved to"):
            await follower.commit([])


async def test_who_works_on_the_old_registry_itself_stays():
    """`fairlead registry export` of what has moved reads that."""
    async with a_move() as move:
        admin = move.follower()
        admin.store.admin = True
        await admin.commit([])
        await move.copy()
        await asyncio.sleep(0.3)

        assert admin.store.cluster.moved == move.new
        plain = await move.at(move.old)
        with pytest.raises(Refused, match="has moved to"):
            await plain.commit([])

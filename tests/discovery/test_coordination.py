"""Locks, semaphores, elections, barriers and groups, on the memory backend."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from uuid import uuid4

import pytest

from fairlead_daemon.errors import Conflict, Refused
from fairlead_discovery import coordination
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.coordination import Group, Held, barrier, elected, lock, semaphore

Opens = Callable[[], Awaitable[ComposedRegistry]]


@pytest.fixture
def place() -> str:
    return uuid4().hex


@pytest.fixture
async def opens(place: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opens]:
    """Registries with a session each; the wait after an unclean end is made short."""
    monkeypatch.setattr(coordination, "HANDOVER_S", 0.05)
    opened: list[ComposedRegistry] = []

    async def open_one() -> ComposedRegistry:
        opened.append(await open_registry(f"memory:{place}"))
        return opened[-1]

    yield open_one
    await asyncio.gather(*(registry.close() for registry in opened))


async def test_a_lock_has_one_holder_and_rising_fences(opens: Opens):
    """Many want it at once; each that gets it has a higher token, and none is there beside another."""
    inside: list[int] = []
    fences: list[int] = []

    async def contend() -> None:
        async with lock(await opens(), "x") as held:
            inside.append(held.fence)
            assert [held.fence] == inside
            await asyncio.sleep(0.01)
            held.check()
            inside.remove(held.fence)
            fences.append(held.fence)

    async with asyncio.timeout(5):
        await asyncio.gather(*(contend() for _ in range(5)))

    assert sorted(set(fences)) == fences


async def test_an_orderly_end_hands_over_at_once(opens: Opens, monkeypatch: pytest.MonkeyPatch):
    """Who ends says so; only after one that did not is the time waited that its guardian may need."""
    first, second = await opens(), await opens()
    async with lock(first, "x"):
        pass
    monkeypatch.setattr(coordination, "HANDOVER_S", 60.0)

    async with asyncio.timeout(2), lock(second, "x"):
        pass


async def test_who_gives_up_while_it_waits_for_the_dead_does_not_vouch_for_them(
    opens: Opens, place: str, monkeypatch: pytest.MonkeyPatch
):
    """A holder is gone without a word; the next one leaves before its time is over; the third waits all the same."""
    monkeypatch.setattr(coordination, "HANDOVER_S", 0.3)
    first, second, third = await opens(), await opens(), await opens()
    async with lock(first, "x"):
        cluster(place).expire(first.store)
        await first.close()
        with pytest.raises(Conflict):
            async with lock(second, "x", wait_s=0.15):
                pass
        begin_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(3), lock(third, "x"):
            assert 0.3 <= asyncio.get_running_loop().time() - begin_s


async def test_who_cannot_wait_is_told_who_holds(opens: Opens):
    """By host and process."""
    async with lock(await opens(), "x"):
        with pytest.raises(Conflict, match=r"x is held by .* pid"):
            async with lock(await opens(), "x", wait_s=0.1):
                pass


async def test_locks_of_other_names_are_others(opens: Opens):
    """Also `a` and `a#0`, `a/b` and `a`."""
    registry = await opens()
    async with asyncio.timeout(5), AsyncExitStack() as stack:
        for name in ("a", "a#0", "a/b", "b"):
            await stack.enter_async_context(lock(registry, name))


async def test_a_semaphore_lets_so_many_in_and_no_more(opens: Opens):
    """Each on a slot of its own."""
    async with asyncio.timeout(5), semaphore(await opens(), "x", 2) as one, semaphore(await opens(), "x", 2) as two:
        assert {0, 1} == {one.slot, two.slot}
        with pytest.raises(Conflict):
            async with semaphore(await opens(), "x", 2, wait_s=0.5):
                pass


async def test_a_lost_session_loses_the_lock_and_the_next_token_is_higher(opens: Opens, place: str):
    """The holder is told; who comes next waits first, then has it with a higher token."""
    first, second = await opens(), await opens()
    async with lock(first, "x") as held:
        contender = asyncio.create_task(hold_once(second, "x"))
        await asyncio.sleep(0.05)
        cluster(place).expire(first.store)
        async with asyncio.timeout(3):
            await held.lost.wait()

        with pytest.raises(Conflict, match="no longer held"):
            held.check()
        assert held.fence < await contender


async def hold_once(registry: ComposedRegistry, name: str) -> int:
    async with lock(registry, name) as held:
        return held.fence


async def test_a_registry_out_of_sight_for_a_while_loses_nothing(opens: Opens, place: str):
    """Shorter than the lease: the same token goes on."""
    registry = await opens()
    async with lock(registry, "x") as held:
        cluster(place).stop()
        await asyncio.sleep(0.3)
        cluster(place).start()
        await asyncio.sleep(0.3)

        held.check()
        assert not held.lost.is_set()


async def test_a_lease_runs_out_when_the_registry_stays_away(opens: Opens, place: str, monkeypatch: pytest.MonkeyPatch):
    """Before the session can end."""
    monkeypatch.setattr(coordination, "LEASE_S", 0.5)
    monkeypatch.setattr(coordination, "RENEW_S", 0.1)
    monkeypatch.setattr(coordination, "ANSWER_S", 0.2)
    async with lock(await opens(), "x") as held:
        cluster(place).stop()
        try:
            async with asyncio.timeout(2):
                await held.lost.wait()
        finally:
            cluster(place).start()

        assert "not heard of" in held.why


async def test_who_was_elected_stands_again_when_it_is_lost(opens: Opens, place: str):
    """One leadership after the other, with rising tokens."""
    registry = await opens()
    async with asyncio.timeout(8), aclosing(elected(registry, "x")) as leaderships:
        first: Held = await anext(leaderships)
        cluster(place).expire(registry.store)
        await first.lost.wait()
        second = await anext(leaderships)

        assert first.fence < second.fence
        assert not second.lost.is_set()


async def test_a_barrier_opens_for_all_when_the_last_has_come(opens: Opens):
    """And stays open, also when those who came first have gone."""
    passed: list[int] = []

    async def come(number: int) -> None:
        await barrier(await opens(), "x", 3, identity=str(number))
        passed.append(number)

    early = [asyncio.create_task(come(number)) for number in (1, 2)]
    await asyncio.sleep(0.1)
    assert [] == passed

    async with asyncio.timeout(3):
        await asyncio.gather(come(3), *early)
        await come(4)

    assert [1, 2, 3, 4] == sorted(passed)


async def test_who_gives_up_waiting_at_a_barrier_counts_no_more(opens: Opens):
    """Two are needed; the first goes before the second comes."""
    registry = await opens()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await barrier(registry, "x", 2, identity="1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await barrier(registry, "x", 2, identity="2")


async def test_a_group_knows_who_is_there(opens: Opens):
    """Joined, ended, and gone with the session; identities may hold anything."""
    one, two = await opens(), await opens()
    async with asyncio.timeout(5), aclosing(Group(one, "g").members()) as looks:
        await anext(looks)
        first = await Group(one, "g").join("a/b", b"1")
        await Group(two, "g").join("c", b"2")
        assert {"a/b": b"1", "c": b"2"} == await anext(m async for m in looks if len(m) == 2)
        await first.end()
        assert {"c": b"2"} == await anext(m async for m in looks if len(m) == 1)
        await two.close()

        assert {} == await anext(m async for m in looks if not m)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\udc80"])
async def test_what_has_no_name_is_refused(opens: Opens, name: str):
    """A script's empty variable would be a lock that all scripts with that fault share."""
    registry = await opens()
    for wrong in (
        lock(registry, name).__aenter__(),
        anext(elected(registry, name)),
        barrier(registry, name, 1),
        barrier(registry, "x", 1, identity=name or " "),
        Group(registry, "x").join(name),
    ):
        with pytest.raises(Refused, match="name"):
            await wrong
    with pytest.raises(Refused, match="name"):
        Group(registry, name)

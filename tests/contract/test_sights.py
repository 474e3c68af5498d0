"""Watching the clocked tree and following folders, on every backend."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from fairlead_discovery import paths
from fairlead_discovery.adapters import zookeeper_store
from fairlead_discovery.registry import Create, Delete, Put, Sight

from .conftest import Backend
from .following import collecting


def node(service: str, number: int) -> str:
    return paths.member(service, f"member_t{number}_00000000")


def count(sight: Sight) -> int:
    return sum(len(nodes) for nodes in sight.folders.values())


async def test_a_sight_comes_at_once_and_after_each_change(backend: Backend):
    """First what is there, then what becomes of it, each with the revision it holds."""
    writer, reader = await backend.open(), await backend.open()
    first = await writer.commit([Create(node("s:a", 1), b"1")])

    async with collecting(reader.watch()) as sights:
        assert first == (await sights.until(lambda s: s.in_sight)).revision
        second = await writer.commit([Create(node("s:a", 2), b"2"), Put(paths.route("s:a"), b"r")])
        sight = await sights.until(lambda s: s.revision == second)
        assert {
            paths.endpoint_folder("s:a"): {"member_t1_00000000": b"1", "member_t2_00000000": b"2"},
            paths.ROUTES: {paths.escape("s:a"): b"r"},
        } == sight.folders
        third = await writer.commit([Delete(node("s:a", 1)), Delete(node("s:a", 2)), Put(paths.route("s:a"), b"R")])
        sight = await sights.until(lambda s: s.revision == third)

    assert {paths.ROUTES: {paths.escape("s:a"): b"R"}} == sight.folders


async def test_an_empty_commit_is_seen(backend: Backend):
    """Whoever waits for a revision gets it, though nothing else has changed."""
    writer, reader = await backend.open(), await backend.open()
    async with collecting(reader.watch()) as sights:
        await sights.until(lambda s: s.in_sight)
        revision = await writer.commit([])

        assert revision == (await sights.until(lambda s: s.revision >= revision)).revision


async def test_a_sight_says_when_its_revision_was_committed(backend: Backend):
    """By the registry's clock, which is this machine's here: name servers measure their way from it."""
    writer, reader = await backend.open(), await backend.open()
    async with collecting(reader.watch()) as sights:
        before_s = time.time()
        revision = await writer.commit([Create(node("s:when", 1), b"1")])
        seen = await sights.until(lambda s: s.revision >= revision)

    assert before_s - 1 <= seen.committed_s <= time.time() + 1


async def test_every_sight_holds_all_commits_up_to_its_revision(backend: Backend):
    """Under a storm of commits from two writers, and readers that come late."""
    writers = [await backend.open(), await backend.open()]
    reader = await backend.open()
    made: dict[int, str] = {}

    async def write(index: int) -> None:
        for number in range(120):
            path = node(f"s:{number % 7}", index * 1000 + number)
            made[await writers[index].commit([Create(path, b"x")])] = path
            await asyncio.sleep(0.001)

    async with collecting(reader.watch()) as sights:
        await asyncio.gather(write(0), write(1))
        last = max(made)
        await sights.until(lambda s: s.revision == last)
        seen = list(sights.all)

    assert len(seen) > 2
    for sight in seen:
        there = {f"{folder}/{name}" for folder, nodes in sight.folders.items() for name in nodes}
        assert {path for revision, path in made.items() if revision <= sight.revision} <= there
    assert all(a.revision <= b.revision for a, b in pairwise(seen))


async def test_what_leaves_is_never_seen_as_merely_gone(backend: Backend):
    """A member is taken away in the commit that writes its leaving record: no sight shows neither of them."""
    writer, reader = await backend.open(), await backend.open()
    tasks = range(60)
    await writer.commit([Create(node(f"s:{n % 3}", n), b"x") for n in tasks])

    async with collecting(reader.watch()) as sights:
        await sights.until(lambda s: count(s) == len(tasks))
        for n in tasks:
            await writer.commit([Delete(node(f"s:{n % 3}", n)), Create(paths.leaving(f"t{n}"), b"x")])
        await sights.until(lambda s: len(s.folders.get(paths.LEAVING, ())) == len(tasks))
        seen = [s for s in sights.all if s.in_sight]

    for sight in seen:
        present = {n for folder, nodes in sight.folders.items() if folder != paths.LEAVING for n in nodes}
        leaving = sight.folders.get(paths.LEAVING, {})
        assert not [n for n in tasks if f"member_t{n}_00000000" not in present and f"t{n}" not in leaving]


async def test_unchanged_folders_are_the_same_objects(backend: Backend):
    """Readers find what changed by identity: also across a loss of sight."""
    writer, reader = await backend.open(), await backend.open()
    await writer.commit([Create(node("s:a", 1), b"1"), Create(node("s:b", 1), b"1")])
    async with collecting(reader.watch()) as sights:
        before = await sights.until(lambda s: count(s) == 2)
        await writer.commit([Create(node("s:b", 2), b"2")])
        after = await sights.until(lambda s: count(s) == 3)
        await backend.stop()
        await sights.until(lambda s: not s.in_sight)
        await backend.start()
        again = await sights.until(lambda s: s.in_sight)

    a = paths.endpoint_folder("s:a")
    assert before.folders[a] is after.folders[a]
    assert after.folders[a] is again.folders[a]


async def test_out_of_sight_the_last_sight_is_repeated(backend: Backend):
    """`in_sight` False with what was there; after the return everything that was missed."""
    writer, reader = await backend.open(), await backend.open()
    revision = await writer.commit([Create(node("s:a", 1), b"1")])
    async with collecting(reader.watch()) as sights:
        await sights.until(lambda s: count(s) == 1)
        await backend.stop()
        lost = await sights.until(lambda s: not s.in_sight)
        assert (revision, 1) == (lost.revision, count(lost))
        await backend.start()
        await sights.until(lambda s: s.in_sight)
        await writer.commit([Create(node("s:a", 2), b"2")])

        assert 2 == count(await sights.until(lambda s: count(s) == 2))


async def test_out_of_sight_from_the_first(backend: Backend):
    """A reader that starts while the registry is away says so, and sees it when it comes."""
    writer = await backend.open()
    await writer.commit([Create(node("s:a", 1), b"1")])
    await backend.stop()
    reader = await backend.open()

    async with collecting(reader.watch()) as sights:
        first = await sights.until(lambda s: not s.in_sight)
        assert (-1, {}) == (first.revision, first.folders)
        await backend.start()

        assert 1 == count(await sights.until(lambda s: s.in_sight))


async def test_a_followed_folder_tells_its_documents(backend: Backend):
    """Made, changed, removed, with versions; folders below it are no documents."""
    writer, reader = await backend.open(), await backend.open()
    folder = f"{paths.SERVICES}/apps"
    async with collecting(reader.follow(folder)) as documents:
        assert {} == await documents.until(lambda d: not d)
        await writer.write(f"{folder}/a", b"1")
        await writer.write(f"{folder}/b/c", b"below")
        await writer.write(f"{folder}/a", b"2")
        seen = await documents.until(lambda d: "a" in d and d["a"].version == 1)
        assert ({"a"}, b"2") == (set(seen), seen["a"].data)
        await writer.remove(f"{folder}/a")

        assert {} == await documents.until(lambda d: not d)


async def test_a_followed_folder_is_followed_through_a_restart(backend: Backend):
    """What changed after the return is told."""
    writer, reader = await backend.open(), await backend.open()
    folder = f"{paths.SERVICES}/apps"
    await writer.write(f"{folder}/a", b"1")
    async with collecting(reader.follow(folder)) as documents, collecting(writer.watch()) as sights:
        await documents.until(lambda d: "a" in d)
        await backend.stop()
        await sights.until(lambda s: not s.in_sight)
        await backend.start()
        await sights.until(lambda s: s.in_sight)
        await writer.write(f"{folder}/b", b"2")

        assert {"a", "b"} == set(await documents.until(lambda d: "b" in d))


async def test_services_that_come_and_go_are_not_lost(backend: Backend, monkeypatch: pytest.MonkeyPatch):
    """Folders are removed when they are empty, and made again: what a reader last sees is what was last written."""
    monkeypatch.setattr(zookeeper_store, "TIDY_S", 0.02)
    writers = [await backend.open() for _ in range(2)]
    reader = await backend.open()
    last: dict[str, bool] = {}
    history: list[tuple[int, str, bool]] = []

    async def write(index: int) -> None:
        mine = random.Random(index)
        for _ in range(200):
            path = node(f"s:{index}{mine.randrange(3)}", mine.randrange(2))
            present = not last.get(path, False)
            history.append((await writers[index].commit([Create(path) if present else Delete(path)]), path, present))
            last[path] = present
            await asyncio.sleep(0.005)

    async with collecting(reader.watch()) as sights:
        await sights.until(lambda s: s.in_sight)
        await asyncio.gather(write(0), write(1))
        await sights.until(lambda s: s.revision == max(history)[0])
        seen = list(sights.all)

    final = {path: (revision, present) for revision, path, present in sorted(history)}
    for sight in seen:
        there = {f"{folder}/{name}" for folder, nodes in sight.folders.items() for name in nodes}
        settled = {path: present for path, (revision, present) in final.items() if revision <= sight.revision}
        assert settled == {path: path in there for path in settled}


async def test_a_service_replaced_again_and_again_is_never_empty(backend: Backend):
    """A member that is listed may be gone when it is read: its successor is there, and must be seen."""
    writer, readers = await backend.open(), [await backend.open() for _ in range(3)]
    names = [f"member_t{n}_00000000" for n in range(300)]
    await writer.commit([Create(paths.member("s:a", names[0]), b"{}")])
    async with AsyncExitStack() as stack:
        sights = [await stack.enter_async_context(collecting(reader.watch())) for reader in readers]
        for seen in sights:
            await seen.until(lambda s: s.in_sight)
        for old, new in pairwise(names):
            await writer.commit([Create(paths.member("s:a", new), b"{}"), Delete(paths.member("s:a", old))])
        revision = await writer.commit([])
        for seen in sights:
            await seen.until(lambda s: s.revision == revision)

            assert {1} == {len(s.folders.get(paths.endpoint_folder("s:a"), ())) for s in seen.all if s.in_sight}


async def test_no_change_of_a_followed_document_is_lost(backend: Backend):
    """Also one that comes while other documents of the folder are still being read."""
    writer, reader = await backend.open(), await backend.open()
    folder, names = paths.PROGRESS, [f"b{n}" for n in range(20)]
    async with collecting(reader.follow(folder)) as documents:
        await documents.until(lambda d: not d)
        for step in range(25):
            for data in (b"first", b"then", b"%d" % step):
                await asyncio.gather(*(writer.write(f"{folder}/{name}", data) for name in names))
            await documents.until(
                lambda d, data=b"%d" % step: [data] * len(names) == [node.data for node in d.values()], within_s=5
            )

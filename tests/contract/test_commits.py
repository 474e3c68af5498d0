"""Commits, documents and revisions, on every backend."""

import asyncio

import pytest

from fairlead_daemon.errors import Conflict, Refused, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.registry import NEW, Create, Delete, Guard, Put

from .conftest import Backend
from .following import collecting

SERVICE = "marathon:/shop/web"
ODD = ("a/b%c", "ümlaut:ß", "..", "dots.and spaces", "a'b\"c", "😀")


def member(number: int, service: str = SERVICE) -> str:
    return paths.member(service, paths.member_name(f"t{number}", b"%d" % number))


async def test_revisions_are_unique_and_gapless(backend: Backend):
    """Three writers at once: every commit has a revision of its own, and none is left out."""
    writers = [await backend.open() for _ in range(3)]
    first = await writers[0].commit([])

    async def write(index: int) -> list[int]:
        return [await writers[index].commit([Create(member(index * 100 + n))]) for n in range(30)]

    revisions = await asyncio.gather(*map(write, range(3)))

    assert sorted(r for rs in revisions for r in rs) == list(range(first + 1, first + 91))
    assert all(rs == sorted(rs) for rs in revisions)


async def test_revision_goes_on_after_a_restart(backend: Backend):
    """What was committed is there after the registry was killed, and the clock goes on where it was."""
    registry = await backend.open()
    before = await registry.commit([Create(member(1), b"one")])

    await backend.stop()
    await backend.start()

    async with collecting(registry.watch()) as sights:
        await sights.until(lambda s: s.in_sight)
    assert before + 1 == await registry.commit([Create(member(2), b"two")])
    assert await registry.read(member(1))


async def test_a_refused_commit_leaves_nothing_done(backend: Backend):
    """Conflict: no change of it was made, and no revision spent."""
    registry = await backend.open()
    revision = await registry.commit([Create(member(1), b"one"), Put(paths.leaving("t9"), b"x")])

    with pytest.raises(Conflict, match="member_t1"):
        await registry.commit([Put(paths.leaving("t1"), b"x"), Delete(paths.leaving("t9")), Create(member(1))])
    with pytest.raises(Conflict, match="leaving/t7"):
        await registry.commit([Put(paths.leaving("t1"), b"x"), Delete(paths.leaving("t7"))])

    assert await registry.read(paths.leaving("t1")) is None
    assert await registry.read(paths.leaving("t9")) is not None
    assert revision + 1 == await registry.commit([])


@pytest.mark.parametrize("path", [paths.route(SERVICE), member(1), paths.leaving("t1")])
async def test_put_and_missing_ok_do_not_care_what_was_there(backend: Backend, path: str):
    """Put creates or replaces, a Delete with missing_ok of nothing is fine; operations see those before them."""
    registry = await backend.open()

    await registry.commit([Put(path, b"1"), Delete(paths.leaving("none"), missing_ok=True)])
    await registry.commit([Put(path, b"2")])
    await registry.commit([Delete(path, missing_ok=True), Create(path, b"3")])

    node = await registry.read(path)
    assert node is not None
    assert b"3" == node.data


async def test_a_guard_with_an_old_epoch_is_refused(backend: Backend):
    """A writer whose leadership has passed on can change nothing."""
    first, second = await backend.open(), await backend.open()
    async with collecting(first.campaign("master", b"1")) as one:
        old = (await one.until(lambda s: s.leading)).epoch
        assert await first.commit([Create(member(1))], guard=Guard("master", old))
    async with collecting(second.campaign("master", b"2")) as two:
        new = (await two.until(lambda s: s.leading)).epoch

        with pytest.raises(Conflict):
            await first.commit([Create(member(2))], guard=Guard("master", old))
        with pytest.raises(Conflict):
            await first.write(f"{paths.MASTER}/x", b"", guard=Guard("master", old))
        await second.commit([Create(member(2))], guard=Guard("master", new))

    assert new > old


async def test_a_guard_of_a_role_nobody_ever_led_is_refused(backend: Backend):
    """No leadership, no writing in its name."""
    registry = await backend.open()

    with pytest.raises(Conflict):
        await registry.commit([Create(member(1))], guard=Guard("nobody", registry.store.cluster.epoch_base))
    with pytest.raises(Conflict):
        await registry.commit([Create(member(1))], guard=Guard("nobody", 3))


async def test_documents_have_versions(backend: Backend):
    """0 when new, one more at each write; an expected version that is no longer there is a Conflict."""
    registry = await backend.open()
    path = f"{paths.SERVICES}/deep/er/document"

    assert [0, 1, 2] == [await registry.write(path, b"%d" % n) for n in range(3)]
    assert 3 == await registry.write(path, b"x", expect=2)
    with pytest.raises(Conflict):
        await registry.write(path, b"y", expect=2)
    with pytest.raises(Conflict):
        await registry.write(path, b"y", expect=NEW)
    with pytest.raises(Conflict):
        await registry.remove(path, expect=1)
    await registry.remove(path, expect=3)
    await registry.remove(path)
    assert 0 == await registry.write(path, b"again", expect=NEW)


async def test_documents_do_not_raise_the_revision(backend: Backend):
    """Only commits are counted."""
    registry = await backend.open()
    before = await registry.commit([])
    await registry.write(f"{paths.PROGRESS}/lb1", b"x")

    assert before + 1 == await registry.commit([])


async def test_clocked_paths_change_by_commit_only(backend: Backend):
    """A document there would change what readers see without their noticing."""
    registry = await backend.open()

    with pytest.raises(Refused, match="clocked"):
        await registry.write(member(1), b"x")


async def test_too_much_is_refused_with_its_size(backend: Backend):
    """A node over 512 KiB is named with its size, and nothing is done; the connection lives on."""
    registry = await backend.open()
    big = b"x" * (paths.NODE_LIMIT_BYTES + 1)

    with pytest.raises(Refused, match=r"member_t1_.*524289 bytes"):
        await registry.commit([Create(member(2), b"small"), Create(member(1), big)])
    with pytest.raises(Refused, match="524289 bytes"):
        await registry.write(f"{paths.SERVICES}/big", big)
    with pytest.raises(Refused, match="transaction"):
        await registry.commit([Create(member(n), big[:-1]) for n in range(3)])

    assert await registry.read(member(2)) is None
    await registry.write(f"{paths.SERVICES}/big", big[:-1])
    node = await registry.read(f"{paths.SERVICES}/big")
    assert node is not None
    assert big[:-1] == node.data


@pytest.mark.parametrize("path", ["", "no-slash", "/a//b", "/a/../b", "/a/", "/a\x00b", "/a\nb"])
async def test_what_is_no_path_is_refused(backend: Backend, path: str):
    """On the spot, and alike on every backend."""
    registry = await backend.open()

    with pytest.raises(Refused):
        await registry.write(path, b"")
    with pytest.raises(Refused):
        await registry.read(path)


async def test_names_of_any_text_come_back_whole(backend: Backend):
    """Slashes, percent signs, dots and other alphabets in service names, task ids and document names."""
    registry = await backend.open()
    async with collecting(registry.watch()) as sights:
        for name in ODD:
            await registry.commit([Create(paths.member(f"etl:{name}", paths.member_name(name, b"{}")), name.encode())])
            await registry.write(paths.below(paths.NAME_SERVERS, name), name.encode())
        sight = await sights.until(lambda s: len(s.folders) == len(ODD))

    seen = {paths.unescape(folder.rpartition("/")[2]): nodes for folder, nodes in sight.folders.items()}
    assert {f"etl:{name}" for name in ODD} == set(seen)
    for name in ODD:
        ((node_name, data),) = seen[f"etl:{name}"].items()
        assert (name, name.encode()) == (paths.task_of(node_name), data)
    async with collecting(registry.follow(paths.NAME_SERVERS)) as documents:
        nodes = await documents.until(lambda ns: len(ns) == len(ODD))
    assert {name: name.encode() for name in ODD} == {paths.unescape(n): node.data for n, node in nodes.items()}


async def test_out_of_sight_a_commit_is_unavailable(backend: Backend):
    """Not a word about what happened: the writer has to look."""
    registry = await backend.open()
    await registry.commit([])
    await backend.stop()

    with pytest.raises(Unavailable):
        await registry.commit([Create(member(1))])

    await backend.start()


async def test_the_tree_can_be_walked(backend: Backend):
    """Any path can be read raw, from the root down."""
    registry = await backend.open()
    await registry.commit([Create(member(1), b"one")])
    await registry.write("/mesos/x/y", b"z")

    names = await registry.tree.names("/")
    assert {"fairlead", "mesos"} <= set(names)
    assert ("y",) == await registry.tree.names("/mesos/x")
    assert () == await registry.tree.names("/mesos/none")
    assert await registry.tree.get("/mesos/none") is None
    assert (paths.escape(SERVICE),) == await registry.tree.names(paths.ENDPOINTS)

"""Nodes on ZooKeeper whose ACL does not let us read them: left out and named, and all the rest is read."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import pytest
from kazoo.client import KazooClient
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from fairlead_discovery import moving, paths
from fairlead_discovery.adapters import zookeeper_feeds, zookeeper_session
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.decisions.checking import problems
from fairlead_discovery.janitor import Janitor
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Cluster, Lease, decode, encode
from fairlead_discovery.registry import Create, Delete, Put
from fairlead_discovery.snapshots import Snapshot, Trust
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

from .conftest import OnZooKeeper, bare_store
from .following import Collected, collecting

OURS = paths.member("s:a", "member_t1_00000000")
CLOSED = paths.member("s:a", "member_t2_00000000")
OTHERS = paths.member("s:b", "member_t3_00000000")
LEAVING = paths.leaving("t4")
ROUTE = paths.route("s:c")
THEIRS = [make_digest_acl("somebody", "secret", all=True)]


@pytest.fixture
async def backend(contract_zookeeper: ZooKeeper) -> AsyncIterator[OnZooKeeper]:
    made = OnZooKeeper(contract_zookeeper)
    writer = await made.open()
    await writer.commit(
        [*(Create(path, b"{}") for path in (OURS, CLOSED, OTHERS)), Put(LEAVING, b"{}"), Put(ROUTE, b"{}")]
    )
    yield made
    await made.close()


def keeper(backend: OnZooKeeper) -> tuple[KazooClient, str]:
    """Somebody's own client, with the credentials of the closed nodes, and the chroot."""
    client = KazooClient(backend.server.hosts, auth_data=[("digest", "somebody:secret")])
    client.start()
    return client, bare_store(backend.opened[0]).full("")


def set_acl(backend: OnZooKeeper, acl: object, *closed: str) -> None:
    client, root = keeper(backend)
    try:
        for path in closed:
            client.set_acls(f"{root}{path}", acl)
    finally:
        client.stop()
        client.close()


async def read_again(seen: Collected[Snapshot], *bad: str) -> Snapshot:
    return await seen.until(lambda s: s.trust is Trust.LIVE and set(bad) == {p for p in s.bad if "NoAuth" in s.bad[p]})


async def test_what_is_closed_is_left_out_and_named(
    backend: OnZooKeeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A member, a service's folder, a leaving record, a route; each warned of once, and read again once it is open."""
    monkeypatch.setattr(zookeeper_feeds, "LOOK_AGAIN_S", 0.2)
    folder = paths.endpoint_folder("s:b")
    closed = (CLOSED, folder, LEAVING, ROUTE)
    set_acl(backend, THEIRS, *closed)
    reader = await backend.open()

    async with collecting(snapshots(reader)) as seen, collecting(reader.watch()) as sights:
        await read_again(seen, *closed)
        sight = await sights.until(lambda s: s.in_sight)
        revision = await backend.opened[0].commit([Put(paths.route("s:d"), b"{}")])
        await seen.until(lambda s: s.revision == revision and s.trust is Trust.LIVE)

        assert {paths.endpoint_folder("s:a"): {OURS.rpartition("/")[2]: b"{}"}} == {
            path: dict(nodes) for path, nodes in sight.folders.items() if nodes
        }
        warned = [r for r in caplog.records if "not readable" in r.getMessage()]
        assert len(closed) == len(warned)

        set_acl(backend, OPEN_ACL_UNSAFE, *closed)
        await read_again(seen)
        await sights.until(lambda s: len(s.folders.get(folder, {})) == 1 and len(s.folders[paths.ROUTES]) == 2)


async def test_a_check_names_what_is_closed(backend: OnZooKeeper):
    """Documents too; it repairs none of it."""
    document = paths.below(paths.APPS, "a")
    await backend.opened[0].write(document, b"{}")
    set_acl(backend, THEIRS, CLOSED, document)
    reader = await backend.open(follow=False)
    reader.store.admin = True

    image = await moving.image_of(reader, lambda *_: None)
    found = {p.path: p for p in problems(image, now_s=time.time()) if "NoAuth" in p.what}

    assert {CLOSED, document} == found.keys()
    assert not any(problem.repair for problem in found.values())


@pytest.mark.parametrize("path", [paths.CLUSTER, paths.REVISION, paths.ENDPOINTS, paths.ROUTES])
async def test_what_all_depends_on_is_out_of_sight(backend: OnZooKeeper, path: str, caplog: pytest.LogCaptureFixture):
    """With its path as the reason, in the log too; open again, it is read."""
    set_acl(backend, THEIRS, path)
    reader = await backend.open()
    async with collecting(snapshots(reader)) as seen:
        found = await seen.until(lambda s: path in s.why)

        assert Trust.STALE is found.trust
        assert "WARNING" in {r.levelname for r in caplog.records if path in r.getMessage() + str(vars(r))}

        set_acl(backend, OPEN_ACL_UNSAFE, path)
        await seen.until(lambda s: s.trust is Trust.LIVE)


async def test_a_followed_folder_leaves_out_what_is_closed(backend: OnZooKeeper):
    """Documents are followed on."""
    writer = backend.opened[0]
    one, two = paths.below(paths.APPS, "a"), paths.below(paths.APPS, "b")
    await writer.write(one, b"{}")
    await writer.write(two, b"{}")
    set_acl(backend, THEIRS, one)
    reader = await backend.open()

    async with collecting(reader.follow(paths.APPS)) as seen:
        await seen.until(lambda nodes: {"b"} == nodes.keys())


async def test_who_withdraws_a_services_last_member_and_leaves_takes_the_folder_away(backend: OnZooKeeper):
    """Nobody else may be there to do it; one who knew the folder makes it again."""
    leaving, other = await open_registry(backend.url), backend.opened[0]
    await leaving.commit([Delete(OTHERS)])
    await leaving.close()

    assert (paths.escape("s:a"),) == await other.tree.names(paths.ENDPOINTS)

    await other.commit([Create(OTHERS, b"{}")])
    assert await other.read(OTHERS)


async def test_an_import_under_way_is_no_alarm_until_it_takes_too_long(
    backend: OnZooKeeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Whoever goes along with a copy comes before its end; one that was killed is to be run again."""
    caplog.set_level("INFO")
    node = await backend.opened[0].read(paths.CLUSTER)
    assert node
    record = decode(Cluster, node.data, place=paths.CLUSTER)
    await backend.opened[0].write(paths.CLUSTER, encode(msgspec.structs.replace(record, importing="a file")))
    caplog.clear()
    await backend.open()
    await eventually("it is told", lambda: told(caplog, "under way"))
    assert "not usable" not in caplog.text

    monkeypatch.setattr(zookeeper_session, "UNDER_WAY_S", 0.0)
    await eventually("the alarm", lambda: told(caplog, "not usable"))


async def told(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return words in caplog.text


async def test_a_closed_service_keeps_the_janitor_from_no_other(backend: OnZooKeeper):
    """Announcers of four services die at once; one of the services is not ours to change."""
    writer, dying = backend.opened[0], await open_registry(backend.url)
    services = [f"static:{name}" for name in "abcd"]
    for service in services:
        tasks = [paths.announced_task(service, number) for number in "12"]  # the second's lease stays
        await writer.commit([Create(paths.member(service, paths.member_name(task, b"{}")), b"{}") for task in tasks])
        lease = Lease(task=tasks[0], service=service)
        await dying.announce(paths.below(paths.ANNOUNCED, tasks[0]), encode(lease))
        await writer.write(paths.below(paths.ANNOUNCED, tasks[1]), encode(Lease(task=tasks[1], service=service)))
    set_acl(backend, THEIRS, paths.endpoint_folder(services[-1]))
    task = asyncio.create_task(Janitor(writer).run())

    async with collecting(writer.follow(paths.ANNOUNCED)) as leases:
        await leases.until(lambda nodes: len(nodes) == 8)
        await asyncio.sleep(0.5)  # the janitor, on the same session, has them too
        await dying.close()
        for service in services[:-1]:
            left = partial(one_is_left, writer, paths.endpoint_folder(service))
            await eventually(service, left, within_s=30)
    task.cancel()


async def one_is_left(registry: ComposedRegistry, folder: str) -> bool:
    return len(await registry.tree.names(folder)) == 1

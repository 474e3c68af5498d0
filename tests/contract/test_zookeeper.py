"""What only the ZooKeeper backend does."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from kazoo.exceptions import NotEmptyError, SystemZookeeperError

import fairlead_discovery
from fairlead_daemon.errors import BadSettings, Conflict, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.adapters import zookeeper, zookeeper_bulk, zookeeper_store
from fairlead_discovery.adapters.zookeeper_place import parse_place
from fairlead_discovery.backends import check_url
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Cluster, decode, encode
from fairlead_discovery.registry import Create, Put, Sight
from fairlead_discovery.snapshots import Trust
from harness.zookeeper import ZooKeeper

from .conftest import OnZooKeeper, bare_store
from .following import Collected, collecting


@pytest.fixture
async def backend(contract_zookeeper: ZooKeeper):
    made = OnZooKeeper(contract_zookeeper)
    yield made
    await made.close()


async def test_the_revision_goes_on_through_a_rebase(backend: OnZooKeeper, monkeypatch: pytest.MonkeyPatch):
    """Before a version is full the base takes it over: revisions stay unique and gapless, and no reader sees one go back."""
    monkeypatch.setattr(zookeeper_store, "REBASE_AT", 20)
    writers = [await backend.open(), await backend.open()]
    reader = await backend.open()

    async def write(index: int) -> list[int]:
        revisions = []
        for n in range(60):
            revisions.append(await writers[index].commit([Put(paths.route(f"s:{index}"), b"%d" % n)]))
            await asyncio.sleep(0.003)
        return revisions

    async with collecting(reader.watch()) as sights:
        await sights.until(lambda s: s.in_sight)
        made = sorted(r for rs in await asyncio.gather(write(0), write(1)) for r in rs)
        await sights.until(lambda s: s.revision == made[-1])
        seen = [s.revision for s in sights.all if s.in_sight]

    assert list(range(made[0], made[0] + 120)) == made
    assert sorted(seen) == seen
    node = await reader.read(paths.CLUSTER)
    assert node is not None
    assert decode(Cluster, node.data, place="").base > 20


async def test_a_tree_removed_by_hand_is_held(backend: OnZooKeeper):
    """`deleteall /fairlead` in somebody's shell: another cluster is made in its place, and readers hold what they had."""
    writer, reader = await backend.open(), await backend.open()
    revision = await writer.commit(
        [Create(paths.member("s:a", "member_t1_00000000"), b"{}"), Put(paths.route("s:a"), b"{}")]
    )
    async with collecting(snapshots(reader)) as seen:
        await seen.until(lambda s: s.revision == revision and s.trust is Trust.LIVE)
        with suppress(NotEmptyError):  # a client makes the new cluster while the old one is still being removed
            store = bare_store(writer)
            await asyncio.to_thread(store.client._kazoo.delete, store.full(paths.ROOT), recursive=True)

        assert revision == (await seen.until(lambda s: s.trust is Trust.HELD)).revision

        with pytest.raises(Conflict, match="another cluster"):
            await writer.commit([])
        assert await writer.commit([])


async def test_a_foreign_schema_is_not_touched(backend: OnZooKeeper):
    """Neighbouring versions work together, others stay out of sight with the reason in the log."""
    first = await backend.open()
    await first.write(paths.CLUSTER, encode(Cluster(uuid="u", schema=9)))
    second = await backend.open()

    assert not second.store.connection.value.in_sight


@pytest.mark.parametrize(
    "place",
    [
        "",
        "host",
        "host:port",
        "host:70000",
        "h:1,,h:2",
        "h:1/a//b",
        "h:1/../b",
        "u:p@h:1",
        "h:1?colour=red",
        "h:1?auth=",
        "h:1?readers=none",
        "h:1?cert=/c",
    ],
)
def test_bad_places_are_named(place: str):
    """At the start, naming the key."""
    with pytest.raises(BadSettings, match="registry"):
        parse_place(check_url(f"zk://{place}")[1])


def test_kazoo_is_imported_in_one_file():
    """Its threads end there."""
    package = Path(fairlead_discovery.__file__).parent
    importing = {p.name for p in package.rglob("*.py") if "kazoo" in p.read_text() and "from kazoo" in p.read_text()}

    assert {"zookeeper.py"} == importing


async def test_many_nodes_are_read_in_one_request(backend: OnZooKeeper):
    """Each with its data, or none: no such node."""
    writer = await backend.open()
    made = [Create(paths.member("s:a", f"member_t{n}_00000000"), b"%d" % n) for n in range(300)]
    await writer.commit(made)
    store = bare_store(writer)
    asked = [*(change.path for change in made), paths.member("s:a", "none"), paths.ENDPOINTS]

    found = await store.client.get_many([store.full(path) for path in asked])

    assert [*(b"%d" % n for n in range(300)), None, b""] == found


async def test_a_server_that_cannot_read_many_is_read_one_by_one(backend: OnZooKeeper, monkeypatch: pytest.MonkeyPatch):
    """One before ZooKeeper 3.6: it refuses a request it does not know, and closes the connection."""
    monkeypatch.setattr(zookeeper_bulk, "READ_MANY", 99)
    writer, reader = await backend.open(), await backend.open()
    await writer.commit([Create(paths.member("s:a", f"member_t{n}_00000000"), b"%d" % n) for n in range(200)])

    async with collecting(reader.watch()) as sights:
        sight = await sights.until(lambda s: sum(map(len, s.folders.values())) == 200)

    assert {b"%d" % n for n in range(200)} == set(sight.folders[paths.endpoint_folder("s:a")].values())


async def seen(sights: Collected[Sight], count: int) -> None:
    await sights.until(lambda s: s.in_sight and len(s.folders.get(paths.endpoint_folder("s:a"), {})) == count)


def added(number: int) -> list[Create]:
    return [Create(paths.member("s:a", f"member_t{number}_00000000"), b"%d" % number)]


async def test_a_folder_among_the_members_stops_no_reader(backend: OnZooKeeper):
    """Somebody's node that only holds others: it stands there as what cannot be read, and the rest is read."""
    writer, reader = await backend.open(), await backend.open()
    await writer.commit(added(1))
    store = bare_store(writer)
    stray = store.full(f"{paths.endpoint_folder('s:a')}/stray")
    await store.client.create(stray)
    await store.client.create(f"{stray}/below")

    async with collecting(reader.watch()) as sights:
        await seen(sights, 2)
        await writer.commit(added(2))
        await seen(sights, 3)


async def test_an_error_that_nobody_expects_stops_no_reader(backend: OnZooKeeper, monkeypatch: pytest.MonkeyPatch):
    """One reading fails in a way of its own: it is told, and tried again."""
    writer, reader = await backend.open(), await backend.open()
    client = bare_store(reader).client
    read, failed = client.get_many, asyncio.Event()

    async def fail_once(asked: Sequence[str]) -> Sequence[bytes | None]:
        if not failed.is_set():
            failed.set()
            raise ValueError("of a kind of its own")
        return await read(asked)

    monkeypatch.setattr(client, "get_many", fail_once)
    async with collecting(reader.watch()) as sights:
        await writer.commit(added(1))
        await seen(sights, 1)

    assert failed.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the break-down itself
async def test_a_client_that_breaks_down_is_replaced(backend: OnZooKeeper, monkeypatch: pytest.MonkeyPatch):
    """An answer it cannot read, as an error it does not know, ends kazoo's thread for good. The first in its place fails."""
    writer, reader = await backend.open(), await backend.open()
    client = bare_store(reader).client
    begin, failed = client._begin, asyncio.Event()

    def fail_once() -> None:
        if failed.is_set():
            begin()
        else:
            failed.set()
            raise BadSettings("registry: the key is just being replaced")

    monkeypatch.setattr(client, "_begin", fail_once)
    broken = client._kazoo._connection  # no server can be made to send such an answer

    def cannot_read(*_: object) -> None:
        raise RuntimeError("Invalid error code")

    async with collecting(reader.watch()) as sights:
        await writer.commit(added(1))
        await seen(sights, 1)
        monkeypatch.setattr(broken, "_read_response", cannot_read)
        monkeypatch.setattr(broken, "_read_watch_event", cannot_read)
        await writer.commit(added(2))
        await sights.until(lambda s: s.in_sight and len(s.folders[paths.endpoint_folder("s:a")]) == 2, within_s=30)

    assert failed.is_set()


async def test_an_error_of_a_server_in_trouble_is_no_answer(backend: OnZooKeeper):
    """Whoever asks is used to that: announcements and candidacies go on."""
    client = bare_store(await backend.open()).client

    def troubled() -> object:
        result = client._handler.async_result()
        result.set_exception(SystemZookeeperError())
        return result

    with pytest.raises(Unavailable, match="SystemZookeeperError"):
        await client._call(troubled)


async def test_an_answer_counts_though_we_were_busy_when_it_came(monkeypatch: pytest.MonkeyPatch):
    """The loop decoded 100,000 nodes, and finds the answer and the end of its time at once."""
    monkeypatch.setattr(zookeeper, "ASK_S", 0.01)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()
    waiting = asyncio.create_task(zookeeper.answered(future))
    await asyncio.sleep(0)
    loop.call_soon_threadsafe(future.set_result, "answer")
    time.sleep(0.1)  # noqa: ASYNC251  # the loop is busy

    assert await waiting == "answer"


async def test_no_answer_is_no_answer(monkeypatch: pytest.MonkeyPatch):
    """The time is up."""
    monkeypatch.setattr(zookeeper, "ASK_S", 0.01)

    with pytest.raises(TimeoutError):
        await zookeeper.answered(asyncio.get_running_loop().create_future())

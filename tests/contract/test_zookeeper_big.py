"""What others made on ZooKeeper with very long names, or much data, is read in requests that it takes."""

from collections.abc import AsyncIterator, Sequence

import pytest
from kazoo.client import KazooClient

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.adapters.zookeeper_folders import CHUNK_BYTES, Members, chunks
from fairlead_discovery.registry import Create
from harness.zookeeper import ZooKeeper

from .conftest import OnZooKeeper, bare_store
from .following import collecting

FOLDER = paths.endpoint_folder("s:a")


@pytest.fixture
async def backend(contract_zookeeper: ZooKeeper) -> AsyncIterator[OnZooKeeper]:
    made = OnZooKeeper(contract_zookeeper)
    yield made
    await made.close()


async def test_130_names_of_8_kilobytes_are_read(backend: OnZooKeeper):
    """All in one request would be over ZooKeeper's 1 MiB, and the connection lost again and again."""
    writer = await backend.open()
    await writer.commit([Create(f"{FOLDER}/member_t1_00000000", b"{}")])
    names = [f"member_{index:04}{'x' * 8300}_00000000" for index in range(130)]
    client = KazooClient(backend.server.hosts)
    client.start()
    try:
        for name in names:
            client.create(f"{bare_store(writer).full(FOLDER)}/{name}", b"{}")
    finally:
        client.stop()
        client.close()
    reader = await backend.open()

    async with collecting(reader.watch()) as sights:
        await sights.until(lambda s: s.in_sight and len(s.folders.get(FOLDER, {})) == 131)


async def test_a_name_over_a_kilobyte_is_refused(backend: OnZooKeeper):
    """Before it is sent; with its length."""
    writer = await backend.open()

    with pytest.raises(Refused, match="1050 bytes"):
        await writer.commit([Create(f"{FOLDER}/{'x' * 1050}", b"{}")])


@pytest.mark.parametrize("length", [1, 1000, 9000, CHUNK_BYTES])
def test_chunks_hold_every_name_once_within_the_limits(length: int):
    """In count and bytes; what is too long by itself stands alone."""
    names = [f"{index:04}{'x' * length}" for index in range(300)]

    parts = [*chunks(names, most=128, around_bytes=100)]

    assert names == [name for part in parts for name in part]
    assert all(len(p) <= 128 and (len(p) == 1 or len(p) * (length + 104) <= CHUNK_BYTES) for p in parts)


class Narrow:
    """A feed that gives no answer to more than five at once, and none about more than it was asked."""

    names = tuple(f"member_{index}_00000000" for index in range(40))

    async def children(self, _folder: str, _watch: object) -> tuple[str, ...]:
        return self.names

    async def many(self, asked: Sequence[str]) -> Sequence[bytes]:
        if len(asked) > 5:
            raise Unavailable("ConnectionLoss")
        return [b"{}"] * len(asked)


class Heavy(Narrow):
    """Members of 400 KB each; `most` is what was in one answer."""

    names = tuple(f"member_{index}_00000000" for index in range(400))
    data = bytes(400_000)
    most = 0

    async def many(self, asked: Sequence[str]) -> Sequence[bytes]:
        self.most = max(self.most, len(self.data) * len(asked))
        return [self.data] * len(asked)


async def test_big_members_are_asked_for_few_at_a_time():
    """128 of 500 KB in one answer, and a ZooKeeper with a small heap dies of it."""
    feed = Heavy()
    members = Members(feed, FOLDER, lambda: None)  # type: ignore[arg-type]  # documents are not read here
    await members.read_names()

    assert await members.read_nodes()
    assert set(Heavy.names) == members.data.keys()
    assert feed.most < 8_000_000


async def test_after_no_answer_fewer_are_asked_for():
    """Half as many each time, until the answer is not too much."""
    members = Members(Narrow(), FOLDER, lambda: None)  # type: ignore[arg-type]  # documents are not read here
    await members.read_names()
    tries = 0
    while not members.data:
        tries += 1
        try:
            assert await members.read_nodes()
        except Unavailable:
            assert tries < 10

    assert set(Narrow.names) == members.data.keys()

"""What befalls a ZooKeeper session, with a real server: credentials refused, the cluster's record changed under it."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from contract.conftest import OnZooKeeper, bare_store
from contract.following import collecting
from fairlead_discovery import paths
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.records import SCHEMA, Cluster, decode, encode
from fairlead_discovery.registry import Standing
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper


@pytest.fixture
async def backend(zookeeper: ZooKeeper) -> AsyncIterator[OnZooKeeper]:
    made = OnZooKeeper(zookeeper)
    yield made
    await made.close()


async def in_sight(registry: ComposedRegistry) -> bool:
    return registry.store.connection.value.in_sight


async def out_of_sight(registry: ComposedRegistry) -> bool:
    return not registry.store.connection.value.in_sight


async def leads(standings: Sequence[Standing]) -> bool:
    return standings[-1].leading


async def test_refused_credentials_are_tried_again(backend: OnZooKeeper):
    """kazoo gives up for good when a server refuses them; mended, we are back, in a new session, announced again."""
    owner, reader = await backend.open(), await backend.open()
    await owner.announce(f"{paths.AGENTS}/a1", b"1")
    before = owner.store.connection.value.session
    kazoo = bare_store(owner).client._kazoo
    kazoo.add_auth_async("nonsense", "x")

    async def back() -> bool:
        connection = owner.store.connection.value
        return connection.in_sight and connection.session != before

    await eventually("back in another session", back, within_s=30)
    async with collecting(reader.follow(paths.AGENTS)) as agents:
        await agents.until(lambda a: "a1" in a)


async def test_a_schema_raised_beyond_ours_puts_it_out_of_sight(backend: OnZooKeeper):
    """One further we go on with. Two further: we lead no more and write no more, until it is one we know."""
    leader, other = await backend.open(), await backend.open()
    node = await other.read(paths.CLUSTER)
    assert node is not None
    ours = decode(Cluster, node.data, place=paths.CLUSTER)

    path, kazoo = bare_store(other).full(paths.CLUSTER), bare_store(other).client._kazoo

    async def raise_to(schema: int) -> None:
        record = Cluster(uuid=ours.uuid, schema=schema, base=ours.base, epoch_base=ours.epoch_base)
        await asyncio.to_thread(kazoo.set, path, encode(record))

    async with collecting(leader.campaign("master", b"1")) as standings:
        epoch = (await standings.until(lambda s: s.leading)).epoch
        await raise_to(SCHEMA + 1)
        assert 0 < await leader.commit([])
        assert standings.all[-1].leading
        await raise_to(SCHEMA + 2)
        await standings.until(lambda s: not s.leading)
        await eventually("out of sight", lambda: out_of_sight(leader))
        await raise_to(SCHEMA)

        await eventually("leading again", lambda: leads(standings.all))
        assert epoch <= standings.all[-1].epoch
    await eventually("in sight again", lambda: in_sight(leader))

"""What operators say about services is part of every snapshot, clocked as routes are."""

from fairlead_discovery import paths
from fairlead_discovery.policies import Intentions, Share, Source, Split, of_kind, path_of
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Delete, Put

from .conftest import Backend

SPLIT = Split(service="marathon:/shop/web", shares=(Share(service="marathon:/shop/web2", percent=5),))
WHO = Intentions(service="marathon:/shop/web", default="deny", sources=(Source(name="marathon:/shop/front"),))


async def test_a_snapshot_of_a_revision_holds_the_policies_committed_with_it(backend: Backend):
    """Also in a registry that an older version made, which has no folder for them; a bad one is named, alone."""
    writer, reader = await backend.open(), await backend.open()
    await writer.remove(paths.POLICIES)
    bad = f"{paths.POLICIES}/split~x"
    wanted = await writer.commit([Put(path_of(SPLIT), encode(SPLIT)), Put(path_of(WHO), encode(WHO)), Put(bad, b"{}")])

    async for snapshot in snapshots(reader):
        if snapshot.revision >= wanted:
            break

    assert {SPLIT.service: SPLIT} == of_kind(snapshot.policies, Split)
    assert {WHO.service: WHO} == of_kind(snapshot.policies, Intentions)
    assert [bad] == list(snapshot.bad)

    gone = await writer.commit([Delete(path_of(SPLIT))])
    async for snapshot in snapshots(reader):
        if snapshot.revision >= gone:
            break

    assert {} == of_kind(snapshot.policies, Split)


async def test_a_record_of_another_kind_or_service_than_its_name_says_is_bad(backend: Backend):
    """It is named and stands for nothing, until it is written right."""
    writer, reader = await backend.open(), await backend.open()
    other = Intentions(service="marathon:/other")
    wrong = {path_of(WHO): encode(SPLIT), path_of(other): encode(WHO)}
    wanted = await writer.commit([Put(path, data) for path, data in wrong.items()])
    async for snapshot in snapshots(reader):
        if snapshot.revision >= wanted:
            break

    assert {} == snapshot.policies
    assert wrong.keys() == snapshot.bad.keys()
    assert snapshot.bad[path_of(WHO)].endswith("it holds what belongs under split~marathon:/shop/web")

    right = await writer.commit([Put(path_of(WHO), encode(WHO)), Delete(path_of(other))])
    async for snapshot in snapshots(reader):
        if snapshot.revision >= right:
            break

    assert ({WHO.service: WHO}, {}) == (of_kind(snapshot.policies, Intentions), snapshot.bad)

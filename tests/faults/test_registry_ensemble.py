"""Three ZooKeeper servers, killed, paused and cut off while one writes and others read.

Every reader ends equal to the registry, never saw a service empty, and never held: nothing was withdrawn.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from fairlead_daemon.errors import Conflict, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.reading import snapshots
from fairlead_discovery.records import Address, Member, TaskRef, encode
from fairlead_discovery.registry import Create, Delete
from fairlead_discovery.snapshots import Snapshot, Trust
from harness.ensemble import Bridged, on_bridge
from harness.waiting import eventually

SERVICES = [f"s:{n}" for n in range(8)]
EACH = 3
READERS = 3
PAUSE_S = 0.02
LONG_S = 5.0
"""Longer than the ensemble's own patience (3 s), shorter than a session."""


@pytest.fixture(scope="module")
def ensemble() -> Iterator[Bridged]:
    folder = Path(tempfile.mkdtemp(prefix="fe-", dir="/tmp"))
    with on_bridge(folder, 3) as made:
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def member(service: str, number: int) -> Create:
    task = TaskRef(id=f"{service[2:]}.{number}", name="web", framework="s", framework_id="f", agent="a")
    data = encode(Member(serviceEndpoint=Address(host="10.0.0.1", port=number), task=task, status="ALIVE"))
    return Create(paths.member(service, paths.member_name(task.id, data)), data)


class Writer:
    """Replaces one member after another; each commit leaves its service with EACH members."""

    def __init__(self, registry: ComposedRegistry) -> None:
        self.done = 0
        self.unknown = 0
        self._registry = registry
        self._next = 0

    async def fill(self) -> None:
        for service in SERVICES:
            await self._registry.commit([self._make(service) for _ in range(EACH)])

    async def run(self) -> None:
        while True:
            service = SERVICES[self._next % len(SERVICES)]
            try:
                names = await self._registry.tree.names(paths.endpoint_folder(service))
                assert len(names) == EACH
                await self._registry.commit([self._make(service), Delete(paths.member(service, names[0]))])
                self.done += 1
            except Conflict:  # an attempt of unknown outcome landed after we had read again
                continue
            except Unavailable:
                self.unknown += 1
            await asyncio.sleep(PAUSE_S)

    def _make(self, service: str) -> Create:
        self._next += 1
        return member(service, self._next)


class Reader:
    """Follows, and remembers what should never be seen."""

    def __init__(self, registry: ComposedRegistry) -> None:
        self.wrong: list[str] = []
        self.last: Snapshot | None = None
        self._registry = registry

    async def run(self) -> None:
        async for snapshot in snapshots(self._registry):
            if self.last is not None and snapshot.revision < self.last.revision:
                self.wrong.append(f"{self.last.revision} -> {snapshot.revision}")
            if snapshot.trust is Trust.HELD:
                self.wrong.append(snapshot.why)
            if snapshot.revision >= len(SERVICES):
                self.wrong += [s for s in SERVICES if len(snapshot.members.get(s, ())) < EACH]
            self.last = snapshot


async def stand(
    url: str, strike: Callable[[], None], mend: Callable[[], None], *, for_s: float, goes_on: bool = False
) -> int:
    """All of it: the fault comes, lasts, goes; then everything must be as if nothing had been.

    With `goes_on` it lasts until writing goes on in spite of it. Returns how many commits were done in its last second.
    """
    registries = [await open_registry(url) for _ in range(READERS + 1)]
    writer, readers = Writer(registries[0]), [Reader(registry) for registry in registries[1:]]
    async with AsyncExitStack() as stack:
        for registry in registries:
            stack.push_async_callback(registry.close)
        await eventually("a registry in sight", lambda: _commits(registries[0]), within_s=30)
        await writer.fill()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work.run()) for work in (writer, *readers)]
            await asyncio.sleep(0.5)
            await asyncio.to_thread(strike)
            if goes_on:
                await eventually(
                    "writing goes on in spite of it", lambda n=writer.done: _after(writer, n + 20), within_s=60
                )
            await asyncio.sleep(for_s - 1)
            done = writer.done
            await asyncio.sleep(1)
            in_the_end = writer.done - done
            await asyncio.to_thread(mend)
            done = writer.done
            await eventually("writing goes on", lambda: _after(writer, done + 20), within_s=40)
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
            revision = await eventually("a last commit", lambda: _commits(registries[0]), within_s=20)
            for reader in readers:
                await eventually("a reader at the last revision", lambda r=reader: _reached(r, revision), within_s=30)
            for task in tasks:
                task.cancel()
        truth = {s: set(await registries[0].tree.names(paths.endpoint_folder(s))) for s in SERVICES}
    for reader in readers:
        assert reader.last is not None
        assert truth == {service: set(members) for service, members in reader.last.members.items()}
    assert [[]] * READERS == [reader.wrong for reader in readers]
    return in_the_end


async def _commits(registry: ComposedRegistry) -> int:
    try:
        return await registry.commit([])
    except Unavailable as error:
        raise AssertionError(str(error)) from error


async def _after(writer: Writer, count: int) -> bool:
    return writer.done >= count


async def _reached(reader: Reader, revision: int) -> bool:
    return reader.last is not None and reader.last.revision >= revision and reader.last.trust is Trust.LIVE


async def test_the_leader_is_killed(ensemble: Bridged):
    """The two others elect another; it comes back as a follower."""
    leader = ensemble.leader()

    await stand(f"{ensemble.url}/{uuid4().hex}", leader.kill, leader.server.start, for_s=1, goes_on=True)
    ensemble.wait_whole()


async def test_the_leader_stands_still(ensemble: Bridged):
    """SIGSTOP for longer than the others wait: when it goes on it thinks for a moment that it leads."""
    leader = ensemble.leader()

    await stand(f"{ensemble.url}/{uuid4().hex}", leader.pause, leader.resume, for_s=LONG_S)
    ensemble.wait_whole()


async def test_a_follower_is_cut_off(ensemble: Bridged):
    """Its clients are told nothing; they look elsewhere within their session."""
    follower = ensemble.follower()

    await stand(
        f"{ensemble.url}/{uuid4().hex}", lambda: ensemble.cut(follower), lambda: ensemble.mend(follower), for_s=LONG_S
    )
    ensemble.wait_whole()


async def test_the_majority_is_cut_off(ensemble: Bridged):
    """Nobody may write or read until the lines are mended: readers keep what they have."""
    two = ensemble.members[:2]

    def cut() -> None:
        for member in two:
            ensemble.cut(member)

    def mend() -> None:
        for member in two:
            ensemble.mend(member)

    assert 0 == await stand(f"{ensemble.url}/{uuid4().hex}", cut, mend, for_s=LONG_S)
    ensemble.wait_whole()

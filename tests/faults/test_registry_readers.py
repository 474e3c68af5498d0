"""Many readers over many services that change without pause: all end equal, and none ever saw one empty that was not.

The soak is the issue's size; the ordinary test a tenth of it. On both real registries.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contract.conftest import Local
from fairlead_daemon.errors import Unavailable
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.registry import Create, Delete, Put
from harness.house import HARNESS
from harness.many_readers import CLOCK, LAST_S, digest
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

EACH = 2
A_SECOND = 100
BATCH = 50
AT_ONCE = 16
TOLD_EVERY = 10
"""So many commits apart the writer says what time it is."""
FOLLOWING_S = 120


def member(service: int, number: int) -> str:
    return paths.member(f"s:{service}", f"member_t{number}_00000000")


class Writer:
    """Each change replaces one of a service's members, or takes one away and brings it back later."""

    def __init__(self, registry: ComposedRegistry, services: int) -> None:
        self.unknown = 0
        """Commits whose answer did not come."""
        self.held = {service: [member(service, EACH * service + n) for n in range(EACH)] for service in range(services)}
        self._registry = registry
        self._number = EACH * services
        self._busy: set[int] = set()

    async def fill(self) -> None:
        everything = [path for members in self.held.values() for path in members]
        for start in range(0, len(everything), BATCH):
            await self._registry.commit([Create(path, b"{}") for path in everything[start : start + BATCH]])

    async def run(self, seconds: float) -> None:
        """At their pace, some at a time; of one service one after the other."""
        start_s = time.monotonic()
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for step in range(int(A_SECOND * seconds)):
                await asyncio.sleep(max(0.0, start_s + step / A_SECOND - time.monotonic()))
                await room.acquire()
                service = random.choice([s for s in self.held if s not in self._busy])
                self._busy.add(service)
                group.create_task(self._change(service, tells=step % TOLD_EVERY == 0, room=room))

    async def _change(self, service: int, *, tells: bool, room: asyncio.Semaphore) -> None:
        members = self.held[service]
        self._number += 1
        made = member(service, self._number)
        gone = [members.pop(0)] if len(members) > 1 or random.random() < 0.5 else []
        members.append(made)
        told = [Put(f"{paths.ROUTES}/{CLOCK}", b"%f" % time.monotonic())] if tells else []
        try:
            await self._registry.commit([Create(made, b"{}"), *map(Delete, gone), *told])
        except Unavailable:  # perhaps done: read again
            self.unknown += 1
            self.held[service] = await eventually("read again", lambda: self._read(service), within_s=60)
        self._busy.discard(service)
        room.release()

    async def _read(self, service: int) -> list[str]:
        folder = paths.endpoint_folder(f"s:{service}")
        try:
            return [f"{folder}/{name}" for name in await self._registry.tree.names(folder)]
        except Unavailable as error:
            raise AssertionError(str(error)) from error

    async def truth(self) -> Mapping[str, set[str]]:
        """What stands in the registry."""
        held = [await eventually("read", lambda s=service: self._read(s), within_s=60) for service in self.held]
        return {members[0].rpartition("/")[0]: {path.rpartition("/")[2] for path in members} for members in held}

    async def last(self) -> int:
        """The revision of an empty commit after all others."""
        try:
            return await self._registry.commit([])
        except Unavailable as error:
            raise AssertionError(str(error)) from error


class Process:
    """Some of the readers."""

    def __init__(self, url: str, readers: int, services: int, report: Path) -> None:
        self._report = report
        words = [sys.executable, "-m", "harness.many_readers", url, str(readers), str(services), str(report)]
        self._log = report.with_suffix(".log").open("wb")
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, cwd=HARNESS.parent
        )

    def wait_following(self) -> None:
        assert self.process.stdout is not None
        assert b"following\n" == self.process.stdout.readline()

    def end(self, revision: int) -> Sequence[Mapping[str, Any]]:
        """What each of them saw."""
        self.process.communicate(b"%d\n" % revision, timeout=LAST_S + 30)
        return json.loads(self._report.read_text())  # type: ignore[no-any-return]  # our own JSON

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._log.close()


async def stand(url: str, folder: Path, *, readers: Sequence[int], services: int, seconds: float) -> str:
    """`readers`: how many in each process. Returns a line about how late they were."""
    registry = await open_registry(url)
    writer = Writer(registry, services)
    await writer.fill()
    processes = [Process(url, count, services, folder / f"report{n}") for n, count in enumerate(readers)]
    try:
        async with asyncio.timeout(FOLLOWING_S):
            await asyncio.gather(*(asyncio.to_thread(process.wait_following) for process in processes))
        start_s = time.monotonic()
        await writer.run(seconds)
        took_s = time.monotonic() - start_s
        revision = await eventually("a last commit", writer.last, within_s=60)
        ends = await asyncio.gather(*(asyncio.to_thread(p.end, revision) for p in processes))
        ended_s = time.monotonic() - start_s - took_s
        truth = digest(await writer.truth())
    finally:
        for process in processes:
            process.kill()
        await registry.close()
    found = [reader for end in ends for reader in end]

    assert {revision} == {reader["revision"] for reader in found}
    assert {truth} == {reader["seen"] for reader in found}
    assert [[]] * sum(readers) == [reader["empty"] for reader in found]
    assert not any(reader["went_back"] for reader in found)
    middle, worst = (sorted(reader["late_s"][part] for reader in found if reader["late_s"]) for part in (0, 1))
    return (
        f"{sum(readers)} readers, {services} services: {A_SECOND * seconds / took_s:.0f} changes/s for {took_s:.0f} s, "
        f"equal {ended_s:.1f} s after the last; looks a second each {sum(r['looks'] for r in found) / len(found) / took_s:.1f}; "
        f"a change was seen after {middle[len(middle) // 2]:.2f} s (median reader's p50), {worst[-1]:.2f} s (worst reader's p99); "
        f"{writer.unknown} commits without an answer"
    )


@pytest.fixture(params=["local", "zookeeper"])
async def url(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[str]:
    if request.param == "zookeeper":
        server: ZooKeeper = request.getfixturevalue("zookeeper")
        yield f"{server.url}/{uuid4().hex}"
        return
    made = Local(short_dir)
    await made.start()
    yield made.url
    await made.close()


async def test_twenty_readers_end_equal(url: str, tmp_path: Path):
    """200 services, 100 changes a second."""
    print(await stand(url, tmp_path, readers=(10, 10), services=200, seconds=3))


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_two_hundred_readers_end_equal(url: str, tmp_path: Path):
    """1,000 services, 100 changes a second."""
    print(await stand(url, tmp_path, readers=[25] * 8, services=1000, seconds=120))

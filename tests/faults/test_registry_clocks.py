"""Clocks that jump by hours and days, of a registry's server, of lock holders and of readers: nobody goes by them."""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from contract.following import collecting
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.registry import Put
from faults.test_coordination import Arena, assert_one_at_a_time
from harness.clocks import Clock
from harness.house import HARNESS
from harness.servers import Server
from harness.waiting import eventually

JUMPS_S = (40 * 86400, -7200, 0)
EACH_S = 1.2
"""Sessions, leases and trust are looked at twice a second and more: what a jump broke would be broken by then."""


class Place:
    """A registry, two contenders for one lock, and a reader, each kind with a clock of its own."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.clocks = {name: Clock(folder / f"clock-{name}") for name in ("registry", "contenders", "reader")}
        self.arena = Arena(folder, backend)
        if self.arena.zookeeper:
            self.arena.url += f"/{uuid4().hex}"
        registry = self.clocks["registry"]
        self.arena.registry.env = registry.for_java() if self.arena.zookeeper else registry.for_python()
        self.arena.env = self.clocks["contenders"].for_python()
        self.reader = Server(
            [sys.executable, str(HARNESS / "telling_reader.py"), self.arena.url, str(folder / "kept")],
            log=folder / "reader.log",
            env=self.clocks["reader"].for_python(),
        )

    def told(self) -> list[list[str]]:
        """Time, trust, revision of each snapshot; log lines left out."""
        lines = [line.split() for line in self.reader.log.read_text().splitlines()]
        return [words for words in lines if len(words) == 3 and words[1] in {"live", "stale", "held"}]


@pytest.fixture(params=["local", "zookeeper"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    made = Place(folder, request.param)
    try:
        await asyncio.to_thread(made.arena.start_registry)
        yield made
    finally:
        made.reader.kill()
        made.arena.end()
        shutil.rmtree(folder, ignore_errors=True)


async def test_jumping_clocks_end_no_session_no_lock_and_no_trust(place: Place):
    """Forward forty days, back beyond the true time, and right again; first the server's, then holders' and readers'."""
    owner = await open_registry(place.arena.url)
    try:
        await owner.announce(f"{paths.AGENTS}/a1", b"1")
        for _ in range(2):
            place.arena.contend("elect", work_s=600)
        place.reader.start()

        async def lives() -> bool:
            return bool(place.arena.held()) and bool(place.told()) and place.told()[-1][1] == "live"

        await eventually("a holder and a reader", lives, within_s=60)
        await eventually("announced", lambda: owner.store.owned(paths.AGENTS), within_s=60)
        session = owner.store.connection.value.session
        fence = place.arena.held()[-1]
        before = len(place.told())
        async with collecting(owner.follow(paths.AGENTS)) as agents:
            for clocks in (("registry",), ("contenders", "reader")):
                for off_s in JUMPS_S:
                    for name in clocks:
                        place.clocks[name].jump(off_s)
                    revision = await owner.commit([Put(paths.route("s:a"), b"{}")])
                    await asyncio.sleep(EACH_S)
            assert all("a1" in seen for seen in agents.all)

        async def up_to_date() -> bool:
            return int(place.told()[-1][2]) >= revision

        await eventually("the reader has the last commit", up_to_date, within_s=20)
        after = place.told()[before:]
    finally:
        await owner.close()

    assert [fence] == place.arena.held()
    assert_one_at_a_time(place.arena)
    assert session == owner.store.connection.value.session
    assert "held" not in {trust for _, trust, _ in after}
    assert "live" == after[-1][1]
    assert any(abs(float(when) - time.time()) > 86400 for when, _, _ in after)  # the jumps were real

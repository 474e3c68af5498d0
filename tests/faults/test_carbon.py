"""A real carbon and the sender killed again and again: nothing accepted is lost, nothing is there twice or otherwise."""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import carbon_feeder
from harness.carbon import Carbon
from harness.servers import Server
from harness.waiting import wait_until

pytestmark = pytest.mark.needs("carbon-cache")
SETTLE_S = 5.0
PATHS = [carbon_feeder.path(n) for n in range(carbon_feeder.SERIES)]


class Feeder:
    def __init__(self, folder: Path, carbon: Carbon) -> None:
        self.log, self.spool = folder / "accepted", folder / "spool"
        self.first = int(time.time()) - 3600
        program = [sys.executable, carbon_feeder.__file__, str(self.spool), carbon.address, str(self.log)]
        self.server = Server([*program, str(self.first), str(SETTLE_S)], log=folder / "feeder.log")

    def accepted(self) -> list[int]:
        """Whole lines only."""
        return [int(line) for line in self.log.read_text().split("\n")[:-1]] if self.log.exists() else []

    def wait_for(self, more: int) -> None:
        goal = len(self.accepted()) + more
        wait_until(f"{more} more stamps are accepted", lambda: len(self.accepted()) >= goal, within_s=20)


@pytest.fixture
def carbon(short_dir: Path) -> Iterator[Carbon]:
    server = Carbon(short_dir / "carbon", updates_per_s="200").start()
    yield server
    server.stop()


@pytest.fixture
def feeder(short_dir: Path, carbon: Carbon) -> Iterator[Feeder]:
    process = Feeder(short_dir, carbon)
    yield process
    process.server.stop()


def expected(stamps: list[int]) -> dict[str, dict[int, float]]:
    return {path: {stamp: carbon_feeder.value(n, stamp) for stamp in stamps} for n, path in enumerate(PATHS)}


def check_whole(carbon: Carbon, feeder: Feeder) -> None:
    """The feeder has to run so that the rest arrives; what it accepts after the look is left out of it."""
    stamps = feeder.accepted()

    def arrived() -> bool:
        known = carbon.known(PATHS)
        missing = sum(len(points.keys() - known[path].keys()) for path, points in expected(stamps).items())
        assert missing == 0, f"{missing} of {len(stamps) * len(PATHS)} points are missing"
        return True

    wait_until("every accepted point is in carbon", arrived, within_s=60, every_s=0.5)
    known = carbon.known(PATHS)
    last = stamps[-1]

    assert list(range(feeder.first, last + 1)) == stamps
    assert expected(stamps) == {p: {t: v for t, v in points.items() if t <= last} for p, points in known.items()}


def test_points_outlive_kills_of_carbon(carbon: Carbon, feeder: Feeder):
    """Carbon dies with what it held in memory, four times, and stays away a while: every point is sent again."""
    feeder.server.start()
    for _ in range(4):
        feeder.wait_for(60)
        carbon.kill()
        feeder.wait_for(30)
        carbon.start()
    feeder.wait_for(30)

    check_whole(carbon, feeder)


def test_points_outlive_kills_of_the_sender(carbon: Carbon, feeder: Feeder):
    """`kill -9` at eight random moments, in the middle of an append or of sending: the spool goes on where it was."""
    chance = random.Random(7)
    for _ in range(8):
        feeder.server.start()
        feeder.wait_for(10)
        time.sleep(chance.random() * 0.05)
        feeder.server.kill()
    feeder.server.start()
    feeder.wait_for(10)

    check_whole(carbon, feeder)


def test_both_may_die_at_once(carbon: Carbon, feeder: Feeder):
    """Sender and carbon killed together, both with points in memory."""
    for _ in range(3):
        feeder.server.start()
        feeder.wait_for(50)
        carbon.kill()
        feeder.server.kill()
        carbon.start()
    feeder.server.start()
    feeder.wait_for(10)

    check_whole(carbon, feeder)


def test_what_carbon_has_written_leaves_the_spool(carbon: Carbon, feeder: Feeder):
    """The spool is empty again, but for the newest segments, once carbon has had a point for the settling time."""
    feeder.server.start()
    feeder.wait_for(50)
    first = min(p.name for p in feeder.spool.iterdir())

    wait_until(
        "the first segment is given up",
        lambda: first not in {p.name for p in feeder.spool.iterdir()},
        within_s=60,
        every_s=0.5,
    )
    check_whole(carbon, feeder)

"""Never two holders of a lock on three ZooKeeper servers that are paused, cut off from each other and from us, killed."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.test_coordination import Arena, assert_one_at_a_time, storm
from harness.ensemble import Bridged, on_bridge

QUIET = 0.2
"""So often a trouble that may come does come: one begins every ten seconds or so."""
LONGEST_S = 14.0
"""Longer than a session: what stood still comes back to find its session over."""


class OnEnsemble(Arena):
    """Each server has at most one trouble at a time; two at once take the majority away."""

    def __init__(self, folder: Path, ensemble: Bridged) -> None:
        self.prepare(folder)
        self.ensemble = ensemble
        self.url = ensemble.url
        self.mends: dict[int, tuple[float, Callable[[], object]]] = {}
        self.counted: dict[str, int] = {}

    def start_registry(self) -> None:
        """It runs."""

    def end_registry(self) -> None:
        self.calm()

    def trouble(self, chance: random.Random) -> None:
        self._mend(time.monotonic())
        well = [n for n in range(len(self.ensemble.members)) if n not in self.mends]
        if len(well) < 2 or chance.random() > QUIET:
            return
        number = chance.choice(well)
        server = self.ensemble.members[number]
        kind = chance.choice(["pause", "cut", "kill"])
        self.counted[kind] = self.counted.get(kind, 0) + 1
        until_s = time.monotonic() + chance.choice([0.5, 2.0, 5.0, LONGEST_S])
        match kind:
            case "pause":
                server.pause()
                self.mends[number] = (until_s, server.resume)
            case "cut":
                self.ensemble.cut(server)
                self.mends[number] = (until_s, lambda: self.ensemble.mend(server))
            case "kill":
                server.kill()
                self.mends[number] = (until_s, server.server.start)

    def calm(self) -> None:
        self._mend(float("inf"))

    def _mend(self, now_s: float) -> None:
        for number, (when_s, mend) in list(self.mends.items()):
            if when_s <= now_s:
                del self.mends[number]
                mend()


@pytest.fixture
def arena() -> Iterator[OnEnsemble]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    (folder / "work").mkdir()
    try:
        with on_bridge(folder / "z", 3) as ensemble:
            place = OnEnsemble(folder / "work", ensemble)
            try:
                yield place
            finally:
                place.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_long_storm_over_three_servers_never_makes_two_holders(arena: OnEnsemble):
    """Ten minutes: contenders killed and paused for longer than a session, servers paused, cut off and killed."""
    storm(arena, seconds=600, pauses_s=(0.5, 3.0, 12.0))
    held = arena.held()
    print(f"{len(held)} holders one after the other; troubles of servers: {arena.counted}")

    arena.wait_for_another(held[-1][0], within_s=60)
    assert len(held) > 20
    assert_one_at_a_time(arena)

"""Five ZooKeeper servers: any two may be lost at once, killed, paused or cut off, the leader among them."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from faults.test_registry_ensemble import LONG_S, stand
from harness.ensemble import Bridged, Member, on_bridge

pytestmark = pytest.mark.timeout(300)
Fault = tuple[Callable[[Member], object], Callable[[Member], object]]


@pytest.fixture(scope="module")
def five() -> Iterator[Bridged]:
    folder = Path(tempfile.mkdtemp(prefix="fe-", dir="/tmp"))
    with on_bridge(folder, 5) as made:
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def leader_and(ensemble: Bridged, count: int) -> Sequence[Member]:
    leader = ensemble.leader()
    return [leader, *[m for m in ensemble.members if m is not leader][:count]]


async def befall(
    five: Bridged, victims: Sequence[tuple[Member, Fault]], *, for_s: float = 1, goes_on: bool = False
) -> int:
    """Commits in the fault's last second."""

    def strike() -> None:
        for victim, (begin, _) in victims:
            begin(victim)

    def mend() -> None:
        for victim, (_, end) in victims:
            end(victim)

    done = await stand(f"{five.url}/{uuid4().hex}", strike, mend, for_s=for_s, goes_on=goes_on)
    five.wait_whole()
    return done


def kill() -> Fault:
    return (lambda m: m.kill(), lambda m: m.server.start())


def pause() -> Fault:
    return (lambda m: m.pause(), lambda m: m.resume())


async def test_the_leader_and_another_are_killed(five: Bridged):
    """Three of five go on: nothing is withdrawn, and writing goes on while both are away."""
    victims = [(member, kill()) for member in leader_and(five, 1)]

    await befall(five, victims, goes_on=True)


@pytest.mark.soak
async def test_one_is_killed_and_the_leader_stands_still(five: Bridged):
    """Three go on; the leader that was is told so when it wakes."""
    leader, other = leader_and(five, 1)

    await befall(five, [(leader, pause()), (other, kill())], goes_on=True)


@pytest.mark.soak
async def test_two_are_killed_and_one_stands_still(five: Bridged):
    """Two of five decide nothing: no commit is taken, readers keep what they have; then all of it goes on."""
    one, two, three = leader_and(five, 2)

    assert 0 == await befall(five, [(one, pause()), (two, kill()), (three, kill())], for_s=LONG_S)


@pytest.mark.soak
async def test_the_minority_is_cut_off(five: Bridged):
    """The leader on the wrong side of it: the three others elect another."""
    cut: Fault = (five.cut, five.mend)

    await befall(five, [(member, cut) for member in leader_and(five, 1)], goes_on=True)


@pytest.mark.soak
async def test_the_majority_is_cut_off(five: Bridged):
    """Nobody may write until the lines are mended."""
    cut: Fault = (five.cut, five.mend)

    assert 0 == await befall(five, [(member, cut) for member in leader_and(five, 2)], for_s=LONG_S)

"""The balancer that leads canaries: what it reads of all of them, and what it writes, on a registry."""

import itertools
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from fairlead_daemon.errors import Conflict
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.policies import AnyPolicy, Canary, CanaryStage, Target, name_of, path_of
from fairlead_discovery.records import Balancer, decode, encode
from fairlead_discovery.registry import Guard
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.canaries import ROLE, Canaries
from fairlead_lb.decisions.canary import Look, Watched
from fairlead_lb.decisions.windows import Counts
from fairlead_lb.state import State

_names = itertools.count()
CANARY = Canary(service="o:a", id="1", to=Target(service="o:b"), steps=(5, 100), every_s=1000, min_requests=10)


class Place:
    """A registry, and what the leader's controller knows."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.state = State()
        self.leader = Canaries(lambda: self.state, "lb-1")
        self.turns = itertools.count(1)

    def sees(self, *policies: AnyPolicy, revision: int = 1000, frozen: str = "") -> None:
        self.state.snapshot = Snapshot(revision=revision, trust=Trust.LIVE, policies={name_of(p): p for p in policies})
        self.state.frozen = frozen

    async def guard(self) -> Guard:
        async with aclosing(self.registry.campaign(ROLE, b"lb-1")) as standings:
            async for standing in standings:
                if standing.leading:
                    return Guard(ROLE, standing.epoch)
        raise AssertionError("nobody is elected")

    async def registered(self, *names: str) -> None:
        for name in names:
            place = paths.below(paths.BALANCERS, name)
            await self.registry.write(place, encode(Balancer(id=name, admin="", node=name.startswith("node"))))

    async def counted(self, name: str, requests: int, errors: int = 0, *, boot: str = "b") -> None:
        ports = {"o:a#0": Counts(requests=1000), "o:b#0": Counts(requests=requests, errors=errors)}
        said = Watched(boot=boot, turn=next(self.turns), ports=ports)
        await self.registry.write(paths.below(paths.WATCHED, name), encode(said))

    async def stage(self) -> CanaryStage | None:
        node = await self.registry.tree.get(path_of(CanaryStage(service="o:a", id="")))
        return decode(CanaryStage, node.data, place="stage") if node is not None else None

    async def look(self) -> Look:
        node = await self.registry.tree.get(paths.below(paths.CANARIES, "o:a"))
        assert node is not None
        return decode(Look, node.data, place="look")


@pytest.fixture
async def place():
    registry = await open_registry(f"memory:canaries-{next(_names)}")
    yield Place(registry)
    await registry.close()


STAGE = CanaryStage(service="o:a", id="1", percent=5)


async def test_it_begins_and_waits_until_its_word_is_in_sight(place: Place):
    """What it wrote is not judged before it is seen."""
    guard = await place.guard()
    place.sees(CANARY, revision=0)
    await place.leader.tick(place.registry, guard)
    begun = await place.stage()
    await place.leader.tick(place.registry, guard)

    assert begun is not None
    assert ("running", 5) == (begun.state, begun.percent)
    assert begun == await place.stage()


async def test_what_all_balancers_counted_aborts_it(place: Place):
    """Also when each alone saw too little, and when one was started anew meanwhile."""
    guard = await place.guard()
    await place.registered("lb-1", "lb-2")
    place.sees(msgspec.structs.replace(CANARY, max_5xx_percent=15), STAGE)
    await place.counted("lb-1", 500, 300)
    await place.counted("lb-2", 500)
    await place.leader.tick(place.registry, guard)
    await place.counted("lb-1", 4, 1, boot="c")
    await place.leader.tick(place.registry, guard)
    seen, before = await place.look(), await place.stage()
    await place.counted("lb-2", 506, 1)
    await place.leader.tick(place.registry, guard)
    aborted = await place.stage()

    assert before is None
    assert (4, 25.0) == (seen.canary_requests, seen.canary_5xx_percent)
    assert aborted is not None
    assert ("aborted", 0) == (aborted.state, aborted.percent)
    assert "2 of 10 answers were 5xx" in aborted.reason


async def test_a_registered_balancer_that_does_not_tell_is_named(place: Place):
    """Balancers of one machine are not waited for."""
    guard = await place.guard()
    await place.registered("lb-1", "lb-2", "node-7")
    await place.counted("lb-1", 0)
    place.sees(CANARY, STAGE)
    await place.leader.tick(place.registry, guard)

    assert "balancers do not tell what they see: lb-2" == (await place.look()).why
    assert await place.stage() is None


async def test_who_lost_the_lead_writes_nothing(place: Place):
    """Its late decision is refused by the registry."""
    place.sees(CANARY)
    with pytest.raises(Conflict):
        await place.leader.tick(place.registry, Guard(ROLE, 999))

    assert await place.stage() is None


async def test_out_of_sight_of_the_registry_nothing_is_decided(place: Place):
    """It holds, whatever it last saw."""
    guard = await place.guard()
    place.sees(CANARY, frozen="stale")
    await place.leader.tick(place.registry, guard)

    assert await place.stage() is None


async def test_a_balancers_unreadable_counts_are_as_if_it_were_silent(place: Place):
    """And keep nobody from deciding."""
    guard = await place.guard()
    await place.registered("lb-1")
    await place.registry.write(paths.below(paths.WATCHED, "lb-1"), b"{")
    place.sees(CANARY, STAGE)
    await place.leader.tick(place.registry, guard)

    assert "balancers do not tell what they see: lb-1" == (await place.look()).why

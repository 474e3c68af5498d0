"""The listing behind the HTTP watch API: what streams tell, put together again, is what there is."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.records_of import WEB, member
from fairlead_discovery import listing as module
from fairlead_discovery.adapters.listing_http import _All, _Some
from fairlead_discovery.decisions.listing import Told
from fairlead_discovery.decisions.mirror import Mirror
from fairlead_discovery.listing import EVERYTHING, Listing
from fairlead_discovery.records import Leaving, Member, Reason
from fairlead_discovery.snapshots import Snapshot, Trust

Members = Mapping[str, Mapping[str, Member]]
SERVICES = ("a:1", "a:2", "a:3", WEB)
LEFT = {
    f"t{n}": Leaving(task=f"t{n}", service="", member="", reason=Reason.KILL, deadline_s=0.0) for n in range(2)
}  # who goes, goes in order
CHANGES = st.tuples(st.sampled_from(SERVICES), st.sampled_from([0, 0, 1, 2]))
LISTENS = st.sampled_from(["listen", "listen", "broken off", "other server"])
STEPS = st.lists(st.one_of(CHANGES, LISTENS), min_size=4, max_size=20)


def changed(members: Members, service: str, count: int) -> Members:
    """The service has so many endpoints now; none of the others is another object."""
    rest = {name: those for name, those in members.items() if name != service}
    return {**rest, service: {f"m{n}": member(n) for n in range(count)}} if count else rest


async def heard(teller: Any, mirror: Mirror, *, pieces: int = 1000) -> None:
    """One turn of a stream; it may break off after so many pieces."""
    mirror.begin()
    async for told in teller.told():
        if not pieces:
            return
        pieces -= 1
        mirror.take(told, "" if told.more else teller.place, now_s=1.0)


def ports(members: Members) -> dict[str, list[int]]:
    return {service: sorted(m.serviceEndpoint.port for m in those.values()) for service, those in members.items()}


@settings(max_examples=250)
@given(
    remembered=st.sampled_from([0, 2, 100]),
    steps=STEPS,
    names=st.sampled_from([(), ("a:1", "web.marathon.mesos"), ("a:3",)]),
)
def test_whoever_listens_ends_with_what_there_is(remembered: int, steps: list[Any], names: tuple[str, ...]):
    """Through changes, interruptions in the middle, other servers, and services gone so long that they are forgotten."""

    async def run() -> None:
        members: Members = {}
        listing, mirror, revision = Listing(), Mirror(), 0
        listing.take(snapshot(0, members, leaving=LEFT))
        teller = fresh(listing, mirror, names)
        for step in steps:
            if step == "listen":
                await heard(teller, mirror)
            elif step == "broken off":
                await heard(teller, mirror, pieces=1)
                teller = fresh(listing, mirror, names)
            elif step == "other server":
                listing = Listing()
                listing.take(snapshot(revision, members, leaving=LEFT))
                teller = fresh(listing, mirror, names)
            else:
                members, revision = changed(members, *step), revision + 1
                listing.take(snapshot(revision, members, leaving=LEFT))
        await heard(teller, mirror)
        meant = listing.meant(names) if names else members.keys()

        assert ports({s: those for s, those in members.items() if s in meant}) == ports(mirror.snapshot.members)
        assert revision == mirror.snapshot.revision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REMEMBERED", remembered)
        patch.setattr("fairlead_discovery.adapters.listing_http.SLICE", 2)
        asyncio.run(run())


def fresh(listing: Listing, mirror: Mirror, names: tuple[str, ...]) -> Any:
    """A stream as a client opens it: with where it stopped, unless it is of some names."""
    return _Some(listing, names) if names else _All(listing, mirror.place)


def snapshot(revision: int, members: Members, **more: Any) -> Snapshot:
    return Snapshot(**{"revision": revision, "trust": Trust.LIVE, "members": members, **more})


@pytest.mark.parametrize(
    ("topic", "change", "woken"),
    [
        ("a:1", lambda m: changed(m, "a:1", 2), True),
        ("a:1", lambda m: changed(m, "a:2", 2), False),
        ("web.marathon.mesos", lambda m: changed(m, "a:1", 1), True),
        ("web-abcde-a1.marathon.mesos", lambda m: changed(m, "a:1", 1), True),
        ("other.marathon.mesos", lambda m: changed(m, "a:1", 1), False),
    ],
)
def test_those_are_woken_whom_a_change_concerns(
    topic: str, change: Callable[[Members], Members], woken: bool
):  # a table's column
    """By key, by every DNS name; thousands who wait for something else sleep on."""
    listing = Listing()
    listing.take(snapshot(1, {}))
    with listing.watching(listing.topics([topic])) as event, listing.watching((EVERYTHING,)) as every:
        listing.take(snapshot(2, change({})))

        assert (woken, True) == (event.is_set(), every.is_set())


def test_everybody_is_told_when_trust_changes():
    """And nobody when only the revision does."""
    listing = Listing()
    listing.take(snapshot(1, {}))
    with listing.watching(("a:1",)) as event:
        listing.take(snapshot(2, listing.snapshot.members))
        quiet = event.is_set()
        listing.take(snapshot(2, listing.snapshot.members, trust=Trust.STALE, why="out of sight", age_s=3.0))

        assert (False, True) == (quiet, event.is_set())
        assert listing.age_s >= 3.0


def test_nobody_who_left_is_remembered():
    """A million polls cost no memory."""
    listing = Listing()
    with listing.watching(("a:1", "a:2")), listing.watching(("a:1",)):
        pass

    assert {} == listing._waiting


def test_services_that_are_gone_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch):
    """Who comes back after that is told everything."""
    monkeypatch.setattr(module, "REMEMBERED", 2)
    listing = Listing()
    for n in range(10):
        listing.take(snapshot(2 * n, {f"x:{n}": {"m": member(n)}}))

    assert len(listing._changed) <= 4
    assert listing.forgotten > 0


def test_a_told_piece_reads_as_json_again():
    """Nothing of it is Python's alone."""
    listing = Listing()
    listing.take(snapshot(1, {WEB: {"m": member(1)}}))
    told = listing.telling([WEB, "x:gone"], whole=True)

    assert told == msgspec.json.decode(msgspec.json.encode(told), type=Told)

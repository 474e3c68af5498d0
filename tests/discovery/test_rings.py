"""Membership: joins and leaves that hand over before ownership moves; and the document in a registry."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from discovery.records_of import WEB, publish
from fairlead_daemon.errors import Conflict, FairleadError, Refused
from fairlead_discovery import rings as stored
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions import membership as m
from fairlead_discovery.decisions.membership import Membership, RingMember, State
from fairlead_discovery.decisions.service_names import Naming
from fairlead_discovery.registry import Registry

EMPTY = Membership(service="shop", slots=64, points=16, replicas=2)


def ring_of(*names: str) -> Membership:
    return replace(EMPTY, members=tuple(RingMember(name=name) for name in sorted(names)))


def test_the_first_member_owns_at_once():
    """There is nobody to hand over to it."""
    after = m.join(EMPTY, RingMember(name="a"))

    assert State.ACTIVE is m.find(after, "a").state
    assert ("a",) == m.rings(after).owners("key")


def test_who_joins_owns_nothing_until_it_is_ready():
    """Reads stay, writes go to both."""
    before = ring_of("a", "b", "c")
    joining = m.join(before, RingMember(name="d"))
    both = m.rings(joining)
    keys = [str(n) for n in range(200)]

    assert [m.rings(before).owners(key) for key in keys] == [both.owners(key) for key in keys]
    assert all({*both.owners(key), *both.next.owners(key)} == {*both.writers(key)} for key in keys)
    assert any("d" in both.writers(key) for key in keys)


def test_ownership_moves_when_all_who_gain_are_ready():
    """And not before."""
    leaving = m.leave(ring_of("a", "b", "c"), "c")
    waiting = m.ready(leaving, "a", version=leaving.version)
    done = m.ready(waiting, "b", version=leaving.version)

    assert ("a",) == waiting.ready
    assert m.find(waiting, "c").state is State.LEAVING
    assert ["a", "b"] == [member.name for member in done.members]
    assert not done.pending


def test_readiness_for_another_version_is_a_conflict():
    """What there is to copy has changed since."""
    joining = m.join(ring_of("a", "b", "c"), RingMember(name="d"))
    more = m.join(joining, RingMember(name="e"))

    with pytest.raises(Conflict, match="look again"):
        m.ready(more, "d", version=joining.version)


def test_nothing_to_copy_is_nothing_to_wait_for():
    """Each of the two others has every slot already."""
    after = m.leave(replace(ring_of("a", "b", "c"), replicas=3), "c")

    assert ["a", "b"] == [member.name for member in after.members]
    assert not after.pending


def test_the_last_member_does_not_leave():
    """Its data would go with it; removing says that this is meant."""
    with pytest.raises(Refused, match="last member"):
        m.leave(ring_of("a"), "a")

    assert () == m.remove(ring_of("a"), "a").members


def test_cancelling_brings_the_owners_back():
    """Join or leave, the ring is as it was."""
    before = ring_of("a", "b", "c")

    assert before.members == m.cancel(m.join(before, RingMember(name="d")), "d").members
    assert before.members == m.cancel(m.leave(before, "a"), "a").members


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r: m.join(r, RingMember(name="a")),
        lambda r: m.join(r, RingMember(name="")),
        lambda r: m.join(r, RingMember(name="z", weight=0)),
        lambda r: m.leave(r, "nobody"),
        lambda r: m.cancel(r, "a"),
        lambda r: m.weigh(r, "nobody", 2.0),
        lambda r: m.weigh(r, "a", 0.0),
        lambda r: m.weigh(r, "a", float("nan")),
        lambda r: m.weigh(m.leave(r, "a"), "a", 2.0),
        m.settle,
        lambda r: m.ready(r, "a", version=r.version),
    ],
)
def test_impossible_changes_are_refused(wrong):
    """With the ring's name, or the member's."""
    with pytest.raises((Refused, Conflict), match=r"ring"):
        wrong(ring_of("a", "b"))


def test_a_weight_changes_when_who_gains_is_ready():
    """The old one counts until then; nobody leaves, nobody joins."""
    before = ring_of("a", "b", "c", "d")
    weighed = m.weigh(before, "d", 3.0)
    both = m.rings(weighed)
    done = weighed
    for name in sorted(m.receivers(both)):
        done = m.ready(done, name, version=weighed.version)

    assert m.rings(before).use.table == both.use.table
    assert (True, before.version + 1) == (weighed.pending, weighed.version)
    assert (3.0, None, False) == (m.find(done, "d").weight, m.find(done, "d").next_weight, done.pending)
    assert both.next.table == m.rings(done).use.table


def test_a_weight_is_taken_back():
    """By cancelling, or by the old weight again; a member that joins has its new one at once."""
    before = ring_of("a", "b", "c")
    joining = m.join(before, RingMember(name="d"))

    assert before.members == m.cancel(m.weigh(before, "a", 2.0), "a").members
    assert before.members == m.weigh(m.weigh(before, "a", 2.0), "a", 1.0).members
    assert before is m.weigh(before, "a", 1.0)
    assert (2.0, None) == (
        m.find(m.weigh(joining, "d", 2.0), "d").weight,
        m.find(m.weigh(joining, "d", 2.0), "d").next_weight,
    )


@pytest.mark.parametrize("weight", [0.5, 2.0, 4.0])
def test_another_weight_moves_little_more_than_its_part(weight: float):
    """The difference of its fair shares, and the few percent that exact shares cost; a leave and a join move more."""
    ring = Membership(service="shop", members=tuple(RingMember(name=f"n{n}") for n in range(10)))
    both = m.rings(m.weigh(ring, "n3", weight))
    other = m.rings(m.join(m.leave(ring, "n3"), RingMember(name="other", weight=weight)))
    part = abs(weight / (9 + weight) - 1 / 10)

    assert part * ring.slots * 0.95 <= len(m.moves(both)) <= (part + 0.045) * ring.slots
    assert len(m.moves(both)) < len(m.moves(other))


names = st.sampled_from("abcd")
steps = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "remove", "cancel", "settle", "ready", "weigh"]), names), max_size=12
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_owners_change_only_when_everybody_who_gains_is_ready_or_a_person_says_so(course: list[tuple[str, str]]):
    """Whatever comes in whatever order: the version rises with the members, and joins and leaves keep all owners."""
    ring = ring_of("a", "b")
    for what, name in course:
        try:
            after = apply(ring, what, name)
        except FairleadError:
            continue
        both = m.rings(ring)
        if what in {"join", "leave", "weigh", "cancel"} and after.pending:
            assert both.use.table == m.rings(after).use.table
        if what == "ready" and after.version != ring.version:
            assert both.next.table == m.rings(after).use.table
        assert (after.members != ring.members) == (after.version > ring.version)
        assert any(member.state in m.IN_USE for member in after.members) or not after.members
        ring = after


def apply(ring: Membership, what: str, name: str) -> Membership:
    if what == "join":
        return m.join(ring, RingMember(name=name))
    if what == "ready":
        return m.ready(ring, name, version=ring.version)
    if what == "weigh":
        return m.weigh(ring, name, 2.0 if m.find(ring, name).coming_weight == 1.0 else 1.0)
    return m.settle(ring) if what == "settle" else getattr(m, what)(ring, name)


def test_moves_name_who_has_the_data():
    """Every receiver gets each slot from an owner in use."""
    both = m.rings(m.leave(ring_of("a", "b", "c", "d"), "b"))
    found = m.moves(both)

    assert found
    assert all(set(move.sources) == set(both.use.table[move.slot]) for move in found)
    assert all(move.receiver in both.next.table[move.slot] for move in found)


# --- in a registry


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    opened = await open_registry("memory:rings")
    yield opened
    await opened.close()


async def test_writers_at_the_same_time_lose_nothing(registry: Registry):
    """Ten members join at once; each is in."""
    await stored.create_ring(registry, replace(EMPTY, service="many"))
    joins = [
        stored.change_ring(registry, "many", lambda ring, n=n: m.join(ring, RingMember(name=f"n{n}"))) for n in range(8)
    ]
    await asyncio.gather(*joins)

    assert 8 == len((await stored.read_ring(registry, "many")).members)


async def test_a_follower_sees_every_settled_change(registry: Registry):
    """None first; a broken document changes nothing."""
    followed = stored.follow_ring(registry, "seen")
    async with asyncio.timeout(5):
        nothing = await anext(followed)
        await stored.create_ring(registry, replace(ring_of("a", "b"), service="seen"))
        made = await anext(followed)
        await registry.write("/fairlead/rings/seen", b"{broken")
        await registry.write("/fairlead/rings/seen", b'{"service":"seen","slots":64,"points":16,"version":7}')
        last = await anext(followed)
    await followed.aclose()

    assert nothing is None
    assert made is not None
    assert made.membership.members == ring_of("a", "b").members
    assert last is not None
    assert last.membership.version == 7


async def test_a_ring_is_made_once(registry: Registry):
    """And one that is not there is named."""
    await stored.create_ring(registry, replace(EMPTY, service="once"))

    with pytest.raises(Conflict, match="already"):
        await stored.create_ring(registry, replace(EMPTY, service="once"))
    with pytest.raises(Refused, match="no ring is called none"):
        await stored.read_ring(registry, "none")


@pytest.mark.parametrize("made", [WEB, "/shop/web", "web.marathon.example"])
async def test_a_ring_is_found_by_every_name_of_its_service(made: str):
    """By whichever it was made: its owners are the same for all, never those of the endpoints."""
    naming = Naming(domain="example")
    registry = await open_registry(f"memory:named-{made}")
    try:
        await registry.commit([publish(1)])
        await stored.create_ring(registry, replace(ring_of("a", "b"), service=made))
        await stored.create_ring(registry, replace(ring_of("c"), service="other"))
        for name in (WEB, "/shop/web", "web.marathon.example", "_web._tcp.marathon.example."):
            found = await stored.ring_or_endpoints(registry, name, naming=naming)
            assert (made, ["a", "b"]) == (found.service, [member.name for member in found.members])
            assert found == await stored.find_ring(registry, name, naming=naming)
    finally:
        await registry.close()


async def test_a_name_of_two_rings_is_refused(registry: Registry):
    """Both are named; each is had by its own name."""
    await registry.commit([publish(1)])
    for name in ("/shop/web", "web.marathon.mesos"):
        await stored.create_ring(registry, replace(ring_of("a"), service=name))

    with pytest.raises(Refused, match=r"several rings: /shop/web, web\.marathon\.mesos"):
        await stored.ring_or_endpoints(registry, WEB)
    with pytest.raises(stored.NoRing, match="no ring is called /none"):
        await stored.find_ring(registry, "/none")

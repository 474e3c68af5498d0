"""Parts and orders of a set: steady for each network, spread evenly over all."""

import math
import random
from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.decisions.localities import Place
from fairlead_dns.decisions import selection
from fairlead_dns.decisions.clients import Client, Clients, Locality, parse
from fairlead_dns.decisions.selection import Candidate
from fairlead_dns.decisions.traits import STEPS, Traits, capacity
from harness.names import ask, member, names

NETWORKS = [n.to_bytes(3, "big") for n in range(2000)]


def candidates(*weights: float) -> list[Candidate]:
    return [Candidate(bytes((10, 0, n // 256, n % 256)), weight=weight) for n, weight in enumerate(weights)]


few = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 30).map(lambda n: bytes((10, 0, 0, n))),
        tier=st.sampled_from([0, 0, 1, 2]),
        weight=st.sampled_from([0.0, 0.5, 1.0, 1.0, 4.0]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda c: c.rdata,
)
networks = st.integers(0, 50).map(lambda n: n.to_bytes(3, "big"))


@settings(max_examples=60, deadline=None)
@given(few, networks, st.integers(1, 12))
def test_who_goes_takes_only_his_own_place(some: list[Candidate], network: bytes, count: int) -> None:
    """A network's part loses the one that goes and gains at most one; nobody else moves."""
    before = {c.rdata for c in selection.part(some, network, count)}
    for gone in some if len(some) > 1 else ():
        after = {c.rdata for c in selection.part([c for c in some if c is not gone], network, count)}

        assert before - {gone.rdata} <= after
        assert len(after - before) <= 1


@settings(max_examples=60, deadline=None)
@given(few, networks, st.integers(1, 12), st.integers(0, 9))
def test_a_part_does_not_depend_on_the_order_it_is_taken_from(
    some: list[Candidate], network: bytes, count: int, seed: int
) -> None:
    """Every replica, after every restart, gives a network the same part."""
    mixed = list(some)
    random.Random(seed).shuffle(mixed)

    assert {c.rdata for c in selection.part(some, network, count)} == {
        c.rdata for c in selection.part(mixed, network, count)
    }


@settings(max_examples=60, deadline=None)
@given(few, networks, st.integers(1, 12))
def test_a_part_is_of_the_nearest(some: list[Candidate], network: bytes, count: int) -> None:
    """Nobody far is in it while somebody near is left out."""
    chosen = selection.part(some, network, count)
    left = {c.rdata for c in some} - {c.rdata for c in chosen}

    assert min(len(some), count) == len(chosen)
    assert max(c.tier for c in chosen) <= min((c.tier for c in some if c.rdata in left), default=9)


def test_parts_are_spread_evenly_over_all_networks() -> None:
    """Ten of forty for each of 2,000 networks: everyone is in 500 parts, give or take a fifth."""
    some = candidates(*[1.0] * 40)
    given_to = Counter(c.rdata for network in NETWORKS for c in selection.part(some, network, 10))

    assert 40 == len(given_to)
    assert all(400 < count < 600 for count in given_to.values())


def test_networks_differ() -> None:
    """It is not one part for all."""
    some = candidates(*[1.0] * 40)

    assert len({frozenset(c.rdata for c in selection.part(some, n, 10)) for n in NETWORKS[:100]}) > 95


def shares(weights: tuple[float, ...], count: int) -> list[float]:
    """How often each comes first, over all networks and their turns."""
    some, chance = candidates(*weights), random.Random(7).random
    first: Counter[bytes] = Counter()
    for network in NETWORKS:
        chosen = selection.part(some, network, count)
        first.update(order[0].rdata for order in selection.orders(chosen, 16, chance))
    return [first[c.rdata] / first.total() for c in some]


def test_weight_decides_who_comes_first_however_much_is_cut() -> None:
    """One, four or all of ten: who has twice the weight is first twice as often, over all networks."""
    weights = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 4.0)
    for count in (1, 4, 10):
        for share, weight in zip(shares(weights, count), weights, strict=True):
            assert abs(share - weight / 18) < 0.25 * weight / 18, (count, weight)


def test_equal_ones_come_first_equally_often() -> None:
    """Exactly, in every round."""
    some = candidates(*[1.0] * 7)
    first = Counter(o[0].rdata for o in selection.orders(some, 7, random.Random(1).random))

    assert [1] * 7 == list(first.values())


@settings(max_examples=60, deadline=None)
@given(few, st.integers(1, 20), st.integers(0, 9))
def test_orders_hold_everyone_near_before_far(some: list[Candidate], count: int, seed: int) -> None:
    """Nobody is lost, nobody twice."""
    for order in selection.orders(some, count, random.Random(seed).random):
        assert sorted(c.rdata for c in some) == sorted(c.rdata for c in order)
        assert [c.tier for c in order] == sorted(c.tier for c in order)


@settings(max_examples=60, deadline=None)
@given(few, st.integers(1, 5))
def test_a_tier_too_small_counts_as_the_next(some: list[Candidate], least: int) -> None:
    """After that none is too small, but the last, and order among tiers is kept."""
    after = selection.merged(some, least)
    sizes = Counter(c.tier for c in after)

    assert [c.rdata for c in some] == [c.rdata for c in after]
    assert all(new.tier >= old.tier for old, new in zip(some, after, strict=True))
    assert all(size >= least for tier, size in sizes.items() if tier != max(sizes))


def test_srv_weights_are_in_proportion() -> None:
    """Equal ones are left as they are set; nothing but nothing is 0."""
    assert [1, 1] == selection.numbers(candidates(3.0, 3.0))
    assert [25, 100, 1, 0] == selection.numbers(candidates(1.0, 4.0, 0.001, 0.0))
    assert [1, 1] == selection.numbers(candidates(0.0, 0.0))


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_the_longest_network_says_where_a_client_stands() -> None:
    """Of both families; IPv4 in IPv6 clothes is IPv4, and who is no address is nobody."""
    rules = (("10.0.0.0/8", "far"), ("10.1.0.0/16", "near"), ("fd00::/8", "six"))
    clients = Clients(tuple(Locality(ip_network(network), Place(zone)) for network, zone in rules))

    found = [
        clients.of(text).place.zone for text in ("10.1.2.3", "10.2.2.3", "::ffff:10.1.2.3", "fd00::1", "1.1.1.1", "")
    ]
    assert ["near", "far", "near", "six", "", ""] == found
    assert Client() == clients.of("/run/socket")


def test_clients_of_one_network_are_alike() -> None:
    """/24 and /56."""
    clients = Clients()

    assert clients.of("10.1.2.3").network == clients.of("10.1.2.200").network != clients.of("10.1.3.3").network
    assert clients.of("fd00::1").network == clients.of("fd00::ff:0:0:0:1").network != clients.of("fd00:1::1").network
    assert parse("fe80::1%eth0") is not None


# --- who gives --------------------------------------------------------------------------------------------------------


def test_a_newcomer_warms_up() -> None:
    """From a tenth to all of its weight; then it leaves nothing behind."""
    traits = Traits(warm_up_s=20.0)
    made = names(member(0), member(1))
    records = made.sources._of("marathon:web", member(1))  # what the zone was given
    key = next(r for r in records if r.kind == 1)
    traits.add("m1", member(1), records, new_s=100.0)

    seen = []
    for now_s in (100.0, 110.0, 119.0, 120.0):
        list(traits.tick(now_s))
        seen.append(round(traits.weight(key.owner, key.kind, key.rdata, 2), 2))

    assert [1.09, 1.55, 1.91, 2.0] == seen
    assert (0, 1.0) == (traits.warming, traits.warmth("web.1"))
    assert Traits(warm_up_s=20.0) == traits
    assert STEPS == 10


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from(["", "a", "b"])), max_size=6
    )
)
def test_what_comes_and_goes_leaves_no_traits(given_: list[tuple[int, float, str]]) -> None:
    """Places and weights are those of who is there."""
    traits = Traits(places=True, warm_up_s=5.0)
    some = {f"m{n}-{w}-{z}": member(n, weight=w, zone=z) for n, w, z in given_}
    made = names()
    for who, each in some.items():
        traits.add(who, each, made.sources._of("marathon:web", each), new_s=1.0)  # see above
    list(traits.tick(3.0))
    for who, each in some.items():
        traits.remove(who, each, made.sources._of("marathon:web", each))  # see above

    assert Traits(places=True, warm_up_s=5.0) == traits


@pytest.mark.parametrize(
    ("weight", "expected"), [(math.inf, 1e6), (math.nan, 0.0), (-3.0, 0.0), (1e300, 1e6), (0.0, 0.0)]
)
def test_whatever_weight_stands_in_a_record_answers_are_given(weight: float, expected: float) -> None:
    """Nobody who may publish can stop the server."""
    traits_of = capacity(member(1, weight=weight))
    made = names(member(0), member(1, weight=weight))

    assert expected == traits_of
    for kind, name in (("A", "web.marathon.mesos"), ("SRV", "_web._tcp.marathon.mesos")):
        assert 2 == len(ask(made.answers, name, kind).rr)


def test_a_task_whose_record_changes_goes_on_warming_up() -> None:
    """The new node comes before the old one goes, and does not begin anew."""
    traits = Traits(warm_up_s=10.0)
    made = names()
    records = made.sources._of("marathon:web", member(1))  # what the zone was given
    traits.add("old", member(1), records, new_s=100.0)
    list(traits.tick(105.0))
    traits.add("new", member(1, shard=3), records, new_s=None)
    traits.remove("old", member(1), records)
    list(traits.tick(105.5))

    assert (1, 0.55) == (traits.warming, round(traits.warmth("web.1"), 2))
    list(traits.tick(110.0))
    assert Traits(warm_up_s=10.0) == traits

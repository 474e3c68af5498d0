"""Which endpoint gets a request, and what a service may be called."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.records_of import member
from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import dns_labels
from fairlead_discovery.decisions.picking import Endpoint, Pool, endpoints, local_weights
from fairlead_discovery.decisions.service_names import NameIndex, Wanted, parse
from fairlead_discovery.records import Address, Discovery, Member

CHANCES = [i / 1000 for i in range(1000)]


def endpoint(number: int, *, weight: float = 1.0, zone: str = "") -> Endpoint:
    return Endpoint(service="s", task=f"t{number}", host=f"10.0.0.{number}", port=80, weight=weight, zone=zone)


def shares(picks: Sequence[Endpoint]) -> dict[str, float]:
    return {task: count / len(picks) for task, count in Counter(e.task for e in picks).items()}


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0, -1.0, float("nan"), float("inf")]), min_size=1, max_size=5))
def test_every_chance_picks_somebody(weights: list[float]):
    """Whatever the weights are; the last float below 1 too."""
    pool = Pool(endpoint(n, weight=w) for n, w in enumerate(weights))

    assert all(pool.random(chance) in pool.endpoints for chance in (0.0, 0.5, 1 - 2**-53))


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=5).filter(any))
def test_chance_is_spread_by_weight(weights: list[float]):
    """Weight 0 gets nothing."""
    pool = Pool(endpoint(n, weight=w) for n, w in enumerate(weights))
    found = shares([pool.random(chance) for chance in CHANCES])

    assert found == pytest.approx({f"t{n}": w / sum(weights) for n, w in enumerate(weights) if w}, abs=0.002)


def test_turns_are_even_at_any_moment():
    """After n turns of three equal endpoints nobody is more than one ahead."""
    pool = Pool(endpoint(n) for n in range(3))
    for turns in range(1, 200):
        counts = Counter(pool.turn(number).task for number in range(turns))
        assert max(counts.values()) - min(counts.get(f"t{n}", 0) for n in range(3)) <= 1


def test_weighted_turns_follow_weights_closely():
    """After 100 turns each endpoint is within two of its part."""
    pool = Pool([endpoint(0), endpoint(1, weight=3.0)])
    counts = Counter(pool.turn(number).task for number in range(100))

    assert {"t0": 25, "t1": 75} == pytest.approx(counts, abs=2)


def test_of_two_the_less_loaded_for_its_weight():
    """Two requests on a heavy endpoint are less than one on a light one."""
    light, heavy = endpoint(0), endpoint(1, weight=4.0)
    pool = Pool([light, heavy])

    assert heavy == pool.least_of_two((0.0, 0.99), {light.name: 1, heavy.name: 2})
    assert light == pool.least_of_two((0.0, 0.99), {light.name: 1, heavy.name: 5})


def test_a_zone_with_its_part_of_the_weight_keeps_its_clients():
    """Half the weight, two zones: all requests stay."""
    found = [endpoint(0, zone="a"), endpoint(1, zone="a"), endpoint(2, zone="b"), endpoint(3, zone="b")]

    assert {"t0": 0.5, "t1": 0.5} == shares([Pool(found).local("a", c) for c in CHANCES])


def test_a_small_zone_spills_over():
    """One of four endpoints can take half of its zone's requests; the rest goes to the zone with more."""
    found = [endpoint(0, zone="a"), *(endpoint(n, zone="b") for n in (1, 2, 3))]
    picks = shares([Pool(found).local("a", c) for c in CHANCES])

    assert picks == pytest.approx({"t0": 0.5, "t1": 1 / 6, "t2": 1 / 6, "t3": 1 / 6}, abs=0.002)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=6))
def test_when_every_zone_asks_alike_each_endpoint_gets_its_weight(given_: list[tuple[str, float]]):
    """Spilling over evens out exactly what the zones' sizes make uneven: no endpoint gets more than its part."""
    found = [endpoint(n, zone=zone, weight=weight) for n, (zone, weight) in enumerate(given_)]
    zones = sorted({e.zone for e in found if e.weight})
    if len(zones) < len({e.zone for e in found}) or not zones:
        return
    loads = [0.0] * len(found)
    for zone in zones:
        weights = local_weights(found, zone)
        loads = [load + w / sum(weights) / len(zones) for load, w in zip(loads, weights, strict=True)]

    assert loads == pytest.approx([e.weight / sum(e.weight for e in found) for e in found])


def test_a_zone_without_endpoints_uses_all():
    """By weight, as if there were no zones."""
    found = [endpoint(0, zone="a"), endpoint(1, zone="b", weight=3.0)]

    assert [1.0, 3.0] == local_weights(found, "elsewhere")


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(0, 5))
def test_with_rendezvous_only_keys_of_the_gone_endpoint_move(count: int, gone: int):
    """All others stay where they are."""
    found = [endpoint(n, weight=1.0 + n % 2) for n in range(count)]
    before, after = Pool(found), Pool(e for e in found if e.task != f"t{gone}")
    moved = {before.rendezvous(k).task for k in map(str, range(60)) if before.rendezvous(k) != after.rendezvous(k)}

    assert moved <= {f"t{gone}"}


@pytest.mark.parametrize("how", [Pool.rendezvous, Pool.ring])
def test_keys_are_spread_by_weight(how):
    """Within the noise of 4,000 keys."""
    pool = Pool([endpoint(0), endpoint(1), endpoint(2, weight=2.0)])
    found = shares([how(pool, f"user:{n}") for n in range(4000)])

    assert found == pytest.approx({"t0": 0.25, "t1": 0.25, "t2": 0.5}, abs=0.03)


def test_the_order_of_endpoints_changes_no_pick():
    """Every client that sees the same endpoints sends a key to the same one."""
    found = [endpoint(n) for n in range(5)]

    assert Pool(found).ring("k") == Pool(reversed(found)).ring("k")
    assert Pool(found).rendezvous("k") == Pool(reversed(found)).rendezvous("k")


# --- names


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("marathon:/shop/web", Wanted(service="marathon:/shop/web")),
        ("/shop/web", Wanted(service="marathon:/shop/web")),
        ("Web-Shop.Marathon.mesos.", Wanted(dns="web-shop.marathon")),
        ("web-shop.marathon.slave.mesos", Wanted(dns="web-shop.marathon")),
        ("_web-shop._tcp.marathon.mesos", Wanted(dns="web-shop.marathon")),
        ("_admin._web-shop._udp.marathon.mesos", Wanted(dns="web-shop.marathon", port="admin")),
        ("_server.dev._tcp.marathon.mesos", Wanted(dns="server.dev.marathon")),
        ("web.pod_1.mesos", Wanted(dns="web.pod_1")),
    ],
)
def test_names(name: str, wanted: Wanted):
    """Keys, app ids, and names as Mesos-DNS has them."""
    assert wanted == parse(name, domain="mesos")


@pytest.mark.parametrize("name", ["", "mesos", "web", "example.org", "."])
def test_what_is_no_name_is_refused(name: str):
    """With what is expected."""
    with pytest.raises(Refused, match="names no service"):
        parse(name, domain="mesos")


def named(task: str, discovery: str = "") -> Member:
    base = member(1)
    return Member(
        serviceEndpoint=base.serviceEndpoint,
        task=type(base.task)(id="t", name=task, framework="marathon", framework_id="f", agent="a"),
        discovery=Discovery(name=discovery),
        additionalEndpoints={"Admin": Address(host="10.0.0.1", port=9)},
    )


def test_dns_names_lead_to_services_and_go_with_them():
    """Two services of one name are both meant, as in DNS; DiscoveryInfo's name counts, also as it was spelt."""
    index = NameIndex(dns_labels.rfc1123)
    web, other = {"m": named("web.shop")}, {"m": named("web-shop")}
    index.take({"one": web, "two": other, "three": {"m": named("x", "server.dev")}})

    assert {"one", "two"} == index.services("web-shop.marathon")
    assert {"three"} == index.services("server.dev.marathon") == index.services("server-dev.marathon")

    index.take({"two": other})

    assert {"two"} == index.services("web-shop.marathon")
    assert set() == index.services("server.dev.marathon")


def test_a_port_is_found_by_its_name_in_any_case():
    """A member without it is left out."""
    with_port, without = named("a"), replace_port(named("b"))

    assert [9] == [e.port for e in endpoints("s", [with_port, without], "admin")]


def replace_port(one: Member) -> Member:
    return Member(serviceEndpoint=one.serviceEndpoint, task=one.task)


def test_an_endpoint_is_a_value():
    """Equal content, equal endpoint: a watcher sees no change where there is none."""
    assert endpoint(1) == replace(endpoint(1))

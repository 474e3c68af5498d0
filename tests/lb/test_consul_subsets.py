"""Consul's entries that name a subset that there is not are refused with the resolver they count on."""

import msgspec
import pytest

from fairlead_discovery.policies import AnyPolicy, Resolver, Subset, name_of
from fairlead_lb.decisions.consul_fields import Names
from fairlead_lb.decisions.consul_import import Imported, imported

WEB, API = "marathon:/web", "marathon:/api"


def read(*entries: object, there: dict[str, AnyPolicy] | None = None) -> Imported:
    return imported([("f.json", msgspec.json.encode(list(entries)))], Names(framework="marathon"), there)


SUBSETS = {"Kind": "service-resolver", "Name": "web", "Subsets": {"v2": {"Filter": "version == v2"}}}
BAD_SUBSETS = {**SUBSETS, "PrioritizeByLocality": {"Mode": "failover"}}


def naming(subset: str) -> list[dict[str, object]]:
    """An entry of each kind that can, of services of their own."""
    to = {"Service": "web", "ServiceSubset": subset}
    return [
        {"Kind": "service-router", "Name": "a", "Routes": [{"Destination": to}]},
        {"Kind": "service-splitter", "Name": "b", "Splits": [{"Weight": 90}, {"Weight": 10, **to}]},
        {"Kind": "service-resolver", "Name": "c", "Redirect": to},
        {"Kind": "service-resolver", "Name": "d", "Failover": {"*": to}},
    ]


@pytest.mark.parametrize("first", [True, False])
def test_who_names_a_subset_of_a_refused_resolver_is_refused_too(*, first: bool):
    """By name, in whatever order, and though the registry has one of before."""
    others = naming("v2")
    before = Resolver(service=WEB, subsets={"v2": Subset()})
    found = read(*([BAD_SUBSETS, *others] if first else [*others, BAD_SUBSETS]), there={name_of(before): before})

    assert ({}, 5) == (found.policies, len(found.refused))
    assert [f"f.json: {e['Kind']} {e['Name']}: {WEB}@v2: the resolver of {WEB} is refused" for e in others] == list(
        found.refused[1:]
    )


def test_a_resolver_that_is_refused_for_a_subset_takes_others_with_it():
    """One after the other."""
    middle = {**SUBSETS, "Name": "api", "Failover": {"v2": {"Service": "web", "ServiceSubset": "v2"}}}
    last = {
        "Kind": "service-splitter",
        "Name": "b",
        "Splits": [{"Weight": 100, "Service": "api", "ServiceSubset": "v2"}],
    }
    found = read(last, middle, BAD_SUBSETS)

    assert ({}, 3) == (found.policies, len(found.refused))
    assert f"{API}@v2: the resolver of {API} is refused" in found.refused[2]


def test_a_subset_is_looked_for_in_the_files_and_then_in_the_registry():
    """Without a registry one that no file resolves is believed."""
    before = Resolver(service=WEB, subsets={"v3": Subset()})
    registry: dict[str, AnyPolicy] = {name_of(before): before}

    assert () == read(SUBSETS, *naming("v2"), there={}).refused
    assert () == read(*naming("v3"), there=registry).refused
    assert () == read(*naming("v3")).refused
    assert 4 == len(read(*naming("v2"), there=registry).refused)
    assert 4 == len(read(*naming("v2"), there={}).refused)
    assert 4 == len(read(SUBSETS, *naming("v3"), there=registry).refused)
    assert f"{WEB}@v3: {WEB} has no subset 'v3'" in read(SUBSETS, *naming("v3")).refused[0]

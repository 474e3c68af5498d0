"""Placing: nothing is promised twice, every no has its reason, constraints hold."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core.resources import Resources, from_mesos, parse
from fairlead_core.services.decisions.app import App, PortDefinition
from fairlead_core.services.decisions.constraints import Place, allows
from fairlead_core.services.decisions.matching import Matching, Need, Reason, match
from fairlead_core.services.decisions.offers import Offer, from_json


def offer(name: str, resources: str = "cpus:1;mem:512;ports:[31000-31003]", **more: Any) -> Offer:
    place = Place(hostname=more.pop("hostname", name), attributes=more.pop("attributes", {}), zone=more.pop("zone", ""))
    return Offer(id=f"O-{name}", agent=f"S-{name}", place=place, resources=parse(resources), **more)


def app(name: str = "/web", **more: Any) -> App:
    ports = tuple(PortDefinition(port=p) for p in more.pop("ports", (0,)))
    return App(**{"id": name, "cmd": "x", "cpus": 0.5, "mem": 100, "port_definitions": ports, **more})


def matched(needs: list[Need], offers: list[Offer], **more: Any) -> Matching:
    return match(needs, offers, now_s=more.get("now_s", 1000.0), pick=random.Random(more.get("seed", 1)).randrange)


OFFERS = st.lists(
    st.builds(
        offer,
        st.sampled_from("abcd"),
        st.sampled_from(
            [
                "cpus:1;mem:200;ports:[1-2]",
                "cpus:4;mem:1000;ports:[1-9]",
                "cpus:2;mem:100",
                "cpus(r):1;mem:300;ports(r):[5-6]",
            ]
        ),
        role=st.sampled_from(["*", "r"]),
    ),
    max_size=4,
    unique_by=lambda o: o.id,
)
NEEDS = st.lists(
    st.builds(
        Need,
        app=st.builds(
            app,
            st.sampled_from(["/a", "/b", "/c"]),
            cpus=st.sampled_from([0.5, 1.0]),
            mem=st.sampled_from([50.0, 150.0]),
            ports=st.sampled_from([(), (0,), (0, 0), (1,)]),
            require_ports=st.booleans(),
            constraints=st.sampled_from([(), (("hostname", "UNIQUE"),), (("hostname", "MAX_PER", "2"),)]),
        ),
        count=st.integers(0, 4),
    ),
    max_size=3,
    unique_by=lambda n: n.app.id,
)


@given(NEEDS, OFFERS, st.integers(0, 3))
def test_no_resource_is_promised_twice(needs: list[Need], offers: list[Offer], seed: int):
    """What is launched on an offer fits into it, ports included; no app gets more than it needs."""
    result = matched(needs, offers, seed=seed)
    used: dict[str, Resources] = {}
    for launch in result.launches:
        before = used.get(launch.offer.id, Resources())
        assert (launch.offer.resources - before).contains(launch.resources)
        used[launch.offer.id] = before + launch.resources
    got = Counter(launch.app.id for launch in result.launches)

    assert all(got[need.app.id] <= need.count for need in needs)
    assert all(offers_[o].contains(r) for offers_ in [{o.id: o.resources for o in offers}] for o, r in used.items())


@given(NEEDS, OFFERS, st.integers(0, 3))
def test_every_app_that_got_less_knows_why_from_every_offer(needs: list[Need], offers: list[Offer], seed: int):
    """One refusal an offer, for each app that wants more."""
    result = matched(needs, offers, seed=seed)
    got = Counter(launch.app.id for launch in result.launches)

    for need in needs:
        if got[need.app.id] < need.count:
            assert {o.id for o in offers} == {r.offer.id for r in result.refusals[need.app.id]}


@given(NEEDS, OFFERS, st.integers(0, 3))
def test_hosts_are_used_as_constraints_say(needs: list[Need], offers: list[Offer], seed: int):
    """UNIQUE and MAX_PER hold over all launches of an app."""
    result = matched(needs, offers, seed=seed)
    for need in needs:
        hosts = Counter(x.offer.place.hostname for x in result.launches if x.app.id == need.app.id)
        for constraint in need.app.constraints:
            assert max(hosts.values(), default=0) <= (1 if constraint[1] == "UNIQUE" else int(constraint[2]))


def test_instances_are_spread_over_the_hosts():
    """The host with the fewest instances of the app comes first."""
    result = matched([Need(app=app(cpus=0.1), count=4)], [offer("a"), offer("b")])

    assert {"a": 2, "b": 2} == Counter(x.offer.place.hostname for x in result.launches)


@pytest.mark.parametrize(
    ("wanted", "made", "reason", "detail"),
    [
        (app(accepted_resource_roles=("r",)), offer("a"), Reason.ROLE, "takes only resources of role r"),
        (
            app(constraints=(("rack", "LIKE", "r[12]"),)),
            offer("a", attributes={"rack": "r3"}),
            Reason.CONSTRAINT,
            "constraint rack LIKE r[12] does not allow a",
        ),
        (app(), offer("a", leaves_s=999.0), Reason.MAINTENANCE, "a is being drained"),
        (app(cpus=4), offer("a", "cpus:1.5;mem:512;ports:[1-2]"), Reason.CPUS, "needs 4 cpus, offered 1.5"),
        (app(mem=1024), offer("a"), Reason.MEM, "needs 1024 MB of memory, offered 512"),
        (app(disk=10), offer("a"), Reason.DISK, "needs 10 MB of disk, offered 0"),
        (app(ports=(0, 0)), offer("a", "cpus:1;mem:512;ports:[1-1]"), Reason.PORTS, "needs 2 ports, offered 1"),
        (app(ports=(80,), require_ports=True), offer("a"), Reason.PORTS, "needs the host ports 80"),
    ],
)
def test_the_first_reason_is_told(wanted: App, made: Offer, reason: Reason, detail: str):
    """Marathon's reasons, in the order of its funnel."""
    refusal = matched([Need(app=wanted, count=1)], [made]).refusals[wanted.id][0]

    assert (reason, detail) == (refusal.reason, refusal.detail)


def test_required_ports_are_given_and_others_drawn_from_the_ranges():
    """`requirePorts` takes the definition's numbers; 0 draws one, never the same twice."""
    wanted = app(ports=(31002, 0, 0), require_ports=True)
    launch = matched([Need(app=wanted, count=1)], [offer("a")]).launches[0]

    assert 31002 == launch.ports[0]
    assert {31000, 31001, 31002, 31003} > set(launch.ports)
    assert 3 == len(set(launch.ports))


def test_resources_of_the_own_role_are_taken_with_the_unreserved_ones():
    """0.5 cpus of the role and 0.5 unreserved make one."""
    made = offer("a", "cpus(r):0.5;cpus:0.5;mem:512;ports:[1-1]", role="r")
    launch = matched([Need(app=app(cpus=1.0), count=1)], [made]).launches[0]

    assert {("cpus", "r"): 500, ("cpus", "*"): 500, ("mem", "*"): 100_000} == launch.resources.scalars


HERE = Place(hostname="h1", attributes={"rack": "r1", "level": "0.8"}, zone="z1", region="eu")
OTHERS = [Place(hostname="h1", attributes={"rack": "r1"}, zone="z1"), Place(hostname="h2", attributes={"rack": "r2"})]


@pytest.mark.parametrize(
    ("constraint", "others", "allowed"),
    [
        (("hostname", "UNIQUE"), OTHERS, False),
        (("hostname", "UNIQUE"), OTHERS[1:], True),
        (("@zone", "UNIQUE"), [], True),
        (("hostname", "CLUSTER", "h1"), [], True),
        (("hostname", "CLUSTER", "h2"), [], False),
        (("rack", "CLUSTER"), OTHERS[1:], False),
        (("rack", "CLUSTER"), OTHERS[:1], True),
        (("rack", "CLUSTER"), [], True),
        (("rack", "GROUP_BY"), OTHERS, True),
        (("rack", "GROUP_BY"), [OTHERS[0], *OTHERS], False),
        (("rack", "GROUP_BY", "3"), OTHERS, False),
        (("rack", "MAX_PER", "1"), OTHERS, False),
        (("rack", "MAX_PER", "2"), OTHERS, True),
        (("rack", "LIKE", "r[0-9]"), [], True),
        (("rack", "LIKE", "r"), [], False),
        (("rack", "UNLIKE", "r[2-9]"), [], True),
        (("rack", "UNLIKE", "r1"), [], False),
        (("level", "IS", "0.80"), [], True),
        (("rack", "IS", "r1"), [], True),
        (("rack", "IS", "r2"), [], False),
        (("@region", "IS", "eu"), [], True),
        (("ssd", "LIKE", ".*"), [], False),
        (("ssd", "UNLIKE", ".*"), [], True),
        (("ssd", "UNIQUE"), [], False),
    ],
)
def test_constraints(constraint: tuple[str, ...], others: list[Place], allowed: bool):
    """Each operator, and the missing attribute that only UNLIKE accepts."""
    assert allowed == allows(constraint, HERE, others)


def test_an_offer_of_mesos_is_read():
    """The anchors' example, with attributes, fault domain and unavailability."""
    value = {
        "id": {"value": "O1"},
        "framework_id": {"value": "F"},
        "agent_id": {"value": "S0"},
        "hostname": "h",
        "allocation_info": {"role": "a"},
        "domain": {"fault_domain": {"region": {"name": "eu"}, "zone": {"name": "z1"}}},
        "unavailability": {"start": {"nanoseconds": 5_000_000_000}},
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 2.0}, "role": "*", "allocation_info": {"role": "a"}},
            {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31000, "end": 32000}]}, "role": "*"},
        ],
        "attributes": [
            {"name": "rack", "type": "TEXT", "text": {"value": "r1"}},
            {"name": "level", "type": "SCALAR", "scalar": {"value": 0.8}},
        ],
    }

    found = from_json(value)

    assert Place(hostname="h", attributes={"rack": "r1", "level": "0.8"}, zone="z1", region="eu") == found.place
    assert (5.0, "a", from_mesos(value["resources"])) == (found.leaves_s, found.role, found.resources)  # type: ignore[arg-type]

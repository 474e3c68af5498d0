"""Names that two services share, names too long for a label, and why a name has what it has."""

from typing import Any

import dnslib

from fairlead_discovery.records import Agent, Discovery, Framework, Ips, Member, Port
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.claims import Claims, digest
from fairlead_dns.decisions.naming import Dialect, Rules, of_framework
from fairlead_dns.decisions.why import Why, why
from fairlead_dns.names import Names
from harness.names import ask, authority, data, member, node_name, query, rcode

SHOP, TEAM = "marathon:/b/a", "marathon:/a.b"


def seen(services: dict[str, list[Member]], *, rules: Rules | None = None, made: Names | None = None) -> Names:
    made = made or Names(rules or Rules(), authority())
    members = {service: {node_name(m): m for m in them} for service, them in services.items()}
    made.take_snapshot(Snapshot(revision=made.answers.serial + 1, trust=Trust.LIVE, members=members))
    return made


def front(made: Names, name: str, kind: str) -> dnslib.DNSRecord:
    """What the server itself says."""
    return dnslib.DNSRecord.parse(made.front.reply(query(name, kind), Came(Transport.UDP, "127.0.0.1")))


def asked(made: Names, name: str) -> Why:
    return why(made.sources, wire.parse_text(name) or b"")


def test_two_services_of_one_name_have_one_each_beside_it() -> None:
    """The shared name means both, as in Mesos-DNS; each has one that is its alone."""
    made = seen({SHOP: [member(0, name="a.b")], TEAM: [member(1, name="a.b")]})

    own = [f"a-b-{digest(service)}.marathon.mesos" for service in (SHOP, TEAM)]
    assert ["10.0.0.1", "10.0.0.2"] == data(ask(made.answers, "a-b.marathon.mesos"))
    assert [["10.0.0.1"], ["10.0.0.2"]] == [data(ask(made.answers, name)) for name in own]
    assert {"a-b.marathon": (TEAM, SHOP)} == made.sources.claims.collisions()


def test_the_extra_name_goes_when_the_rival_goes() -> None:
    """And the answers are as if the rival had never been."""
    made = seen({SHOP: [member(0, name="a.b")], TEAM: [member(1, name="a.b")]})
    seen({SHOP: [member(0, name="a.b")]}, made=made)
    alone = seen({SHOP: [member(0, name="a.b")]})

    assert (alone.zone.names, {}, {}) == (made.zone.names, made.sources.claims.collisions(), made.sources.rivals)


def test_a_name_with_a_dot_may_be_anothers() -> None:
    """Task `web.shop` of one framework, as written, is task `web` of the framework `shop.marathon`."""
    raw = member(0, discovery=Discovery(name="web.shop"))
    other: Any = member(1)
    of_other = type(other.task)(id="x", name="web", framework="shop.marathon", framework_id="f", agent="a-S1")
    made = seen({"a": [raw], "b": [Member(serviceEndpoint=other.serviceEndpoint, task=of_other)]})

    assert {"web.shop.marathon": ("a", "b")} == made.sources.claims.collisions()


def test_dialects_have_collisions_of_their_own() -> None:
    """Consul knows no framework: one name of two frameworks is shared there only."""
    other: Any = member(1)
    of_other = type(other.task)(id="x", name="web", framework="etl", framework_id="f", agent="a-S1")
    services = {"m": [member()], "e": [Member(serviceEndpoint=other.serviceEndpoint, task=of_other)]}

    found = [
        seen(services, rules=rules).sources.claims for rules in (Rules(), Rules(dialects=(Dialect(kind="consul"),)))
    ]

    assert [{}, {"web.service": ("e", "m")}] == [claims.collisions() for claims in found]


def test_long_names_are_told() -> None:
    """The task's name, its name with hash and agent, a port's name: whatever had to be cut."""
    long_port = Port(index=0, number=1, host_port=1, name="p" * 64)
    claims = Claims(Rules())
    claims.take("fits", added=[member(name="x" * 40)])
    for service, made in {
        "task": member(name="x" * 64),
        "instance": member(name="x" * 60),
        "port": member(ports=(long_port,)),
    }.items():
        claims.take(service, added=[made])

    assert {"task": {"x" * 64: 1}, "instance": {"x" * 60: 1}, "port": {"p" * 64: 1}} == claims.cut


def test_what_went_is_not_told() -> None:
    """Taken and given back: nothing is left."""
    claims, made = Claims(Rules()), member(name="x" * 64)
    claims.take("s", added=[made])
    claims.take("s", removed=[made])

    assert ({}, {}, {}, set()) == (claims.counts, claims.holders, claims.cut, claims.shared)


def test_why_names_task_node_and_way() -> None:
    """Service, node, task, agent, and which dialect says so."""
    made = seen({"marathon:/web": [member(), member(1)]}, rules=Rules(dialects=(Dialect(kind="consul"),)))

    found = [asked(made, name) for name in ("web.marathon.mesos", "_web._tcp.service.consul")]

    rows = [[(g.service, g.node, g.task, g.dialect) for g in each.givers] for each in found]
    nodes = [(node_name(member(n)), f"web.{n}") for n in (0, 1)]
    assert [[("marathon:/web", *node, way) for node in nodes] for way in ("mesos", "consul")] == rows
    assert (("A 10.0.0.1",), "20140803-S0") == (found[0].givers[0].records, found[0].givers[0].agent)


def test_why_finds_names_made_of_addresses() -> None:
    """Reverse names, Consul's hex and Kubernetes' dashed addresses lead to the task that has them."""
    rules = Rules(dialects=(Dialect(kind="consul"), Dialect(kind="kubernetes")))
    made = seen({"s": [member(ips=Ips(netinfo=("172.16.0.2", "fd00::1")))]}, rules=rules)
    reverse6 = wire.text(wire.reverse(bytes.fromhex("fd000000000000000000000000000001")))

    names = (
        "2.0.16.172.in-addr.arpa",
        reverse6,
        "ac100002.addr.dc1.consul",
        "172-16-0-2.marathon.pod.cluster.local",
        "fd00-0000-0000-0000-0000-0000-0000-0001.marathon.pod.cluster.local",
    )
    assert [["web.0"]] * 5 == [[g.task for g in asked(made, name).givers] for name in names]


def test_why_tells_what_is_withheld_shared_and_too_long() -> None:
    """Status, rivals with the label of each, and cut names."""
    long = "x" * 70
    dead = member(1, name=long, status="DEAD")
    made = seen({SHOP: [member(0, name=long)], TEAM: [dead]})

    found = asked(made, f"{'x' * 63}.marathon.mesos")

    assert {"": "web", "status DEAD": "web"}.keys() == {g.withheld for g in found.givers}
    assert (TEAM, SHOP) == found.shared_by
    assert {s: f"{'x' * 54}-{digest(s)}" for s in (TEAM, SHOP)} == found.apart
    assert {SHOP: (long,), TEAM: (long,)} == found.too_long


def test_why_knows_names_that_no_task_gives() -> None:
    """Agents and the like by who they are; empty and unknown names as such."""
    made = seen({"s": [member()]})
    made.take_agents({"a1": Agent(id="a1", host="10.0.0.9", port=5051, boot_id="b")})

    found = [asked(made, name) for name in ("slave.mesos", "_tcp.marathon.mesos", "nope.mesos")]

    assert {"agent a1": ("A 10.0.0.9",)} == found[0].others
    assert [(True, False), (True, True), (False, False)] == [(each.exists, each.empty) for each in found]


def test_no_framework_takes_the_names_of_masters_and_agents() -> None:
    """One called `leader` is found under its name with a digest."""
    made = [of_framework(Framework(id="1", name=n), ("10.0.0.7",), Rules()) for n in ("leader", "Master12", "x.slave")]

    names = [wire.text(records[0].owner) for records in made]
    assert ["leader-", "master12-", "x.slave-"] == [name.removesuffix(".mesos")[:-8] for name in names]


def test_a_known_address_is_answered_and_its_neighbours_are_not() -> None:
    """PTR without a configured reverse zone: an authority for that address alone, as long as it is known."""
    made = seen({"s": [member(ips=Ips(host=("10.0.0.1",), netinfo=("172.16.0.2",)))]})
    known = front(made, "2.0.16.172.in-addr.arpa", "PTR")
    neighbour = front(made, "3.0.16.172.in-addr.arpa", "PTR")
    seen({}, made=made)
    gone = front(made, "2.0.16.172.in-addr.arpa", "PTR")

    assert ("NOERROR", 1, True) == (rcode(known), known.header.aa, str(known.rr[0].rdata).startswith("web-"))
    assert ["REFUSED", "REFUSED"] == [rcode(neighbour), rcode(gone)]

"""Answers by who asks and by who gives: locality, weight, warm-up, limits, parts; and the zone's version."""

from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.decisions.localities import Place
from fairlead_discovery.records import Discovery, Ips, Member
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.choosing import Chooser
from fairlead_dns.decisions.clients import Locality
from fairlead_dns.decisions.naming import Rules
from fairlead_dns.names import Manner, Names
from harness.names import authority, data, member, opt, option, query, rcode, snapshot

WEB = "web.marathon.mesos"
SRV = "_web._tcp.marathon.mesos"
A_CLIENT, B_CLIENT, FAR_CLIENT, UNKNOWN_CLIENT = "10.1.0.9", "10.2.0.9", "10.3.0.9", "192.0.2.1"
LOCALITIES = tuple(
    Locality(ip_network(network), Place(zone, region))
    for network, zone, region in (("10.1.0.0/16", "a", "eu"), ("10.2.0.0/16", "b", "eu"), ("10.3.0.0/16", "c", "us"))
)


def served(*members: Member, **manner: Any) -> Names:
    """A server that has seen these, with such settings."""
    chooser = {k: manner.pop(k) for k in ("record_limit", "prefer_own_machine", "least") if k in manner}
    made = Names(Rules(), authority(), Manner(chooser=Chooser(**chooser), **manner))
    made.take_snapshot(snapshot(*members))
    return made


def ask(
    made: Names, name: str, kind: str = "A", *, client: str = UNKNOWN_CLIENT, tcp: bool = False, **how: Any
) -> dnslib.DNSRecord:
    raw = made.front.reply(query(name, kind, **how), Came(Transport.TCP if tcp else Transport.UDP, client))
    assert isinstance(raw, bytes)
    return dnslib.DNSRecord.parse(raw)


def first(made: Names, name: str = WEB, *, client: str = UNKNOWN_CLIENT, times: int = 40) -> list[str]:
    return [str(ask(made, name, client=client, number=n).rr[0].rdata) for n in range(times)]


def standing(*places: tuple[str, str], **changes: Any) -> list[Member]:
    return [
        member(n, zone=zone, region=region, discovery=Discovery(name="web"), **changes)
        for n, (zone, region) in enumerate(places)
    ]


THREE = standing(("a", "eu"), ("b", "eu"), ("c", "us"))


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (A_CLIENT, {"10.0.0.1": 1, "10.0.0.2": 2, "10.0.0.3": 3}),
        (B_CLIENT, {"10.0.0.1": 2, "10.0.0.2": 1, "10.0.0.3": 3}),
        (FAR_CLIENT, {"10.0.0.1": 3, "10.0.0.2": 3, "10.0.0.3": 1}),
        (UNKNOWN_CLIENT, {"10.0.0.1": 0, "10.0.0.2": 0, "10.0.0.3": 0}),
    ],
)
def test_srv_priority_is_how_near_an_endpoint_stands(client: str, expected: dict[str, int]) -> None:
    """1 the client's zone, 2 its region, 3 elsewhere; 0 for all when nobody knows where the client stands."""
    made = served(*THREE, localities=LOCALITIES)
    for tcp in (False, True):
        reply = ask(made, SRV, "SRV", client=client, tcp=tcp, opt=opt())

        addresses = {str(rr.rname): str(rr.rdata) for rr in reply.ar if rr.rtype == wire.A}
        assert expected == {addresses[str(rr.rdata.target)]: rr.rdata.priority for rr in reply.rr}


def test_addresses_come_nearest_first_from_the_packet_cache_too() -> None:
    """Each zone has prebuilt answers of its own; all get all."""
    made = served(*THREE, localities=LOCALITIES)
    for client, near in ((A_CLIENT, "10.0.0.1"), (B_CLIENT, "10.0.0.2"), (FAR_CLIENT, "10.0.0.3")):
        assert {near} == set(first(made, client=client))
        assert 3 == len(ask(made, WEB, client=client).rr)
    assert 3 == len(set(first(made)))

    prebuilt = {client: len(made.front.views.of(client).fast) for client in (A_CLIENT, B_CLIENT, UNKNOWN_CLIENT)}
    assert {A_CLIENT: 1, B_CLIENT: 1, UNKNOWN_CLIENT: 1} == prebuilt


def test_clients_of_one_zone_share_what_is_built() -> None:
    """Few classes, not one a client."""
    made = served(*THREE, localities=LOCALITIES)
    for n in range(50):
        ask(made, WEB, client=f"10.1.{n}.7")

    (prepared,) = made.answers.cache.entries.values()
    assert 1 == len(prepared.turns)


def test_a_zone_with_too_few_endpoints_is_not_preferred() -> None:
    """One in the client's zone cannot serve all of it: it counts as the region's."""
    made = served(*standing(("a", "eu"), ("b", "eu"), ("b", "eu"), ("c", "us")), localities=LOCALITIES, least=2)

    priorities = Counter(rr.rdata.priority for rr in ask(made, SRV, "SRV", client=A_CLIENT).rr)
    assert {2: 3, 3: 1} == priorities


def test_the_own_machine_comes_first() -> None:
    """Before the zone's, when that is set; its answers are never given to others by the packet cache."""
    made = served(*standing(("a", "eu"), ("a", "eu")), localities=LOCALITIES, prefer_own_machine=True)

    assert {"10.0.0.2"} == set(first(made, client="10.0.0.2"))
    assert {"10.0.0.1"} == set(first(made, client="10.0.0.1"))
    assert [0, 3] == sorted(rr.rdata.priority for rr in ask(made, SRV, "SRV", client="10.0.0.1").rr)
    assert {"10.0.0.1", "10.0.0.2"} == set(first(made, client=A_CLIENT))


def test_a_machine_that_moves_is_preferred_where_it_stands_now() -> None:
    """The same address in another zone: answers that were built are dropped."""
    made = served(*standing(("a", "eu"), ("b", "eu")), localities=LOCALITIES)
    first(made, client=A_CLIENT)

    made.take_snapshot(snapshot(*standing(("b", "eu"), ("a", "eu")), revision=2))

    assert {"10.0.0.2"} == set(first(made, client=A_CLIENT))


def test_capacity_is_srv_weight_and_how_often_an_address_is_first() -> None:
    """Three times the weight: three times as often, in any few turns."""
    made = served(member(0, weight=1.0), member(1, weight=3.0))

    counts = Counter(first(made, times=64))
    assert {33, 100} == {rr.rdata.weight for rr in ask(made, SRV, "SRV").rr}
    assert 46 <= counts["10.0.0.2"] <= 50


def test_a_machine_with_more_instances_is_first_more_often() -> None:
    """Two of three instances share an address."""
    made = served(member(0), member(1, ips=Ips(host=("10.0.0.1",))), member(2))

    counts = Counter(first(made, times=64))
    assert 41 <= counts["10.0.0.1"] <= 45


def test_equal_weights_are_the_settings_weight() -> None:
    """Mesos-DNS' clients see no difference, whatever the capacity all have."""
    made = served(member(0, weight=2.0), member(1, weight=2.0))

    assert {(0, 1)} == {(rr.rdata.priority, rr.rdata.weight) for rr in ask(made, SRV, "SRV").rr}


@pytest.mark.parametrize(("status", "expected"), [("STARTING", 1), ("STOPPING", 1), ("DEAD", 1), ("ALIVE", 2)])
def test_what_does_not_serve_has_no_names(status: str, expected: int) -> None:
    """ServerSet statuses other than ALIVE and WARNING give nothing."""
    made = served(member(0), member(1, status=status))

    assert expected == len(ask(made, WEB).rr)


def test_a_warning_halves_the_weight() -> None:
    """It serves, but less."""
    made = served(member(0), member(1, status="WARNING"))

    assert {50, 100} == {rr.rdata.weight for rr in ask(made, SRV, "SRV").rr}


def test_a_newcomer_gets_little_at_first_and_its_part_in_the_end() -> None:
    """Weights follow the clock, in steps, in answers already built; who was there before us is no newcomer."""
    made = served(member(0), warm_up_s=10.0)
    list(made.steps(snapshot(member(0), member(1), revision=2), now_s=100.0))
    seen = []
    for now_s in (100.0, 105.0, 110.0):
        list(made.warm_up(now_s))
        seen.append({rr.rdata.weight for rr in ask(made, SRV, "SRV").rr})

    assert [{100, 9}, {100, 55}, {1}] == seen


# --- parts ------------------------------------------------------------------------------------------------------------

MANY = [member(n) for n in range(100)]


def test_a_limit_gives_each_network_a_steady_part() -> None:
    """Five of a hundred, over every transport, without TC; a network's clients get the same ones, in turning order."""
    made = served(*MANY, record_limit=5)
    parts = [tuple(data(ask(made, WEB, client=f"10.7.{n}.{n}", tcp=tcp))) for n in range(30) for tcp in (False, True)]

    assert {5} == {len(part) for part in parts}
    assert parts[::2] == parts[1::2]
    assert data(ask(made, WEB, client="10.7.3.99")) == list(parts[6])
    assert 0 == ask(made, WEB).header.tc
    assert 5 == len(set(first(made)))
    assert len(set(parts)) == 30


def test_a_limit_leaves_srv_whole() -> None:
    """As in Consul."""
    assert 100 == len(ask(served(*MANY, record_limit=5), SRV, "SRV", tcp=True).rr)


def test_what_does_not_fit_is_cut_to_a_steady_part_with_tc() -> None:
    """Who can come by TCP gets all; who cannot gets the same part each time, and not everybody the same one."""
    made = served(*MANY)
    parts = {}
    for n in range(20):
        replies = [ask(made, WEB, client=f"10.7.{n}.{host}", number=host) for host in range(10)]

        assert {(1, 0)} == {(reply.header.tc, len(reply.ar)) for reply in replies}
        assert 1 == len({tuple(data(reply)) for reply in replies})
        parts[n] = tuple(data(replies[0]))
    assert 20 == len(set(parts.values()))
    assert 100 == len(ask(made, WEB, tcp=True).rr)
    assert max(Counter(ip for part in parts.values() for ip in part).values()) < 20


def test_parts_are_of_the_nearest() -> None:
    """A limit takes the client's zone first."""
    made = served(*standing(*[("a", "eu"), ("b", "eu")] * 4), localities=LOCALITIES, record_limit=4)

    assert ["10.0.0.1", "10.0.0.3", "10.0.0.5", "10.0.0.7"] == data(ask(made, WEB, client=A_CLIENT))


def test_a_change_elsewhere_leaves_a_part_alone() -> None:
    """Only parts that had the endpoint change, by that one."""
    made = served(*MANY, record_limit=5)
    clients = [f"10.7.{n}.1" for n in range(40)]
    before = {client: set(data(ask(made, WEB, client=client))) for client in clients}
    gone = next(iter(before[clients[0]]))

    made.take_snapshot(snapshot(*(m for m in MANY if m.serviceEndpoint.host != gone), revision=2))
    for client in clients:
        after = set(data(ask(made, WEB, client=client)))
        assert before[client] - {gone} <= after
        assert (len(after), gone in after) == (5, False)


def test_memory_for_parts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many networks ask, entries begin anew at the limit, and answers stay right."""
    monkeypatch.setattr("fairlead_dns.decisions.prepared.CLIENTS_PER_ENTRY", 8)
    made = served(*MANY, record_limit=5)
    for n in range(100):
        assert 5 == len(ask(made, WEB, client=f"10.7.{n}.1").rr)

    (prepared,) = made.answers.cache.entries.values()
    assert 1 <= len(prepared.turns) <= 8


def test_the_caches_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit all is forgotten, and nothing stays behind in the packet tables."""
    monkeypatch.setattr("fairlead_dns.decisions.prepared.CACHE_BYTES", 20_000)
    made = served(*(member(n, name=f"web{n % 30}") for n in range(300)))
    for n in range(30):
        assert 10 == len(ask(made, f"web{n}.marathon.mesos").rr)

    fast = made.front.views.of(UNKNOWN_CLIENT).fast
    kept = {packet for _, packet, _ in made.answers.cache.tables()}
    assert set(fast) == kept
    assert 0 < len(kept) < 30


def test_what_is_dropped_gives_its_room_back() -> None:
    """Else the caches would begin anew ever more often."""
    made = served(*MANY, record_limit=5)
    for n in range(20):
        ask(made, WEB, client=f"10.7.{n}.1")
    full = made.answers.cache._bytes  # what is bounded
    made.take_snapshot(snapshot(member(500), revision=2))

    assert (True, 0, 0) == (full > 0, made.answers.cache._bytes, made.answers.cached)  # see above


def test_nothing_is_kept_for_clients_where_nothing_depends_on_them() -> None:
    """Unset, it costs nothing: all clients share one table, and nobody is classified."""
    made = served(*(member(n, zone="a", region="eu") for n in range(3)))
    for n in range(20):
        ask(made, WEB, client=f"10.9.{n}.1")
        ask(made, SRV, "SRV", client=f"10.9.{n}.1")

    assert {1} == {len(prepared.turns) for prepared in made.answers.cache.entries.values()}
    assert ({}, {}) == (made.answers.clients._known, made.answers.traits._places)  # what it costs
    assert 2 == len(made.front.views.of("10.9.1.1").fast)


def test_the_tables_hold_what_is_answered() -> None:
    """Whole packets less the id, each with a round of its replies: for who answers without asking us."""
    made = served(member(0), member(1))
    packet = query(WEB)
    made.front.reply(packet, Came(Transport.UDP, UNKNOWN_CLIENT))

    ((fast, known, bodies),) = made.answers.cache.tables()
    assert (packet[2:], 2) == (known, len(bodies))
    assert fast[known]() in bodies


members_of = st.lists(
    st.builds(
        lambda n, zone, weight, status: member(n, zone=zone, region="eu" if zone else "", weight=weight, status=status),
        st.integers(0, 5),
        st.sampled_from(["", "a", "b"]),
        st.sampled_from([1.0, 1.0, 0.5, 2.0]),
        st.sampled_from(["ALIVE", "ALIVE", "WARNING", "STOPPING"]),
    ),
    max_size=6,
    unique_by=lambda m: m.task.id,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(members_of, min_size=2, max_size=3), st.sampled_from([0, 2]), st.booleans())
def test_prebuilt_answers_never_outlive_their_truth(history: list[list[Member]], limit: int, own: bool) -> None:
    """After every change, every client gets what a server would give that saw only the last state."""
    manner: dict[str, Any] = {"localities": LOCALITIES, "record_limit": limit, "prefer_own_machine": own}
    made = served(**manner)
    for revision, members in enumerate(history, 2):
        made.take_snapshot(snapshot(*members, revision=revision))
        seen = contents(made)

    assert contents(served(*history[-1], **manner)) == seen


def contents(made: Names) -> Sequence[object]:
    asked = [(n, k, c) for n, k in ((WEB, "A"), (SRV, "SRV")) for c in (A_CLIENT, B_CLIENT, UNKNOWN_CLIENT, "10.0.0.1")]
    replies = [ask(made, name, kind, client=client) for name, kind, client in asked]
    return [(rcode(r), sorted(str(rr) for rr in r.rr), sorted(str(rr) for rr in r.ar)) for r in replies]


# --- the zone's version -----------------------------------------------------------------------------------------------


def version(reply: dnslib.DNSRecord) -> bytes | None:
    options = [o for rr in reply.ar if rr.rtype == wire.OPT for o in rr.rdata if o.code == 19]
    return bytes(options[0].data) if options else None


@pytest.mark.parametrize("name", [WEB, "nope.mesos", "mesos", SRV])
def test_the_zones_version_is_told_when_asked(name: str) -> None:
    """RFC 9660: one label is the zone's, it is SOA's serial, which; also when there is nothing, also over TCP."""
    made = served(member())
    made.take_snapshot(snapshot(member(), revision=77))
    for tcp in (False, True):
        reply = ask(made, name, opt=opt(options=option(19)), tcp=tcp)

        assert b"\1\0\0\0\0\x4d" == version(reply)
    assert version(ask(made, name, opt=opt())) is None
    assert version(ask(made, name)) is None


def test_a_version_in_a_question_is_an_error() -> None:
    """It must be empty there."""
    assert "FORMERR" == rcode(ask(served(member()), WEB, opt=opt(options=option(19, b"\1\0\0\0\0\1"))))


def test_foreign_names_have_no_version() -> None:
    """Nor has what is not ready."""
    assert version(ask(served(member()), "example.com", opt=opt(options=option(19)))) is None
    assert version(ask(Names(Rules(), authority()), WEB, opt=opt(options=option(19)))) is None


def test_a_version_does_not_burst_the_datagram() -> None:
    """Its room is taken off what records may have."""
    made = served(*MANY)
    raw = made.front.reply(query(WEB, opt=opt(800, options=option(19))), Came(Transport.UDP, UNKNOWN_CLIENT))

    assert isinstance(raw, bytes)
    assert 700 < len(raw) <= 800

"""Transfers: the zone at one serial whatever goes on, what has changed, and who may have it."""

import dataclasses
from collections.abc import Iterator
from itertools import pairwise

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_dns.decisions import ledger, wire
from fairlead_dns.decisions.acl import Acl, parse_networks
from fairlead_dns.decisions.asked import Asked, Came, Transport, View
from fairlead_dns.decisions.compose import RRset
from fairlead_dns.decisions.journal import Change, Journal, NameChange, later
from fairlead_dns.decisions.ledger import Ledger, LedgerSource
from fairlead_dns.decisions.naming import Record
from fairlead_dns.decisions.static import StaticSource, difference
from fairlead_dns.decisions.transfer import NOTAUTH, Permit, Transfers
from fairlead_dns.decisions.zone import Zone
from harness.masters import zone as static_zone
from harness.names import authority

APEX, REVERSE = b"\5mesos\0", wire.parse_text("10.in-addr.arpa")
HERE = Permit(Acl(parse_networks(["127.0.0.0/8"])))


def record(name: str, address: int = 1, ttl_s: int = -1) -> Record:
    return Record(wire.parse_text(name), wire.A, bytes((10, 0, address // 256, address % 256)), ttl_s)


class Names:
    """A zone with its ledger, settled at serial 1."""

    def __init__(self, *records: Record, serial: int = 1) -> None:
        self.zone = Zone({APEX, REVERSE})
        self.zone.apply(added=records)
        self.ledger = Ledger(self.zone, authority(), {APEX: Journal(), REVERSE: Journal()})
        self.ledger.settle(serial, at_s=0.0)

    def change(self, serial: int, *, added=(), removed=()) -> None:
        self.zone.apply(added=added, removed=removed)
        self.ledger.settle(serial, at_s=float(serial))

    @property
    def source(self) -> LedgerSource:
        return LedgerSource(self.ledger, APEX)


def asked(
    kind: str = "AXFR",
    *,
    name: str = "mesos",
    serial: int = 0,
    key: bytes | None = None,
    transport: Transport = Transport.TCP,
    client: str = "127.0.0.1",
    room: int | None = None,
) -> Asked:
    query = dns.message.make_query(name, kind)
    if kind == "IXFR":
        query.authority.append(dns.rrset.from_text(f"{name}.", 0, "IN", "SOA", f". . {serial} 0 0 0 0"))
    packet = query.to_wire()
    space = room or (65535 if transport.streams else 1232)
    return Asked(packet, wire.parse_query(packet), Came(transport, client), View(), 0, space, key)


def read(handled) -> list[dns.message.Message]:
    return [dns.message.from_wire(m, xfr=True) for m in (handled if isinstance(handled, Iterator) else [handled])]


def rows(messages: list[dns.message.Message]) -> list[str]:
    """Every record in order; a SOA by its serial."""
    found = []
    for rrset in (rrset for message in messages for rrset in message.answer):
        for data in rrset:
            soa = rrset.rdtype == dns.rdatatype.SOA
            found.append(f"SOA {data.serial}" if soa else f"{rrset.name} {rrset.ttl} {data}")
    return found


def transfers(source, *permits: Permit, apex: bytes = APEX, **limits) -> Transfers:
    return Transfers(permits or (HERE,), sources={apex: source}, **limits)


def test_a_whole_zone_stands_between_two_soas():
    """Server first; names of another of our zones are not in it."""
    names = Names(record("web.mesos"), record("1.0.0.10.in-addr.arpa"), record("web.mesos", 2, ttl_s=2))

    assert [
        "SOA 1",
        "mesos. 5 ns1.mesos.",
        "web.mesos. 2 10.0.0.1",
        "web.mesos. 2 10.0.0.2",
        "SOA 1",
    ] == rows(read(transfers(names.source).reply(asked())))


def test_what_has_changed_comes_as_the_journal_has_it():
    """RFC 1995: the new SOA, then for each change the old SOA, what goes, the next SOA, what comes."""
    names = Names(record("a.mesos"), record("b.mesos"))
    names.change(5, added=[record("c.mesos")], removed=[record("a.mesos")])
    names.change(6, added=[record("b.mesos", 2)], removed=[record("b.mesos")])

    assert [
        "SOA 6",
        *("SOA 1", "a.mesos. 5 10.0.0.1", "SOA 5", "c.mesos. 5 10.0.0.1"),
        *("SOA 5", "b.mesos. 5 10.0.0.1", "SOA 6", "b.mesos. 5 10.0.0.2"),
        "SOA 6",
    ] == rows(read(transfers(names.source).reply(asked("IXFR", serial=1))))


def test_another_ttl_is_another_record():
    """Of a set the TTL is one, so that one contributor's change is a change of all."""
    names = Names(record("a.mesos"), record("a.mesos", 2))
    names.change(2, added=[record("a.mesos", 3, ttl_s=1)])
    found = rows(read(transfers(names.source).reply(asked("IXFR", serial=1))))

    assert ["SOA 2", "SOA 1", "a.mesos. 5 10.0.0.1", "a.mesos. 5 10.0.0.2", "SOA 2"] == found[:5]
    assert [f"a.mesos. 1 10.0.0.{n}" for n in (1, 2, 3)] == found[5:-1]


def test_who_is_up_to_date_gets_the_soa_alone():
    """Also one that is ahead (RFC 1995, 2)."""
    names = Names(record("a.mesos"), serial=7)

    assert [["SOA 7"], ["SOA 7"]] == [
        rows(read(transfers(names.source).reply(asked("IXFR", serial=s)))) for s in (7, 9)
    ]


def test_who_is_further_behind_than_the_journal_gets_all():
    """A bounded journal forgets; so does one whose serial did not rise."""
    names = Names(record("a.mesos"))
    names.ledger.journals[APEX].most_changes = 2
    for serial in (2, 3, 4):
        names.change(serial, added=[record("b.mesos", serial)])
    made = transfers(names.source)

    assert "SOA 4" == rows(read(made.reply(asked("IXFR", serial=1))))[-1]
    assert (1, 0) == (made.counts.whole, made.counts.incremental)
    read(made.reply(asked("IXFR", serial=2)))
    assert (1, 1) == (made.counts.whole, made.counts.incremental)
    names.change(4, added=[record("c.mesos")])
    read(made.reply(asked("IXFR", serial=3)))
    assert (2, 1) == (made.counts.whole, made.counts.incremental)


def test_a_journal_is_bounded_in_bytes():
    """The oldest changes go."""
    soas = [RRset(APEX, wire.SOA, 5, (wire.soa_rdata(b"\0", b"\0", n, (0, 0, 0, 0)),)) for n in range(50)]
    held = (RRset(b"\1a\0", 16, 5, (b"x" * 1000,)),)
    journal = Journal(most_bytes=20_000)
    for before, after in pairwise(soas):
        journal.append(Change(before, after, 0.0, (NameChange(b"\1a\0", (), held),)))

    assert 10 < len(journal.changes) < 20
    assert journal.since(47, 49) is not None
    assert journal.since(1, 49) is None


def test_over_udp_changes_come_if_they_fit_and_else_the_soa():
    """RFC 1995, 2: a lone newer SOA sends the client to TCP. A whole zone never goes over UDP."""
    names = Names(record("a.mesos"))
    names.change(2, added=[record("b.mesos")])
    names.change(3, added=[record("c.mesos", n) for n in range(100)])
    made = transfers(names.source)

    assert ["SOA 3"] == rows(read(made.reply(asked("IXFR", serial=1, transport=Transport.UDP))))
    assert ["SOA 3"] == rows(read(made.reply(asked("IXFR", serial=0, transport=Transport.UDP))))
    names.change(4, removed=[record("b.mesos")])
    assert 5 == len(rows(read(made.reply(asked("IXFR", serial=3, transport=Transport.UDP)))))


def test_a_running_transfer_does_not_see_what_changes_meanwhile():
    """Neither settled changes nor unsettled ones, whatever is added, removed, moved or put back."""
    before = [record(f"h{n}.mesos", n) for n in range(3000)]
    names = Names(*before)
    quiet = rows(read(transfers(names.source).reply(asked())))
    running = transfers(names.source).reply(asked())
    parts = [dns.message.from_wire(next(running), xfr=True)]
    names.change(2, removed=before[:2000], added=[record("new.mesos")])
    parts.append(dns.message.from_wire(next(running), xfr=True))
    names.zone.apply(added=before[500:700], removed=before[2500:])
    parts += [dns.message.from_wire(m, xfr=True) for m in running]

    assert quiet == rows(parts)
    assert len(parts) > 2


def test_unsettled_changes_have_no_serial_yet():
    """Between two settlings the zone is as it was at the last."""
    names = Names(record("a.mesos"))
    names.zone.apply(added=[record("b.mesos")], removed=[record("a.mesos")])

    assert ["SOA 1", "mesos. 5 ns1.mesos.", "a.mesos. 5 10.0.0.1", "SOA 1"] == rows(
        read(transfers(names.source).reply(asked()))
    )


def test_a_serial_never_goes_back():
    """What changed under an older revision waits for a later one."""
    names = Names(record("a.mesos"), serial=10)
    names.change(4, added=[record("b.mesos")])
    assert 10 == names.ledger.serial
    names.change(11)

    assert ["SOA 11", "SOA 10", "SOA 11", "b.mesos. 5 10.0.0.1", "SOA 11"] == rows(
        read(transfers(names.source).reply(asked("IXFR", serial=10)))
    )


def test_the_zone_may_change_while_it_is_settled(monkeypatch):
    """What a settling began with is what gets its serial; until its end the one before is given."""
    monkeypatch.setattr(ledger, "STEP", 1)
    names = Names(record("a.mesos"), record("b.mesos"), record("c.mesos"))
    names.zone.apply(added=[record("d.mesos")], removed=[record("a.mesos"), record("b.mesos")])
    made = transfers(names.source)
    settling = names.ledger.settling(2, at_s=0.0)
    next(settling)
    meanwhile = made.reply(asked())
    names.zone.apply(added=[record("a.mesos"), record("e.mesos")], removed=[record("d.mesos"), record("c.mesos")])
    ours = rows(read(made.reply(asked())))
    assert [True] == [moved for moved in settling if moved]

    assert ["SOA 1", "mesos. 5 ns1.mesos.", *(f"{n}.mesos. 5 10.0.0.1" for n in "abc"), "SOA 1"] == sorted_rows(ours)
    assert sorted_rows(ours) == sorted_rows(rows(read(meanwhile)))
    assert ["SOA 2", "mesos. 5 ns1.mesos.", *(f"{n}.mesos. 5 10.0.0.1" for n in "cd"), "SOA 2"] == sorted_rows(
        rows(read(made.reply(asked())))
    )
    names.ledger.settle(3, at_s=0.0)
    one_to_three = rows(read(made.reply(asked("IXFR", serial=1))))
    assert {"mesos. 5 ns1.mesos.", "a.mesos. 5 10.0.0.1", "e.mesos. 5 10.0.0.1"} == whole(made)
    assert whole(made) == applied(frozenset(ours[1:-1]), one_to_three)


def sorted_rows(found: list[str]) -> list[str]:
    """Between the SOAs; a server's NS first."""
    return [found[0], found[1], *sorted(found[2:-1]), found[-1]]


def test_long_zones_come_in_bounded_messages():
    """Each under 16 KiB, the question in the first alone, all records in all."""
    names = Names(*(record(f"h{n}.mesos", n) for n in range(1500)))
    raw = list(transfers(names.source).reply(asked()))

    assert max(map(len, raw)) <= 16_000
    assert [1] + [0] * (len(raw) - 1) == [len(m.question) for m in read(iter(raw))]
    assert 1503 == len(rows(read(iter(raw))))


@pytest.mark.parametrize(
    ("permit", "client", "key", "code"),
    [
        (Permit(Acl(parse_networks(["10.0.0.0/8"]))), "127.0.0.1", None, wire.REFUSED),
        (Permit(Acl(parse_networks(["any"])), b"\1k\0"), "127.0.0.1", None, wire.REFUSED),
        (Permit(Acl(parse_networks(["any"])), b"\1k\0"), "127.0.0.1", b"\1j\0", wire.REFUSED),
        (Permit(Acl(parse_networks(["10.0.0.0/8"])), b"\1k\0"), "127.0.0.1", b"\1k\0", wire.REFUSED),
        (Permit(Acl(parse_networks(["any"])), b"\1k\0"), "127.0.0.1", b"\1k\0", wire.NOERROR),
    ],
)
def test_only_who_may_gets_it(permit, client, key, code):
    """Network and key must both hold; for IXFR as for AXFR."""
    made = transfers(Names().source, permit)

    assert {code} == {read(made.reply(asked(kind, client=client, key=key)))[0].rcode() for kind in ("AXFR", "IXFR")}


def test_names_that_are_no_apex_zones_not_ready_and_bad_questions():
    """NOTAUTH; SERVFAIL; FORMERR for an IXFR without the SOA the client has."""
    unready = Names()
    unready.ledger.serial = None
    bare = dns.message.make_query("mesos", "IXFR").to_wire()
    question = dataclasses.replace(asked(), packet=bare, query=wire.parse_query(bare))

    assert NOTAUTH == read(transfers(Names().source).reply(asked(name="web.mesos")))[0].rcode()
    assert wire.SERVFAIL == read(transfers(unready.source).reply(asked()))[0].rcode()
    assert wire.FORMERR == read(transfers(Names().source).reply(question))[0].rcode()


def test_only_so_many_zones_are_sent_at_once():
    """The next client is put off, until one is done or its connection is gone; IXFR is not counted."""
    names = Names(record("a.mesos"))
    names.change(2, added=[record("b.mesos")])
    made = transfers(names.source, most=1)
    first = made.reply(asked())

    assert wire.SERVFAIL == read(made.reply(asked()))[0].rcode()
    assert "SOA 2" == rows(read(made.reply(asked("IXFR", serial=1))))[0]
    del first
    assert "SOA 2" == rows(read(made.reply(asked())))[0]
    assert 1 == made.counts.put_off


def test_a_zone_of_a_file_is_transferred_too():
    """Its own SOA; what has changed by comparing the old with the new."""
    source = StaticSource(static_zone("a A 10.0.0.1\nb TXT x\n"), Journal())
    made = transfers(source, apex=wire.parse_text("example.org"))
    new = static_zone("b TXT x\nc A 10.0.0.3\n", head=HEAD_2)
    source.replace(new, difference(source.zone, new, at_s=1.0))

    assert [
        "SOA 2",
        *("SOA 1", "a.example.org. 300 10.0.0.1", "SOA 2", "c.example.org. 300 10.0.0.3"),
        "SOA 2",
    ] == rows(read(made.reply(asked("IXFR", name="example.org", serial=1))))
    assert ["SOA 2", "example.org. 300 ns1.example.org.", "ns1.example.org. 300 10.0.0.1"] == rows(
        read(made.reply(asked(name="example.org")))
    )[:3]


HEAD_2 = "$TTL 300\n@ IN SOA ns1 root 2 3600 600 86400 60\n@ NS ns1\nns1 A 10.0.0.1\n"

steps = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from([-1, 1, 9])), max_size=3),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(steps=steps, begin=st.integers(2, 6))
def test_every_ixfr_leads_from_its_serial_to_the_whole_zone(steps, begin):
    """For every serial that was ever settled: its zone, less what goes, plus what comes, is the zone of now. A transfer
    that began on the way ends with the zone it began with.
    """
    running, begun = iter([]), frozenset()
    names = Names()
    made = transfers(names.source)
    known = {1: whole(made)}
    there: list[Record] = []
    for serial, (settle, drawn) in enumerate(steps, start=2):
        if serial == begin:
            begun, running = whole(made), made.reply(asked())
        added = [record(f"{name}.mesos", n, ttl_s) for name, n, ttl_s in drawn]
        gone = there[::2]
        there = there[1::2] + added
        names.zone.apply(added=added, removed=gone)
        if settle:
            names.ledger.settle(serial, at_s=0.0)
            known[serial] = whole(made)
    assert begun == frozenset(rows(read(running))[1:-1])
    now = whole(made)
    for serial, zone in known.items():
        found = rows(read(made.reply(asked("IXFR", serial=serial))))

        assert now == applied(zone, found)


def whole(made: Transfers) -> frozenset[str]:
    found = rows(read(made.reply(asked())))
    records = found[1:-1]
    assert len(records) == len(set(records))
    return frozenset(records)


def applied(zone: frozenset[str], found: list[str]) -> frozenset[str]:
    """As a strict secondary does it: what goes must be there, what comes must not."""
    kept = set(zone)
    adding = True
    for row in found[1:-1]:
        if row.startswith("SOA "):
            adding = not adding
        elif adding:
            assert row not in kept
            kept.add(row)
        else:
            kept.remove(row)
    return frozenset(kept)


def test_serials_go_round():
    """RFC 1982."""
    assert later(0, 2**32 - 1)
    assert later(5, 2**32 - 5)
    assert not later(2**32 - 1, 0)
    assert not later(7, 7)

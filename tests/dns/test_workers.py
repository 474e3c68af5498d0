"""What worker processes share: the store against a dict, and answers from it against answers from the zone itself."""

from collections.abc import Collection
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_daemon.settings import convert
from fairlead_discovery.decisions.localities import Place
from fairlead_discovery.records import Discovery, Ips, Member, Port
from fairlead_dns.decisions.answer import Answers
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.clients import Clients, Locality
from fairlead_dns.decisions.front import Front, Route
from fairlead_dns.decisions.naming import Rules
from fairlead_dns.decisions.shared_zone import Published, Read, Routes, SharedTraits, SharedZone
from fairlead_dns.decisions.store import BUCKETS, Reader, StoreError, Writer
from fairlead_dns.names import Manner, Names
from fairlead_dns.settings import DnsSettings
from fairlead_dns.worker import share
from harness.names import ask, authority, member, opt, query, snapshot

KEYS = st.integers(0, 11).map(lambda n: b"k%d" % n)
STEPS = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 40).map(lambda n: b"v" * n), st.booleans()), max_size=60)


def memory(size_bytes: int = 1 << 20) -> memoryview:
    return memoryview(bytearray(size_bytes))


@given(STEPS)
def test_a_store_is_a_dict(steps: list[tuple[bytes, bytes | None, bool]]) -> None:
    """Whatever is put and removed, whenever what was let go is used again: readers find exactly what stands there."""
    shared = memory()
    writer, reader = Writer(shared), Reader(shared.toreadonly())
    known: dict[bytes, bytes] = {}
    for number, (key, value, settled) in enumerate(steps):
        writer.change = number
        if value is None:
            assert writer.remove(key) == (known.pop(key, None) is not None)
        else:
            assert writer.put(key, value) == (known.get(key) != value)
            known[key] = value
        if settled:
            writer.settle(number)
        assert known == {k: v for n in range(12) if (v := reader.get(k := b"k%d" % n)) is not None}
    assert len(known) == writer.count


def test_what_changes_for_ever_needs_no_more_room() -> None:
    """A name that changes a thousand times takes the room of a few, once readers have gone on."""
    writer = Writer(memory())
    for number in range(50):
        writer.put(b"web", b"%d" % number)
        writer.settle(0)
    used = writer.used
    for number in range(1000):
        writer.put(b"web", b"%d" % number)
        writer.settle(0)

    assert used == writer.used


def test_what_a_reader_may_still_read_is_not_written_over() -> None:
    """Until it has said that it has gone on, each value has a place of its own."""
    writer = Writer(memory())
    writer.change = 7
    writer.put(b"web", b"old")
    used = writer.used
    writer.put(b"web", b"new")
    writer.settle(6)
    writer.put(b"web", b"end")

    assert used < writer.used


def test_a_full_store_says_so() -> None:
    """And what stands in it stays."""
    writer = Writer(memory((BUCKETS + 64) * 8))
    writer.put(b"web", b"here")

    with pytest.raises(StoreError, match="full"):
        writer.put(b"other", bytes(4096))
    assert b"here" == writer.get(b"web")


def test_nonsense_is_told_from_a_value() -> None:
    """A record that is not whole is read again and again, then refused: never answered."""
    shared = memory()
    writer = Writer(shared)
    writer.put(b"web", b"here")
    at = bytes(shared).index(b"webhere")
    shared[at : at + 3] = b"wob"

    with pytest.raises(StoreError, match="not readable"):
        Reader(shared).get(b"web")


ZONES = [("", ""), ("a", "eu"), ("b", "eu"), ("c", "us")]


def members() -> st.SearchStrategy[list[Member]]:
    def made(number: int, service: int, stands: tuple[str, str], weight: float, own: bool) -> Member:
        ips = Ips(host=(f"10.0.0.{number + 1}",), netinfo=(f"172.16.0.{number}",) if own else ())
        ports = (Port(index=0, number=80, host_port=31000 + number, name="http"),)
        zone, region = stands
        return member(number, name=f"web{service}", ips=ips, ports=ports, weight=weight, zone=zone, region=region)

    one = st.builds(
        made, st.integers(0, 5), st.integers(0, 1), st.sampled_from(ZONES), st.sampled_from([1.0, 0.5]), st.booleans()
    )
    return st.lists(one, max_size=6, unique_by=lambda m: m.task.id)


QUESTIONS = [
    *((f"web{n}.marathon.mesos", kind) for n in range(2) for kind in ("A", "AAAA", "SRV", "ANY")),
    *((f"_web{n}._tcp.marathon.mesos", "SRV") for n in range(2)),
    *((f"{n}.0.16.172.in-addr.arpa", "PTR") for n in range(3)),
    ("_tcp.marathon.mesos", "A"),
    ("nothing.mesos", "A"),
    ("mesos", "SOA"),
    ("mesos", "NS"),
]
NEAR = Locality(ip_network("192.0.2.0/24"), Place("a", "eu"))
CLIENTS = ("192.0.2.1", "198.51.100.1")


class Pair:
    """Who builds the names, and a worker that answers from what the other has written."""

    def __init__(self, *, near: bool) -> None:
        manner = Manner(localities=(NEAR,) if near else ())
        self.names = Names(Rules(), authority(), manner)
        self.names.answers.chance = lambda: 0.5
        writer = Writer(memory())
        self.published = Published(writer, self.names.zone, self.names.answers.traits, self.names.authority.ttl_s)
        read = Read(Reader(writer.memory.toreadonly()))
        zone = SharedZone(self.names.authority.apexes, read)
        traits = SharedTraits(read, places=near)
        self.read = read
        self.answers = Answers(
            zone, self.names.authority, lambda: 0.5, traits, Clients(manner.localities), self.names.manner.chooser
        )
        self.front = Front(lambda: 0.0, routes=Routes(read, Route(self.answers)))
        for apex in self.names.authority.apexes:
            self.front.serve(apex, self.answers)
        if near:
            self.front.views.classify = lambda client: self.answers.clients.of(client).place
        self.names.share = self.told

    def take(self, *members: Member, revision: int = 1) -> None:
        begun = self.names.answers.trust is not None
        self.names.take_snapshot(snapshot(*members, revision=revision))
        if not begun:
            self.published.write({*self.names.zone.names, *self.names.zone.below})
            self.read.forget()

    def told(self, names: Collection[bytes], everything: bool) -> None:
        self.published.write(names)
        self.read.forget()
        if everything:
            self.answers.forget()
        known = self.names.answers
        if known.trust is not None:
            self.answers.changed(names, serial=known.serial, trust=known.trust)


@given(st.lists(members(), min_size=1, max_size=3), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_worker_answers_what_who_builds_the_names_would(states: list[list[Member]], near: bool) -> None:
    """Byte for byte, of all kinds of names, for clients near and far, also of what it has answered before."""
    pair = Pair(near=near)
    for revision, some in enumerate(states):
        pair.take(*some, revision=revision)
        for name, kind in QUESTIONS:
            for client in CLIENTS:
                came = Came(Transport.UDP, client)
                packet = query(name, kind, opt=opt())
                assert pair.names.front.reply(packet, came) == pair.front.reply(packet, came), (name, kind, client)


def test_a_larger_ttl_is_given_by_workers_too() -> None:
    """When it has been announced, and not before."""
    pair = Pair(near=False)
    pair.names.allow_ttl(5)
    long = member(discovery=Discovery(labels={"FAIRLEAD_DNS_TTL": "20"}))
    pair.take(long)
    before = ask(pair.answers, "web.marathon.mesos").rr[0].ttl
    pair.names.allow_ttl(20)

    assert [5, 20] == [before, ask(pair.answers, "web.marathon.mesos").rr[0].ttl]


def test_together_workers_may_what_the_settings_say() -> None:
    """Limits are shared out, rounded up; what is not limited stays so."""
    whole = convert(DnsSettings, {"rate_answers": 5, "waiting": 1000, "tcp_connections": 3}, where="test")
    each = share(whole, 4)

    assert (2, 0, 250, 1) == (each.rate_answers, each.rate_errors, each.waiting, each.tcp_connections)

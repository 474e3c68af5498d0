"""What the forwarder keeps and for how long; how its upstreams are doing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import BadSettings
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.forward import SILENT
from fairlead_dns.decisions.forward_cache import Cache, Entry, Key, Policy
from fairlead_dns.decisions.forward_upstreams import (
    LONGEST_PAUSE_S,
    Circuit,
    Group,
    Place,
    Upstream,
    parse_place,
    resolv_conf,
    without_ourselves,
)
from fairlead_dns.decisions.forward_wire import Reply
from harness.forwarding import KEY, UP, WWW, forwarding, read, replied
from harness.names import query
from harness.upstreams import negative

# --- the cache --------------------------------------------------------------------------------------------------------


def key(number: int) -> Key:
    return Key(bytes((1, 97 + number, 0)), 1, False, False)


def test_an_answer_is_kept_for_its_time_and_then_stale() -> None:
    """Fresh, then still there to be given stale, then gone."""
    cache = Cache(Policy(stale_s=100))
    cache.keep(KEY, replied("192.0.2.1", ttl_s=10), 0.0)

    found = [cache.find(KEY, now_s) for now_s in (9.9, 10.0, 109.9, 110.0)]
    assert [True, False, False, None] == [
        None if e is None else e.fresh(n) for e, n in zip(found, (9.9, 10.0, 109.9, 110.0), strict=True)
    ]
    assert (0, 0) == (len(cache.entries), cache.used_bytes)


def test_type_do_and_cd_are_questions_of_their_own() -> None:
    """Each is kept apart."""
    cache = Cache(Policy())
    keys = [Key(WWW, k, do, cd) for k in (1, 28) for do in (False, True) for cd in (False, True)]
    cache.keep(keys[0], replied("192.0.2.1"), 0.0)

    assert [True] + [False] * 7 == [cache.find(k, 1.0) is not None for k in keys]


def test_longest_times_are_the_settings() -> None:
    """A year becomes a day, a negative answer's day an hour."""
    cache = Cache(Policy(longest_s=86_400, negative_longest_s=3_600))
    long, no = (
        cache.keep(KEY, replied("192.0.2.1", ttl_s=10**7), 0),
        cache.keep(key(1), read(negative(query("a"), soa_ttl_s=10**6, minimum_s=10**6)), 0),
    )

    assert (86_400, 3_600) == (long and long.keep_s, no and no.keep_s)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(wire.SERVFAIL, keep_s=10),
        Reply(wire.REFUSED, keep_s=10),
        Reply(0, keep_s=None),
        Reply(0, keep_s=0),
        Reply(0, cut=True, keep_s=9),
    ],
)
def test_what_may_not_be_kept_is_not(reply: Reply) -> None:
    """Errors, cut replies, TTL 0, negative ones without SOA; an older answer goes too."""
    cache = Cache(Policy())
    cache.keep(KEY, replied("192.0.2.1"), 0.0)

    assert (None, None) == (cache.keep(KEY, reply, 1.0), cache.find(KEY, 1.0))


def test_entries_are_bounded_and_what_is_asked_for_stays() -> None:
    """Five into four: the one nobody has asked for goes."""
    cache = Cache(Policy(entries=4))
    for number in range(4):
        cache.keep(key(number), replied("192.0.2.1"), 0.0)
    for number in (0, 1, 3):
        cache.find(key(number), 1.0)
    cache.keep(key(4), replied("192.0.2.1"), 1.0)

    assert [True, True, False, True, True] == [key(n) in cache.entries for n in range(5)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60), st.booleans()), max_size=80))
def test_bytes_are_bounded_whatever_comes(steps: list[tuple[int, int, bool]]) -> None:
    """And the book-keeping is the truth."""
    cache = Cache(Policy(entries=6, bytes=20_000))
    for number, size, look in steps:
        cache.keep(key(number), replied(*(["192.0.2.1"] * size)), 0.0)
        if look:
            cache.find(key(number), 0.0)

    assert sum(e.cost for e in cache.entries.values()) == cache.used_bytes <= 20_000
    assert len(cache.entries) <= 6


def test_a_failure_never_replaces_a_good_answer() -> None:
    """The older one is given, and upstreams are left alone for 30 s."""
    cache = Cache(Policy())
    cache.keep(KEY, replied("192.0.2.1", ttl_s=10), 0.0)
    entry = cache.keep_failure(KEY, SILENT, 20.0)

    assert (None, 50.0, wire.NOERROR) == (entry.failure, entry.quiet_until_s, entry.reply.rcode)


def test_popular_answers_are_wanted_again_shortly_before_their_time() -> None:
    """Three hits and the last tenth; not the others."""
    cache = Cache(Policy())
    entry = Entry(KEY, replied("192.0.2.1"), 0.0, 100, hits=3)

    assert [False, True] == [cache.wants_prefetch(entry, now_s) for now_s in (89.0, 90.0)]
    assert not cache.wants_prefetch(Entry(KEY, replied(), 0.0, 100, hits=2), 95.0)
    assert not cache.wants_prefetch(Entry(KEY, replied(), 0.0, 5, hits=9), 4.9)


# --- upstreams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", Place("10.0.0.1", 53)),
        ("10.0.0.1:5300", Place("10.0.0.1", 5300)),
        ("fd00::1", Place("fd00::1", 53)),
        ("[fd00::1]:5300", Place("fd00::1", 5300)),
        ("tcp://10.0.0.1", Place("10.0.0.1", 53, "tcp")),
        ("tls://10.0.0.1#dns.example", Place("10.0.0.1", 853, "tls", "dns.example")),
        ("tls://[fd00::1]:8853", Place("fd00::1", 8853, "tls")),
    ],
)
def test_how_upstreams_are_written(text: str, expected: Place) -> None:
    """And read back."""
    assert (expected, expected) == (parse_place("x", text), parse_place("x", str(expected)))


@pytest.mark.parametrize(
    "text",
    ["", "dns.example", "10.0.0.1:x", "10.0.0.1:70000", "http://10.0.0.1", "10.0.0.1#a", "tls://10.0.0.1#", "10.0.0"],
)
def test_what_is_no_upstream_names_the_key(text: str) -> None:
    """No host names: they would have to be resolved first."""
    with pytest.raises(BadSettings, match=r"resolvers: .*is no upstream"):
        parse_place("resolvers", text)


def test_resolv_conf_without_ourselves() -> None:
    """Comments, options and what cannot be read are passed over, our own address too."""
    places = resolv_conf(
        "# x\nsearch a\nnameserver 127.0.53.53\nnameserver 10.0.0.2 # y\nnameserver fe80::1%eth0\nnameserver x\n"
    )

    assert [Place("10.0.0.2", 53)] == without_ourselves(places, [("127.0.53.53", 53)])


def test_three_failures_make_suspect_and_a_failed_probe_opens() -> None:
    """Suspect is probed at once; open not before the pause, which doubles up to five seconds; one probe at a time."""
    upstream = Upstream(UP)
    for _ in range(3):
        upstream.failed(1.0)
    was = (upstream.circuit, upstream.due(1.0))
    pauses = []
    for _ in range(6):
        upstream.probe_failed(10.0)
        pauses.append(upstream.probe_at_s - 10.0)

    assert ((Circuit.SUSPECT, True), Circuit.OPEN) == (was, upstream.circuit)
    assert [0.5, 1.0, 2.0, 4.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S] == pauses
    assert [False, True] == [upstream.due(now_s) for now_s in (14.9, 15.0)]
    upstream.probing = True
    assert not upstream.due(15.0)


def test_one_reply_closes_the_circuit() -> None:
    """And the next trouble begins with the shortest pause."""
    upstream = Upstream(UP)
    upstream.probe_failed(1.0)
    upstream.probe_answered(0.01)

    assert (Circuit.CLOSED, 0, 0.0) == (upstream.circuit, upstream.failures, upstream.pause_s)


def test_an_upstream_that_leads_back_stays_open() -> None:
    """Although it answers; until a probe does not come round."""
    upstream = Upstream(UP)
    upstream.looped(1.0)
    upstream.answered(0.01)
    still = upstream.circuit
    upstream.probe_answered(0.01)

    assert (Circuit.OPEN, Circuit.CLOSED) == (still, upstream.circuit)


def test_the_fastest_comes_first_in_a_race_and_the_written_order_otherwise() -> None:
    """Open ones are not asked; suspect ones only when there is no other."""
    slow, fast, dead, shaky = (Upstream(Place("10.0.0.1", n)) for n in range(1, 5))
    slow.answered(0.2)
    fast.answered(0.01)
    dead.probe_failed(0.0)
    for _ in range(3):
        shaky.failed(0.0)
    all_four = (slow, fast, dead, shaky)

    assert [fast, slow] == Group(b"\0", all_four).order()
    assert [slow, fast] == Group(b"\0", all_four, race=False).order()
    assert [shaky] == Group(b"\0", (dead, shaky)).order()
    assert [] == Group(b"\0", (dead,)).order()


def test_a_slow_upstream_is_tried_again_by_and_by() -> None:
    """Its round trip is forgotten with every answer of another."""
    slow, fast = Upstream(UP), Upstream(Place("10.0.0.1", 2))
    slow.answered(0.4)
    fast.answered(0.05)
    group = Group(b"\0", (slow, fast))
    for _ in range(200):
        group.answered_by(fast)

    assert [slow, fast] == group.order()


def test_the_longest_zone_counts() -> None:
    """A name at, below and beside zones with upstreams of their own."""
    made = forwarding(example=Place("10.0.0.1", 1), deep_example=Place("10.0.0.1", 2))

    def port(name: str) -> int:
        parsed = wire.parse_query(query(name))
        group = made.zones.find(parsed.name, parsed.starts)
        return group.upstreams[0].place.port if group else 0

    assert [1, 1, 2, 2, 5300, 5300] == [
        port(n) for n in ("example", "www.example", "deep.example", "x.deep.example", "notexample", "")
    ]

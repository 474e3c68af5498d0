"""Which way requests may go: shares as buckets, targets, fallbacks, and what is refused."""

import re
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_discovery.policies import (
    AnyPolicy,
    Canary,
    CanaryStage,
    Failover,
    Intentions,
    Policy,
    Share,
    Source,
    Split,
    Target,
    name_of,
)
from fairlead_discovery.records import Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb import split_pages
from fairlead_lb.decisions import buckets, falling, picture, render, routes, spares, splits
from fairlead_lb.decisions.falling import Pin
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.splits import Way
from fairlead_lb.decisions.values import Key, Maps
from harness.balancer import member
from harness.haproxy_model import AROUND, FRAME, Model

A, B, C, T = (f"o:{n}" for n in "abct")
MODES = {Key(A, 0): "http", Key(B, 0): "http", Key(C, 0): "http", Key(T, 0): "tcp"}
NAMES = {Key(A, 0): "a_p0", Key(B, 0): "b_p0", Key(C, 0): "c_p0", Key(T, 0): "t_p0"}


def named(*policies: Policy) -> dict[str, AnyPolicy]:
    return {name_of(p): p for p in policies}  # type: ignore[misc]  # each is one of them


def split(*shares: tuple[str, float], sticky: str = "", service: str = A) -> Split:
    return Split(service=service, shares=tuple(Share(service=s, percent=p) for s, p in shares), sticky=sticky)


def drawn(shares: dict[str, str], backend: str) -> list[str]:
    """Who gets each bucket, as HAProxy's longest prefix finds it; "" is the rest."""
    found = []
    for draw in range(buckets.FIRST, buckets.FIRST + buckets.BUCKETS):
        keys = [f"{backend}:{str(draw)[:n]}" for n in range(5, 0, -1)]
        found.append(next((shares[k] for k in keys if k in shares), ""))
    return found


sizes = st.sampled_from((0, 1, 7, 100, 999, 1234, 2500, 3333))


@settings(max_examples=30, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=3))
def test_every_share_gets_exactly_its_buckets(given_sizes: list[int]):
    """Whatever the sizes: as many as asked, none twice, and in few entries."""
    found: dict[str, str] = {}
    for number, (low, high) in enumerate(buckets.intervals(given_sizes)):
        entries = {f"x:{prefix}": f"t{number}" for prefix in buckets.prefixes(low, high)}
        assert not entries.keys() & found.keys()
        assert len(entries) <= 72
        found |= entries
    got = drawn(found, "x")

    assert given_sizes == [got.count(f"t{n}") for n in range(len(given_sizes))]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=4), st.integers(0, 50))
def test_a_share_that_grows_takes_no_client_back(percents: list[int], other: int):
    """Neither its own nor those of a second share."""
    before: list[str] = []
    for percent in sorted(percents):
        way = Way(shares=((Key(B, 0), percent * 100), (Key(C, 0), other * 100)))
        now = drawn(dict(splits.tables({Key(A, 0): way}, NAMES)["shares"]), "a_p0")
        assert all(now[n] == who for n, who in enumerate(before) if who)
        before = now


def test_five_percent_are_five_entries():
    """A whole share is one."""
    assert ["100", "101", "102", "103", "104"] == list(buckets.prefixes(0, 500))
    assert ["1"] == list(buckets.prefixes(0, 10_000))


def test_a_split_is_a_way_and_its_shares():
    """With a salt of its own, so that a client's luck in one service is not its luck in another."""
    found = splits.ways(named(split((B, 10), sticky="cookie"), split((C, 5), service=B)), MODES)
    tables = splits.tables(found.ways, NAMES)

    assert {} == found.problems
    assert f"cookie:{splits.salt(Key(A, 0))}" == tables["ways"]["a_p0"]
    assert tables["ways"]["a_p0"].partition(":")[2] != tables["ways"]["b_p0"].partition(":")[2]
    assert "b_p0" == tables["shares"]["a_p0:10"]
    assert {"a_p0:10": "b_p0", **{f"b_p0:10{n}": "c_p0" for n in range(5)}} == tables["shares"]


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (split((B, 60), (C, 50)), "split: the shares are more than 100 %"),
        (split((B, -1)), "split: share to o:b: -1 %: not between 0 and 100"),
        (split((B, float("nan"))), "split: share to o:b: nan %: not between 0 and 100"),
        (split((A, 1)), "split: a service keeps what is left over; it needs no share of its own"),
        (split((B, 1), (B, 2)), "split: two shares go to one service"),
        (split((B, 1), sticky="moon"), "split: sticky 'moon': one of cookie, source, header"),
        (split((T, 1)), "share to o:t port 0: it is tcp, not http"),
        (split(("o:x", 1)), "share to o:x port 0: nothing is known of it"),
        (
            split((A, 1), service=T, sticky="cookie"),
            "split: sticky by cookie needs mode http, not tcp; by source would do",
        ),
        (split((B, 1), service="o:x"), "split: o:x port 0 has no route"),
        (Failover(service=A), "failover: 0 fallbacks; between 1 and 3"),
        (Failover(service=A, to=(Target(service=A),)), "failover: a service cannot stand in for itself"),
        (Failover(service=A, to=(Target(service=T),)), "failover to o:t port 0: it is tcp, not http"),
        (
            Failover(service=A, to=(Target(service=B),), min_ready=0),
            "failover: min_ready 0: not between 1 and 1000",
        ),
    ],
)
def test_what_cannot_be_is_told_and_takes_no_request_away(policy: Policy, told: str):
    """The requests stay with the service."""
    found = splits.ways(named(policy), MODES)
    tables = splits.tables(found.ways, NAMES)

    assert {policy.service: told} == found.problems
    assert ({}, {}) == (tables["shares"], tables["falls"])


CANARY = Canary(service=A, id="1", to=Target(service=B), steps=(5, 50), sticky="")


@pytest.mark.parametrize(
    ("order", "stage", "percent"),
    [
        ("run", None, 0),
        ("run", CanaryStage(service=A, id="0", percent=50), 0),
        ("run", CanaryStage(service=A, id="1", percent=5), 5),
        ("run", CanaryStage(service=A, id="1", percent=500), 0),
        ("run", CanaryStage(service=A, id="1", state="aborted"), 0),
        ("abort", CanaryStage(service=A, id="1", percent=50), 0),
        ("promote", CanaryStage(service=A, id="1", percent=5), 100),
    ],
)
def test_a_canary_alone_decides_and_the_operators_word_counts_at_once(
    order: str, stage: CanaryStage | None, percent: float
):
    """Also before the leading balancer has seen it; the stage of an earlier canary is nobody's."""
    canary = msgspec.structs.replace(CANARY, order=order)
    found = splits.ways(named(canary, split((C, 90)), *([stage] if stage else [])), MODES)

    assert ((Key(B, 0), percent * 100),) == found.ways[Key(A, 0)].shares
    assert "canary" == found.ways[Key(A, 0)].why


@pytest.mark.parametrize(
    ("canary", "modes", "told"),
    [
        (CANARY, MODES, ("running", 5.0, "step 1 of 2")),
        (CANARY, None, ("running", 5.0, "step 1 of 2")),
        (CANARY, {Key(A, 0): "http"}, ("refused", 0.0, "share to o:b port 0: nothing is known of it")),
        (CANARY, {Key(A, 0): "http", Key(B, 0): "tcp"}, ("refused", 0.0, "share to o:b port 0: it is tcp, not http")),
        (CANARY, {}, ("refused", 0.0, "o:a port 0 has no route")),
        (
            msgspec.structs.replace(CANARY, sticky="moon"),
            None,
            ("refused", 0.0, "sticky 'moon': one of cookie, source, header"),
        ),
        (
            msgspec.structs.replace(CANARY, every_s=0),
            MODES,
            ("running", 5.0, "it goes no further: every 0 s: not between 1 and 2.592e+06 s"),
        ),
    ],
)
def test_a_canary_is_shown_with_what_is_in_force(
    canary: Canary, modes: dict[Key, str] | None, told: tuple[str, float, str]
):
    """One that is refused gives no share, whatever its stage says."""
    stage = CanaryStage(service=A, id="1", percent=5, reason="step 1 of 2")
    [found] = split_pages.canaries_of(named(canary, stage), modes)
    in_force = splits.ways(named(canary, stage), MODES if modes is None else modes).ways.get(Key(A, 0), Way())

    assert told == (found["state"], found["percent"], found["reason"])
    assert int(told[1] * 100) == sum(size for _, size in in_force.shares)


def test_fallbacks_stand_in_their_order():
    """With the number of servers below which they are asked."""
    failover = Failover(service=A, to=(Target(service=B), Target(service=C)), min_ready=2)
    tables = splits.tables(splits.ways(named(failover), MODES).ways, NAMES)

    assert {"a_p0:1": "b_p0", "a_p0:2": "c_p0"} == tables["falls"]
    assert ({"a_p0": "2"}, {}) == (tables["least"], tables["shares"])


FALLS = {Key(A, 0): Way(falls=(Key(B, 0),), min_ready=2, back_after_s=10)}


@pytest.mark.parametrize(
    ("ready", "before", "after"),
    [
        (2, None, None),
        (1, None, Pin()),
        (0, Pin(95.0), Pin()),
        (2, Pin(), Pin(100.0)),
        (2, Pin(91.0), Pin(91.0)),
        (3, Pin(90.0), None),
    ],
)
def test_coming_back_waits_until_there_were_enough_servers_for_long(ready: int, before: Pin | None, after: Pin | None):
    """A server that flaps starts the wait anew; falling over waits for nobody."""
    held = {Key(A, 0): before} if before is not None else {}
    found = falling.pins(FALLS, {Key(A, 0): ready}, held, 100.0)

    assert ({Key(A, 0): after} if after is not None else {}) == found


def test_without_fallbacks_nothing_is_held():
    """A pin of a failover that was removed goes."""
    assert {} == falling.pins({Key(A, 0): Way()}, {}, {Key(A, 0): Pin()}, 100.0)


def underived(_service: str, _members: object) -> None:
    return None


def sight(*policies: Policy, routed: str = "abc", revision: int = 1) -> Snapshot:
    made = {
        f"o:{n}": Route(service=f"o:{n}", ports=(RoutePort(index=0, vhosts=(f"{n}.example",)),), source="operator")
        for n in routed
    }
    members = {f"o:{n}": {"m": member(n, 31000 + ord(n), app="")} for n in "abc"}
    return Snapshot(revision=revision, trust=Trust.LIVE, members=members, routes=made, policies=named(*policies))


policies = st.lists(
    st.one_of(
        st.builds(
            lambda s, to, p, how: split((to, p), sticky=how, service=s),
            st.sampled_from((A, B)),
            st.sampled_from((A, B, C, "o:x")),
            st.sampled_from((0, 5, 33.33, 100)),
            st.sampled_from(("", "cookie", "source")),
        ),
        st.builds(
            lambda s, to: Failover(service=s, to=(Target(service=to),)),
            st.sampled_from((A, B)),
            st.sampled_from((B, C)),
        ),
    ),
    max_size=3,
)


TABLES = ("ways", "least", "pins", *splits.BETWEEN)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(policies, st.sampled_from(("abc", "ab", "ac", "a"))), min_size=1, max_size=4))
def test_changing_leads_to_what_is_wanted(turns: list[tuple[list[Policy], str]]):
    """From any splits to any others, services coming and going, spares lent, reloads bringing them home."""
    model, last = Model(replace(AROUND, spare_backends=2)), Wanted()
    for revision, (written, routed) in enumerate(turns):
        structure = model.serving.structure
        rules = Rules(names_in_use=set(structure.owners), spares=spares.free(structure))
        last = model.follow(routes.wanted(sight(*written, routed=routed, revision=revision), last, rules, underived))
        now, there = model.serving.maps, set(model.serving.structure.shapes)

        assert {t: getattr(last.maps, t) for t in TABLES} == {t: getattr(now, t) for t in TABLES}
        assert {k.partition(":")[0] for k in (*now.ways, *now.shares, *now.falls)} <= there
        assert {*now.shares.values(), *now.falls.values()} <= there
        held = {k: n for n, k in model.serving.structure.owners.items()}
        assert splits.tables(last.ways, held)["shares"] == now.shares


def test_a_target_that_runs_and_has_no_route_is_served_as_the_service_is():
    """Without its hosts and ports; one that does not run is told."""
    wanted = routes.wanted(sight(split((B, 10)), routed="a"), Wanted(), Rules(), underived)
    strange = routes.wanted(sight(split(("o:x", 10)), routed="a"), Wanted(), Rules(), underived)

    assert {"a.example/"} == set(wanted.maps.hosts)
    assert {Key(A, 0), Key(B, 0)} == {b.key for b in wanted.backends.values()}
    assert {} == wanted.refused
    assert {A: "share to o:x port 0: nothing is known of it"} == strange.refused


def test_a_target_without_a_route_is_as_closed_as_the_service():
    """Whoever may not call the one gets nothing from the other; with a route or an intention of its own it is itself."""
    deny = Intentions(service=A, sources=(Source(name="anonymous", action="deny"),))
    mine = Intentions(service=B, sources=(Source(name="anonymous"),))
    found = [
        routes.wanted(sight(split((B, 100)), deny, *more, routed=routed), Wanted(), Rules(), underived)
        for more, routed in (((), "a"), ((mine,), "a"), ((), "ab"))
    ]
    said = [{k: v for k, v in w.maps.intentions.items() if k.startswith("o:b=")} for w in found]

    assert {"o:b=*": "allow", "o:b=anonymous": "deny"} == said[0]
    assert {"o:b=*": "allow", "o:b=anonymous": "allow"} == said[1]
    assert {} == said[2]
    assert ["o:b", "o:b", None] == [
        next((w.maps.guarded.get(n) for n, b in w.backends.items() if b.key.service == B), None) for w in found
    ]


def test_tables_move_with_their_backends():
    """A reload brings them home."""
    maps = Maps(ways={"x": "random:s"}, shares={"x:10": "y"}, least={"x": "1"}, falls={"x:1": "y"}, pins={"x": "down"})
    assert {
        "ways": {"a": "random:s"},
        "shares": {"a:10": "b"},
        "least": {"a": "1"},
        "falls": {"a:1": "b"},
        "pins": {"a": "down"},
    } == splits.moved(maps, {"x": "a", "y": "b"})


def test_shares_are_the_last_that_a_frontend_decides():
    """They end its rules for whoever is not split: a rule after them would be skipped."""
    frame = msgspec.structs.replace(FRAME, https_port=8443, certificates="/c", mesh_port=8444, identity="/i")
    made = picture.first_picture(replace(AROUND, frame=frame))
    sections = re.split(r"\n(?=(?:front|back)end )", render.config(made))
    asked = [s for s in sections if s.startswith("frontend") and "http-request" in s]
    last = [[line.strip() for line in s.splitlines() if line.strip().startswith("http-request ")][-1] for s in asked]

    assert len(asked) >= 2
    assert {"http-request set-var(txn.be) var(txn.to) if { var(txn.to) -m found }"} == set(last)

"""Which tasks answer for a service: subsets, redirects, limits, the choice of a server, and what cannot be."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import (
    AnyPolicy,
    Destination,
    Failover,
    HashPolicy,
    Intentions,
    LoadBalancer,
    Policy,
    Redirect,
    Resolver,
    Router,
    RouterLeg,
    Share,
    Source,
    Split,
    Subset,
    Target,
    name_of,
)
from fairlead_discovery.records import Discovery, Member, Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import grammar, render, resolver_files, resolvers, routes, shortcut, spares, split_files
from fairlead_lb.decisions.last_good import Past
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.values import Slot
from harness.balancer import member
from harness.haproxy_model import FRAME, Model

A, B, V1, V2 = "o:a", "o:b", "o:a@v1", "o:a@v2"


def task(name: str, port: int, **labels: str) -> Member:
    one = member(name, port, app="")
    return msgspec.structs.replace(one, discovery=Discovery(labels=labels), zone=labels.get("at", ""))


MEMBERS = {
    A: {"1": task("a1", 31001, version="v1"), "2": task("a2", 31002, version="v2"), "3": task("a3", 31003, at="north")},
    B: {"4": task("b4", 31004, version="v2")},
}


def snapshot(*policies: Policy, without: tuple[str, ...] = (), port: RoutePort | None = None) -> Snapshot:
    plain = port or RoutePort(index=0)
    there = {
        s: Route(service=s, ports=(msgspec.structs.replace(plain, vhosts=(f"{s[2:]}.example",)),))
        for s in (A, B)
        if s not in without
    }
    found: dict[str, AnyPolicy] = {name_of(p): p for p in policies}  # type: ignore[misc]  # each is one of them
    return Snapshot(revision=1, trust=Trust.LIVE, routes=there, members=MEMBERS, policies=found)


def underived(_service: str, _members: object) -> None:
    return None


def wanted_of(snap: Snapshot, last: Wanted | None = None, past: Past | None = None) -> Wanted:
    return routes.wanted(snap, last or Wanted(), Rules(past=past or Past()), underived)


def tasks(found: Wanted, backend: str) -> list[str]:
    return [server.task for server in found.backends[backend].servers]


SUBSETS = {"v1": Subset(filter="version == v1"), "v2": Subset(filter='Service.Meta.version = "v2"')}
VERSIONS = Resolver(service=A, subsets=SUBSETS)
HALF = Split(service=A, shares=(Share(service=V2, percent=50),))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "a1 a2 a3"),
        ("version == v1", "a1"),
        ('version != "v1"', "a2 a3"),
        ("version != v1 and zone = north", "a3"),
        ("Service.Meta.at == north", "a3"),
        ("app != x", "a1 a2 a3"),
        ("nobody == knows", ""),
    ],
)
def test_a_filter_takes_tasks_by_label_and_by_what_is_known_of_them(text: str, names: str):
    """A label first; what is not there is no value."""
    wanted = resolvers.terms(text)

    assert names.split() == [m.task.id for m in MEMBERS[A].values() if resolvers.taken(m, wanted)]


def test_a_subset_that_is_named_has_a_backend_of_its_own():
    """With the tasks its filter takes; one that nobody names costs nothing."""
    found = wanted_of(snapshot(VERSIONS, HALF))

    assert {} == found.refused
    assert {"o_a_p0", "o_b_p0", "o_a_v2_p0"} == set(found.backends)
    assert ["a1", "a2", "a3"] == tasks(found, "o_a_p0")
    assert ["a2"] == tasks(found, "o_a_v2_p0")
    assert {"o_a_v2_p0"} == set(found.maps.shares.values())
    assert ["o_a_p0", "o_b_p0"] == sorted(found.maps.hosts.values())


def test_subsets_are_targets_of_routers_failovers_and_other_services():
    """And a subset may fall over to another one."""
    leg = RouterLeg(destination=Destination(service=A, service_subset="v1"))
    over = Failover(service=V1, to=(Target(service=V2),))
    found = wanted_of(snapshot(VERSIONS, Router(service=B, route=(leg,)), over))

    assert {} == found.refused
    assert ["o_a_v1_p0"] == list(found.maps.hops.values())
    assert {"o_a_v1_p0:1": "o_a_v2_p0"} == found.maps.falls


def test_the_default_subset_answers_where_nothing_is_said():
    """Others are reached by their names alone."""
    found = wanted_of(snapshot(msgspec.structs.replace(VERSIONS, default_subset="v1"), HALF))

    assert (["a1"], ["a2"]) == (tasks(found, "o_a_p0"), tasks(found, "o_a_v2_p0"))


def test_a_subset_is_as_closed_as_its_service():
    """Whoever leads to it."""
    closed = Intentions(service=A, sources=(Source(name="anonymous", action="deny"),))
    leg = RouterLeg(destination=Destination(service=A, service_subset="v2"))
    found = wanted_of(snapshot(VERSIONS, Router(service=B, route=(leg,)), closed))
    unrouted = wanted_of(snapshot(VERSIONS, Router(service=B, route=(leg,)), closed, without=(A,)))
    caller = msgspec.structs.replace(closed, service=B)
    copied = wanted_of(snapshot(VERSIONS, Router(service=B, route=(leg,)), caller, without=(A,)))

    assert {"o_a_p0", "o_a_v2_p0"} == set(found.maps.guarded)
    assert "deny" == found.maps.intentions["o:a@v2=anonymous"]
    assert "deny" == unrouted.maps.intentions["o:a@v2=anonymous"]
    assert "deny" == copied.maps.intentions["o:a@v2=anonymous"]


STRANGER = {"9": task("s9", 31009, HAPROXY_0_VHOST="evil.example", HAPROXY_0_PORT="10099")}


@pytest.mark.parametrize("first", ["the resolver", "the stranger"])
@pytest.mark.parametrize("routed", [False, True], ids=["announced", "with a route"])
def test_whoever_takes_a_subsets_name_gets_nothing_of_it(first: str, routed: bool):
    """The subset keeps its tasks and its owner's intentions; the other is not served, and is told why."""
    closed = Intentions(service=A, sources=(Source(name="*", action="deny"),))
    own = Intentions(service=V2, sources=(Source(name="*", action="allow"),))
    calm = snapshot(VERSIONS, HALF, closed, own)
    route = {V2: Route(service=V2, ports=(RoutePort(index=0, vhosts=("evil.example",), service_port=10099),))}
    there = replace(
        calm, members={**calm.members, V2: STRANGER}, routes={**calm.routes, **(route if routed else {})}, revision=2
    )
    before = calm if first == "the resolver" else replace(there, policies={})
    found = wanted_of(there, wanted_of(before))

    assert ["a2"] == tasks(found, "o_a_v2_p0")
    assert "s9" not in {s.task for b in found.backends.values() for s in b.servers}
    assert not any("evil.example" in host for host in found.maps.hosts)
    assert "not served: a subset of o:a has this name" in found.refused[V2]
    assert wanted_of(calm).maps.intentions == found.maps.intentions


def test_a_stranger_who_comes_later_takes_no_short_way_to_a_subset():
    """A change of endpoints alone is decided whole where it is a subset's name."""
    before = snapshot(VERSIONS, HALF)
    after = replace(before, members={**before.members, V2: STRANGER}, revision=2)
    last = shortcut.Decided.whole(before, Rules(), wanted_of(before))

    assert shortcut.moved(last, after, Rules(), underived) is None


def test_an_intention_of_a_subset_does_not_stand_in_the_place_of_the_services():
    """Who may not call the service may not call its subset; it is told."""
    closed = Intentions(service=A, sources=(Source(name="anonymous", action="deny"),))
    opened = Intentions(service=V2, sources=(Source(name="anonymous", action="allow"),))
    found = wanted_of(snapshot(VERSIONS, HALF, closed, opened))

    assert "deny" == found.maps.intentions["o:a@v2=anonymous"]
    assert "intentions of o:a@v2: those of o:a count" == found.refused[A]


def test_a_redirect_leads_all_that_pointed_to_the_service_elsewhere():
    """Hosts, shares and legs; it costs no request anything."""
    to_v2 = Resolver(service=B, redirect=Redirect(service=A, service_subset="v2"))
    found = wanted_of(snapshot(VERSIONS, to_v2, msgspec.structs.replace(HALF, shares=(Share(service=B, percent=10),))))

    assert {} == found.refused
    assert {"a.example/": "o_a_p0", "b.example/": "o_a_v2_p0"} == found.maps.hosts
    assert {"o_a_v2_p0"} == set(found.maps.shares.values())
    assert "o_b_p0" not in found.maps.ways


@pytest.mark.parametrize(
    ("policies", "told"),
    [
        ((Resolver(service=B, redirect=Redirect(service="o:x")),), "redirect to o:x: nothing is known of o:x port 0"),
        (
            (
                Resolver(service=B, redirect=Redirect(service=A)),
                Split(service=B, shares=(Share(service=A, percent=1),)),
            ),
            "redirect to o:a: o:b port 0 has a router, a split or a failover, which counts instead",
        ),
        (
            (Resolver(service=B, redirect=Redirect(service=A)), Resolver(service=A, redirect=Redirect(service=B))),
            "redirect to o:a: it is redirected itself",
        ),
    ],
)
def test_a_redirect_that_cannot_be_is_told_and_changes_nothing(policies: tuple[Policy, ...], told: str):
    """The service answers itself."""
    found = wanted_of(snapshot(*policies))

    assert told in found.refused[B]
    assert "o_b_p0" == found.maps.hosts["b.example/"]


@pytest.mark.parametrize(
    ("how", "mode", "balance"),
    [
        (LoadBalancer(), "http", "first"),
        (LoadBalancer(policy="round_robin"), "http", "roundrobin"),
        (LoadBalancer(policy="least_request"), "tcp", "leastconn"),
        (LoadBalancer(policy="random"), "tcp", "random"),
        (LoadBalancer(policy="maglev", hash_policies=(HashPolicy(source_ip=True),)), "tcp", "source"),
        (LoadBalancer(policy="ring_hash", hash_policies=(HashPolicy(field="path"),)), "http", "uri"),
        (
            LoadBalancer(policy="ring_hash", hash_policies=(HashPolicy(field="header", field_value="X-U"),)),
            "http",
            "hdr(X-U)",
        ),
        (
            LoadBalancer(policy="ring_hash", hash_policies=(HashPolicy(field="cookie", field_value="u"),)),
            "http",
            "cookie(u)",
        ),
        (
            LoadBalancer(policy="ring_hash", hash_policies=(HashPolicy(field="query_parameter", field_value="u"),)),
            "tcp",
            "first",
        ),
    ],
)
def test_how_a_server_is_chosen_in_haproxys_words(how: LoadBalancer, mode: str, balance: str):
    """A TCP service has no headers: it is told, and its route's word counts."""
    port = RoutePort(index=0, mode=mode, balance="first")
    tuned = Resolver(service=A, load_balancer=how, connect_timeout_s=0.5, request_timeout_s=7)
    snap = replace(snapshot(tuned), routes={A: Route(service=A, ports=(port,))})
    found = wanted_of(snap)
    shape = found.backends["o_a_p0"].shape

    assert (balance, 7, 0.5) == (shape.balance, shape.timeout_server_s, shape.traffic.connect_timeout_s)
    assert (mode == "tcp" and how.hash_policies[0].field != "" if how.hash_policies else False) == (A in found.refused)


@pytest.mark.parametrize("balance", ["hdr(X-U)", "url_param(u)", "cookie(u)", "uri", "source"])
def test_a_hash_is_a_consistent_one(balance: str):
    """So that a server more or less moves few clients."""
    text = render.backend_text("x", grammar.shape(RoutePort(index=0, balance=balance)), {"s1": Slot()}, FRAME)

    assert "    hash-type consistent" in text.split("\n")
    assert 1 == text.count("    balance ")


BAD = [
    Resolver(service=A, subsets={"V 1": Subset()}),
    Resolver(service=A, subsets={"a@b": Subset()}),
    Resolver(service=A, subsets={f"s{n}": Subset() for n in range(17)}),
    *(
        Resolver(service=A, subsets={"v": Subset(filter=text)})
        for text in (
            "version",
            "a == b or c == d",
            "a == b and",
            "x in y",
            "a == b c",
            "(a == b)",
            "a == b\nand",
            "not a",
        )
    ),
    Resolver(service=A, default_subset="v9"),
    Resolver(service=A, redirect=Redirect(service=A)),
    Resolver(service=A, redirect=Redirect(service=B), subsets=SUBSETS),
    Resolver(service=A, connect_timeout_s=-1),
    Resolver(service=A, request_timeout_s=float("nan")),
    Resolver(service=A, load_balancer=LoadBalancer(policy="moon")),
    Resolver(service=A, load_balancer=LoadBalancer(policy="maglev")),
    Resolver(service=A, load_balancer=LoadBalancer(policy="random", hash_policies=(HashPolicy(source_ip=True),))),
    *(
        Resolver(
            service=A,
            load_balancer=LoadBalancer(policy="maglev", hash_policies=(HashPolicy(field=field, field_value=value),)),
        )
        for field, value in (("header", "a b"), ("header", "x)\n"), ("cookie", ""), ("moon", "x"), ("cookie", "a'"))
    ),
]


@pytest.mark.parametrize("resolver", BAD)
def test_a_resolver_that_cannot_be_leaves_the_last_good_one(resolver: Resolver):
    """Told by service; without a good one all tasks answer."""
    good = wanted_of(snapshot(resolver, HALF), past=Past(good={name_of(VERSIONS): VERSIONS}))
    none = wanted_of(snapshot(resolver))

    assert good.refused[A].startswith("resolver: ")
    assert good.refused[A].endswith("; its last good one stays")
    assert ["a2"] == tasks(good, "o_a_v2_p0")
    assert "all of the service's tasks answer" in none.refused[A]
    assert ["a1", "a2", "a3"] == tasks(none, "o_a_p0")


FILE = """
[[resolver]]
service = "o:a"
default_subset = "v1"
subsets = { v1 = { filter = "version == v1" } }
request_timeout = "1500ms"
load_balancer = { policy = "maglev", hash_policies = [{ field = "header", field_value = "X-U" }] }

[[resolver]]
service = "o:b"
redirect = { service = "o:a", service_subset = "v1" }
"""


def test_a_file_is_resolvers_and_back():
    """With durations as text, and nothing but what was said."""
    found = split_files.parse(FILE, "f.toml")
    entries = [entry for table, entry in split_files.entries_of(list(found.values())) if table == "resolver"]

    assert list(found.values()) == [resolver_files.resolver_of(entry, "again") for entry in entries]
    assert "v1 (version == v1), v1 unless told otherwise, server by maglev, request_timeout 1500ms" == (
        resolver_files.told(found["resolver~o:a"])  # type: ignore[arg-type]  # it is one
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("subsets = { v1 = { filters = 1 } }", "f: resolver 1: Object contains unknown field `$.subsets.v1.filters`"),
        ('redirect = { to = "x", service = "o:b" }', "f: resolver 1: Object contains unknown field `$.redirect.to`"),
        ('redirect = { service = "b" }', "f: resolver 1: b: no service key"),
        ('connect_timeout = "soon"', "f: resolver 1: connect_timeout: 'soon' is no duration"),
        ("connect_timeout_s = 1", "f: resolver 1: connect_timeout_s: write connect_timeout, as 5s"),
        ("subsets = 1", "f: resolver 1: Expected `object`"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, told: str):
    """File, table, field."""
    with pytest.raises(Refused) as caught:
        split_files.parse(f'[[resolver]]\nservice = "o:a"\n{text}', "f")

    assert str(caught.value).startswith(told)


SIGHTS: tuple[tuple[Policy, ...], ...] = (
    (),
    (VERSIONS,),
    (VERSIONS, HALF),
    (msgspec.structs.replace(VERSIONS, default_subset="v2"), HALF),
    (VERSIONS, Resolver(service=B, redirect=Redirect(service=A, service_subset="v2"))),
    (Resolver(service=B, redirect=Redirect(service=A)),),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SIGHTS), st.sampled_from(((), (A,), (B,)))), min_size=1, max_size=5))
def test_haproxy_comes_to_serve_what_is_resolved(sights: list[tuple[tuple[Policy, ...], tuple[str, ...]]]):
    """Through any row of resolvers and routes: ready servers and maps are the wanted ones."""
    model, last = Model(), Wanted()
    for policies, without in sights:
        rules = Rules(names_in_use=set(model.serving.structure.owners), spares=spares.free(model.serving.structure))
        last = model.follow(routes.wanted(snapshot(*policies, without=without), last, rules, underived))

        assert {n: {s.task for s in b.servers} for n, b in last.backends.items()} == {
            n: set(model.ready(n)) for n in last.backends
        }
        assert last.maps.hosts == model.serving.maps.hosts

"""Consul's config entries and ours say the same, or the difference is named."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead_console.verbs.route_policies import toml
from fairlead_daemon.errors import Refused
from fairlead_discovery.policies import (
    AnyPolicy,
    Canary,
    Destination,
    Failover,
    HashPolicy,
    HeaderChange,
    HeaderMatch,
    Intentions,
    LoadBalancer,
    QueryMatch,
    Redirect,
    Resolver,
    RouteMatch,
    Router,
    RouterLeg,
    Share,
    Source,
    Split,
    Subset,
    Target,
    name_of,
)
from fairlead_discovery.records import Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import routes, split_files
from fairlead_lb.decisions.consul_export import exported
from fairlead_lb.decisions.consul_fields import Names
from fairlead_lb.decisions.consul_import import NOBODY, Imported, imported
from fairlead_lb.decisions.intentions import judge
from fairlead_lb.decisions.routes import Rules, Wanted
from harness.balancer import member

NAMES = Names(framework="marathon", given={"db": "erp:db"})
WEB, API, DB = "marathon:/web", "marathon:/api", "erp:db"


def read(*entries: object) -> Imported:
    return imported([("f.json", msgspec.json.encode(list(entries)))], NAMES)


ROUTER = {
    "Kind": "service-router",
    "Name": "web",
    "Meta": {"by": "ops"},
    "CreateIndex": 7,
    "Routes": [
        {
            "Match": {
                "HTTP": {
                    "PathPrefix": "/api",
                    "Methods": ["GET"],
                    "Header": [{"Name": "x-debug", "Exact": "1", "Invert": True}],
                    "QueryParam": [{"Name": "v", "Regex": "[0-9]+"}],
                }
            },
            "Destination": {
                "Service": "api",
                "ServiceSubset": "v2",
                "PrefixRewrite": "/",
                "RequestTimeout": "1m1.5s",
                "NumRetries": 5,
                "RetryOnStatusCodes": [503],
                "RequestHeaders": {"Add": {"x-a": "1"}, "Set": {"x-b": "2"}, "Remove": ["x-c"]},
            },
        },
        {"destination": {"service": "db", "request_timeout": 2_000_000_000}},
    ],
}


def test_a_router_is_read_word_by_word():
    """Camel case or snakes; what HAProxy has for services alone is left out and told."""
    found = read(ROUTER)
    match = RouteMatch(
        path_prefix="/api",
        methods=("GET",),
        header=(HeaderMatch(name="x-debug", exact="1", invert=True),),
        query_param=(QueryMatch(name="v", regex="[0-9]+"),),
    )
    there = Destination(
        service=API,
        service_subset="v2",
        prefix_rewrite="/",
        request_timeout_s=61.5,
        request_headers=HeaderChange(add={"x-a": "1"}, set={"x-b": "2"}, remove=("x-c",)),
    )
    legs = (
        RouterLeg(match=match, destination=there),
        RouterLeg(destination=Destination(service=DB, request_timeout_s=2)),
    )

    assert ({f"router~{WEB}": Router(service=WEB, route=legs)}, ()) == (found.policies, found.refused)
    assert ["NumRetries", "RetryOnStatusCodes"] == [text.split(": ")[4] for text in found.left]


def test_a_splitter_leaves_what_is_the_services_own_with_it():
    """Shares of subsets are shares of their own."""
    splits = [{"Weight": 80}, {"Weight": 15.5, "ServiceSubset": "v2"}, {"Weight": 4.5, "Service": "db"}]
    found = read({"Kind": "service-splitter", "Name": "web", "Splits": splits})
    shares = (Share(service=f"{WEB}@v2", percent=15.5), Share(service=DB, percent=4.5))

    assert {f"split~{WEB}": Split(service=WEB, shares=shares)} == found.policies


def test_a_resolver_is_one_and_its_failovers_are_failovers():
    """`*` is the service and each of its subsets without a word of its own."""
    found = read(
        {
            "Kind": "service-resolver",
            "Name": "web",
            "DefaultSubset": "v1",
            "Subsets": {"v1": {"Filter": "Service.Meta.version == v1"}, "v2": {"Filter": "", "OnlyPassing": True}},
            "ConnectTimeout": "250ms",
            "LoadBalancer": {
                "Policy": "maglev",
                "HashPolicies": [{"Field": "header", "FieldValue": "x-user", "Terminal": True}],
            },
            "Failover": {"*": {"Service": "db"}, "v2": {"Targets": [{"ServiceSubset": "v1"}, {"Service": "api"}]}},
        }
    )
    resolver = Resolver(
        service=WEB,
        default_subset="v1",
        subsets={"v1": Subset(filter="Service.Meta.version == v1"), "v2": Subset()},
        connect_timeout_s=0.25,
        load_balancer=LoadBalancer(policy="maglev", hash_policies=(HashPolicy(field="header", field_value="x-user"),)),
    )
    over = [
        Failover(service=WEB, to=(Target(service=DB),)),
        Failover(service=f"{WEB}@v1", to=(Target(service=DB),)),
        Failover(service=f"{WEB}@v2", to=(Target(service=f"{WEB}@v1"), Target(service=API))),
    ]

    assert ((), {name_of(p): p for p in (resolver, *over)}) == (found.refused, found.policies)


def test_intentions_are_read_and_a_source_may_be_everybody():
    """Descriptions and precedences mean nothing; a path that ends elsewhere is told."""
    found = read(
        {
            "Kind": "service-intentions",
            "Name": "*",
            "Sources": [
                {"Name": "*", "Action": "deny", "Precedence": 8, "Type": "consul", "Description": "x"},
                {
                    "Name": "web",
                    "Permissions": [
                        {"Action": "deny", "HTTP": {"PathPrefix": "/v2/admin/"}},
                        {"Action": "allow", "HTTP": {"PathPrefix": "/v2", "Methods": ["GET"]}},
                    ],
                },
            ],
        }
    )
    sources = (
        Source(name="*", action="deny"),
        Source(name=WEB, action="deny", paths=("/v2/admin/",)),
        Source(name=WEB, action="allow", methods=("GET",), paths=("/v2",)),
        NOBODY,
    )
    record = Intentions(service="*", sources=sources, default="deny")

    assert ({"intentions~*": record}, ()) == (found.policies, found.refused)
    assert 2 == len(found.left)
    assert ["every service"] == [text.split(":")[0] for text in found.closed]
    assert "`fairlead intention allow anonymous '*'` opens it" in found.closed[0]


@pytest.mark.parametrize(
    ("source", "with_one"),
    [
        ({"Name": "*", "Action": "deny"}, False),
        ({"Name": "*", "Action": "allow"}, True),
        ({"Name": "db", "Action": "allow"}, False),
        ({"Name": "*", "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["POST"]}}]}, False),
    ],
)
def test_nobody_without_an_identity_is_let_in_by_an_imported_intention(source: object, *, with_one: bool):
    """Whatever the balancers' default is; who has an identity is let in as the entry says."""
    entry = {"Kind": "service-intentions", "Name": "web", "Sources": [source]}
    found = read(entry)
    records = {p.service: p for p in found.policies.values() if isinstance(p, Intentions)}
    without = judge(WEB, records, "allow", "anonymous", "GET")

    assert not without.allowed
    assert with_one is judge(WEB, records, "allow", API, "GET").allowed
    assert "`fairlead intention allow anonymous marathon:/web` opens it" in found.closed[0]
    assert (entry,) == exported(records.values(), NAMES).entries


def test_an_intention_that_only_closes_has_no_words_in_consul():
    """Its entries want a source; and who opened a service to callers without an identity is told."""
    only = Intentions(service=WEB, sources=(NOBODY,), default="deny")
    opened = Intentions(service=API, sources=(Source(name="anonymous", action="allow"),), default="deny")
    found = exported([only, opened], NAMES)

    assert () == found.entries
    assert ["intentions of marathon:/web: no source but who has no identity: Consul wants one"] == [found.refused[0]]
    assert "intentions of marathon:/api: default deny" in found.refused[1]


def permissions(*given: object) -> dict[str, object]:
    return {"Kind": "service-intentions", "Name": "web", "Sources": [{"Name": "api", "Permissions": list(given)}]}


def leg(match: object = None, there: object = None) -> dict[str, object]:
    return {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": match}, "Destination": there}]}


def permission(action: str, **http: object) -> dict[str, object]:
    return {"Action": action, "HTTP": http}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"Kind": "service-defaults", "Name": "web"}, "kind 'service-defaults': one of service-router, "),
        (7, "f.json: not an object"),
        (leg(there={"Service": "api", "Peer": "east"}), "Peer: other datacenters, partitions and peers"),
        (leg({"PathPrefix": "/a", "Host": "x"}), "Host: has no counterpart here"),
        (leg({"PathPrefix": 7}), "PathPrefix: not text"),
        (leg({"PathRegex": "(a+)+"}), "route 1: path_regex: '(a+)+': a repetition of what holds a repetition"),
        (leg({"Header": [{"Name": "x", "Lower": "1"}]}), "Header 1: Lower: has no counterpart here"),
        (leg(there={"RequestTimeout": "soon"}), "RequestTimeout: 'soon' is no duration"),
        (leg(there={"RequestHeaders": {"Set": {"a": 1}}}), "RequestHeaders: not texts"),
        ({"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 50}]}, "the weights are not 100 together"),
        (
            {
                "Kind": "service-splitter",
                "Name": "web",
                "Splits": [{"Weight": 100, "RequestHeaders": {"Set": {"a": "b"}}}],
            },
            "RequestHeaders: headers are changed by routers",
        ),
        (
            {"Kind": "service-resolver", "Name": "web", "Redirect": {"Service": "db", "Datacenter": "dc2"}},
            "Redirect: Datacenter: other datacenters",
        ),
        (
            {"Kind": "service-resolver", "Name": "web", "Subsets": {"v": {"Filter": '"a" in Service.Tags'}}},
            "subset v: filter: '\"a\" in Service.Tags': only NAME == VALUE",
        ),
        ({"Kind": "service-resolver", "Name": "web", "Failover": {"v9": {"Service": "db"}}}, "is none of its subsets"),
        (
            {"Kind": "service-resolver", "Name": "web", "Failover": {"*": {"ServiceSubset": "v9"}}},
            "ServiceSubset 'v9': is none of its subsets",
        ),
        (
            {"Kind": "service-resolver", "Name": "web", "Failover": {"*": {"Targets": [{"ServiceSubset": "v9"}]}}},
            "ServiceSubset 'v9': is none of its subsets",
        ),
        ({"Kind": "service-intentions", "Name": "web", "Sources": [{"Name": "api"}]}, "one of Action and Permissions"),
        (permissions(permission("allow", PathExact="/a")), "PathExact: intentions are of whole branches"),
        (permissions(permission("allow", Header=[{"Name": "x"}])), "Header: intentions do not look at headers"),
        (permissions(permission("allow", PathPrefix="/a/")), "allow /a/ would let more in"),
        (permissions(permission("deny", PathPrefix="/a")), "deny /a would let more in"),
        (
            permissions(permission("allow", PathPrefix="/a"), permission("deny", PathPrefix="/a/b/")),
            "Permissions 1: the first that fits counts there",
        ),
        ({**permissions(permission("allow")), "JWT": {"Providers": [1]}}, "JWT: identities are certificates here"),
        ({"Kind": "service-router", "Name": "a@b", "Routes": []}, "'a@b': no service's name"),
        ({"Kind": "service-router", "Name": "a b", "Routes": []}, "'a b': no service's name"),
        ({"Kind": "service-resolver", "Name": "web", "Redirect": {"Service": "a\n"}}, "no service's name"),
        (leg(there={"Service": "*"}), "'*': no service's name"),
        (
            {"Kind": "service-intentions", "Name": "web", "Sources": [{"Name": "ä", "Action": "allow"}]},
            "no service's name",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(entry: object, told: str):
    """Its whole entry, and no other one."""
    found = read(entry, {"Kind": "service-splitter", "Name": "api", "Splits": [{"Weight": 100, "Service": "db"}]})

    assert [f"split~{API}"] == list(found.policies)
    assert 1 == len(found.refused)
    assert told in found.refused[0]


def test_what_consul_has_no_words_for_is_named():
    """The others are written."""
    given = [
        Split(service=WEB, shares=(Share(service=API, percent=5),), sticky="cookie"),
        Split(service=API, index=1),
        Failover(service=WEB, to=(Target(service=API),), min_ready=2),
        Intentions(service=WEB, default="deny"),
        Intentions(service=API, sources=(Source(name=WEB, action="allow", paths=("/x",)),)),
        Router(service=WEB, route=(RouterLeg(destination=Destination(service="x:y", num_retries=0)),)),
        Canary(service=WEB, id="1", to=Target(service=API)),
        Resolver(service="x:y"),
        Resolver(service=WEB, request_timeout_s=5),
    ]
    found = exported(given, NAMES)

    assert [{"Kind": "service-resolver", "Name": "web", "RequestTimeout": "5s"}] == [dict(e) for e in found.entries]
    assert len(given) - 1 == len(found.refused)


# --- two dialects that say the same give the same routes ------------------------------------------------------------------

SERVICES = (WEB, API, DB)
TARGETS = (WEB, API, DB, f"{WEB}@v1", f"{WEB}@v2", f"{API}@v1")
matches = st.builds(
    RouteMatch,
    path_prefix=st.sampled_from(("", "/a", "/a/")),
    case_insensitive=st.booleans(),
    header=st.lists(
        st.sampled_from(
            (
                HeaderMatch(name="x-a", exact="1", invert=True),
                HeaderMatch(name="x-b", present=True),
                HeaderMatch(name="x-c", contains="b c", ignore_case=True),
            )
        ),
        max_size=2,
    ).map(tuple),
    query_param=st.lists(
        st.sampled_from((QueryMatch(name="v", regex="[0-9]+"), QueryMatch(name="w", present=True))), max_size=2
    ).map(tuple),
    methods=st.sampled_from(((), ("GET",), ("GET", "POST"))),
)
changes = st.builds(
    HeaderChange, add=st.sampled_from(({}, {"x-a": "1"})), set=st.sampled_from(({}, {"x-b": "2 3"})), remove=st.just(())
)
destinations = st.builds(
    Destination,
    service=st.sampled_from(("", *SERVICES)),
    service_subset=st.sampled_from(("", "v1", "v2")),
    request_timeout_s=st.sampled_from((0.0, 0.25, 90.5)),
    request_headers=changes,
    response_headers=changes,
)
legs = st.lists(st.builds(RouterLeg, match=matches, destination=destinations), min_size=1, max_size=3).map(tuple)
subsets = st.sampled_from(({}, {"v1": Subset(filter="version == v1"), "v2": Subset()}))
balances = st.sampled_from(
    (
        LoadBalancer(),
        LoadBalancer(policy="least_request"),
        LoadBalancer(policy="ring_hash", hash_policies=(HashPolicy(field="cookie", field_value="u"),)),
        LoadBalancer(policy="maglev", hash_policies=(HashPolicy(source_ip=True),)),
    )
)
sources = st.sampled_from(
    (
        (Source(name="*", action="deny"), NOBODY),
        (Source(name=DB, action="allow", methods=("GET",)), Source(name="*", action="deny"), NOBODY),
    )
)


@st.composite
def policies(draw: st.DrawFn) -> list[AnyPolicy]:
    """Few services, so that all meet."""
    found: list[AnyPolicy] = []
    resolved: dict[str, Resolver] = {}
    for service in draw(st.lists(st.sampled_from(SERVICES), unique=True)):
        made = draw(st.builds(Resolver, service=st.just(service), subsets=subsets, load_balancer=balances))
        redirect = Resolver(service=service, redirect=Redirect(service=next(s for s in SERVICES if s != service)))
        resolved[service] = draw(st.sampled_from((redirect, msgspec.structs.replace(made, connect_timeout_s=0.5))))
    there = {f"{r.service}@{name}" for r in resolved.values() for name in r.subsets}
    for service in SERVICES:
        others = [t for t in TARGETS if t != service and ("@" not in t or t in there)]
        kinds = draw(st.lists(st.sampled_from(("router", "split", "failover", "intentions")), unique=True))
        if "router" in kinds:
            found.append(Router(service=service, route=tuple(founded(leg, service, there) for leg in draw(legs))))
        if "split" in kinds:
            to = draw(st.lists(st.sampled_from(others), min_size=1, max_size=2, unique=True))
            found.append(Split(service=service, shares=tuple(Share(service=t, percent=12.5) for t in to)))
        found += [resolved[service]] if service in resolved else []
        if "failover" in kinds and not any(isinstance(p, Resolver) and p.subsets for p in found):
            found.append(Failover(service=service, to=(Target(service=draw(st.sampled_from(others))),)))
        if "intentions" in kinds:
            found.append(Intentions(service=service, sources=draw(sources), default="deny"))
    return found


def founded(leg: RouterLeg, service: str, there: set[str]) -> RouterLeg:
    """The same, to a subset only where there is one."""
    to = leg.destination
    if f"{to.service or service}@{to.service_subset}" in there:
        return leg
    return msgspec.structs.replace(leg, destination=msgspec.structs.replace(to, service_subset=""))


def wanted_of(given: dict[str, AnyPolicy]) -> Wanted:
    there = {s: Route(service=s, ports=(RoutePort(index=0, vhosts=(f"{s[-2:]}.example",)),)) for s in SERVICES}
    members = {s: {"m": member(f"t{n}", 31000 + n, app="")} for n, s in enumerate(SERVICES)}
    snapshot = Snapshot(revision=1, trust=Trust.LIVE, routes=there, members=members, policies=given)
    return routes.wanted(snapshot, Wanted(), Rules(), lambda _service, _members: None)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policies())
def test_two_dialects_that_say_the_same_give_the_same_routes(given_policies: list[AnyPolicy]):
    """Written as Consul's entries and read, or as a route file and read: the same records, maps and lines."""
    out = exported(given_policies, NAMES)
    as_entries = read(*out.entries)
    text = "\n".join(toml(table, msgspec.to_builtins(entry)) for table, entry in split_files.entries_of(given_policies))
    as_file = split_files.parse(text, "f.toml")
    one, other = wanted_of(dict(as_entries.policies)), wanted_of(dict(as_file))

    assert ((), (), ()) == (out.refused, as_entries.refused, as_entries.left)
    assert {name_of(p): p for p in given_policies} == as_file == as_entries.policies
    assert (one.maps, one.fronts, one.refused) == (other.maps, other.fronts, other.refused)


nothing = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4)
junk = st.recursive(
    nothing,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    "Match",
                    "HTTP",
                    "PathPrefix",
                    "Destination",
                    "Service",
                    "Weight",
                    "Header",
                    "Name",
                    "Filter",
                    "x",
                    "*",
                    "v1",
                )
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(("service-router", "service-splitter", "service-resolver", "service-intentions")),
    st.sampled_from(
        ("Routes", "Splits", "Subsets", "Failover", "Redirect", "LoadBalancer", "Sources", "ConnectTimeout")
    ),
    junk,
)
def test_junk_is_refused_and_never_worse(kind: str, name: str, value: Any):
    """Whatever stands where."""
    found = read({"Kind": kind, "Name": "web", name: value})

    assert len(found.refused) <= 1
    assert not found.refused or not found.policies


@pytest.mark.parametrize("data", [b"", b"{", b'Kind = "service-router"', b"\xff"])
def test_a_file_that_is_no_json_is_told(data: bytes):
    """HCL among them."""
    with pytest.raises(Refused, match="config entries as JSON"):
        imported([("f.hcl", data)], NAMES)

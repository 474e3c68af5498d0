"""Traefik's tree: what the balancer serves, in Traefik's words, and no state between that leads a request astray."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.policies import Bamboo, Share, Split, name_of
from fairlead_discovery.records import Check
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.bamboo.settings import BambooSettings, traefik_root
from fairlead_lb.decisions import routes
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.traefik import ROUTERS, SERVICES, Remove, applied, priority, rule, steps, tree
from harness.balancer import member, route


def wanted(*policies: Bamboo | Split, web: int = 2, **port: object) -> Wanted:
    members = {f"m{n}": member(f"t{n}", 31000 + n, app="/shop/web") for n in range(web)}
    seen = Snapshot(
        revision=1,
        trust=Trust.LIVE,
        members={"marathon:/shop/web": members, "marathon:/new": {"n": member("n", 32000, app="/new", host="::1")}},
        routes={
            "marathon:/shop/web": route("/shop/web", **{"vhosts": ("shop.example",), "service_port": 10100, **port}),
            "marathon:/new": route("/new", mode="http"),
        },
        policies={name_of(p): p for p in policies},
    )
    return routes.wanted(seen, Wanted(), Rules(), lambda _service, _members: None)


def leaves(nodes: Mapping[str, str]) -> dict[str, str]:
    return {path: data for path, data in nodes.items() if data}


def test_a_route_is_a_router_and_a_service():
    """The documented keys, and folders of their own; a service port is not told, and said."""
    found = tree(wanted(path="/cart", sticky=True, check=Check(path="/health")), ["web"])
    router = next(p for p in found.nodes if p.startswith(ROUTERS)).split("/")[2]
    service = f"{SERVICES}/fairlead-shop_web_10100/loadbalancer"

    assert {
        f"{ROUTERS}/{router}/rule": "Host(`shop.example`) && (Path(`/cart`) || PathPrefix(`/cart/`))",
        f"{ROUTERS}/{router}/service": "fairlead-shop_web_10100",
        f"{ROUTERS}/{router}/priority": "2000005",
        f"{ROUTERS}/{router}/entrypoints/0": "web",
        f"{service}/passhostheader": "true",
        f"{service}/servers/0/url": "http://127.0.0.1:31000",
        f"{service}/servers/1/url": "http://127.0.0.1:31001",
        f"{service}/healthcheck/path": "/health",
        f"{service}/healthcheck/interval": "2000ms",
        f"{service}/healthcheck/timeout": "2000ms",
        f"{service}/sticky/cookie/name": "fairlead",
        f"{service}/sticky/cookie/httponly": "true",
    } == leaves(found.nodes)
    assert f"{service}/servers/0" in found.nodes
    assert {"marathon:/shop/web": "its service port"} == found.left_out


def test_a_split_is_a_weighted_service():
    """The router leads to it; the others' servers are there too."""
    found = leaves(
        tree(wanted(Split(service="marathon:/shop/web", shares=(Share(service="marathon:/new", percent=25.5),)))).nodes
    )
    weighted = f"{SERVICES}/fairlead-shop_web_10100-split/weighted/services"

    assert {"fairlead-shop_web_10100-split"} == {v for k, v in found.items() if k.endswith("/service")}
    assert ("fairlead-shop_web_10100", "7450") == (found[f"{weighted}/0/name"], found[f"{weighted}/0/weight"])
    assert ("fairlead-new_p0", "2550") == (found[f"{weighted}/1/name"], found[f"{weighted}/1/weight"])
    assert "http://[::1]:32000" == found[f"{SERVICES}/fairlead-new_p0/loadbalancer/servers/0/url"]


def test_weights_are_told_where_they_differ():
    """An older Traefik refuses the whole tree for a key that it does not know."""
    found = wanted()
    [name] = [n for n in found.backends if n.startswith("shop")]
    servers = tuple(msgspec.structs.replace(s, weight=n + 1) for n, s in enumerate(found.backends[name].servers))
    backends = {**found.backends, name: msgspec.structs.replace(found.backends[name], servers=servers)}
    nodes = leaves(tree(replace(found, backends=backends)).nodes)

    assert ["1", "2"] == [v for k, v in sorted(nodes.items()) if k.endswith("/weight")]


def test_a_service_without_servers_stays_a_service():
    """Traefik then answers 503, as we do, and not 404."""
    found = leaves(tree(wanted(web=0)).nodes)

    assert f"{SERVICES}/fairlead-shop_web_10100/loadbalancer/passhostheader" in found
    assert not any("/servers/" in path for path in found)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("a.example/", "Host(`a.example`)"),
        ("*.example/", r"HostRegexp(`^.+\.example$`)"),
        ("*/x/", "(Path(`/x`) || PathPrefix(`/x/`))"),
        ("*/", "PathPrefix(`/`)"),
        ("*~/x.y/", r"PathRegexp(`(?i)^/x\.y(/|$)`)"),
        ("a.example~/", "Host(`a.example`)"),
    ],
)
def test_a_key_is_a_rule(key: str, told: str):
    """Paths end at segments."""
    assert told == rule(key)


def test_the_order_of_rules_is_that_of_the_balancer():
    """The exact host first, then the longest wildcard, then any; below each the longest path."""
    keys = ["a.example/x/y/", "a.example/x/", "a.example/", "*.b.example/", "*.example/x/", "*.example/", "*/x/", "*/"]

    assert keys == sorted(keys, key=priority, reverse=True)


def test_what_no_map_holds_is_said():
    """Rules of the frontend are not told to Traefik."""
    assert (
        "its rules that no map holds"
        in tree(wanted(Bamboo(service="marathon:/new", acl="path_end .x"))).left_out["marathon:/new"]
    )


states = st.builds(
    wanted,
    web=st.integers(0, 3),
    vhosts=st.sampled_from([(), ("a.example",), ("a.example", "b.example"), ("*.example",)]),
    sticky=st.booleans(),
    service_port=st.sampled_from([10100, 10101]),
)
splits = st.builds(
    lambda percent, **more: wanted(
        Split(service="marathon:/shop/web", shares=(Share(service="marathon:/new", percent=percent),)), **more
    ),
    percent=st.sampled_from([0, 10, 100]),
    web=st.integers(0, 2),
)


@settings(max_examples=150)
@given(before=st.one_of(states, splits), after=st.one_of(states, splits))
def test_no_state_between_leads_a_router_to_nothing(before: Wanted, after: Wanted):
    """After each transaction every router's service is whole; the last one, and no other, lets Traefik look."""
    there, target = tree(before).nodes, tree(after).nodes
    batches = steps(there, target, "changed-2", ["changed-1"])
    for batch in batches:
        for step in batch:
            above = step.path.rpartition("/")[0]
            assert (
                isinstance(step, Remove) or above.count("/") < 2 or above in there or not step.path.startswith("http")
            )
            there = applied(there, [step])
        services = {p.split("/")[2] for p in there if p.startswith(f"{SERVICES}/")}
        assert {v for p, v in there.items() if p.startswith(ROUTERS) and p.endswith("/service")} <= services
        assert ("changed-2" in there) == (batch is batches[-1])

    assert dict(target) == {p: d for p, d in there.items() if p != "changed-2"}
    assert [] == steps(target, target, "changed-3", ["changed-2"])


def test_the_root_is_a_path_of_its_own_in_a_zookeeper():
    """Refused by the key's name, before anything runs."""
    assert "/a/traefik" == traefik_root(BambooSettings(registry="zk://h:1", traefik_root="a/traefik/"))
    for registry, root in (("local:x", "traefik"), ("zk://h:1", "/"), ("zk://h:1", "fairlead/x"), ("zk://h:1", "a//b")):
        with pytest.raises(BadSettings, match="traefik_root"):
            traefik_root(BambooSettings(registry=registry, traefik_root=root))

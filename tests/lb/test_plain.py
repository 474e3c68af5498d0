"""Hosts and backends whose requests skip every other look-up."""

import re
from dataclasses import replace

import msgspec
import pytest

from fairlead_discovery.records import Check, Route, RoutePort, Traffic
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import render, routes
from fairlead_lb.decisions.change import RuntimeCommands
from fairlead_lb.decisions.commands import MapEntry
from fairlead_lb.decisions.plain import SPECIAL, plain, special, with_plain
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.values import Maps, Shape
from harness.balancer import member
from harness.haproxy_model import AROUND, Model

SHOP = {"shop.example/": "shop"}


@pytest.mark.parametrize(
    "more",
    [
        {"shop.example/cart/": "cart"},
        {"shop.example/cart/": "shop"},
        {"shop.example~/": "shop"},
    ],
)
def test_a_host_with_more_than_one_key_is_not_plain(more: dict[str, str]):
    """Its path decides, or its path's case."""
    assert {} == plain(Maps(hosts={**SHOP, **more}))
    assert {} == plain(Maps(hosts={**more, **SHOP}))


@pytest.mark.parametrize("key", ["*/", "*.example/", "!/.well-known/acme-challenge/", "cart.example~/", "*~/"])
def test_what_is_no_hosts_own_name_is_not_plain(key: str):
    """Such keys come before or after others, and stand in the way of no other host."""
    assert {"shop.example": "shop"} == plain(Maps(hosts={key: "x", **SHOP}))


def test_a_host_whose_backend_shares_or_falls_over_is_not_plain():
    """Each of its requests is drawn for."""
    maps = Maps(hosts={**SHOP, "cart.example/": "cart"}, ways={"shop": "none:1"})

    assert {"cart.example": "cart"} == plain(maps)


@pytest.mark.parametrize("table", SPECIAL)
def test_a_backend_that_looks_something_up_is_special(table: str):
    """Nothing it says would be heard otherwise."""
    assert {"shop": "yes"} == special(msgspec.structs.replace(Maps(), **{table: {"shop": "x"}}))


SHAPES = (Shape(), Shape(sticky=True, reuse=True), Shape(retry_non_idempotent=True), Shape(check=Check(path="/x")))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_backends_look_up_after_its_allow_makes_it_special(shape: Shape):
    """Each map named below that line, but for those that the guarded alone come to."""
    text = render.backend_text("x", shape, {}, AROUND.frame)
    rules = [line for line in text.partition("special.map")[2].splitlines() if line.startswith("    http-request ")]
    found = {name for line in rules for name in re.findall(r"/maps/(\w+)[.]map", line)}

    assert {*SPECIAL, "intentions", "rules"} == found


@pytest.mark.parametrize("shape", [Shape(timed=True), Shape(traffic=Traffic(deadlines=True))])
def test_a_backend_whose_requests_have_limits_of_their_own_always_looks(shape: Shape):
    """They come with the request, so that no map knows them."""
    assert "special.map" not in render.backend_text("x", shape, {}, AROUND.frame)


def test_a_backend_is_special_before_it_is_guarded():
    """Never the other way round: its judge would be skipped."""
    model = Model()
    last = model.follow(routes.wanted(sight(), Wanted(), Rules(), lambda _service, _members: None))
    judged = with_plain(msgspec.structs.replace(last.maps, guarded={"web_10100": "marathon:%2Fweb"}))
    wanted = replace(last, maps=judged)
    found = changes.change(model.serving, wanted, AROUND, changes.plans(model.serving, wanted))

    assert isinstance(found, RuntimeCommands)
    assert ["special", "guarded"] == [c.map for c in found.routing_commands if isinstance(c, MapEntry)]


def test_a_host_that_gets_a_path_is_plain_no_more_without_a_reload():
    """And again when the path goes."""
    model = Model()
    last = model.follow(routes.wanted(sight(), Wanted(), Rules(), lambda _service, _members: None))
    reloads = model.reloads
    assert {"web.example": "web_10100"} == model.serving.maps.plain
    both = {**last.maps.hosts, "web.example/cart/": "web_10100"}
    model.follow(replace(last, maps=with_plain(msgspec.structs.replace(last.maps, hosts=both))))
    assert {} == model.serving.maps.plain
    model.follow(last)

    assert {"web.example": "web_10100"} == model.serving.maps.plain
    assert reloads == model.reloads


def sight() -> Snapshot:
    port = RoutePort(index=0, vhosts=("web.example",), service_port=10100)
    members = {"marathon:/web": {"m": member("t", 31000, app="/web")}}
    made = {"marathon:/web": Route(service="marathon:/web", app="/web", ports=(port,))}
    return Snapshot(revision=1, trust=Trust.LIVE, members=members, routes=made)

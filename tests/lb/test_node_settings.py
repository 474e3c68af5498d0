"""What a node balancer may be told, and what it is told unless somebody says otherwise."""

import asyncio
import os
from typing import Any

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import load
from fairlead_discovery.decisions.localities import NOWHERE, Place
from fairlead_lb.adapters import local_routes, machine
from fairlead_lb.settings import LbSettings, frame, lb_folder, node_defaults, standing, vip_rules


def test_a_node_balancer_has_ports_and_a_folder_of_its_own():
    """So that an edge balancer may run on the same machine; what is set is set."""
    edge = load(LbSettings, beneath=node_defaults)
    node = load(LbSettings, overrides=["node=true", "port=9999"], beneath=node_defaults)

    assert (9090, 80, 443, "off") == (edge.port, edge.http_port, edge.https_port, edge.locality)
    assert (9999, 9081, 0, "machine") == (node.port, node.http_port, node.https_port, node.locality)
    assert lb_folder(edge) != lb_folder(node)
    assert vip_rules(edge) is None


def test_where_it_stands_is_what_was_set_else_what_its_agent_says():
    """And without the machine as a tier no address is its own."""
    told = LbSettings(locality="machine", zone="a", region="eu", machine=("10.0.0.1",))
    asked = LbSettings(locality="zone")
    place = Place("b", "us")

    assert (Place("a", "eu"), {"10.0.0.1"}) == ((s := standing(told, {"10.9.9.9"}, place)).place, s.machine)
    assert (place, frozenset()) == ((s := standing(asked, {"10.9.9.9"}, place)).place, s.machine)
    assert None is standing(LbSettings(), (), NOWHERE)


def test_the_kernel_names_the_addresses_of_this_machine():
    """Loopback at the least."""
    assert "127.0.0.1" in machine.addresses()


def test_only_root_makes_addresses_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with the reason, before anything is started."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    rules = vip_rules(LbSettings(node=True, vip_range="11.0.0.0/8"))
    assert rules is not None

    with pytest.raises(BadSettings, match=r"11\.0\.0\.0/8 is not in 127\.0\.0\.0/8: only root"):
        asyncio.run(local_routes.add(rules.network))


@pytest.mark.parametrize(
    ("changes", "named"), [({"vip_range": "1.2.3.4"}, "vip_range: "), ({"ip_vips": ("x",)}, r"ip_vips\[0\]: ")]
)
def test_ranges_that_are_none_are_refused(changes: dict[str, Any], named: str) -> None:
    """Naming the key."""
    with pytest.raises(BadSettings, match=named):
        vip_rules(LbSettings(node=True, **changes))


def test_proxies_are_named_by_networks() -> None:
    """Naming the place of one that is none; in the one form they have for HAProxy."""
    made = frame(LbSettings(data_dir="/srv/x", bind="127.0.0.1", trusted_proxies=("10.0.0.7", "fd00::/8")))

    assert ("10.0.0.7/32", "fd00::/8") == made.trusted
    with pytest.raises(BadSettings, match=r"trusted_proxies\[1\]: "):
        frame(LbSettings(data_dir="/srv/x", bind="127.0.0.1", trusted_proxies=("10.0.0.7", "10.0.0.1/8")))

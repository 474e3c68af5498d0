"""Which machines' balancers are asked, with which rules, and what stays as it is."""

from dataclasses import replace

import msgspec
import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.records import Balancer, Check, Traffic
from fairlead_lb.between_side import check
from fairlead_lb.decisions import between
from fairlead_lb.decisions.between import FAR, HOME, NEAR, Between, Spread
from fairlead_lb.decisions.parts import Part
from fairlead_lb.decisions.values import Key, Server, Shape
from fairlead_lb.settings import LbSettings, frame

OWN, OTHER = "10.0.0.1", "10.0.0.2"
SURROUNDED = Between(own=frozenset({OWN}), doors={OWN: (OWN, 9443), OTHER: (OTHER, 9443)})


def part(*servers: Server, **shape: object) -> Part:
    return Part(
        key=Key("marathon:/shop/web", 1), app="/shop/web", shape=Shape(**shape), service_port=10100,
        hosts=("shop.example/",), servers=servers,
    )  # fmt: skip


def server(task: str, host: str, weight: int = 100) -> Server:
    return Server(task=task, host=host, port=31000, weight=weight, zone=f"zone of {host}")


def test_tasks_become_machines_and_those_of_the_own_one_a_home():
    """A machine is as heavy as its tasks; whoever asks by host or port comes to the machines, nobody to the home."""
    far, home = between.spread(
        [part(server("a", OWN), server("b", OTHER), server("c", OTHER, weight=50))], SURROUNDED, Spread()
    ).parts

    assert [(OWN, 9443, 100), (OTHER, 9443, 150)] == [(s.host, s.port, s.weight) for s in far.servers]
    assert ["zone of 10.0.0.1", "zone of 10.0.0.2"] == [s.zone for s in far.servers]
    assert (("shop.example/",), 10100, True, FAR) == (far.hosts, far.service_port, far.shape.mtls, far.shape.between)
    assert (Key("marathon:/shop/web", 1 + HOME), (), 0) == (home.key, home.hosts, home.service_port)
    assert (["a"], False, NEAR) == ([s.task for s in home.servers], home.shape.mtls, home.shape.between)


def test_weights_keep_their_proportion_within_what_haproxy_takes():
    """A hundred tasks on one machine, one on another."""
    tasks = [*(server(f"t{n}", OTHER) for n in range(100)), server("a", OWN)]
    far, _ = between.spread([part(*tasks)], SURROUNDED, Spread()).parts

    assert {OWN: 3, OTHER: 256} == {s.host: s.weight for s in far.servers}


def test_tcp_and_tasks_that_speak_tls_stay_as_they_are():
    """And everything, when balancers do not ask one another."""
    speaking = replace(part(server("a", OTHER), mtls=True), key=Key("marathon:/speaking", 0))
    parts = [part(server("a", OTHER), mode="tcp"), speaking]

    assert tuple(parts) == between.spread(parts, SURROUNDED, Spread()).parts
    assert (part(server("a", OTHER)),) == between.spread([part(server("a", OTHER))], None, Spread()).parts


def test_a_machine_without_a_door_is_left_out_and_named():
    """Rather nobody than in plain."""
    found = between.spread([part(server("a", "10.0.0.9"), server("b", OTHER))], SURROUNDED, Spread())

    assert [OTHER] == [s.host for s in found.parts[0].servers]
    assert {"marathon:/shop/web": "no balancer takes callers over mTLS at 10.0.0.9"} == found.missing


def test_rules_for_clients_count_where_they_come_in_and_rules_for_tasks_where_these_are():
    """Each once."""
    traffic = Traffic(allow=("10.0.0.0/8",), strip_path="/x", server_connections=5, eject_after=3, tunnel_timeout_s=9.0)
    check = Check(path="/health")
    far, home = between.spread([part(server("a", OWN), traffic=traffic, check=check)], SURROUNDED, Spread()).parts

    assert Traffic(allow=("10.0.0.0/8",), strip_path="/x", tunnel_timeout_s=9.0) == far.shape.traffic
    assert Traffic(server_connections=5, eject_after=3, tunnel_timeout_s=9.0) == home.shape.traffic
    assert ("", "/health") == (far.shape.check.path, home.shape.check.path)


def test_what_did_not_change_stays_the_same_object():
    """A thousand services are not worked out again for one."""
    web, other = part(server("a", OWN)), replace(part(server("b", OTHER)), key=Key("marathon:/other", 0))
    first = between.spread([web, other], SURROUNDED, Spread())
    second = between.spread([part(server("c", OWN)), other], SURROUNDED, first)
    elsewhere = Between(own=SURROUNDED.own, doors={OWN: (OWN, 1)})

    assert [False, False, True, True] == [a is b for a, b in zip(first.parts, second.parts, strict=True)]
    assert [1] == [s.port for s in between.spread([web], elsewhere, first).parts[0].servers]


def test_doors_are_those_of_node_balancers_that_take_callers():
    """At the address they tell, or at each that tasks of their machine have."""
    node = Balancer(id="n", admin="", node=True, mesh_port=9443, hosts=(OWN, "10.1.0.1"))
    told = msgspec.structs.replace(node, mesh_host="10.9.0.1", hosts=(OTHER,))
    others = [Balancer(id="e", admin="", mesh_port=9443, hosts=("10.0.0.7",)), Balancer(id="p", admin="", node=True)]

    assert {OWN: (OWN, 9443), "10.1.0.1": ("10.1.0.1", 9443), OTHER: ("10.9.0.1", 9443)} == between.doors(
        [node, told, *others]
    )


def test_settings_that_cannot_work_are_refused_by_name():
    """Before anything is started."""
    right = LbSettings(node=True, mesh_between=True, mesh_port=9443, mesh_bind="10.0.0.1")
    check(right)
    for wrong, why in (({"node": False}, "mesh_between: for node balancers"), ({"id": "x" * 60}, "id: ")):
        with pytest.raises(BadSettings, match=why):
            check(msgspec.structs.replace(right, **wrong))
    for wrong, why in (({"mesh_port": 0}, "mesh_between: needs"), ({"mesh_bind": "here"}, "mesh_bind: here")):
        with pytest.raises(BadSettings, match=why):
            frame(msgspec.structs.replace(right, **wrong))

"""One service's share of the routes: addresses that cannot be told to HAProxy, and names of TLS that is passed on."""

import pytest

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.announcements import Service, member_of
from fairlead_discovery.records import Route, RoutePort
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import parts, route_files, routes, vips
from fairlead_lb.decisions.parts import OPERATOR, derive
from fairlead_lb.decisions.problems import problems
from fairlead_lb.decisions.routes import Rules, Wanted
from harness.balancer import member


def test_a_task_where_empty_slots_point_is_left_out():
    """127.0.0.1:1 means an empty slot: HAProxy would be told for ever to settle it."""
    route = Route(service="o:p", ports=(RoutePort(index=0, service_port=10100),))
    made = derive("o:p", route, {"a": member("odd", 1), "b": member("even", 2)})

    assert ["even"] == [server.task for server in made.parts[0].servers]
    assert ("task odd: no usable address for port 0",) == made.problems


def test_names_of_tls_are_no_virtual_hosts():
    """They are looked at before anything is read, so a path is refused; without a name nobody would find it."""
    port = RoutePort(index=0, mode="tls", vhosts=("DB.example", "*.db.example"))
    (part,) = derive("o:p", Route(service="o:p", ports=(port,)), {}).parts
    assert (("db.example", ".db.example"), (), "tcp") == (part.names, part.hosts, part.shape.mode)

    for bad in (RoutePort(index=0, mode="tls", vhosts=("a.example",), path="/x"), RoutePort(index=0, mode="tls")):
        with pytest.raises(Refused, match="port 0: "):
            derive("o:p", Route(service="o:p", ports=(bad,)), {})


@pytest.mark.parametrize(
    ("source", "path"), [("services", "/.well-known/acme-challenge"), (OPERATOR, ""), (OPERATOR, "/x")]
)
def test_every_host_is_for_an_operator_and_for_challenges_alone(source: str, path: str):
    """An app that took them could get certificates for everybody's hosts."""
    port = RoutePort(index=0, mode="http", vhosts=("*",), path=path)

    with pytest.raises(Refused, match="only an operator's route"):
        derive("o:p", Route(service="o:p", ports=(port,), source=source), {})


def test_a_rule_of_bamboo_for_the_same_path_has_another_key():
    """It stays behind what hosts have themselves."""
    port = RoutePort(index=0, mode="http", vhosts=("*",), path="/.well-known/acme-challenge/")
    (part,) = derive("o:p", Route(service="o:p", ports=(port,), source=OPERATOR), {}).parts

    assert ("!/.well-known/acme-challenge/",) == part.hosts


@pytest.mark.parametrize(
    ("ports", "why"),
    [
        ([RoutePort(index=n) for n in range(parts.MOST_PORTS + 1)], "101 ports; at most 100"),
        ([RoutePort(index=0, vhosts=tuple(f"h{n}.example" for n in range(1001)))], "1001 virtual hosts; at most 1000"),
    ],
)
def test_one_service_cannot_hold_up_the_others_by_its_size(ports: list[RoutePort], why: str):
    """It is refused alone, and named."""
    big = Route(service="o:big", ports=tuple(ports))
    small = Route(service="o:small", ports=(RoutePort(index=0, vhosts=("small.example",)),))
    snapshot = Snapshot(trust=Trust.LIVE, revision=1, routes={"o:big": big, "o:small": small})
    found = routes.wanted(snapshot, routes.Wanted(), routes.Rules(), lambda *_: None)

    assert {"o:big": why} == found.refused
    assert ["o:small"] == list(found.parts)


def test_a_member_of_weight_nothing_gets_no_requests():
    """The smallest weight above it still does; alone it leaves nobody."""
    route = Route(service="o:p", ports=(RoutePort(index=0),))
    given = {"a": member("none", 1001, weight=0), "b": member("few", 1002, weight=0.001), "c": member("one", 1003)}

    assert {"none": 0, "few": 1, "one": 100} == {s.task: s.weight for s in derive("o:p", route, given).parts[0].servers}
    assert [0] == [s.weight for s in derive("o:p", route, {"a": given["a"]}).parts[0].servers]


@pytest.mark.parametrize("mode", ["tcp", "tls"])
def test_a_route_that_cannot_be_sticky_is_served_and_told(mode: str):
    """Whoever wrote the record; in a file of routes it is refused."""
    port = RoutePort(index=0, mode=mode, sticky=True, vhosts=("a.example",) if mode == "tls" else ())
    made = derive("o:p", Route(service="o:p", ports=(port,)), {})

    assert (f"port 0: sticky: needs mode http, not {mode}; no client is kept",) == made.problems
    assert not made.parts[0].shape.sticky
    entry = route_files.Entry(service="o:p", port=10100, mode=mode, sticky=True, hosts=port.vhosts)
    with pytest.raises(Refused, match=rf"sticky: .* needs mode http, not {mode}"):
        route_files.routes_of([entry], "file")


def test_an_announced_service_may_have_a_vip():
    """`fairlead announce --label VIP_0=/web:80`: its labels are those of its port, where a VIP belongs."""
    announced = Service(name="web", port=8080, labels={"VIP_0": "/web:80", "HAPROXY_0_STICKY": "true"})
    found = vips.route_from_vips("static:web", {"m": member_of(announced, "10.0.0.1")})
    assert found is not None
    (part,) = derive("static:web", found[0], {"m": member_of(announced, "10.0.0.1")}).parts

    assert ["web.static:80"] == list(map(str, part.vips))
    assert {"HAPROXY_0_STICKY": "true"} == member_of(announced, "10.0.0.1").discovery.labels


def test_labels_that_are_not_taken_are_told_with_the_reason():
    """Each its own: who set it shall know what to do instead."""
    not_taken = ("HAPROXY_0_BACKEND_HEALTHCHECK_PORT_INDEX", "HAPROXY_0_SSL_CERT", "VIP_0")
    route = Route(service="o:p", ports=(RoutePort(index=0),), not_taken=not_taken)
    told = routes.wanted(
        Snapshot(revision=1, trust=Trust.LIVE, routes={"o:p": route}), Wanted(), Rules(), lambda *_: None
    )

    checked, raw, vip = problems(told, {})["o:p"]
    assert checked.endswith(
        "HAProxy checks the port it sends requests to; the agent makes the app's checks of other ports"
    )
    assert "HAPROXY_0_SSL_CERT: not taken: raw HAProxy" == raw
    assert "VIP_0: not taken: it belongs to the labels of a port, in portDefinitions" == vip


def test_nobody_is_called_as_balancers_are():
    """Balancers are believed in what they say of others."""
    with pytest.raises(Refused, match="balancer: begins the identities of balancers"):
        derive("balancer:node-2", Route(service="balancer:node-2", ports=(RoutePort(index=0),)), {})

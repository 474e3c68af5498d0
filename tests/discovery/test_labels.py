"""Labels become routes; what could break a balancer becomes a problem that names the label."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.decisions import label_names
from fairlead_discovery.decisions.labels import asks, plain_ports, route_of
from fairlead_discovery.records import Port, Route, RoutePort

WEB = RoutePort(index=0, name="http", service_port=10100)
ADMIN = RoutePort(index=1, name="admin", service_port=10101, mode="tcp")
SAFE = re.compile(r"[A-Za-z0-9._~!$&()*+,=:@%/-]*")


def route(labels: dict[str, str]) -> tuple[Route, tuple[str, ...]]:
    made, problems = route_of("marathon:/web", labels, (WEB, ADMIN))
    return made, tuple(map(str, problems))


def test_labels_of_marathon_lb_make_a_route():
    """Virtual hosts as a comma list, in lower case; path, port, mode, stickiness, algorithm."""
    made, problems = route(
        {
            "HAPROXY_0_VHOST": "Shop.example.org, www.example.org",
            "HAPROXY_0_PATH": "/cart",
            "HAPROXY_0_PORT": "10500",
            "HAPROXY_0_STICKY": "true",
            "HAPROXY_0_BALANCE": "leastconn",
            "FAIRLEAD_REUSE": "true",
            "FAIRLEAD_0_RETRY_NON_IDEMPOTENT": "true",
        }
    )

    assert () == problems
    web = RoutePort(
        index=0,
        name="http",
        service_port=10500,
        vhosts=("shop.example.org", "www.example.org"),
        path="/cart",
        sticky=True,
        balance="leastconn",
        reuse=True,
        retry_non_idempotent=True,
    )
    assert (web, RoutePort(index=1, name="admin", service_port=10101, mode="tcp", reuse=True)) == made.ports


def test_a_virtual_host_makes_it_http():
    """As in marathon-lb; a label that says tcp contradicts it."""
    made, problems = route({"HAPROXY_1_VHOST": "a.example"})
    assert ("http", ()) == (made.ports[1].mode, problems)

    made, problems = route({"HAPROXY_1_VHOST": "a.example", "HAPROXY_1_MODE": "tcp"})
    assert ("tcp", (), ("HAPROXY_1_VHOST: a virtual host needs mode http, it is tcp",)) == (
        made.ports[1].mode,
        made.ports[1].vhosts,
        problems,
    )


def test_a_port_that_is_not_enabled_is_left_out():
    """HAPROXY_{n}_ENABLED=false takes the port out of the balancer."""
    made, problems = route({"HAPROXY_0_ENABLED": "false"})

    assert ([1], ()) == ([port.index for port in made.ports], problems)


def test_other_labels_are_left_alone():
    """A task carries many labels; marathon-lb has more than are taken here."""
    labels = {
        "team": "shop",
        "HAPROXY_0_BIND_OPTIONS": "ssl crt /etc/x",
        "HAPROXY_0_BACKEND_HEAD": "backend {backend}",
        "FAIRLEAD_DRAIN_SECONDS": "30",
        "haproxy_0_vhost": "x",
    }

    assert ((WEB, ADMIN), ()) == (route(labels)[0].ports, route(labels)[1])
    assert not asks(labels)
    assert asks({"HAPROXY_0_VHOST": "x"})


def test_marathon_lbs_labels_that_are_not_taken_are_named():
    """Nothing comes of them, and whoever set them shall know; those that are read, or not needed, are no such labels."""
    raw = (
        "HAPROXY_0_BACKEND_HEAD",
        "HAPROXY_0_BACKEND_HEALTHCHECK_PORT_INDEX",
        "HAPROXY_0_BIND_ADDR",
        "HAPROXY_0_BIND_OPTIONS",
        "HAPROXY_0_HTTP_FRONTEND_ACL",
        "HAPROXY_0_SSL_CERT",
    )
    others = ("HAPROXY_0_VHOST", "HAPROXY_0_BACKEND_NETWORK_ALLOWED_ACL", "HAPROXY_0_BACKEND_WEIGHT", "BIND_ADDR")

    assert raw == route(dict.fromkeys((*reversed(raw), *others), "10.0.0.0/8"))[0].not_taken


@pytest.mark.parametrize(
    ("label", "text", "reason"),
    [
        ("HAPROXY_0_VHOST", "a.example\n  http-request deny", "is no host name"),
        ("HAPROXY_0_VHOST", "a b.example", "is no host name"),
        ("HAPROXY_0_VHOST", "a.example,,b.example", "is no host name"),
        ("HAPROXY_0_VHOST", "*", "is no host name"),
        ("HAPROXY_0_VHOST", "-a.example", "is no host name"),
        ("HAPROXY_0_VHOST", "a" * 64 + ".example", "is no host name"),
        ("HAPROXY_0_VHOST", ".".join(["abc"] * 70), "is no host name"),
        ("HAPROXY_0_VHOST", "bücher.example", "is no host name"),
        ("HAPROXY_0_PATH", '/"} use_backend x', "is no path"),
        ("HAPROXY_0_PATH", "/a b", "is no path"),
        ("HAPROXY_0_PATH", "/a;b", "is no path"),
        ("HAPROXY_0_PATH", "a", "is no path"),
        ("HAPROXY_0_PATH", "/%[env(HOME)]", "is no path"),
        ("HAPROXY_0_PATH", "/a\x00", "is no path"),
        ("HAPROXY_0_PORT", "0", "is no port"),
        ("HAPROXY_0_PORT", "65536", "is no port"),
        ("HAPROXY_0_PORT", "١٢", "is no port"),
        ("HAPROXY_0_PORT", "9" * 5000, "is no port"),
        ("HAPROXY_0_MODE", "http\n", "is none of http, tcp"),
        ("HAPROXY_0_BALANCE", "roundrobin\nserver x", "is none of roundrobin"),
        ("HAPROXY_0_STICKY", "maybe", "neither true nor false"),
        ("HAPROXY_7_PORT", "80", "the service has no port 7"),
    ],
)
def test_a_bad_label_is_named_with_its_reason(label: str, text: str, reason: str):
    """It counts as not given, and the message can stand on one line of a terminal."""
    good = {"HAPROXY_0_VHOST": "a.example"} if "PATH" in label else {}
    made, problems = route({**good, label: text})

    (problem,) = problems
    assert problem.startswith(f"{label}: ")
    assert reason in problem
    assert problem.isprintable()
    assert len(problem) < 200
    assert route(good)[0] == made


def test_a_path_needs_a_virtual_host():
    """Alone it would catch every request of the balancer."""
    made, problems = route({"HAPROXY_0_PATH": "/x"})

    assert ("", ("HAPROXY_0_PATH: a path needs a virtual host, HAPROXY_0_VHOST",)) == (made.ports[0].path, problems)


KEYS = ("VHOST", "PATH", "PORT", "MODE", "STICKY", "BALANCE", "ENABLED", "REUSE")
PIECES = (
    "a.example",
    "/x",
    " ",
    "\n",
    "'",
    '"',
    "{",
    "}",
    "\\",
    ";",
    "#",
    "%",
    "10100",
    "true",
    "*.",
    "ü",
    "\x7f",
    ",",
)


@given(
    st.dictionaries(
        st.builds(
            "{}_{}_{}".format, st.sampled_from(("HAPROXY", "FAIRLEAD")), st.integers(0, 2), st.sampled_from(KEYS)
        ),
        st.lists(st.sampled_from(PIECES), max_size=4).map("".join),
    )
)
def test_nothing_that_breaks_a_configuration_gets_through(labels: dict[str, str]):
    """Whatever the labels hold: every text in the route is of harmless characters."""
    made, _ = route(labels)

    for port in made.ports:
        for text in (*port.vhosts, port.path, port.mode, port.balance):
            assert SAFE.fullmatch(text), text
        assert 0 <= port.service_port <= 65535


def test_a_foreign_tasks_ports_have_no_service_port():
    """Only labels give one; UDP is nothing for HAProxy."""
    ports = plain_ports(
        (
            Port(index=0, number=80, host_port=31000, name="http"),
            Port(index=1, number=53, host_port=31001, protocols=("udp",)),
            Port(index=2, number=99, host_port=31002),
        )
    )

    assert [(0, "http", 0), (2, "tcp", 0)] == [(p.index, p.mode, p.service_port) for p in ports]


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("FAIRLEAD_0_EJECT_AFTR", "FAIRLEAD_0_EJECT_AFTER"),
        ("FAIRLEAD_0_rate", "FAIRLEAD_0_RATE"),
        ("FAIRLEAD_RETRYON", "FAIRLEAD_RETRY_ON"),
        ("FAIRLEAD_1_MTSL", "FAIRLEAD_1_MTLS"),
        ("FAIRLEAD_0_VHOST", "HAPROXY_0_VHOST"),
        ("FAIRLEAD_0_DRAIN_SECONDS", "FAIRLEAD_DRAIN_SECONDS"),
        ("FAIRLEAD_DRAIN_SECOND", "FAIRLEAD_DRAIN_SECONDS"),
        ("FAIRLEAD_IDENTTY", "FAIRLEAD_IDENTITY"),
    ],
)
def test_a_misspelt_label_is_named_with_the_one_that_was_meant(label: str, meant: str):
    """In silence its rule would not hold."""
    _, problems = route_of("o:p", {label: "5"}, (RoutePort(index=0), RoutePort(index=1)))

    assert [f"{label}: is no label of fairlead; {meant} is"] == list(map(str, problems))


def test_every_label_that_somebody_reads_is_known_and_strangers_are_let_be():
    """But below a port's number there are only ours."""
    others = dict.fromkeys((*label_names.ALL, "FAIRLEAD_TEAM", "FAIRLEAD_COST_CENTRE", "MY_FAIRLEAD_0_X"), "5")
    _, problems = route_of("o:p", others, (RoutePort(index=0),))
    assert () == problems

    _, problems = route_of("o:p", {"FAIRLEAD_0_COST_CENTRE": "5"}, (RoutePort(index=0),))
    assert ["FAIRLEAD_0_COST_CENTRE: is no label of fairlead"] == list(map(str, problems))


def test_a_vip_of_no_port_and_a_sticky_port_of_tcp_are_told():
    """The one is named by the balancer, with where it belongs; the other is refused with its reason."""
    made, problems = route_of(
        "o:p", {"VIP_0": "/web:80", "HAPROXY_0_STICKY": "true"}, (RoutePort(index=0, mode="tcp"),)
    )

    assert ("VIP_0",) == made.not_taken
    assert not made.ports[0].sticky
    reason = "HAPROXY_0_STICKY: a client is kept at its server by a cookie, which needs mode http, it is tcp"
    assert [reason] == list(map(str, problems))

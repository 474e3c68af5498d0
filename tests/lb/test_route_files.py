"""Routes that operators write: read, planned, explained."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import Refused
from fairlead_discovery.records import Check, Route, RoutePort
from fairlead_lb.decisions import grammar
from fairlead_lb.decisions.parts import OPERATOR
from fairlead_lb.decisions.route_files import Entry, entries_of, meets, parse, plan, routes_of

FILE = """
[[route]]
service = "erp:db"
hosts = ["erp.example.com", "*.erp.example.com"]
path = "/api"
check = "/health"
check_every = "500ms"
check_timeout = "5s"
check_fall = 2
timeout = "5s"

[[route]]
service = "erp:db"
index = 1
port = 10150
mode = "tcp"
balance = "leastconn"
check = "tcp"
"""


def test_a_file_is_routes():
    """Two ports of one service are one record."""
    ports = (
        RoutePort(
            index=0,
            vhosts=("erp.example.com", "*.erp.example.com"),
            path="/api",
            check=Check(path="/health", interval_s=0.5, timeout_s=5.0, fall=2),
            timeout_server_s=5,
        ),
        RoutePort(index=1, service_port=10150, mode="tcp", balance="leastconn", check=Check()),
    )

    assert {"erp:db": Route(service="erp:db", ports=ports, source=OPERATOR)} == parse(FILE, "r.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[route]", "r.toml: "),
        ("[[route]]\nhosts = ['a']", "r.toml: route 1: Object missing required field `service`"),
        ("[[route]]\nservice = 'a:b'\nhots = ['a']", "r.toml: route 1: Object contains unknown field `hots`"),
        ("[[route]]\nservice = 'a:b'\nport = 'x'", "r.toml: route 1: Expected `int`, got `str` - at `$.port`"),
        ("[[route]]\nservice = 'b'\nport = 80", "b: no service key"),
        ("[[route]]\nservice = 'a:b'", "r.toml: a:b: needs hosts or a port"),
        ("[[route]]\nservice = 'a:b'\nhosts = ['a b']", "r.toml: a:b: port 0: virtual host 'a b': not a host name"),
        ("[[route]]\nservice = 'a:b'\nport = 1\ntimeout = 'soon'", "route 1 (a:b): timeout: 'soon' is no duration"),
        ("[[route]]\nservice = 'a:b'\nport = 1\ncheck = 'ping'", "route 1 (a:b): check 'ping'"),
        ("[[route]]\nservice = 'a:b'\nport = 1\n" * 2, "route 2 (a:b): index 0 is there twice"),
        ("[[route]]\nservice = 'a:b'\nport = 1\nindex = -1", "route 1 (a:b): index -1: not between 0 and 999"),
        ("routes = 1", "r.toml: Object contains unknown field `routes`"),
    ],
)
def test_a_bad_file_is_refused_naming_the_place(text: str, told: str):
    """File, entry and field."""
    with pytest.raises(Refused) as caught:
        parse(text, "r.toml")

    assert told in str(caught.value)


entries = st.builds(
    Entry,
    service=st.sampled_from(("a:b", "marathon:/x")),
    index=st.integers(0, 3),
    hosts=st.lists(st.sampled_from(("a.example", "*.b.example")), min_size=1, unique=True).map(tuple),
    path=st.sampled_from(("", "/x")),
    port=st.integers(0, 65535),
    balance=st.sampled_from(grammar.BALANCES["http"]),
    sticky=st.booleans(),
    check=st.sampled_from(("", "tcp", "/h?a=1")),
    timeout=st.sampled_from(("150ms", "5s", "1500ms", "90s")),
)


@given(st.lists(entries, unique_by=lambda e: (e.service, e.index)))
def test_what_is_shown_can_be_applied(given_entries: list[Entry]):
    """Entries of a route make the same route again."""
    made = routes_of(given_entries, "r")
    shown = [entry for route in made.values() for entry in entries_of(route)]

    assert made == routes_of(shown, "r")


def test_a_plan_adds_changes_and_removes_only_what_operators_wrote():
    """Apps' routes are left alone, also by prune."""
    port = RoutePort(index=0, vhosts=("a.example",))
    now = {
        "a:same": Route(service="a:same", ports=(port,), source=OPERATOR),
        "a:other": Route(service="a:other", ports=(port,), source=OPERATOR),
        "a:gone": Route(service="a:gone", ports=(port,), source=OPERATOR),
        "marathon:/app": Route(service="marathon:/app", ports=(port,)),
    }
    wanted = {
        s: Route(service=s, ports=(RoutePort(index=0, vhosts=(f"{s[2:3]}.example",)),), source=OPERATOR)
        for s in ("a:other", "a:new")
    }
    wanted["a:same"] = now["a:same"]
    found = plan(now, wanted, prune=True)

    assert ({"a:new"}, {"a:other"}, {"a:gone"}) == (set(found.added), set(found.changed), set(found.removed))
    assert not plan(now, wanted, prune=False).removed
    assert plan(now, {"a:same": now["a:same"]}, prune=False).empty


def test_an_apps_route_is_not_written_over():
    """The next deployment would undo it."""
    now = {"marathon:/app": Route(service="marathon:/app")}
    with pytest.raises(Refused, match="from the app's labels"):
        plan(now, {"marathon:/app": Route(service="marathon:/app", source=OPERATOR)}, prune=False)


HOSTS = {"a.example": "root", "a.example/cart": "cart", "*.example": "wild", "*.b.example/x": "deep"}


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("a.example", "/", "root"),
        ("A.example.:8080", "/other", "root"),
        ("a.example", "/cart", "cart"),
        ("a.example", "/cart/1", "cart"),
        ("a.example", "/carton", "root"),
        ("z.example", "/", "wild"),
        ("q.b.example", "/x/y", "deep"),
        ("q.b.example", "/y", None),
        ("example", "/", None),
    ],
)
def test_explain_decides_as_haproxy_does(host: str, path: str, expected: str | None):
    """Exact host first; of the wildcards only the longest is looked at; paths end at segments."""
    met = meets(HOSTS, host, path)

    assert expected == (met[1] if met is not None else None)

"""No value leaves its place in the configuration, the maps or the runtime socket; HAProxy takes what is rendered."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fairlead_daemon.errors import Refused
from fairlead_discovery.records import Abort, Check, Delay, Rate, Route, RoutePort, Traffic
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import grammar, naming, picture, render, routes
from fairlead_lb.decisions.change import Serving, Surroundings
from fairlead_lb.decisions.commands import MapEntry, MapWhole
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.values import Admin, Frame, Key, Slot, Structure
from harness.balancer import member
from harness.haproxy_model import AROUND, Model
from harness.servers import require

INJECTIONS = (
    "a.example\n    http-request return status 200",
    "a.example\r\nbackend x",
    "a.example backend",
    'a.example" evil',
    "a.example{",
    "a.example}",
    "a.example;shutdown frontend x",
    "a.example\\",
    "a.example#",
    "a.example\0",
    "a.example\x1b[0m",
    "a.example\u2028x",
    "%[env(HOME)]",
    "${HOME}",
    "a.example/x",
    "<<",
    "\uff41.example",
    "-a.example",
    "a..example",
    "a.example\n",
    "a.example\t",
    "a\n.example",
    "{{ 7 * 7 }}.example",
    "{% include '/etc/shadow' %}",
    "a." * 500_000 + "example",
    "",
)


@pytest.mark.parametrize("value", INJECTIONS)
def test_an_injection_is_refused_as_host(value: str):
    """Each of them by the grammar, before anything is rendered, in words of a bearable length."""
    with pytest.raises(Refused) as refused:
        grammar.vhost(value)
    assert len(str(refused.value)) < 200


PATHS = (
    '/"',
    "/a b",
    "/a\nb",
    "/a;b",
    "/{x}",
    "/a\\",
    "/#",
    "x",
    "/é",
    "/" + "a" * 300,
    "/<<",
    "/a\x7f",
    "/'",
    "/{{ x }}",
    "/a" * 500_000,
)


@pytest.mark.parametrize("value", PATHS)
def test_an_injection_is_refused_as_path_and_as_check_path(value: str):
    """As with hosts."""
    with pytest.raises(Refused):
        grammar.path(value)
    with pytest.raises(Refused):
        grammar.shape(RoutePort(index=0, check=Check(path=value)))


EVERY_RULE = Traffic(
    allow=("10.0.0.0/8", "::1/128"),
    deny=("10.1.0.0/16",),
    realm="shop",
    users=("ann:$5$rounds=5000$abcdefgh$5tBZ7b1c8DRHKr6QWcQ5RzrAUvR.zE5OSHPjR2/xs4C",),
    https_only=True,
    hsts=True,
    rate=Rate(count=10),
    client_rate=Rate(count=600, per_s=60),
    server_connections=20,
    server_queue=30,
    queue_timeout_s=1,
    connect_timeout_s=0.2,
    tunnel_timeout_s=10,
    retries=1,
    retry_on=("503", "junk-response"),
    retry_budget_percent=20,
    eject_after=5,
    eject_share_percent=30,
    eject_least=40,
    eject_s=3,
    abort=Abort(percent=12.5, status=502),
    delay=Delay(percent=1.25, delay_s=0.5),
    strip_path="/a%20b",
    location_prefix="/a%20b",
    deadlines=True,
    protocol="h2",
)
EVERY_RULE_OF_TCP = Traffic(
    allow=EVERY_RULE.allow,
    deny=EVERY_RULE.deny,
    rate=EVERY_RULE.rate,
    client_rate=EVERY_RULE.client_rate,
    server_connections=20,
    queue_timeout_s=1,
    connect_timeout_s=0.2,
    tunnel_timeout_s=10,
    retries=0,
    eject_after=5,
)


def underived(_service: str, _members: object) -> None:
    return None


nasty = st.one_of(st.text(max_size=20), st.sampled_from(INJECTIONS + PATHS))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(app=nasty, host=nasty, path=nasty, balance=nasty, check=nasty, place=nasty, task=nasty)
@example(app="/x\nbackend y", host="a.example", path="", balance="roundrobin", check="/h", place="127.0.0.1", task="t;")
def test_no_value_leaves_its_place(app: str, host: str, path: str, balance: str, check: str, place: str, task: str):
    """Whatever a tenant writes anywhere: each line is one of the template's, each command has its words and no more."""
    rules = Traffic(realm=app, users=(f"{host}:{place}",), strip_path=path, location_prefix=check, deny=(host,))
    port = RoutePort(
        index=0, service_port=10100, vhosts=(host,), path=path, balance=balance, check=Check(path=check), traffic=rules
    )
    service = f"marathon:{app}"
    plain = RoutePort(index=1, service_port=10101)
    snapshot = Snapshot(
        revision=1,
        trust=Trust.LIVE,
        members={service: {"m": member(task, 31000, app=app, host=place)}},
        routes={
            service: Route(service=service, app=app, ports=(port, plain)),
            "o:p": Route(service="o:p", app=app, ports=(plain,)),
        },
    )
    wanted = routes.wanted(snapshot, Wanted(), Rules(), underived)
    made = picture.wanted_picture(Serving(structure=Structure(frame=AROUND.frame)), wanted, AROUND)
    lines = render.config(made).splitlines()

    assert all(line.isascii() and line.isprintable() for line in lines)
    known = ("backend ", "frontend ", "global", "defaults", "#", "    ")
    assert all(not line or line.startswith(known) for line in lines)
    assert len(wanted.backends) + 4 == sum(line.startswith("backend ") for line in lines)
    assert sum(line.lstrip().startswith("http-request return") for line in lines) == 2
    maps = {name: text for name, text in render.map_files(made.maps).items() if name.endswith(".map")}
    for text in maps.values():
        assert all(len(line.split(" ")) == 2 for line in text.splitlines())
    model = Model()
    model.follow(wanted)
    found = changes.change(
        Serving(structure=made.structure, slots={n: {"s1": Slot()} for n in made.slots}), wanted, AROUND, {}
    )
    for command in found.routing_commands if not isinstance(found, changes.Nothing) else ():
        if isinstance(command, MapWhole):
            texts = [f"{k} {v}" for k, v in command.entries]
        else:
            texts = [command.text("f") if isinstance(command, MapEntry) else command.text()]
        assert all(t.isascii() and t.isprintable() and not set(t) & set(";\\\"'<>") for t in texts)


def test_the_last_guard_refuses_what_the_grammar_let_through():
    """Rendering itself takes only plain words."""
    frame = Frame(folder="/srv/x", sockets="/srv/x")
    made = picture.Picture(structure=Structure(frame=frame, shapes={}, owners={}))
    assert "frontend fairlead_hosts" in render.config(made)
    with pytest.raises(Refused):
        render.backend_text("x\nbackend y", picture.Shape(), {}, frame)
    with pytest.raises(Refused):
        render.map_text({"a b": "c"})


def test_what_backends_say_alike_is_said_once():
    """Of many plain services and one with a rule of its own: one set of rules for all plain ones, whole ones for the other."""
    ports = [RoutePort(index=n, service_port=20100 + n) for n in range(5)]
    ruled = RoutePort(index=5, service_port=20105, traffic=Traffic(max_connections=5))
    route = Route(service="o:p", app="/a/b", ports=(*ports, ruled))
    snapshot = Snapshot(revision=1, trust=Trust.LIVE, routes={"o:p": route})
    wanted = routes.wanted(snapshot, Wanted(), Rules(), underived)
    made = picture.wanted_picture(Serving(structure=Structure(frame=AROUND.frame)), wanted, AROUND)
    lines = render.config(made).splitlines()

    assert 5 == sum(line.startswith("backend ") and line.endswith(" from fairlead_alike_1") for line in lines)
    assert 2 == sum("disable-l7-retry unless" in line for line in lines) - _in_head("disable-l7-retry unless")
    assert 1 == sum("be_conn" in line for line in lines)


def test_empty_slots_that_follow_one_another_are_one_line():
    """Each keeps its name, its weight and that it takes no request; one that is in use parts them."""
    slots = {f"s{n}": Slot() for n in range(1, 9)} | {"s4": Slot(host="127.0.0.1", port=31000, admin=Admin.READY)}
    text = render.backend_text("x", picture.Shape(), slots, AROUND.frame)

    assert [
        "    server-template s 1-3 127.0.0.1:1 weight 100 disabled",
        "    server s4 127.0.0.1:31000 weight 100",
        "    server-template s 5-8 127.0.0.1:1 weight 100 disabled",
    ] == [line for line in text.splitlines() if line.startswith("    server")]


def _in_head(words: str) -> int:
    empty = picture.Picture(structure=Structure(frame=AROUND.frame))
    return sum(words in line for line in render.config(empty).splitlines())


@pytest.mark.needs("haproxy")
def test_haproxy_takes_what_is_rendered(tmp_path: Path):
    """Every mode, balance, check and option at once."""
    program = require("haproxy")
    ports = []
    for number, balance in enumerate(grammar.BALANCES["http"]):
        ports.append(
            RoutePort(index=number, balance=balance, service_port=20100 + number, check=Check(path="/h?a=1&b=%20"))
        )
    for number, balance in enumerate(grammar.BALANCES["tcp"], 10):
        ports.append(RoutePort(index=number, balance=balance, mode="tcp", service_port=20200 + number, check=Check()))
    extras = (
        RoutePort(index=30, sticky=True, vhosts=("a.example", "*.b.example"), path="/x"),
        RoutePort(index=31, reuse=True, retry_non_idempotent=True, timeout_server_s=0.5),
        RoutePort(index=32, traffic=EVERY_RULE),
        RoutePort(index=33, mode="tcp", traffic=EVERY_RULE_OF_TCP, service_port=20110),
    )
    route = Route(service="o:p", app="/a/b", ports=(*ports, *extras))
    snapshot = Snapshot(revision=1, trust=Trust.LIVE, routes={"o:p": route})
    wanted = routes.wanted(snapshot, Wanted(), Rules(), underived)
    around = Surroundings(
        frame=Frame(folder=str(tmp_path), sockets=str(tmp_path), host="127.0.0.1"), service_ports=(20100, 20110)
    )
    made = picture.wanted_picture(Serving(structure=Structure(frame=around.frame)), wanted, around)
    (tmp_path / "maps").mkdir()
    for name, text in render.map_files(made.maps).items():
        (tmp_path / "maps" / name).write_text(text)
    file = tmp_path / "haproxy.cfg"
    file.write_text(render.config(made))
    done = subprocess.run([program, "-c", "-f", str(file)], capture_output=True, text=True, check=False)

    assert {} == wanted.refused
    assert (0, "") == (done.returncode, done.stderr)


def test_names_are_marathon_lbs():
    """`/shop/web` on 10100 is `shop_web_10100`; foreign services carry their framework."""
    assert "shop_web_10100" == naming.base_name(Key("marathon:/shop/web", 0), "/shop/web", 10100)
    assert "etl_worker_9000" == naming.base_name(Key("etl:worker", 0), "", 9000)
    assert "etl_worker_p1" == naming.base_name(Key("etl:worker", 1), "", 0)

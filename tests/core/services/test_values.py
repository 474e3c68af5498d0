"""TaskInfo, backoff, names, ports, answers and stored bytes: tables."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core.master.decisions.publishing import ports_of
from fairlead_core.resources import parse as resources
from fairlead_core.services.adapters.mesos import redirected
from fairlead_core.services.adapters.store import COMPRESS_BYTES, pack, parse_definition, unpack
from fairlead_core.services.decisions import naming, views
from fairlead_core.services.decisions.app import App, PortDefinition, definition_json, same_config
from fairlead_core.services.decisions.constraints import Place
from fairlead_core.services.decisions.deployments import Deployment, change, deployment_json
from fairlead_core.services.decisions.instances import Instance, updated
from fairlead_core.services.decisions.matching import Launch
from fairlead_core.services.decisions.offers import Offer
from fairlead_core.services.decisions.parsing import parse
from fairlead_core.services.decisions.problems import Invalid
from fairlead_core.services.decisions.routing import PortRules, route_of, taken_ports, with_service_ports
from fairlead_core.services.decisions.task_info import task_info
from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import vips
from fairlead_discovery.decisions.vips import Vip

VERSION = "2026-11-20T09:15:03.123Z"
RAW = {
    "id": "/shop/web",
    "cmd": "exec server",
    "cpus": 0.25,
    "mem": 64,
    "user": "www",
    "env": {"MODE": "blue", "PORT1": "mine"},
    "labels": {"team.name": "shop", "HAPROXY_0_VHOST": "shop.example"},
    "portDefinitions": [
        {"port": 10100, "name": "http", "labels": {"VIP_0": "x"}},
        {"port": 10101, "name": "stats", "protocol": "udp,tcp"},
    ],
    "healthChecks": [{"protocol": "HTTP", "path": "/up", "portIndex": 1, "intervalSeconds": 5}],
    "taskKillGracePeriodSeconds": 2.5,
    "fetch": [{"uri": "file:///srv/a.tgz", "destPath": "a", "cache": True}],
}


def launch(**more: Any) -> Launch:
    app = msgspec.structs.replace(parse({**RAW, **more}), version=VERSION)
    place = Place(hostname="host-a")
    offer = Offer(id="O1", agent="S1", place=place, resources=resources("cpus:4;mem:512;ports:[31000-31009]"), role="*")
    return Launch(
        app=app, offer=offer, resources=resources("cpus:0.25;mem:64;ports:[31000-31001]"), ports=(31000, 31001)
    )


def variables(info: dict[str, Any]) -> dict[str, str]:
    return {v["name"]: v["value"] for v in info["command"]["environment"]["variables"]}


def test_the_environment_is_marathons():
    """Ports by index, number and name; labels; resources; the app's own variables win."""
    found = variables(task_info(launch(), "T1"))

    assert {
        "MARATHON_APP_ID": "/shop/web",
        "MARATHON_APP_VERSION": VERSION,
        "MARATHON_APP_RESOURCE_CPUS": "0.25",
        "MARATHON_APP_RESOURCE_MEM": "64",
        "MARATHON_APP_RESOURCE_DISK": "0",
        "MARATHON_APP_RESOURCE_GPUS": "0",
        "MARATHON_APP_LABELS": "TEAM_NAME HAPROXY_0_VHOST",
        "MARATHON_APP_LABEL_TEAM_NAME": "shop",
        "MARATHON_APP_LABEL_HAPROXY_0_VHOST": "shop.example",
        "MESOS_TASK_ID": "T1",
        "HOST": "host-a",
        "PORT": "31000",
        "PORT0": "31000",
        "PORT1": "mine",
        "PORT_10100": "31000",
        "PORT_10101": "31001",
        "PORT_HTTP": "31000",
        "PORT_STATS": "31001",
        "PORTS": "31000,31001",
        "MODE": "blue",
    } == found


def test_long_labels_are_no_variables():
    """Over 512 characters they are dropped, as by Marathon."""
    found = variables(task_info(launch(labels={"a": "x" * 513, "b": "y"}), "T1"))

    assert "B" == found["MARATHON_APP_LABELS"]
    assert "MARATHON_APP_LABEL_A" not in found


def test_task_info_says_all_that_the_agent_needs():
    """Name, discovery, health check, kill policy, user, what is fetched, labels for whoever publishes it."""
    info = task_info(launch(), "T1")

    assert ("web.shop", "T1", "S1") == (info["name"], info["task_id"]["value"], info["agent_id"]["value"])
    assert {"name": "web.shop", "visibility": "FRAMEWORK"} == {k: info["discovery"][k] for k in ("name", "visibility")}
    assert [(31000, "http", "tcp"), (31001, "stats", "tcp"), (31001, "stats", "udp")] == [
        (p["number"], p["name"], p["protocol"]) for p in info["discovery"]["ports"]["ports"]
    ]
    assert ("HTTP", {"scheme": "http", "port": 31001, "path": "/up"}) == (
        info["health_check"]["type"],
        info["health_check"]["http"],
    )
    assert (5.0, 20.0, 3, 0.0) == tuple(
        info["health_check"][k]
        for k in ("interval_seconds", "timeout_seconds", "consecutive_failures", "delay_seconds")
    )
    assert {"grace_period": {"nanoseconds": 2_500_000_000}} == info["kill_policy"]
    assert ("www", "exec server", True) == tuple(info["command"][k] for k in ("user", "value", "shell"))
    assert [{"value": "/srv/a.tgz", "extract": True, "executable": False, "cache": True, "output_file": "a"}] == info[
        "command"
    ]["uris"]
    labels = {x["key"]: x["value"] for x in info["labels"]["labels"]}
    assert ("/shop/web", VERSION, "shop") == (
        labels["FAIRLEAD_APP_ID"],
        labels["FAIRLEAD_APP_VERSION"],
        labels["team.name"],
    )


@pytest.mark.parametrize(
    ("check", "shape"),
    [
        ({"protocol": "MESOS_TCP"}, {"type": "TCP", "tcp": {"port": 31000}}),
        ({"protocol": "TCP", "port": 99}, {"type": "TCP", "tcp": {"port": 99}}),
        (
            {"protocol": "COMMAND", "command": {"value": "true"}},
            {"type": "COMMAND", "command": {"shell": True, "value": "true"}},
        ),
        ({"protocol": "MESOS_HTTPS"}, {"type": "HTTP", "http": {"scheme": "https", "port": 31000, "path": "/"}}),
    ],
)
def test_each_health_check_in_mesos_words(check: dict[str, Any], shape: dict[str, Any]):
    """Marathon's own checks and the MESOS_ ones become the same."""
    found = task_info(launch(healthChecks=[check]), "T1")["health_check"]

    assert shape == {k: found[k] for k in shape}


def test_args_are_run_without_a_shell():
    """The first is the program."""
    command = task_info(launch(cmd=None, args=["/bin/a", "b c"]), "T1")["command"]

    assert (False, "/bin/a", ["/bin/a", "b c"]) == (command["shell"], command["value"], command["arguments"])


APP_IDS = st.lists(st.sampled_from(["a", "b", "a.b", "a-b", "x1"]), min_size=1, max_size=3).map(
    lambda p: "/" + "/".join(p)
)


@given(APP_IDS, APP_IDS)
def test_a_task_id_tells_its_app_and_version(one: str, other: str):
    """Whatever the app; two apps never share ids although `/a.b` and `/b/a` share their name."""
    task = naming.task_id(one, VERSION, "01234567-89ab-cdef-0123-456789abcdef")

    assert one == naming.app_of_task(task)
    assert naming.version_mark(VERSION) == naming.mark_of_task(task)
    assert (one == other) == (task == naming.task_id(other, VERSION, "01234567-89ab-cdef-0123-456789abcdef"))


def test_names():
    """The architecture's table."""
    assert "web.shop" == naming.task_name("/shop/web")
    assert naming.task_name("/a.b") == naming.task_name("/b/a")
    assert "shop_web.instance-" == naming.task_id("/shop/web", "v", "0" * 36)[:18]
    assert None is naming.app_of_task("ct:1:0:job:")
    assert "/shop/web" == naming.absolute("shop//web/")


def test_versions_rise_whatever_the_clock_does():
    """As text, by a millisecond at least."""
    first = naming.next_version(1_800_000_000.0)

    assert first < naming.next_version(1_800_000_000.0, after=first) < naming.next_version(1_800_000_001.0, after=first)
    assert naming.next_version(1.0, after=first) > first


def test_service_ports_are_chosen_kept_and_refused():
    """Free ones in order, named ones as they are; the range may be used up."""
    app = parse({"id": "/a", "cmd": "x", "ports": [0, 10101, 0]})

    assert (10102, 10101, 10103) == with_service_ports(
        app, PortRules(first=10100, last=10103), taken={10100: "/b"}
    ).service_ports
    with pytest.raises(Refused, match="already in use"):
        with_service_ports(app, PortRules(first=10100, last=10102), taken={10100: "/b"})
    with pytest.raises(Invalid, match="taken by /b"):
        with_service_ports(app, PortRules(first=10100, last=10103), taken={10101: "/b"})


def test_a_labels_port_is_a_service_port_too():
    """HAPROXY_0_PORT gives it, and others keep off."""
    app = parse({"id": "/a", "cmd": "x", "labels": {"HAPROXY_0_PORT": "10105"}})
    given_ = with_service_ports(app, PortRules(first=10100, last=10109), taken={})

    assert {10105: "/a"} == taken_ports(given_)
    with pytest.raises(Invalid, match="HAPROXY_0_PORT"):
        with_service_ports(app, PortRules(first=10100, last=10109), taken={10105: "/b"})


@pytest.mark.parametrize(
    ("change_", "mode", "path"),
    [
        ({"healthChecks": [{"protocol": "HTTP", "path": "/up", "portIndex": 0}]}, "http", "/up"),
        ({"healthChecks": [{"protocol": "TCP", "portIndex": 0}]}, "tcp", ""),
        ({"healthChecks": [{"protocol": "COMMAND", "command": "true"}]}, "tcp", None),
        ({"portDefinitions": [{"port": 1, "name": "http"}]}, "http", None),
        ({"labels": {"HAPROXY_0_MODE": "http"}}, "http", None),
    ],
)
def test_the_route_of_a_port(change_: dict[str, Any], mode: str, path: str | None):
    """HTTP as marathon-lb finds it; the check's path from the health check."""
    app = parse({"id": "/a", "cmd": "x", "ports": [10100], **change_})
    route = route_of(app, "marathon:/a")

    assert route is not None
    port = route.ports[0]
    assert (mode, path) == (port.mode, port.check.path if port.check is not None else None)


@pytest.mark.parametrize(
    ("given", "check"),
    [
        ({}, (60.0, 20.0, 3)),
        ({"intervalSeconds": 5, "timeoutSeconds": 4, "maxConsecutiveFailures": 2}, (5.0, 4.0, 2)),
        ({"intervalSeconds": 9_000, "timeoutSeconds": 8_000, "maxConsecutiveFailures": 0}, (3600.0, 3600.0, 3)),
    ],
)
def test_balancers_check_as_the_app_says(given: dict[str, Any], check: tuple[float, float, int]):
    """How often, how long, how many failures; within what HAProxy takes. That nothing is killed is no word for balancers."""
    app = parse({"id": "/a", "cmd": "x", "ports": [10100], "healthChecks": [{"path": "/up", "portIndex": 0, **given}]})
    route = route_of(app, "marathon:/a")

    assert route is not None
    found = route.ports[0].check
    assert found is not None
    assert check == (found.interval_s, found.timeout_s, found.fall)


def test_an_app_without_ports_has_no_route():
    """Nothing to balance."""
    assert None is route_of(parse({"id": "/a", "cmd": "x", "portDefinitions": []}), "marathon:/a")


def test_only_the_count_is_no_change_of_configuration():
    """Scaling leaves running tasks as they are."""
    app = parse(RAW)

    assert same_config(app, msgspec.structs.replace(app, instances=9, version="v9"))
    assert not same_config(app, msgspec.structs.replace(app, mem=65.0))


def test_a_deployment_is_shown_as_by_marathon():
    """Steps and current actions in its words."""
    one = msgspec.structs.replace(parse(RAW), version="v1")
    changes = {
        "/a": change(None, one),
        "/b": change(one, None),
        "/c": change(one, msgspec.structs.replace(one, instances=4, version="v1")),
        "/d": change(one, msgspec.structs.replace(one, cmd="y", version="v2")),
    }
    shown = deployment_json(Deployment(id="D", version="v2", changes=changes), {"/a": "x"})

    assert ["StartApplication", "StopApplication", "ScaleApplication", "RestartApplication"] == [
        a["action"] for a in shown["steps"][0]["actions"]
    ]
    assert [{"action": "ScaleApplication", "app": "/a", "readinessCheckResults": []}] == shown["currentActions"]
    assert {
        "id", "version", "affectedApps", "affectedPods", "steps", "currentActions", "currentStep", "totalSteps",
    } == set(shown)  # fmt: skip


PYTHON_APP = frozenset(
    [
        "acceptedResourceRoles",
        "args",
        "backoffFactor",
        "backoffSeconds",
        "cmd",
        "constraints",
        "container",
        "cpus",
        "dependencies",
        "deployments",
        "disk",
        "env",
        "executor",
        "healthChecks",
        "id",
        "role",
        "instances",
        "killSelection",
        "labels",
        "lastTaskFailure",
        "maxLaunchDelaySeconds",
        "mem",
        "ports",
        "requirePorts",
        "storeUrls",
        "taskRateLimit",
        "tasks",
        "tasksRunning",
        "tasksStaged",
        "tasksHealthy",
        "taskKillGracePeriodSeconds",
        "tasksUnhealthy",
        "upgradeStrategy",
        "unreachableStrategy",
        "uris",
        "user",
        "version",
        "versionInfo",
        "ipAddress",
        "fetch",
        "taskStats",
        "readinessChecks",
        "readinessCheckResults",
        "secrets",
        "portDefinitions",
        "residency",
        "gpus",
        "networks",
    ]
)
PYTHON_TASK = frozenset(
    [
        "appId",
        "healthCheckResults",
        "host",
        "id",
        "ports",
        "servicePorts",
        "slaveId",
        "stagedAt",
        "startedAt",
        "version",
        "ipAddresses",
        "state",
        "localVolumes",
        "region",
        "zone",
        "role",
    ]
)


def test_answers_have_no_key_that_marathon_python_refuses():
    """It raises TypeError on any other."""
    running = Instance(
        id="T", app="/a", version="v", zone="z", region="r", state="TASK_RUNNING", healthy=True, started_s=1
    )

    assert set(definition_json(parse(RAW))) <= PYTHON_APP
    assert set(views.task_json(running, parse(RAW))) <= PYTHON_TASK


def test_tasks_as_text_are_tab_separated():
    """App, service port, host:port of what runs."""
    app = App(id="/a/b", cmd="x", port_definitions=(PortDefinition(port=10100),))
    runs = Instance(id="T", app="/a/b", version="v", hostname="h", ports=(31000,), state="TASK_RUNNING")
    leaves = msgspec.structs.replace(runs, id="U", leaving="scale")

    assert "a_b\t10100\th:31000\t\n" == views.tasks_text([(app, [runs, leaves])])
    assert "a_b\t \th\t\n" == views.tasks_text([(msgspec.structs.replace(app, port_definitions=()), [runs])])


def test_what_a_status_does_not_say_stays():
    """An answer to reconciliation without health keeps the health; being unreachable forgets it."""
    one = Instance(id="T", app="/a", version="v", state="TASK_RUNNING", healthy=True, started_s=5.0, checked=True)

    assert one == updated(one, {"state": "TASK_RUNNING"}, now_s=9.0)
    lost = updated(one, {"state": "TASK_UNREACHABLE"}, now_s=9.0)
    assert (None, 9.0) == (lost.healthy, lost.unreachable_s)
    back = updated(lost, {"state": "TASK_RUNNING", "healthy": True}, now_s=10.0)
    assert (True, 0.0, 5.0) == (back.healthy, back.unreachable_s, back.started_s)


def test_long_definitions_are_stored_compressed():
    """Above 4 KiB; both read back the same."""
    small, long = App(id="/a", cmd="x"), App(id="/a", cmd="x" * COMPRESS_BYTES)

    for app in (small, long):
        data = pack(msgspec.json.encode(app))
        assert app == parse_definition(data, place="p")
        assert len(data) < COMPRESS_BYTES
    assert None is parse_definition(b'{"deleted":true}', place="p")


@pytest.mark.parametrize("data", [b"\x00", pack(b"{" + b"x" * 9000)[:20], b"{", b'{"id": 7}', b"\xff" * 9])
def test_a_broken_node_is_refused_by_its_place(data: bytes):
    """Never another error."""
    with pytest.raises(Refused, match="place-1"):
        parse_definition(data, place="place-1")


def test_keys_of_a_newer_version_are_ignored_when_stored():
    """Neighbouring versions of fairlead work together."""
    app = parse_definition(b'{"id":"/a","cmd":"x","tomorrow":1}', place="p")

    assert App(id="/a", cmd="x") == app
    assert b"{}" == unpack(b"{}", place="p")


@pytest.mark.parametrize(
    "location", ["//h:5050/api/v1/scheduler", "h:5050", "http://h:5050", "http://h:5050/api/v1/scheduler"]
)
def test_redirections_of_masters(location: str):
    """Scheme-relative, bare, whole."""
    assert "http://h:5050/api/v1/scheduler" == redirected(location)


RULES = PortRules(first=10100, last=10109, reserved=((5050, 5051), (10100, 10101), (31000, 32000)))


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"portDefinitions": [{"port": 80}]}, "/portDefinitions(0)/port", "below 1024"),
        ({"portDefinitions": [{"port": 0}, {"port": 5051}]}, "/portDefinitions(1)/port", "reserved_ports"),
        ({"portDefinitions": [{"port": 31500}]}, "/portDefinitions(0)/port", "reserved_ports"),
        ({"labels": {"HAPROXY_0_PORT": "443"}}, "/labels/HAPROXY_0_PORT", "below 1024"),
        ({"labels": {"HAPROXY_0_PORT": "32000"}}, "/labels/HAPROXY_0_PORT", "reserved_ports"),
        ({"requirePorts": True, "labels": {"HAPROXY_0_PORT": "32000"}}, "/labels/HAPROXY_0_PORT", "reserved_ports"),
    ],
)
def test_a_reserved_service_port_is_refused_by_its_field(change: dict[str, Any], path: str, words: str):
    """A balancer that bound it would take it from a daemon or a task."""
    app = parse({"id": "/a", "cmd": "x", **change})
    with pytest.raises(Invalid) as error:
        with_service_ports(app, RULES, taken={})

    assert [path] == [p.path for p in error.value.problems]
    assert words in error.value.problems[0].error


def test_reserved_ports_are_not_given_out_and_held_ones_are_kept():
    """The range may overlap what is reserved; an app that has such a port already can still be scaled."""
    app = parse({"id": "/a", "cmd": "x", "portDefinitions": [{"port": 0}, {"port": 5050}]})

    assert (10102, 5050) == with_service_ports(app, RULES, taken={}, held={5050: "/a"}).service_ports
    low = parse({"id": "/a", "cmd": "x", "portDefinitions": [{"port": 80}]})
    assert (80,) == with_service_ports(low, PortRules(first=1, last=9, low=True), taken={}).service_ports


def test_required_ports_are_host_ports_and_no_service_ports():
    """The balancer of the same machine must not bind what the task is to bind; a label gives a service port."""
    app = parse({"id": "/a", "cmd": "x", "requirePorts": True, "portDefinitions": [{"port": 31005}, {"port": 31006}],
                 "labels": {"HAPROXY_1_PORT": "10105"}})  # fmt: skip
    finished = with_service_ports(app, RULES, taken={31005: "/b"})
    route = route_of(finished, "marathon:/a")

    assert (31005, 31006) == finished.service_ports
    assert route is not None
    assert [0, 10105] == [p.service_port for p in route.ports]
    assert {10105: "/a"} == taken_ports(finished)


def test_a_port_of_two_protocols_shifts_no_other():
    """What is published has the index of the definition, as its route has; TCP comes before UDP. Labels go with it."""
    both, vip = {"port": 0, "protocol": "udp,tcp"}, {"port": 0, "labels": {"VIP_0": "/web:80"}}
    found = ports_of(task_info(launch(portDefinitions=[both, vip], healthChecks=[]), "T1"))

    assert [("tcp",), ("tcp",), ("udp",)] == [port.protocols for port in found]
    assert [0, 1, 0] == [(31000, 31001).index(port.number) for port in found]
    assert [(), (Vip("web.marathon", 80),), ()] == [vips.of_port(port, "marathon") for port in found]

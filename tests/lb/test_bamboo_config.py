"""Bamboo's file, environment, records, command line and templates, as values."""

import json
import subprocess
from pathlib import Path

import pytest

from fairlead_daemon.decisions.go_flags import UsageError
from fairlead_daemon.errors import BadSettings, Refused
from fairlead_discovery.policies import Bamboo
from fairlead_discovery.records import Check
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import bamboo_config, bamboo_flags, bamboo_records
from fairlead_lb.decisions.bamboo_import import plan
from fairlead_lb.decisions.bamboo_template import render, usable
from harness.balancer import member, route
from harness.servers import require

FILE = {
    "Marathon": {"Endpoint": "http://m1:8080,http://m2:8080", "User": "u", "Password": "p", "UseEventStream": True},
    "Bamboo": {
        "Endpoint": "http://b:8000",
        "Zookeeper": {"Host": "z1:2181,z2:2181", "Path": "/marathon-haproxy/state", "ReportingDelay": 5},
    },
    "HAProxy": {
        "TemplatePath": "/etc/bamboo/haproxy.j2",
        "OutputPath": "/etc/haproxy/haproxy.cfg",
        "ReloadCommand": "systemctl reload haproxy",
        "ReloadValidationCommand": "haproxy -c -f {{.}}",
        "ReloadCleanupCommand": "exit 0",
    },
    "StatsD": {"Enabled": True, "Host": "s:8125", "Prefix": "bamboo."},
}


def read(raw: object, **environment: str) -> bamboo_config.Mapped:
    return bamboo_config.read(json.dumps(raw).encode(), environment, place="b.json")


def test_every_key_of_the_file_is_mapped_or_said_to_mean_nothing():
    """Nothing is passed over in silence."""
    found = read(FILE)

    assert {
        "bamboo_default_rules": True,
        "bamboo_marathon": "http://m1:8080,http://m2:8080",
        "bamboo_zookeeper": "zk://z1:2181,z2:2181/marathon-haproxy/state",
        "registry": "zk://z1:2181,z2:2181",
        "bamboo_template": "/etc/bamboo/haproxy.j2",
        "bamboo_output": "/etc/haproxy/haproxy.cfg",
        "bamboo_reload": "systemctl reload haproxy",
        "bamboo_validate": "haproxy -c -f {{.}}",
        "bamboo_cleanup": "exit 0",
        "statsd": "s:8125",
        "statsd_prefix": "bamboo.",
    } == found.values
    assert ["Marathon.User", "Marathon.Password", "Marathon.UseEventStream", "Bamboo.Endpoint",
            "Bamboo.Zookeeper.ReportingDelay"] == [note.partition(":")[0] for note in found.notes]  # fmt: skip


def test_the_environment_wins_over_the_file_and_keys_come_in_any_case():
    """As in Bamboo; what is empty is as not given."""
    found = read(
        {"bamboo": {"zooKeeper": {"HOST": "a:1", "path": "/x"}}, "statsd": {"host": "s:1", "enabled": True}},
        BAMBOO_ZK_HOST="b:2", BAMBOO_ZK_PATH="", STATSD_ENABLED="false",
    )  # fmt: skip

    assert {"bamboo_default_rules": True, "bamboo_zookeeper": "zk://b:2/x", "registry": "zk://b:2"} == found.values


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        ({"Marathon": {"Endpoint": 5}}, "Marathon.Endpoint: not a text, not used"),
        ({"Zebra": 1}, "Zebra: not known, not used"),
        ({"HAProxy": {"TemplatePath": "/etc/h.cfg", "ReloadCommand": "rm"}}, "HAProxy.TemplatePath: /etc/h.cfg: not rendered"),
        ({"HAProxy": {"TemplatePath": "/etc/h.j2", "ReloadCommand": "rm"}}, "HAProxy.TemplatePath: /etc/h.j2: not rendered"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_said_and_never_fatal(raw: object, note: str):
    """And no command is run for a template that is not rendered."""
    found = read(raw)

    assert {"bamboo_default_rules": True} == found.values
    assert found.notes[0].startswith(note)


def test_a_file_that_is_none_is_refused_by_its_name():
    """Exit 2, as any bad setting."""
    with pytest.raises(BadSettings, match=r"^b\.json: "):
        bamboo_config.read(b"{", {}, place="b.json")
    with pytest.raises(BadSettings, match=r"^b\.json: "):
        bamboo_config.read(b"[1]", {}, place="b.json")


def test_the_old_command_line_is_ours():
    """One dash or two, `=` or a blank; what Bamboo had no flag for by -set."""
    asked = bamboo_flags.read(["-config", "b.json", "--bind=:8000", "-log=/var/log/b", "-set", "http_port=80"])

    assert "/var/log/b" == asked.log
    assert ["--bamboo-config", "b.json", "--set", 'bamboo_bind=":8000"', "--set", "http_port=80"] == asked.arguments()
    for wrong in ([], ["-config"], ["x"], ["-help"], ["-config", "a", "-x", "1"]):
        with pytest.raises(UsageError):
            bamboo_flags.read(wrong)


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("%2Fg%2Fapp", '{"version":"2","config":{"Acl":"path /a","x":"y"}}', Bamboo(service="marathon:/g/app", acl="path /a", config={"x": "y"})),
        ("%2Fg%2Fapp", "hdr(host) -i x\n", Bamboo(service="marathon:/g/app", acl="hdr(host) -i x")),
        ("g+app", '{"version":"2"}', Bamboo(service="marathon:/g app")),
        ("app", "5", Bamboo(service="marathon:/app", acl="5")),
    ],
)  # fmt: skip
def test_a_node_of_its_tree_is_a_rule(name: str, data: str, rule: Bamboo):
    """Version 2 is JSON, version 1 plain text; ids begin with a slash."""
    assert rule == bamboo_records.rule_of("marathon", name, data.encode())


@pytest.mark.parametrize(
    ("name", "data"),
    [("%2F", b"x"), ("a", b"\xff"), ("a", b'{"version":"3","config":{}}'), ("a", b'{"config":{"Acl":5}}'), ("%ff", b"x"),
     ("a", b"x" * 70_000)],
)  # fmt: skip
def test_a_node_that_is_none_is_refused(name: str, data: bytes):
    """With a reason; never an exception of another kind."""
    with pytest.raises(Refused):
        bamboo_records.rule_of("marathon", name, data)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('{"id":"/a/b","acl":"path /x"}', Bamboo(service="marathon:/a/b", acl="path /x")),
        ('{"ID":"a","ACL":"path /x","Config":{"acl":"y","k":"v"}}', Bamboo(service="marathon:/a", acl="path /x", config={"k": "v"})),
        ('{"config":{"Acl":"path /y"}}', Bamboo(service="marathon:/p", acl="path /y")),
        ('{"config":null,"acl":null}', Bamboo(service="marathon:/p")),
    ],
)  # fmt: skip
def test_a_request_is_read_as_bamboo_reads_it(body: str, rule: Bamboo):
    """The body's id wins, else that of the path; keys in any case."""
    assert rule == bamboo_records.asked(body.encode(), "/p", "marathon")


@pytest.mark.parametrize("body", ["", "[]", '{"id":5}', '{"acl":["x"]}', '{"config":{"a":1}}', '{"id":"//"}'])
def test_a_request_that_says_nothing_is_refused(body: str):
    """400."""
    with pytest.raises(Refused):
        bamboo_records.asked(body.encode(), "", "marathon")


SNAPSHOT = Snapshot(
    revision=1,
    trust=Trust.LIVE,
    members={"marathon:/a/b/app": {"m": member("t1", 31000, app="/a/b/app", host="10.0.0.1")}, "etl:x": {}},
    routes={"marathon:/a/b/app": route("/a/b/app", service_port=10100, check=Check(path="/health"))},
)


def test_an_app_has_bamboos_fields():
    """From endpoints and route; environment and labels from Marathon's definition, where there is one."""
    definition = {"env": {"E": "1"}, "labels": {"L": "2"}, "readinessChecks": [{"path": "/ready"}]}
    [app] = bamboo_records.apps(SNAPSHOT, "marathon", {"/a/b/app": definition})

    assert {
        "Id": "/a/b/app",
        "MesosDnsId": "app-b-a",
        "EscapedId": "::a::b::app",
        "HealthCheckPath": "/health",
        "HealthCheckProtocol": "HTTP",
        "HealthChecks": [{"Protocol": "HTTP", "Path": "/health", "PortIndex": 0}],
        "ReadinessCheckPath": "/ready",
        "Tasks": [
            {"Id": "t1", "Host": "10.0.0.1", "Port": 31000, "Ports": [31000], "Alive": True, "State": "TASK_RUNNING", "Ready": True}
        ],
        "ServicePort": 10100,
        "ServicePorts": [10100],
        "Env": {"E": "1"},
        "Labels": {"L": "2"},
        "SplitId": ["a", "b", "app"],
        "ipAddress": {"discovery": {"ports": [{"number": 31000, "name": "", "protocol": "tcp"}]}},
    } == app  # fmt: skip


TEMPLATE = """\
{% for app in Apps %}
{% if app.Env.BAMBOO_TCP_PORT %}
listen {{ app.EscapedId }} :{{ app.Env.BAMBOO_TCP_PORT }}
{% else %}
  acl {{ app.EscapedId }} {{ getService(Services, app.Id).Acl if hasKey(Services, app.Id) else "path_beg -i " ~ app.Id }}
{% endif %}
{% for task in app.Tasks %}
  server {{ Replace(task.Id, "-", "_", -1) }} {{ task.Host }}:{{ task.Port }}
{% endfor %}
{% endfor %}
"""


def test_a_template_has_bamboos_objects_and_functions():
    """A key that is not in the environment is empty, as in Go."""
    apps = bamboo_records.apps(SNAPSHOT, "marathon", {})
    text = render(TEMPLATE, apps, {"/a/b/app": {"Id": "/a/b/app", "Acl": "path /x", "Config": {}}})

    assert "  acl ::a::b::app path /x\n  server t1 10.0.0.1:31000\n" == text
    assert "path_beg -i /a/b/app" in render(TEMPLATE, apps, {})
    functions = '{{ Join(Split("a,b", ","), "+") }} {{ ToUpper("x") }}{{ ToLower("Y") }}{{ ToInt("7") + 1 }}{{ Contains("ab", "b") }}'
    assert "a+b Xy8True" == render(functions, [], {})


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("a\n{% if %}", "line 2: "),
        ("\n{{ nobody }}", "line 2: UndefinedError"),
        ("{{ 1 / 0 }}", "line 1: ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "line 1: SecurityError"),
        ("{{ Apps.append(1) }}", "line 1: SecurityError"),
        ("{{ 'a' ~ '\\n' ~ 'b' }}", "a value with a control character"),
        ("{{ ToInt('x') }}", "line 1: ValueError"),
    ],
)
def test_a_broken_template_is_refused_with_its_line(template: str, why: str):
    """Whatever it raises."""
    with pytest.raises(Refused) as refused:
        render(template, [], {})

    assert why in str(refused.value)


def test_no_value_of_a_tenant_begins_a_line_of_a_template():
    """One with a control character is as not given; a rule that is none is left out, and named."""
    apps = [{"Id": "/a", "Env": {"X": "1\nevil", "Y": "2"}}]
    good, refused = usable({"/a": {"Acl": "path /x\nevil"}, "/b": {"Acl": ""}})

    assert "2" == render("{{ Apps[0].Env.X }}{{ Apps[0].Env.Y }}", apps, good)
    assert {"/b": {"Acl": "path_beg -i /b"}} == good
    assert ["/a"] == list(refused)


def test_an_import_says_of_each_rule_what_becomes_of_it():
    """What cannot be taken is named, and another rule of ours is kept."""
    found = {f"marathon:{app}": Bamboo(service=f"marathon:{app}", acl=acl) for app, acl in
             (("/a", "hdr(host) a.example"), ("/b", "path_end .x"), ("/c", "lua.x y"), ("/d", "path /d"), ("/e", "path /e"))}  # fmt: skip
    ours = {"marathon:/d": found["marathon:/d"], "marathon:/e": Bamboo(service="marathon:/e", acl="path /mine")}
    steps = plan(found, {"%ff": "not UTF-8"}, ours, raw=False, replace=False)

    assert [
        ("%ff", "refused", "not UTF-8"),
        ("/a", "add", "routes a.example"),
        ("/b", "add", "1 condition of the frontend, for what no host or path takes"),
        ("/c", "refused", "column 1: 'lua.x': not a criterion this balancer takes, as hdr(host), path_beg, path_reg, method, src"),
        ("/d", "same", "1 condition of the frontend, for what no host or path takes"),
        ("/e", "kept", "a rule of ours is there: path /mine"),
    ] == [(s.id, s.what, s.why) for s in steps]  # fmt: skip
    assert ["/e"] == [s.id for s in plan(found, {}, ours, raw=False, replace=True) if s.what == "change"]


@pytest.mark.needs("haproxy")
def test_the_example_is_a_configuration(tmp_path: Path):
    """Bamboo's own, in Jinja2, with an app of each kind: HAProxy takes it."""
    text = (Path(__file__).parents[2] / "docs/examples/bamboo-haproxy.cfg.j2").read_text()
    apps = bamboo_records.apps(SNAPSHOT, "marathon", {})
    tcp = {**apps[0], "Id": "/tcp", "EscapedId": "::tcp", "Env": {"BAMBOO_TCP_PORT": "10444"}, "HealthCheckPath": ""}
    made = render(text, [*apps, tcp], {"/a/b/app": {"Id": "/a/b/app", "Acl": "hdr(host) -i x.example", "Config": {}}})
    (tmp_path / "h.cfg").write_text(made)
    said = subprocess.run(
        [require("haproxy"), "-c", "-f", str(tmp_path / "h.cfg")], capture_output=True, text=True, check=False
    )

    assert 0 == said.returncode, said.stderr
    assert "acl ::a::b::app-aclrule hdr(host) -i x.example\n" in made
    assert "server ::tcp-10.0.0.1-31000 10.0.0.1:31000\n" in made

"""What `fairlead up` makes of its settings: ports, ranges, and the settings of every daemon."""

import tomllib
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_console.decisions import toml
from fairlead_console.decisions.ports import Need, check_ranges, parse_range, split_range
from fairlead_console.decisions.wanted import Place, plan
from fairlead_console.up.settings import UpSettings
from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import convert, load
from fairlead_discovery.decisions.ports import holds, parse_ranges
from fairlead_dns.settings import DnsSettings
from fairlead_lb.settings import LbSettings, node_defaults

PLACE = Place(data_dir=PurePath("/srv/fl"), hostname="box", root=True, haproxy=True)
USER = Place(data_dir=PurePath("/srv/fl"), hostname="box", root=False, haproxy=False)


@given(begin=st.integers(1, 50), count=st.integers(1, 40), parts=st.integers(1, 40))
def test_agents_get_disjoint_ranges_that_are_together_the_whole(begin: int, count: int, parts: int):
    """No port belongs to two agents, none is lost, no agent goes without, and none has two more than another."""
    whole = (begin, begin + count - 1)
    if parts > count:
        with pytest.raises(BadSettings, match="too few for"):
            split_range(whole, parts, option="agent_ports")
        return

    ranges = split_range(whole, parts, option="agent_ports")
    ports = [port for low, high in ranges for port in range(low, high + 1)]
    sizes = [high - low + 1 for low, high in ranges]

    assert list(range(begin, begin + count)) == ports
    assert max(sizes) - min(sizes) <= 1
    assert len(ranges) == parts


@pytest.mark.parametrize("text", ["", "31000", "a-b", "0-10", "5-4", "60000-70000", "-5", "1-"])
def test_a_range_that_is_none_names_its_option(text: str):
    """The person who has to edit it learns where."""
    with pytest.raises(BadSettings, match=r"^agent_ports: "):
        parse_range(text, option="agent_ports")


def test_two_options_that_claim_one_port_are_both_named():
    """Else one of the daemons would die at the start, and say only half of it."""
    needs = [Need(option="lb_http_port", address="127.0.0.1", port=10105)]

    with pytest.raises(BadSettings, match="service_ports and lb_http_port: both claim port 10105"):
        check_ranges([("service_ports", (10100, 10999))], needs)


def test_ranges_that_overlap_are_refused():
    """An agent's task could otherwise sit on a port that HAProxy is to serve."""
    with pytest.raises(BadSettings, match="agent_ports and service_ports: both claim port 31000"):
        plan(UpSettings(service_ports="30000-31000"), PLACE)


def test_the_defaults_are_every_daemon_once():
    """Two agents, two name servers, one of the rest, in the order in which they are started."""
    names = [wanted.name for wanted in plan(UpSettings(), PLACE).daemons]

    assert [
        "registry",
        "master",
        "agent-1",
        "agent-2",
        "services",
        "dns-1",
        "dns-2",
        "lb",
        "messaging",
        "monitor",
        "console",
    ] == names


def test_a_node_balancer_runs_beside_the_other_on_ports_and_an_address_of_its_own(tmp_path: Path):
    """And name servers answer its VIPs; each takes the settings it is given."""
    made = {wanted.name: wanted for wanted in plan(UpSettings(node=True), PLACE).daemons}
    loaded = {}
    for name in ("lb", "lb-node"):
        (file := tmp_path / f"{name}.toml").write_text(toml.dump(made[name].settings))
        loaded[name] = load(LbSettings, file=file, beneath=node_defaults)
    edge, node = loaded["lb"], loaded["lb-node"]
    (file := tmp_path / "dns.toml").write_text(toml.dump(made["dns-1"].settings))

    assert (False, True) == (edge.node, node.node)
    assert edge.service_ports == node.service_ports
    assert {edge.bind or edge.host, node.bind} == {"127.0.0.1", "127.0.0.2"}
    assert not {edge.port, edge.http_port} & {node.port, node.http_port}
    assert edge.reserved_ports == node.reserved_ports != ""
    assert edge.data_dir != node.data_dir
    assert "machine" == node.locality
    assert ["l4lb"] == [dialect.kind for dialect in load(DnsSettings, file=file).dialects]


def test_on_zookeeper_there_is_no_registry_process():
    """Every daemon is told the ZooKeeper's URL."""
    made = plan(UpSettings(registry="zk://h:2181/x"), PLACE)

    assert "registry" not in [w.name for w in made.daemons]
    assert {"zk://h:2181/x"} == {w.settings["registry"] for w in made.daemons}


def test_without_haproxy_everything_else_runs_and_it_is_said():
    """What is off is named with the way to get it."""
    made = plan(UpSettings(), USER)

    assert "lb" not in [w.name for w in made.daemons]
    assert "apt-get install haproxy" in made.off[0]
    assert "" == made.addresses["lb"]


def test_only_root_serves_names_on_port_53():
    """Others get no address that they could not bind, and tasks keep their resolv.conf."""
    agents = {w.settings["dns_address"] for w in plan(UpSettings(), USER).daemons if w.kind == "agent"}

    assert {""} == agents
    assert ["127.0.0.1:8053"] == plan(UpSettings(), USER).addresses["dns"]
    assert ["127.0.0.1:8053", "127.0.53.53:53"] == plan(UpSettings(), PLACE).addresses["dns"]


def test_further_keys_reach_one_daemon_or_all_of_a_kind():
    """`[settings.agent]` is for all agents, `[settings.agent-2]` wins for that one."""
    settings = UpSettings(settings={"agent": {"zone": "a", "region": "r"}, "agent-2": {"zone": "b"}})
    agents = [w.settings for w in plan(settings, PLACE).daemons if w.kind == "agent"]

    assert [("a", "r"), ("b", "r")] == [(s["zone"], s["region"]) for s in agents]


@pytest.mark.parametrize("name", ["broker", "agent-3", "dns-0"])
def test_further_keys_of_an_unknown_daemon_are_refused(name: str):
    """A typing error must not be ignored."""
    with pytest.raises(BadSettings, match=f"settings.{name}: no such daemon"):
        plan(UpSettings(settings={name: {}}), PLACE)


def test_an_unknown_key_is_refused_with_its_name(tmp_path: Path):
    """As every daemon does."""
    file = tmp_path / "up.toml"
    file.write_text('masterport = 5050\ndata_dir = "/srv"\n')

    with pytest.raises(BadSettings, match="masterport: unknown key"):
        load(UpSettings, file=file)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"agents": 0}, "^agents: "),
        ({"registry": "etcd://h"}, "^registry: "),
        ({"agent_ports": "31000-31000"}, "^agent_ports: "),
    ],
)
def test_what_cannot_be_is_refused_naming_the_key(changes: dict[str, object], named: str):
    """Before anything is started."""
    with pytest.raises(BadSettings, match=named):
        plan(convert(UpSettings, changes, where="up"), PLACE)


def test_a_data_directory_too_long_for_sockets_is_refused():
    """The kernel takes 107 characters, HAProxy 97."""
    long = Place(data_dir=PurePath("/" + "x" * 80), hostname="box", root=True, haproxy=True)

    with pytest.raises(BadSettings, match=r"^data_dir: "):
        plan(UpSettings(), long)


def test_every_port_option_is_checked_before_the_start():
    """A busy one is then named by its option."""
    secure = UpSettings(node=True, settings={"lb": {"certificate": "/etc/fairlead/site.pem"}})
    needs = {need.option for need in plan(secure, PLACE).needs()}
    options = {name for name in UpSettings.__struct_fields__ if name.endswith("_port")} | {"dns_address"}

    assert options == needs


def test_without_a_certificate_the_https_port_may_be_anyones():
    """Nothing of ours would listen there."""
    assert "lb_https_port" not in {need.option for need in plan(UpSettings(), PLACE).needs()}


def test_daemons_accept_what_they_are_told():
    """The settings written for each daemon are what that daemon reads: no key is unknown, no type is wrong."""
    from importlib import import_module

    from fairlead_console.main import DAEMONS

    for wanted in plan(UpSettings(), PLACE).daemons:
        kind = import_module(DAEMONS[wanted.kind]).DAEMON.settings
        text = toml.dump(wanted.settings, comment="as up writes it")

        assert convert(kind, tomllib.loads(text), where=wanted.name)


scalars = st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8) | st.floats(allow_nan=False)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=4), scalars, max_size=3)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_toml_that_we_write_reads_back_the_same(settings: dict[str, object]):
    """Whatever stands in a path or a label: quotes, controls, line ends."""
    assert settings == tomllib.loads(toml.dump(settings))


def test_services_and_balancer_know_the_ports_of_all_others():
    """An agent that died finds its port free when it comes back; so does a task. A person's own come on top."""
    made = plan(UpSettings(settings={"lb": {"reserved_ports": "7000"}}), PLACE)
    told = {w.name: w.settings["reserved_ports"] for w in made.daemons if "reserved_ports" in w.settings}
    ranges = parse_ranges(told["services"], place="reserved_ports")

    assert {"services", "lb"} == set(told)
    assert f"{told['services']},7000" == told["lb"]
    assert all(holds(ranges, need.port) for need in made.needs())
    assert all(holds(ranges, port) for port in (31000, 31999, 5052, 53))
    assert not any(holds(ranges, port) for port in (10100, 10999, 5060, 22))

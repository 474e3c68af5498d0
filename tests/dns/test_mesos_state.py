"""A Mesos master's state gives Mesos-DNS' names: the values of Mesos-DNS' own end-to-end test, and what it left open."""

import json
from typing import Any

import pytest

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import dns_labels
from fairlead_discovery.records import Member
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.mesos_state import Sight, believable, candidates, decode, master, master_of_node, sight
from fairlead_dns.decisions.mesosdns import SECTIONS, shown
from fairlead_dns.decisions.naming import Rules, of_agent, of_framework, of_masters, of_task

S0, S1, S2 = "20140803-125133-3041283216-5050-2410-0", "20140827-000744-3041283216-5050-2116-1", "x-2"
DOCKER = "Docker.NetworkSettings.IPAddress"
MESOS = "MesosContainerizer.NetworkSettings.IPAddress"


def status(at: float, state: str = "TASK_RUNNING", **labels: str) -> dict[str, Any]:
    pairs = [{"key": key.replace("__", "."), "value": value} for key, value in labels.items()]
    return {"state": state, "timestamp": at, "labels": [{"key": "foo", "value": "bar"}, *pairs]}


def task(name: str, number: str, agent: str, ports: str, *statuses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"{name}.{number}",
        "name": name,
        "slave_id": agent,
        "state": "TASK_RUNNING",
        "statuses": list(statuses) or [status(1.0)],
        "resources": {"cpus": 1, "mem": 1024, "ports": ports},
        **more,
    }


def found_as(name: str) -> dict[str, Any]:
    ports = [{"number": 80, "protocol": "tcp", "name": "http"}, {"number": 443, "protocol": "tcp", "name": "https"}]
    return {"name": name, "visibility": "CLUSTER", "ports": {"ports": ports}, "labels": {"labels": []}}


STORE_STATUSES = (
    status(1371.0, **{DOCKER: "10.3.0.4"}),
    status(1390.0, **{DOCKER: "10.3.0.1"}),
    status(1381.0),
    status(1395.0, state="TASK_STARTING"),
)
FAKE: dict[str, Any] = {
    "leader": "master@144.76.157.37:5050",
    "slaves": [
        {"id": S0, "hostname": "box0", "pid": "slave(1)@1.2.3.11:5051"},
        {"id": S1, "hostname": "box1", "pid": "slave(1)@1.2.3.12:5051"},
        {"id": S2, "hostname": "box2", "pid": "slave(1)@1.2.3.10:5051"},
    ],
    "frameworks": [
        {
            "id": "f1",
            "name": "chronos with a space AND MIXED CASE-2.0.1",
            "pid": "scheduler(2)@1.2.3.12:25501",
            "tasks": [task("some-box", "b8db9f73-562f-11e4-a088-c20493233aa5", S0, "[31354-31354]")],
        },
        {"id": "f2", "name": "no pid", "hostname": "localhost", "tasks": []},
        {
            "id": "f0",
            "name": "marathon",
            "pid": "scheduler(1)@1.2.3.11:25501",
            "tasks": [
                {**task("poseidon", "bc4e3796", S0, "[31112-31112]"), "state": "TASK_KILLED"},
                task(
                    "liquor-store",
                    "b8db9f73-562f-11e4-a088-c20493233aa5",
                    S0,
                    "[31354-31354, 31355-31355]",
                    *STORE_STATUSES,
                    discovery=found_as("liquor-store"),
                ),
                {
                    **task("other", "x", S1, "[31737-31738]", status(1.0, **{DOCKER: "10.3.0.2"})),
                    "id": "liquor-store.b71166c1-562f-11e4-a088-c20493233aa5",
                    "discovery": found_as("liquor-store"),
                },
                task("car-store", "43758382-562f-11e4-a088-c20493233aa5", S0, "[31364-31364, 31365-31365]"),
                task("nginx", "1", S0, "[31400-31400]", status(1.0, **{MESOS: "10.3.0.3"})),
                task("ghost", "1", "unknown-agent", "[31401-31401]"),
                {**task("sick", "1", S0, "[31402-31402]"), "statuses": [{**status(1.0), "healthy": False}]},
            ],
        },
    ],
}


def seen(state: dict[str, Any]) -> Sight:
    return sight(decode(json.dumps(state).encode(), place="m:5050"))


def names(found: Sight, rules: Rules) -> dict[str, set[str]]:
    records = [
        r
        for tasks in (*found.members.values(), *found.portless.values())
        for t in tasks.values()
        for r in of_task(t, rules)
    ]
    records += [r for f in found.frameworks.values() for r in of_framework(f, (f.ip or f.hostname,), rules)]
    records += [r for a in found.agents.values() for r in of_agent(a, (a.host,), rules)]
    records += of_masters((), found.leader, rules)
    table: dict[str, set[str]] = {}
    for record in records:
        if record.kind in SECTIONS:
            table.setdefault(wire.text(record.owner), set()).add(shown(record))
    return table


STORES = {"10.3.0.1", "10.3.0.2"}
AGENTS = {"1.2.3.11", "1.2.3.12"}


@pytest.mark.parametrize(
    ("sources", "name", "expected"),
    [
        (("docker", "mesos", "host"), "liquor-store.marathon.mesos", STORES),
        (("docker", "mesos", "host"), "liquor-store.marathon.slave.mesos", AGENTS),
        (("docker", "mesos", "host"), "car-store.marathon.slave.mesos", {"1.2.3.11"}),
        (("docker", "mesos", "host"), "nginx.marathon.mesos", {"10.3.0.3"}),
        (("docker", "mesos", "host"), "poseidon.marathon.mesos", None),
        (("docker", "mesos", "host"), "poseidon.marathon.slave.mesos", None),
        (("docker", "mesos", "host"), "_poseidon._tcp.marathon.mesos", None),
        (("docker", "mesos", "host"), "ghost.marathon.mesos", None),
        (("docker", "mesos", "host"), "sick.marathon.mesos", None),
        (("docker", "mesos", "host"), "master.mesos", {"144.76.157.37"}),
        (("docker", "mesos", "host"), "master0.mesos", {"144.76.157.37"}),
        (("docker", "mesos", "host"), "leader.mesos", {"144.76.157.37"}),
        (("docker", "mesos", "host"), "slave.mesos", {"1.2.3.10", *AGENTS}),
        (("docker", "mesos", "host"), "some-box.chronoswithaspaceandmixe.mesos", {"1.2.3.11"}),
        (("docker", "mesos", "host"), "marathon.mesos", {"1.2.3.11"}),
        (("docker", "mesos", "host"), "_leader._tcp.mesos", {"leader.mesos.:5050"}),
        (
            ("docker", "mesos", "host"),
            "_liquor-store._tcp.marathon.mesos",
            {f"liquor-store-{c}.marathon.mesos.:{p}" for c in ("4dfjd-0", "zasmd-1") for p in (80, 443)},
        ),
        (("docker", "mesos", "host"), "_liquor-store._udp.marathon.mesos", None),
        (("docker", "mesos", "host"), "_liquor-store.marathon.mesos", None),
        (
            ("docker", "mesos", "host"),
            "_car-store._tcp.marathon.mesos",
            {f"car-store-zinaz-0.marathon.slave.mesos.:{p}" for p in (31364, 31365)},
        ),
        (
            ("docker", "mesos", "host"),
            "_car-store._udp.marathon.mesos",
            {f"car-store-zinaz-0.marathon.slave.mesos.:{p}" for p in (31364, 31365)},
        ),
        (("docker", "mesos", "host"), "_slave._tcp.mesos", {"slave.mesos.:5051"}),
        (("docker", "mesos", "host"), "_framework._tcp.marathon.mesos", {"marathon.mesos.:25501"}),
        (("docker", "mesos", "host"), "nopid.mesos", None),
        (("host",), "liquor-store.marathon.mesos", AGENTS),
        (("host",), "nginx.marathon.mesos", {"1.2.3.11"}),
        (("mesos", "host"), "liquor-store.marathon.mesos", AGENTS),
        (("mesos", "host"), "nginx.marathon.mesos", {"10.3.0.3"}),
        (("docker", "host"), "liquor-store.marathon.mesos", STORES),
        (("docker", "host"), "liquor-store.marathon.slave.mesos", AGENTS),
        (("docker", "host"), "nginx.marathon.mesos", {"1.2.3.11"}),
    ],
)
def test_mesos_dns_own_vectors(sources: tuple[str, ...], name: str, expected: set[str] | None) -> None:
    """What Mesos-DNS' own test of a whole state expects, with its newer hash."""
    assert expected == names(seen(FAKE), Rules(ip_sources=sources, rfc952=True)).get(name)


def test_ports_by_name_and_of_the_agent() -> None:
    """With DiscoveryInfo: the named port, and the agent's ports below `slave`."""
    found = names(seen(FAKE), Rules(ip_sources=("docker", "host")))

    both = {"liquor-store-4dfjd-0", "liquor-store-zasmd-1"}
    assert {f"{c}.marathon.mesos.:443" for c in both} == found["_https._liquor-store._tcp.marathon.mesos"]
    assert {
        "liquor-store-4dfjd-0.marathon.slave.mesos.:31354",
        "liquor-store-4dfjd-0.marathon.slave.mesos.:31355",
        "liquor-store-zasmd-1.marathon.slave.mesos.:31737",
        "liquor-store-zasmd-1.marathon.slave.mesos.:31738",
    } == found["_liquor-store._udp.marathon.slave.mesos"]


def test_networks_of_a_container_in_both_forms() -> None:
    """`ip_addresses`, or the single address of old masters; all addresses of all networks, in order."""
    networks = [{"ip_addresses": [{"ip_address": "10.9.0.1"}, {"ip_address": "fd00::1"}]}, {"ip_address": "10.9.0.2"}]
    one = task("pod", "1", S0, "", {**status(1.0), "container_status": {"network_infos": networks}})
    state = {**FAKE, "frameworks": [{"id": "f", "name": "marathon", "tasks": [one]}]}

    (tasks,) = seen(state).portless.values()

    assert [("10.9.0.1", "fd00::1", "10.9.0.2")] == [t.ips.netinfo for t in tasks.values()]


def test_a_port_of_two_protocols_is_one_port() -> None:
    """tcp and udp of one number stay together; a port that says none means both."""
    ports = [
        {"number": 53, "protocol": "tcp", "name": "dns"},
        {"number": 53, "protocol": "UDP", "name": "dns"},
        {"number": 80},
    ]
    one = task("ns", "1", S0, "[31000-31001]", discovery={"name": "ns", "ports": {"ports": ports}})

    ((made,),) = [
        tuple(t.values())
        for t in seen({**FAKE, "frameworks": [{"id": "f", "name": "x", "tasks": [one]}]}).members.values()
    ]

    assert isinstance(made, Member)
    assert [(53, 31000, ("tcp", "udp")), (80, 31001, ())] == [(p.number, p.host_port, p.protocols) for p in made.ports]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html>", "m:5050: JSON is malformed"),
        (b"[]", "m:5050: Expected `object`"),
        (b'{"slaves": [{"id": 1}]}', r"m:5050: Expected `str`, got `int` - at `$.slaves[0].id`"),
    ],
)
def test_what_is_no_state_is_refused_by_place(data: bytes, said: str) -> None:
    """A proxy's page, another program's JSON."""
    with pytest.raises(Refused) as caught:
        decode(data, place="m:5050")

    assert str(caught.value).startswith(said)


def test_a_sudden_emptiness_is_not_believed() -> None:
    """More than half gone at once, or a new leader that still waits for its agents; few may go."""
    none, waiting = Sight(), seen({**FAKE, "recovered_slaves": [{"id": "y"}]})

    assert [False, True, False, True] == [
        believable(10, none),
        believable(9, none),
        believable(0, waiting),
        believable(10, seen(FAKE)),
    ]


def test_masters_of_zookeepers_nodes() -> None:
    """The lowest sequence leads, whatever the form; anything else in the folder is passed over."""
    names_ = ["info_0000000010", "json.info_0000000009", "log_replicas", "json.info_0000000011", "json.info_x"]
    protobuf = b"\x0a\x03abc\x10\x81\x80\x80\x10\x18\xba\x27\x22\x14master@10.0.0.5:5050\x2a\x01h"
    as_json = json.dumps({"pid": "master@10.0.0.6:5050", "hostname": "m6", "address": {}}).encode()

    found = [master_of_node("info_1", protobuf), master_of_node("json.info_1", as_json)]

    assert ["json.info_0000000009", "info_0000000010", "json.info_0000000011"] == candidates(names_)
    assert ["10.0.0.5:5050", "10.0.0.6:5050"] == [m.id for m in found if m]


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x22\xff", b"{", b'{"pid": 4}', b"\x1d\0\0\0\0"])
def test_nodes_that_cannot_be_read_are_no_masters(data: bytes) -> None:
    """Bytes of anybody."""
    assert [None, None] == [master_of_node("info_1", data), master_of_node("json.info_1", data)]


@pytest.mark.parametrize("pid", ["", "@", "1@", "@2", "3@4", "5@6:7", "master@bob:0", "master@10.0.0.1"])
def test_what_names_no_address_is_no_master(pid: str) -> None:
    """Mesos-DNS published some of these."""
    assert master(pid) is None


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], {"master0": "10.0.0.6"}),
        (["10.0.0.6"], {"master0": "10.0.0.6"}),
        (["10.0.0.8"], {"master0": "10.0.0.8", "master1": "10.0.0.6"}),
        (["10.0.0.8", "10.0.0.8"], {"master0": "10.0.0.8", "master1": "10.0.0.6"}),
        (["10.0.0.8", "10.0.0.6", "10.0.0.6"], {"master0": "10.0.0.8", "master1": "10.0.0.6"}),
        (["10.0.0.8", "10.0.0.6", "10.0.0.9"], {"master0": "10.0.0.8", "master1": "10.0.0.6", "master2": "10.0.0.9"}),
    ],
)
def test_masters_are_numbered_as_mesos_dns_does(listed: list[str], expected: dict[str, str]) -> None:
    """Its own vectors: doubles count once, a leader outside the list comes last."""
    masters = [m for m in (master(f"master@{ip}:7") for ip in listed) if m]

    records = of_masters(masters, master("5@10.0.0.6:7"), Rules(domain="foo.com"))

    table = {wire.text(r.owner).removesuffix(".foo.com"): shown(r) for r in records if r.kind == wire.A}
    assert expected == {name: ip for name, ip in table.items() if name[-1].isdigit()}
    assert set(expected.values()) == {shown(r) for r in records if r.owner == wire.parse_text("master.foo.com")}
    assert "10.0.0.6" == table["leader"]


def test_an_instance_is_told_apart_by_hash_and_agent() -> None:
    """The newer hash, which `/v1` clients store."""
    assert "4dfjd" == dns_labels.task_hash("liquor-store.b8db9f73-562f-11e4-a088-c20493233aa5")

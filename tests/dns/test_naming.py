"""Which names a task, a framework, an agent and the masters have."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.records import (
    Agent,
    Discovery,
    Framework,
    Ips,
    MasterAddress,
    MasterInfo,
    Member,
    Port,
    Portless,
)
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.mesosdns import SECTIONS, shown
from fairlead_dns.decisions.naming import Record, Rules, agent_label, of_agent, of_framework, of_masters, of_task
from harness.names import member, task

LIQUOR = "liquor-store.b8db9f73-562f-11e4-a088-c20493233aa5"
CAR = "car-store.43758382-562f-11e4-a088-c20493233aa5"
AGENT = "20140803-125133-3041283216-5050-2410-0"


def table(records: tuple[Record, ...]) -> dict[str, set[str]]:
    """Name -> data as text, for A, AAAA and SRV."""
    found: dict[str, set[str]] = {}
    for record in records:
        if record.kind in SECTIONS:
            found.setdefault(wire.text(record.owner), set()).add(shown(record))
    return found


def store(task_id: str, name: str, *ports: Port, discovery: str = "") -> Member:
    return member(
        task=replace_task(task_id, name),
        discovery=Discovery(name=discovery, given=bool(discovery)),
        ports=ports,
        ips=Ips(host=("1.2.3.11",), docker=("10.3.0.1",)),
    )


def replace_task(task_id: str, name: str):
    made = task(name=name, agent=AGENT)
    return type(made)(id=task_id, name=name, framework=made.framework, framework_id=made.framework_id, agent=AGENT)


def test_a_task_without_discovery_info_has_mesos_dns_names() -> None:
    """`car-store` of Mesos-DNS' own test: each host port on the agent, for tcp and udp."""
    car = store(CAR, "car-store", *(Port(index=i, number=p, host_port=p) for i, p in enumerate((31364, 31365))))

    found = table(of_task(car, Rules()))

    ports = {"car-store-zinaz-0.marathon.slave.mesos.:31364", "car-store-zinaz-0.marathon.slave.mesos.:31365"}
    assert {
        "car-store.marathon.mesos": {"1.2.3.11"},
        "car-store-zinaz-0.marathon.mesos": {"1.2.3.11"},
        "car-store.marathon.slave.mesos": {"1.2.3.11"},
        "car-store-zinaz-0.marathon.slave.mesos": {"1.2.3.11"},
        "_car-store._tcp.marathon.mesos": ports,
        "_car-store._udp.marathon.mesos": ports,
        "_car-store._tcp.marathon.slave.mesos": ports,
        "_car-store._udp.marathon.slave.mesos": ports,
    } == found


def test_a_task_with_discovery_info_has_its_discovery_ports() -> None:
    """`liquor-store` of Mesos-DNS' own test: discovery ports at the task's address, host ports only under `slave`."""
    ports = (
        Port(index=0, number=80, host_port=31354, name="http"),
        Port(index=1, number=443, host_port=31355, name="https"),
    )
    liquor = store(LIQUOR, "whatever", *ports, discovery="liquor-store")

    found = table(of_task(liquor, Rules(ip_sources=("docker", "host"))))

    web, tls = "liquor-store-4dfjd-0.marathon.mesos.:80", "liquor-store-4dfjd-0.marathon.mesos.:443"
    on_agent = {f"liquor-store-4dfjd-0.marathon.slave.mesos.:{p}" for p in (31354, 31355)}
    assert {
        "liquor-store.marathon.mesos": {"10.3.0.1"},
        "liquor-store-4dfjd-0.marathon.mesos": {"10.3.0.1"},
        "liquor-store.marathon.slave.mesos": {"1.2.3.11"},
        "liquor-store-4dfjd-0.marathon.slave.mesos": {"1.2.3.11"},
        "_liquor-store._tcp.marathon.mesos": {web, tls},
        "_http._liquor-store._tcp.marathon.mesos": {web},
        "_https._liquor-store._tcp.marathon.mesos": {tls},
        "_liquor-store._tcp.marathon.slave.mesos": on_agent,
        "_liquor-store._udp.marathon.slave.mesos": on_agent,
    } == found


def test_a_port_without_protocol_is_both() -> None:
    """A discovery port that names no protocol stands under tcp and udp."""
    dual = member(discovery=Discovery(name="web"), ports=(Port(index=0, number=53, host_port=31000, protocols=()),))

    found = table(of_task(dual, Rules()))

    assert found["_web._tcp.marathon.mesos"] == found["_web._udp.marathon.mesos"] != set()


def test_raw_discovery_names_resolve_too() -> None:
    """A dotted discovery name stands as it is beside its mangled form, as Marathon's and Aurora's users expect."""
    dotted = member(discovery=Discovery(name="Web.Shop"))

    found = table(of_task(dotted, Rules()))

    assert {"10.0.0.1"} == found["web.shop.marathon.mesos"] == found["web-shop.marathon.mesos"]
    instance = f"shop-{labels.task_hash('web.0')}-s0"
    assert {f"web.{instance}.marathon.mesos.:80"} == found["_http._web.shop._tcp.marathon.mesos"]


def test_the_first_populated_source_gives_all_its_addresses() -> None:
    """netinfo wins over host; AAAA and A stand side by side."""
    pod = member(ips=Ips(host=("10.0.0.1",), netinfo=("172.16.0.2", "fd01::2")))

    found = table(of_task(pod, Rules()))

    assert ({"172.16.0.2", "fd01::2"}, {"10.0.0.1"}) == (
        found["web.marathon.mesos"],
        found["web.marathon.slave.mesos"],
    )


def test_host_names_are_never_published_as_addresses() -> None:
    """An agent whose address is a name gives no address record, instead of a wrong one."""
    named = member(serviceEndpoint=type(member().serviceEndpoint)(host="box1", port=1), ips=Ips())

    assert () == of_task(named, Rules())


def test_a_task_without_ports_has_its_names() -> None:
    """Portless tasks have A records and no SRV."""
    found = table(of_task(Portless(task=task(name="batch"), ips=Ips(host=("10.0.0.9",))), Rules()))

    assert (4, {"10.0.0.9"}) == (len(found), found["batch.marathon.mesos"])


def test_instance_names_over_63_are_legal() -> None:
    """A 63 character task name still has an instance name that can be asked for."""
    found = table(of_task(member(name="x" * 63), Rules()))

    assert all(len(label) <= 63 for name in found for label in name.split("."))
    assert 8 == len(found)


def test_a_name_without_a_legal_character_keeps_its_instance_name() -> None:
    """`%%%` has no label: the instance is still found by hash and agent."""
    found = table(of_task(member(name="%%%"), Rules()))

    assert 2 == len([name for name in found if "unnamed-" not in name])


def test_a_framework_has_its_name_and_port() -> None:
    """`F.domain` and `_framework._tcp.F.domain`."""
    found = table(of_framework(Framework(id="1", name="etl.Night", port=9090), ("10.0.0.7",), Rules()))

    assert {
        "etl.night.mesos": {"10.0.0.7"},
        "_framework._tcp.etl.night.mesos": {"etl.night.mesos.:9090"},
    } == found


def test_agents_share_one_name() -> None:
    """`slave.domain` and `_slave._tcp.domain`; beside them each has a name of its own."""
    found = table(of_agent(Agent(id="x-S7", host="10.0.0.3", port=5051, boot_id="b"), ("10.0.0.3",), Rules()))

    assert {
        "slave.mesos": {"10.0.0.3"},
        "agent-s7.slave.mesos": {"10.0.0.3"},
        "_slave._tcp.mesos": {"slave.mesos.:5051"},
    } == found


def pointers(records: Iterable[Record]) -> dict[str, str]:
    return {wire.text(r.owner): wire.text(r.rdata) for r in records if r.kind == wire.PTR}


def test_aurora_finds_its_tasks_as_it_names_them() -> None:
    """Dots and underscores of the discovery name as written, in both kinds of records."""
    made = member(
        task=task(name="www-data/test/http_example", framework="aurora"),
        discovery=Discovery(name="http_example.test.vagrant", given=True),
    )

    found = table(of_task(made, Rules()))

    assert {"10.0.0.1"} == found["http_example.test.vagrant.aurora.mesos"]
    assert 1 == len(found["_http._http_example.test.vagrant._tcp.aurora.mesos"])
    assert {"10.0.0.1"} == found["http-example-test-vagrant.aurora.mesos"]


def test_agents_whose_names_are_long_stay_apart() -> None:
    """Host names that differ only past what a label can hold."""
    boxes = [Agent(id="a", host="10.0.0.3", port=1, boot_id="b", hostname=f"{'rack.' * 14}box{n}") for n in (1, 2)]

    labels_ = {agent_label(box) for box in boxes}

    assert (2, {63}) == (len(labels_), {len(label) for label in labels_})


def test_an_agents_address_leads_to_its_own_name_and_back() -> None:
    """What asks A, then PTR, then A of that (RabbitMQ's peer discovery) comes back to the same machine."""
    box = Agent(id="a", host="10.0.0.3", port=5051, boot_id="b", hostname="Box_1.rack")
    records = of_agent(box, (box.host,), Rules())

    assert {"3.0.0.10.in-addr.arpa": "box-1-rack.slave.mesos"} == pointers(records)
    assert {"10.0.0.3"} == table(records)["box-1-rack.slave.mesos"]


def test_an_instances_own_address_leads_to_its_name_and_back() -> None:
    """One pointer, to the instance, however the service's name is written."""
    pod = member(discovery=Discovery(name="Web.Shop"), ips=Ips(host=("10.0.0.1",), netinfo=("172.16.0.2", "fd01::2")))
    records = of_task(pod, Rules())
    found = pointers(records)

    (name,) = set(found.values())
    assert (2, {"172.16.0.2", "fd01::2"}) == (len(found), table(records)[name])


def test_addresses_of_every_machine_itself_have_no_pointer() -> None:
    """127.0.0.1 is another machine for whoever asks, ::1 and link-local addresses too."""
    own = Ips(host=("10.0.0.1",), netinfo=("127.0.0.2", "::1", "fe80::1"))

    assert {} == pointers(of_task(member(ips=own), Rules()))


def test_pointers_can_be_left_to_others() -> None:
    """Without them only the configured reverse zones have pointers."""
    pod = member(ips=Ips(host=("10.0.0.1",), netinfo=("172.16.0.2",)))

    assert {} == pointers(of_task(pod, Rules(pointers=False)))


def test_a_rival_has_a_name_of_its_own() -> None:
    """A service that shares its name with another one has the shared name and one that is its alone."""
    found = table(of_task(member(), Rules(), "1a2b3c4d"))

    assert {"10.0.0.1"} == found["web.marathon.mesos"] == found["web-1a2b3c4d.marathon.mesos"]
    assert found["_web-1a2b3c4d._tcp.marathon.mesos"]


def master(ip: str) -> MasterInfo:
    return MasterInfo(
        address=MasterAddress(hostname="h", ip=ip, port=5050),
        hostname="h",
        id=ip,
        ip=0,
        pid=f"master@{ip}:5050",
        port=5050,
        version="1.11.0",
    )


def test_masters_are_numbered_in_order() -> None:
    """`masterN` follows the list; leader, master and `_leader` name the leader."""
    first, second = master("10.0.0.1"), master("10.0.0.2")

    found = table(of_masters((first, second), second, Rules()))

    assert {
        "master0.mesos": {"10.0.0.1"},
        "master1.mesos": {"10.0.0.2"},
        "master.mesos": {"10.0.0.1", "10.0.0.2"},
        "leader.mesos": {"10.0.0.2"},
        "_leader._tcp.mesos": {"leader.mesos.:5050"},
        "_leader._udp.mesos": {"leader.mesos.:5050"},
    } == found


def test_a_leader_outside_the_list_takes_the_next_index() -> None:
    """As in Mesos-DNS."""
    found = table(of_masters((master("10.0.0.1"),), master("10.0.0.9"), Rules()))

    assert {"10.0.0.9"} == found["master1.mesos"] == found["leader.mesos"]


def test_without_a_leader_there_is_no_leader_name() -> None:
    """Nothing is published about who does not lead."""
    assert () == of_masters((), None, Rules())


def test_pointers_name_instances_with_addresses_of_their_own() -> None:
    """In a reverse zone that is ours, a container's address leads to its instance; an agent's is the agent's."""
    rules = Rules(reverse_zones=("16.172.in-addr.arpa",), pointers=False)
    pod = member(ips=Ips(host=("10.0.0.1",), netinfo=("172.16.0.2",)))

    pointers = [r for r in of_task(pod, rules) if r.kind == wire.PTR]

    instance = f"web-{labels.task_hash('web.0')}-s0.marathon.mesos"
    assert [("2.0.16.172.in-addr.arpa", instance)] == [(wire.text(r.owner), wire.text(r.rdata)) for r in pointers]


odd = st.text(alphabet="aZ0-_.% é\0", max_size=70)


@given(odd, odd, odd, odd, st.sampled_from(["", "10.0.0.1", "fd00::1", "box", "999.1.1.1"]), st.integers(-1, 70000))
def test_odd_records_never_raise_and_give_legal_names(
    name: str, framework: str, discovery: str, port_name: str, host: str, port: int
) -> None:
    """Whatever a framework calls its tasks: every name can be asked for, every target exists as a name."""
    made = member(
        task=task(name=name, framework=framework),
        discovery=Discovery(name=discovery),
        ports=(Port(index=0, number=port, host_port=port, name=port_name, protocols=(port_name,)),),
        ips=Ips(host=(host,)),
    )

    records = of_task(made, Rules())

    owners = {r.owner for r in records}
    assert all(len(o) <= 255 and all(len(label) <= 63 for label in wire.labels(o)) for o in owners)
    assert {wire.srv_target(r.rdata) for r in records if r.kind == wire.SRV} <= owners

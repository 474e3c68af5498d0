"""The same endpoints under Consul's, Kubernetes' and dcos-net's names, and the records beside Mesos-DNS' own."""

from dataclasses import replace

import dns.rdata
import dnslib
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.records import Agent, Discovery, Ips, Member, Port, Portless, TaskRef
from fairlead_dns.decisions import speaking, wire
from fairlead_dns.decisions.naming import Dialect, Record, Rules
from harness.names import member, task

INSTANCE = f"web-{labels.task_hash('web.0')}-s0"
AGENT = "10.0.0.1"
POD = "172.16.0.2"
BOTH = Ips(host=(AGENT,), netinfo=(POD,))
HTTP = Port(index=0, number=80, host_port=31000, name="http")
ADMIN = Port(index=1, number=81, host_port=31001, name="admin", protocols=("tcp", "udp"))


def spoken(kind: str, made: Member | Portless, **how: str) -> dict[tuple[str, str], set[str]]:
    """(name, type) -> data as text, without what Mesos-DNS would say."""
    rules = Rules(dialects=(msgspec.convert({"kind": kind, **how}, Dialect),))
    return shown(r for r in speaking.of_task(made, rules) if r not in set(speaking.of_task(made, Rules())))


def shown(records: object) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for record in records:  # type: ignore[attr-defined]  # any iterable of records
        found.setdefault((wire.text(record.owner), dnslib.QTYPE[record.kind]), set()).add(text(record))
    return found


def text(record: Record) -> str:
    """As dig shows it: read by a codec that is not ours."""
    raw = wire.record(record.owner, record.kind, 5, record.rdata)
    return str(dnslib.RR.parse(dnslib.DNSBuffer(raw)).rdata)


def app(name: str, **changes: object) -> Member:
    made: Member = member(**changes)
    return msgspec.structs.replace(made, task=msgspec.structs.replace(made.task, app=name))


def test_consul_names_a_service_its_tags_and_ports() -> None:
    """A and SRV by service, by tag and by port name, with and without the data centre."""
    tagged = member(discovery=Discovery(name="web", labels={"FAIRLEAD_DNS_TAGS": "Blue, v1.2"}), ports=(HTTP, ADMIN))

    found = spoken("consul", tagged)

    http, admin = "1 1 31000 0a000001.addr.dc1.consul.", "1 1 31001 0a000001.addr.dc1.consul."
    for tail in ("service.consul", "service.dc1.consul"):
        for first in (f"web.{tail}", f"blue.web.{tail}", f"v1-2.web.{tail}", f"http.web.{tail}", f"_web._tcp.{tail}"):
            assert {http} == found[first, "SRV"]
        assert {AGENT} == found[f"web.{tail}", "A"] == found[f"blue.web.{tail}", "A"]
        assert {http} == found[f"_web._blue.{tail}", "SRV"]
        assert {admin} == found[f"_web._admin.{tail}", "SRV"] == found[f"admin.web.{tail}", "SRV"]
        bare = tail.removeprefix("service.")  # Consul's RFC 2782 names may do without the keyword
        assert ({http}, {admin}) == (found[f"_web._tcp.{bare}", "SRV"], found[f"_web._admin.{bare}", "SRV"])
    assert {AGENT} == found["0a000001.addr.dc1.consul", "A"]


def test_consul_names_nodes() -> None:
    """`box1.node.consul`, with and without the data centre."""
    rules = Rules(dialects=(Dialect(kind="consul", domain="Corp.consul.", datacenter="eu"),))
    box = Agent(id="a", host="10.0.0.3", port=5051, boot_id="b", hostname="box1")

    found = shown(speaking.of_agent(box, rules))

    assert {"10.0.0.3"} == found["box1.node.corp.consul", "A"] == found["box1.node.eu.corp.consul", "A"]


def test_a_task_with_an_address_of_its_own_is_reached_there() -> None:
    """At its own address its own port number, at its agent's the host port."""
    own = spoken("consul", member(ports=(HTTP,), ips=BOTH))
    mapped = spoken("consul", member(ports=(HTTP,)))

    assert [{"1 1 80 ac100002.addr.dc1.consul."}, {"1 1 31000 0a000001.addr.dc1.consul."}] == [
        found["web.service.consul", "SRV"] for found in (own, mapped)
    ]


def test_kubernetes_names_services_ports_and_pods() -> None:
    """`/shop/eu/web` is service web in namespace shop-eu; its named ports are SRV, its addresses pods."""
    found = spoken("kubernetes", app("/shop/eu/web", ports=(HTTP, ADMIN), ips=BOTH))

    base, endpoint = "web.shop-eu.svc.cluster.local", "172-16-0-2.web.shop-eu.svc.cluster.local."
    assert {
        (base, "A"): {POD},
        ("172-16-0-2." + base, "A"): {POD},
        ("172-16-0-2.shop-eu.pod.cluster.local", "A"): {POD},
        (base, "SRV"): {f"0 1 80 {endpoint}", f"0 1 81 {endpoint}"},
        ("_http._tcp." + base, "SRV"): {f"0 1 80 {endpoint}"},
        ("_admin._tcp." + base, "SRV"): {f"0 1 81 {endpoint}"},
        ("_admin._udp." + base, "SRV"): {f"0 1 81 {endpoint}"},
    } == found


def test_kubernetes_namespaces() -> None:
    """The folder, `default` at the top, the framework where there is no app, or what the label says."""
    labelled = Discovery(name="web", labels={"FAIRLEAD_DNS_NAMESPACE": "Team_A"})
    made = [app("/web"), app("/a/web"), member(), app("/a/web", discovery=labelled)]

    names = [next(name for name, kind in spoken("kubernetes", each) if name.startswith("web.")) for each in made]
    assert ["default", "a", "marathon", "team-a"] == [name.split(".")[1] for name in names]


def test_kubernetes_says_its_version() -> None:
    """Clients of its specification ask for `dns-version`."""
    rules = Rules(dialects=(Dialect(kind="kubernetes", domain="k8s.test"),))

    assert {("dns-version.k8s.test", "TXT"): {'"1.1.0"'}} == shown(speaking.of_ourselves(rules))


def test_dcos_net_names_the_agent_the_container_and_the_better_one() -> None:
    """`autoip`: the container's address, but the agent's where ports are mapped there."""
    plain = (Port(index=0, number=80, host_port=0),)
    made = [member(ips=BOTH, ports=plain), member(ips=BOTH, ports=(HTTP,)), member(ports=plain)]

    rows = [
        [found[f"web.marathon.{way}.dcos.thisdcos.directory", "A"] for way in ("agentip", "containerip", "autoip")]
        for found in (spoken("dcos", each) for each in made)
    ]
    assert [[{AGENT}, {POD}, {POD}], [{AGENT}, {POD}, {AGENT}], [{AGENT}, {AGENT}, {AGENT}]] == rows


def test_ports_have_names_by_their_number() -> None:
    """`_port0._web._tcp.marathon.mesos`, at the instance's name where that port is reached."""
    found = spoken("numbered_ports", member(ports=(HTTP, ADMIN)))

    assert {
        (f"_port{i}._web._{p}.marathon.mesos", "SRV"): {f"0 1 3100{i} {INSTANCE}.marathon.slave.mesos."}
        for i in (0, 1)
        for p in ("tcp", "udp")
    } == found


def test_svcb_names_target_and_port_in_one_answer() -> None:
    """SVCB for each named port, HTTPS only for the one called https: it makes browsers use TLS."""
    rules = Rules(dialects=(Dialect(kind="svcb"),))
    tls = Port(index=1, number=443, host_port=31443, name="https")

    records = {
        (wire.text(r.owner), r.kind): dns.rdata.from_wire("IN", r.kind, r.rdata, 0, len(r.rdata)).to_text()
        for r in speaking.of_task(member(ports=(HTTP, tls)), rules)
        if r.kind in (64, 65)
    }

    assert {
        ("_http.web.marathon.mesos", 64): f'1 {INSTANCE}.marathon.slave.mesos. port="31000"',
        ("_https.web.marathon.mesos", 64): f'1 {INSTANCE}.marathon.slave.mesos. port="31443"',
        ("web.marathon.mesos", 65): f'1 {INSTANCE}.marathon.slave.mesos. port="31443"',
    } == records


def test_dns_sd_lists_kinds_then_instances_then_their_ports() -> None:
    """Browse, list, SRV and TXT; a port whose name is no legal kind is left out."""
    long = Port(index=2, number=83, host_port=31002, name="a-name-of-sixteen")
    found = spoken("dns_sd", member(ports=(HTTP, long)))

    one = f"{INSTANCE}-marathon._http._tcp.mesos"
    assert {
        ("_services._dns-sd._udp.mesos", "PTR"): {"_http._tcp.mesos."},
        ("_http._tcp.mesos", "PTR"): {f"{one}."},
        (one, "SRV"): {f"0 1 31000 {INSTANCE}.marathon.slave.mesos."},
        (one, "TXT"): {'"txtvers=1","task=web.0","framework=marathon"'},
    } == found


odd = st.text(alphabet="aZ0-_./%é\0", max_size=70)
kinds = st.sampled_from(sorted(speaking.OF_TASK))


@given(kinds, odd, odd, odd, odd, st.sampled_from(["10.0.0.1", "fd00::1", "box"]), st.integers(-1, 70000))
def test_no_dialect_says_anything_illegal(
    kind: str, name: str, framework: str, folder: str, port_name: str, host: str, port: int
) -> None:
    """Whatever things are called: names can be asked for, and every SRV target of ours has an address."""
    made = member(
        task=replace_app(task(name=name, framework=framework), folder),
        discovery=Discovery(labels={"FAIRLEAD_DNS_TAGS": folder, "FAIRLEAD_DNS_NAMESPACE": name}),
        ports=(Port(index=0, number=port, host_port=port, name=port_name, protocols=(port_name,)),),
        ips=Ips(host=(host,)),
    )

    records = speaking.of_task(made, Rules(dialects=(msgspec.convert({"kind": kind}, Dialect),)), "1a2b3c4d")

    assert all(len(r.owner) <= 255 and all(len(part) <= 63 for part in wire.labels(r.owner)) for r in records)
    addressed = {r.owner for r in records if r.kind in (wire.A, wire.AAAA)}
    assert {wire.srv_target(r.rdata) for r in records if r.kind == wire.SRV} <= addressed


def replace_app(ref: TaskRef, folder: str) -> TaskRef:
    return msgspec.structs.replace(ref, app=folder)


def test_dialects_have_zones_of_their_own() -> None:
    """Each domain once, none that is ours already."""
    rules = Rules(
        dialects=(
            Dialect(kind="consul"),
            Dialect(kind="kubernetes", domain="k8s.mesos"),
            Dialect(kind="svcb"),
            Dialect(kind="dcos"),
            Dialect(kind="l4lb"),
        )
    )

    assert ("consul", "dcos.thisdcos.directory", "l4lb.thisdcos.directory") == speaking.apexes(rules)


def test_rivals_stay_apart_in_every_dialect() -> None:
    """A service that shares its names has one of its own in each dialect."""
    rules = replace(
        Rules(), dialects=tuple(msgspec.convert({"kind": k}, Dialect) for k in ("consul", "kubernetes", "dcos"))
    )

    found = shown(speaking.of_task(member(), rules, "1a2b3c4d"))

    own = ("service.consul", "marathon.svc.cluster.local", "marathon.agentip.dcos.thisdcos.directory")
    assert [{AGENT}] * 3 == [found[f"web-1a2b3c4d.{tail}", "A"] for tail in own]

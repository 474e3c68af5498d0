"""Names by setting, in the daemon: dialects, records, prepared queries, TTLs of services."""

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery import paths
from fairlead_discovery.decisions import vips
from fairlead_discovery.records import Discovery, Framework, Member, NameServer, Port, decode
from fairlead_dns import tending
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Dialect, of_framework
from fairlead_dns.naming_settings import MesosSource, NamingSettings, with_naming
from fairlead_dns.settings import DnsSettings, rules
from harness.names import member, publish, rcode, withdraw
from harness.naming import Running, running, told
from harness.waiting import eventually


async def announced(dns: Running) -> int:
    (name,) = await dns.registry.tree.names(paths.NAME_SERVERS)
    node = await dns.registry.read(f"{paths.NAME_SERVERS}/{name}")
    assert node is not None
    return decode(NameServer, node.data, place=name).largest_ttl_s


def asking(number: int, ttl: int) -> Member:
    return member(number, name="slow", discovery=Discovery(name="slow", labels={"FAIRLEAD_DNS_TTL": str(ttl)}))


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tending, "LOOK_S", 0.05)


@pytest.mark.usefixtures("looking_often")
async def test_a_services_ttl_is_announced_before_it_is_given(tmp_path: Path) -> None:
    """Kills wait for what is announced; when the last such service is gone, and its answers, it is taken back."""
    async with running(tmp_path, ttl_s=1, negative_ttl_s=1) as dns:
        await publish(dns.registry, asking(0, 2))
        given: list[tuple[int, int]] = []

        async def has_it() -> bool:
            reply = await dns.ask("slow.marathon.mesos")
            if reply.rr:
                given.append((reply.rr[0].ttl, await announced(dns)))
            return bool(given) and given[-1][0] == 2

        await eventually("it has its TTL", has_it, within_s=30)
        await withdraw(dns.registry, asking(0, 2))

        async def taken_back() -> bool:
            return await announced(dns) == 1

        await eventually("the small one is announced again", taken_back, within_s=30)

    assert {True} == {ttl <= said for ttl, said in given}


async def test_dialects_and_records_are_answered(tmp_path: Path) -> None:
    """Names of other systems in zones of their own, and records that were written down, with their TTL."""
    dialects = [Dialect(kind="consul"), Dialect(kind="kubernetes", domain="k8s.test"), Dialect(kind="svcb")]
    records = ['note 60 TXT "made by hand"', "db 120 A 10.9.9.9", "_sip._udp SRV 0 5 5060 db"]
    async with running(tmp_path, dialects=tuple(dialects), records=tuple(records)) as dns:
        await publish(dns.registry, member())
        await dns.until("web.service.consul", ["10.0.0.1"])

        assert ["10.0.0.1"] == await dns.knows("web.marathon.svc.k8s.test")
        assert ['"1.1.0"'] == await dns.knows("dns-version.k8s.test", "TXT")
        assert ['"made by hand"'] == await dns.knows("note.mesos", "TXT")
        assert ["0 5 5060 db.mesos."] == await dns.knows("_sip._udp.mesos", "SRV")
        assert 120 == (await dns.ask("db.mesos")).rr[0].ttl
        soa = await dns.ask("consul", "SOA")
        assert ("NOERROR", "consul.") == (rcode(soa), str(soa.rr[0].rname))


async def test_an_alias_leads_to_what_it_names(tmp_path: Path) -> None:
    """Into our zone with the records there, onwards, and out of it; into nothing it is NXDOMAIN with the SOA."""
    records = (
        "www 60 CNAME web.marathon",
        "w3 CNAME www",
        "out CNAME a.example.",
        "lost CNAME nope.marathon",
        "a CNAME b",
        "b CNAME a",
    )
    async with running(tmp_path, records=records) as dns:
        await publish(dns.registry, member(), member(1))
        await dns.until("www.mesos", ["10.0.0.1", "10.0.0.2", "web.marathon.mesos."])
        await withdraw(dns.registry, member(1))
        await dns.until("w3.mesos", ["10.0.0.1", "web.marathon.mesos.", "www.mesos."])

        assert ["www.mesos."] == await dns.knows("w3.mesos", "CNAME")
        assert ["a.example."] == await dns.knows("out.mesos")
        lost, none = await dns.ask("lost.mesos"), await dns.ask("www.mesos", "AAAA")
        assert [("NXDOMAIN", 1, 1), ("NOERROR", 1, 1)] == [(rcode(r), len(r.rr), len(r.auth)) for r in (lost, none)]
        assert 8 == len((await dns.ask("a.mesos")).rr)


async def test_a_framework_does_not_take_an_aliass_place(tmp_path: Path) -> None:
    """Nothing may stand beside a CNAME: the framework is found by its name with a digest."""
    given = told(tmp_path, records=("shop CNAME web.marathon",))

    records = of_framework(Framework(id="1", name="Shop"), ("10.0.0.7",), rules(given))

    assert ["shop-"] == [wire.labels(r.owner)[0].decode()[:-8] for r in records]


@pytest.mark.usefixtures("looking_often")
async def test_queries_are_read_again_when_their_file_changes(tmp_path: Path) -> None:
    """A file that cannot be served is logged, and what was served stays."""
    file = tmp_path / "queries.json"
    file.write_text(json.dumps({"Name": "one", "Service": {"Service": "web"}}))
    dialects = (Dialect(kind="consul", queries=(str(file),)),)
    async with running(tmp_path, dialects=dialects) as dns:
        await publish(dns.registry, member())
        await dns.until("one.query.consul", ["10.0.0.1"])
        file.write_text("{")
        file.write_text(json.dumps({"Name": "two", "Service": {"Service": "web"}}))
        await dns.until("two.query.consul", ["10.0.0.1"])

        assert [] == await dns.knows("one.query.consul")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"records": ("www 60 IN A 10.0.0.1", "oops 60 IN A ten")}, r"records\[1\]"),
        ({"records": ("www DNAME db",)}, r"records\[0\]: a DNAME record needs a zone of its own"),
        ({"records": ("*.x A 10.0.0.1",)}, r"records\[0\]: a wildcard needs a zone of its own"),
        ({"records": ("www.x CNAME db",)}, r"records\[0\]: a CNAME stands right below the domain only"),
        ({"records": ("leader CNAME db",)}, r"records\[0\]: a CNAME stands right below"),
        ({"records": ("www CNAME db", "www A 10.0.0.1")}, r"records\[0\]: other records beside the CNAME"),
        ({"records": ("a.elsewhere. A 10.0.0.1",)}, r"records\[0\]"),
        ({"dialects": (Dialect(kind="svcb", domain="x"),)}, r"dialects\[0\].domain: svcb stands in the main domain"),
        ({"dialects": (Dialect(kind="consul", domain="a..b"),)}, r"dialects\[0\].domain: 'a..b' is no domain name"),
        ({"dialects": (Dialect(kind="consul"),) * 2}, r"dialects\[1\]: consul is there twice"),
        ({"dialects": (Dialect(kind="dcos", queries=("q",)),)}, "only consul has prepared queries"),
        ({"dialects": (Dialect(kind="consul", datacenter="x" * 64),)}, r"dialects\[0\].datacenter"),
        ({"service_ttl_max_s": -1}, "service_ttl_max_s"),
        ({"mesos": MesosSource()}, "mesos: neither zk nor masters"),
        ({"mesos": MesosSource(masters=("m:5050",), refresh_s=0.0)}, "mesos.refresh_s: 0.0 is not between"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    """By key and place in it."""
    given = NamingSettings(**wrong)  # type: ignore[arg-type]  # what a file may hold

    with pytest.raises(BadSettings, match=said):
        with_naming(rules(told(tmp_path)), given)


async def test_vips_are_answered_while_a_service_has_them(tmp_path: Path) -> None:
    """One address a name, that of node balancers, however many tasks there are; gone with the last one."""
    labelled = Port(index=0, number=80, host_port=31000, labels={"VIP_0": "/shop/web:80", "VIP_1": "10.99.0.1:80"})
    one, two = (member(number, ports=(labelled,)) for number in range(2))
    async with running(tmp_path, dialects=(Dialect(kind="l4lb"),)) as dns:
        await publish(dns.registry, one, two)
        address = vips.addresses({"shopweb.marathon"}, IPv4Network(vips.RANGE))["shopweb.marathon"]
        await dns.until("shopweb.marathon.l4lb.thisdcos.directory", [address])
        await withdraw(dns.registry, one)
        await dns.until("web.marathon.mesos", ["10.0.0.2"])

        assert [address] == await dns.knows("SHOPWEB.marathon.l4lb.thisdcos.directory")
        assert "NXDOMAIN" == rcode(await dns.ask("other.marathon.l4lb.thisdcos.directory"))
        await withdraw(dns.registry, two)
        await dns.until("shopweb.marathon.l4lb.thisdcos.directory", [])
        assert "NXDOMAIN" == rcode(await dns.ask("shopweb.marathon.l4lb.thisdcos.directory"))


def test_a_range_for_vips_that_is_none_is_refused() -> None:
    """Naming the dialect and its key."""
    settings = NamingSettings(dialects=(Dialect(kind="l4lb", vip_range="127.0.0.1"),))

    with pytest.raises(BadSettings, match=r"^dialects\[0\].vip_range: 127.0.0.1/32 is too small"):
        with_naming(rules(DnsSettings()), settings)

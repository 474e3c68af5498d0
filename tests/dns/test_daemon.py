"""The daemon in this process, on the in-memory registry."""

import socket
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_discovery import paths
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import Agent, Framework, MasterAddress, MasterInfo, NameServer, decode, encode
from fairlead_dns import daemon
from harness.names import ede, member, publish, rcode, withdraw
from harness.naming import running, told
from harness.waiting import eventually

WEB = "web.marathon.mesos"


async def test_a_published_endpoint_is_answered(tmp_path: Path) -> None:
    """Published: there. Withdrawn: NXDOMAIN, with the revision of the withdrawal as serial."""
    async with running(tmp_path) as dns:
        await publish(dns.registry, member())
        await dns.until(WEB, ["10.0.0.1"])
        revision = await withdraw(dns.registry, member())
        await dns.until(WEB, [])

        reply = await dns.ask(WEB)
        assert ("NXDOMAIN", revision) == (rcode(reply), reply.auth[0].rdata.times[0])


async def test_it_announces_its_ttl_while_it_serves(tmp_path: Path) -> None:
    """Kills wait for what a live name server gave out; when it stops, the announcement is gone before the daemon is."""
    async with running(tmp_path, ttl_s=7) as dns:

        async def announced() -> tuple[str, ...]:
            return await dns.registry.tree.names(paths.NAME_SERVERS)

        (name,) = await eventually("it is announced", announced)
        node = await dns.registry.read(f"{paths.NAME_SERVERS}/{name}")
        assert node is not None
        record = decode(NameServer, node.data, place=name)
        watching = await open_registry(f"memory:{tmp_path.name}")

    assert NameServer(id="one", address=f"127.0.0.1:{dns.port}", largest_ttl_s=7) == record
    assert () == await watching.tree.names(paths.NAME_SERVERS)
    await watching.close()


async def test_names_stay_when_the_registry_goes(tmp_path: Path) -> None:
    """The last good names, marked stale; live again when it is back."""
    async with running(tmp_path) as dns:
        await publish(dns.registry, member())
        await dns.until(WEB, ["10.0.0.1"])
        cluster(tmp_path.name).stop()

        async def marked() -> bool:
            return ede(await dns.ask(WEB)) == 3

        await eventually("it is marked", marked)
        assert ["10.0.0.1"] == await dns.knows(WEB)
        assert 'fairlead_dns_trust{trust="stale"} 1.0' in (await dns.text("/metrics"))[1]
        cluster(tmp_path.name).start()

        async def live() -> bool:
            return ede(await dns.ask(WEB)) is None

        await eventually("it is live again", live)


async def test_frameworks_agents_and_masters_have_names(tmp_path: Path) -> None:
    """What stands in the registry's documents is named, changed and forgotten with them."""
    master = MasterInfo(
        address=MasterAddress(hostname="h", ip="10.0.0.8", port=5050),
        hostname="h",
        id="m",
        ip=0,
        pid="master@10.0.0.8:5050",
        port=5050,
        version="1.11.0",
    )
    framework, agent = (
        paths.below(paths.MASTER_FRAMEWORKS, "f-1"),
        paths.below(paths.AGENTS, "a-1"),
    )
    async with running(tmp_path) as dns:
        await dns.registry.write(framework, encode(Framework(id="f-1", name="etl", ip="10.0.0.7", port=90)))
        await dns.registry.write(paths.below(paths.MASTER_FRAMEWORKS, "junk"), b"{")
        await dns.registry.announce(agent, encode(Agent(id="a-1", host="10.0.0.3", port=5051, boot_id="b")))
        standing = dns.registry.campaign("master", encode(master), candidacy=paths.MASTER_CANDIDACY)
        await anext(aiter(standing))

        await dns.until("etl.mesos", ["10.0.0.7"])
        await dns.until("_framework._tcp.etl.mesos", ["0 1 90 etl.mesos."], "SRV")
        await dns.until("slave.mesos", ["10.0.0.3"])
        for name in ("leader", "master", "master0"):
            await dns.until(f"{name}.mesos", ["10.0.0.8"])
        await dns.until("_leader._tcp.mesos", ["0 1 5050 leader.mesos."], "SRV")
        await dns.registry.remove(framework)
        await dns.until("etl.mesos", [])


async def test_the_http_api_has_mesos_dns_shapes(tmp_path: Path) -> None:
    """Version, config without secrets, hosts, services, enumerate, axfr, and the 501."""
    async with running(tmp_path) as dns:
        await publish(dns.registry, member())
        await dns.until(WEB, ["10.0.0.1"])

        version, config, axfr = [await dns.get(f"/v1/{p}") for p in ("version", "config", "axfr")]
        assert ({"Service", "Version", "URL"}, "Mesos-DNS") == (set(version), version["Service"])
        assert ("mesos", dns.port, dns.http_port, "ns1.mesos.") == tuple(
            config[k] for k in ("Domain", "Port", "HttpPort", "SOAMname")
        )
        assert [{"host": f"{WEB}.", "ip": "10.0.0.1"}] == await dns.get(f"/v1/hosts/{WEB}")
        assert [{"host": "", "ip": ""}] == await dns.get("/v1/hosts/nope.mesos")
        assert ["31000"] == [row["port"] for row in await dns.get("/v1/services/_web._tcp.marathon.mesos")]
        assert "marathon" == (await dns.get("/v1/enumerate"))["frameworks"][0]["name"]
        assert ("mesos", 1, ["10.0.0.1"]) == (axfr["Domain"], axfr["Serial"], axfr["Records"]["As"][f"{WEB}."])
        assert 501 == (await dns.text(f"/v1/hosts/{WEB}/ports"))[0]


async def test_enumeration_can_be_off(tmp_path: Path) -> None:
    """404 with the setting's name, for both pages."""
    async with running(tmp_path, enumeration=False) as dns:
        for page in ("enumerate", "axfr"):
            status, text = await dns.text(f"/v1/{page}")

            assert (404, True) == (status, "`enumeration` setting" in text)


async def test_config_shows_no_credentials(tmp_path: Path) -> None:
    """A ZooKeeper password in the registry's URL stays ours."""
    from fairlead_dns.adapters.http import _config

    shown = _config(told(tmp_path, registry="zk://user:secret@h1:2181,h2:2181/chroot"))

    assert "zk://h1:2181,h2:2181/chroot" == shown["Zk"]


async def test_an_optional_address_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be had is named, and the rest is served."""
    async with running(tmp_path, listen_optional=["192.0.2.1:53"]) as dns:
        assert "NOERROR" == rcode(await dns.ask("mesos", "SOA"))

    assert "not listening on an optional address" in caplog.text


async def test_a_busy_port_ends_it_with_the_options_name(tmp_path: Path) -> None:
    """BadSettings, which is exit code 2, before anything is served."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        with pytest.raises(BadSettings, match=f"listen: cannot listen on 127.0.0.1:{port}"):
            await daemon.run(told(tmp_path, listen=[f"127.0.0.1:{port}"]), Context(name="dns", log=Log("dns")))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("domain", "a..b"),
        ("domain", ""),
        ("ttl_s", -1),
        ("ttl_s", 99999),
        ("negative_ttl_s", -1),
        ("srv_weight", 70000),
        ("soa_mname", "x" * 64),
        ("reverse_zones", [""]),
        ("listen", ["localhost"]),
        ("tcp_idle_s", 0),
    ],
)
async def test_bad_settings_name_their_key(tmp_path: Path, key: str, value: Any) -> None:
    """Whoever must edit the file is told where."""
    with pytest.raises(BadSettings, match=f"^{key}: "):
        await daemon.run(told(tmp_path, **{key: value}), Context(name="dns", log=Log("dns")))

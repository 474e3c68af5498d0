"""BIND, NSD and Knot as secondaries of the names and of a zone file: they have every change, all of it after the first
transfer by IXFR.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from fairlead_discovery import paths
from fairlead_discovery.records import Address, Agent, Ips, Member, Port, encode
from fairlead_discovery.registry import Create, Delete
from fairlead_dns.decisions.naming import Dialect
from harness import secondaries
from harness.names import member, node_name, publish
from harness.naming import Running, running
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import eventually

pytestmark = [pytest.mark.needs("named"), pytest.mark.needs("nsd"), pytest.mark.needs("knotd")]
ZONES = ("mesos", "file.test")
CHANGES = 200
Servers = dict[int, Server]
KINDS = {"bind": secondaries.bind, "nsd": secondaries.nsd, "knot": secondaries.knot}


def write_zone(folder: Path, serial: int) -> None:
    """A zone file whose content says its serial; every third record changes with each."""
    hosts = "".join(f"h{n} A 10.9.{n}.{serial if n % 3 == 0 else 0}\n" for n in range(9))
    text = f"$TTL 60\n@ SOA ns root {serial} 60 1 86400 5\n@ NS ns\nns A 127.0.0.1\n* TXT {serial}\n{hosts}"
    (folder / "file.test.new").write_text(text)
    (folder / "file.test.new").replace(folder / "file.test.zone")


def settings(folder: Path, ports: list[int]) -> dict:
    (folder / "zones").mkdir()
    write_zone(folder / "zones", 1)
    keys = folder / "keys"
    keys.write_text(secondaries.KEYS)
    keys.chmod(0o600)
    return {
        "zones_dir": str(folder / "zones"),
        "keys_file": str(keys),
        "transfers": [f"127.0.0.0/8 key:{secondaries.KEY}"],
        "secondaries": [f"127.0.0.1:{port} key:{secondaries.KEY}" for port in ports],
    }


async def all_equal(dns: Running, servers: Servers, zone: str, *, serial: int = -1) -> int:
    """Every secondary has our serial and our records, at `serial` or later. Returns how often ours were fetched whole."""
    fetched = 0

    async def same(port: int) -> bool:
        nonlocal fetched
        fetched += 1
        ours = await asyncio.to_thread(secondaries.contents, dns.port, zone)
        theirs = await asyncio.to_thread(secondaries.contents, port, zone)
        assert ours == theirs, f"serials {ours[0]}, {theirs[0]}; {sorted(ours[1] ^ theirs[1])[:5]}"
        return ours[0] >= serial

    for port, server in servers.items():
        what = f"{zone} is the same on {server.command[0]}"
        try:
            await eventually(what, partial(same, port), within_s=60, every_s=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{server.tail()}") from error
    return fetched


def instance(number: int, turn: int) -> Member:
    """Task `number` after `turn` moves: another port, every other time also another name."""
    ports = (Port(index=0, number=80, host_port=31000 + turn, name="http" if turn % 2 else "web"),)
    return member(
        number, name=f"app{number % 3}", ports=ports, serviceEndpoint=Address(host="10.0.0.1", port=31000 + turn)
    )


async def move(dns: Running, number: int, turn: int) -> int:
    """The new member comes, the old one goes, in one commit, as the master does it."""
    old, new = instance(number, turn), instance(number, turn + 1)
    service = f"marathon:{new.task.name}"
    create = Create(paths.member(service, node_name(new)), encode(new))
    return await dns.registry.commit([create, Delete(paths.member(service, node_name(old)))])


def transfers(page: str) -> dict[str, int]:
    start = 'fairlead_dns_transfers_total{result="'
    lines = [line.removeprefix(start) for line in page.splitlines() if line.startswith(start)]
    return {line.partition('"')[0]: int(float(line.rpartition(" ")[2])) for line in lines}


async def whole(dns: Running) -> int:
    return transfers((await dns.text("/metrics"))[1])["whole"]


@contextmanager
def started(
    folder: Path, port: int, ports: list[int], zones: tuple[str, ...] = ZONES, kinds: tuple[str, ...] = tuple(KINDS)
) -> Iterator[Servers]:
    """All kinds of secondaries, of a primary at `port`."""
    servers: Servers = {}
    try:
        for kind, own in zip(kinds, ports, strict=True):
            (folder / kind).mkdir()
            servers[own] = KINDS[kind](folder / kind, own, port, zones)
        yield servers
    finally:
        for server in servers.values():
            server.stop()


@pytest.mark.parametrize("workers", [1, 2])
async def test_secondaries_follow_every_change(tmp_path: Path, workers: int) -> None:
    """200 quick moves of endpoints, a new agent, changes of the zone file; nobody takes a zone whole a second time. Also
    by worker processes, which pass transfers on.
    """
    ports = [free_port() for _ in KINDS]
    async with running(tmp_path, workers=workers, **settings(tmp_path, ports)) as dns:
        await publish(dns.registry, *(instance(n, 0) for n in range(20)))
        with started(tmp_path, dns.port, ports) as servers:
            for zone in ZONES:
                await all_equal(dns, servers, zone)
            begun = await whole(dns)
            for n in range(CHANGES):
                revision = await move(dns, n % 20, n // 20)
                if n == CHANGES // 2:
                    await dns.registry.write(
                        f"{paths.AGENTS}/S9", encode(Agent(id="S9", host="10.0.9.9", port=5051, boot_id="b"))
                    )
                if n % 40 == 0:
                    await asyncio.to_thread(write_zone, tmp_path / "zones", 2 + n)
                await asyncio.sleep(0.01)
            fetched = await all_equal(dns, servers, "mesos", serial=revision)
            fetched += await all_equal(dns, servers, "file.test", serial=162)

            assert (await whole(dns)) - begun <= fetched  # ours are fetched by dig alone
            for port in ports:
                assert (
                    "slave.mesos. 5 IN A 10.0.9.9" in (await asyncio.to_thread(secondaries.contents, port, "mesos"))[1]
                )


async def test_secondaries_outlive_a_restart(tmp_path: Path) -> None:
    """The journal is gone with the process: whoever is behind takes the zone whole, and follows on."""
    ports = [free_port() for _ in KINDS]
    told = settings(tmp_path, ports)
    told |= {"listen": [f"127.0.0.1:{free_port()}"]}
    with started(tmp_path, int(told["listen"][0].rpartition(":")[2]), ports) as servers:
        async with running(tmp_path, **told) as dns:
            await publish(dns.registry, *(instance(n, 0) for n in range(3)))
            for zone in ZONES:
                await all_equal(dns, servers, zone)
        async with running(tmp_path, **told) as again:
            revision = await move(again, 0, 0)
            await all_equal(again, servers, "mesos", serial=revision)


OTHERS = ("mesos", "consul", "cluster.local", "dcos.thisdcos.directory", "10.in-addr.arpa", "0.0.0.0.d.f.ip6.arpa")
KNOWN = {
    "consul": "app0.service.consul. 5 IN A 10.9.0.1",
    "cluster.local": "app0.marathon.svc.cluster.local. 5 IN A 10.9.0.1",
    "dcos.thisdcos.directory": "app0.marathon.containerip.dcos.thisdcos.directory. 5 IN A 10.9.0.1",
    "10.in-addr.arpa": "1.0.0.10.in-addr.arpa. 5 IN PTR box1.slave.mesos.",
}
"""One record of each kind of zone."""


async def test_dialects_and_reverse_zones_are_fetched_too(tmp_path: Path) -> None:
    """Consul's, Kubernetes', dcos-net's and two reverse zones, by BIND and NSD: whole, then each change."""
    ports = [free_port(), free_port()]
    told = settings(tmp_path, ports) | {
        "dialects": [Dialect(kind="consul"), Dialect(kind="kubernetes"), Dialect(kind="dcos"), Dialect(kind="dns_sd")],
        "reverse_zones": list(OTHERS[-2:]),
    }
    box = Agent(id="S1", host="10.0.0.1", port=5051, boot_id="b", hostname="box1")
    async with running(tmp_path, **told) as dns:
        pods = [replace(instance(n, 0), ips=Ips(netinfo=(f"10.9.0.{n + 1}", f"fd00::{n + 1:x}"))) for n in range(4)]
        await publish(dns.registry, *pods)
        await dns.registry.write(f"{paths.AGENTS}/S1", encode(box))
        with started(tmp_path, dns.port, ports, OTHERS, ("bind", "nsd")) as servers:
            for zone in OTHERS:
                await all_equal(dns, servers, zone)
            revision = await publish(dns.registry, instance(9, 0))
            for zone in OTHERS:
                await all_equal(dns, servers, zone, serial=revision)
            for port in ports:
                for zone, record in KNOWN.items():
                    assert record in (await asyncio.to_thread(secondaries.contents, port, zone))[1]

"""The daemon on a Mesos master alone, without a fairlead registry: as Mesos-DNS ran."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.errors import BadSettings, Unavailable
from fairlead_discovery.adapters.zookeeper import Client
from fairlead_discovery.adapters.zookeeper_place import Place
from fairlead_dns.adapters.mesos_master import MesosMaster
from fairlead_dns.decisions.mesos_state import is_change
from fairlead_dns.mesosdns_file import beneath
from fairlead_dns.naming_settings import MesosSource
from harness.mesos_pages import MesosPages
from harness.names import ede, rcode
from harness.naming import Running, running
from harness.ports import free_port
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

WEB = "web.marathon.mesos"


def source(*masters: MesosPages, **how: Any) -> MesosSource:
    return MesosSource(masters=tuple(m.place for m in masters), **{"refresh_s": 0.05, "timeout_s": 5.0, **how})


async def until_ede(dns: Running, expected: int | None) -> None:
    async def same() -> bool:
        return ede(await dns.ask(WEB)) == expected

    await eventually(f"the extended error is {expected}", same)


async def test_names_come_from_the_masters_state(tmp_path: Path) -> None:
    """Tasks, frameworks, agents and masters; what changes there changes here."""
    async with MesosPages() as master:
        master.tasks = {"web": 1}
        async with running(tmp_path, mesos=source(master)) as dns:
            await dns.until(WEB, ["10.0.0.1"])
            master.tasks = {"web": 2}
            await dns.until(WEB, ["10.0.0.2"])

            assert ["10.0.0.1", "10.0.0.2", "10.0.0.3"] == await dns.knows("slave.mesos")
            assert ["10.0.0.1"] == await dns.knows("marathon.mesos")
            assert ["127.0.0.1"] == await dns.knows("leader.mesos") == await dns.knows("master0.mesos")
            serial = (await dns.ask("mesos", "SOA")).rr[0].rdata.times[0]
            seen = master.asked

            async def read_again() -> bool:
                return master.asked > seen + 2

            await eventually("the state is read again", read_again)
            assert serial == (await dns.ask("mesos", "SOA")).rr[0].rdata.times[0]


async def test_a_change_of_frameworks_alone_is_a_later_serial(tmp_path: Path) -> None:
    """In the SOA that secondaries ask for, too: told of a serial they see theirs otherwise, and fetch nothing."""
    async with MesosPages() as master:
        master.tasks = {"web": 1}
        async with running(tmp_path, mesos=source(master)) as dns:
            await dns.until(WEB, ["10.0.0.1"])
            before = (await dns.ask("mesos", "SOA")).rr[0].rdata.times[0]
            master.scheduler = 2
            await dns.until("marathon.mesos", ["10.0.0.2"])

            async def later() -> bool:
                return bool((await dns.ask("mesos", "SOA")).rr[0].rdata.times[0] > before)

            await eventually("a later serial", later)


async def test_a_master_that_tells_of_a_change_is_read_at_once(tmp_path: Path) -> None:
    """Not after `refresh_s`, which is an hour here. Heartbeats are no changes."""
    async with MesosPages() as master:
        master.tasks, master.speaks = {"web": 1}, True
        async with running(tmp_path, mesos=source(master, refresh_s=3600.0)) as dns:
            await dns.until(WEB, ["10.0.0.1"])

            async def listened_to() -> bool:
                return master.asked > 1  # SUBSCRIBED counts as a change

            await eventually("it listens", listened_to)
            master.tell("HEARTBEAT")
            master.tasks = {"web": 2}
            master.tell("TASK_UPDATED")
            await dns.until(WEB, ["10.0.0.2"])


def test_heartbeats_are_no_changes() -> None:
    """One alone, two at once; with anything beside them it is a change. A cut record says nothing."""
    beat, change = b'20\n{"type":"HEARTBEAT"}', b'21\n{"type": "TASK_ADDED"}'

    assert [False, False, True, True, False] == [
        is_change(part) for part in (beat, beat * 2, beat + change, change, b"20\n{")
    ]


async def test_names_outlive_the_master_and_a_restart(tmp_path: Path) -> None:
    """Out of sight they are marked stale, also after a restart without it."""
    async with MesosPages() as master:
        master.tasks = {"web": 1}
        async with running(tmp_path, mesos=source(master)) as dns:
            await dns.until(WEB, ["10.0.0.1"])
            master.down = True
            await until_ede(dns, 3)
        async with running(tmp_path, mesos=source(master)) as dns:
            await dns.until(WEB, ["10.0.0.1"])
            stale = ede(await dns.ask(WEB))
            master.down = False
            await until_ede(dns, None)

    assert 3 == stale


async def test_nothing_known_is_not_an_empty_cluster(tmp_path: Path) -> None:
    """SERVFAIL and not NXDOMAIN, until a master has been read."""
    async with MesosPages() as master:
        master.tasks, master.down = {"web": 1}, True
        async with running(tmp_path, until="SERVFAIL", mesos=source(master)) as dns:
            before = rcode(await dns.ask(WEB))
            master.down = False
            await dns.until(WEB, ["10.0.0.1"])

    assert "SERVFAIL" == before


async def test_a_new_leader_that_waits_for_its_agents_empties_nothing(tmp_path: Path) -> None:
    """Held until it has heard of them, or for `settle_s`."""
    async with MesosPages() as master:
        master.tasks = {"web": 1}
        async with running(tmp_path, mesos=source(master)) as dns:
            await dns.until(WEB, ["10.0.0.1"])
            master.recovering, master.tasks = True, {}
            await until_ede(dns, 3)
            held = await dns.knows(WEB)
            master.recovering, master.tasks = False, {"web": 3}
            await dns.until(WEB, ["10.0.0.3"])

    assert ["10.0.0.1"] == held


async def test_an_emptiness_that_lasts_is_believed(tmp_path: Path) -> None:
    """After `settle_s`."""
    async with MesosPages() as master:
        master.tasks = {"web": 1}
        async with running(tmp_path, mesos=source(master, settle_s=0.5)) as dns:
            await dns.until(WEB, ["10.0.0.1"])
            master.recovering, master.tasks = True, {}
            await dns.until(WEB, [])


async def test_mesos_dns_file_alone_is_enough(tmp_path: Path) -> None:
    """What ran Mesos-DNS runs this: its file, and no setting of ours but where to listen."""
    async with MesosPages() as master:
        master.tasks = {"web": 1}
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"masters": [master.place], "refreshSeconds": 1, "domain": "dcos", "resolvers": []}))
        given = {"mesos_dns_config": str(file), "resolvers": None}
        below = {
            k: v
            for k, v in beneath(given).items()
            if k not in ("listen", "port", "host", "resolvers", "zone_resolvers")
        }
        below["mesos"] = MesosSource(**below["mesos"])
        async with running(tmp_path, apex="dcos", mesos_dns_config=str(file), **below) as dns:
            await dns.until("web.marathon.dcos", ["10.0.0.1"])

            assert "dcos" == (await dns.get("/v1/config"))["Domain"]


async def test_the_master_is_asked_as_it_wants(tmp_path: Path) -> None:
    """The next of the list when one is down; a redirect to the leader; Basic; the page of old masters."""
    credentials = tmp_path / "c.json"
    credentials.write_text(json.dumps({"mesosCredentials": {"principal": "dns", "secret": "s3cret"}}))
    async with MesosPages() as first, MesosPages() as leader:
        first.leader, leader.wants = leader.place, "dns:s3cret"
        master = MesosMaster(source(first, credentials_file=str(credentials)))
        by_redirect = (await master.state())[1]
        first.leader, first.down, leader.old = "", True, True
        await master.close()
        master = MesosMaster(source(first, leader, credentials_file=str(credentials)))
        by_list = (await master.state())[1]
        await master.close()

    assert (first.place, leader.place) == (by_redirect, by_list)


async def answers(client: Client) -> bool:
    try:
        return await client.children("/") is not None
    except Unavailable:  # the connection is being made
        return False


async def place_of(master: MesosMaster, *, other_than: str = "") -> str:
    try:
        place = (await master.state())[1]
    except Unavailable:
        return ""
    return "" if place == other_than else place


async def test_the_leader_is_found_by_zookeeper(zookeeper: ZooKeeper) -> None:
    """The lowest node leads; when it goes, the next one does."""
    folder = "/mesos-of-a-test"
    client = Client(Place(hosts=zookeeper.hosts), lambda _link: None)
    await eventually("ZooKeeper answers", lambda: answers(client), within_s=30)
    async with MesosPages() as first, MesosPages() as second:
        await client.create(folder)
        for number, each in enumerate((first, second)):
            data = json.dumps({"pid": f"master@{each.place}", "hostname": "h"}).encode()
            await client.create(f"{folder}/json.info_000000000{number}", data)
        await client.create(f"{folder}/log_replicas")
        master = MesosMaster(MesosSource(zk=f"zk://{zookeeper.hosts}{folder}", timeout_s=5.0))
        before = await eventually("the leader is found", lambda: place_of(master), within_s=30)
        await client.delete(f"{folder}/json.info_0000000000")
        after = await eventually("the next one leads", lambda: place_of(master, other_than=before), within_s=30)
        numbered = [m.id for m in master.masters]
        await master.close()
        for name in await client.children(folder) or ():
            await client.delete(f"{folder}/{name}")
        await client.delete(folder)
    await client.close()

    assert (first.place, second.place, [second.place]) == (before, after, numbered)


async def test_a_zookeeper_that_refuses_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In our words, without kazoo's own for every try; meanwhile /v1/config shows the masters that are written down."""
    mesos = MesosSource(zk=f"zk://127.0.0.1:{free_port()}/mesos", masters=("127.0.0.1:1",), refresh_s=0.05)

    async def told() -> bool:
        return "no state of a master yet" in caplog.text

    async with running(tmp_path, until="SERVFAIL", mesos=mesos) as dns:
        page = await dns.get("/v1/config")
        await eventually("there is no master", told, within_s=30)

    assert ["127.0.0.1:1"] == page["Masters"]
    assert [] == [r.getMessage() for r in caplog.records if r.name.startswith("kazoo")]
    assert 1 == sum("masters not found" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (MesosSource(zk="zk://h:2181"), "mesos.zk: zk://h:2181: no path"),
        (MesosSource(zk="zk://u:p@h:2181/mesos"), "mesos.zk: zk://…: credentials stand in a file"),
        (MesosSource(masters=("m:5050",), credentials_file="/nowhere"), "mesos.credentials_file: /nowhere"),
        (MesosSource(masters=("m:5050",), https=True, ca_file="/nowhere"), "mesos: ca_file"),
    ],
)
async def test_wrong_settings_of_a_master_are_named(wrong: MesosSource, said: str) -> None:
    """By key, at the start."""
    with pytest.raises(BadSettings) as caught:
        MesosMaster(wrong)

    assert str(caught.value).startswith(said)

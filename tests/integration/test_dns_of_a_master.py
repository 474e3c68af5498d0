"""Names by a master's /state, as Mesos-DNS reads it, are the names by the registry, as the same master writes it."""

import asyncio
import re
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from fairlead_core.master.daemon import MasterSettings
from fairlead_core.master.daemon import run as run_master
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_dns.naming_settings import MesosSource
from harness.naming import Running, running
from harness.ports import free_port
from harness.sim_agent import SimAgent
from harness.sim_framework import SimFramework, command_task
from harness.waiting import eventually

APART = r"^(_slave\._tcp|slave|[^.]+\.slave|_framework\._tcp\.etl)\.mesos\.$"
NAMES = ("As", "AAAAs", "SRVs")


KNOWN = ("plain.etl.mesos", "web.shop.etl.mesos", "leader.mesos")


async def complete(dns: Running) -> dict[str, dict[str, list[str]]]:
    """Every record, once there is one of each kind, but for those of the agent, which is simulated and not announced, and
    the framework's port: the page has that of its connection, the registry none.
    """

    async def all_known() -> bool:
        return all([await dns.knows(name) for name in KNOWN])

    await eventually("every name is known", all_known, within_s=30)
    every = (await dns.get("/v1/axfr"))["Records"]
    kept = {kind: {name: sorted(data) for name, data in every[kind].items()} for kind in NAMES}
    return {kind: {n: d for n, d in of_kind.items() if not re.search(APART, n)} for kind, of_kind in kept.items()}


async def test_both_ways_give_the_same_names(tmp_path: Path) -> None:
    """A task with and one without DiscoveryInfo, through a real master: member records beside the state page."""
    port = free_port()
    url, registry = f"http://127.0.0.1:{port}", f"memory:{tmp_path.name}"
    context = Context(name="master", log=Log("master"))
    master = asyncio.create_task(run_master(MasterSettings(registry=registry, port=port, token="off"), context))
    found = {
        "visibility": "FRAMEWORK",
        "name": "web.shop",
        "ports": {"ports": [{"number": 31000, "protocol": "tcp", "name": "http"}]},
    }
    mesos = MesosSource(masters=(urlsplit(url).netloc,), refresh_s=0.2)
    (tmp_path / "r").mkdir()
    (tmp_path / "m").mkdir()
    async with aiohttp.ClientSession() as session:

        async def ready() -> bool:
            if master.done():
                master.result()
            async with session.get(f"{url}/ready") as response:
                return response.status == 200

        await eventually("the master leads", ready, within_s=30)
        async with SimAgent(session, url), SimFramework(session, url, name="etl") as framework:
            offer = await framework.an_offer()
            first = {**command_task("t1", offer, ports=1, name="worker"), "discovery": found}
            ports = {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31001, "end": 31002}]}}
            second = command_task("t2", offer, name="plain")
            second["resources"].append(ports)
            await framework.accept(offer, first, second)
            await framework.reaches("t1", "TASK_RUNNING")
            await framework.reaches("t2", "TASK_RUNNING")
            async with running(tmp_path / "r", registry=registry) as by_registry:
                told = await complete(by_registry)
            async with running(tmp_path / "m", mesos=mesos) as by_state:
                read = await complete(by_state)
    context.stop.set()
    async with asyncio.timeout(10):
        await master

    assert told == read
    assert {"leader.mesos.", "web-shop.etl.slave.mesos."} <= read["As"].keys()
    assert {"_http._web-shop._tcp.etl.mesos.", "_plain._udp.etl.mesos."} <= read["SRVs"].keys()

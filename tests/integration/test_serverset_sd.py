"""A real Prometheus finds our members as ServerSets in a real ZooKeeper: exactly them, and nothing else."""

import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.records import Address, Leaving, Member, Portless, Reason, Route, TaskRef, encode
from fairlead_discovery.registry import Create, Delete, Put
from harness.ports import free_port
from harness.servers import Server, require
from harness.waiting import eventually, wait_until
from harness.zookeeper import ZooKeeper

WEB, ODD = "marathon:/shop/web", "etl:worker %1"
pytestmark = pytest.mark.needs("prometheus")


def member(number: int, service: str = WEB) -> tuple[str, bytes]:
    """Path and data of a member at 10.0.0.<number>:31000."""
    record = Member(
        serviceEndpoint=Address(host=f"10.0.0.{number}", port=31000),
        additionalEndpoints={"admin": Address(host=f"10.0.0.{number}", port=31001)},
        task=TaskRef(id=f"t{number}", name="web", framework="marathon", framework_id="f", agent="a1"),
        status="ALIVE",
        shard=number,
    )
    data = encode(record)
    return paths.member(service, paths.member_name(f"t{number}", data)), data


class Prometheus:
    """Two jobs: one pointed at a service's folder, one at the whole tree of endpoints."""

    def __init__(self, folder: Path, zookeeper: ZooKeeper, root: str) -> None:
        self.port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(
            f"""
global: {{scrape_interval: 1h}}
scrape_configs:
- job_name: service
  serverset_sd_configs:
  - {{servers: ["{zookeeper.hosts}"], paths: ["{root}{paths.endpoint_folder(WEB)}"]}}
- job_name: everything
  serverset_sd_configs:
  - {{servers: ["{zookeeper.hosts}"], paths: ["{root}{paths.ENDPOINTS}"]}}
"""
        )
        self.server = Server(
            [
                require("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            log=folder / "prometheus.log",
        )

    def targets(self, job: str) -> set[str]:
        """Addresses, dropped targets included: a target that came of a folder would be among them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/targets", timeout=5) as answer:
            data = json.load(answer)["data"]
        found = [*data["activeTargets"], *data["droppedTargets"]]
        return {t["discoveredLabels"]["__address__"] for t in found if t["discoveredLabels"]["job"] == job}


@pytest.fixture
async def registry(zookeeper: ZooKeeper) -> AsyncIterator[ComposedRegistry]:
    opened = await open_registry(f"{zookeeper.url}/{uuid4().hex}")
    yield opened
    await opened.close()


@pytest.fixture
def prometheus(zookeeper: ZooKeeper, registry: ComposedRegistry, short_dir: Path) -> Iterator[Prometheus]:
    root = registry.store.now.full("/").rstrip("/")  # type: ignore[attr-defined]
    made = Prometheus(short_dir, zookeeper, root)
    yield made
    made.server.stop()


async def test_prometheus_sees_exactly_the_members(registry: ComposedRegistry, prometheus: Prometheus):
    """Members of the service, of all services, each once; no folder, route, leaving record or portless task; and
    Prometheus follows when they come and go, also when a service's folder was removed and made again.
    """
    one, two, other = member(1), member(2), member(3, ODD)
    task = TaskRef(id="batch", name="batch", framework="f", framework_id="f", agent="a1")
    leaving = Leaving(task="t9", service=WEB, member="", reason=Reason.KILL, deadline_s=0.0)
    await registry.commit(
        [
            *(Create(path, data) for path, data in (one, two, other)),
            Create(paths.portless("f:batch", "task_batch_00000000"), encode(Portless(task=task))),
            Put(paths.leaving("t9"), encode(leaving)),
            Put(paths.route(WEB), encode(Route(service=WEB))),
        ]
    )
    prometheus.server.start()
    wait_until(
        "the members are targets",
        lambda: prometheus.targets("everything") == {"10.0.0.1:31000", "10.0.0.2:31000", "10.0.0.3:31000"},
        within_s=40,
    )
    wait_until("of the service", lambda: prometheus.targets("service") == {"10.0.0.1:31000", "10.0.0.2:31000"})

    three = member(4)
    await registry.commit([Create(*three), Delete(one[0]), Delete(other[0])])
    expected = {"10.0.0.2:31000", "10.0.0.4:31000"}
    wait_until("the changes are seen", lambda: prometheus.targets("everything") == expected, within_s=40)
    wait_until("in the service too", lambda: prometheus.targets("service") == expected, within_s=40)

    async def only_web() -> bool:
        return await registry.tree.names(paths.ENDPOINTS) == (paths.escape(WEB),)

    await eventually("the empty service's folder is removed", only_web)
    await registry.commit([Create(*other)])
    expected |= {"10.0.0.3:31000"}
    wait_until("the service is back", lambda: prometheus.targets("everything") == expected, within_s=40)
    assert prometheus.server.running()

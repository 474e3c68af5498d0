"""A house for a module of faults: one on the local registry, one on a ZooKeeper of its own, to be killed."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.house import House, house
from harness.zookeeper import ZooKeeper


@pytest.fixture(scope="module", params=["local", "zookeeper"])
def whole(request: pytest.FixtureRequest) -> Iterator[House]:
    if request.param == "local":
        with house() as place:
            yield place
        return
    folder = Path(tempfile.mkdtemp(prefix="zk-", dir="/tmp"))
    server = ZooKeeper(folder).start()
    try:
        with house(server.url) as place:
            place.zookeeper = server
            yield place
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)

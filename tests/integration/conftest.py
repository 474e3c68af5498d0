"""A house for a module of tests: one on the local registry, one on a real ZooKeeper."""

from collections.abc import Iterator

import pytest

from harness.house import House, house
from harness.zookeeper import ZooKeeper


@pytest.fixture(scope="module", params=["local", "zookeeper"])
def whole(request: pytest.FixtureRequest) -> Iterator[House]:
    url = "local"
    if request.param == "zookeeper":
        server: ZooKeeper = request.getfixturevalue("zookeeper")
        url = f"{server.url}/{request.module.__name__.rpartition('.')[2]}"
    with house(url) as place:
        yield place

"""A house for a module of tests: one on the local registry, one on a real ZooKeeper. A name server for conformance."""

from collections.abc import Iterator

import pytest

from harness.conforming import Conforming, conforming, strictly_resolving
from harness.dns_clients import Seen
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


@pytest.fixture(scope="session")
def served_names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conforming]:
    with conforming(tmp_path_factory.mktemp("names")) as place:
        yield place


@pytest.fixture(scope="session")
def strict(served_names: Conforming) -> Iterator[int]:
    """The port of an unbound in its strictest settings that resolves through the server."""
    with strictly_resolving(served_names) as port:
        yield port


@pytest.fixture
def seen(request: pytest.FixtureRequest, served_names: Conforming) -> Seen:
    """See harness.conforming.asks."""
    client, question = request.param
    found: Seen = client.ask(served_names.port, question)
    return found

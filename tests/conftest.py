"""Fixtures every test may use. Real servers are started once a session where they can be shared."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from harness.ports import free_port as pick_port
from harness.servers import require
from harness.zookeeper import ZooKeeper

# CI repeats the same examples, so that a red run says something about the change; elsewhere they are drawn anew.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            require(program)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soaks run only when asked for by name: `-m soak`."""
    if "soak" in (config.getoption("-m") or ""):
        return
    soaks = [item for item in items if item.get_closest_marker("soak")]
    if soaks:
        config.hook.pytest_deselected(items=soaks)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


def pytest_collection_finish() -> None:
    """What was imported stays to the end: the garbage collector need not look through it again at each test."""
    gc.collect()
    gc.freeze()


def _short_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A temporary folder with a short path (sockets!), reachable by user nobody."""
    folder = _short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def free_port() -> int:
    return pick_port()


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeper]:
    """One real ZooKeeper for the session: use a chroot of your own (`zookeeper.url + "/" + name`)."""
    folder = _short_folder()
    server = ZooKeeper(folder).start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_zookeeper() -> Iterator[ZooKeeper]:
    """A real ZooKeeper of this test alone, to be killed and paused."""
    folder = _short_folder()
    server = ZooKeeper(folder).start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)

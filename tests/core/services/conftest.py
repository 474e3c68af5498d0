"""The real daemon in this process, on the memory registry, against a real HTTP server that plays the master."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.services import Services
from harness.stub_mesos import StubMesos


@pytest.fixture
async def mesos() -> AsyncIterator[StubMesos]:
    async with StubMesos() as stub:
        yield stub


@pytest.fixture
async def services(mesos: StubMesos, tmp_path: Path) -> AsyncIterator[Services]:
    """Started and subscribed."""
    process = Services(mesos, tmp_path)
    await process.start()
    yield process
    await process.stop()
    await process.session.close()

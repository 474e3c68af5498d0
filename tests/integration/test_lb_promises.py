"""What traffic rules promise, kept to the letter by a real HAProxy: one balancer, each test a service of its own."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead_discovery.records import Traffic
from harness.balancer import Balancer, Task, balancer, service
from harness.waiting import eventually

pytestmark = [pytest.mark.needs("haproxy"), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Balancer]:
    with tempfile.TemporaryDirectory(prefix="fl", dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        async with balancer(folder, spare_backends=1) as one:
            yield one


class PartlyFailing(Task):
    """Of ten answers nine are errors."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.status = 200 if len(self.seen) % 10 == 0 else 500
        return await super()._answer(reader, writer)


async def test_a_server_that_fails_most_requests_is_put_aside_for_all_its_good_answers(place: Balancer) -> None:
    """Nine of ten are errors, never many in a row by chance of a look: the share of them puts it aside."""
    rules = Traffic(eject_after=1000, eject_s=60)
    good = await service(place, "/partly", vhosts=("partly.example",), traffic=rules)
    bad = await PartlyFailing("partly-bad", app="/partly").start()
    await place.applied(await place.publish(bad.member()))

    async def put_aside() -> bool:
        await asyncio.gather(*(place.ask("partly.example") for _ in range(10)))
        return await place.servers("marathon:/partly") == {bad.id: "aside", good.id: "ready"}

    await eventually("the failing one is put aside", put_aside, within_s=30)
    before = len(bad.seen)
    assert {200} == {(await place.ask("partly.example"))[0] for _ in range(10)}
    assert before == len(bad.seen)

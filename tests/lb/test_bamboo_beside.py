"""What runs beside Bamboo's API: its counters by UDP, and Marathon's word on what apps are made of."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from fairlead_lb import metrics
from fairlead_lb.bamboo import marathon
from fairlead_lb.bamboo.book import Book
from fairlead_lb.bamboo.statsd import StatsD
from harness.ports import free_port
from harness.waiting import eventually


class Lines(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def datagram_received(self, data: bytes, _address: object) -> None:
        self.seen.append(data.decode())


@pytest.fixture
async def listener() -> AsyncIterator[tuple[Lines, int]]:
    transport, lines = await asyncio.get_running_loop().create_datagram_endpoint(Lines, local_addr=("127.0.0.1", 0))
    yield lines, transport.get_extra_info("sockname")[1]
    transport.close()


async def test_bamboos_counters_go_by_their_old_names(listener: tuple[Lines, int]):
    """Callbacks, changed rules, reloads; a change that needed none counts as skipped, as before."""
    lines, port = listener
    revision = [1]
    told = StatsD(f"127.0.0.1:{port}", "b.")
    running = asyncio.create_task(told.run(lambda: revision[0]))

    async def has(line: str) -> None:
        async def probe() -> bool:
            return line in lines.seen

        await eventually(line, probe, within_s=15)

    await has("b.restart:1|c")
    told.count("callback.marathon")
    await has("b.callback.marathon:1|c")
    revision[0] = 2
    await has("b.haproxy.reload.skipped:1|c")
    metrics.RELOADS.labels("done").inc()
    metrics.APPLY.observe(0.02)
    await has("b.haproxy.reload.marathon.reloaded:1|c")
    metrics.RELOADS.labels("refused").inc()
    await has("b.haproxy.reload.error:1|c")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert any(line.startswith("b.haproxy.reload.marathon.duration:") and line.endswith("|ms") for line in lines.seen)


async def test_the_first_marathon_that_answers_says_what_apps_are_made_of():
    """Others may be away; what is no answer of Marathon's changes nothing."""
    apps = [{"id": "/a", "env": {"X": "1"}}]

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"apps": apps})

    app = web.Application()
    app.router.add_get("/v2/apps", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    book = Book("marathon", lambda _snapshot: None)
    places = marathon.endpoints(f"http://127.0.0.1:{free_port()}, http://127.0.0.1:{port}/")
    running = asyncio.create_task(marathon.follow(places, book))

    async def known() -> bool:
        return bool(book.definitions)

    await eventually("it is asked", known, within_s=15)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await runner.cleanup()

    assert {"/a": {"id": "/a", "env": {"X": "1"}}} == book.definitions

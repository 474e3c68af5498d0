"""marathon-lb's blue and green on a real HAProxy: one backend, no reload, and what `zdd.py` reads of it."""

import asyncio
import contextlib
import csv
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from fairlead_discovery.decisions import colours, labels
from fairlead_discovery.records import Check, Member, Route, RoutePort
from harness.balancer import Balancer, Task, balancer, fetch
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "web.example"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=1) as made:
        yield made


def colour(place: Balancer, name: str, started: int) -> Route:
    """As the service scheduler writes it."""
    given = {
        "HAPROXY_0_PORT": str(place.first_port),
        "HAPROXY_0_VHOST": HOST,
        colours.GROUP: "web",
        colours.COLOUR: name,
        colours.STARTED_AT: f"2026-11-20T10:00:0{started}",
        colours.TARGET: "2",
    }
    port = RoutePort(index=0, mode="http", check=Check(path="/health", interval_s=1))
    made, problems = labels.route_of(f"marathon:/web-{name}", given, (port,), app=f"/web-{name}")
    assert not problems
    return made


async def tasks(name: str, count: int) -> list[Task]:
    return [await Task(f"{name}{n}", app=f"/web-{name}").start() for n in range(1, count + 1)]


def members(there: Sequence[Task]) -> list[Member]:
    return [task.member() for task in there]


class Zdd:
    """The eyes of marathon-lb's zdd.py: its columns, its names, its idea of who is up and who is drained."""

    def __init__(self, place: Balancer, label: str) -> None:
        self._place = place
        self._label = label

    async def listeners(self) -> list[dict[str, str]]:
        rows = (await fetch(self._place.admin, "/haproxy?stats;csv"))[1].splitlines()
        heads = rows.pop(0).lstrip("# ").rstrip(",\n").split(",")
        found = [dict(zip(heads, row[:-1], strict=True)) for row in csv.reader(rows, quotechar="'") if row[0][0] != "#"]
        return [r for r in found if r["pxname"] == self._label and r["svname"] not in ("BACKEND", "FRONTEND")]

    async def up(self) -> set[str]:
        return {r["svname"] for r in await self.listeners() if r["status"] == "UP"}

    async def listed(self) -> set[str]:
        return {r["svname"] for r in await self.listeners()}

    async def drained(self) -> set[str]:
        idle = [r for r in await self.listeners() if not int(r["qcur"] or 0) and not int(r["scur"] or 0)]
        return {r["svname"] for r in idle if r["status"] == "MAINT"}


def called(task: Task) -> str:
    return f"127_0_0_1_{task.port}"


async def test_green_takes_over_from_blue_without_a_reload_or_a_lost_request(place: Balancer):
    """Step by step, as zdd.py does it: as many blue ones rest as green ones came, also after `fairlead lb` was killed."""
    blue, green = await tasks("blue", 2), await tasks("green", 2)
    await place.applied(await place.publish(*members(blue), routes=[colour(place, "blue", 1)]))
    zdd = Zdd(place, f"web_{place.first_port}")
    await eventually("both are up", lambda: _same(zdd.up, {called(t) for t in blue}))
    before = (await place.status())["haproxy"]["generation"]
    answers: list[tuple[int, str]] = []
    async with _asking(place, answers):
        await place.applied(await place.publish(green[0].member(), routes=[colour(place, "green", 2)]))
        await eventually("one blue rests", lambda: _same(zdd.drained, {called(blue[0])}))
        await eventually("two are up", lambda: _same(zdd.up, {called(blue[1]), called(green[0])}))
        await place.kill_daemon()
        await place.start()
        await eventually("it still rests", lambda: _same(zdd.drained, {called(blue[0])}))
        group = (await place.status())["groups"]
        await place.leave(blue[0].member())
        await place.applied(await place.publish(green[1].member()))
        await eventually("the other rests", lambda: _same(zdd.drained, {called(blue[1])}))
        await place.applied(await place.leave(blue[1].member()))
        await eventually("green alone", lambda: _same(zdd.listed, {called(t) for t in green}))
    after = (await place.status())["haproxy"]["generation"]

    assert {"marathon:/web": {"services": ["marathon:/web-blue", "marathon:/web-green"], "drained": ["blue1"]}} == group
    assert {200} == {status for status, _ in answers}
    assert {"blue1", "blue2", "green1", "green2"} == {who for _, who in answers}
    assert before == after


async def _same(read: Callable[[], Awaitable[set[str]]], expected: set[str]) -> bool:
    return await read() == expected


@contextlib.asynccontextmanager
async def _asking(place: Balancer, answers: list[tuple[int, str]]) -> AsyncIterator[None]:
    """A client that asks all the time, by host."""

    async def ask() -> None:
        while True:
            answers.append(await place.ask(HOST))
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        assert not asking.done()
        asking.cancel()

"""Who comes to a running balancer, and how: other people's registrations, more than it had room for, those that flap.

And what a service opts in to: a POST that is repeated.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fairlead_discovery.announce import Announcer
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.announcements import Bridge
from fairlead_discovery.decisions.foreign_nodes import WRITERS, Endpoint
from fairlead_discovery.records import Reason
from fairlead_lb import settings
from fairlead_lb.decisions import pace
from fairlead_lb.decisions.flapping import FlapLimits
from harness.balancer import Balancer, Task, balancer, member, route
from harness.clients import Clients
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"


async def reloads(place: Balancer) -> int:
    return int((await place.status())["reloads"])


# --- bridged registrations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["nerve", "nerve-base64", "curator"])
async def test_who_registers_for_smartstack_or_curator_is_served_at_once(short_dir: Path, form: str):
    """Bridged, routed, balanced; the next instance joins, a node that is gone gets nothing more. No reload."""
    async with balancer(short_dir, spare_backends=2) as place, _bridged(place, form) as folder:
        before = await reloads(place)
        tasks = [await Task(f"t{n}").start() for n in range(2)]
        nodes = [
            (f"/f/{name}", data) for name, data in (WRITERS[form](Endpoint(host="127.0.0.1", port=t.port, id=t.id), "web") for t in tasks)
        ]  # fmt: skip
        assert all(path.startswith(folder) for path, _ in nodes)
        await place.registry.write(*nodes[0])
        await eventually("the first is served", lambda: _answering(place, {"t0"}))
        await place.registry.write(*nodes[1])
        await eventually("both are served", lambda: _answering(place, {"t0", "t1"}))
        await place.registry.remove(nodes[0][0])
        await eventually("the second alone", lambda: _answering(place, {"t1"}))

        assert before == await reloads(place)


@contextlib.asynccontextmanager
async def _bridged(place: Balancer, form: str) -> AsyncIterator[str]:
    folder = "/f/web" if form == "curator" else "/f"
    registry = await open_registry(place.url)
    labels = {"HAPROXY_0_VHOST": HOST}
    bridge = Bridge(name="web", framework="smartstack", format=form, path=folder, labels=labels)  # type: ignore[arg-type]  # one of its words
    running = asyncio.create_task(Announcer(registry, (), [bridge]).run())
    try:
        yield folder
    finally:
        running.cancel()
        await asyncio.wait([running])
        await registry.close()


async def _answering(place: Balancer, wanted: set[str]) -> bool:
    found = [await place.ask(HOST) for _ in range(4)]
    return [{200}, wanted] == [{status for status, _ in found}, {who for _, who in found}]


# --- room ------------------------------------------------------------------------------------------------------------


async def test_slots_grow_before_they_are_full(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """One reload in time, when few are left; those who then come at once find room. Nobody's request fails."""
    monkeypatch.setattr(pace, "LEFTOVER_S", 0.5)
    async with balancer(short_dir, spare_backends=0) as place:
        task = await Task("t").start()
        await place.applied(await place.publish(task.member(), routes=[route(vhosts=(HOST,))]))
        room, before = (await place.status())["services"][0]["slots"], await reloads(place)
        more = [member(f"more{n}", task.port) for n in range(room - 2)]
        async with Clients(place.settings.http_port, HOST, count=2) as clients:
            await place.applied(await place.publish(*more))
            await eventually("there is room again", lambda: _room(place, 2 * room - 2), within_s=20)
            grown = await reloads(place)
            await place.applied(await place.publish(*(member(f"last{n}", task.port) for n in range(room))))

        assert (before + 1, grown) == (grown, await reloads(place))
        assert [] == clients.failures


async def _room(place: Balancer, least: int) -> bool:
    return int((await place.status())["services"][0]["slots"]) >= least


# --- who comes and goes ----------------------------------------------------------------------------------------------


async def test_an_endpoint_that_flaps_is_held_down_for_a_while(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """It dies for the second time within the window: back again, it waits; the other serves. Then it is served anew."""
    monkeypatch.setattr(settings, "FlapLimits", partial(FlapLimits, hold_s=5.0))
    async with balancer(short_dir, flaps=2) as place:
        steady, flapping = await Task("steady").start(), await Task("flapping").start()
        both = {"steady", "flapping"}
        await place.applied(await place.publish(steady.member(), flapping.member(), routes=[route(vhosts=(HOST,))]))
        for _ in range(2):
            await eventually("both serve", lambda: _answering(place, both))
            await place.applied(await place.leave(flapping.member(), reason=Reason.DEAD))
            await place.gone("flapping")
            await place.applied(await place.publish(flapping.member()))
        rails = (await place.status())["rails"]
        held = [await place.ask(HOST) for _ in range(6)]

        assert ["marathon:/shop/web"] == list(rails["held_down_for_s"])
        assert [(200, "steady")] * 6 == held
        await eventually("both serve again", lambda: _answering(place, both), within_s=20)
        assert {} == (await place.status())["rails"]["held_down_for_s"]


# --- repeated, by choice ---------------------------------------------------------------------------------------------


class Dropping:
    """Executes whatever it is asked; the first time it says nothing of it, and closes."""

    def __init__(self) -> None:
        self.executed: list[str] = []
        self.port = 0

    async def start(self) -> "Dropping":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            what = " ".join((await reader.readuntil(b"\r\n\r\n")).decode().split()[:2])
            self.executed.append(what)
            if self.executed.count(what) > 1:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
        writer.close()


async def test_four_posts_are_executed_twice_with_the_opt_in_and_never_without(short_dir: Path):
    """GETs are repeated anyway; a POST whose answer got lost is told as 502, and is the client's to repeat."""
    async with balancer(short_dir) as place:
        server = await Dropping().start()

        async def posted(name: str, **port: Any) -> tuple[list[int], list[int]]:
            """Statuses of four, and how often each was executed."""
            here = [route(vhosts=(HOST,), **port)]
            await place.applied(await place.publish(member("t", server.port), routes=here))
            paths = [f"/{name}{n}" for n in range(4)]
            found = [await _post(place, path) for path in paths]
            return found, [server.executed.count(f"POST {path}") for path in paths]

        assert ([502] * 4, [1] * 4) == await posted("plain")
        assert ([200] * 4, [2] * 4) == await posted("chosen", retry_non_idempotent=True)
        assert ([502] * 4, [1] * 4) == await posted("again")
        assert 200 == (await place.ask(HOST, "/get"))[0]
        assert 2 == server.executed.count("GET /get")


async def _post(place: Balancer, path: str) -> int:
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi".encode()
        )
        head = await reader.read(-1)
        writer.close()
    return int(head.split()[1])

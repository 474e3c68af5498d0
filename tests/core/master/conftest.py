"""A real master in this process: real HTTP on a free port, the registry in memory."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import aiohttp
import pytest

from fairlead_core import agent_protocol
from fairlead_core.master import seat
from fairlead_core.master.daemon import MasterSettings, run
from fairlead_core.master.decisions import allocation, life
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions import leaving
from fairlead_discovery.registry import Registry, Sight
from harness import sim_agent
from harness.ports import free_port
from harness.waiting import eventually


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that the tables show in full are cut short, so that the suite is quick."""
    monkeypatch.setattr(life, "DEAD_RECORD_S", 0.3)
    monkeypatch.setattr(leaving, "TTL_MARGIN_S", 0.2)
    monkeypatch.setattr(allocation, "ALLOCATION_INTERVAL_S", 0.25)
    monkeypatch.setattr(allocation, "SAT_ON_S", 0.25)
    monkeypatch.setattr(seat, "NO_LEADER_HOLD_S", 0.3)
    monkeypatch.setattr(sim_agent, "RESEND_S", 0.3)
    monkeypatch.setattr(agent_protocol, "BEAT_S", 0.2)


class RunningMaster:
    """`await stop()` ends it in order; `crash()` as if the process were gone, its session too."""

    def __init__(self, registry_url: str, session: aiohttp.ClientSession, **settings: object) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.session = session
        self.settings = MasterSettings(registry=registry_url, port=port, token="off", **settings)
        self.context = Context(name="master", log=Log("master"))
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, wait: bool = True) -> "RunningMaster":
        self.context.stop.clear()
        self._task = asyncio.create_task(run(self.settings, self.context))
        if wait:
            await eventually("master ready", self.is_ready, within_s=8, every_s=0.01)
        return self

    async def is_ready(self) -> bool:
        if self._task is not None and self._task.done():
            self._task.result()
        async with self.session.get(self.url + "/ready") as response:
            return response.status == 200

    async def stop(self) -> None:
        self.context.stop.set()
        if self._task is not None:
            async with asyncio.timeout(10):
                await self._task
            self._task = None

    async def crash(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def get(self, path: str) -> dict:
        async with self.session.get(self.url + path) as response:
            return await response.json()

    async def operate(self, kind: str, **body: object) -> tuple[int, dict]:
        async with self.session.post(self.url + "/api/v1", json={"type": kind, **body}) as response:
            return response.status, await response.json() if response.content_length else {}


class Tree:
    """What stands in the clocked tree, followed by a reader of its own; `seen` is every sight so far."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.sight = Sight(in_sight=False)
        self.seen: list[Sight] = []
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for sight in self.registry.watch():
            self.sight = sight
            self.seen.append(sight)

    def folder(self, path: str) -> dict[str, bytes]:
        return dict(self.sight.folders.get(path) or {})

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self.registry.close()


@pytest.fixture
def registry_url() -> str:
    return f"memory:{uuid.uuid4()}"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


@pytest.fixture
async def make_master(
    registry_url: str, session: aiohttp.ClientSession, hasty: None
) -> AsyncIterator[Callable[..., RunningMaster]]:
    made: list[RunningMaster] = []

    def make(**settings: object) -> RunningMaster:
        master = RunningMaster(registry_url, session, **settings)
        made.append(master)
        return master

    yield make
    for master in made:
        await master.stop()


@pytest.fixture
async def master(make_master: Callable[..., RunningMaster]) -> RunningMaster:
    return await make_master().start()


@pytest.fixture
async def tree(registry_url: str) -> AsyncIterator[Tree]:
    opened = Tree(await open_registry(registry_url))
    yield opened
    await opened.close()

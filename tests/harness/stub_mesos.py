"""A small real server with Mesos' v1 scheduler API: it offers and updates as a test says, and notes every call.

It knows its tasks as a master does: what was launched, in which state, answered on RECONCILE; by itself it starts
(`runs`) and ends (`kills`) them at once, and takes back what a kill or an end leaves free.
"""

import asyncio
import itertools
import time
import uuid
from base64 import b64encode
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from fairlead_core.recordio import frame
from harness.ports import free_port
from harness.waiting import eventually

Call = dict[str, Any]


class StubMesos:
    """Agents with `cpus`, `mem` and a port range; offers are made whole, at SUBSCRIBE, REVIVE and `offer()`."""

    def __init__(self, *, agents: int = 2, cpus: float = 8.0, mem: float = 8192.0, runs: bool = True) -> None:
        self.port = free_port()
        self.calls: list[Call] = []
        self.runs = runs
        self.kills = True
        self.heals: bool | None = True
        """What a started task's health is reported as, when it has a check."""
        self.offers_on = True
        self.agents = {f"S{n}": {"cpus": cpus, "mem": mem, "low": 31000 + 1000 * n} for n in range(agents)}
        self.unavailable: dict[str, float] = {}
        self.tasks: dict[str, Call] = {}
        """TaskInfo of every task that has not ended."""
        self.states: dict[str, str] = {}
        self.healthy: dict[str, bool | None] = {}
        self.ended: dict[str, str] = {}
        self.most_alive = 0
        self.frameworks: list[str] = []
        self.unacknowledged: set[str] = set()
        self.leader_elsewhere = ""
        self.refuse_with = 0
        self._numbers = itertools.count(1)
        self._open: dict[str, str] = {}
        self._stream: web.StreamResponse | None = None
        self._stream_id = ""
        self._suppressed = False
        self._runner: web.AppRunner | None = None

    # --- life

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/api/v1/scheduler", self._on_call)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    # --- the test's side

    def of(self, kind: str) -> list[Call]:
        return [call for call in self.calls if call["type"] == kind]

    async def called(self, kind: str, fits: Callable[[Call], bool] = lambda _c: True, *, count: int = 1) -> Call:
        """The latest such call, once there were `count`."""

        async def probe() -> Call | None:
            found = [c for c in self.of(kind) if fits(c)]
            return found[-1] if len(found) >= count else None

        found = await eventually(f"{count} {kind}", probe)
        assert found is not None
        return found

    async def send(self, event: Call) -> None:
        assert self._stream is not None
        await self._stream.write(frame(msgspec.json.encode(event)))

    async def offer(self, *agents: str) -> None:
        """Everything free on these agents (all by default), unless it is offered already."""
        made = []
        for agent in agents or tuple(self.agents):
            free = self._free(agent)
            if agent not in self._open.values() and free["cpus"] >= 0.01:
                offer_id = f"O{next(self._numbers)}"
                self._open[offer_id] = agent
                made.append(self._offer(offer_id, agent, free))
        if made and self._stream is not None:
            await self.send({"type": "OFFERS", "offers": {"offers": made}})

    async def update(self, task_id: str, state: str, **more: Any) -> None:
        """As an agent would report; an ending state takes the task away."""
        task = self.tasks.get(task_id)
        self.states[task_id] = state
        if "healthy" in more:
            self.healthy[task_id] = more["healthy"]
        if state in ENDED and self.tasks.pop(task_id, None) is not None:
            self.ended[task_id] = state
        if self._stream is None:
            return
        mark = b64encode(uuid.uuid4().bytes).decode()
        self.unacknowledged.add(mark)
        agent = task["agent_id"] if task is not None else {"value": "S0"}
        status = {"task_id": {"value": task_id}, "agent_id": agent, "state": state, "uuid": mark, **more}
        await self.send({"type": "UPDATE", "update": {"status": {"timestamp": time.time(), **status}}})

    async def drain(self, agent: str) -> None:
        """No more offers of it; an inverse offer to the framework."""
        self.unavailable[agent] = 1.0
        for offer_id in [o for o, a in self._open.items() if a == agent]:
            del self._open[offer_id]
            await self.send({"type": "RESCIND", "rescind": {"offer_id": {"value": offer_id}}})
        inverse = {
            "id": {"value": f"I-{agent}"},
            "framework_id": {"value": "F"},
            "agent_id": {"value": agent},
            "unavailability": {"start": {"nanoseconds": 1}},
        }
        await self.send({"type": "INVERSE_OFFERS", "inverse_offers": {"inverse_offers": [inverse]}})

    def disconnect(self) -> None:
        """Cuts the event stream, as a dying master does."""
        stream, self._stream = self._stream, None
        if stream is not None and stream._req is not None and stream._req.transport is not None:
            stream._req.transport.abort()

    def of_app(self, name: str) -> list[str]:
        return sorted(t for t in self.tasks if t.startswith(f"{name}.instance-"))

    def agent_of(self, task_id: str) -> str:
        return str(self.tasks[task_id]["agent_id"]["value"])

    # --- the master's side

    async def _on_call(self, request: web.Request) -> web.StreamResponse:
        call = msgspec.json.decode(await request.read())
        self.calls.append(call)
        if self.leader_elsewhere:
            location = f"//{self.leader_elsewhere}/api/v1/scheduler"
            return web.Response(status=307, headers={"Location": location})
        if self.refuse_with:
            return web.Response(status=self.refuse_with, text="as the test says")
        if call["type"] == "SUBSCRIBE":
            return await self._subscribe(request, call)
        if request.headers.get("Mesos-Stream-Id") != self._stream_id:
            return web.Response(status=400, text="wrong stream id")
        await self._act(call)
        return web.Response(status=202)

    async def _subscribe(self, request: web.Request, call: Call) -> web.StreamResponse:
        framework = (call.get("framework_id") or {}).get("value") or f"F{len(self.frameworks)}"
        self.frameworks.append(framework)
        self.disconnect()
        self._stream_id, self._suppressed = str(uuid.uuid4()), False
        self._open.clear()
        stream = web.StreamResponse(headers={"Mesos-Stream-Id": self._stream_id})
        stream.enable_chunked_encoding()
        await stream.prepare(request)
        self._stream = stream
        told = {"framework_id": {"value": framework}, "heartbeat_interval_seconds": 15.0}
        await self.send({"type": "SUBSCRIBED", "subscribed": told})
        await self.send({"type": "HEARTBEAT"})
        if self.offers_on:
            await self.offer()
        try:
            await asyncio.Event().wait()
        finally:
            if self._stream is stream:
                self._stream = None
        return stream

    async def _act(self, call: Call) -> None:
        match call["type"]:
            case "ACCEPT":
                await self._accept(call["accept"])
            case "DECLINE":
                for one in call["decline"]["offer_ids"]:
                    self._open.pop(one["value"], None)
            case "REVIVE":
                self._suppressed = False
                if self.offers_on:
                    await self.offer()
            case "SUPPRESS":
                self._suppressed = True
            case "KILL":
                await self._kill(call["kill"]["task_id"]["value"])
            case "ACKNOWLEDGE":
                self.unacknowledged.discard(call["acknowledge"]["uuid"])
            case "RECONCILE":
                await self._reconcile(call["reconcile"]["tasks"])

    async def _accept(self, accept: Call) -> None:
        known = all(o["value"] in self._open for o in accept["offer_ids"])
        for one in accept["offer_ids"]:
            self._open.pop(one["value"], None)
        for info in (i for op in accept["operations"] for i in op["launch"]["task_infos"]):
            task_id = info["task_id"]["value"]
            if not known:
                lost = {"task_id": info["task_id"], "state": "TASK_DROPPED", "reason": "REASON_INVALID_OFFERS"}
                await self.send({"type": "UPDATE", "update": {"status": lost}})
                continue
            assert task_id not in self.tasks, "a task was launched twice"
            assert task_id not in self.ended, "a task id was used again"
            self.tasks[task_id], self.states[task_id] = info, "TASK_STAGING"
            self.most_alive = max(self.most_alive, len(self.tasks))
            if self.runs:
                await self.start(task_id)

    async def start(self, task_id: str) -> None:
        await self.update(task_id, "TASK_STARTING")
        await self.update(task_id, "TASK_RUNNING")
        if "health_check" in self.tasks.get(task_id, {}) and self.heals is not None:
            await self.update(task_id, "TASK_RUNNING", healthy=self.heals)

    async def _kill(self, task_id: str) -> None:
        if task_id not in self.tasks:
            await self._answer(task_id)
        elif self.kills:
            await self.update(task_id, "TASK_KILLING")
            await self.update(task_id, "TASK_KILLED")

    async def _reconcile(self, asked: list[Call]) -> None:
        for task_id in [t["task_id"]["value"] for t in asked] or list(self.tasks):
            await self._answer(task_id)

    async def _answer(self, task_id: str) -> None:
        task = self.tasks.get(task_id)
        status: Call = {
            "task_id": {"value": task_id},
            "state": self.states[task_id] if task else "TASK_GONE",
            "reason": "REASON_RECONCILIATION",
        }
        if task is not None:
            status["agent_id"] = task["agent_id"]
            if self.healthy.get(task_id) is not None:
                status["healthy"] = self.healthy[task_id]
        if self._stream is not None:
            await self.send({"type": "UPDATE", "update": {"status": status}})

    def _free(self, agent: str) -> dict[str, float]:
        used = [t for t in self.tasks.values() if t["agent_id"]["value"] == agent]
        total = self.agents[agent]
        return {name: total[name] - sum(_scalar(t, name) for t in used) for name in ("cpus", "mem")}

    def _offer(self, offer_id: str, agent: str, free: dict[str, float]) -> Call:
        low = int(self.agents[agent]["low"])
        offer: Call = {
            "id": {"value": offer_id},
            "framework_id": {"value": "F"},
            "agent_id": {"value": agent},
            "hostname": f"host-{agent}",
            "allocation_info": {"role": "*"},
            "attributes": [{"name": "rack", "type": "TEXT", "text": {"value": f"r{agent[-1]}"}}],
            "resources": [
                *({"name": n, "type": "SCALAR", "scalar": {"value": v}, "role": "*"} for n, v in free.items()),
                {
                    "name": "ports",
                    "type": "RANGES",
                    "ranges": {"range": [{"begin": low, "end": low + 99}]},
                    "role": "*",
                },
            ],
        }
        if agent in self.unavailable:
            offer["unavailability"] = {"start": {"nanoseconds": int(self.unavailable[agent] * 1e9)}}
        return offer


ENDED = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_GONE"})


def _scalar(task: Call, name: str) -> float:
    return sum(r["scalar"]["value"] for r in task["resources"] if r["name"] == name)

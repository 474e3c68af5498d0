"""A small real server with a Mesos master's /master/state: what it says, whom it redirects to, whom it lets in."""

import asyncio
import json
import ssl
from base64 import b64encode
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from harness.ports import free_port


class MesosPages:
    """`tasks` by name -> agent's number. `down` refuses everything with 503; `leader` redirects there."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.tls = tls
        """With it the pages are there over HTTPS only."""
        self.tasks: dict[str, int] = {}
        self.scheduler = 1
        """On which agent the framework's scheduler is."""
        self.recovering = False
        self.down = False
        self.leader = ""
        self.wants = ""
        """`principal:secret`, or "" for anybody."""
        self.old = False
        """Whether only /master/state.json is there."""
        self.asked = 0
        self.speaks = False
        """Whether it tells of changes."""
        self._listeners: list[asyncio.Queue[str]] = []
        self._runner: web.AppRunner | None = None

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/master/state{ending:.*}", self._state)
        app.router.add_post("/api/v1", self._events)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        async with asyncio.timeout(10):
            await self._runner.cleanup()

    async def _state(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.down:
            return web.Response(status=503)
        if self.wants and request.headers.get("Authorization") != f"Basic {b64encode(self.wants.encode()).decode()}":
            return web.Response(status=401)
        if self.old != (request.match_info["ending"] == ".json"):
            return web.Response(status=404)
        if self.leader:
            return web.Response(status=307, headers={"Location": f"//{self.leader}/master/state"})
        return web.json_response(self.page())

    def tell(self, kind: str) -> None:
        """One event to all that listen."""
        for queue in self._listeners:
            queue.put_nowait(kind)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """The operator API's stream: a record is its length, a line feed and JSON."""
        if not self.speaks:
            return web.Response(status=404)
        assert {"type": "SUBSCRIBE"} == await request.json()
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.append(queue)
        queue.put_nowait("SUBSCRIBED")
        while True:
            record = json.dumps({"type": await queue.get()}).encode()
            await response.write(b"%d\n%s" % (len(record), record))

    def page(self) -> dict[str, Any]:
        agents = [{"id": f"S{n}", "hostname": f"box{n}", "pid": f"slave(1)@10.0.0.{n}:5051"} for n in range(1, 4)]
        tasks = [
            {
                "id": f"{name}.1",
                "name": name,
                "slave_id": f"S{number}",
                "state": "TASK_RUNNING",
                "statuses": [{"state": "TASK_RUNNING", "timestamp": 1.0}],
                "resources": {"ports": "[31000-31000]"},
            }
            for name, number in self.tasks.items()
        ]
        return {
            "leader": f"master@{self.place}",
            "slaves": agents,
            "recovered_slaves": [{"id": "S9"}] if self.recovering else [],
            "frameworks": [
                {"id": "f", "name": "marathon", "pid": f"scheduler(1)@10.0.0.{self.scheduler}:8080", "tasks": tasks}
            ],
        }

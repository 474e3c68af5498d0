"""A small real server that speaks the master's side of agent_protocol: it sends what a test says, and notes all it gets."""

import asyncio
import itertools
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from fairlead_core.agent_protocol import (
    IDENTITY_PATH,
    REPORTS_PATH,
    STREAM_PATH,
    Acknowledge,
    Command,
    ExecutorEnded,
    ExecutorMessage,
    Goodbye,
    IdentityRequest,
    Kill,
    Ping,
    Register,
    Registered,
    Reports,
    Run,
    Update,
)
from fairlead_core.recordio import frame
from fairlead_discovery.authority import Authority
from harness.ports import free_port
from harness.waiting import eventually

PING_EVERY_S = 0.5
FRAMEWORK: Mapping[str, Any] = {"id": {"value": "F"}, "name": "test", "user": "root"}
_numbers = itertools.count(1)


class StubMaster:
    """`acknowledge` False keeps updates unacknowledged; `take` False answers reports with 503."""

    def __init__(self, *, port: int = 0, epoch: int = 1) -> None:
        self.port = port or free_port()
        self.epoch = epoch
        self.acknowledge = True
        self.take = True
        self.ping = True
        self.registers: list[Register] = []
        self.updates: list[Update] = []
        """As they came, repetitions included."""
        self.others: list[ExecutorMessage | ExecutorEnded] = []
        self.goodbyes = 0
        self.reports_seen = 0
        self.redirect = ""
        self.stream_status = 200
        self.authority: Authority | None = None
        """Who signs for tasks; None as if it were away."""
        self.asked: list[IdentityRequest] = []
        self.agent_id = f"M-S{next(_numbers)}"
        self._stream: web.StreamResponse | None = None
        self._stream_id = 0
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post(STREAM_PATH, self._open)
        app.router.add_post(REPORTS_PATH, self._reports)
        app.router.add_post(IDENTITY_PATH, self._identity)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    # --- the server --------------------------------------------------------------------------------------------------

    async def _open(self, request: web.Request) -> web.StreamResponse:
        if self.redirect:
            return web.Response(status=307, headers={"Location": f"//{self.redirect}{STREAM_PATH}"})
        if self.stream_status != 200:
            return web.Response(status=self.stream_status, text="as the test wants it")
        register = msgspec.json.decode(await request.read(), type=Register)
        self.registers.append(register)
        self.agent_id = register.agent_id or self.agent_id
        self._stream_id += 1
        mine = self._stream_id
        stream = web.StreamResponse()
        await stream.prepare(request)
        self._stream = stream
        await self.say(Registered(agent_id=self.agent_id, stream_id=str(mine), epoch=self.epoch, master_id="M"), stream)
        while self._stream_id == mine:
            await asyncio.sleep(PING_EVERY_S)
            if self.ping:
                await self.say(Ping(epoch=self.epoch), stream)
        return stream

    async def _reports(self, request: web.Request) -> web.Response:
        if not self.take:
            return web.Response(status=503)
        batch = msgspec.json.decode(await request.read(), type=Reports)
        if batch.stream_id != str(self._stream_id):
            return web.Response(status=409)
        self.reports_seen += 1
        for report in batch.reports:
            if isinstance(report, Update):
                self.updates.append(report)
                if self.acknowledge:
                    await self.acknowledge_update(report)
            if isinstance(report, ExecutorMessage | ExecutorEnded):
                self.others.append(report)
            self.goodbyes += isinstance(report, Goodbye)
        return web.Response(status=202)

    async def _identity(self, request: web.Request) -> web.Response:
        """A task's service is `test:<task id>`."""
        asked = msgspec.json.decode(await request.read(), type=IdentityRequest)
        self.asked.append(asked)
        if self.authority is None:
            return web.json_response({"message": "identity authority: connection refused"}, status=503)
        issued = await self.authority.issue(f"test:{asked.task_id}", asked.csr)
        told = {"spiffe_id": issued.spiffe_id, "chain": issued.chain, "not_after_s": issued.not_after_s}
        return web.json_response({**told, "bundle": self.authority.bundle()})

    # --- what a test does --------------------------------------------------------------------------------------------

    async def say(self, command: Command, stream: web.StreamResponse | None = None) -> None:
        target = stream or self._stream
        assert target is not None, "no agent has registered"
        await target.write(frame(msgspec.json.encode(command)))

    async def acknowledge_update(self, update: Update) -> None:
        task_id = update.status["task_id"]["value"]
        await self.say(
            Acknowledge(epoch=self.epoch, framework_id=update.framework_id, task_id=task_id, uuid=update.status["uuid"])
        )

    async def run(
        self, task_id: str, command: str | Mapping[str, Any] | None = "", *, epoch: int | None = None, **more: Any
    ) -> None:
        """RUN of a shell command or CommandInfo; `framework` and any key of TaskInfo may be given."""
        framework = more.pop("framework", FRAMEWORK)
        task = {
            "name": task_id,
            "task_id": {"value": task_id},
            "agent_id": {"value": self.agent_id},
            "command": {"value": command} if isinstance(command, str) else command,
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}],
            **more,
        }
        await self.say(Run(epoch=self.epoch if epoch is None else epoch, framework=framework, task=task))

    async def kill(self, task_id: str, *, grace_s: float = 1.0, epoch: int | None = None) -> None:
        await self.say(
            Kill(epoch=self.epoch if epoch is None else epoch, framework_id="F", task_id=task_id, grace_s=grace_s)
        )

    def statuses(self, task_id: str) -> list[Mapping[str, Any]]:
        """Of a task, in order, each uuid once."""
        out: dict[str, Mapping[str, Any]] = {}
        for update in self.updates:
            if update.status["task_id"]["value"] == task_id:
                out.setdefault(update.status["uuid"], update.status)
        return list(out.values())

    def states(self, task_id: str) -> list[str]:
        return [s["state"] for s in self.statuses(task_id)]

    async def until(self, task_id: str, state: str, *, within_s: float = 10.0) -> Mapping[str, Any]:
        """The first status of that state."""

        async def seen() -> Mapping[str, Any] | None:
            found = next((s for s in self.statuses(task_id) if s["state"] == state), None)
            assert found is not None, self.statuses(task_id)
            return found

        found = await eventually(f"{task_id} is {state}", seen, within_s=within_s)
        assert found is not None
        return found

    async def registered(self, times: int = 1, *, within_s: float = 10.0) -> Register:
        async def enough() -> bool:
            return len(self.registers) >= times

        await eventually(f"registered {times} times", enough, within_s=within_s)
        return self.registers[-1]

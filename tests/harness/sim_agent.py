"""An agent without machines: it speaks fairlead_core.agent_protocol over real HTTP and runs nothing.

Tasks go STARTING -> RUNNING at once and stay until told (`finish`) or killed. Updates are sent again until
acknowledged, the next of a task only then, as a real agent does.
"""

import asyncio
import time
import uuid
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import msgspec

from fairlead_core import agent_protocol as protocol
from fairlead_core.recordio import Unframer
from fairlead_core.resources import parse, to_mesos

RESEND_S = 1.0
_command = msgspec.json.Decoder(protocol.Command)


@dataclass
class SimTask:
    framework_id: str
    info: Mapping[str, Any]
    status: dict[str, Any] = field(default_factory=dict)
    queue: deque[dict[str, Any]] = field(default_factory=deque)
    """Updates not acknowledged yet, the first is the one that is sent."""
    sent_s: float = 0.0


class SimAgent:
    """`silent` drops everything both ways, as a machine without a network; `url` is any master's."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        name: str = "sim",
        port: int = 5051,
        resources: str = "cpus:8;mem:8192;disk:1000;ports:[31000-32000]",
        states: tuple[str, ...] = ("TASK_STARTING", "TASK_RUNNING"),
        agent_id: str = "",
    ) -> None:
        self.session = session
        self.url = url
        self.name = name
        self.port = port
        self.resources = resources
        self.states = states
        self.agent_id = agent_id
        self.stream_id = ""
        self.epoch = 0
        self.tasks: dict[str, SimTask] = {}
        self.frameworks: dict[str, Mapping[str, Any]] = {}
        self.commands: list[protocol.Command] = []
        self.keep_commands = True
        self.kills_finish = True
        self.silent = False
        self.gone = False
        self.registered = asyncio.Event()
        self._outbox: list[protocol.Report] = []
        self._wake = asyncio.Event()
        self._jobs: list[asyncio.Task[None]] = []
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Self:
        self.start()
        async with asyncio.timeout(10):
            await self.registered.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._jobs = [loop.create_task(self._listen()), loop.create_task(self._speak())]

    async def stop(self) -> None:
        """Closes its stream, as an agent that is killed on a machine that lives."""
        for job in self._jobs:
            job.cancel()
        for job in self._jobs:
            with suppress(asyncio.CancelledError):
                await job
        self._jobs = []
        self.registered.clear()

    def goodbye(self) -> None:
        self._report(protocol.Goodbye())

    # --- tasks -----------------------------------------------------------------------------------------------------

    def update(self, task_id: str, state: str, **more: Any) -> None:
        """A new status of a task, queued behind those not acknowledged yet."""
        task = self.tasks[task_id]
        status = {
            "task_id": {"value": task_id},
            "agent_id": {"value": self.agent_id},
            "state": state,
            "source": "SOURCE_EXECUTOR",
            "timestamp": time.time(),
            "uuid": b64encode(uuid.uuid4().bytes).decode(),
            "container_status": {"network_infos": [{"ip_addresses": [{"ip_address": "127.0.0.1"}]}]},
            **more,
        }
        task.status = status
        task.queue.append(status)
        if len(task.queue) == 1:
            self._send_first(task)

    def finish(self, task_id: str, state: str = "TASK_FINISHED") -> None:
        self.update(task_id, state)

    def _send_first(self, task: SimTask) -> None:
        task.sent_s = time.monotonic()
        status = task.queue[0]
        self._report(protocol.Update(framework_id=task.framework_id, status=status, latest_state=task.status["state"]))

    def _report(self, report: protocol.Report) -> None:
        self._outbox.append(report)
        self._wake.set()

    def _take(self, command: protocol.Command) -> None:
        if self.keep_commands:
            self.commands.append(command)
        match command:
            case protocol.Run():
                self._run(command)
            case protocol.Kill():
                self._kill(command)
            case protocol.Acknowledge():
                self._acknowledge(command)
            case protocol.ShutdownFramework():
                for task_id in [i for i, t in self.tasks.items() if t.framework_id == command.framework_id]:
                    del self.tasks[task_id]
            case protocol.Gone():
                self.gone = True

    def _run(self, command: protocol.Run) -> None:
        task_id = command.task["task_id"]["value"]
        if task_id not in self.tasks:
            framework_id = command.framework["id"]["value"]
            self.frameworks[framework_id] = command.framework
            self.tasks[task_id] = SimTask(framework_id, command.task)
            for state in self.states:
                self.update(task_id, state)

    def _kill(self, command: protocol.Kill) -> None:
        if self.kills_finish and command.task_id in self.tasks:
            self.update(command.task_id, "TASK_KILLED")

    def _acknowledge(self, command: protocol.Acknowledge) -> None:
        task = self.tasks.get(command.task_id)
        if task is None or not task.queue or task.queue[0]["uuid"] != command.uuid:
            return
        done = task.queue.popleft()
        if task.queue:
            self._send_first(task)
        elif done["state"] in {"TASK_FINISHED", "TASK_KILLED", "TASK_FAILED", "TASK_LOST"}:
            del self.tasks[command.task_id]

    # --- the wire --------------------------------------------------------------------------------------------------

    def _state(self) -> protocol.Register:
        return protocol.Register(
            agent_id=self.agent_id,
            boot_id="boot-1",
            process_id="1",
            hostname=self.name,
            ip="127.0.0.1",
            port=self.port,
            resources=tuple(to_mesos(parse(self.resources))),
            frameworks=tuple(self.frameworks.values()),
            tasks=tuple(
                protocol.TaskState(framework_id=t.framework_id, task=t.info, status=t.status, acknowledged=not t.queue)
                for t in self.tasks.values()
            ),
            epoch=self.epoch,
        )

    async def _listen(self) -> None:
        while not self.gone:
            if not self.silent:
                with suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
                    await self._one_stream()
            self.stream_id = ""
            await asyncio.sleep(0.1)

    async def _one_stream(self) -> None:
        body = msgspec.json.encode(self._state())
        headers = {"Content-Type": "application/json"}
        async with self.session.post(
            self.url + protocol.STREAM_PATH, data=body, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
        ) as response:
            if response.status == 410:
                self.gone = True
            if response.status != 200:
                return
            unframer = Unframer()
            async for chunk in response.content.iter_any():
                if self.silent:
                    await asyncio.Event().wait()  # the machine is gone: nothing is closed
                for record in unframer.feed(chunk):
                    self._hear(_command.decode(record))

    def _hear(self, command: protocol.Command) -> None:
        if isinstance(command, protocol.Registered):
            self.agent_id, self.stream_id, self.epoch = command.agent_id, command.stream_id, command.epoch
            self.registered.set()
            for task in self.tasks.values():
                if task.queue:
                    self._send_first(task)
            self._wake.set()
        self._take(command)

    async def _speak(self) -> None:
        """A batch of reports when there is something to say, a beat every second."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(protocol.BEAT_S):
                    await self._wake.wait()
            self._wake.clear()
            if not self.stream_id or self.silent:
                continue
            self._resend()
            reports, self._outbox = (protocol.Beat(), *self._outbox), []
            with suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
                await self._post(reports)

    def _resend(self) -> None:
        now_s = time.monotonic()
        for task in self.tasks.values():
            if task.queue and now_s - task.sent_s > RESEND_S:
                self._send_first(task)

    async def _post(self, reports: tuple[protocol.Report, ...]) -> None:
        batch = protocol.Reports(agent_id=self.agent_id, stream_id=self.stream_id, reports=reports)
        async with self.session.post(
            self.url + protocol.REPORTS_PATH,
            data=msgspec.json.encode(batch),
            headers={"Content-Type": "application/json"},
        ) as response:
            await response.read()

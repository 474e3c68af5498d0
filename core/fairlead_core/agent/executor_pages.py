"""Mesos' executor API over HTTP: `POST /api/v1/executor`, also under `/slave(1)`.

Drivers know no token, so where one is on, the kernel says who calls: the executor's own user, or root.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from fairlead_core import bodies
from fairlead_core.agent.adapters.callers import owner_of
from fairlead_core.agent.decisions import executor_api, tasks
from fairlead_core.agent.executors import ExecutorRun
from fairlead_core.agent.keeper.protocol import AS_KEEPER
from fairlead_core.agent.roster import Roster
from fairlead_core.agent.world import World
from fairlead_core.agent_protocol import ExecutorMessage
from fairlead_core.recordio import frame
from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log
from fairlead_daemon.web import error_response

PATHS = ("/api/v1/executor", "/slave(1)/api/v1/executor")
HEARTBEAT_S = 15.0
log = Log("agent.executor")
_decoder: msgspec.json.Decoder[Mapping[str, Any]] = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorPages:
    world: World
    roster: Roster
    proof: bool
    """Whether callers must be who they say: the token setting is on."""

    def add_to(self, app: web.Application) -> None:
        for path in PATHS:
            app.router.add_post(path, self.call)

    async def call(self, request: web.Request) -> web.StreamResponse:
        try:
            call = tasks.read(executor_api.Call, bodies.decode(_decoder, await request.read()), place="call")
        except (msgspec.DecodeError, Refused, AttributeError) as error:
            return error_response(400, f"Failed to parse body into Call: {error}")
        if why := executor_api.refusal(call):
            return error_response(400, f"Failed to validate Executor::Call: {why}")
        executor = self.roster.executors.get(tasks.executor_key(call.framework_id.value, call.executor_id.value))
        if executor is None:
            return error_response(400, "Executor cannot be found")
        if self.proof and not await _is_its_own(executor, request):
            return error_response(403, "the caller is not the executor's user")
        if call.type == "SUBSCRIBE":
            return await self._stream(request, executor, call.subscribe)
        if not executor.subscribed:
            return error_response(403, "Executor is not subscribed")
        self._take(executor, call)
        return web.Response(status=202)

    def _take(self, executor: ExecutorRun, call: executor_api.Call) -> None:
        if call.update is not None and call.type == "UPDATE":
            executor.updated(call.update.status)
        elif call.message is not None and call.type == "MESSAGE":
            message = ExecutorMessage(
                framework_id=call.framework_id.value, executor_id=call.executor_id.value, data=call.message.data
            )
            self.world.outbox.once(message)

    async def _stream(
        self, request: web.Request, executor: ExecutorRun, subscribe: executor_api.Subscribe
    ) -> web.StreamResponse:
        """Until the executor goes away, or subscribes anew."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        events = executor.subscribe(subscribe)
        log.info("executor subscribed", executor=executor.id, framework=executor.framework.id.value)
        try:
            while executor.streams_to(events):
                await response.write(frame(msgspec.json.encode(await _next(events))))
        except ConnectionError:
            log.info("executor's stream broke", executor=executor.id)
        finally:
            executor.unsubscribe(events)
        return response


async def _next(events: "asyncio.Queue[executor_api.Mesos]") -> executor_api.Mesos:
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            return await events.get()
    except TimeoutError:
        return executor_api.HEARTBEAT


async def _is_its_own(executor: ExecutorRun, request: web.Request) -> bool:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if peer is None:
        return False
    caller = await asyncio.to_thread(owner_of, (str(peer[0]), int(peer[1])))
    account = executor.account()
    return caller in {0, os.geteuid() if account.uid == AS_KEEPER else account.uid}

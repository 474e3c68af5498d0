"""The agents' side of the master: registration streams and reports (fairlead_core.agent_protocol)."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from fairlead_core import agent_protocol as protocol
from fairlead_core import bodies
from fairlead_core.master.adapters.streams import Stream, serve_stream
from fairlead_core.master.decisions import agents, registering
from fairlead_core.master.decisions.model import Agent, Cluster, Moment
from fairlead_core.master.leadership import Leadership, clock
from fairlead_core.master.seat import Elsewhere, Seat
from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log
from fairlead_daemon.web import error_response

log = Log("master.agents")


class _Version(msgspec.Struct):
    version: int = protocol.VERSION


_register = msgspec.json.Decoder(protocol.Register)
_reports = msgspec.json.Decoder(protocol.Reports)
_version = msgspec.json.Decoder(_Version)


def add_routes(app: web.Application, seat: Seat) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        try:
            return await _stream(request, seat)
        except Elsewhere:
            return await seat.elsewhere(request)

    async def reports(request: web.Request) -> web.StreamResponse:
        try:
            return await _take_reports(request, seat)
        except Elsewhere:
            return await seat.elsewhere(request)

    app.router.add_post(protocol.STREAM_PATH, stream)
    app.router.add_post(protocol.REPORTS_PATH, reports)


async def _stream(request: web.Request, seat: Seat) -> web.StreamResponse:
    seat.leading()
    body = await request.read()
    leadership = seat.leading()
    given = bodies.decode(_version, body).version
    if given != protocol.VERSION:
        return error_response(409, f"agent protocol {given}, this master speaks {protocol.VERSION}")
    message = _register.decode(body)
    if why := registering.problem(message):
        return error_response(400, f"body: {why}")
    message = _readable(message)
    stream = Stream()
    leadership.streams[stream.id] = stream
    try:
        agent = agents.register(leadership.cluster, message, stream.id, now=clock())
    except agents.IsGone as error:
        del leadership.streams[stream.id]
        return error_response(410, str(error))
    except Refused as error:
        del leadership.streams[stream.id]
        return error_response(400, f"body: {error}")
    leadership.settle()
    log.info("agent registered", agent=agent.id, host=agent.hostname, tasks=len(message.tasks), stream=stream.id)

    def ended() -> None:
        leadership.streams.pop(stream.id, None)
        agents.disconnected(leadership.cluster, agent, stream.id)
        leadership.settle()
        log.info("agent stream ended", agent=agent.id, stream=stream.id)

    return await serve_stream(request, stream, {}, ended=ended)


async def _take_reports(request: web.Request, seat: Seat) -> web.Response:
    seat.leading()
    message = bodies.decode(_reports, await request.read())
    leadership = seat.leading()
    agent = leadership.cluster.agents.get(message.agent_id)
    if agent is None or not agent.stream_id or agent.stream_id != message.stream_id:
        return error_response(409, f"stream {message.stream_id!r} is not the current one of agent {message.agent_id!r}")
    take(leadership, agent, message.reports)
    return web.Response(status=202)


def _readable(message: protocol.Register) -> protocol.Register:
    """Without tasks that are none, so that they do not cost the agent the others. They run on, unknown to us."""
    kept = []
    for state in message.tasks:
        if why := registering.task_problem(state):
            log.warning("task of an agent is none, left out", agent=message.agent_id, why=why)
        else:
            kept.append(state)
    return msgspec.structs.replace(message, tasks=tuple(kept))


def take(leadership: Leadership, agent: Agent, reports: tuple[protocol.Report, ...]) -> None:
    """Any report is a sign of life."""
    now = clock()
    agents.heard(leadership.cluster, agent, now=now)
    for report in reports:
        TAKERS[type(report)](leadership.cluster, agent, report, now)
    leadership.settle()


def _beat(_cluster: Cluster, _agent: Agent, _report: Any, _now: Moment) -> None:
    """Being heard was all."""


def _goodbye(cluster: Cluster, agent: Agent, _report: Any, _now: Moment) -> None:
    agents.said_goodbye(cluster, agent)


def _update(cluster: Cluster, agent: Agent, report: Any, now: Moment) -> None:
    if why := registering.status_problem(report.status):
        log.warning("update of an agent is none, left out", agent=agent.id, why=why)
        return
    agents.updated(cluster, agent, report, now=now)


def _message(cluster: Cluster, agent: Agent, report: Any, _now: Moment) -> None:
    agents.executor_message(cluster, agent, report)


def _executor_ended(cluster: Cluster, agent: Agent, report: Any, _now: Moment) -> None:
    agents.executor_ended(cluster, agent, report)


TAKERS: Mapping[type[object], Callable[[Cluster, Agent, Any, Moment], None]] = {
    protocol.Beat: _beat,
    protocol.Goodbye: _goodbye,
    protocol.Update: _update,
    protocol.ExecutorMessage: _message,
    protocol.ExecutorEnded: _executor_ended,
}

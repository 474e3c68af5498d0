"""The master's v0 pages and its v1 operator API."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from fairlead_core import bodies
from fairlead_core.master.decisions import agents, draining, frameworks, operator, views
from fairlead_core.master.decisions.model import Agent, Cluster
from fairlead_core.master.leadership import Leadership, clock
from fairlead_core.master.seat import Elsewhere, Seat, moved
from fairlead_daemon.logs import Log
from fairlead_daemon.web import error_response, json_response

log = Log("master.operator")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Value(msgspec.Struct, frozen=True):
    value: str


class Duration(msgspec.Struct, frozen=True):
    nanoseconds: int


class AgentChange(msgspec.Struct, frozen=True):
    """DRAIN_AGENT, DEACTIVATE_AGENT, REACTIVATE_AGENT, MARK_AGENT_GONE."""

    agent_id: Value
    max_grace_period: Duration | None = None
    mark_gone: bool = False


class Teardown(msgspec.Struct, frozen=True):
    framework_id: Value


DRAIN_MOST_NS = 365 * 86_400 * 1_000_000_000


class BadCall(Exception):  # noqa: N818  # named for what it is
    """400 with these words."""


class OperatorCall(msgspec.Struct, frozen=True):
    type: str
    drain_agent: AgentChange | None = None
    deactivate_agent: AgentChange | None = None
    reactivate_agent: AgentChange | None = None
    mark_agent_gone: AgentChange | None = None
    teardown: Teardown | None = None


_decoder = msgspec.json.Decoder(OperatorCall)


def add_routes(app: web.Application, seat: Seat) -> None:
    for name, make in PAGES.items():
        for prefix in ("/", "/master/"):
            app.router.add_get(f"{prefix}{name}", _page(seat, make))
    for path in ("/version", "/master/version"):
        app.router.add_get(path, _version)
    app.router.add_get("/master/health", _healthy)
    for path in ("/redirect", "/master/redirect"):
        app.router.add_get(path, _redirect(seat))
    for path in ("/api/v1", "/api/v1/operator", "/master/api/v1"):
        app.router.add_post(path, _operator(seat))


async def _version(_request: web.Request) -> web.Response:
    return json_response({"version": views.VERSION})


async def _healthy(_request: web.Request) -> web.Response:
    return json_response({"status": "ok"})


def _redirect(seat: Seat) -> Handler:
    async def redirect(request: web.Request) -> web.Response:
        if seat.leadership is not None:
            return moved(seat.info, "")
        leader = seat.elsewhere_leads()
        return await seat.elsewhere(request) if leader is None else moved(leader, "")

    return redirect


def _page(seat: Seat, make: Callable[[Leadership], object]) -> Handler:
    async def page(request: web.Request) -> web.Response:
        try:
            return json_response(make(seat.leading()))
        except Elsewhere:
            return await seat.elsewhere(request)

    return page


def _state(lead: Leadership) -> object:
    return views.state(lead.cluster, _info(lead), started_wall_s=lead.began.wall_s)


def _info(lead: Leadership) -> Mapping[str, Any]:
    return msgspec.to_builtins(lead.info)  # type: ignore[no-any-return]  # a struct becomes a dict


def _tasks(lead: Leadership) -> object:
    every = lead.cluster.frameworks.values()
    live = [views.task(t) for f in every for t in f.tasks.values()]
    return {"tasks": live + [views.task(t) for f in every for t in f.completed.values()]}


PAGES: Mapping[str, Callable[[Leadership], object]] = {
    "state": _state,
    "state.json": _state,
    "state-summary": lambda lead: views.summary(lead.cluster, _info(lead)),
    "tasks": _tasks,
    "tasks.json": _tasks,
    "slaves": lambda lead: {
        "slaves": [views.agent(a) for a in views.listed_agents(lead.cluster)],
        "recovered_slaves": [],
    },
    "frameworks": lambda lead: {
        "frameworks": [views.framework(lead.cluster, f) for f in lead.cluster.frameworks.values()],
        "completed_frameworks": [views.framework(lead.cluster, f) for f in lead.cluster.torn_down.values()],
        "unregistered_frameworks": [],
    },
    "metrics/snapshot": lambda lead: views.metrics(lead.cluster, uptime_s=clock().s - lead.began.s),
}


# --- /api/v1 -------------------------------------------------------------------------------------------------------


def _operator(seat: Seat) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        try:
            seat.leading()
            call = bodies.decode(_decoder, await request.read())
            return _answer(seat.leading(), call)
        except BadCall as error:
            return error_response(400, str(error))
        except Elsewhere:
            return await seat.elsewhere(request)

    return handle


def _answer(lead: Leadership, call: OperatorCall) -> web.Response:
    if call.type in operator.READS:
        seen = operator.Sighted(
            cluster=lead.cluster,
            info=_info(lead),
            started_wall_s=lead.began.wall_s,
            uptime_s=clock().s - lead.began.s,
        )
        return json_response(operator.read(call.type, seen))
    if call.type in AGENT_CHANGES:
        return _change_agent(lead, call)
    if call.type == "TEARDOWN":
        return _tear_down(lead, call)
    known = ", ".join(sorted((*operator.READS, *AGENT_CHANGES, "TEARDOWN")))
    return error_response(501, f"operator call {call.type!r} is not implemented; these are: {known}")


def _change_agent(lead: Leadership, call: OperatorCall) -> web.Response:
    change: AgentChange | None = getattr(call, call.type.lower())
    if change is None:
        raise BadCall(f"Expecting '{call.type.lower()}' to be present")
    agent = lead.cluster.agents.get(change.agent_id.value)
    if agent is None or agent.gone:
        raise BadCall(f"no agent {change.agent_id.value!r} is known")
    AGENT_CHANGES[call.type](lead.cluster, agent, change)
    log.info("agent changed by operator", call=call.type, agent=agent.id)
    lead.settle()
    return web.Response(status=200)


def _tear_down(lead: Leadership, call: OperatorCall) -> web.Response:
    if call.teardown is None:
        raise BadCall("Expecting 'teardown' to be present")
    framework = lead.cluster.frameworks.get(call.teardown.framework_id.value)
    if framework is None:
        raise BadCall("No framework found with specified ID")
    frameworks.tear_down(lead.cluster, framework, now=clock())
    lead.settle()
    return web.Response(status=200)


def _drain(cluster: Cluster, agent: Agent, change: AgentChange) -> None:
    grace = change.max_grace_period
    if grace is not None and not 0 <= grace.nanoseconds <= DRAIN_MOST_NS:
        raise BadCall(f"max_grace_period must be from 0 to {DRAIN_MOST_NS} nanoseconds")
    grace_ns = grace.nanoseconds if grace else None
    draining.drain(cluster, agent, grace_ns=grace_ns, mark_gone=change.mark_gone, now=clock())


def _gone(cluster: Cluster, agent: Agent, _change: AgentChange) -> None:
    agents.remove(cluster, agent, "TASK_GONE_BY_OPERATOR", now=clock())


AGENT_CHANGES: Mapping[str, Callable[[Cluster, Agent, AgentChange], None]] = {
    "DRAIN_AGENT": _drain,
    "DEACTIVATE_AGENT": lambda cluster, agent, _: draining.deactivate(cluster, agent),
    "REACTIVATE_AGENT": lambda cluster, agent, _: draining.reactivate(cluster, agent),
    "MARK_AGENT_GONE": _gone,
}

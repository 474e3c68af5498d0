"""Certificates for tasks: the agent shows that it is the one that runs them, we say which service each is.

The agent proves itself by its current stream, as with reports, and what it says that it runs is believed as it is for
names and routes; the authority's token may be ours alone. Keys stay where they were made.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web

from fairlead_core import agent_protocol as protocol
from fairlead_core import bodies
from fairlead_core.master.leadership import Leadership
from fairlead_core.master.seat import Elsewhere, Seat
from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.web import error_response, json_response
from fairlead_discovery.decisions import identity
from fairlead_discovery.identities import Asking, signed

log = Log("master.identities")
_request = msgspec.json.Decoder(protocol.IdentityRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Whom we ask: its URL, and the file of the token it wants."""

    url: str
    token_file: Path


def add_routes(app: web.Application, seat: Seat, authority: Authority) -> None:
    async def sign(request: web.Request) -> web.StreamResponse:
        try:
            return await _sign(request, seat, authority)
        except Elsewhere:
            return await seat.elsewhere(request)

    app.router.add_post(protocol.IDENTITY_PATH, sign)


async def _sign(request: web.Request, seat: Seat, authority: Authority) -> web.Response:
    seat.leading()
    asked = bodies.decode(_request, await request.read())
    leadership = seat.leading()
    agent = leadership.cluster.agents.get(asked.agent_id)
    if agent is None or not agent.stream_id or agent.stream_id != asked.stream_id:
        return error_response(409, f"stream {asked.stream_id!r} is not the current one of agent {asked.agent_id!r}")
    service = _service(leadership, asked)
    if not service:
        leadership.cluster.count("identities_refused")
        return error_response(404, f"agent {agent.id} has no task {asked.task_id!r} that runs or is about to")
    try:
        asking = Asking(authority=authority.url, service=identity.of_task(service), token_file=authority.token_file)
        answer = await signed(asking, asked.csr)
    except FairleadError as error:
        leadership.cluster.count("identities_refused")
        log.warning("no identity", service=service, task=asked.task_id, agent=agent.id, why=str(error))
        return error_response(503 if isinstance(error, Unavailable) else 400, f"identity authority: {error}")
    leadership.cluster.count("identities_issued")
    return json_response(msgspec.to_builtins(answer))


def _service(leadership: Leadership, asked: protocol.IdentityRequest) -> str:
    """Of a task that is there, on that agent, and not over; else ""."""
    task = leadership.cluster.task(asked.framework_id, asked.task_id)
    if task is None or task.agent_id != asked.agent_id or task.terminal:
        return ""
    return task.service

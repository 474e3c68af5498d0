"""What a change of routes and policies would mean for the running HAProxy, without making it: `POST /fairlead/plan`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiohttp import web

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.web import json_response
from fairlead_discovery.policies import AnyPolicy
from fairlead_discovery.records import Record, Route
from fairlead_lb import deciding
from fairlead_lb.controller import Controller
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions.change import Nothing, Reload, lent
from fairlead_lb.decisions.commands import Command, MapEntry, MapWhole
from fairlead_lb.desk import Desk


class Asked(Record, frozen=True, kw_only=True):
    """Null takes away. `policies` by their nodes' names (`split~marathon:/shop/web`)."""

    routes: dict[str, Route | None] = msgspec.field(default_factory=dict)
    policies: dict[str, AnyPolicy | None] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """`reload`: reasons, none when HAProxy would only be told at run time. `refused`: services, newly, with reasons."""

    reload: tuple[str, ...]
    commands: tuple[str, ...]
    refused: Mapping[str, str]


def foresee(desk: Desk, asked: Asked) -> Foreseen:
    """Raises Unavailable while nothing is known."""
    snapshot, serving = desk.state.snapshot, desk.state.serving
    if snapshot is None or serving is None:
        raise Unavailable("nothing has been read from the registry, or from haproxy, yet")
    after = replace(
        snapshot,
        routes=_changed(snapshot.routes, asked.routes),
        policies=_changed(snapshot.policies, asked.policies),
        delta=None,
    )
    wanted = deciding.worked_out(desk, after)
    mine = replace(serving, structure=lent(serving, wanted))
    found = changes.change(mine, wanted, desk.around, changes.plans(mine, wanted))
    before = desk.state.wanted.refused
    return Foreseen(
        reload=found.reasons if isinstance(found, Reload) else (),
        commands=() if isinstance(found, Nothing) else tuple(map(_text, found.routing_commands)),
        refused={service: why for service, why in wanted.refused.items() if before.get(service) != why},
    )


def _changed(now: Mapping[str, Any], asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """The very same when nothing is asked: others know by that."""
    after = {**now, **asked}
    return {name: one for name, one in after.items() if one is not None} if asked else now


def _text(command: Command) -> str:
    if isinstance(command, MapWhole):
        return f"set map {command.map}"
    return command.text(command.map) if isinstance(command, MapEntry) else command.text()


def add_plan_page(app: web.Application, controller: Controller) -> None:
    async def page(request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=Asked)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(f"plan: {error}") from error
        return json_response(dataclasses.asdict(foresee(controller.desk, asked)))

    app.router.add_post("/fairlead/plan", page)

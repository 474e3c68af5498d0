"""What handlers share: the term behind a request, app ids in paths, errors and apps as JSON."""

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from fairlead_core import bodies
from fairlead_core.services.changes import Changes, Locked, Missing
from fairlead_core.services.decisions import naming, views
from fairlead_core.services.decisions.app import definition_json
from fairlead_core.services.decisions.deployments import Deployment, locked_body
from fairlead_core.services.decisions.problems import Invalid
from fairlead_core.services.events import Events
from fairlead_core.services.fleet import AppState
from fairlead_core.services.settings import ServicesSettings
from fairlead_core.services.term import Term
from fairlead_daemon.errors import Unavailable
from fairlead_daemon.web import Handler, json_response


@dataclass(slots=True, kw_only=True)
class Desk:
    """What the handlers see. `term` is None while another leads, or nobody."""

    settings: ServicesSettings
    events: Events
    term: Term | None = None
    leader: str = ""
    """`host:port` of the leading scheduler, "" when none is known."""
    own: str = ""
    master: str = ""
    largest_ttl_s: int = 0

    def leading(self) -> Term:
        """Raises Unavailable when this process does not lead (the proxy sends requests on before that)."""
        if self.term is None:
            raise Unavailable("no leading scheduler is known; see /ready")
        return self.term

    def changes(self) -> Changes:
        return Changes(self.leading(), largest_ttl_s=self.largest_ttl_s)


DESK: web.AppKey[Desk] = web.AppKey("desk", Desk)


@web.middleware
async def marathon_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our own errors in Marathon's bodies; the rest is the daemon's to word."""
    try:
        return await handler(request)
    except Invalid as error:
        return json_response(error.body(), status=422)
    except Locked as error:
        return json_response(locked_body(error.holders), status=409)
    except Missing as error:
        return json_response({"message": str(error)}, status=404)


def desk(request: web.Request) -> Desk:
    return request.app[DESK]


def app_id_of(request: web.Request) -> str:
    """`/v2/apps//shop/web` and `/v2/apps/shop/web` alike."""
    return naming.absolute(request.match_info["id"])


def flag(request: web.Request, name: str, *, default: bool = False) -> bool:
    text = request.query.get(name)
    return default if text is None else text.lower() in {"true", "1", "yes", ""}


async def body(request: web.Request) -> Any:
    """Decoded JSON. Raises HTTPBadRequest in Marathon's form."""
    raw = await request.read()
    try:
        bodies.check(raw, integers=False)  # their fields are named in the answer, by the app's rules
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = msgspec.json.encode({"message": "Invalid JSON", "details": str(error)}).decode()
        raise web.HTTPBadRequest(text=text, content_type="application/json") from error


def embeds(request: web.Request, prefix: str) -> frozenset[str]:
    """`?embed=apps.tasks&embed=app.counts` -> {"tasks", "counts"}."""
    found = (value for text in request.query.getall("embed", []) for value in text.split(","))
    return frozenset(re.sub(rf"^{prefix}s?\.", "", value) for value in found)


def deployment_answer(deployment: Deployment) -> dict[str, Any]:
    return {"version": deployment.version, "deploymentId": deployment.id}


def app_json(term: Term, state: AppState, wanted: Collection[str]) -> dict[str, Any]:
    """The app with what was asked to be embedded: tasks, counts, deployments, lastTaskFailure, readiness, taskStats."""
    assert state.app is not None
    shown = definition_json(state.app)
    for name in wanted:
        add = _EMBEDS.get(name)
        if add is not None:
            add(shown, term, state)
    return shown


def _tasks(shown: dict[str, Any], _term: Term, state: AppState) -> None:
    shown["tasks"] = [views.task_json(i, state.app) for i in state.alive()]


def _counts(shown: dict[str, Any], _term: Term, state: AppState) -> None:
    shown |= views.counts(state.instances.values())


def _deployments(shown: dict[str, Any], term: Term, state: AppState) -> None:
    shown["deployments"] = [{"id": d.id} for d in term.fleet.deployments.values() if state.id in d.changes]


def _failure(shown: dict[str, Any], _term: Term, state: AppState) -> None:
    if state.last_failure is not None:
        shown["lastTaskFailure"] = {"appId": state.id, **msgspec.to_builtins(state.last_failure)}


def _readiness(shown: dict[str, Any], _term: Term, _state: AppState) -> None:
    shown["readinessCheckResults"] = []


def _stats(shown: dict[str, Any], _term: Term, state: AppState) -> None:
    alive = state.alive()
    app = state.app
    assert app is not None
    scaled_s = naming.seconds(app.version_info.last_scaling_at) if app.version_info else 0.0
    groups = {
        "startedAfterLastScaling": [i for i in alive if i.staged_s >= scaled_s],
        "withLatestConfig": [i for i in alive if state.is_current(i)],
        "withOutdatedConfig": [i for i in alive if not state.is_current(i)],
        "totalSummary": alive,
    }
    shown["taskStats"] = views.stats(groups, now_s=time.time())


_EMBEDS: Mapping[str, Callable[[dict[str, Any], Term, AppState], None]] = {
    "tasks": _tasks,
    "counts": _counts,
    "deployments": _deployments,
    "lastTaskFailure": _failure,
    "failures": _failure,
    "readiness": _readiness,
    "taskStats": _stats,
}
ALL_OF_ONE = ("tasks", "counts", "deployments", "lastTaskFailure")
"""What GET /v2/apps/{id} shows unasked."""
ALL_OF_MANY = ("counts", "deployments")

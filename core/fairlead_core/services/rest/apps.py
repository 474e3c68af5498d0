"""`/v2/apps` and below."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from fairlead_core.services.changes import Missing
from fairlead_core.services.decisions import views
from fairlead_core.services.decisions.app import App, definition_json
from fairlead_core.services.decisions.notices import notice
from fairlead_core.services.decisions.problems import Problem, raise_if_any
from fairlead_core.services.fleet import AppState
from fairlead_core.services.rest.answers import (
    ALL_OF_MANY,
    ALL_OF_ONE,
    app_id_of,
    app_json,
    body,
    deployment_answer,
    desk,
    embeds,
    flag,
)
from fairlead_core.services.term import Term
from fairlead_daemon.web import error_response, json_response


def add_routes(app: web.Application) -> None:
    """The order matters: an app id may have any number of segments, but may not end with a reserved word."""
    router = app.router
    router.add_get("/v2/apps", list_apps)
    router.add_post("/v2/apps", create)
    router.add_put("/v2/apps", update_many)
    router.add_patch("/v2/apps", update_many)
    router.add_post("/v2/apps/{id:.+}/restart", restart)
    router.add_get("/v2/apps/{id:.+}/tasks", tasks)
    router.add_delete("/v2/apps/{id:.+}/tasks", kill_tasks)
    router.add_delete("/v2/apps/{id:.+}/tasks/{task}", kill_task)
    router.add_get("/v2/apps/{id:.+}/versions", versions)
    router.add_get("/v2/apps/{id:.+}/versions/{version}", one_version)
    router.add_get("/v2/apps/{id:.+}", show)
    router.add_put("/v2/apps/{id:.+}", update)
    router.add_patch("/v2/apps/{id:.+}", update)
    router.add_delete("/v2/apps/{id:.+}", remove)


async def list_apps(request: web.Request) -> web.Response:
    term = desk(request).leading()
    wanted = embeds(request, "app") | set(ALL_OF_MANY)
    found = [s for s in term.fleet.defined() if _asked_for(s, request)]
    return json_response({"apps": [app_json(term, s, wanted) for s in found]})


def _asked_for(state: AppState, request: web.Request) -> bool:
    app = state.app
    assert app is not None
    query = request.query
    return (
        query.get("cmd", "") in (app.cmd or "")
        and query.get("id", "") in app.id
        and all(_label_fits(app, text) for text in query.get("label", "").split(",") if text)
    )


def _label_fits(app: App, text: str) -> bool:
    """`name`, `name==value`, `name!=value`."""
    for sign, wanted in (("==", True), ("!=", False)):
        name, found, value = text.partition(sign)
        if found:
            return (app.labels.get(name.strip()) == value.strip()) is wanted
    return text.strip() in app.labels


async def create(request: web.Request) -> web.Response:
    changes, raw = desk(request).changes(), await body(request)
    term = desk(request).leading()
    if isinstance(raw, Mapping) and isinstance(raw.get("id"), str):
        raw = {**raw, "id": _rooted(raw["id"])}
    else:
        raise_if_any(_no_id(raw))
    app, deployment = await term.perform(lambda: changes.create(raw, force=flag(request, "force")))
    client = {"clientIp": request.remote or "", "uri": request.path}
    posted = notice("api_post_event", deployment.version, **client, appDefinition=definition_json(app))
    desk(request).events.publish(posted)
    state = term.fleet.get(app.id)
    shown = definition_json(app) if state is None else app_json(term, state, ("tasks", "counts"))
    return json_response({**shown, "deployments": [{"id": deployment.id}]}, status=201)


def _rooted(app_id: str) -> str:
    """Marathon takes `web` for `/web`; anything else stays as it is, to be judged."""
    return app_id if app_id.startswith("/") else f"/{app_id}"


def _no_id(raw: Any) -> list[Problem]:
    if not isinstance(raw, Mapping):
        return [Problem(path="/", error="error.expected.jsobject", kind="json")]
    error = "error.path.missing" if raw.get("id") is None else "error.expected.jsstring"
    return [Problem(path="/id", error=error, kind="json")]


async def update_many(request: web.Request) -> web.Response:
    changes, raw = desk(request).changes(), await body(request)
    if not isinstance(raw, list):
        raise_if_any([Problem(path="/", error="error.expected.jsarray", kind="json")])
    partial = flag(request, "partialUpdate", default=True)
    deployment = (
        await desk(request)
        .leading()
        .perform(lambda: changes.update_many(raw, partial=partial, force=flag(request, "force")))
    )
    return json_response(deployment_answer(deployment))


async def show(request: web.Request) -> web.Response:
    term, app_id = desk(request).leading(), app_id_of(request)
    if app_id.endswith("/*"):
        below = app_id.removesuffix("*")
        return json_response(
            {"apps": [app_json(term, s, ALL_OF_MANY) for s in term.fleet.defined() if s.id.startswith(below)]}
        )
    return json_response({"app": app_json(term, _state(term, app_id), embeds(request, "app") | set(ALL_OF_ONE))})


def _state(term: Term, app_id: str) -> AppState:
    state = term.fleet.get(app_id)
    if state is None:
        raise Missing(f"App '{app_id}' does not exist")
    return state


async def update(request: web.Request) -> web.Response:
    changes, raw, app_id = desk(request).changes(), await body(request), app_id_of(request)
    if isinstance(raw, list):
        return await update_many(request)
    partial = request.method == "PATCH" or flag(request, "partialUpdate", default=True)
    created, deployment = (
        await desk(request)
        .leading()
        .perform(lambda: changes.update(app_id, raw, partial=partial, force=flag(request, "force")))
    )
    return json_response(deployment_answer(deployment), status=201 if created else 200)


async def remove(request: web.Request) -> web.Response:
    changes, app_id = desk(request).changes(), app_id_of(request)
    deployment = await desk(request).leading().perform(lambda: changes.remove(app_id, force=flag(request, "force")))
    return json_response(deployment_answer(deployment))


async def restart(request: web.Request) -> web.Response:
    changes, app_id = desk(request).changes(), app_id_of(request)
    deployment = await desk(request).leading().perform(lambda: changes.restart(app_id, force=flag(request, "force")))
    return json_response(deployment_answer(deployment))


async def tasks(request: web.Request) -> web.Response:
    term, app_id = desk(request).leading(), app_id_of(request)
    if app_id.endswith("/*"):
        below = app_id.removesuffix("*")
        states = [s for s in term.fleet.defined() if s.id.startswith(below)]
    else:
        states = [_state(term, app_id)]
    return json_response({"tasks": [views.task_json(i, s.app) for s in states for i in s.alive()]})


async def kill_tasks(request: web.Request) -> web.Response:
    """`?host=` only those there; `?scale=true` and as many fewer; `?wipe=` means nothing without volumes."""
    term, state = desk(request).leading(), _state(desk(request).leading(), app_id_of(request))
    host = request.query.get("host", "*")
    chosen = [i for i in state.alive() if host in {"*", "", i.hostname}]
    shown = [views.task_json(i, state.app) for i in chosen]
    return await _kill(request, term, [i.id for i in chosen], {"tasks": shown})


async def kill_task(request: web.Request) -> web.Response:
    term, state = desk(request).leading(), _state(desk(request).leading(), app_id_of(request))
    instance = state.instances.get(request.match_info["task"])
    if instance is None or instance.expunged:
        return error_response(404, f"Task '{request.match_info['task']}' does not exist")
    return await _kill(request, term, [instance.id], {"task": views.task_json(instance, state.app)})


async def _kill(request: web.Request, term: Term, ids: list[str], shown: dict[str, Any]) -> web.Response:
    changes, scale = desk(request).changes(), flag(request, "scale")
    deployment = await term.perform(lambda: changes.kill(ids, scale=scale, force=flag(request, "force")))
    return json_response(deployment_answer(deployment) if deployment is not None else shown)


async def versions(request: web.Request) -> web.Response:
    state = _state(desk(request).leading(), app_id_of(request))
    return json_response({"versions": list(reversed(state.versions))})


async def one_version(request: web.Request) -> web.Response:
    version = request.match_info["version"]
    app = await desk(request).changes().version(app_id_of(request), version)
    return json_response(definition_json(app))

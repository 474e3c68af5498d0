"""Deployments, tasks, the queue, groups, and what Marathon tells of itself."""

import time
from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

from fairlead_core.resources import to_mesos
from fairlead_core.services.decisions import naming, views
from fairlead_core.services.decisions.app import definition_json
from fairlead_core.services.decisions.deployments import deployment_json
from fairlead_core.services.decisions.explaining import Facts, explain, queue_reasons
from fairlead_core.services.decisions.matching import Refusal
from fairlead_core.services.decisions.problems import Problem, raise_if_any
from fairlead_core.services.fleet import AppState
from fairlead_core.services.rest.answers import app_json, body, deployment_answer, desk, embeds, flag
from fairlead_core.services.settings import port_rules
from fairlead_core.services.term import Term
from fairlead_daemon.web import error_response, json_response

VERSION = "1.10.0"
"""The Marathon whose interface this is; clients switch on it."""
EVENT_SILENCE_S = 10.0


def add_routes(app: web.Application) -> None:
    router = app.router
    router.add_get("/ping", ping)
    router.add_get("/v2/info", info)
    router.add_get("/v2/leader", leader)
    router.add_get("/v2/deployments", deployments)
    router.add_delete("/v2/deployments/{id}", cancel)
    router.add_get("/v2/tasks", tasks)
    router.add_post("/v2/tasks/delete", delete_tasks)
    router.add_get("/v2/queue", queue)
    router.add_delete("/v2/queue/{id:.+}/delay", reset_delay)
    router.add_get("/v2/groups", groups)
    router.add_get("/v2/groups/{id:.*}", groups)
    router.add_get("/v2/events", events)
    router.add_get("/fairlead/explain", explained)


async def ping(_request: web.Request) -> web.Response:
    return web.Response(text="pong")


async def info(request: web.Request) -> web.Response:
    here = desk(request)
    settings, ports = here.settings, port_rules(here.settings)
    return json_response(
        {
            "name": settings.framework,
            "version": VERSION,
            "buildref": "fairlead",
            "elected": here.term is not None,
            "leader": here.leader,
            "frameworkId": here.term.framework_id if here.term is not None else None,
            "marathon_config": {
                "master": here.master,
                "failover_timeout": settings.failover_timeout_s,
                "framework_name": settings.framework,
                "ha": True,
                "checkpoint": True,
                "local_port_min": ports.first,
                "local_port_max": ports.last,
                "executor": "//cmd",
                "hostname": here.own.rpartition(":")[0],
                "webui_url": None,
                "mesos_role": settings.role,
                "task_launch_timeout": round(settings.launch_timeout_s * 1000),
                "decline_offer_duration": round(settings.decline_s * 1000),
                "reconciliation_interval": round(settings.reconcile_s * 1000),
                "mesos_user": settings.task_user,
                "features": [],
            },
            "zookeeper_config": {"zk": settings.registry, "zk_max_versions": settings.versions_kept},
            "http_config": {"http_port": settings.port, "https_port": None},
        }
    )


async def leader(request: web.Request) -> web.Response:
    name = desk(request).leader
    return json_response({"leader": name}) if name else error_response(404, "There is no leader")


async def deployments(request: web.Request) -> web.Response:
    fleet = desk(request).leading().fleet
    return json_response([deployment_json(d, fleet.unsettled(d)) for d in fleet.deployments.values()])


async def cancel(request: web.Request) -> web.Response:
    term, changes, deployment_id = desk(request).leading(), desk(request).changes(), request.match_info["id"]
    deployment = await term.perform(lambda: changes.cancel(deployment_id, force=flag(request, "force")))
    return web.Response(status=202) if deployment is None else json_response(deployment_answer(deployment))


async def tasks(request: web.Request) -> web.Response:
    term = desk(request).leading()
    states = term.fleet.defined()
    if "text/plain" in request.headers.get("Accept", ""):
        return web.Response(text=views.tasks_text((s.app, s.alive()) for s in states if s.app is not None))
    wanted = {s for text in request.query.getall("status", []) + request.query.getall("status[]", []) for s in [text]}
    shown = [views.task_json(i, s.app) for s in states for i in s.alive()]
    return json_response({"tasks": [t for t in shown if not wanted or _status(t) in wanted]})


def _status(task: dict[str, Any]) -> str:
    return {"TASK_RUNNING": "running", "TASK_STAGING": "staging", "TASK_STARTING": "staging"}.get(task["state"], "")


async def delete_tasks(request: web.Request) -> web.Response:
    term, changes, raw = desk(request).leading(), desk(request).changes(), await body(request)
    ids = raw.get("ids") if isinstance(raw, dict) else None
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        raise_if_any([Problem(path="/ids", error="error.expected.jsarray", kind="json")])
    assert isinstance(ids, list)
    chosen = [(s.app, i) for task in ids if (found := term.fleet.find(task)) for s, i in [found] if not i.expunged]
    shown = [views.task_json(instance, app) for app, instance in chosen]
    deployment = await term.perform(
        lambda: changes.kill([i.id for _, i in chosen], scale=flag(request, "scale"), force=flag(request, "force"))
    )
    return json_response(deployment_answer(deployment) if deployment is not None else {"tasks": shown})


async def queue(request: web.Request) -> web.Response:
    term = desk(request).leading()
    with_offers = "lastUnusedOffers" in embeds(request, "queue")
    return json_response({"queue": [_queue_item(term, s, with_offers) for s in term.fleet.defined() if s.plan.launch]})


def _queue_item(term: Term, state: AppState, with_offers: bool) -> dict[str, Any]:
    facts = facts_of(term, state)
    item = {
        "app": app_json(term, state, ()),
        "count": state.plan.launch,
        "delay": {"timeLeftSeconds": round(min(facts.backoff_s, 1e9)), "overdue": facts.backoff_s <= 0},
        "since": naming.timestamp(state.since_s or time.time()),
        "processedOffersSummary": queue_reasons(facts),
    }
    if with_offers:
        item["lastUnusedOffers"] = [_unused(refusal) for refusal in facts.refusals]
    return item


def _unused(refusal: Refusal) -> dict[str, Any]:
    offer = refusal.offer
    return {
        "offer": {
            "id": offer.id,
            "hostname": offer.place.hostname,
            "agentId": offer.agent,
            "resources": to_mesos(offer.resources),
            "attributes": [{"name": k, "text": v} for k, v in offer.place.attributes.items()],
        },
        "reason": [refusal.reason.value],
        "timestamp": naming.timestamp(time.time()),
    }


async def reset_delay(request: web.Request) -> web.Response:
    term, app_id = desk(request).leading(), naming.absolute(request.match_info["id"])
    state = term.fleet.get(app_id)
    if state is None or not state.plan.launch:
        return error_response(404, f"Application {app_id} not found in tasks queue.")
    term.reset_delay(app_id)
    return web.Response(status=204)


async def groups(request: web.Request) -> web.Response:
    """Groups are the paths of the apps, no more."""
    term = desk(request).leading()
    root = naming.absolute(request.match_info.get("id", ""))
    if root.endswith("/versions"):
        return json_response([])
    states = [s for s in term.fleet.defined() if root == "/" or s.id.startswith(f"{root}/")]
    if not states and root != "/":
        return error_response(404, f"Group '{root}' does not exist")
    return json_response(_group(root, states))


def _group(root: str, states: Iterable[AppState]) -> dict[str, Any]:
    prefix = root.rstrip("/") + "/"
    apps, below = [], dict[str, list[AppState]]()
    for state in states:
        head, slash, _ = state.id.removeprefix(prefix).partition("/")
        if slash:
            below.setdefault(prefix + head, []).append(state)
        elif state.app is not None:
            apps.append(definition_json(state.app))
    newest = max((a["version"] for a in apps), default="1970-01-01T00:00:00.000Z")
    inner = [_group(name, found) for name, found in sorted(below.items())]
    return {
        "id": root,
        "apps": apps,
        "pods": [],
        "groups": inner,
        "dependencies": [],
        "version": max([newest, *(g["version"] for g in inner)]),
    }


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events; `event_type` filters. A blank line every 10 s shows that the server lives."""
    wanted = set(request.query.getall("event_type", []))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    with desk(request).events.listener() as listener:
        attached = {"eventType": "event_stream_attached", "timestamp": naming.timestamp(time.time())}
        await response.write(_sse({**attached, "remoteAddress": request.remote or ""}))
        async for event in listener.events(silence_s=EVENT_SILENCE_S):
            if event is None:
                await response.write(b"\r\n")
            elif not wanted or event["eventType"] in wanted:
                await response.write(_sse(event))
    return response


def _sse(event: dict[str, Any]) -> bytes:
    return f"event: {event['eventType']}\r\ndata: ".encode() + msgspec.json.encode(event) + b"\r\n\r\n"


async def explained(request: web.Request) -> web.Response:
    here = desk(request)
    term, app_id = here.leading(), naming.absolute(request.query.get("app", ""))
    state = term.fleet.get(app_id)
    if state is None:
        return error_response(404, f"App '{app_id}' does not exist")
    return json_response(explain(facts_of(term, state)))


def facts_of(term: Term, state: AppState) -> Facts:
    assert state.app is not None
    now_s = time.time()
    draining = {i.agent for i in state.alive()} & set(term.fleet.draining)
    current = [i for i in state.alive() if state.is_current(i)]
    return Facts(
        app=state.app,
        counts=views.counts(state.instances.values()),
        ready=sum(i.ready and not i.going for i in current),
        older=len(state.alive()) - len(current),
        launch=state.plan.launch,
        holds=state.holds,
        fault=state.fault,
        backoff_s=state.delay.left_s(state.app, now_s=now_s),
        waits_for=state.plan.waits_for,
        deployments=tuple(d.id for d in term.fleet.deployments.values() if state.id in d.changes),
        refusals=tuple(state.refusals.values()),
        looked_at=state.looked_at,
        waiting_s=now_s - state.since_s if state.since_s else 0.0,
        failure=msgspec.to_builtins(state.last_failure) if state.last_failure is not None else None,
        draining=tuple(sorted(draining)),
        troubles=tuple(_troubles(term)),
    )


def _troubles(term: Term) -> Iterable[str]:
    if term.held:
        yield f"nothing is started or ended: {term.held}"
    if term.delivery.subscription is None:
        yield "no master: the scheduler is not subscribed, so nothing can be started or ended"

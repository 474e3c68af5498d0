"""`fairlead app`: Marathon's REST API, `/v2/apps`, for people."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from fairlead_console.balancer import app_problems
from fairlead_console.decisions.visible import visible
from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Calls, Use, registry_verb, verb
from fairlead_console.watching import follow
from fairlead_daemon.errors import BadSettings, Conflict, Refused


@click.group()
def app() -> None:
    """Deploy, list, scale, restart and remove apps.

    Example: fairlead app deploy app.json
    """


def _waiting(function: Any) -> Any:
    """The options of every verb that makes a deployment."""
    for option in (
        click.option("--force", is_flag=True, help="Take over from a deployment that runs."),
        click.option("--timeout", "timeout_s", default=300.0, show_default=True, metavar="SECONDS"),
        click.option("--no-wait", is_flag=True, help="Return once the deployment has begun."),
    ):
        function = option(function)
    return function


@app.command(epilog="Example: fairlead app deploy app.json; or: generate | fairlead app deploy -")
@click.argument("file")
@_waiting
@verb
def deploy(use: Use, file: str, **how: Any) -> None:
    """Create or change the app in FILE (JSON; - reads it from stdin; several in a list) and wait until it runs."""
    for definition in read_definitions(file):
        _deploy(use, definition["id"], "PUT", "", definition, **how)


@app.command(name="list", epilog="Example: fairlead app list --json")
@verb
def list_(use: Use) -> None:
    """All apps with their instances."""
    apps = use.run(lambda calls: calls.services("GET", "/v2/apps"))["apps"]
    if use.as_json:
        show_json(apps)
        return
    rows = [(a["id"], _instances(a), health(a), a.get("cmd") or " ".join(a.get("args") or ())) for a in apps]
    empty = "no apps; fairlead app deploy FILE makes one"
    show_table(("app", "running", "state", "command"), rows, empty=empty, long_last=True)


@app.command(epilog="Example: fairlead app show /demo/web")
@click.argument("app_id")
@verb
def show(use: Use, app_id: str) -> None:
    """One app and its tasks."""
    found = use.run(lambda calls: get_app(calls, app_id))
    if use.as_json:
        show_json(found)
        return
    say(f"{found['id']}: {_instances(found)} running, {health(found)}, version {found.get('version', '?')}")
    if found.get("lastTaskFailure"):
        failure = found["lastTaskFailure"]
        say(f"last failure: {failure.get('state')} {failure.get('message', '')} at {failure.get('timestamp', '?')}")
    show_table(
        ("task", "host", "ports", "state", "healthy", "started"),
        [_task_row(t, found) for t in found.get("tasks", ())],
        empty="no tasks; fairlead explain says why",
    )


@app.command(epilog="Example: fairlead app scale /demo/web 4")
@click.argument("app_id")
@click.argument("instances", type=click.IntRange(min=0))
@_waiting
@verb
def scale(use: Use, app_id: str, instances: int, **how: Any) -> None:
    """Run INSTANCES instances of the app."""
    _deploy(use, app_id, "PUT", "", {"instances": instances}, must_exist=True, **how)


@app.command(epilog="Example: fairlead app restart /demo/web")
@click.argument("app_id")
@_waiting
@verb
def restart(use: Use, app_id: str, **how: Any) -> None:
    """Replace every instance by a fresh one, within the app's upgradeStrategy."""
    _deploy(use, app_id, "POST", "/restart", None, **how)


@app.command(epilog="Example: fairlead app remove /demo/web")
@click.argument("app_id")
@_waiting
@verb
def remove(use: Use, app_id: str, **how: Any) -> None:
    """End the app's instances, draining them first, and forget it."""
    _deploy(use, app_id, "DELETE", "", None, **how)


@app.command(epilog="Example: fairlead app zdd web.json; then web-2.json; half of it: --new-instances 2")
@click.argument("file")
@click.option("--initial", default=1, show_default=True, help="Instances of the new version to begin with.")
@click.option("--new-instances", default=0, metavar="N", help="Stop at N new ones beside the rest of the old ones.")
@click.option("--resume", is_flag=True, help="Go on with what was begun.")
@click.option("--complete-cur", "complete", flag_value="cur", help="Go on until all are of the new version.")
@click.option("--complete-prev", "complete", flag_value="prev", help="Go back until all are of the version before.")
@click.option("--dry-run", is_flag=True, help="Show the app that would be made.")
@click.option("--timeout", "timeout_s", default=300.0, show_default=True, metavar="SECONDS", help="For each step.")
@registry_verb
def zdd(use: Use, file: str, *, complete: str | None, **how: Any) -> None:
    """Deploy FILE as an app of its own beside the version before, blue and green, and let it take over step by step.

    As marathon-lb's zdd.py: both are one service to balancers. Each step waits until the new instances are healthy
    and every balancer routes to them; as many old ones are then drained, and end. Killed or failed in between, the two
    serve side by side until --resume, or --complete-prev.
    """
    from fairlead_console.verbs.app_zdd import deploy  # noqa: PLC0415  # it needs what is defined here

    deploy(use, file, complete=complete or "", **how)


def _deploy(
    use: Use, app_id: str, method: str, suffix: str, body: object, *, must_exist: bool = False, **how: Any
) -> None:
    app_id = absolute(app_id)
    query = "?force=true" if how["force"] else ""

    async def run(calls: Calls) -> None:
        if must_exist:
            await get_app(calls, app_id)  # a PUT of `instances` alone would try to create it
        answer = await _change(calls, method, app_id, suffix + query, body)
        deployment = _deployment_id(answer)
        if not how["no_wait"] and deployment:
            await follow(calls, app_id, deployment, timeout_s=how["timeout_s"], quiet=use.as_json)
            if method == "PUT":
                await _warn(calls, app_id)
        if use.as_json:
            show_json(answer)
        elif how["no_wait"]:
            say(f"{app_id}: deployment {deployment} has begun")

    use.run(run)


async def _warn(calls: Calls, app_id: str) -> None:
    """It runs, and yet not all that was asked for can be had."""
    for problem in await app_problems(calls, app_id):
        click.echo(visible(f"fairlead: warning: {app_id}: {problem}"), err=True)


async def _change(calls: Calls, method: str, app_id: str, suffix: str, body: object) -> Mapping[str, Any]:
    """Raises Conflict with what to do when a deployment of the app runs."""
    try:
        return dict(await calls.services(method, path_of(app_id) + suffix, body))
    except Conflict as error:
        raise Conflict(f"{app_id}: a deployment of it runs (fairlead explain {app_id}); --force takes over") from error


def _deployment_id(answer: Mapping[str, Any]) -> str:
    """Of a create's whole app, or of any other change; "" when nothing had to change."""
    if "deploymentId" in answer:
        return str(answer["deploymentId"])
    return str(next((d["id"] for d in answer.get("deployments") or ()), ""))


async def get_app(calls: Calls, app_id: str) -> Mapping[str, Any]:
    """Raises Refused with names alike when there is no such app."""
    try:
        return dict((await calls.services("GET", path_of(app_id)))["app"])
    except Refused as error:
        if " 404 " not in str(error):
            raise
        from fairlead_console.decisions.names import nearest  # noqa: PLC0415  # only for a typing error

        known = [a["id"] for a in (await calls.services("GET", "/v2/apps"))["apps"]]
        near = nearest(absolute(app_id), known)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise Refused(f"no such app: {absolute(app_id)}{hint}") from error


def absolute(app_id: str) -> str:
    return "/" + app_id.strip("/")


def path_of(app_id: str) -> str:
    return "/v2/apps" + quote(absolute(app_id))


def read_definitions(file: str) -> list[Mapping[str, Any]]:
    """Raises BadSettings naming the file and the place in it."""
    import msgspec  # noqa: PLC0415  # only deploy reads a file

    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        value = msgspec.json.decode(raw)
    except OSError as error:
        raise BadSettings(f"{file}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{file}: {error}") from error
    definitions = value if isinstance(value, list) else [value]
    if not definitions:
        raise BadSettings(f"{file}: an empty list: there is no app in it")
    for definition in definitions:
        if not isinstance(definition, dict) or not isinstance(definition.get("id"), str):
            raise BadSettings(f"{file}: id: an app is a JSON object with an id like /shop/web")
    return definitions


def _instances(found: Mapping[str, Any]) -> str:
    return f"{found.get('tasksRunning', 0)}/{found.get('instances', 0)}"


def health(found: Mapping[str, Any]) -> str:
    """One word for the state of an app."""
    wanted = found.get("instances", 0)
    checked = "tasksHealthy" if found.get("healthChecks") else "tasksRunning"
    if found.get("deployments"):
        return "deploying"
    if found.get("tasksUnhealthy"):
        return "unhealthy"
    return ("healthy" if found.get("healthChecks") else "running") if found.get(checked, 0) >= wanted else "waiting"


def _task_row(task: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[object, ...]:
    results = [r for r in task.get("healthCheckResults") or () if r]
    alive = ("yes" if all(r.get("alive") for r in results) else "no") if results else "-"
    return (
        task["id"],
        task.get("host", "?"),
        ",".join(str(p) for p in task.get("ports") or ()),
        task.get("state", "?"),
        alive if found.get("healthChecks") else "-",
        task.get("startedAt") or "-",
    )

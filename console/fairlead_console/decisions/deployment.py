"""How far a deployment is, in words, from what Marathon's REST API says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """`over`: the deployment no longer runs. `done`: and the app is as asked."""

    over: bool
    done: bool
    ready: int
    wanted: int
    text: str


def state(app: Mapping[str, Any], deployments: Sequence[Mapping[str, Any]], deployment_id: str) -> State:
    """`app` as in GET /v2/apps/<id>, `deployments` as in GET /v2/deployments."""
    wanted = int(app.get("instances", 0))
    checked = bool(app.get("healthChecks"))
    ready = int(app.get("tasksHealthy" if checked else "tasksRunning", 0))
    running = next((d for d in deployments if d.get("id") == deployment_id), None)
    over = running is None
    done = over and ready >= wanted
    return State(over=over, done=done, ready=ready, wanted=wanted, text=_text(app, running, ready, checked=checked))


def _text(app: Mapping[str, Any], running: Mapping[str, Any] | None, ready: int, *, checked: bool) -> str:
    counts = f"{ready} of {app.get('instances', 0)} {'healthy' if checked else 'running'}"
    waiting = int(app.get("tasksStaged", 0))
    if waiting:
        counts += f", {waiting} starting"
    step = f"step {running.get('currentStep', '?')} of {running.get('totalSteps', '?')}, " if running else ""
    return f"{step}{counts}"


def last_failure(app: Mapping[str, Any]) -> str:
    """Why the app's last task ended, "" when none did."""
    failure = app.get("lastTaskFailure") or {}
    message = str(failure.get("message", "")).strip()
    return f"last task: {failure['state']}{': ' + message if message else ''}" if failure.get("state") else ""

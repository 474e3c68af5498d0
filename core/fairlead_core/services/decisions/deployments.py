"""A deployment: which apps change from which version to which, for locks, for answers, and for the way back."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fairlead_core.services.decisions.app import App, same_config

LOCKED = (
    "App is locked by one or more deployments. Override with the option '?force=true'. "
    "View details at '/v2/deployments/<DEPLOYMENT_ID>'."
)


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one app. `original` and `target` are versions; "" is "does not exist"."""

    original: str = ""
    target: str = ""
    action: str = "ScaleApplication"


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Runs until every app of `changes` is as its target says."""

    id: str
    version: str
    changes: dict[str, Change]

    @property
    def apps(self) -> tuple[str, ...]:
        return tuple(sorted(self.changes))


def change(original: App | None, target: App | None) -> Change:
    """What the step is called, in Marathon's words."""
    action = "ScaleApplication"
    if target is None:
        action = "StopApplication"
    elif original is None:
        action = "StartApplication"
    elif not same_config(original, target) or original.config_version != target.config_version:
        action = "RestartApplication"
    return Change(original=original.version if original else "", target=target.version if target else "", action=action)


def locking(deployments: Iterable[Deployment], apps: Iterable[str]) -> tuple[Deployment, ...]:
    """The running deployments that hold one of the apps."""
    wanted = set(apps)
    return tuple(d for d in deployments if wanted & set(d.changes))


def locked_body(holders: Iterable[Deployment]) -> dict[str, Any]:
    """Marathon's 409."""
    return {"message": LOCKED, "deployments": [{"id": d.id} for d in holders]}


def steps(deployment: Deployment) -> list[dict[str, Any]]:
    """Starting is two steps in Marathon: a started app has no instances yet."""
    first = [{"action": c.action, "app": app} for app, c in sorted(deployment.changes.items())]
    second = [
        {"action": "ScaleApplication", "app": app}
        for app, c in sorted(deployment.changes.items())
        if c.action == "StartApplication"
    ]
    return [{"actions": actions} for actions in (first, second) if actions]


def deployment_json(deployment: Deployment, open_apps: Mapping[str, str]) -> dict[str, Any]:
    """`open_apps`: those that are not there yet."""
    plan = steps(deployment)
    actions = [{**a, "readinessCheckResults": []} for a in plan[-1]["actions"] if a["app"] in open_apps]
    return {
        "id": deployment.id,
        "version": deployment.version,
        "affectedApps": list(deployment.apps),
        "affectedPods": [],
        "steps": plan,
        "currentActions": actions or [{**a, "readinessCheckResults": []} for a in plan[-1]["actions"]],
        "currentStep": len(plan),
        "totalSteps": len(plan),
    }

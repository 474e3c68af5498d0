"""The agent's `/state` in Mesos' shape, from values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_core.resources import Resources, from_mesos

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task as `/state` needs it. `statuses` are oldest first."""

    framework: Mapping[str, Any]
    task: Mapping[str, Any]
    statuses: Sequence[Mapping[str, Any]]
    sandbox: str
    executor_id: str
    over: bool

    @property
    def id(self) -> str:
        return str(self.task["task_id"]["value"])

    @property
    def framework_id(self) -> str:
        return str(self.framework["id"]["value"])


def resources_page(resources: Resources) -> Json:
    """`{"cpus": 4.0, "mem": 512.0, "disk": 0, "gpus": 0, "ports": "[31000-32000]"}`."""
    page: Json = {name: resources.total(name) for name in ("cpus", "gpus", "mem", "disk")}
    if ports := resources.ports():
        page["ports"] = "[" + ", ".join(f"{begin}-{end}" for begin, end in ports) + "]"
    return page


def used(tasks: Iterable[TaskView]) -> Resources:
    total = Resources()
    for view in tasks:
        if not view.over:
            total += from_mesos(view.task.get("resources") or ())
    return total


def task_page(view: TaskView) -> Json:
    latest = view.statuses[-1] if view.statuses else {}
    page: Json = {
        "id": view.id,
        "name": view.task.get("name", ""),
        "framework_id": view.framework_id,
        "executor_id": view.executor_id,
        "slave_id": (view.task.get("agent_id") or {}).get("value", ""),
        "state": latest.get("state", "TASK_STAGING"),
        "resources": resources_page(from_mesos(view.task.get("resources") or ())),
        "statuses": [status_page(s) for s in view.statuses],
    }
    for key in ("labels", "discovery", "health_check"):
        if key in view.task:
            page[key] = view.task[key]["labels"] if key == "labels" else view.task[key]
    return page


def status_page(status: Mapping[str, Any]) -> Json:
    kept = ("state", "timestamp", "healthy", "container_status", "message", "reason", "source", "labels")
    return {key: status[key] for key in kept if key in status}


def frameworks_page(tasks: Sequence[TaskView]) -> list[Json]:
    """Frameworks with executors with tasks. A command task is its own executor, as in Mesos."""
    by_framework: dict[str, list[TaskView]] = {}
    for view in tasks:
        by_framework.setdefault(view.framework_id, []).append(view)
    return [_framework(views) for views in by_framework.values()]


def _framework(views: Sequence[TaskView]) -> Json:
    info = views[-1].framework
    executors: dict[str, list[TaskView]] = {}
    for view in views:
        executors.setdefault(view.executor_id or view.id, []).append(view)
    pages = [(_executor(name, members), all(v.over for v in members)) for name, members in executors.items()]
    return {
        "id": views[-1].framework_id,
        "name": info.get("name", ""),
        "user": info.get("user", ""),
        "role": (info.get("roles") or [info.get("role", "*")])[0],
        "hostname": info.get("hostname", ""),
        "checkpoint": bool(info.get("checkpoint")),
        "executors": [page for page, over in pages if not over],
        "completed_executors": [page for page, over in pages if over],
    }


def _executor(name: str, views: Sequence[TaskView]) -> Json:
    return {
        "id": name,
        "name": "" if views[0].executor_id else f"Command Executor (Task: {name})",
        "source": name,
        "container": f"{views[0].framework_id}/{name}",
        "directory": views[-1].sandbox,
        "resources": resources_page(used(views)),
        "tasks": [task_page(v) for v in views if not v.over],
        "queued_tasks": [],
        "completed_tasks": [task_page(v) for v in views if v.over],
    }

"""May this task be launched with these resources? Mesos' checks, in its order and words, and our own one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairlead_core import shapes
from fairlead_core.master.decisions.calls import id_problem
from fairlead_core.master.decisions.model import Agent, Framework
from fairlead_core.master.decisions.publishing import service_of
from fairlead_core.master.decisions.statuses import Json, labels_of, text_of
from fairlead_core.resources import Resources, from_mesos
from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions import label_names

DEFAULT_DRAIN_S = 30.0
DRAIN_MOST_S = 86_400.0
PUBLISHED_LIMIT_BYTES = 128 * 1024
"""What is published of a task must stay below the registry's 512 KiB a node, in every encoding of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A task as it is to be launched: what it takes, and what its executor takes in addition when it is new."""

    info: Json
    task_id: str
    resources: Resources
    executor_id: str = ""
    executor_resources: Resources = field(default_factory=Resources)

    @property
    def needed(self) -> Resources:
        return self.resources + self.executor_resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a task is checked against. `available` is what is left of the accepted offers."""

    framework: Framework
    agent: Agent
    available: Resources
    largest_ttl_s: float


def check(info: Json, ground: Ground) -> Launch:
    """Raises Refused: the message is for TASK_ERROR with REASON_TASK_INVALID."""
    for rule in RULES:
        if problem := rule(info, ground):
            raise Refused(problem)
    launch = _launch_of(info, ground)
    if not ground.available.contains(launch.needed):
        raise Refused(
            f"Total resources {_words(launch.needed)} required by task and its executor is more than available "
            f"{_words(ground.available)}"
        )
    return launch


def drain_s(labels: Mapping[str, str]) -> float:
    """Raises Refused when the label is no number."""
    text = labels.get(label_names.DRAIN_SECONDS, "")
    if not text:
        return DEFAULT_DRAIN_S
    try:
        value = float(text)
    except ValueError:
        raise Refused(f"label {label_names.DRAIN_SECONDS}: {text!r} is not a number of seconds") from None
    if not 0 <= value <= DRAIN_MOST_S:
        raise Refused(
            f"label {label_names.DRAIN_SECONDS}: {text!r} is not a number of seconds, at most {DRAIN_MOST_S:g}"
        )
    return value


def kill_grace_s(info: Json, default_s: float = 3.0) -> float:
    nanoseconds = _nanoseconds(info, "kill_policy", "grace_period")
    return default_s if nanoseconds is None else nanoseconds / 1e9


def _nanoseconds(info: Json, *path: str) -> float | None:
    value: Any = info
    for key in (*path, "nanoseconds"):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return float(value) if isinstance(value, int | float) else None


def _launch_of(info: Json, ground: Ground) -> Launch:
    resources = from_mesos(info["resources"])
    executor = info.get("executor")
    task_id = text_of(info["task_id"])
    if not isinstance(executor, Mapping):
        return Launch(info=info, task_id=task_id, resources=resources)
    executor_id = text_of(executor.get("executor_id"))
    known = (ground.framework.id, executor_id) in ground.agent.executors
    extra = Resources() if known else from_mesos(executor.get("resources") or (), place="executor.resources")
    return Launch(info=info, task_id=task_id, resources=resources, executor_id=executor_id, executor_resources=extra)


def _words(resources: Resources) -> str:
    parts = [f"{name}:{value / 1000:g}" for (name, _), value in sorted(resources.scalars.items())]
    parts += [
        f"{name}:[{','.join(f'{b}-{e}' for b, e in ranges)}]" for (name, _), ranges in sorted(resources.ranges.items())
    ]
    return "; ".join(parts) or "{}"


def _shape_rule(info: Json, _ground: Ground) -> str:
    return shapes.problem(shapes.Task, info, place="task")


def _id_rule(info: Json, _ground: Ground) -> str:
    return id_problem(text_of(info.get("task_id")))


def _name_rule(info: Json, _ground: Ground) -> str:
    return "" if isinstance(info.get("name"), str) else "Task has no 'name'"


def _unique_rule(info: Json, ground: Ground) -> str:
    task_id = text_of(info["task_id"])
    there = ground.framework.tasks.get(task_id)
    if there is None:
        return ""
    if there.state == "TASK_UNREACHABLE":
        return f"Task reuses the ID of an unreachable task: {task_id}"
    return f"Task has duplicate ID: {task_id}"


def _agent_rule(info: Json, ground: Ground) -> str:
    given = text_of(info.get("agent_id"))
    return (
        "" if given == ground.agent.id else f"Task uses invalid agent {given} while agent {ground.agent.id} is expected"
    )


def _kill_rule(info: Json, _ground: Ground) -> str:
    if (_nanoseconds(info, "kill_policy", "grace_period") or 0) < 0:
        return "Task's 'kill_policy.grace_period' must be non-negative"
    if (_nanoseconds(info, "max_completion_time") or 0) < 0:
        return "Task's `max_completion_time` must be non-negative"
    return ""


def _body_rule(info: Json, _ground: Ground) -> str:
    if (info.get("executor") is None) == (info.get("command") is None):
        return "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
    return ""


def _executor_rule(info: Json, _ground: Ground) -> str:
    executor = info.get("executor")
    if not isinstance(executor, Mapping):
        return "" if executor is None else "'executor' must be an object"
    if problem := id_problem(text_of(executor.get("executor_id"))):
        return f"Executor {problem}"
    if executor.get("type") == "DEFAULT":
        return "'DEFAULT' executor is not supported by this master"
    if executor.get("command") is None:
        return "'ExecutorInfo.command' must be set for 'CUSTOM' executor"
    return ""


def _resource_rule(info: Json, _ground: Ground) -> str:
    if not info.get("resources"):
        return "Task uses no resources"
    if not isinstance(info["resources"], list):
        return "Task uses invalid resources: not an array"
    try:
        from_mesos(info["resources"])
        from_mesos((info.get("executor") or {}).get("resources") or (), place="executor.resources")
    except Refused as error:
        return f"Task uses invalid resources: {error}"
    return ""


def _size_rule(info: Json, ground: Ground) -> str:
    for key in ("discovery", "labels"):
        if key in info and len(msgspec.json.encode(info[key])) > PUBLISHED_LIMIT_BYTES:
            return f"Task's '{key}' is over {PUBLISHED_LIMIT_BYTES // 1024} KiB: it would not fit into the registry"
    service = service_of(ground.framework.name, info)
    longest = len(paths.escape(service))
    if longest > paths.SEGMENT_LIMIT_BYTES:
        limit = paths.SEGMENT_LIMIT_BYTES
        return f"Task's service name {service[:40]}… takes {longest} bytes in the registry, at most {limit} are allowed"
    return ""


def _drain_rule(info: Json, ground: Ground) -> str:
    labels = labels_of(info.get("labels"))
    if label_names.DRAIN_SECONDS not in labels:
        return ""
    try:
        seconds = drain_s(labels)
    except Refused as error:
        return str(error)
    if seconds < ground.largest_ttl_s:
        return (
            f"label {label_names.DRAIN_SECONDS}: {seconds:g} s is less than the {ground.largest_ttl_s:g} s for which"
            " name servers "
            f"may still hand the task out"
        )
    return ""


RULES: tuple[Callable[[Json, Ground], str], ...] = (
    _shape_rule,
    _id_rule,
    _name_rule,
    _unique_rule,
    _agent_rule,
    _kill_rule,
    _body_rule,
    _executor_rule,
    _resource_rule,
    _drain_rule,
    _size_rule,
)

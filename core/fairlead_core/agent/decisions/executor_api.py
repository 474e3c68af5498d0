"""Mesos' executor API: calls in, events out, and the environment an executor finds."""

from collections.abc import Mapping
from typing import Any

import msgspec

from fairlead_core import shapes
from fairlead_core.agent.decisions.tasks import Value

Mesos = Mapping[str, Any]
CALL_TYPES = frozenset({"SUBSCRIBE", "UPDATE", "MESSAGE", "HEARTBEAT"})
SHUTDOWN_GRACE_S = 5.0


class Subscribe(msgspec.Struct, frozen=True, kw_only=True):
    unacknowledged_tasks: tuple[Mesos, ...] = ()
    unacknowledged_updates: tuple[Mesos, ...] = ()


class UpdateCall(msgspec.Struct, frozen=True, kw_only=True):
    status: Mesos


class MessageCall(msgspec.Struct, frozen=True, kw_only=True):
    data: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    framework_id: Value
    executor_id: Value
    subscribe: Subscribe = Subscribe()
    update: UpdateCall | None = None
    message: MessageCall | None = None


def refusal(call: Call) -> str:
    """Why the call makes no sense; "" when it does."""
    if call.type not in CALL_TYPES:
        return f"unknown type {call.type!r}"
    if call.type == "MESSAGE" and call.message is None:
        return "expecting 'message' to be present"
    if call.type != "UPDATE":
        return ""
    status = call.update.status if call.update else {}
    if not isinstance(status.get("task_id"), Mapping) or "value" not in status["task_id"]:
        return "expecting 'update.status.task_id' to be present"
    if not isinstance(status.get("state"), str) or not status["state"].startswith("TASK_"):
        return "expecting 'update.status.state' to be a task's state"
    if not isinstance(status.get("uuid"), str):
        return "expecting 'update.status.uuid' to be present"
    return shapes.problem(shapes.Status, status, place="update.status")


def pending_statuses(subscribe: Subscribe) -> list[Mesos]:
    """Of updates that an executor has sent and not seen acknowledged; drivers send the call or the status alone."""
    out = []
    for update in subscribe.unacknowledged_updates:
        status = update.get("status", update)
        whole = isinstance(status, Mapping) and {"task_id", "state", "uuid"} <= status.keys()
        if whole and not shapes.problem(shapes.Status, status, place="status"):
            out.append(status)
    return out


# --- events ------------------------------------------------------------------------------------------------------


def subscribed(executor: Mesos, framework: Mesos, agent: Mesos, container_id: str) -> Mesos:
    body = {
        "executor_info": executor,
        "framework_info": framework,
        "agent_info": agent,
        "container_id": {"value": container_id},
    }
    return {"type": "SUBSCRIBED", "subscribed": body}


def launch(task: Mesos) -> Mesos:
    return {"type": "LAUNCH", "launch": {"task": task}}


def kill(task_id: str, *, grace_s: float) -> Mesos:
    policy = {"grace_period": {"nanoseconds": int(grace_s * 1e9)}}
    return {"type": "KILL", "kill": {"task_id": {"value": task_id}, "kill_policy": policy}}


def acknowledged(task_id: str, uuid: str) -> Mesos:
    return {"type": "ACKNOWLEDGED", "acknowledged": {"task_id": {"value": task_id}, "uuid": uuid}}


def message(data: str) -> Mesos:
    return {"type": "MESSAGE", "message": {"data": data}}


SHUTDOWN: Mesos = {"type": "SHUTDOWN"}
HEARTBEAT: Mesos = {"type": "HEARTBEAT"}


# --- environment -------------------------------------------------------------------------------------------------


def environment(ids: tuple[str, str, str], *, endpoint: str, sandbox: str, checkpoint: bool) -> dict[str, str]:
    """`ids` are framework, executor and agent. Durations in Mesos' words."""
    framework_id, executor_id, agent_id = ids
    out = {
        "MESOS_FRAMEWORK_ID": framework_id,
        "MESOS_EXECUTOR_ID": executor_id,
        "MESOS_SLAVE_ID": agent_id,
        "MESOS_SLAVE_PID": f"slave(1)@{endpoint}",
        "MESOS_AGENT_ENDPOINT": endpoint,
        "MESOS_DIRECTORY": sandbox,
        "MESOS_SANDBOX": sandbox,
        "MESOS_CHECKPOINT": "1" if checkpoint else "0",
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": f"{SHUTDOWN_GRACE_S:g}secs",
        "MESOS_HTTP_COMMAND_EXECUTOR": "0",
    }
    if checkpoint:
        out |= {"MESOS_RECOVERY_TIMEOUT": "15mins", "MESOS_SUBSCRIPTION_BACKOFF_MAX": "2secs"}
    return out

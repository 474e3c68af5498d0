"""Task states and TaskStatus objects, in Mesos' v1 JSON."""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

TERMINAL = frozenset(
    {
        "TASK_FINISHED",
        "TASK_FAILED",
        "TASK_KILLED",
        "TASK_ERROR",
        "TASK_DROPPED",
        "TASK_GONE",
        "TASK_LOST",
        "TASK_GONE_BY_OPERATOR",
    }
)
"""States in which a task holds no resources any more. TASK_UNREACHABLE is not one: its agent may come back."""
LIVE = frozenset({"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"})
SINCE_PARTITION_AWARE = frozenset(
    {"TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNREACHABLE", "TASK_UNKNOWN"}
)
"""Frameworks without PARTITION_AWARE get TASK_LOST instead of these."""


def is_terminal(state: str) -> bool:
    return state in TERMINAL


def understood(state: str, capabilities: frozenset[str]) -> str:
    """The state as a framework of these capabilities knows it."""
    if state in SINCE_PARTITION_AWARE and "PARTITION_AWARE" not in capabilities:
        return "TASK_LOST"
    if state == "TASK_KILLING" and "TASK_KILLING_STATE" not in capabilities:
        return "TASK_RUNNING"
    return state


def made_by_master(task_id: str, agent_id: str, state: str, *, now_s: float, **more: Any) -> dict[str, Any]:
    """A TaskStatus that nobody acknowledges: it has no uuid. `more` is `reason`, `message`, `healthy` …"""
    status: dict[str, Any] = {
        "task_id": {"value": task_id},
        "state": state,
        "source": "SOURCE_MASTER",
        "timestamp": now_s,
    }
    if agent_id:
        status["agent_id"] = {"value": agent_id}
    status.update({k: v for k, v in more.items() if v not in (None, "")})
    return status


def update_event(status: Json) -> dict[str, Any]:
    return {"type": "UPDATE", "update": {"status": status}}


def text_of(value: object) -> str:
    """`{"value": "x"}` -> "x"; anything else is "". For ids in JSON that frameworks sent."""
    if isinstance(value, Mapping):
        inner = value.get("value")
        return inner if isinstance(inner, str) else ""
    return ""


def labels_of(holder: object) -> dict[str, str]:
    """Mesos' `{"labels": [{"key", "value"}]}` as a mapping; the first of equal keys wins, junk is left out."""
    out: dict[str, str] = {}
    items = holder.get("labels") if isinstance(holder, Mapping) else None
    for item in items if isinstance(items, list | tuple) else ():
        if isinstance(item, Mapping) and isinstance(item.get("key"), str):
            out.setdefault(item["key"], str(item.get("value") or ""))
    return out

"""What is kept of a task that is over: who it was and how it ended, in a few kilobytes, whatever it was given.

A thousand finished tasks are remembered; with an environment of 4 MB each they would be 4 GB.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

Json = Mapping[str, Any]
MOST_BYTES = 4096
"""Of a TaskInfo, and of a TaskStatus."""
MESSAGE_MOST = 1000
TASK_KEYS = (
    "task_id",
    "agent_id",
    "name",
    "resources",
    "labels",
    "discovery",
    "health_check",
    "kill_policy",
    "container",
)
"""The most telling first: what does not fit any more is left out. Command, executor and data always are."""
STATUS_KEYS = (
    "task_id",
    "agent_id",
    "state",
    "uuid",
    "source",
    "reason",
    "timestamp",
    "healthy",
    "executor_id",
    "message",
    "container_status",
    "labels",
)


def brief_task(info: Json) -> dict[str, Any]:
    return _fitting(info, TASK_KEYS)


def brief_status(status: Json) -> dict[str, Any]:
    message = status.get("message")
    cut = (
        {"message": f"{message[:MESSAGE_MOST]}..."} if isinstance(message, str) and len(message) > MESSAGE_MOST else {}
    )
    return _fitting({**status, **cut}, STATUS_KEYS)


def _fitting(value: Json, keys: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    left_bytes = MOST_BYTES
    for key in keys:
        if key in value:
            size_bytes = len(msgspec.json.encode(value[key]))
            if size_bytes <= left_bytes:
                out[key] = value[key]
                left_bytes -= size_bytes
    return out

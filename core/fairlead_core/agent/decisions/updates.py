"""One task's status updates: in order, the next only after the acknowledgement of the one before."""

from collections.abc import Mapping
from typing import Any

import msgspec

TERMINAL = frozenset({
    "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_DROPPED", "TASK_GONE", "TASK_LOST",
})  # fmt: skip
FIRST_RETRY_S = 10.0
LAST_RETRY_S = 600.0


class Stream(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`pending` are the statuses not acknowledged yet, oldest first; `latest` is the last one made."""

    pending: tuple[Mapping[str, Any], ...] = ()
    latest: Mapping[str, Any] = msgspec.field(default_factory=dict)


def add(stream: Stream, status: Mapping[str, Any]) -> Stream:
    return Stream(pending=(*stream.pending, status), latest=status)


def acknowledge(stream: Stream, uuid: str) -> Stream:
    """Only the head can be acknowledged: a stale or repeated acknowledgement changes nothing."""
    if not stream.pending or stream.pending[0]["uuid"] != uuid:
        return stream
    return msgspec.structs.replace(stream, pending=stream.pending[1:])


def drop(stream: Stream) -> Stream:
    """Nobody waits for them any more."""
    return msgspec.structs.replace(stream, pending=())


def head(stream: Stream) -> Mapping[str, Any] | None:
    return stream.pending[0] if stream.pending else None


def terminal(status: Mapping[str, Any]) -> bool:
    return status.get("state") in TERMINAL


def settled(stream: Stream) -> bool:
    """The terminal update has been acknowledged: nothing is left to say."""
    return terminal(stream.latest) and not stream.pending


def retry_s(sent: int) -> float:
    """How long to wait for the acknowledgement of an update that was sent `sent` times."""
    return float(min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(max(0, sent - 1), 16)))

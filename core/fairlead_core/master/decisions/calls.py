"""Calls of the v1 scheduler API: what they look like, and why one is refused, in Mesos' words."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from fairlead_core import bodies, shapes
from fairlead_core.shapes import DURATION_MOST_S
from fairlead_daemon.errors import Refused

Info = dict[str, Any]
NAME_LIMIT = 255


class Value(msgspec.Struct, frozen=True):
    value: str


class Filters(msgspec.Struct, frozen=True):
    refuse_seconds: float | None = None


class Subscribe(msgspec.Struct, frozen=True):
    framework_info: Info
    suppressed_roles: list[str] = []
    force: bool | None = None


class Operation(msgspec.Struct, frozen=True):
    type: str
    id: Value | None = None
    launch: "Launch | None" = None
    launch_group: "LaunchGroup | None" = None


class Launch(msgspec.Struct, frozen=True):
    task_infos: list[Info] = []


class TaskGroup(msgspec.Struct, frozen=True):
    tasks: list[Info] = []


class LaunchGroup(msgspec.Struct, frozen=True):
    task_group: TaskGroup = TaskGroup()


class Accept(msgspec.Struct, frozen=True):
    offer_ids: list[Value] = []
    operations: list[Operation] = []
    filters: Filters | None = None


class Decline(msgspec.Struct, frozen=True):
    offer_ids: list[Value] = []
    filters: Filters | None = None


class InverseAnswer(msgspec.Struct, frozen=True):
    inverse_offer_ids: list[Value] = []
    filters: Filters | None = None


class Roles(msgspec.Struct, frozen=True):
    role: str | None = None
    roles: list[str] = []

    def named(self) -> tuple[str, ...]:
        return (*self.roles, *((self.role,) if self.role else ()))


class Kill(msgspec.Struct, frozen=True):
    task_id: Value
    agent_id: Value | None = None
    kill_policy: Info | None = None


class Why(msgspec.Struct, frozen=True):
    """Our own extra key beside `kill`: why the task is to go (records.Reason); balancers are told."""

    reason: str = "kill"


class ExecutorCall(msgspec.Struct, frozen=True):
    """SHUTDOWN, and MESSAGE with `data` (Base64)."""

    executor_id: Value
    agent_id: Value | None = None
    data: str = ""


class Acknowledge(msgspec.Struct, frozen=True):
    agent_id: Value
    task_id: Value
    uuid: str


class ReconcileTask(msgspec.Struct, frozen=True):
    task_id: Value
    agent_id: Value | None = None


class Reconcile(msgspec.Struct, frozen=True):
    tasks: list[ReconcileTask] = []


class Call(msgspec.Struct, frozen=True):
    type: str = ""
    framework_id: Value | None = None
    subscribe: Subscribe | None = None
    accept: Accept | None = None
    decline: Decline | None = None
    accept_inverse_offers: InverseAnswer | None = None
    decline_inverse_offers: InverseAnswer | None = None
    revive: Roles | None = None
    suppress: Roles | None = None
    kill: Kill | None = None
    shutdown: ExecutorCall | None = None
    acknowledge: Acknowledge | None = None
    reconcile: Reconcile | None = None
    message: ExecutorCall | None = None
    update_framework: Subscribe | None = None
    fairlead: Why | None = None


NEEDS_PAYLOAD = frozenset(
    {
        "SUBSCRIBE",
        "ACCEPT",
        "DECLINE",
        "ACCEPT_INVERSE_OFFERS",
        "DECLINE_INVERSE_OFFERS",
        "KILL",
        "SHUTDOWN",
        "ACKNOWLEDGE",
        "RECONCILE",
        "MESSAGE",
        "UPDATE_FRAMEWORK",
    }
)
KNOWN = NEEDS_PAYLOAD | {
    "UNKNOWN",
    "TEARDOWN",
    "REVIVE",
    "SUPPRESS",
    "REQUEST",
    "ACKNOWLEDGE_OPERATION_STATUS",
    "RECONCILE_OPERATIONS",
}
_decoder = msgspec.json.Decoder(Call, strict=False)


def parse(body: bytes) -> Call:
    """Raises Refused with Mesos' message and the place in the JSON."""
    try:
        return bodies.decode(_decoder, body)
    except msgspec.ValidationError as error:
        raise Refused(f"Failed to convert JSON into Call protobuf: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"Failed to parse body into JSON: {error}") from error


def validate(call: Call) -> None:
    """Raises Refused as Mesos' scheduler::call::validate, in its order."""
    problem = _problem(call)
    if problem:
        raise Refused(f"Failed to validate scheduler::Call: {problem}")


def _problem(call: Call) -> str:
    if not call.type:
        return "Expecting 'type' to be present"
    if call.type not in KNOWN:
        return f"'{call.type}' is not a call type"
    if call.type in NEEDS_PAYLOAD and getattr(call, call.type.lower()) is None:
        return f"Expecting '{call.type.lower()}' to be present"
    if call.type == "SUBSCRIBE":
        return _subscribe_problem(call)
    if call.framework_id is None and call.type != "UNKNOWN":
        return "Expecting 'framework_id' to be present"
    if call.type == "UPDATE_FRAMEWORK":
        return _subscribe_problem(call)
    return ""


def _subscribe_problem(call: Call) -> str:
    subscribe = call.subscribe or call.update_framework
    assert subscribe is not None
    info = subscribe.framework_info
    if wrong := shapes.problem(shapes.Framework, info, place="framework_info"):
        return wrong
    inner = info.get("id")
    inner_id = inner.get("value", "") if isinstance(inner, Mapping) else ""
    if (call.framework_id.value if call.framework_id else "") != (inner_id or ""):
        return "'framework_id' differs from 'subscribe.framework_info.id'"
    if inner_id and (bad := id_problem(inner_id)):
        return f"'subscribe.framework_info.id' {bad}"
    return next((p for check in _FRAMEWORK_CHECKS if (p := check(info))), "")


def roles_of(info: Mapping[str, Any]) -> tuple[str, ...]:
    if _multi_role(info):
        return tuple(dict.fromkeys(str(r) for r in info.get("roles") or ()))
    return (str(info.get("role") or "*"),)


def _multi_role(info: Mapping[str, Any]) -> bool:
    return any(isinstance(c, Mapping) and c.get("type") == "MULTI_ROLE" for c in info.get("capabilities") or ())


def _name_problem(info: Info) -> str:
    for key in ("user", "name"):
        if not isinstance(info.get(key), str):
            return f"'framework_info.{key}' is required and must be a string"
    return ""


def _shape_problem(info: Info) -> str:
    for key in ("capabilities", "roles"):
        if not isinstance(info.get(key) or [], list):
            return f"'framework_info.{key}' must be an array"
    timeout = info.get("failover_timeout", 0.0)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= DURATION_MOST_S:
        return f"The framework failover_timeout ({timeout}) is invalid"
    return ""


def _role_problem(info: Info) -> str:
    if _multi_role(info) and info.get("role"):
        return "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
    if not _multi_role(info) and info.get("roles"):
        return "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
    return next((p for role in roles_of(info) if (p := role_problem(role))), "")


_FRAMEWORK_CHECKS: tuple[Callable[[Info], str], ...] = (_name_problem, _shape_problem, _role_problem)


def role_problem(role: str) -> str:
    if role == "*":
        return ""
    for part in role.split("/"):
        if part in {"", ".", ".."} or part.startswith("-"):
            return f"Role '{role}' is invalid: a part may not be empty, '.', '..' or start with '-'"
        if part == "*" or any(c.isspace() or ord(c) < 0x20 or c == "\x7f" for c in part):
            return f"Role '{role}' is invalid: it contains a forbidden character"
    return ""


def id_problem(text: str) -> str:
    """Why a task, executor, framework or agent id is none, or ""."""
    if not text:
        return "ID must not be empty"
    if len(text.encode()) > NAME_LIMIT:
        return f"ID must not be greater than {NAME_LIMIT} characters"
    if text in {".", ".."}:
        return f"'{text}' is disallowed"
    if any(c in "/\\" or ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        return f"'{text}' contains invalid characters"
    return ""

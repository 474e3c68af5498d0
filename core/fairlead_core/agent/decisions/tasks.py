"""What a TaskInfo asks of the agent, as far as the agent knows it. Unknown keys are ignored, as in Mesos."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from fairlead_core.agent.decisions.life import DEFAULT_GRACE_S
from fairlead_core.resources import Range, from_mesos
from fairlead_daemon.errors import Refused

Mesos = Mapping[str, Any]
T = TypeVar("T")


class Value(msgspec.Struct, frozen=True):
    value: str


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: str | None = None
    type: str = "VALUE"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    variables: tuple[Variable, ...] = ()


class Uri(msgspec.Struct, frozen=True, kw_only=True):
    value: str
    executable: bool = False
    extract: bool = True
    output_file: str = ""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """`shell` true: `value` for /bin/sh -c. False: `value` is the program, `arguments` its argv, argv[0] included."""

    value: str = ""
    arguments: tuple[str, ...] = ()
    shell: bool = True
    environment: Environment = Environment()
    uris: tuple[Uri, ...] = ()
    user: str = ""


class HttpCheck(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    path: str = "/"
    scheme: str = "http"
    statuses: tuple[int, ...] = ()


class TcpCheck(msgspec.Struct, frozen=True, kw_only=True):
    port: int


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Mesos' HealthCheck with its defaults; older frameworks leave `type` out."""

    type: str = ""
    delay_seconds: float = 15.0
    interval_seconds: float = 10.0
    timeout_seconds: float = 20.0
    consecutive_failures: int = 3
    grace_period_seconds: float = 10.0
    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    command: Command | None = None

    def kind(self) -> str:
        """HTTP, TCP, COMMAND, or "" when what it needs is missing."""
        given = {"HTTP": self.http, "TCP": self.tcp, "COMMAND": self.command}
        names = [name for name, value in given.items() if value is not None and self.type in {"", "UNKNOWN", name}]
        return names[0] if names else ""


class Nanoseconds(msgspec.Struct, frozen=True, kw_only=True):
    nanoseconds: int


class KillPolicy(msgspec.Struct, frozen=True, kw_only=True):
    grace_period: Nanoseconds | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "MESOS"
    mesos: Mesos | None = None
    docker: Mesos | None = None
    volumes: tuple[Mesos, ...] = ()


class Executor(msgspec.Struct, frozen=True, kw_only=True):
    executor_id: Value
    command: Command | None = None
    type: str = "CUSTOM"
    name: str = ""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    task_id: Value
    name: str = ""
    command: Command | None = None
    executor: Executor | None = None
    container: Container | None = None
    health_check: HealthCheck | None = None
    kill_policy: KillPolicy = KillPolicy()
    resources: tuple[Mesos, ...] = ()
    labels: Any = None

    def told(self) -> Mapping[str, str]:
        """Its labels; what is none is left out."""
        items = self.labels.get("labels") if isinstance(self.labels, Mapping) else None
        pairs = [i for i in items if isinstance(i, Mapping)] if isinstance(items, Sequence) else []
        return {str(i.get("key")): str(i.get("value") or "") for i in reversed(pairs)}

    def grace_s(self) -> float:
        period = self.kill_policy.grace_period
        return DEFAULT_GRACE_S if period is None else max(0.0, period.nanoseconds / 1e9)

    def ports(self) -> tuple[Range, ...]:
        return from_mesos(self.resources).ports()


class Framework(msgspec.Struct, frozen=True, kw_only=True):
    id: Value
    name: str = ""
    user: str = ""
    capabilities: tuple[Mesos, ...] = ()
    checkpoint: bool = False

    def can(self, capability: str) -> bool:
        return any(c.get("type") == capability for c in self.capabilities)


def read(kind: type[T], value: Mesos, *, place: str) -> T:
    """Raises Refused with the path of the field, as in `task.command.uris[0].value: Expected str`."""
    try:
        return msgspec.convert({k: v for k, v in value.items() if v is not None}, kind, strict=False)
    except msgspec.ValidationError as error:
        text, _, path = str(error).rpartition(" - at `$")
        raise Refused(f"{place}{path.rstrip('`')}: {text}" if text else f"{place}: {error}") from error


def key(framework_id: str, task_id: str) -> str:
    """What the keeper knows a task by. Neither id may hold a `/`, so no two share one."""
    return f"{framework_id}/{task_id}"


def executor_key(framework_id: str, executor_id: str) -> str:
    return f"{framework_id}//{executor_id}"


ID_LIMIT_BYTES = 255  # NAME_MAX: ids are folder names


def bad_id(value: str) -> str:
    """Why it cannot be an id, by Mesos' rules; "" when it can."""
    if value in {"", ".", ".."}:
        return "is no id"
    if len(value.encode()) > ID_LIMIT_BYTES:
        return f"is longer than {ID_LIMIT_BYTES} bytes"
    if any(c in "/\\" or ord(c) < 32 or ord(c) == 127 for c in value):
        return "holds a slash, backslash or control character"
    return ""


def refusal(task: Task) -> str:
    """Why this agent cannot run it; "" when it can."""
    container = task.container
    if container is not None and (container.type != "MESOS" or (container.mesos or {}).get("image")):
        return "container images are not supported by this agent"
    if container is not None and container.volumes:
        return "volumes are not supported by this agent"
    if task.health_check is not None and not task.health_check.kind():
        return f"health_check: type {task.health_check.type!r} without what it needs"
    if task.executor is None and task.command is None:
        return "neither command nor executor"
    command = task.command or (task.executor.command if task.executor else None)
    if command is None:
        return "executor.command: missing; only custom executors are supported by this agent"
    return _command_refusal(command)


def _command_refusal(command: Command) -> str:
    if not argv(command):
        return "command: neither value nor arguments"
    secret = next((v.name for v in command.environment.variables if v.type != "VALUE"), None)
    if secret is not None:
        return f"environment variable {secret}: secrets are not supported by this agent"
    texts = (*argv(command), *(f"{v.name}{v.value}" for v in command.environment.variables))
    if any("\0" in text for text in texts):
        return "command: a NUL character cannot be passed to a program"
    if any("=" in v.name or not v.name for v in command.environment.variables):
        return "environment: a variable's name is empty or holds a `=`"
    return ""


def argv(command: Command) -> tuple[str, ...]:
    if command.shell:
        return ("/bin/sh", "-c", command.value) if command.value else ()
    if command.value:
        return (command.value, *command.arguments[1:])
    return command.arguments


SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(command: Command, *, task_id: str, sandbox: str, home_variables: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the agent's own environment but `home_variables` (language, time zone); the framework's wins."""
    given = {v.name: v.value or "" for v in command.environment.variables}
    return {
        "PATH": SAFE_PATH,
        "HOME": sandbox,
        **home_variables,
        **given,
        "MESOS_TASK_ID": task_id,
        "MESOS_SANDBOX": sandbox,
        "MESOS_DIRECTORY": sandbox,
    }

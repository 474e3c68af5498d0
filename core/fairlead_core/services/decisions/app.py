"""An app: Marathon's service definition as frozen values, and the same as Marathon's JSON.

Field names are Marathon's in snake case; `msgspec` renames them. Units: memory and disk in MB, times in seconds.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of what a definition is made of: unknown keys are refused, not dropped."""


class PortDefinition(Value, frozen=True, kw_only=True):
    """`port` is the service port, and the host port too with `require_ports`."""

    port: int = 0
    name: str | None = None
    protocol: str = "tcp"
    labels: dict[str, str] = {}


class Command(Value, frozen=True, kw_only=True):
    value: str


Protocol = Literal["HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP"]


class HealthCheck(Value, frozen=True, kw_only=True):
    """All of them are run by the agent; the MESOS_ names mean the same."""

    protocol: Protocol = "HTTP"
    path: str | None = None
    port: int | None = None
    port_index: int | None = None
    command: Command | None = None
    grace_period_seconds: int = 300
    interval_seconds: int = 60
    timeout_seconds: int = 20
    max_consecutive_failures: int = 3
    delay_seconds: int | None = None
    """Seconds before the first check. Not given is 0 here: Mesos' 15 would only make every start slower."""
    ip_protocol: str | None = None
    ignore_http1xx: bool | None = None

    @property
    def kind(self) -> str:
        """HTTP, HTTPS, TCP or COMMAND."""
        return self.protocol.removeprefix("MESOS_")


class Fetch(Value, frozen=True, kw_only=True):
    uri: str
    extract: bool = True
    executable: bool = False
    cache: bool = False
    dest_path: str | None = None


class UpgradeStrategy(Value, frozen=True, kw_only=True):
    """Shares of `instances`: never fewer healthy ones, never more at all."""

    minimum_health_capacity: float = 1.0
    maximum_over_capacity: float = 1.0


class UnreachableStrategy(Value, frozen=True, kw_only=True):
    inactive_after_seconds: int = 0
    expunge_after_seconds: int = 0


class VersionInfo(Value, frozen=True, kw_only=True):
    last_scaling_at: str
    last_config_change_at: str


class Network(Value, frozen=True, kw_only=True):
    mode: str = "host"
    name: str | None = None
    labels: dict[str, str] = {}


class App(Value, frozen=True, kw_only=True):
    """One version of an app. Instances are up to date when their version is `config_version`."""

    id: str
    cmd: str | None = None
    args: tuple[str, ...] | None = None
    user: str | None = None
    env: dict[str, str] = {}
    instances: int = 1
    cpus: float = 1.0
    mem: float = 128.0
    disk: float = 0.0
    gpus: int = 0
    executor: str = ""
    constraints: tuple[tuple[str, ...], ...] = ()
    fetch: tuple[Fetch, ...] = ()
    port_definitions: tuple[PortDefinition, ...] = ()
    require_ports: bool = False
    backoff_seconds: float = 1.0
    backoff_factor: float = 1.15
    max_launch_delay_seconds: float = 300.0
    health_checks: tuple[HealthCheck, ...] = ()
    dependencies: tuple[str, ...] = ()
    upgrade_strategy: UpgradeStrategy = UpgradeStrategy()
    labels: dict[str, str] = {}
    accepted_resource_roles: tuple[str, ...] | None = None
    role: str | None = None
    kill_selection: Literal["YOUNGEST_FIRST", "OLDEST_FIRST"] = "YOUNGEST_FIRST"
    unreachable_strategy: UnreachableStrategy | Literal["disabled"] = UnreachableStrategy()
    task_kill_grace_period_seconds: float | None = None
    networks: tuple[Network, ...] = (Network(),)
    version: str = ""
    version_info: VersionInfo | None = None

    @property
    def config_version(self) -> str:
        return self.version_info.last_config_change_at if self.version_info is not None else self.version

    @property
    def service_ports(self) -> tuple[int, ...]:
        return tuple(d.port for d in self.port_definitions)

    @property
    def checked(self) -> bool:
        """Whether the agent checks its tasks' health."""
        return bool(self.health_checks)


def without_nothing(value: Any) -> Any:
    """The same JSON without keys whose value is null, and with whole numbers written as such, as Marathon does."""
    if isinstance(value, Mapping):
        return {k: without_nothing(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [without_nothing(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def definition_json(app: App) -> dict[str, Any]:
    """As Marathon shows it, without what is counted: absent values are left out, `ports` repeats the service ports."""
    shown: dict[str, Any] = without_nothing(msgspec.to_builtins(app))
    shown["storeUrls"] = []
    shown["ports"] = list(app.service_ports)
    shown["constraints"] = [list(c) for c in app.constraints]
    if app.unreachable_strategy == "disabled":
        shown["unreachableStrategy"] = "disabled"
    return shown


def same_config(one: App, other: App) -> bool:
    """Whether going from one to the other leaves running tasks as they are: at most `instances` differs."""
    return _config(one) == _config(other)


def _config(app: App) -> App:
    return msgspec.structs.replace(app, instances=0, version="", version_info=None)

"""What the daemons answer, as far as the page needs it; unknown keys are ignored. Defaults are what older ones lack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """A daemon's last good answer, if any, and why there is no newer one ("" when it is fresh).

    `seen` is the wall clock of the good one, as text (`10:14:08`). `off`: nobody is asked, by setting.
    """

    value: T | None = None
    why: str = ""
    seen: str = ""
    off: bool = False
    answered: bool = False
    """It runs: `why` is about what it said."""


class Health(msgspec.Struct, frozen=True):
    alive: bool = False


class Task(msgspec.Struct, frozen=True, rename={"app": "appId", "agent": "slaveId", "checks": "healthCheckResults"}):
    """Of `GET /v2/tasks`."""

    id: str
    app: str = ""
    agent: str = ""
    host: str = ""
    state: str = ""
    ports: tuple[int, ...] = ()
    checks: tuple[Health, ...] = ()


class Tasks(msgspec.Struct, frozen=True):
    tasks: tuple[Task, ...] = ()


class App(
    msgspec.Struct,
    frozen=True,
    rename={
        "staged": "tasksStaged",
        "running": "tasksRunning",
        "healthy": "tasksHealthy",
        "unhealthy": "tasksUnhealthy",
        "checks": "healthChecks",
    },
):
    """Of `GET /v2/apps`."""

    id: str
    instances: int = 0
    staged: int = 0
    running: int = 0
    healthy: int = 0
    unhealthy: int = 0
    checks: tuple[Any, ...] = ()
    deployments: tuple[Any, ...] = ()


class Apps(msgspec.Struct, frozen=True):
    apps: tuple[App, ...] = ()


class Node(msgspec.Struct, frozen=True):
    """Of `GET /slaves`. Resources are numbers by name, ports as text."""

    id: str
    hostname: str = ""
    pid: str = ""
    active: bool = True
    deactivated: bool = False
    connected: bool = True
    suspect: bool = False
    attributes: Mapping[str, Any] = {}
    resources: Mapping[str, float | str] = {}
    used_resources: Mapping[str, float | str] = {}
    offered_resources: Mapping[str, float | str] = {}
    drain_info: Mapping[str, Any] = {}


class Nodes(msgspec.Struct, frozen=True):
    slaves: tuple[Node, ...] = ()


class Server(msgspec.Struct, frozen=True):
    task: str = ""
    host: str = ""
    port: int = 0
    state: str = ""


class Backend(msgspec.Struct, frozen=True):
    service: str
    backend: str
    mode: str = "http"
    service_port: int = 0
    hosts: tuple[str, ...] = ()
    servers: tuple[Server, ...] = ()


class Balancer(msgspec.Struct, frozen=True):
    """Of the balancer's `GET /status`. `refused` is why a service has no route, by its key."""

    applied_revision: int | None = None
    revision: int | None = None
    trust: str = "unknown"
    last_error: str = ""
    refused: Mapping[str, Any] = {}
    services: tuple[Backend, ...] = ()


class LinkEntry(msgspec.Struct, frozen=True):
    """Of messaging's `GET /status`."""

    upstream: str = ""
    broker: str = ""
    vhost: str = ""
    kind: str = ""
    name: str = ""
    state: str = "unknown"
    why: str = ""


class LinksPage(msgspec.Struct, frozen=True):
    links: tuple[LinkEntry, ...]


class AlertEntry(msgspec.Struct, frozen=True):
    """Of the monitor's `GET /api/alerts`."""

    rule: str
    state: str
    severity: str = ""
    summary: str = ""
    labels: Mapping[str, str] = {}
    since_s: float = 0.0
    silenced: bool = False


class AlertsPage(msgspec.Struct, frozen=True):
    alerts: tuple[AlertEntry, ...]


class SeriesEntry(msgspec.Struct, frozen=True):
    """Of the monitor's `GET /api/series`. Points are (seconds since 1970, value)."""

    points: tuple[tuple[float, float], ...] = ()


class SeriesPage(msgspec.Struct, frozen=True):
    series: tuple[SeriesEntry, ...]

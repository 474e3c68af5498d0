"""One instance, and what a status update makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_core.services.decisions.app import App
from fairlead_core.services.decisions.constraints import Place

INTENDED = "INTENDED"
"""Recorded, and perhaps not yet known to the master."""
ENDED = frozenset(
    {
        "TASK_FINISHED",
        "TASK_FAILED",
        "TASK_KILLED",
        "TASK_ERROR",
        "TASK_DROPPED",
        "TASK_GONE",
        "TASK_LOST",
        "TASK_GONE_BY_OPERATOR",
        "TASK_UNKNOWN",
    }
)
STARTING = frozenset({INTENDED, "TASK_STAGING", "TASK_STARTING"})
FAILURES = frozenset({"TASK_FAILED", "TASK_FINISHED", "TASK_ERROR"})
"""Ends that are the app's own doing: they make the next launch wait."""


class Instance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is recorded of a task. Times are seconds since 1970; `version` is the configuration's."""

    id: str
    app: str
    version: str
    agent: str = ""
    hostname: str = ""
    attributes: dict[str, str] = {}
    zone: str = ""
    region: str = ""
    role: str = "*"
    ports: tuple[int, ...] = ()
    state: str = INTENDED
    healthy: bool | None = None
    staged_s: float = 0.0
    started_s: float = 0.0
    leaving: str = ""
    """Why we asked for its end (records.Reason), "" while it is wanted."""
    unreachable_s: float = 0.0
    """Since when, 0 while it is in reach."""
    expunged: bool = False
    """Given up; kept so that it is known again should its agent come back."""
    addresses: tuple[str, ...] = ()
    checked: bool = False
    """Whether its configuration has a health check."""

    @property
    def place(self) -> Place:
        return Place(hostname=self.hostname, attributes=self.attributes, zone=self.zone, region=self.region)

    @property
    def going(self) -> bool:
        """On its way out: asked to end, or seen ending."""
        return bool(self.leaving) or self.state == "TASK_KILLING"

    @property
    def ready(self) -> bool:
        """RUNNING and, if it is checked, healthy."""
        return self.state == "TASK_RUNNING" and (
            self.healthy is True or (not self.checked and self.healthy is not False)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What a status update did. `app` is "" when the task is none of ours; `state` is "" when nothing changed."""

    app: str = ""
    task: str = ""
    before: Instance | None = None
    after: Instance | None = None
    ended: bool = False
    failed: bool = False


def updated(instance: Instance, status: Mapping[str, Any], *, now_s: float) -> Instance:
    """The instance after a status that does not end it. What a status does not say stays as it was."""
    state = str(status.get("state", instance.state))
    when_s = float(status.get("timestamp") or now_s)
    running = state == "TASK_RUNNING"
    away = state == "TASK_UNREACHABLE"
    healthy = status.get("healthy")
    return msgspec.structs.replace(
        instance,
        state=state,
        agent=instance.agent or _value(status.get("agent_id")),
        healthy=bool(healthy) if healthy is not None else (None if away else instance.healthy),
        started_s=instance.started_s or (when_s if running else 0.0),
        unreachable_s=(instance.unreachable_s or _unreachable_s(status, when_s)) if away else 0.0,
        expunged=instance.expunged and away,
        addresses=_addresses(status) or instance.addresses,
    )


def _value(wrapped: Mapping[str, Any] | None) -> str:
    return str((wrapped or {}).get("value", ""))


def _unreachable_s(status: Mapping[str, Any], when_s: float) -> float:
    nanoseconds = (status.get("unreachable_time") or {}).get("nanoseconds")
    return float(nanoseconds) / 1e9 if nanoseconds else when_s


def _addresses(status: Mapping[str, Any]) -> tuple[str, ...]:
    networks = (status.get("container_status") or {}).get("network_infos") or ()
    found = (a.get("ip_address", "") for n in networks for a in n.get("ip_addresses") or ())
    return tuple(dict.fromkeys(a for a in found if a))


def inactive(instance: Instance, app: App | None, *, now_s: float) -> bool:
    """Whether an unreachable instance counts no more and is replaced."""
    after = _patience(app, "inactive_after_seconds")
    return instance.unreachable_s > 0 and after is not None and now_s - instance.unreachable_s >= after


def expunges(instance: Instance, app: App | None, *, now_s: float) -> bool:
    """Whether an unreachable instance is given up."""
    after = _patience(app, "expunge_after_seconds")
    return instance.unreachable_s > 0 and after is not None and now_s - instance.unreachable_s >= after


def _patience(app: App | None, name: str) -> int | None:
    if app is None or app.unreachable_strategy == "disabled":
        return None
    return int(getattr(app.unreachable_strategy, name))

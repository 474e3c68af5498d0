"""TaskStatus objects as Mesos' v1 API has them."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from fairlead_core.agent.decisions.life import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What every status of a task carries."""

    task_id: str
    agent_id: str
    executor_id: str
    ip: str
    container_id: str


def status(origin: Origin, report: Report, *, uuid: bytes, at_s: float) -> dict[str, Any]:
    """`uuid` is 16 bytes; it names this update until it is acknowledged."""
    out: dict[str, Any] = {
        "task_id": {"value": origin.task_id},
        "agent_id": {"value": origin.agent_id},
        "executor_id": {"value": origin.executor_id},
        "state": report.state,
        "source": report.source,
        "timestamp": at_s,
        "uuid": b64encode(uuid).decode(),
        "container_status": container_status(origin),
    }
    optional = {"message": report.message, "reason": report.reason}
    out.update({name: value for name, value in optional.items() if value})
    if report.healthy is not None:
        out["healthy"] = report.healthy
    return out


def container_status(origin: Origin) -> dict[str, Any]:
    addresses = [{"protocol": "IPv6" if ":" in origin.ip else "IPv4", "ip_address": origin.ip}]
    return {
        "container_id": {"value": origin.container_id},
        "network_infos": [{"ip_addresses": addresses}],
    }

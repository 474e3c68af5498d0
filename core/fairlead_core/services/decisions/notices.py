"""Events in Marathon's words: what its event stream tells."""

from collections.abc import Iterator, Mapping
from typing import Any

from fairlead_core.services.decisions import naming
from fairlead_core.services.decisions.instances import Happened, Instance


def notice(event_type: str, stamp: str, **fields: Any) -> dict[str, Any]:
    return {"eventType": event_type, "timestamp": stamp, **fields}


def notices(happened: Happened, status: Mapping[str, Any], *, stamp: str) -> Iterator[dict[str, Any]]:
    """Of a status update: the task's new state, and its instance's health if that changed."""
    one = happened.after or happened.before
    if one is None:
        return
    if happened.ended or happened.before is None or happened.before.state != one.state:
        yield _status(one, status, stamp)
    if happened.after is not None and happened.before is not None and happened.before.healthy != one.healthy:
        yield notice(
            "instance_health_changed_event",
            stamp,
            instanceId=naming.instance_of_task(one.id),
            runSpecId=one.app,
            runSpecVersion=one.version,
            healthy=one.healthy,
        )


def _status(one: Instance, status: Mapping[str, Any], stamp: str) -> dict[str, Any]:
    return notice(
        "status_update_event",
        stamp,
        slaveId=one.agent,
        taskId=one.id,
        taskStatus=status.get("state"),
        message=str(status.get("message", "")),
        appId=one.app,
        host=one.hostname,
        ipAddresses=[{"ipAddress": a, "protocol": "IPv4"} for a in one.addresses],
        ports=list(one.ports),
        version=one.version,
    )

"""Marathon's JSON for instances and counts. marathon-python refuses every key that Marathon did not have."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairlead_core.services.decisions import naming
from fairlead_core.services.decisions.app import App
from fairlead_core.services.decisions.instances import INTENDED, STARTING, Instance


def task_json(instance: Instance, app: App | None) -> dict[str, Any]:
    """One entry of `/v2/tasks`."""
    state = "TASK_STAGING" if instance.state == INTENDED else instance.state
    shown: dict[str, Any] = {
        "id": instance.id,
        "appId": instance.app,
        "host": instance.hostname,
        "slaveId": instance.agent,
        "state": "TASK_KILLING" if instance.leaving and state == "TASK_RUNNING" else state,
        "ports": list(instance.ports),
        "servicePorts": list(app.service_ports) if app is not None else [],
        "ipAddresses": [{"ipAddress": a, "protocol": "IPv6" if ":" in a else "IPv4"} for a in instance.addresses],
        "stagedAt": naming.timestamp(instance.staged_s),
        "version": instance.version,
        "localVolumes": [],
        "role": instance.role,
    }
    if instance.started_s:
        shown["startedAt"] = naming.timestamp(instance.started_s)
    if instance.zone:
        shown["zone"] = instance.zone
    if instance.region:
        shown["region"] = instance.region
    if instance.healthy is not None:
        shown["healthCheckResults"] = [_health(instance)]
    return shown


def _health(instance: Instance) -> dict[str, Any]:
    return {
        "alive": instance.healthy,
        "consecutiveFailures": 0 if instance.healthy else 1,
        "taskId": instance.id,
        "instanceId": naming.instance_of_task(instance.id),
    }


def counts(instances: Iterable[Instance]) -> dict[str, int]:
    """What is on its way out is no longer counted."""
    staying = [i for i in instances if not i.going and not i.expunged]
    running = [i for i in staying if i.state == "TASK_RUNNING"]
    return {
        "tasksStaged": sum(i.state in STARTING for i in staying),
        "tasksRunning": len(running),
        "tasksHealthy": sum(i.healthy is True for i in running),
        "tasksUnhealthy": sum(i.healthy is False for i in running),
    }


def stats(groups: Mapping[str, Sequence[Instance]], *, now_s: float) -> dict[str, Any]:
    """Marathon's taskStats; a group without instances is left out."""
    return {name: {"stats": _stats(found, now_s)} for name, found in groups.items() if found}


def _stats(instances: Sequence[Instance], now_s: float) -> dict[str, Any]:
    count = counts(instances)
    ages = sorted(now_s - i.started_s for i in instances if i.started_s)
    shown: dict[str, Any] = {
        "counts": {
            "staged": count["tasksStaged"],
            "running": count["tasksRunning"],
            "healthy": count["tasksHealthy"],
            "unhealthy": count["tasksUnhealthy"],
        }
    }
    if ages:
        shown["lifeTime"] = {"averageSeconds": sum(ages) / len(ages), "medianSeconds": ages[len(ages) // 2]}
    return shown


def tasks_text(instances: Iterable[tuple[App, Sequence[Instance]]]) -> str:
    """`/v2/tasks` as text/plain: app, service port, then host:port of each running instance, by tabs."""
    lines = []
    for app, found in instances:
        name = app.id.strip("/").replace("/", "_")
        running = [i for i in found if i.state == "TASK_RUNNING" and not i.going]
        if not app.service_ports:
            lines.append("\t".join([name, " ", *(i.hostname for i in running)]))
        for index, service_port in enumerate(app.service_ports):
            hosts = [f"{i.hostname}:{i.ports[index]}" for i in running if index < len(i.ports)]
            lines.append("\t".join([name, str(service_port), *hosts]))
    return "".join(f"{line}\t\n" for line in lines)

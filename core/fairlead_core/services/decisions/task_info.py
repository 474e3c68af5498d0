"""TaskInfo: what the master and the agent are told of one instance, as Marathon told them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fairlead_core.resources import to_mesos
from fairlead_core.services.decisions import naming
from fairlead_core.services.decisions.app import App, HealthCheck, PortDefinition
from fairlead_core.services.decisions.matching import Launch
from fairlead_discovery.decisions import label_names

LABEL_LIMIT = 512
"""Longer label keys and values are no environment variables."""
SECOND_NS = 1_000_000_000


def task_info(launch: Launch, task_id: str) -> dict[str, Any]:
    """Mesos' v1 JSON; `MARATHON_APP_VERSION` and the label FAIRLEAD_APP_VERSION are the configuration's version."""
    app = launch.app
    info: dict[str, Any] = {
        "name": naming.task_name(app.id),
        "task_id": {"value": task_id},
        "agent_id": {"value": launch.offer.agent},
        "resources": to_mesos(launch.resources, allocated_to=launch.offer.role),
        "command": _command(launch, task_id),
        "labels": {"labels": [{"key": k, "value": v} for k, v in _labels(app).items()]},
        "discovery": discovery(app, launch.ports),
    }
    if app.health_checks:
        info["health_check"] = health_check(app.health_checks[0], launch.ports)
    if app.task_kill_grace_period_seconds is not None:
        nanoseconds = round(app.task_kill_grace_period_seconds * SECOND_NS)
        info["kill_policy"] = {"grace_period": {"nanoseconds": nanoseconds}}
    return info


def _labels(app: App) -> dict[str, str]:
    return {**app.labels, label_names.APP_ID: app.id, label_names.APP_VERSION: app.config_version}


def _command(launch: Launch, task_id: str) -> dict[str, Any]:
    app = launch.app
    command: dict[str, Any] = (
        {"shell": True, "value": app.cmd}
        if app.cmd is not None
        else {"shell": False, "value": (app.args or ("",))[0], "arguments": list(app.args or ())}
    )
    variables = environment(launch, task_id)
    command["environment"] = {"variables": [{"name": k, "value": v, "type": "VALUE"} for k, v in variables.items()]}
    if app.fetch:
        command["uris"] = [
            {
                "value": one.uri.removeprefix("file://"),
                "extract": one.extract,
                "executable": one.executable,
                "cache": one.cache,
                **({"output_file": one.dest_path} if one.dest_path else {}),
            }
            for one in app.fetch
        ]
    if app.user:
        command["user"] = app.user
    return command


def environment(launch: Launch, task_id: str) -> dict[str, str]:
    """The app's own variables win over ours."""
    app = launch.app
    ours = {
        "MARATHON_APP_ID": app.id,
        "MARATHON_APP_VERSION": app.config_version,
        "MARATHON_APP_RESOURCE_CPUS": f"{app.cpus:.3g}" if app.cpus < 1 else f"{app.cpus:g}",
        "MARATHON_APP_RESOURCE_MEM": f"{app.mem:g}",
        "MARATHON_APP_RESOURCE_DISK": f"{app.disk:g}",
        "MARATHON_APP_RESOURCE_GPUS": str(app.gpus),
        "MESOS_TASK_ID": task_id,
        "HOST": launch.offer.place.hostname,
        **dict(_label_variables(app.labels)),
        **dict(_port_variables(app.port_definitions, launch.ports)),
    }
    return {**ours, **app.env}


def _label_variables(labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    kept = {k: v for k, v in labels.items() if len(k) <= LABEL_LIMIT and len(v) <= LABEL_LIMIT and "\x00" not in k + v}
    names = {_variable(k): v for k, v in kept.items()}
    yield "MARATHON_APP_LABELS", " ".join(names)
    for name, value in names.items():
        yield f"MARATHON_APP_LABEL_{name}", value


def _port_variables(definitions: tuple[PortDefinition, ...], ports: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    if not ports:
        return
    yield "PORT", str(ports[0])
    yield "PORTS", ",".join(map(str, ports))
    for index, port in enumerate(ports):
        yield f"PORT{index}", str(port)
        definition = definitions[index]
        if definition.port:
            yield f"PORT_{definition.port}", str(port)
        if definition.name:
            yield f"PORT_{_variable(definition.name)}", str(port)


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())


def discovery(app: App, ports: tuple[int, ...]) -> dict[str, Any]:
    """Always given, as Marathon did: Mesos-DNS then makes SRV records by port name, of the host ports.

    First each definition's port by its first protocol, TCP if it has that, so that its index is the definition's, as in
    routes; then those that have a second one.
    """
    defined = [
        (d, number, sorted(d.protocol.split(","))) for d, number in zip(app.port_definitions, ports, strict=True)
    ]
    first = [(definition, number, protocols[0]) for definition, number, protocols in defined]
    second = [(definition, number, other) for definition, number, protocols in defined for other in protocols[1:]]
    return {
        "visibility": "FRAMEWORK",
        "name": naming.task_name(app.id),
        "ports": {
            "ports": [
                {
                    "number": number,
                    "protocol": protocol,
                    **({"name": definition.name} if definition.name else {}),
                    **_port_labels(definition),
                }
                for definition, number, protocol in (*first, *second)
            ]
        },
    }


def _port_labels(definition: PortDefinition) -> dict[str, Any]:
    if not definition.labels:
        return {}
    return {"labels": {"labels": [{"key": k, "value": v} for k, v in definition.labels.items()]}}


def health_check(check: HealthCheck, ports: tuple[int, ...]) -> dict[str, Any]:
    """Mesos' HealthCheck; the agent runs it and kills the task after the last allowed failure."""
    shape: dict[str, Any] = {
        "delay_seconds": float(check.delay_seconds or 0),
        "interval_seconds": float(check.interval_seconds),
        "timeout_seconds": float(check.timeout_seconds),
        "consecutive_failures": check.max_consecutive_failures,
        "grace_period_seconds": float(check.grace_period_seconds),
    }
    if check.kind == "COMMAND":
        return {
            **shape,
            "type": "COMMAND",
            "command": {"shell": True, "value": check.command.value if check.command else ""},
        }
    port = check.port if check.port is not None else ports[check.port_index or 0]
    if check.kind == "TCP":
        return {**shape, "type": "TCP", "tcp": {"port": port}}
    return {**shape, "type": "HTTP", "http": {"scheme": check.kind.lower(), "port": port, "path": check.path or "/"}}

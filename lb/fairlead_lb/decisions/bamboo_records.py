"""Bamboo's own records and answers: nodes of its ZooKeeper tree, services and apps as its API and templates know them."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.policies import Bamboo, of_kind
from fairlead_discovery.records import Member, Route
from fairlead_discovery.snapshots import Snapshot

NODE_LIMIT_BYTES = 64 * 1024


class _Node(msgspec.Struct, frozen=True):
    version: str
    config: dict[str, str] = {}


def app_of(name: str) -> str:
    """Bamboo's ids begin with a slash. Raises Refused for what names none."""
    app = unquote_plus(name, errors="strict")
    if not app.strip("/"):
        raise Refused("names no app")
    return f"/{app.lstrip('/')}"


def rule_of(framework: str, name: str, data: bytes) -> Bamboo:
    """The record of a node: version 2 is JSON, version 1 the ACL's plain text. Raises Refused."""
    if len(data) > NODE_LIMIT_BYTES:
        raise Refused(f"{len(data)} bytes: at most {NODE_LIMIT_BYTES}")
    try:
        service = paths.service_key(framework, app_of(name))
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Refused("not UTF-8") from error
    config = _config(text)
    acl = text if config is None else next((v for k, v in config.items() if k.lower() == "acl"), "")
    return Bamboo(service=service, acl=acl.strip(), config=_without_acl(config or {}))


def _config(text: str) -> Mapping[str, str] | None:
    """None when it is no record of version 2. Raises Refused for one of a later version."""
    try:
        raw = msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        return None
    if not isinstance(raw, dict):
        return None
    try:
        node = msgspec.convert(raw, _Node)
    except msgspec.ValidationError as error:
        raise Refused(str(error)) from error
    if node.version != "2":
        raise Refused(f"version {node.version[:80]!r}: only 2, and plain text, are known")
    return node.config


def _without_acl(config: Mapping[str, str]) -> Mapping[str, str]:
    return {k: v for k, v in config.items() if k.lower() != "acl"}


def asked(data: bytes, path_id: str, framework: str) -> Bamboo:
    """The rule in a request's body; its id wins over the path's, keys are in any case. Raises Refused."""
    try:
        raw = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused("Unable to decode JSON request") from error
    body = {key.lower(): value for key, value in raw.items()}
    app, acl, config = body.get("id") or path_id, body.get("acl") or "", body.get("config") or {}
    texts = isinstance(config, dict) and all(isinstance(v, str) for v in config.values())
    if not (isinstance(app, str) and isinstance(acl, str) and texts):
        raise Refused("Unable to decode JSON request: id and acl are texts, config holds texts")
    if not app.strip("/"):
        raise Refused("id: names no app")
    acl = acl or next((v for k, v in config.items() if k.lower() == "acl"), "")
    service = paths.service_key(framework, f"/{app.lstrip('/')}")
    return Bamboo(service=service, acl=acl.strip(), config=_without_acl(config))


def shown(rule: Bamboo) -> dict[str, Any]:
    """`{"Id","Acl","Config"}`."""
    app = paths.split_service_key(rule.service)[1]
    return {"Id": app, "Acl": rule.acl, "Config": {"Acl": rule.acl, **rule.config}}


def services(rules: Mapping[str, Bamboo], framework: str) -> dict[str, dict[str, Any]]:
    """By id, of the apps of our framework."""
    ours = (rule for rule in rules.values() if paths.split_service_key(rule.service)[0] == framework)
    return {one["Id"]: one for one in sorted(map(shown, ours), key=lambda s: str(s["Id"]))}


def rules_of(snapshot: Snapshot) -> Mapping[str, Bamboo]:
    return of_kind(snapshot.policies, Bamboo)


# --- apps


Definition = Mapping[str, Any]
"""An app of Marathon's `/v2/apps`."""


def apps(snapshot: Snapshot, framework: str, definitions: Mapping[str, Definition]) -> list[dict[str, Any]]:
    """Sorted by id. What endpoints do not say (environment, readiness checks) comes from `definitions`, by id."""
    services = {s for s in {*snapshot.members, *snapshot.routes} if _is_app(s, framework)}
    nothing: Mapping[str, Member] = {}
    return [
        _app(
            paths.split_service_key(service)[1],
            snapshot.members.get(service, nothing),
            snapshot.routes.get(service),
            definitions.get(paths.split_service_key(service)[1], {}),
        )
        for service in sorted(services)
    ]


def _is_app(service: str, framework: str) -> bool:
    owner, name = paths.split_service_key(service)
    return owner == framework and name.startswith("/")


def _app(app: str, members: Mapping[str, Member], route: Route | None, definition: Definition) -> dict[str, Any]:
    parts = [p for p in app.split("/") if p]
    ports = [p.service_port for p in route.ports] if route is not None else []
    checks = _checks(route, definition)
    web = next((c for c in checks if c["Path"]), {})
    labels = next((dict(m.discovery.labels) for m in members.values()), {})
    return {
        "Id": app,
        "MesosDnsId": "-".join(reversed(parts)),
        "EscapedId": app.replace("/", "::"),
        "HealthCheckPath": web.get("Path", ""),
        "HealthCheckProtocol": web.get("Protocol", ""),
        "HealthChecks": checks,
        "ReadinessCheckPath": next((str(c.get("path", "")) for c in definition.get("readinessChecks") or ()), ""),
        "Tasks": [_task(members[name]) for name in sorted(members)],
        "ServicePort": ports[0] if ports else 0,
        "ServicePorts": ports,
        "Env": dict(definition.get("env") or {}),
        "Labels": dict(definition.get("labels") or labels),
        "SplitId": parts,
        "ipAddress": {"discovery": {"ports": _discovery_ports(members.values())}},
    }


def _checks(route: Route | None, definition: Definition) -> list[dict[str, Any]]:
    given = definition.get("healthChecks") or ()
    if given:
        return [
            {"Protocol": c.get("protocol", ""), "Path": c.get("path", ""), "PortIndex": c.get("portIndex", 0)}
            for c in given
        ]
    return [
        {"Protocol": "HTTP" if p.check.path else "TCP", "Path": p.check.path, "PortIndex": p.index}
        for p in (route.ports if route is not None else ())
        if p.check is not None
    ]


def _task(member: Member) -> dict[str, Any]:
    """Members are running, and healthy as far as their checks go: Alive and Ready."""
    ports = [p.host_port for p in member.ports] or [member.serviceEndpoint.port]
    host = next(iter((member.serviceEndpoint.host, *member.ips.host)), "")
    return {
        "Id": member.task.id,
        "Host": host,
        "Port": ports[0],
        "Ports": ports,
        "Alive": True,
        "State": "TASK_RUNNING",
        "Ready": True,
    }


def _discovery_ports(members: Iterable[Member]) -> list[dict[str, Any]]:
    one = next(iter(members), None)
    return [
        {"number": p.number, "name": p.name, "protocol": ",".join(p.protocols)}
        for p in (one.ports if one is not None else ())
    ]

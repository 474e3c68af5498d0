"""What files say is to be announced: our TOML, and Nerve's JSON as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions.announcements import Also, Bridge, Service
from fairlead_discovery.decisions.checks import Check, parse

NERVE_CHECKS = {
    "tcp": "tcp",
    "http": "http",
    "redis": "redis",
    "rabbitmq": "rabbitmq",
    "postgresql": "postgres",
    "noop": "none",
}
NERVE_INTERVAL_S, NERVE_TIMEOUT_S = 0.5, 0.1
"""Nerve's own defaults."""
NERVE_UNUSED = {
    "haproxy_server_options": "a balancer's options are labels",
    "use_path_encoding": "`also` with format nerve-base64 in a TOML file writes such nodes",
    "zk_hosts": "the registry is where fairlead's own settings say",
}
"""Keys of Nerve's services that are not followed, and what is instead."""


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[services]]` and `[[bridges]]` of a TOML file, and above them `listen`."""

    listen: str = ""
    """`host:port` of /health, /ready and /metrics. Empty: none."""
    services: tuple[dict[str, Any], ...] = ()
    bridges: tuple[Bridge, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be announced. `notes`: what of a file is not followed."""

    services: tuple[Service, ...]
    bridges: tuple[Bridge, ...] = ()
    listen: str = ""
    notes: tuple[str, ...] = ()


def from_toml(values: Mapping[str, Any], *, where: str) -> Wanted:
    """Each service's `check = "http:/health"` is short for `checks`; `endpoints = ["10.0.0.5:5432", …]` makes one
    instance of each. Raises BadSettings naming the place.
    """
    try:
        file = msgspec.convert(dict(values), File)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{where}: {error}") from error
    services = tuple(service for table in file.services for service in _of_table(table, where=where))
    return Wanted(services=services, bridges=file.bridges, listen=file.listen)


def _of_table(table: Mapping[str, Any], *, where: str) -> tuple[Service, ...]:
    values = dict(table)
    place = f"{where}: {values.get('name', 'a service')}"
    check = values.pop("check", None)
    try:
        if check is not None:
            if "checks" in values:
                raise BadSettings(f"{place}: check and checks are given, one of them is enough")
            values["checks"] = [msgspec.to_builtins(parse(str(check)))] if check != "none" else []
        endpoints = values.pop("endpoints", None)
        if endpoints is None:
            return (msgspec.convert(values, Service),)
        return tuple(msgspec.convert({**values, **_split(str(each), place)}, Service) for each in endpoints)
    except (msgspec.ValidationError, TypeError) as error:
        raise BadSettings(f"{place}: {error}") from error


def _split(text: str, place: str) -> dict[str, Any]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise BadSettings(f"{place}: endpoints: {text!r} is no host:port")
    return {"host": host.strip("[]"), "port": int(port)}


# --- Nerve -------------------------------------------------------------------------------------------------------------


def from_nerve(values: Mapping[str, Any], *, where: str, framework: str, write_nerve: bool) -> Wanted:
    """`write_nerve`: Nerve's own nodes are written too.

    Raises BadSettings naming the service and key.
    """
    services = values.get("services")
    if not isinstance(services, Mapping):
        raise BadSettings(f"{where}: services: expected an object")
    identity = str(values.get("instance_id") or "")
    notes: list[str] = []
    out = []
    for name, given in services.items():
        place = f"{where}: services.{name}"
        if not isinstance(given, Mapping):
            raise BadSettings(f"{place}: expected an object")
        if given.get("reporter_type", "zookeeper") != "zookeeper":
            notes.append(f"{place}: reporter_type {given['reporter_type']} is not followed, the registry is written")
        notes += (f"{place}: {key} is not followed: {why}" for key, why in NERVE_UNUSED.items() if given.get(key))
        out.append(_nerve_service(str(name), given, place=place, identity=identity, framework=framework))
        if write_nerve and isinstance(given.get("zk_path"), str):
            out[-1] = msgspec.structs.replace(out[-1], also=(Also(format="nerve", path=given["zk_path"]),))
    return Wanted(services=tuple(out), notes=tuple(notes))


def _nerve_service(name: str, given: Mapping[str, Any], *, place: str, identity: str, framework: str) -> Service:
    interval_s = given.get("check_interval", NERVE_INTERVAL_S)
    checks = given.get("checks") or []
    values = {
        "name": name,
        "framework": framework,
        "host": given.get("host", ""),
        "port": given.get("port", 0),
        "id": f"{identity}-{given.get('port', 0)}" if identity else "",
        "weight": given.get("weight", 1),
        "labels": given.get("labels") or {},
        "checks": [_nerve_check(check, interval_s, place) for check in checks],
    }
    try:
        return msgspec.convert(values, Service)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{place}: {error}") from error


def _nerve_check(given: object, interval_s: object, place: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise BadSettings(f"{place}: checks: expected objects")
    kind = given.get("type")
    if kind not in NERVE_CHECKS:
        raise BadSettings(f"{place}: checks: type {kind!r} is none of {', '.join(NERVE_CHECKS)}")
    tls = kind == "http" and bool(given.get("ssl"))
    values = {
        "type": "https" if tls else NERVE_CHECKS[kind],
        "verify": not tls,  # Nerve checks no certificate
        "path": given.get("uri") or "/",
        "user": str(given.get("user") or "fairlead"),
        "host": given.get("host") or "",
        "port": given.get("port") or 0,
        "interval_s": interval_s,
        "timeout_s": given.get("timeout", NERVE_TIMEOUT_S),
        "rise": given.get("rise", 1),
        "fall": given.get("fall", 1),
    }
    try:
        return msgspec.to_builtins(msgspec.convert(values, Check))  # type: ignore[no-any-return]  # a dict of a struct
    except msgspec.ValidationError as error:
        raise BadSettings(f"{place}: checks: {error}") from error

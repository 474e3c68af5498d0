"""From a client's JSON to an App, or to every problem it has. Nothing a client wrote is ignored in silence."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from fairlead_core.services.decisions.app import App, Fetch, HealthCheck, PortDefinition
from fairlead_core.services.decisions.problems import Problem, of_conversion, raise_if_any
from fairlead_core.services.decisions.rules import check

READ_ONLY = frozenset(
    {
        "tasks",
        "tasksStaged",
        "tasksRunning",
        "tasksHealthy",
        "tasksUnhealthy",
        "taskStats",
        "tasksStats",
        "deployments",
        "lastTaskFailure",
        "readinessCheckResults",
        "version",
        "versionInfo",
        "taskRateLimit",
    }
)
"""Keys of answers that clients send back; they change nothing."""


def _empty(value: Any) -> bool:
    return value in (None, [], {}, "", 0, False)


def _plain_mesos(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.get("type") == "MESOS"
        and all(_empty(v) for k, v in value.items() if k != "type")
    )


UNSUPPORTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "container": (
        lambda v: _empty(v) or _plain_mesos(v),
        "containers are not run by this server yet; give a cmd or args",
    ),
    "residency": (_empty, "resident tasks are not supported by this server"),
    "secrets": (_empty, "secrets are not supported by this server"),
    "readinessChecks": (_empty, "readiness checks are not supported by this server; give a health check"),
    "check": (_empty, "checks are not supported by this server; give a health check"),
    "ipAddress": (_empty, "an address per task is not supported by this server"),
    "resourceLimits": (_empty, "resource limits are not supported by this server"),
    "executorResources": (_empty, "executor resources are not supported by this server"),
    "tty": (_empty, "a tty is not supported by this server"),
    "storeUrls": (_empty, "storeUrls is deprecated and not supported; use fetch"),
}
_HINTS = get_type_hints(App)
_FIELDS: Mapping[str, str] = {
    f.encode_name: f.name for f in msgspec.structs.fields(App) if f.name not in {"version", "version_info"}
}
_LISTS: Mapping[str, type[msgspec.Struct]] = {
    "healthChecks": HealthCheck,
    "fetch": Fetch,
    "portDefinitions": PortDefinition,
}
_ENV_NAME = re.compile(r"^[^=\x00]+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What this scheduler adds to an app's rules: its role, and the kill's shortest wait (largest TTL + 1 s)."""

    role: str = "*"
    largest_ttl_s: int = 0


def parse(raw: Any, *, app_id: str = "", base: App | None = None, house: House = House()) -> App:
    """The app of a client's JSON object; with `base`, that app changed by it. Raises Invalid naming every path.

    Service ports are as given (0: to be chosen); a changed `portDefinitions` keeps the base's by position where 0.
    """
    if not isinstance(raw, Mapping):
        raise_if_any([Problem(path="/", error="error.expected.jsobject", kind="json")])
    values, problems = _converted(_canonical(raw), base)
    values.setdefault("id", app_id or (base.id if base else ""))
    if problems:
        raise_if_any(problems)
    app = msgspec.structs.replace(base, **values) if base is not None else App(**_with_default_port(values))
    app = _keep_service_ports(app, base)
    raise_if_any(check(app, role=house.role, largest_ttl_s=house.largest_ttl_s))
    return app


def _canonical(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Deprecated spellings in today's: `uris` as `fetch`, `ports` as `portDefinitions`, commands as objects."""
    value = dict(raw)
    uris, ports = value.pop("uris", None), value.pop("ports", None)
    if uris and not value.get("fetch"):
        value["fetch"] = [{"uri": u} for u in uris] if isinstance(uris, list) else uris
    if ports is not None and value.get("portDefinitions") is None:
        value["portDefinitions"] = [{"port": p} for p in ports] if isinstance(ports, list) else ports
    checks = value.get("healthChecks")
    if isinstance(checks, list):
        value["healthChecks"] = [_canonical_check(c) for c in checks]
    return value


def _canonical_check(value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("command"), str):
        return {**value, "command": {"value": value["command"]}}
    return value


def _converted(raw: Mapping[str, Any], base: App | None) -> tuple[dict[str, Any], list[Problem]]:
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in raw.items():
        if key in READ_ONLY or (value is None and key in _FIELDS):
            continue
        if key in UNSUPPORTED:
            accepted, why = UNSUPPORTED[key]
            problems += [] if accepted(value) else [Problem(path=f"/{key}", error=why)]
            continue
        name = _FIELDS.get(key)
        if name is None:
            problems.append(Problem(path=f"/{key}", error="is not a field of an app that this server knows"))
            continue
        found = list(_type_problems(key, value))
        problems += found
        if not found:
            values[name] = msgspec.convert(value, _HINTS[name], strict=True)
    if base is None and not raw.get("id") and raw.get("id") is not None:
        problems.append(Problem(path="/id", error="error.path.missing", kind="json"))
    return values, problems


def _type_problems(key: str, value: Any) -> Iterator[Problem]:
    if key in {"labels", "env"} and isinstance(value, Mapping):
        yield from _text_problems(key, value)
        return
    item = _LISTS.get(key)
    if item is not None and isinstance(value, list):
        for position, one in enumerate(value):
            yield from _conversion_problems(one, item, f"/{key}({position})")
        return
    yield from _conversion_problems(value, _HINTS[_FIELDS[key]], f"/{key}")


def _conversion_problems(value: Any, kind: Any, path: str) -> Iterator[Problem]:
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        yield of_conversion(str(error), path=path)


def _text_problems(key: str, value: Mapping[str, Any]) -> Iterator[Problem]:
    for name, text in value.items():
        if key == "env" and not _ENV_NAME.match(name):
            yield Problem(path=f"/env/{name}", error="must be a name without = and NUL")
        if key == "env" and isinstance(text, Mapping):
            yield Problem(path=f"/env/{name}", error="secrets are not supported by this server")
        elif not isinstance(text, str):
            yield Problem(path=f"/{key}/{name}", error="error.expected.jsstring", kind="json")
        elif key == "env" and "\x00" in text:
            yield Problem(path=f"/env/{name}", error="must not contain NUL")


def _with_default_port(values: dict[str, Any]) -> dict[str, Any]:
    return {"port_definitions": (PortDefinition(name="default"),), **values}


def _keep_service_ports(app: App, base: App | None) -> App:
    """A definition without a port keeps the service port that the same position had."""
    if base is None or base.require_ports or app.port_definitions == base.port_definitions:
        return app
    old = base.port_definitions
    taken = {d.port for d in app.port_definitions if d.port}
    kept = tuple(
        msgspec.structs.replace(d, port=old[i].port)
        if d.port == 0 and i < len(old) and old[i].port not in taken and not app.require_ports
        else d
        for i, d in enumerate(app.port_definitions)
    )
    return msgspec.structs.replace(app, port_definitions=kept)

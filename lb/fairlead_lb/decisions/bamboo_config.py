"""Bamboo's JSON file and its environment variables as our settings. What means nothing here is said, and never fatal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairlead_daemon.errors import BadSettings

ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "MARATHON_ENDPOINT": ("Marathon", "Endpoint"),
    "MARATHON_USER": ("Marathon", "User"),
    "MARATHON_PASSWORD": ("Marathon", "Password"),
    "MARATHON_USE_EVENT_STREAM": ("Marathon", "UseEventStream"),
    "BAMBOO_ENDPOINT": ("Bamboo", "Endpoint"),
    "BAMBOO_ZK_HOST": ("Bamboo", "Zookeeper", "Host"),
    "BAMBOO_ZK_PATH": ("Bamboo", "Zookeeper", "Path"),
    "HAPROXY_TEMPLATE_PATH": ("HAProxy", "TemplatePath"),
    "HAPROXY_OUTPUT_PATH": ("HAProxy", "OutputPath"),
    "HAPROXY_RELOAD_CMD": ("HAProxy", "ReloadCommand"),
    "HAPROXY_RELOAD_VALIDATION_CMD": ("HAProxy", "ReloadValidationCommand"),
    "HAPROXY_RELOAD_CLEANUP_CMD": ("HAProxy", "ReloadCleanupCommand"),
    "STATSD_ENABLED": ("StatsD", "Enabled"),
    "STATSD_HOST": ("StatsD", "Host"),
    "STATSD_PREFIX": ("StatsD", "Prefix"),
}
"""They win over the file."""
MEANINGLESS: Mapping[tuple[str, ...], str] = {
    ("marathon", "user"): "definitions are asked for without a password",
    ("marathon", "password"): "definitions are asked for without a password",
    ("marathon", "useeventstream"): "changes come from the registry, at once",
    (
        "bamboo",
        "endpoint",
    ): "nothing calls back: changes come from the registry (`bamboo_bind` is where the API listens)",
    ("bamboo", "zookeeper", "reportingdelay"): "changes are served at once",
}
TEMPLATES = (".j2", ".jinja", ".jinja2")
"""How the name of a template of ours ends; Bamboo's are of Go's language."""
_KEYS: Mapping[tuple[str, ...], str] = {
    ("marathon", "endpoint"): "bamboo_marathon",
    ("haproxy", "templatepath"): "bamboo_template",
    ("haproxy", "outputpath"): "bamboo_output",
    ("haproxy", "reloadcommand"): "bamboo_reload",
    ("haproxy", "reloadvalidationcommand"): "bamboo_validate",
    ("haproxy", "reloadcleanupcommand"): "bamboo_cleanup",
    ("statsd", "host"): "statsd",
    ("statsd", "prefix"): "statsd_prefix",
}
_OTHERS = frozenset({("bamboo", "zookeeper", "host"), ("bamboo", "zookeeper", "path"), ("statsd", "enabled")})
_OUTPUT = frozenset({"bamboo_output", "bamboo_reload", "bamboo_validate", "bamboo_cleanup"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """`values` by our settings' keys; `notes` for a person."""

    values: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(data: bytes, environment: Mapping[str, str], *, place: str) -> Mapped:
    """Keys in any case of letters, as Go reads them. The ZooKeeper is taken for the registry's too, unless `registry` is
    set. Raises BadSettings for a file that is no JSON object.
    """
    try:
        raw = msgspec.json.decode(data or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{place}: {error}") from error
    given = {tuple(p.lower() for p in path): (".".join(path), value) for path, value in _leaves(raw, ())}
    for name, path in ENVIRONMENT.items():
        if environment.get(name):
            given[tuple(p.lower() for p in path)] = (name, environment[name])
    return _mapped(given)


def _leaves(raw: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _mapped(given: Mapping[tuple[str, ...], tuple[str, Any]]) -> Mapped:
    values: dict[str, Any] = {"bamboo_default_rules": True}
    notes: list[str] = []
    for path, (name, value) in given.items():
        if (why := MEANINGLESS.get(path)) is not None:
            notes.append(f"{name}: not used: {why}")
        elif (key := _KEYS.get(path)) is not None and isinstance(value, str):
            values[key] = value
        elif path not in _OTHERS:
            notes.append(f"{name}: {'not a text, not used' if path in _KEYS else 'not known, not used'}")
    host, root = (_text(given, "bamboo", "zookeeper", leaf) for leaf in ("host", "path"))
    if host and root.strip("/"):
        values["bamboo_zookeeper"] = f"zk://{host}/{root.strip('/')}"
    if host:
        values["registry"] = f"zk://{host}"
    _statsd(given, values)
    _templates(values, notes)
    return Mapped(values={k: v for k, v in values.items() if v != ""}, notes=tuple(notes))


def _text(given: Mapping[tuple[str, ...], tuple[str, Any]], *path: str) -> str:
    value = given.get(path, ("", ""))[1]
    return value if isinstance(value, str) else ""


def _statsd(given: Mapping[tuple[str, ...], tuple[str, Any]], values: dict[str, Any]) -> None:
    if str(given.get(("statsd", "enabled"), ("", False))[1]).lower() not in ("true", "1"):
        values.pop("statsd", None)
        values.pop("statsd_prefix", None)


def _templates(values: dict[str, Any], notes: list[str]) -> None:
    """Without a template that we can render, nothing is written over the operator's files, and nothing run."""
    template = values.get("bamboo_template", "")
    if template.endswith(TEMPLATES) and values.get("bamboo_output"):
        return
    if template:
        why = "no OutputPath is given" if template.endswith(TEMPLATES) else f"it does not end in {'|'.join(TEMPLATES)}"
        notes.append(f"HAProxy.TemplatePath: {template}: not rendered, {why}; fairlead lb drives a HAProxy of its own")
    for key in ("bamboo_template", *_OUTPUT):
        values.pop(key, None)

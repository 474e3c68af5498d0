"""Mesos-DNS' config.json beneath our settings: what is set here as well counts as set here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead_daemon.errors import BadSettings
from fairlead_dns.decisions.mesosdns_config import Mapped, read
from fairlead_dns.naming_settings import NamingSettings

KEY = "mesos_dns_config"


def beneath(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says, by our keys, for those that are not given. Raises BadSettings naming file and key.

    `zk` or `masters` make a Mesos master the source of names, unless `registry` is given.
    """
    file = given.get(KEY)
    if not file or not isinstance(file, str):
        return {}
    mapped = _mapped(file)
    values = dict(mapped.values)
    if _has_master(mapped) and "registry" not in given:
        values["mesos"] = dict(mapped.mesos)
    return values


def notes(settings: NamingSettings) -> tuple[str, ...]:
    """What a person should know of the file that is in use."""
    if not settings.mesos_dns_config:
        return ()
    mapped = _mapped(settings.mesos_dns_config)
    if _has_master(mapped) and settings.mesos is None:
        return (*mapped.notes, f"zk, masters: not used, names come from the registry {settings.registry}")
    return mapped.notes


def _mapped(file: str) -> Mapped:
    try:
        return read(Path(file).read_bytes(), place=file)
    except OSError as error:
        raise BadSettings(f"{KEY}: {file}: {error.strerror}") from error


def _has_master(mapped: Mapped) -> bool:
    return bool(mapped.mesos["zk"] or mapped.mesos["masters"])

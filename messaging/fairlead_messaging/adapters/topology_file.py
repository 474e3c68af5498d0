"""`topology.toml` and the credentials it names."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from fairlead_daemon.errors import BadSettings
from fairlead_messaging.decisions.declared import Broker, Topology, read

GUEST = ("guest", "guest")


def load(file: Path) -> Topology:
    """Raises BadSettings with the file and every mistake in it."""
    try:
        return parse(file.read_bytes(), where=str(file))
    except OSError as error:
        raise BadSettings(f"{file}: {error.strerror}") from error


def parse(data: bytes, *, where: str) -> Topology:
    """TOML. Raises BadSettings."""
    try:
        return read(tomllib.loads(data.decode()), where=where)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{where}: {error}") from error


def logins(topology: Topology, folder: Path) -> dict[str, tuple[str, str]]:
    """User and password of each broker; files are relative to `folder`. Raises BadSettings naming the key."""
    return {name: _login(broker, folder, f"brokers.{name}") for name, broker in topology.brokers.items()}


def _login(broker: Broker, folder: Path, place: str) -> tuple[str, str]:
    if broker.credentials_file:
        return _split(_secret(folder / broker.credentials_file, place), f"{place}.credentials_file")
    if broker.credentials_env:
        return _split(_variable(broker.credentials_env, place, os.environ), f"{place}.credentials_env")
    return GUEST


def _secret(file: Path, place: str) -> str:
    try:
        if file.stat().st_mode & 0o077:
            raise BadSettings(f"{place}.credentials_file: {file} may be read by others; chmod 600 it")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadSettings(f"{place}.credentials_file: {file}: {error.strerror}") from error


def _variable(name: str, place: str, environment: Mapping[str, str]) -> str:
    if name not in environment:
        raise BadSettings(f"{place}.credentials_env: {name} is not set")
    return environment[name]


def _split(text: str, place: str) -> tuple[str, str]:
    user, colon, password = text.strip().partition(":")
    if not colon or not user:
        raise BadSettings(f"{place}: expected user:password")
    return user, password

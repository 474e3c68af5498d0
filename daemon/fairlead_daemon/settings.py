"""Settings: TOML into frozen structs, unknown keys refused, every key overridable from the command line."""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from fairlead_daemon.errors import BadSettings


class DaemonSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every daemon can be told. Subclasses add their own keys and override defaults."""

    registry: str = "local:.fairlead/registry.sock"
    """Where the parts meet: `local:<socket>`, `zk://h1:2181,h2:2181[/chroot]`."""
    data_dir: str = ".fairlead"
    """Logs, state and sockets live below it."""
    host: str = "127.0.0.1"
    """Address the HTTP server binds. Anything but loopback is a decision of yours: see `token`."""
    port: int = 0
    """Port of the HTTP server; 0 lets the kernel choose."""
    token: Literal["auto", "on", "off"] = "auto"  # noqa: S105  # a mode, not a secret
    """Whether HTTP writes need a token. `auto`: on when another account with a login shell exists."""
    token_file: str = ""
    """The token's file, mode 0600. Empty: `<data_dir>/token`."""
    hosts: tuple[str, ...] = ()
    """Further names under which this daemon's HTTP server may be addressed (the Host header)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""


S = TypeVar("S", bound=msgspec.Struct)


Beneath = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Values from elsewhere, given those that were set: these win. Raises BadSettings."""


def _nothing(_given: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


def load(kind: type[S], *, file: Path | None = None, overrides: Iterable[str] = (), beneath: Beneath = _nothing) -> S:
    """Settings of `kind` from a TOML file and `key=value` overrides, the latter winning.

    Values of overrides are TOML; what is no TOML is taken as a plain string. Raises BadSettings naming the key.
    """
    values: dict[str, Any] = dict(_from_file(file)) if file is not None else {}
    where = str(file) if file is not None else "settings"
    for text in overrides:
        key, value = parse_override(text)
        values[key] = value
    return convert(kind, {**beneath(values), **values}, where=where)


def convert(kind: type[S], values: Mapping[str, Any], *, where: str) -> S:
    """Raises BadSettings with `where` and the key's path, as in `dns.toml: ttl_s: Expected int, got str`."""
    try:
        return msgspec.convert(dict(values), kind, strict=True)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{where}: {_worded(str(error))}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """`ttl_s=5` -> ("ttl_s", 5). Raises BadSettings when there is no `=`."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise BadSettings(f"--set {text}: expected key=value")
    try:
        return key.strip(), tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def _from_file(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise BadSettings(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{file}: {error}") from error


def _worded(message: str) -> str:
    """Msgspec's `… - at `$.ttl_s`` and `unknown field `x`` as `key: reason`."""
    text, sign, place = message.rpartition(" - at `$")
    if sign:
        return f"{place.rstrip('`').lstrip('.')}: {text}"
    if "unknown field" in message:
        key = message.rsplit("`", 2)[1]
        return f"{key}: unknown key"
    return message

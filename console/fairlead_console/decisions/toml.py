"""Settings as TOML text. Python reads TOML and does not write it; what daemons take is a small part of it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def dump(values: Mapping[str, Any], *, comment: str = "") -> str:
    """`port = 5050`, a line a key, sorted as given; what `tomllib` reads back as the same values."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + "".join(f"{_key(key)} = {_value(value)}\n" for key, value in values.items())


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    raise TypeError(f"TOML does not hold {type(value).__name__}")


def _string(text: str) -> str:
    """JSON's strings are TOML's, but for DEL, and for surrogates where ASCII is wanted."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

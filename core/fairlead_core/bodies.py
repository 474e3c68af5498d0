"""Bodies of requests, before anything is made of them: what JSON allows and we cannot carry on is refused here.

Nesting ends the interpreter's stack, when a value is decoded or (deeper in ours) when it is encoded again; integers
beyond 64 bits can be neither encoded nor turned into floats.
"""

import re
from typing import TypeVar

import msgspec

DEPTH_MOST = 64
"""Levels of arrays and objects; protobuf's own limit is 100, no message of Mesos has 20."""
_INTEGER_LIMIT = 2**63
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_LONG_DIGITS = re.compile(rb"\d{19}")
_LONG_INTEGER = re.compile(rb"(?<![\d.eE+-])-?(\d{19,})(?![\d.eE])")
T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    """Raises msgspec.DecodeError, also for what is nested too deeply or holds an integer beyond 64 bits."""
    check(raw)
    return decoder.decode(raw)


def check(raw: bytes, *, integers: bool = True) -> None:
    """Raises msgspec.DecodeError. Without `integers` they may be of any size: whoever decodes judges them."""
    brackets = raw.count(b"[") + raw.count(b"{") > DEPTH_MOST
    digits = integers and _LONG_DIGITS.search(raw) is not None
    if not brackets and not digits:
        return
    bare = _STRING.sub(b'""', raw)
    if brackets and _too_deep(bare):
        raise msgspec.DecodeError(f"JSON is nested more than {DEPTH_MOST} levels deep")
    for found in _LONG_INTEGER.finditer(bare) if digits else ():
        number = found[1].lstrip(b"0")
        if len(number) > len(str(_INTEGER_LIMIT)) or int(number or b"0") >= _INTEGER_LIMIT:
            raise msgspec.DecodeError(f"JSON holds an integer beyond 64 bits: {found[0][:24].decode()}...")


def _too_deep(bare: bytes) -> bool:
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEPTH_MOST:
            return True
    return False

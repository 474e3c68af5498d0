"""The few operations that every backend's transactions are made of, and what they may hold.

`expect` is a version, registry.ANY or registry.NEW. A list of operations is done whole or not at all; an operation
sees what those before it did.
"""

from collections.abc import Sequence

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.registry import ANY, NEW, Change, Create, Delete, Put

MULTI_LIMIT_BYTES = 900_000
"""ZooKeeper drops the connection over a request of 1 MiB (jute.maxbuffer), so more is refused before it is sent."""


class Op(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", omit_defaults=True):
    path: str


class Make(Op, frozen=True, kw_only=True, tag="make"):
    """A node that lives as long as the session; the result is its path (`sequential` adds ten digits to it)."""

    data: bytes
    sequential: bool = False


class Set(Op, frozen=True, kw_only=True, tag="set"):
    """Create or replace; the result is the new version (0 for a new node)."""

    data: bytes = b""
    expect: int = ANY


class Drop(Op, frozen=True, kw_only=True, tag="drop"):
    expect: int = ANY
    missing_ok: bool = False


class Check(Op, frozen=True, kw_only=True, tag="check"):
    """The node exists, with that version unless ANY."""

    version: int = ANY


AnyOp = Make | Set | Drop | Check
Result = int | str


def of_change(change: Change) -> AnyOp:
    match change:
        case Create(path, data):
            return Set(path=path, data=data, expect=NEW)
        case Put(path, data):
            return Set(path=path, data=data)
        case Delete(path, missing_ok):
            return Drop(path=path, missing_ok=missing_ok)


def check_sizes(ops: Sequence[AnyOp]) -> None:
    """Raises Refused naming the node that is over NODE_LIMIT_BYTES, a path that is none, or the transaction's size."""
    whole = 0
    for op in ops:
        if isinstance(op, Make | Set):
            check_new_path(op.path)
        else:
            check_path(op.path)
        size = len(op.data) if isinstance(op, Make | Set) else 0
        if size > paths.NODE_LIMIT_BYTES:
            raise Refused(f"{op.path}: {size} bytes, a node takes at most {paths.NODE_LIMIT_BYTES}")
        whole += size + len(op.path.encode()) + 64
    if whole > MULTI_LIMIT_BYTES:
        raise Refused(f"transaction of {len(ops)} operations: {whole} bytes, one takes at most {MULTI_LIMIT_BYTES}")


def check_new_path(path: str) -> None:
    """What others made may have longer names: it can be read, and deleted."""
    check_path(path)
    longest = max(len(segment.encode()) for segment in path.split("/"))
    if longest > paths.SEGMENT_LIMIT_BYTES:
        raise Refused(
            f"{path[:80]}…: a name of {longest} bytes in the path, at most {paths.SEGMENT_LIMIT_BYTES} are allowed"
        )


def check_path(path: str) -> None:
    segments = path.split("/")
    if segments[0] or len(segments) < 2 or any(s in {"", ".", ".."} for s in segments[1:]):
        raise Refused(f"{path!r} is no path of the registry")
    if not path.isprintable():
        raise Refused(f"{path!r} holds a character that no path may hold")

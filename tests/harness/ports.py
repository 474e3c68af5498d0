"""Free ports of the loopback interface. Test runs side by side, and the workers of one, take them from different blocks."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

FIRST, LAST = (
    12000,
    30000,
)  # above the default service ports, below tasks' and the ephemeral range, whose ports clients take
BLOCK = 500
_blocks = [range(first, first + BLOCK) for first in range(FIRST, LAST, BLOCK)]
_held: dict[range, TextIO] = {}
_handed_out: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that neither TCP nor UDP holds, and that no other process was handed out meanwhile."""
    return free_range(1, host)[0]


def free_range(count: int, host: str = "127.0.0.1") -> range:
    """`count` consecutive free ports, at most a block of them."""
    for ports in _candidates(count):
        if all(_is_free(host, port) for port in ports):
            _handed_out.update(ports)
            return ports
    raise AssertionError(f"no {count} consecutive free ports between {FIRST} and {LAST}")


def _candidates(count: int) -> Iterator[range]:
    """From the blocks that this process holds, then from further ones; when all are taken, its own first ones again."""
    for block in list(_held):
        yield from _within(block, count)
    for number in range(len(_blocks)):
        block = _blocks[(os.getpid() + number) % len(_blocks)]
        if block not in _held and _hold(block):
            yield from _within(block, count)
    _handed_out.clear()
    for block in list(_held):
        yield from _within(block, count)


def _within(block: range, count: int) -> Iterator[range]:
    first = block.start
    while first + count <= block.stop:
        ports = range(first, first + count)
        taken = next((port for port in reversed(ports) if port in _handed_out), None)
        if taken is None:
            yield ports
        first = first + 1 if taken is None else taken + 1


def _hold(block: range) -> bool:
    """Whether no other process has it; it is given back when this one ends, however it ends."""
    folder = Path(tempfile.gettempdir()) / f"fairlead-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    lock = (folder / str(block.start)).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    _held[block] = lock
    return True


def _is_free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True

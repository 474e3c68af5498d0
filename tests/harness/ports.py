"""Free ports of the loopback interface."""

import os
import socket
from collections.abc import Iterator

FIRST, LAST = 20000, 30000  # below the kernel's ephemeral range, so that no client socket sits on one meanwhile
_handed_out: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that neither TCP nor UDP holds, and that this process has not handed out before."""
    return free_range(1, host)[0]


def free_range(count: int, host: str = "127.0.0.1") -> range:
    """`count` consecutive free ports."""
    for first in _candidates(count):
        ports = range(first, first + count)
        if not _handed_out.intersection(ports) and all(_is_free(host, port) for port in ports):
            _handed_out.update(ports)
            return ports
    raise AssertionError(f"no {count} consecutive free ports between {FIRST} and {LAST}")


def _candidates(count: int) -> Iterator[int]:
    """Starts at a place that depends on the process, so that test runs side by side do not meet."""
    span = LAST - FIRST - count
    start = (os.getpid() * 37) % span
    for step in range(span):
        yield FIRST + (start + step) % span


def _is_free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True

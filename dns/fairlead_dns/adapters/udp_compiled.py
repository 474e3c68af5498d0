"""The UDP loop with its hot half compiled: the optional distribution in `dns/fast`. What is not prebuilt stays here."""

import importlib
import socket
from contextlib import suppress
from typing import Protocol, cast

from fairlead_daemon.errors import BadSettings
from fairlead_dns.adapters.udp import DRAIN, UdpServer
from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions.asked import Next
from fairlead_dns.decisions.front import Front
from fairlead_dns.metrics import Counts

MODULE = "fairlead_dns_fast"
API = 1
"""Of `drain`; it is installed apart from us, and may be of another version."""
Left = list[tuple[bytes, tuple[str, int]]]


class Loop(Protocol):
    """See fairlead_dns_fast.c."""

    def drain(self, fd: int, tables: dict[str, dict[bytes, Next]], most: int) -> tuple[int, int, int, int, Left]:
        """Received, answered, lost, errno, and what had no prebuilt reply."""


def find(wanted: str) -> Loop | None:
    """`auto`: the compiled loop if it is installed; `python`: none; `compiled`: raises BadSettings without it."""
    if wanted == "python":
        return None
    try:
        found = importlib.import_module(MODULE)
    except ImportError as error:
        if wanted == "compiled":
            raise BadSettings(f"udp_loop: fairlead-dns-fast is not installed: {error}") from error
        return None
    if getattr(found, "API", 0) != API:
        if wanted == "compiled":
            raise BadSettings("udp_loop: the fairlead-dns-fast that is installed is of another version")
        return None
    return cast("Loop", found)


class CompiledUdpServer(UdpServer):
    """The same replies to the same packets as its parent, which is what it falls back to under a rate limit."""

    def __init__(
        self, sock: socket.socket, front: Front, counts: Counts, waiters: Waiters, loop: Loop
    ) -> None:  # the plain one's, and the loop
        super().__init__(sock, front, counts, waiters)
        self._compiled = loop

    def drain(self) -> None:
        if self._front.limiter is not None:
            super().drain()
            return
        tables = self._front.views.tables
        received, answered, lost, error, left = self._compiled.drain(self._sock.fileno(), tables, DRAIN)
        self._counts.cache_hits += answered
        self._codes[0] += answered
        self._counts.socket_errors += lost + bool(error)
        for packet, peer in left:
            self._answer_alone(packet, peer)
        if received == DRAIN:
            with suppress(OSError):  # nothing more waits
                self._shed()

    def _answer_alone(self, packet: bytes, peer: tuple[str, int]) -> None:
        try:
            self._answer(packet, peer)
        except OSError:
            self._counts.socket_errors += 1

"""Answers for clients that read slowly, or not at all: encoded once for all, sent in pieces, cut off when none is read.

What one connection costs is a piece and the kernel's buffer, whatever the answer's size.
"""

import asyncio
import fcntl
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socket import SO_SNDBUF, SOL_SOCKET

import msgspec
from aiohttp import web

from fairlead_daemon.errors import Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import metrics

log = Log("listing")
PIECE_BYTES = 32 * 1024
BIG_BYTES = 64 * 1024
"""A larger answer is sent in pieces, and its client counts as a watcher until it has read it."""
BUFFER_BYTES = 64 * 1024
"""The kernel's for one connection (it doubles this); left alone it takes 4 MiB and more for a client that does not read."""
KEPT_BYTES = 64 * 1024 * 1024
SENT_BYTES = 256 * 1024 * 1024
"""Of different big answers under way at a time: slow readers of many revisions hold no more than this."""


class Cut(ConnectionResetError):  # noqa: N818  # named for what happened
    """The client reads nothing and was cut off. `response` is for the server to end with."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__("the client reads nothing")
        self.response = response


class Pen:
    """Writes one answer to one client. Raises Cut when it reads nothing for `write_s`, ConnectionError when it is gone."""

    def __init__(self, request: web.Request, response: web.StreamResponse, write_s: float) -> None:
        self.response = response
        self._request = request
        self._write_s = write_s
        self._arrived = 0
        self._moved_s = time.monotonic()

    async def open(self) -> "Pen":
        transport = self._request.transport
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=0)
            with suppress(OSError):
                transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES)
        await self.response.prepare(self._request)
        return self

    async def write(self, *parts: bytes | memoryview) -> None:
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(view), PIECE_BYTES):
                await self._piece(view[at : at + PIECE_BYTES])
        self._look()

    async def _piece(self, piece: memoryview) -> None:
        try:
            async with asyncio.timeout(self._write_s):
                await self.response.write(piece)
                await self._request.writer.drain()
        except TimeoutError as error:
            raise self._cut() from error

    def _look(self) -> None:
        """What fits the kernel's buffer is written at once, and says nothing: what counts is what has arrived."""
        unsent = _unsent_bytes(self._request.transport)
        arrived = self._request.writer.output_size - unsent
        if not unsent or arrived > self._arrived:
            self._arrived, self._moved_s = arrived, time.monotonic()
        elif time.monotonic() - self._moved_s >= self._write_s:
            raise self._cut()

    def _cut(self) -> Cut:
        metrics.watchers_slow.inc()
        log.warning("client reads nothing, cut off", client=self._request.remote, seconds=self._write_s)
        if self._request.transport is not None:
            self._request.transport.abort()
        return Cut(self.response)


def _unsent_bytes(transport: asyncio.BaseTransport | None) -> int:
    """Written, and not yet with the client's kernel. 0 when there is no telling."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    try:
        found: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    except OSError:
        return 0
    return found


class Bodies:
    """Big answers: what is the same for many clients is there once."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, bytes]] = {}
        """The latest used last."""
        self._sent: dict[int, tuple[bytes, int]] = {}
        """By identity: how many clients are being sent it."""

    def of(self, name: str, key: object, make: Callable[[], object]) -> bytes:
        """`make()` as JSON; the same bytes for the same name and key."""
        known = self._kept.pop(name, None)
        data = known[1] if known is not None and known[0] == key else msgspec.json.encode(make())
        if len(data) > BIG_BYTES:
            self._kept[name] = (key, data)
            while len(self._kept) > 1 and sum(len(other) for _, other in self._kept.values()) > KEPT_BYTES:
                del self._kept[next(iter(self._kept))]
        return data

    @contextmanager
    def sending(self, data: bytes) -> Iterator[None]:
        """Raises Unavailable when too much is under way to slow clients."""
        held = sum(len(other) for other, _ in self._sent.values())
        if self._sent and id(data) not in self._sent and held + len(data) > SENT_BYTES:
            metrics.watchers_refused.inc()
            raise Unavailable(
                f"{held >> 20} MiB of answers are under way to slow clients; ask another server, or later"
            )
        self._sent[id(data)] = (data, self._sent.get(id(data), (data, 0))[1] + 1)
        try:
            yield
        finally:
            left = self._sent[id(data)][1] - 1
            if left:
                self._sent[id(data)] = (data, left)
            else:
                del self._sent[id(data)]

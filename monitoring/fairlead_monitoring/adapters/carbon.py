"""The connection to carbon: plain text, one direction. Nothing comes back but the end of the connection."""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fairlead_daemon.errors import Unavailable

CONNECT_S = 5.0
STUCK_S = 60.0
"""Carbon may pause reading while its cache is full; longer than that it is taken for dead."""
BUFFER_BYTES = 1024 * 1024


class Carbon:
    """One connection. Raises Unavailable once it is broken."""

    def __init__(self, writer: asyncio.StreamWriter, watch: "asyncio.Task[bytes]") -> None:
        self._writer = writer
        self._watch = watch
        self._socket: socket.socket = writer.get_extra_info("socket")

    async def send(self, data: bytes) -> None:
        """Returns when the local buffers have taken it."""
        self.check()
        self._writer.write(data)
        try:
            async with asyncio.timeout(STUCK_S):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"carbon: {error or 'it has not read for a minute'}") from error
        self.check()

    def check(self) -> None:
        if self._watch.done() or self._writer.is_closing():
            raise Unavailable("carbon: it closed the connection")

    def pending_bytes(self) -> int:
        """What is not yet in the peer's kernel: in our buffer, or sent and not acknowledged."""
        raw = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")  # Linux' SIOCOUTQ
        return int(struct.unpack("i", raw)[0]) + self._writer.transport.get_write_buffer_size()


@asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator[Carbon]:
    """Raises Unavailable."""
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"carbon {host}:{port}: {error or 'no answer'}") from error
    _keep_alive(writer.get_extra_info("socket"))
    writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
    watch = asyncio.get_running_loop().create_task(_until_closed(reader))
    try:
        yield Carbon(writer, watch)
    finally:
        watch.cancel()
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    with suppress(OSError):
        while await reader.read(1024):
            pass  # carbon has nothing to say
    return b""


def _keep_alive(link: socket.socket) -> None:
    """A machine that vanished is noticed within half a minute."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4)):
        link.setsockopt(socket.IPPROTO_TCP, option, value)

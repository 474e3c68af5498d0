"""The gate of a stream listener: accepts, reads the PROXY header if one must come, shakes hands for TLS, hands over.

Connections that have not come so far are bounded in number and in time; of too many the oldest gives way.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fairlead_dns.adapters.tcp import BACKLOG
from fairlead_dns.decisions import proxy
from fairlead_dns.decisions.acl import Acl
from fairlead_dns.decisions.asked import Came, Transport

OPENING = 256
OPENING_S = 5.0
NO_FILES_S = 0.2  # out of file descriptors: the connections that end meanwhile give some back


@dataclass(slots=True, eq=False)
class Gate:
    """Serves one listening socket until closed. `trusted`: whose PROXY header is believed, and must come; None: none is."""

    sock: socket.socket
    transport: Transport
    protocol: Callable[[Came], asyncio.BaseProtocol]
    context: ssl.SSLContext | None = None
    trusted: Acl | None = None
    turned_away: int = 0
    """Connections that never came through: no header, no handshake, too many."""
    _opening: dict[asyncio.Task[None], None] = field(default_factory=dict)

    def open(self) -> asyncio.Task[None]:
        """Accepts from here on, until the task is cancelled."""
        self.sock.listen(BACKLOG)
        return asyncio.create_task(self._accept())

    async def _accept(self) -> None:
        try:
            while True:
                await self._accept_one()
        finally:
            for task in tuple(self._opening):
                task.cancel()
            self.sock.close()

    async def _accept_one(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, peer = await loop.sock_accept(self.sock)
        except OSError:
            await asyncio.sleep(NO_FILES_S)
            return
        if len(self._opening) >= OPENING:
            next(iter(self._opening)).cancel()
        task = loop.create_task(self._open(connection, peer[0]))
        self._opening[task] = None
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)
        if task.cancelled() or task.exception() is not None:
            self.turned_away += 1

    async def _open(self, connection: socket.socket, peer: str) -> None:
        """Raises whatever went wrong; then the connection is closed."""
        taken = False
        try:
            async with asyncio.timeout(OPENING_S):
                came = await self._came(connection, peer)
                taken = True  # from here on it is the transport's, which closes it
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: self.protocol(came), connection, ssl=self.context
                )
        finally:
            if not taken:
                with suppress(OSError):
                    connection.close()

    async def _came(self, connection: socket.socket, peer: str) -> Came:
        local = connection.getsockname()[0]
        if self.trusted is None:
            return Came(self.transport, peer, local)
        if not self.trusted.admits(peer):
            raise proxy.BadProxyError(f"{peer} is no trusted proxy")
        header = await _header(connection)
        return Came(self.transport, header.client or peer, header.local or local)


async def _header(connection: socket.socket) -> proxy.Header:
    """Not a byte beyond it is read: TLS or DNS begins there. Raises BadProxyError."""
    data = b""
    while missing := proxy.wanted(data):
        more = await asyncio.get_running_loop().sock_recv(connection, missing)
        if not more:
            raise proxy.BadProxyError("closed within its header")
        data += more
    return proxy.parse(data)

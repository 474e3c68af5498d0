"""The TCP side: pipelined queries, bounded memory, and limits that hold whatever a client does or leaves undone."""

import asyncio
import socket
from dataclasses import dataclass, field

from fairlead_dns.decisions.answer import Answers
from fairlead_dns.decisions.wire import reply_code
from fairlead_dns.metrics import Counts

QUERY_BYTES = 4096  # no query of a client is near it
SLICE = 16  # queries a turn of the loop: answers over TCP may be long
REPLIES_BYTES = 65536  # a client that does not read its replies gets no more of them
BACKLOG = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    connections: int
    per_client: int
    idle_s: float


@dataclass(slots=True)
class TcpServer:
    """All TCP connections of all addresses. `open` is ordered by the time of the last answer, oldest first."""

    answers: Answers
    counts: Counts
    limits: Limits
    open: "dict[Connection, float]" = field(default_factory=dict)
    clients: dict[str, int] = field(default_factory=dict)
    servers: list[asyncio.Server] = field(default_factory=list)

    async def listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(lambda: Connection(self), sock=sock, backlog=BACKLOG))

    async def sweep(self) -> None:
        """Closes for ever what has had no answer for `idle_s`: idle, slow to ask or slow to read, it is one rule."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self.limits.idle_s / 4))
            for connection, last_s in tuple(self.open.items()):
                if last_s + self.limits.idle_s > loop.time():
                    break
                connection.abort()

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for connection in tuple(self.open):
            connection.finish()

    def admit(self, connection: "Connection") -> None:
        """Nobody is turned away: the connection that is idle longest makes room, one of the client's own if it has many."""
        if self.clients.get(connection.client, 0) >= self.limits.per_client:
            self._evict(next(other for other in self.open if other.client == connection.client))
        elif len(self.open) >= self.limits.connections:
            self._evict(next(iter(self.open)))
        self.clients[connection.client] = self.clients.get(connection.client, 0) + 1
        self.used(connection)

    def _evict(self, connection: "Connection") -> None:
        self.counts.tcp_refused += 1
        connection.abort()

    def used(self, connection: "Connection") -> None:
        self.open.pop(connection, None)
        self.open[connection] = asyncio.get_running_loop().time()

    def forget(self, connection: "Connection") -> None:
        if self.open.pop(connection, None) is None:
            return
        left = self.clients[connection.client] - 1
        if left:
            self.clients[connection.client] = left
        else:
            del self.clients[connection.client]


class Connection(asyncio.BufferedProtocol):
    """One client. Reads no further while its replies wait or its queries are being worked off."""

    transport: asyncio.Transport

    def __init__(self, server: TcpServer) -> None:
        self._server = server
        self._buffer = bytearray(QUERY_BYTES)
        self._filled = 0
        self._blocked = False
        self._ended = False
        self.client = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=REPLIES_BYTES)
        peer = transport.get_extra_info("peername")
        self.client = peer[0] if peer else ""
        self._server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature; the reason is the peer's affair
        self._server.forget(self)

    def eof_received(self) -> bool:
        """The client asks no more; what it has asked is still answered."""
        self._ended = True
        return self._blocked or self._whole()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._work()

    def pause_writing(self) -> None:
        self._blocked = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        self._work()

    def abort(self) -> None:
        self._server.forget(self)
        self.transport.abort()

    def finish(self) -> None:
        """Lets what is written go out, then closes."""
        self._server.forget(self)
        self.transport.close()

    def _whole(self) -> bool:
        """Whether a whole query waits."""
        return self._filled >= 2 and self._filled >= 2 + self._length(0)

    def _length(self, at: int) -> int:
        return self._buffer[at] << 8 | self._buffer[at + 1]

    def _work(self) -> None:
        if self._blocked or self.transport.is_closing():
            return
        at = self._answer_some()
        self._buffer[: self._filled - at] = self._buffer[at : self._filled]
        self._filled -= at
        if self._filled >= 2 and 2 + self._length(0) > QUERY_BYTES:
            self._server.counts.tcp_refused += 1
            self.abort()
        elif self._blocked:
            pass  # resume_writing goes on
        elif self._whole():
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._work)
        elif self._ended:
            self.transport.close()
        else:
            self.transport.resume_reading()

    def _answer_some(self) -> int:
        """Answers up to SLICE queries in one write; returns how many bytes of the buffer are done with."""
        at, replies = 0, []
        for _ in range(SLICE):
            if self._filled - at < 2 or self._filled - at < 2 + self._length(at):
                break
            end = at + 2 + self._length(at)
            reply = self._server.answers.reply(bytes(self._buffer[at + 2 : end]), tcp=True)
            at = end
            if reply is None:
                self._server.counts.silences += 1
                continue
            self._server.counts.tcp[reply_code(reply)] += 1
            replies += [len(reply).to_bytes(2, "big"), reply]
        if replies:
            self._server.used(self)
            self.transport.write(b"".join(replies))
        return at

"""The TCP side: pipelined queries whose replies may overtake each other, bounded memory, and limits that hold whatever a
client does or leaves undone.
"""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions.asked import Came
from fairlead_dns.decisions.front import Front, Relayed, Stream, Waiting
from fairlead_dns.decisions.wire import reply_code
from fairlead_dns.metrics import Counts

QUERY_BYTES = 4096  # no query of a client is near it
SLICE = 16  # queries a turn of the loop: answers over TCP may be long
REPLIES_BYTES = 65536  # a client that does not read its replies gets no more of them
BACKLOG = 256
MOST_WAITING = 64  # of one connection: it is read no further until some are answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    connections: int
    per_client: int
    idle_s: float
    queries: int = 10_000
    """After so many a connection is closed in order: the next one may go to another process."""


class Open(Protocol):
    """A connection under the limits, whatever is spoken on it."""

    @property
    def client(self) -> str: ...
    def abort(self) -> None: ...
    def finish(self) -> None:
        """Lets what is written go out, then closes."""


@dataclass(slots=True)
class TcpServer:
    """All connections of all addresses, those of TLS and HTTPS too. `open` is ordered by the time of the last answer,
    oldest first.
    """

    front: Front
    counts: Counts
    limits: Limits
    waiters: Waiters
    open: dict[Open, float] = field(default_factory=dict)
    clients: dict[str, int] = field(default_factory=dict)

    def protocol(self, came: Came) -> "Connection":
        return Connection(self, came)

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
        for connection in tuple(self.open):
            connection.finish()

    def admit(self, connection: Open) -> None:
        """Nobody is turned away: the connection that is idle longest makes room, one of the client's own if it has many."""
        if self.clients.get(connection.client, 0) >= self.limits.per_client:
            self._evict(next(other for other in self.open if other.client == connection.client))
        elif len(self.open) >= self.limits.connections:
            self._evict(next(iter(self.open)))
        self.clients[connection.client] = self.clients.get(connection.client, 0) + 1
        self.used(connection)

    def _evict(self, connection: Open) -> None:
        self.counts.tcp_refused += 1
        connection.abort()

    def used(self, connection: Open) -> None:
        self.open.pop(connection, None)
        self.open[connection] = asyncio.get_running_loop().time()

    def forget(self, connection: Open) -> None:
        if self.open.pop(connection, None) is None:
            return
        left = self.clients[connection.client] - 1
        if left:
            self.clients[connection.client] = left
        else:
            del self.clients[connection.client]


class Connection(asyncio.BufferedProtocol):
    """One client. Reads no further while its replies wait, its queries are being worked off or too many are open."""

    transport: asyncio.Transport

    def __init__(self, server: TcpServer, came: Came) -> None:
        self._server = server
        self._buffer = bytearray(QUERY_BYTES)
        self._filled = 0
        self._blocked = False
        self._ended = False
        self._asked = 0
        self._waiting: set[asyncio.Future[bytes | None]] = set()
        self._stream: Iterator[bytes] | None = None
        self._relaying: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._came = came

    @property
    def client(self) -> str:
        return self._came.client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=REPLIES_BYTES)
        self._server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature; the reason is the peer's affair
        self._forget()

    def eof_received(self) -> bool:
        """The client asks no more; what it has asked is still answered (TLS cannot: there both directions end)."""
        self._ended = True
        if self.transport.get_extra_info("ssl_object") is not None:
            return False
        return self._blocked or self._busy or self._whole()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._work()

    def pause_writing(self) -> None:
        self._blocked = True
        self._writable.clear()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        self._writable.set()
        self._work()

    def abort(self) -> None:
        self._forget()
        self.transport.abort()

    def finish(self) -> None:
        """Lets what is written go out, then closes."""
        self._forget()
        self.transport.close()

    def _forget(self) -> None:
        self._stream = None
        if self._relaying is not None:
            self._relaying.cancel()
        for future in tuple(self._waiting):
            future.cancel()
        self._waiting.clear()
        self._server.forget(self)

    @property
    def _busy(self) -> bool:
        return bool(self._waiting) or self._is_long

    @property
    def _is_long(self) -> bool:
        """A reply of many messages is on its way: no other may come between them."""
        return self._stream is not None or self._relaying is not None

    def _whole(self) -> bool:
        """Whether a whole query waits."""
        return self._filled >= 2 and self._filled >= 2 + self._length(0)

    def _length(self, at: int) -> int:
        return self._buffer[at] << 8 | self._buffer[at + 1]

    def _work(self) -> None:
        if self._blocked or self.transport.is_closing():
            return
        if self._stream is not None:
            self._pull(self._stream)
        at = self._answer_some()
        self._buffer[: self._filled - at] = self._buffer[at : self._filled]
        self._filled -= at
        if self._filled >= 2 and 2 + self._length(0) > QUERY_BYTES:
            self._server.counts.tcp_refused += 1
            self.abort()
        elif not self._blocked:  # otherwise resume_writing goes on
            self._go_on()

    def _go_on(self) -> None:
        if self._stream is not None or (self._whole() and self._may_ask()):
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._work)
        elif self._busy and not self._may_ask():
            self.transport.pause_reading()  # the next late reply goes on
        elif not self._ended:
            self.transport.resume_reading()
        elif not self._busy:
            self.transport.close()

    def _may_ask(self) -> bool:
        return len(self._waiting) < MOST_WAITING and self._asked < self._server.limits.queries and not self._is_long

    def _pull(self, stream: Iterator[bytes]) -> None:
        """One message of a long reply, which takes some milliseconds to make: others have their turn after each."""
        message = next(stream, None)
        if message is None:
            self._stream = None
        else:
            self._write([message])

    def _answer_some(self) -> int:
        """Answers up to SLICE queries in one write; returns how many bytes of the buffer are done with."""
        at = 0
        replies: list[bytes] = []
        for _ in range(SLICE):
            if not self._may_ask() or self._filled - at < 2 or self._filled - at < 2 + self._length(at):
                break
            end = at + 2 + self._length(at)
            self._ask(bytes(self._buffer[at + 2 : end]), replies)
            at = end
        self._write(replies)
        if self._asked >= self._server.limits.queries:
            self._ended, self._filled = True, at
        return at

    def _ask(self, packet: bytes, replies: list[bytes]) -> None:
        self._asked += 1
        reply = self._server.front.reply(packet, self._came)
        if isinstance(reply, Waiting):
            self._wait(reply)
        elif isinstance(reply, Stream):
            self._stream = reply.messages
        elif isinstance(reply, Relayed):
            self._relaying = asyncio.ensure_future(self._relay(reply))
        elif reply is None:
            self._server.counts.silences += 1
        else:
            replies.append(reply)

    def _wait(self, waiting: Waiting) -> None:
        future = self._server.waiters.add(waiting, self._late)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)

    def _late(self, reply: bytes | None) -> None:
        if self.transport.is_closing():
            return
        if reply is None:
            self._server.counts.silences += 1
        else:
            self._write([reply])
        asyncio.get_running_loop().call_soon(self._work)

    async def _relay(self, relayed: Relayed) -> None:
        """As fast as the client reads. What breaks off ends the connection, for half a zone is none."""
        some = False
        try:
            async with aclosing(relayed.messages) as messages:
                async for message in messages:
                    some = True
                    self._write([message])
                    if self._blocked:
                        await self._writable.wait()  # not for ever: who takes nothing is swept
        except OSError:
            if some:
                self.abort()
            elif (failed := relayed.failed()) is not None:
                self._write([failed])
        finally:
            self._relaying = None
            asyncio.get_running_loop().call_soon(self._work)

    def _write(self, replies: list[bytes]) -> None:
        if not replies:
            return
        counted = self._server.counts.replies[self._came.transport]
        for reply in replies:
            counted[reply_code(reply)] += 1
        self._server.used(self)
        self.transport.write(b"".join(part for reply in replies for part in (len(reply).to_bytes(2, "big"), reply)))

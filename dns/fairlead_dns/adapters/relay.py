"""Questions that a worker passes on to the process that holds the journals: transfers, and how they get their replies.

A worker connects to a socket of its parent's, says who asked how, and reads the reply's messages, as over TCP.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from secrets import token_hex

import msgspec

from fairlead_daemon.logs import Log
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.decisions.front import Front, Relayed, Stream, Waiting

log = Log("dns")
CONNECT_S = 5.0
ASKED_S = 5.0
MESSAGE_S = 60.0
"""A client that takes none for so long is not waited for."""
MOST_ONES, MOST_STREAMS = 16, 64
"""Of one worker at a time: each holds a socket here and in the parent."""
_peer = struct.Struct("iii")  # pid, user, group


class Passed(msgspec.Struct, frozen=True, array_like=True):
    """A question as it came to the worker."""

    transport: Transport
    client: str
    local: str
    packet: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Passed).decode


@dataclass(frozen=True, slots=True, eq=False)
class Relay:
    """The worker's end (front.Relay). `address`: the parent's, an abstract one."""

    address: str
    _ones: set[asyncio.Future[bytes | None]] = field(default_factory=set)
    _streams: set[object] = field(default_factory=set)

    @property
    def full(self) -> bool:
        return len(self._ones) >= MOST_ONES

    def one(self, packet: bytes, came: Came) -> Awaitable[bytes | None]:
        """Begun at once: a burst of questions comes before any of them has its turn."""
        asked = asyncio.ensure_future(self._first(packet, came))
        self._ones.add(asked)
        asked.add_done_callback(self._ones.discard)
        return asked

    async def _first(self, packet: bytes, came: Came) -> bytes | None:
        async with aclosing(self._messages(packet, came)) as messages:
            return await anext(messages, None)

    async def messages(self, packet: bytes, came: Came) -> AsyncGenerator[bytes, None]:
        """Raises OSError when there are too many, or the parent is not there, or goes."""
        if len(self._streams) >= MOST_STREAMS:
            raise ConnectionRefusedError("too many transfers at once")
        stream = object()
        self._streams.add(stream)
        try:
            async with aclosing(self._messages(packet, came)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._streams.discard(stream)

    async def _messages(self, packet: bytes, came: Came) -> AsyncGenerator[bytes, None]:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_unix_connection(f"\0{self.address}")
        try:
            data = _encode(Passed(came.transport, came.client, came.local, packet))
            writer.write(len(data).to_bytes(4, "big") + data)
            while True:
                async with asyncio.timeout(MESSAGE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    if not size:
                        return
                    message = await reader.readexactly(size)
                yield message
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the reply breaks off") from error
        finally:
            writer.close()


@dataclass(slots=True, eq=False)
class RelayServer:
    """The parent's end. `known`: whether a process is one of our workers."""

    front: Front
    known: Callable[[int], bool]
    address: str = ""
    _server: asyncio.Server | None = None

    async def open(self) -> None:
        self.address = f"fairlead-dns-{os.getpid()}-{token_hex(8)}"
        self._server = await asyncio.start_unix_server(self._serve, f"\0{self.address}")

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        pid, *_ = _peer.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _peer.size))
        try:
            if self.known(pid):
                await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError) as error:
            log.debug("a relayed reply broke off", why=str(error))
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(ASKED_S):
            size = int.from_bytes(await reader.readexactly(4), "big")
            asked = _decode(await reader.readexactly(size))
        reply = self.front.reply(asked.packet, Came(asked.transport, asked.client, asked.local))
        assert not isinstance(reply, Relayed)  # only a worker's front relays
        if isinstance(reply, Waiting):
            async with asyncio.timeout(MESSAGE_S):
                reply = reply.finish(await reply.awaitable)
        for message in reply.messages if isinstance(reply, Stream) else (() if reply is None else (reply,)):
            writer.write(len(message).to_bytes(2, "big") + message)
            async with asyncio.timeout(MESSAGE_S):
                await writer.drain()
            await asyncio.sleep(0)  # a message takes milliseconds to make
        writer.write(bytes(2))
        async with asyncio.timeout(MESSAGE_S):
            await writer.drain()

"""One question to one upstream: a UDP socket of its own for each, or a TCP or TLS connection that many share."""

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fairlead_dns.decisions.forward_upstreams import Place
from fairlead_dns.decisions.forward_wire import Asked

FIRST_PORT, PORTS = 32768, 32768
"""Source ports: what no server of the bundle listens on."""
PORT_TRIES = 8
STRANGERS = 20  # packets that are not our reply: more, and someone is guessing
REPLY_BYTES = 65535
IDLE_S = 10.0
DEAF_S = 1.5  # a connection that has said nothing for so long while we waited is given up
IDS = 65536

Make = Callable[[int], tuple[Asked, bytes]]
"""A query with the id it is given."""


class UnsureError(Exception):
    """Over UDP there came many packets that are no reply: ask where nobody else can answer."""


class FoldedError(UnsureError):
    """Over UDP there came a reply that fits but for the question's case."""


async def ask_udp(place: Place, asked: Asked, packet: bytes) -> bytes:
    """A reply with our id and question, from the upstream's address and port to ours, which the kernel checks.

    Raises OSError, UnsureError; waits for ever, so within a timeout.
    """
    loop = asyncio.get_running_loop()
    sock = _socket(place)
    try:
        sock.send(packet)
        for _ in range(STRANGERS):
            reply = await loop.sock_recv(sock, REPLY_BYTES)
            if asked.is_answered_by(reply):
                return reply
            if asked.is_answered_but_for_case(reply):
                raise FoldedError("question in another case")
        raise UnsureError("too many packets that are no reply")
    finally:
        sock.close()


def _socket(place: Place) -> socket.socket:
    """Connected, from a port nobody can guess."""
    six = ":" in place.ip
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        _bind_somewhere(sock, "::" if six else "")
        sock.connect((place.ip, place.port))
    except OSError:
        sock.close()
        raise
    return sock


def _bind_somewhere(sock: socket.socket, host: str) -> None:
    for _ in range(PORT_TRIES):
        with suppress(OSError):  # taken: draw again
            sock.bind((host, FIRST_PORT + secrets.randbelow(PORTS)))
            return
    sock.bind((host, 0))  # the kernel's choice is random too


# --- streams ----------------------------------------------------------------------------------------------------------


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Verifies name and chain against the file, or the system's authorities when it is "". Raises OSError, SSLError."""
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["dot"])
    return context


@dataclass(slots=True, eq=False)
class _Line:
    """One connection: queries go out as they come, replies come back in any order."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    waiting: dict[int, tuple[Asked, "asyncio.Future[bytes]"]] = field(default_factory=dict)
    heard_s: float = 0.0
    reading: "asyncio.Task[None] | None" = None

    async def ask(self, make: Make) -> bytes:
        """Raises ConnectionError when the line ends first."""
        loop = asyncio.get_running_loop()
        if self.writer.is_closing():
            raise ConnectionResetError("connection ended")
        number = self._free_id()
        asked, packet = make(number)
        future: asyncio.Future[bytes] = loop.create_future()
        self.waiting[number] = (asked, future)
        sent_s = loop.time()
        self.writer.write(len(packet).to_bytes(2, "big") + packet)
        try:
            return await future
        except asyncio.CancelledError:
            if loop.time() - max(self.heard_s, sent_s) > DEAF_S:
                self.close()
            raise
        finally:
            self.waiting.pop(number, None)

    async def read(self) -> None:
        """Until it ends, is idle, or says what cannot be."""
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    size = int.from_bytes(await self.reader.readexactly(2), "big")
                    self._take(await self.reader.readexactly(size))
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        self.writer.transport.abort()
        for _, future in self.waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError("connection ended"))

    def _take(self, reply: bytes) -> None:
        self.heard_s = asyncio.get_running_loop().time()
        asked, future = self.waiting.get(int.from_bytes(reply[:2], "big"), (None, None))
        if asked is None or future is None or future.done():
            return  # overtaken by another upstream
        if asked.is_answered_by(reply) or asked.is_answered_but_for_case(reply):
            future.set_result(reply)

    def _free_id(self) -> int:
        while (number := secrets.randbelow(IDS)) in self.waiting:
            pass
        return number


@dataclass(slots=True, eq=False)
class Streams:
    """The connection to one upstream, opened when it is needed, shared, opened anew when it has ended."""

    place: Place
    tls: ssl.SSLContext | None = None
    opened: int = 0
    _line: _Line | None = None
    _opening: "asyncio.Task[_Line] | None" = None

    async def ask(self, make: Make) -> bytes:
        """Raises OSError; waits for ever, so within a timeout. A kept line may just be ending: then once more."""
        line = self._line
        if line is not None and not line.writer.is_closing():
            with suppress(ConnectionError):
                return await line.ask(make)
        return await (await self._fresh()).ask(make)

    def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._line is not None:
            self._line.close()

    async def _fresh(self) -> _Line:
        """All who need one wait for the same; one of them that gives up takes it from nobody."""
        if self._line is not None and not self._line.writer.is_closing():
            return self._line
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(_seen)
        return await asyncio.shield(self._opening)

    async def _open(self) -> _Line:
        async with asyncio.timeout(IDLE_S):
            name = (self.place.name or self.place.ip) if self.tls else None
            reader, writer = await asyncio.open_connection(
                self.place.ip, self.place.port, ssl=self.tls, server_hostname=name
            )
        self.opened += 1
        line = self._line = _Line(reader, writer)
        line.reading = asyncio.ensure_future(line.read())
        return line


def _seen(opening: "asyncio.Task[_Line]") -> None:
    """All who waited may be gone: its failure is nobody's then."""
    if not opening.cancelled():
        opening.exception()

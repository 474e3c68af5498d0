"""The line between a name server and its worker processes: whole messages, in order, over a pair of sockets."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from fairlead_discovery.snapshots import Trust
from fairlead_dns.decisions.compose import RRset
from fairlead_dns.decisions.tsig import Key

HEAD_BYTES = 4
MOST_BYTES = 1 << 30
BEHIND_BYTES = 64 * 1024 * 1024
"""Who leaves so much unread is not to be waited for."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A listener, its sockets by their numbers in the worker. `udp` -1: none."""

    key: str
    text: str
    ip: str
    port: int
    stream: int
    udp: int = -1


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first message to a worker. `settings`: as JSON. `relay`: where transfers are asked for. `mark`: the parent's,
    see Forwarding; `stood`: of the one before it; `file`: where a later one's will stand (outlived.py).
    """

    settings: bytes
    number: int
    of: int
    version: str
    server: str
    relay: str
    mark: str
    stood: str
    file: str
    listeners: Sequence[Told]


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The store holds what these names have at `serial`. `all`: no prebuilt answer is true any more."""

    number: int
    names: Sequence[bytes] = ()
    serial: int
    trust: Trust | None
    all: bool = False


class ZonePart(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Some of a zone of a file: its `ZonePut` follows the last."""

    number: int
    apex: bytes
    sets: Sequence[RRset]


class ZonePut(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A zone of a file is whole. No parts before it: its file is wrong, and nothing was known before."""

    number: int
    apex: bytes


class ZoneGone(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    number: int
    apex: bytes


class KeysSet(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All TSIG keys."""

    number: int
    keys: Sequence[Key]


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Nothing but a question whether the worker is there."""

    number: int


class Looped(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A probe of one process has come back to another one: told to the parent, and by it to all."""

    number: int
    probe: bytes


class Done(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker has gone on to message `number`, and holds nothing of before."""

    number: int


class Serving(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker answers at its sockets from now on."""

    number: int


class Counted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the worker has counted since its start: sample, labels, value."""

    samples: Sequence[tuple[str, Sequence[tuple[str, str]], float]]


Message = Hello | Changed | ZonePart | ZonePut | ZoneGone | KeysSet | Beat | Looped | Done | Serving | Counted
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def _framed(message: Message) -> bytes:
    data = _encode(message)
    return len(data).to_bytes(HEAD_BYTES, "big") + data


class Channel(asyncio.Protocol):
    """One end. `take` is called with each message; `lost` is set when the other end is gone."""

    def __init__(self, take: Callable[[Message], None]) -> None:
        self.lost = asyncio.Event()
        self._take = take
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._waiting: deque[bytes | Iterator[Message]] = deque()
        self._waiting_bytes = 0

    @property
    def behind(self) -> bool:
        """Whether the other end has left too much unread."""
        written = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return written + self._waiting_bytes > BEHIND_BYTES

    def send(self, message: Message) -> None:
        """To nobody when the other end is gone."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._waiting:
            data = _framed(message)
            self._waiting.append(data)
            self._waiting_bytes += len(data)
        else:
            self._transport.write(_framed(message))

    def send_parts(self, messages: Iterator[Message]) -> None:
        """Each made when the other end has read those before; what is sent later comes after them."""
        if self._transport is not None and not self._transport.is_closing():
            self._waiting.append(messages)
            if len(self._waiting) == 1:
                self._go_on()

    def _go_on(self) -> None:
        """One piece; the next in another turn of the loop, or when there is room for it."""
        if self._transport is None or self._transport.is_closing() or self._paused or not self._waiting:
            return
        first = self._waiting[0]
        if isinstance(first, bytes):
            self._waiting.popleft()
            self._waiting_bytes -= len(first)
            self._transport.write(first)
        elif (message := next(first, None)) is None:
            self._waiting.popleft()
        else:
            self._transport.write(_framed(message))
        asyncio.get_running_loop().call_soon(self._go_on)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._go_on()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= HEAD_BYTES:
            end = HEAD_BYTES + int.from_bytes(self._data[:HEAD_BYTES], "big")
            if end > MOST_BYTES:
                raise ValueError(f"a message of {end} bytes")
            if len(self._data) < end:
                return
            message = _decode(self._data[HEAD_BYTES:end])
            del self._data[:end]
            self._take(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature; why does not matter
        self._transport = None
        self.lost.set()

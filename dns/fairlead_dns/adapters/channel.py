"""The line between a name server and its worker processes: whole messages, in order, over a pair of sockets."""

import asyncio
from collections.abc import Callable, Sequence

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


class ZonePut(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A zone of a file, whole. No `sets`: its file is wrong, and nothing was known before."""

    number: int
    apex: bytes
    sets: Sequence[RRset] = ()


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


Message = Hello | Changed | ZonePut | ZoneGone | KeysSet | Beat | Looped | Done | Serving | Counted
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Channel(asyncio.Protocol):
    """One end. `take` is called with each message; `lost` is set when the other end is gone."""

    def __init__(self, take: Callable[[Message], None]) -> None:
        self.lost = asyncio.Event()
        self._take = take
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    @property
    def behind(self) -> bool:
        """Whether the other end has left too much unread."""
        return self._transport is not None and self._transport.get_write_buffer_size() > BEHIND_BYTES

    def send(self, message: Message) -> None:
        """To nobody when the other end is gone."""
        if self._transport is not None and not self._transport.is_closing():
            data = _encode(message)
            self._transport.write(len(data).to_bytes(HEAD_BYTES, "big") + data)

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

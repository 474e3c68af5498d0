"""The `local` backend's protocol: one MessagePack object a frame, each frame led by its length (4 bytes, big-endian).

The client says Hello first, then asks; each answer carries the question's number. Pushes carry the number of the
Subscribe they belong to: the first one is whole, later ones hold what changed (None: gone), coalesced.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions.ops import AnyOp, Result

M = TypeVar("M")
VERSION = 1
"""Neighbouring versions speak with one another: keys that are not known are ignored."""
FRAME_LIMIT_BYTES = 256 * 1024 * 1024
_HEAD = struct.Struct(">I")


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    """Base of all."""


class Request(Message, frozen=True, kw_only=True):
    """Base of what is asked. `number` is 0 where no answer is wanted."""

    number: int = 0


class Hello(Request, frozen=True, kw_only=True, tag="hello"):
    """`session` is "" for a new one. An unknown one gets a new one too."""

    version: int = VERSION
    session: str = ""


class Ping(Request, frozen=True, kw_only=True, tag="ping"):
    pass


class Multi(Request, frozen=True, kw_only=True, tag="multi"):
    ops: tuple[AnyOp, ...]
    clocked: bool = False


class Get(Request, frozen=True, kw_only=True, tag="get"):
    path: str


class Names(Request, frozen=True, kw_only=True, tag="names"):
    folder: str
    owned: bool = False


class Subscribe(Request, frozen=True, kw_only=True, tag="subscribe"):
    """`folder` "" is the clocked tree."""

    folder: str = ""


class Unsubscribe(Request, frozen=True, kw_only=True, tag="unsubscribe"):
    subscription: int


class Bye(Request, frozen=True, kw_only=True, tag="bye"):
    """Ends the session."""


AnyRequest = Hello | Ping | Multi | Get | Names | Subscribe | Unsubscribe | Bye


class Answer(Message, frozen=True, kw_only=True):
    number: int = 0


class Welcome(Answer, frozen=True, kw_only=True, tag="welcome"):
    """`version` is the server's: the newer of two neighbours asks for nothing that the older does not know."""

    session: str
    cluster: bytes
    version: int = VERSION


class Done(Answer, frozen=True, kw_only=True, tag="done"):
    revision: int = 0
    results: tuple[Result, ...] = ()


class Failed(Answer, frozen=True, kw_only=True, tag="failed"):
    """Nothing was done. `kind`: conflict, refused, unavailable."""

    kind: str
    message: str


class Got(Answer, frozen=True, kw_only=True, tag="got"):
    """`version` -1: there is no such node."""

    data: bytes = b""
    version: int = -1
    passing: bool = False


class Named(Answer, frozen=True, kw_only=True, tag="named"):
    names: tuple[str, ...] = ()


class Ended(Message, frozen=True, kw_only=True, tag="ended"):
    """The session has ended; the connection stays, for another Hello."""


WireNode = tuple[bytes, int]


class Push(Message, frozen=True, kw_only=True, tag="push"):
    """`folders`: by folder, by name, data and version. With `whole`, what is not in it is not there. `committed_s`: Unix
    time of the commit that made `revision`; 0: it was before the registry's start.
    """

    subscription: int
    revision: int
    whole: bool = False
    committed_s: float = 0.0
    folders: Mapping[str, Mapping[str, WireNode | None]] = msgspec.field(default_factory=dict)


AnyReply = Welcome | Done | Failed | Got | Named | Ended | Push

_encoder = msgspec.msgpack.Encoder()
requests = msgspec.msgpack.Decoder(AnyRequest)
replies = msgspec.msgpack.Decoder(AnyReply)


def frame(message: Message) -> bytes:
    body = _encoder.encode(message)
    return _HEAD.pack(len(body)) + body


class Unframer:
    """Feed bytes as they come, take whole messages."""

    def __init__(self, limit_bytes: int = FRAME_LIMIT_BYTES) -> None:
        self._buffer = bytearray()
        self._limit_bytes = limit_bytes

    def feed(self, data: bytes, decoder: msgspec.msgpack.Decoder[M]) -> Iterator[M]:
        """Raises Refused on what is no frame or no message."""
        self._buffer += data
        start = 0
        try:
            while (end := self._end(start)) is not None:
                body = bytes(memoryview(self._buffer)[start + _HEAD.size : end])
                start = end
                try:
                    yield decoder.decode(body)
                except msgspec.DecodeError as error:
                    raise Refused(f"registry message: {error}") from error
        finally:
            del self._buffer[:start]

    def _end(self, start: int) -> int | None:
        if len(self._buffer) - start < _HEAD.size:
            return None
        size: int = _HEAD.unpack_from(self._buffer, start)[0]
        if size > self._limit_bytes:
            raise Refused(f"registry message of {size} bytes")
        end = start + _HEAD.size + size
        return end if len(self._buffer) >= end else None

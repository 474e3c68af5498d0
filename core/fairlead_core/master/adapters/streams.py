"""Outgoing RecordIO streams: what is sent is queued, one writer drains it, a reader that stalls is let go."""

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from fairlead_core.recordio import frame
from fairlead_daemon.logs import Log

BACKLOG_BYTES = 64 * 1024 * 1024
"""A peer that reads nothing for so long has lost its state anyway: it is closed, and reconciles afresh."""
STALL_S = 60.0
log = Log("master.streams")
_encoder = msgspec.json.Encoder()


def ascii_json(value: object) -> bytes:
    """Compact JSON of ASCII only, without raw newlines: clients slice by byte counts after decoding."""
    data = _encoder.encode(value)
    if data.isascii():
        return data
    return json.dumps(msgspec.json.decode(data), separators=(",", ":")).encode("ascii")


class Stream:
    """One peer's stream, from subscription to either side's end."""

    def __init__(self) -> None:
        self.id = str(uuid.uuid4())
        self._frames: list[bytes] = []
        self._backlog_bytes = 0
        self._wake = asyncio.Event()
        self._closed = False

    def send(self, value: object) -> None:
        self.send_bytes(frame(ascii_json(value)))

    def send_bytes(self, data: bytes) -> None:
        if self._closed:
            return
        self._frames.append(data)
        self._backlog_bytes += len(data)
        if self._backlog_bytes > BACKLOG_BYTES:
            log.warning("stream over its backlog", stream=self.id, backlog_bytes=self._backlog_bytes)
            self._frames.clear()
            self._closed = True
        self._wake.set()

    def close(self) -> None:
        """After what was sent."""
        self._closed = True
        self._wake.set()

    async def pump(self, response: web.StreamResponse) -> None:
        """Writes until closed. Raises OSError or TimeoutError when the peer is gone or stalls."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            frames, self._frames, self._backlog_bytes = self._frames, [], 0
            if frames:
                async with asyncio.timeout(STALL_S):
                    await response.write(b"".join(frames))
            if self._closed and not self._frames:
                return


async def serve_stream(
    request: web.Request, stream: Stream, headers: Mapping[str, str], *, ended: Callable[[], Any]
) -> web.StreamResponse:
    """Holds the answer open until the stream is closed or the peer is gone; then `ended` is called, once."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    if request.version >= (1, 1):
        response.enable_chunked_encoding()
    try:
        await response.prepare(request)
        await stream.pump(response)
        await response.write_eof()
    except (OSError, TimeoutError) as error:
        log.debug("stream ended", stream=stream.id, why=str(error) or type(error).__name__)
    finally:
        stream.close()
        ended()
    return response

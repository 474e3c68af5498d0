"""Waiting for a daemon's `/ready`, or for the registry's socket to take connections."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from fairlead_daemon.errors import Unavailable

POLL_S = 0.05
ANSWER_S = 2.0
NO_ANSWER = "no answer"


async def wait_ready(session: aiohttp.ClientSession, url: str, *, within_s: float) -> None:
    """Returns when it is ready. Raises Unavailable with the last reason it gave."""
    why = NO_ANSWER
    try:
        async with asyncio.timeout(within_s):
            while why:
                why = await why_not(session, url)
                await asyncio.sleep(POLL_S if why else 0)
    except TimeoutError as error:
        raise Unavailable(why) from error


async def why_not(session: aiohttp.ClientSession, url: str, *, within_s: float = ANSWER_S) -> str:
    """Empty when ready. `unix:<path>` and `tcp://host:port` are ready when they take a connection."""
    kind = url.partition(":")[0]
    try:
        async with asyncio.timeout(within_s):
            if kind == "unix":
                return await _connect(asyncio.open_unix_connection(url.removeprefix("unix:")))
            if kind == "tcp":
                return await _connect(asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port))
            async with session.get(url) as response:
                return _reason(response.status, await response.read())
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        return f"{NO_ANSWER}: {_worded(error)}"


def no_answer(why: str) -> bool:
    return why.startswith(NO_ANSWER)


def _worded(error: Exception) -> str:
    """`connection refused`, without the address, which is known."""
    number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
    return os.strerror(number).lower() if number else str(error) or type(error).__name__


async def _connect(opening: Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> str:
    _, writer = await opening
    writer.close()
    return ""


def _reason(status: int, raw: bytes) -> str:
    if status == 200:
        return ""
    try:
        waits = msgspec.json.decode(raw)["waits"]
        return "; ".join(f"{what}: {why}" for what, why in waits.items())
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        return f"status {status}"

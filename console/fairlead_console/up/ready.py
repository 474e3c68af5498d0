"""Waiting for a daemon's `/ready`, or for the registry to answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from fairlead_daemon.client import worded
from fairlead_daemon.errors import FairleadError, Unavailable

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
    """Empty when ready. A registry (`unix:<path>`) is when it answers, `tcp://host:port` when it takes a connection."""
    kind = url.partition(":")[0]
    try:
        async with asyncio.timeout(within_s):
            if kind == "unix":
                return await _ask_registry(url.removeprefix("unix:"))
            if kind == "tcp":
                return await _connect(asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port))
            async with session.get(url) as response:
                return _reason(response.status, await response.read())
    except (OSError, aiohttp.ClientError, TimeoutError, FairleadError) as error:
        return f"{NO_ANSWER}: {_worded(error, within_s)}"


def no_answer(why: str) -> bool:
    return why.startswith(NO_ANSWER)


def _worded(error: Exception, within_s: float) -> str:
    return f"silent for {within_s:g} s" if isinstance(error, TimeoutError) else worded(error)


async def _ask_registry(path: str) -> str:
    """A question about its tree: a connection alone is the kernel's doing, also for a stopped process."""
    from fairlead_discovery import paths  # noqa: PLC0415  # verbs that ask no registry start faster
    from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # see above

    await _connect(asyncio.open_unix_connection(path))  # says why not, when there is none
    registry = await open_registry(f"local:{path}", follow=False)  # this very process is asked
    try:
        await registry.tree.get(paths.CLUSTER)
    finally:
        await registry.close()
    return ""


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

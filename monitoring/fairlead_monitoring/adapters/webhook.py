"""One call of a webhook."""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from fairlead_daemon.errors import Refused, Unavailable

AGAIN = frozenset({408, 425, 429})
"""4xx that are worth another try."""


async def post(session: aiohttp.ClientSession, url: str, key: str, value: Mapping[str, Any], *, wait_s: float) -> None:
    """Returns when it was taken (2xx). Raises Unavailable (try again), Refused (do not).

    `key` stands in the header Idempotency-Key: a call made again after a doubt carries the same one.
    """
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "fairlead-monitor"}
    try:
        async with (
            asyncio.timeout(wait_s),
            session.post(url, data=msgspec.json.encode(value), headers=headers, allow_redirects=False) as response,
        ):
            status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Unavailable(f"{error or 'no answer in time'}") from error
    if 200 <= status < 300:
        return
    if 300 <= status < 500 and status not in AGAIN:
        raise Refused(f"status {status}")
    raise Unavailable(f"status {status}")

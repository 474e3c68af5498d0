"""The HTTP client side: one aiohttp session that carries the token, and errors in fairlead's five classes."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from fairlead_daemon.errors import Conflict, Refused, Unavailable
from fairlead_daemon.tokens import read_token

CONFLICT = 409
FIRST_SERVER_ERROR = 500


def headers(token_file: Path | None) -> dict[str, str]:
    """The Authorization header when there is a token that we may read, else none."""
    token = read_token(token_file) if token_file is not None else ""
    return {"Authorization": f"Bearer {token}"} if token else {}


def make_session(token_file: Path | None = None) -> aiohttp.ClientSession:
    """No total timeout (streams stay open): wrap each wait in asyncio.timeout."""
    return aiohttp.ClientSession(headers=headers(token_file), timeout=aiohttp.ClientTimeout(total=None, connect=5))


async def call(
    session: aiohttp.ClientSession, method: str, url: str, *, body: object = None, wait_s: float = 10
) -> Any:
    """Decoded JSON of a 2xx answer (None when empty).

    Raises Conflict (409), Refused (other 4xx), Unavailable (5xx, no answer); the message is the server's own.
    """
    data = None if body is None else msgspec.json.encode(body)
    try:
        async with (
            asyncio.timeout(wait_s),
            session.request(
                method,
                url,
                data=data,
                headers={"Content-Type": "application/json"} if data is not None else None,
            ) as response,
        ):
            raw = await response.read()
            status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(f"{method} {url}: {_reason(error, wait_s)}") from error
    if status < 400:
        return msgspec.json.decode(raw) if raw else None
    raise _error(status, f"{method} {url}: {status} {_message(raw)}")


def worded(error: Exception) -> str:
    """`connection refused`: without the address, which the caller names, and the library's own words."""
    if isinstance(error, socket.gaierror | aiohttp.ClientConnectorDNSError):
        return "no such host"
    number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
    return os.strerror(number).lower() if number and number > 0 else str(error) or type(error).__name__


def _reason(error: Exception, wait_s: float) -> str:
    if isinstance(error, TimeoutError) and not getattr(error, "errno", None):
        return f"no answer within {wait_s:g} s"
    return worded(error)


def _error(status: int, message: str) -> Exception:
    if status == CONFLICT:
        return Conflict(message)
    return Refused(message) if status < FIRST_SERVER_ERROR else Unavailable(message)


def _message(raw: bytes) -> str:
    try:
        value = msgspec.json.decode(raw)
        return str(value["message"]) + (f" {value['details']}" if "details" in value else "")
    except (msgspec.DecodeError, TypeError, KeyError):
        return raw[:300].decode("utf-8", "replace")

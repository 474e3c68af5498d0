"""Performs checks: a connection and a few bytes, or a command. Never raises for what a peer does."""

import asyncio
import os
import shlex
import signal
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from fairlead_discovery.decisions.checks import ANSWER_LIMIT_BYTES, GOOD, Check, Talk, talk


async def probe(check: Check, host: str, port: int) -> str:
    """GOOD, or what is wrong. `host` and `port` are the service's; the check's own win."""
    if check.type == "none":
        return GOOD
    try:
        async with asyncio.timeout(check.timeout_s):
            if check.type == "command":
                return await _command(check.command)
            where = (check.host or host, check.port or port)
            return await _converse(talk(check, *where), where, tls=security(check))
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not good: {error.verify_message}"
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def security(check: Check) -> dict[str, Any]:
    """What a connection needs for TLS; nothing for other checks. Raises OSError or ValueError when the ca cannot be read."""
    if check.type != "https":
        return {}
    changed_ns = os.stat(check.ca).st_mtime_ns if check.ca else 0  # noqa: PTH116  # a certificate may be renewed
    return {
        "ssl": _context(check.ca, check.verify, changed_ns),
        "server_hostname": check.server_name or None,
        "ssl_handshake_timeout": check.timeout_s,
        "ssl_shutdown_timeout": check.timeout_s,
    }


@lru_cache(maxsize=64)
def _context(ca: str, verify: bool, _changed_ns: int) -> ssl.SSLContext:  # a key
    """Kept: reading the system's authorities takes longer than the check."""
    context = ssl.create_default_context(cafile=ca or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _converse(conversation: Talk, where: tuple[str, int], *, tls: Mapping[str, Any]) -> str:
    reader, writer = await asyncio.open_connection(*where, **tls)
    try:
        writer.write(conversation.send)
        answer = b""
        while (verdict := conversation.judge(answer)) is None:
            part = await reader.read(4096)
            if not part:
                return "it closed the connection"
            answer += part
            if len(answer) > ANSWER_LIMIT_BYTES:
                return f"more than {ANSWER_LIMIT_BYTES} bytes and no answer among them"
        return verdict
    finally:
        writer.close()


async def _command(command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = await process.wait()
    finally:
        with suppress(ProcessLookupError):  # what it started, and itself when its time is over
            os.killpg(process.pid, signal.SIGKILL)
    return GOOD if code == 0 else f"the command ended with {code}"

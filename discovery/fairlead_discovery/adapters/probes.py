"""Performs checks: a connection and a few bytes, or a command. Never raises for what a peer does."""

import asyncio
import os
import shlex
import signal
from contextlib import suppress

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
            return await _converse(talk(check, *where), *where)
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


async def _converse(conversation: Talk, host: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(host, port)
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

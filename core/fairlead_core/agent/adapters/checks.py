"""Health checks carried out: each returns "" when it is well, else what was wrong, in words."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from fairlead_core.agent.adapters.accounts import Account
from fairlead_core.agent.decisions.tasks import Command, HealthCheck, HttpCheck, argv
from fairlead_daemon.errors import Refused

CHECK_VARIABLE = "FAIRLEAD_CHECK_KEY"
Probe = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where a task is reached, and as whom and where its check command runs."""

    ip: str
    account: Account
    sandbox: Path
    environment: Mapping[str, str]


def make_probe(check: HealthCheck, around: Surroundings, session: aiohttp.ClientSession) -> Probe:
    """One bounded check a call, at most `timeout_seconds` long."""
    timeout_s = max(0.1, check.timeout_seconds)

    async def bounded(inner: Callable[[], Awaitable[str]]) -> str:
        try:
            async with asyncio.timeout(timeout_s):
                return await inner()
        except TimeoutError:
            return f"no answer within {timeout_s:g} s"

    match check.kind():
        case "HTTP":
            http = check.http
            assert http is not None, "kind() has looked"
            return lambda: bounded(lambda: _http(http, around.ip, session))
        case "TCP":
            tcp = check.tcp
            assert tcp is not None, "kind() has looked"
            return lambda: bounded(lambda: _tcp(around.ip, tcp.port))
        case "COMMAND":
            command = check.command
            assert command is not None, "kind() has looked"
            return lambda: bounded(lambda: _command(command, around))
    raise Refused(f"health_check: type {check.type!r} without what it needs")


async def _http(check: HttpCheck, ip: str, session: aiohttp.ClientSession) -> str:
    host = f"[{ip}]" if ":" in ip else ip
    path = check.path if check.path.startswith("/") else f"/{check.path}"
    url = f"{check.scheme}://{host}:{check.port}{path}"
    try:
        async with session.get(url, allow_redirects=False, ssl=False) as response:
            status = response.status
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"GET {url}: {error or type(error).__name__}"
    well = status in check.statuses if check.statuses else 200 <= status < 400
    return "" if well else f"GET {url} answered {status}"


async def _tcp(ip: str, port: int) -> str:
    try:
        _, writer = await asyncio.open_connection(ip, port)
    except OSError as error:
        return f"connecting to {ip}:{port}: {error.strerror or error}"
    writer.close()
    return ""


async def _command(command: Command, around: Surroundings) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv(command),
            cwd=around.sandbox,
            env={**around.environment, **{v.name: v.value or "" for v in command.environment.variables}},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            **around.account.switch(),  # type: ignore[arg-type]  # the stubs want each keyword by itself
        )
    except OSError as error:
        return f"command: {error.strerror}"
    try:
        status = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return "" if status == 0 else f"command exited with status {status}"

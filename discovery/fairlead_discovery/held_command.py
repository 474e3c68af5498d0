"""Runs a command for as long as a lease holds, through a guardian that ends it in time whatever becomes of us."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fairlead_daemon.logs import Log
from fairlead_discovery import guardian, metrics
from fairlead_discovery.coordination import Held

GUARDIAN = Path(guardian.__file__)
LOST_CODE = 137
"""When the guardian itself was killed: the command was killed after it."""
log = Log("coordination")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`grace_s`: from SIGTERM to SIGKILL; so much sooner than the lease ends it is asked to."""

    words: Sequence[str]
    grace_s: float = 3.0

    def environment(self, held: Held) -> Mapping[str, str]:
        return {
            **os.environ,
            "FAIRLEAD_FENCE": str(held.fence),
            "FAIRLEAD_HELD": held.name.partition(":")[2],
            "FAIRLEAD_SLOT": str(held.slot),
        }


async def run_held(held: Held, command: Command, stop: asyncio.Event) -> int:
    """The command's exit code. It has ended, with everything it started, when this returns."""
    metrics.fence.labels(name=held.name).set(held.fence)
    with _counted(held.name):
        return await _run(held, command, stop)


@contextmanager
def _counted(name: str) -> Iterator[None]:
    metrics.held.labels(name=name).set(1)
    try:
        yield
    finally:
        metrics.held.labels(name=name).set(0)


async def _run(held: Held, command: Command, stop: asyncio.Event) -> int:
    ours, theirs = socket.socketpair()
    guardian.become_subreaper()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", str(GUARDIAN), str(theirs.fileno())),
            *(f"{command.grace_s}", f"{held.good_until_s}", "--", *command.words),
            pass_fds=(theirs.fileno(),),
            env=command.environment(held),
            start_new_session=True,
        )
    finally:
        theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    tasks = [
        asyncio.ensure_future(_forward(held, writer)),
        asyncio.ensure_future(_send_when(held.lost, b"kill\n", writer)),
        asyncio.ensure_future(_send_when(stop, b"term\n", writer)),
    ]
    try:
        code = await _answer(reader)
        await process.wait()
    finally:
        for task in tasks:
            task.cancel()
        writer.close()
        if process.returncode is None:  # we are cancelled: the closed socket tells the guardian to kill
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            await process.wait()
    if code is None:
        log.error("guardian killed, its command is killed too", name=held.name)
        guardian.end_descendants()
        return LOST_CODE
    return code


async def _answer(reader: asyncio.StreamReader) -> int | None:
    """None when it ended without a word."""
    with suppress(ConnectionError):
        while line := await reader.readline():
            word, _, value = line.decode().partition(" ")
            if word == "exit":
                return int(value)
    return None


async def _forward(held: Held, writer: asyncio.StreamWriter) -> None:
    while True:
        held.renewed.clear()
        writer.write(f"until {held.good_until_s}\n".encode())
        await held.renewed.wait()


async def _send_when(event: asyncio.Event, words: bytes, writer: asyncio.StreamWriter) -> None:
    await event.wait()
    writer.write(words)

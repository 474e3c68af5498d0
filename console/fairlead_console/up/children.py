"""Processes of `up`: started in a session of their own with a log file, watched by pidfd whoever's child they are."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fairlead_daemon.processes import Identity, alive, identify, send_signal

LOG_LIMIT_BYTES = 20 * 1024 * 1024
TERM_S = 10.0
"""A daemon that has not ended by then is killed; nothing it looks after depends on its last words."""


@dataclass(frozen=True, slots=True)
class Child:
    """A started daemon. `identity` has start_ticks 0 when it died before it could be looked at."""

    identity: Identity
    process: "subprocess.Popen[bytes]"

    async def ended(self) -> int:
        """Waits for its end; exit code, negative for a signal."""
        await gone(self.identity)
        return self.process.wait()  # a pidfd is readable once it can be reaped: this does not block


def start(name: str, kind: str, *, data_dir: Path) -> Child:
    """`fairlead <kind> --config <data_dir>/etc/<name>.toml`, logging to `<data_dir>/log/<name>.log`."""
    log = data_dir / "log" / f"{name}.log"
    _rotate(log)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fairlead_console", kind, "--config", f"{data_dir}/etc/{name}.toml"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd="/",
            start_new_session=True,
        )
    return Child(identify(process.pid) or Identity(process.pid, 0), process)


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))


def last_line(data_dir: Path, name: str) -> str:
    """Of its log: what it said before it died, without a traceback's frame. "" when it said nothing."""
    try:
        with (data_dir / "log" / f"{name}.log").open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 4096))
            lines = stream.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    words = (line.strip(" |+-") for line in reversed(lines))
    return next((line[:300] for line in words if line), "")


async def gone(identity: Identity) -> None:
    """Waits until this process has ended, ours or not."""
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        if alive(identity):
            await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def end(identity: Identity, *, grace_s: float = TERM_S) -> bool:
    """SIGTERM, and SIGKILL after `grace_s`. False when it had to be killed."""
    if not send_signal(identity, signal.SIGTERM):
        return True
    try:
        async with asyncio.timeout(grace_s):
            await gone(identity)
    except TimeoutError:
        send_signal(identity, signal.SIGKILL)
        async with asyncio.timeout(grace_s):
            await gone(identity)
        return False
    return True

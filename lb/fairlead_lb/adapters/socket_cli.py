"""HAProxy's sockets: commands out, answers back."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from fairlead_daemon.errors import Unavailable
from fairlead_lb.decisions import answers

WAIT_S = 5.0
OLD_S = 3.0
LINE_LIMIT_BYTES = 8_000  # of 16,384 HAProxy takes; beyond it closes the socket without a word
SEVERITY = "set severity-output number"
READ_LIMIT_BYTES = 64 * 1024 * 1024


async def ask(path: Path | str, line: str, *, wait_s: float = WAIT_S) -> str:
    """One line of commands to one socket, everything it says. Raises Unavailable."""
    try:
        async with asyncio.timeout(wait_s):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=READ_LIMIT_BYTES)
            try:
                writer.write(line.encode("ascii") + b"\n")
                writer.write_eof()  # the master's socket hangs without it
                return (await reader.read(-1)).decode("utf-8", "replace")
            finally:
                writer.close()
    except (OSError, TimeoutError, UnicodeEncodeError) as error:
        raise Unavailable(f"haproxy's socket {path}: {error or 'no answer'}") from error


async def ask_all(path: Path | str, commands: Sequence[str]) -> list[str]:
    """One answer a command, over as few lines as fit. Raises Unavailable, also when answers are missing."""
    found: list[str] = []
    for chunk in chunks(commands):
        said = answers.split(await ask(path, ";".join(chunk)))
        if len(said) < len(chunk):
            raise Unavailable(f"haproxy's socket {path}: {len(said)} answers to {len(chunk)} commands")
        found += said[: len(chunk)]
    return found


async def tell_all(path: Path | str, commands: Sequence[str]) -> list[str]:
    """As ask_all, each answer with its severity in front (`[3]: No such server.`); see answers.objection."""
    found: list[str] = []
    for chunk in chunks(commands):
        said = answers.split(await ask(path, ";".join((SEVERITY, *chunk))))
        if len(said) <= len(chunk):
            raise Unavailable(f"haproxy's socket {path}: {len(said) - 1} answers to {len(chunk)} commands")
        found += said[1 : len(chunk) + 1]
    return found


async def ask_old(master: Path, pid: int, commands: Sequence[str]) -> str:
    """Through the master to a worker that finishes its sessions; each command carries the pid."""
    return "".join(
        [await ask(master, ";".join(f"@!{pid} {c}" for c in chunk), wait_s=OLD_S) for chunk in chunks(commands)]
    )


def chunks(commands: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = []
    size = LINE_LIMIT_BYTES + 1
    for command in commands:
        size += len(command) + 12  # the prefix of ask_old
        if size > LINE_LIMIT_BYTES:
            found.append([])
            size = len(command) + 12
        found[-1].append(command)
    return found


async def peer_pid(path: Path) -> int:
    """Who listens on a unix socket, by SO_PEERCRED; 0 when nobody does."""
    import socket  # noqa: PLC0415  # only here

    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            async with asyncio.timeout(WAIT_S):
                await loop.sock_connect(probe, str(path))
        except (OSError, TimeoutError):
            return 0
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(raw[:4], "little")

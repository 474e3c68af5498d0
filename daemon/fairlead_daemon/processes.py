"""Processes that are not our children, told apart from whoever gets their pid next."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """A process for good: pids are reused, a pid with its start time (clock ticks since boot) is not."""

    pid: int
    start_ticks: int


def identify(pid: int) -> Identity | None:
    """None when no such process runs (a zombie does not run)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))


def alive(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def send_signal(identity: Identity, number: int) -> bool:
    """True when the very process was there to get it. A pidfd closes the gap between check and kill."""
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        if not alive(identity):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def pids() -> Iterator[int]:
    """Of every process but our own."""
    own = os.getpid()
    return (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own)  # noqa: PTH208  # names only


def neighbours(at: Path = Path("/")) -> Iterator[int]:
    """Processes for which the path `at` is the same folder as for us: not those in a container, chroot or mount
    namespace that have another one there. None where there is no such folder.
    """
    ours = _folder(os.getpid(), at)
    return (pid for pid in pids() if ours is not None and _folder(pid, at) == ours)


def _folder(pid: int, at: Path) -> tuple[int, int] | None:
    try:
        status = Path(f"/proc/{pid}/root{at.absolute()}").stat()
    except OSError:  # another user's, or it ended, or has no such folder
        return None
    return status.st_dev, status.st_ino


def command_line(pid: int) -> list[bytes]:
    """Empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return []


def environment(pid: int) -> list[bytes]:
    """`NAME=value` entries; empty for a process that is gone, or is not ours to look into."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []

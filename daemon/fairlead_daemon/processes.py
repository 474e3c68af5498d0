"""Processes that are not our children, told apart from whoever gets their pid next."""

import os
import signal
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

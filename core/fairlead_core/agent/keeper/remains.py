"""What a dead keeper's tasks left running: found by recorded process groups and by the environment, and ended."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from fairlead_core.agent.keeper.protocol import TASK_VARIABLE, Held
from fairlead_core.agent.keeper.records import boot_id
from fairlead_daemon.processes import Identity, alive, environment, identify, pids, send_signal

PATIENCE_S = 2.0
_PAUSE_S = 0.01


def marked(prefix: str, *, variable: str = TASK_VARIABLE) -> Iterator[Identity]:
    """Processes whose environment has `variable` with a value that starts with `prefix`."""
    for pid in pids():
        if carries(pid, prefix, variable=variable) and (identity := identify(pid)) is not None:
            yield identity


def carries(pid: int, prefix: str, *, variable: str = TASK_VARIABLE) -> bool:
    """False too for a process that is gone, or is not ours to look into."""
    wanted = f"{variable}={prefix}".encode()
    return any(entry.startswith(wanted) for entry in environment(pid))


def end_remains(records: Iterable[Held], instance: str, *, patience_s: float = PATIENCE_S) -> bool:
    """KILL to all that still runs of these records; True when nothing is left. For when no keeper lives.

    Twice, or from two processes at once, does no harm.
    """
    groups = [Identity(r.pid, r.start_ticks) for r in records if not r.ended_s and r.boot_id == boot_id()]
    end = time.monotonic() + patience_s
    while left := [*filter(alive, groups), *marked(f"{instance}/")]:
        if time.monotonic() > end:
            return False
        for identity in left:
            _end(identity)
        time.sleep(_PAUSE_S)
    return True


def _end(identity: Identity) -> None:
    if alive(identity) and _leads_its_group(identity.pid):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(identity.pid, signal.SIGKILL)
    with suppress(PermissionError):
        send_signal(identity, signal.SIGKILL)


def _leads_its_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False

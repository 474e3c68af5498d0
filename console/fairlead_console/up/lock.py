"""One `up` a data directory: a lock that the kernel takes away when its holder dies, however it dies."""

import fcntl
import os
from pathlib import Path

from fairlead_daemon.errors import Conflict


class Lock:
    """Held until release() or the end of the process; children do not inherit it."""

    def __init__(self, data_dir: Path) -> None:
        """Raises Conflict naming the holder's pid."""
        path = data_dir / "up.lock"
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise Conflict(
                f"{data_dir}: another `fairlead up` (pid {holder or 'unknown'}) runs on this data directory; "
                "end it first, or give this one --data-dir and ports of its own"
            ) from error
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._handle)

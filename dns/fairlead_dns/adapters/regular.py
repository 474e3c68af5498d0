"""Files that somebody else writes, read so that nobody waits for them for ever: not for a FIFO, not for a dead share."""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
MOST_BYTES = 16 * 1024 * 1024
READ_S = 5.0
"""How long what is read in passing may take; what was read before stays in use meanwhile."""


def read_regular(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Raises OSError, also for what is no regular file or larger than `most_bytes`. A FIFO is not waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(handle, "rb", closefd=False) as stream:
            found = stream.read(most_bytes + 1)
    finally:
        os.close(handle)
    if len(found) > most_bytes:
        raise OSError(errno.EFBIG, f"over {most_bytes} bytes", str(path))
    return found


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """UTF-8, lines end as on Unix. Raises OSError as above, UnicodeDecodeError."""
    return read_regular(path, most_bytes).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


class Aside:
    """One piece of work at a time, in a thread that the end of the process does not wait for (as the loop's own would)."""

    def __init__(self) -> None:
        self._running: asyncio.Future[Any] | None = None

    async def run(self, work: Callable[[], T], within_s: float) -> T:
        """Raises TimeoutError after `within_s`, also when what was begun earlier is what still hangs."""
        async with asyncio.timeout(within_s):
            if self._running is not None:
                await asyncio.wait({self._running})
            self._running = begun = _begin(work)
            await asyncio.wait({begun})
        return begun.result()


def _begin(work: Callable[[], T]) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[T] = loop.create_future()
    made.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be there to ask for it

    def run() -> None:
        try:
            told = partial(made.set_result, work())
        except Exception as error:  # noqa: BLE001  # it is the caller's, and raised where it waits
            told = partial(made.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: the daemon has ended meanwhile
            loop.call_soon_threadsafe(told)

    threading.Thread(target=run, name="fairlead-files", daemon=True).start()
    return made

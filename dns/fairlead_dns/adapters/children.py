"""A process we have started, which does not end because we do: asyncio's own would be killed with our loop."""

import asyncio
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress


class Child:
    """Runs from here on, with these file descriptors besides the usual ones. Raises OSError when it cannot."""

    def __init__(self, command: Sequence[str], handles: Sequence[int]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=handles)  # ours
        self._ended = asyncio.Event()
        self._handle = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._handle, self._gone)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    async def wait(self) -> None:
        await self._ended.wait()

    def send(self, number: int) -> None:
        """To nobody when it has ended."""
        if not self._ended.is_set():
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _gone(self) -> None:
        self._process.poll()
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self._ended.set()

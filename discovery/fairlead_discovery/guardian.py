"""A process of its own that starts a command and ends it in time. Standard library only: it runs by its path.

    python -I -S guardian.py FD GRACE_S UNTIL_S -- command …

The lease's keeper tells it over the socket FD, line by line, how long the command may run: `until <CLOCK_BOOTTIME
seconds>`, `term`, `kill`. The keeper may be paused, cut off or killed at any time: at UNTIL_S - GRACE_S the command
gets SIGTERM, at UNTIL_S it and everything it started get SIGKILL; when the socket closes, at once. It answers
`pid <number>` and `exit <code>` (128 + n for signal n).
"""

import ctypes
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 0.2
"""A longer sleep would not notice in time that the machine was suspended."""
END_S = 5.0
_libc = ctypes.CDLL(None, use_errno=True)


def boottime_s() -> float:
    """Goes on while the machine sleeps, as the registry's clock does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def become_subreaper() -> None:
    """Orphans below us come to us: nothing that the command started escapes."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> Iterator[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for thread in threads:
        try:
            children = (thread / "children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield child
            yield from descendants(child)


def end_descendants() -> None:
    """SIGKILL for all of them, again until none is left. A stopped one dies too."""
    end_s = time.monotonic() + END_S
    while time.monotonic() < end_s:
        found = list(descendants(os.getpid()))
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not found:
            return
        reap()
        time.sleep(0.002)


def reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def spawn(command: list[str], fd: int) -> int:
    """The child dies with us. 127 when there is no such command, as a shell has it."""
    guardian = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.close(fd)
        os.setpgid(0, 0)
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != guardian:
            os._exit(137)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606  # running it is what we are for
    except OSError as error:
        os.write(2, f"fairlead: {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


class Guardian:
    def __init__(self, link: socket.socket, pid: int, *, until_s: float, grace_s: float) -> None:
        self._link = link
        self._pid = pid
        self._until_s = until_s
        self._grace_s = grace_s
        self._asked = False
        self._buffer = b""

    def run(self) -> int:
        """Returns the command's exit code, when it and everything below it has ended."""
        handle = os.pidfd_open(self._pid)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.register(self._link, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(max(0.0, min(LOOK_S, self._next_s())) * 1000)}
            if handle in ready:
                break
            kill = self._link.fileno() in ready and not self._listen()
            if kill or boottime_s() >= self._until_s:
                os.kill(self._pid, signal.SIGKILL)  # it first; it is not reaped yet, so that the pid is its own
                break
            if boottime_s() >= self._until_s - self._grace_s:
                self._ask()
        _, status = os.waitpid(self._pid, 0)
        end_descendants()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _next_s(self) -> float:
        due_s = self._until_s if self._asked else self._until_s - self._grace_s
        return due_s - boottime_s()

    def _listen(self) -> bool:
        """False: kill now."""
        try:
            data = self._link.recv(4096)
        except OSError:
            return False
        if not data:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            word, _, value = line.decode().partition(" ")
            if word == "until":
                self._until_s = self._until_s if self._asked else float(value)
            elif word == "term":
                self._until_s = min(self._until_s, boottime_s() + self._grace_s)
                self._ask()
            elif word == "kill":
                return False
        return True

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            os.killpg(self._pid, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    link = socket.socket(fileno=int(arguments[0]))
    grace_s, until_s, command = float(arguments[1]), float(arguments[2]), arguments[4:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # the keeper decides; not SIG_IGN, which the command would inherit
    become_subreaper()
    pid = spawn(command, link.fileno())
    with suppress(OSError):  # the child may have run already
        os.setpgid(pid, pid)
    link.sendall(f"pid {pid}\n".encode())
    code = Guardian(link, pid, until_s=until_s, grace_s=grace_s).run()
    try:
        link.sendall(f"exit {code}\n".encode())
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

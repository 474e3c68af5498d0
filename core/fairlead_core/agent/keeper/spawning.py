"""From a Launch to a process: fork, wait for the go, become the user, exec.

The forked child waits until its pid is on disk before it does anything, and is killed with the keeper. It never
returns into the keeper's code. What goes wrong before the exec comes back as words through a pipe that the exec closes.
Mounts are made by system calls and not by the `unshare` and `mount` commands: those would run as root with the task's
environment (LD_PRELOAD!), or its secrets would stand on a command line.
"""

import ctypes
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from fairlead_core.agent.keeper.protocol import AS_KEEPER, TASK_VARIABLE, Launch

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
RESOLV_CONF = "/etc/resolv.conf"
COULD_NOT_START = 127
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def become_subreaper() -> None:
    """Orphaned grandchildren come to us, not to init."""
    _checked(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


@dataclass(frozen=True, slots=True)
class Child:
    """A forked child that waits. `trouble` is readable: empty at its end means that the program runs."""

    pid: int
    trouble: int
    _go: int

    def go(self) -> None:
        with suppress(BrokenPipeError):
            os.write(self._go, b"g")
        os.close(self._go)

    def cancel(self) -> None:
        os.close(self._go)
        os.close(self.trouble)


def fork(launch: Launch, *, instance: str) -> Child:
    """Raises OSError when there can be no further process."""
    keeper = os.getpid()
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    trouble_read, trouble_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid = os.fork()
    except OSError:
        for handle in (go_read, go_write, trouble_read, trouble_write):
            os.close(handle)
        raise
    if pid == 0:
        os.close(go_write)
        _child(launch, instance, keeper, (go_read, trouble_write))
    os.close(go_read)
    os.close(trouble_write)
    return Child(pid, trouble_read, go_write)


def _child(launch: Launch, instance: str, keeper: int, pipes: tuple[int, int]) -> NoReturn:
    go, trouble = pipes
    try:
        _die_with(keeper)
        os.setsid()
        if os.read(go, 1) != b"g":
            os._exit(COULD_NOT_START)
        _become(launch, keeper)
        environment = {**launch.env, TASK_VARIABLE: f"{instance}/{launch.key}"}
        _exec(launch.argv, environment)
    except BaseException as error:  # noqa: BLE001  # this process must not go on as a second keeper
        text = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        with suppress(OSError):
            os.write(trouble, text.encode()[:4000])
    os._exit(COULD_NOT_START)


def _die_with(keeper: int) -> None:
    _checked(_libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")
    if os.getppid() != keeper:
        os._exit(COULD_NOT_START)


def _become(launch: Launch, keeper: int) -> None:
    """Everything between fork and exec, in the order it must have: the mount needs root, the files must not."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    note = _own_resolv_conf(launch.resolv_conf)
    if launch.uid != AS_KEEPER:
        os.setgroups([])
        os.setresgid(launch.gid, launch.gid, launch.gid)
        os.setresuid(launch.uid, launch.uid, launch.uid)
        _die_with(keeper)  # becoming another user took it back
    _chdir(launch.folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(_log(launch.stdout), 1)
    os.dup2(_log(launch.stderr), 2)
    if note:
        os.write(2, note.encode())


def _own_resolv_conf(file: str) -> str:
    """A note for the task's stderr when it could not be: the task runs with the machine's own then."""
    if not file:
        return ""
    try:
        _checked(_libc.unshare(CLONE_NEWNS), "unshare")
        _checked(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount /")
        _checked(_libc.mount(file.encode(), RESOLV_CONF.encode(), None, MS_BIND, None), f"mount {RESOLV_CONF}")
    except OSError as error:
        return f"fairlead: {RESOLV_CONF} is the machine's own: {error.strerror}\n"
    return ""


def _exec(argv: tuple[str, ...], environment: Mapping[str, str]) -> NoReturn:
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606  # a program and its arguments, no shell
    except OSError as error:
        raise OSError(error.errno, f"cannot run {argv[0]}: {error.strerror}") from error


def _chdir(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise OSError(error.errno, f"cannot enter {folder}: {error.strerror}") from error


def _log(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error

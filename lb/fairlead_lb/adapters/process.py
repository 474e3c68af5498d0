"""HAProxy as a process: find it, start it, check a file, reload it, watch it, end it."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairlead_daemon.errors import BadSettings, Refused, Unavailable
from fairlead_daemon.processes import Identity, identify, send_signal
from fairlead_lb.adapters.socket_cli import WAIT_S, ask, peer_pid
from fairlead_lb.decisions import answers, versions
from fairlead_lb.decisions.answers import Processes
from fairlead_lb.decisions.versions import Program

MORE_PATHS = "/usr/sbin:/usr/local/sbin:/sbin"  # not on every user's PATH
START_S = 10.0
RELOAD_S = 20.0
CHECK_S = 60.0
STEP_S = 0.005
HEARS_S = 2.0
VOICE_S = 5.0
BY_SIGNAL_S = 10.0


def find_program(name: str) -> str:
    """Raises BadSettings naming the package."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{MORE_PATHS}")
    if found is None:
        raise BadSettings(f"haproxy: no program {name}; install it (apt-get install haproxy) or set the path")
    return found


async def probe(program: str) -> Program:
    """`haproxy -vv`. Raises BadSettings when it is none, or too old."""
    try:
        child = await asyncio.create_subprocess_exec(
            program, "-vv", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        async with asyncio.timeout(START_S):
            output, _ = await child.communicate()
    except TimeoutError as error:
        child.kill()
        raise BadSettings(f"haproxy: {program} -vv does not answer within {START_S:g} s") from error
    except OSError as error:
        raise BadSettings(f"haproxy: {program}: {error.strerror or error}") from error
    return versions.program(output.decode("utf-8", "replace"), path=program)


async def show(master: Path, *, wait_s: float = WAIT_S) -> Processes:
    """Raises Unavailable."""
    return answers.processes(await ask(master, "show proc", wait_s=wait_s))


async def find(master: Path) -> Processes | None:
    """The HAProxy that answers on the master socket; None when none does, or another process sits there."""
    pid = await peer_pid(master)
    if not pid:
        return None
    try:
        processes = await show(master)
    except Unavailable:
        return None
    return processes if processes.master == pid and processes.worker else None


async def find_again(master: Path, known: Identity | None) -> Processes | None:
    """As `find`; a master that lives is given time: while it starts itself afresh, for a reload, it has no voice."""
    end = asyncio.get_running_loop().time() + VOICE_S
    while (found := await find(master)) is None:
        if known is None or identify(known.pid) != known or asyncio.get_running_loop().time() > end:
            return None
        await asyncio.sleep(STEP_S)
    return found


@dataclass(frozen=True, slots=True)
class Predecessor:
    """Workers whose master is of no use any more. The serving one's socket gives its listeners to the next."""

    socket: str
    workers: tuple[int, ...]


def start(
    program: str, config: Path, master: Path, log: Path, *, after: Predecessor | None = None
) -> "subprocess.Popen[bytes]":
    """In a session of its own, writing to `log`, holding no pipe of ours: it outlives us.

    `after`: it takes over the listeners, and those workers finish their sessions.
    """
    master.unlink(missing_ok=True)
    taking_over = ["-x", after.socket, "-sf", *map(str, after.workers)] if after is not None else []
    with log.open("ab") as stream:
        return subprocess.Popen(
            [program, "-W", "-S", f"{master},mode,600", "-f", str(config), *taking_over],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            cwd="/",
        )


async def about(socket: str) -> str:
    """What a worker says of itself; "" when it does not answer."""
    try:
        return await ask(socket, "show info")
    except Unavailable:
        return ""


async def serving(socket: str, worker: int) -> bool:
    """Whether this worker answers on its own socket. Masters of 3.1 and later tell of workers that still read their file."""
    return f"\nPid: {worker}\n" in await about(socket)


async def wait_started(child: "subprocess.Popen[bytes]", master: Path, socket: str, log: Path) -> Processes:
    """Returns when the worker of that socket serves. Raises Refused with HAProxy's words when it ends instead."""
    end = asyncio.get_running_loop().time() + START_S
    while asyncio.get_running_loop().time() < end:
        if child.poll() is not None:
            raise Refused(f"haproxy did not start: {alerts(log)}")
        if (processes := await find(master)) is not None and await serving(socket, processes.worker):
            return processes
        await asyncio.sleep(STEP_S)
    child.kill()
    raise Unavailable(f"haproxy did not start within {START_S:g} s: {alerts(log)}")


async def check(program: str, file: Path) -> None:
    """`haproxy -c`. Raises Refused with its words."""
    child = await asyncio.create_subprocess_exec(
        program, "-c", "-q", "-f", str(file), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(CHECK_S):
            output, _ = await child.communicate()
    except TimeoutError as error:
        child.kill()
        raise Unavailable(f"haproxy -c: no answer within {CHECK_S:g} s") from error
    if child.returncode != 0:
        raise Refused(_alerts_in(output.decode("utf-8", "replace")) or f"haproxy -c ended with {child.returncode}")


async def reload(master: Path, before: Processes, socket: str, log: Path) -> Processes:
    """Returns when a new worker serves, on that socket. Raises Refused when HAProxy kept the old one, Unavailable."""
    try:
        before = await show(master, wait_s=HEARS_S)
    except Unavailable:  # it takes no connection any more: only a signal reaches it
        return await reload_by_signal(master, before, socket, log)
    with contextlib.suppress(Unavailable):  # 2.6 closes the socket while it reloads
        said = await ask(master, "reload", wait_s=RELOAD_S)
        if said.startswith("Success=0"):  # 2.7 and later wait, and tell
            raise Refused(f"haproxy kept its old configuration: {_alerts_in(said) or alerts(log)}")
    return await _reloaded(master, before, socket, log, within_s=RELOAD_S)


async def reload_by_signal(master: Path, before: Processes, socket: str, log: Path) -> Processes:
    """As `reload`, for a master that takes no connection. It starts itself afresh, so all of its connections are free."""
    identity = identify(before.master)
    if identity is None or not send_signal(identity, signal.SIGUSR2):
        raise Unavailable(f"haproxy: master {before.master} has ended")
    return await _reloaded(master, before, socket, log, within_s=BY_SIGNAL_S)


async def _reloaded(master: Path, before: Processes, socket: str, log: Path, *, within_s: float) -> Processes:
    end = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < end:
        try:
            now = await show(master, wait_s=HEARS_S)
        except Unavailable:
            if identify(before.master) is None:
                raise
        else:
            if now.worker and now.worker != before.worker and await serving(socket, now.worker):
                return now
            if now.failed > before.failed:
                raise Refused(f"haproxy kept its old configuration: {alerts(log)}")
        await asyncio.sleep(STEP_S)
    raise Unavailable(f"haproxy did not reload within {within_s:g} s")


def watch(identity: Identity, ended: Callable[[], None]) -> Callable[[], None]:
    """Calls `ended` once the process is gone, child of ours or not; returns how to stop watching."""
    loop = asyncio.get_running_loop()
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        loop.call_soon(ended)
        return lambda: None
    open_ = [True]

    def close() -> None:
        if open_.pop() if open_ else False:
            loop.remove_reader(handle)
            os.close(handle)

    def gone() -> None:
        close()
        ended()

    if identify(identity.pid) != identity:
        close()
        loop.call_soon(ended)
        return lambda: None
    loop.add_reader(handle, gone)
    return close


def raise_open_files(needed: int) -> int:
    """The limit HAProxy will find: our own soft limit raised to it, as root beyond the hard one. Returns the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed > hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
            hard = needed
        except (ValueError, OSError):
            pass  # not root, or above fs.nr_open: max_connections is lowered instead
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def end(identity: Identity, *, grace_s: float) -> None:
    """SIGTERM, and SIGKILL when that was not enough."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not send_signal(identity, number):
            return
        if await wait_gone(identity, within_s=grace_s):
            return


async def wait_gone(identity: Identity, *, within_s: float) -> bool:
    end = asyncio.get_running_loop().time() + within_s
    while identify(identity.pid) == identity:
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(STEP_S)
    return True


def alerts(log: Path) -> str:
    """The last alerts in HAProxy's log, on one line."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 20_000))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return "no log"
    return _alerts_in(text) or "no reason in its log"


def _alerts_in(text: str) -> str:
    lines = [line.partition(": ")[2] or line for line in text.splitlines() if "ALERT" in line]
    return "; ".join(line.strip() for line in lines[-4:])[:600]

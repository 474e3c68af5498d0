"""The clean end: whoever starts others ends before those it would start again; nothing is left behind.

Apps stay in the registry: the next `up` runs them again.
"""

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fairlead_console.up import children
from fairlead_console.up.record import command_lines
from fairlead_console.up.screen import Screen
from fairlead_daemon.processes import Identity, identify, send_signal

ORDER: Sequence[str] = ("services", "agent", "lb", "dns", "master", "registry")
"""Kinds. Services first, or it would replace the tasks that end; the registry last, all others write to it."""
KEEPER = "fairlead_core.agent.keeper"
TASK_GRACE_S = 10.0
HAPROXY_GRACE_S = 5.0


async def end_everything(processes: Mapping[str, Identity], data_dir: Path, screen: Screen) -> None:
    """`processes` by name; what they looked after is found by the data directory's path."""
    for kind in ORDER:
        names = sorted(name for name in processes if name.partition("-")[0] == kind)
        ended = await asyncio.gather(*(children.end(processes[name]) for name in names))
        if names:
            killed = [name for name, in_order in zip(names, ended, strict=True) if not in_order]
            screen.step(", ".join(names), f"ended{'; had to be killed: ' + ', '.join(killed) if killed else ''}")
        if kind == "agent":
            await end_tasks(data_dir, screen)
        if kind == "lb":
            await end_haproxy(data_dir, screen)
    await _sweep(data_dir, screen)


async def end_tasks(below: Path, screen: Screen) -> None:
    """Keepers end their tasks at SIGTERM, and then themselves; what they leave is killed."""
    keepers = [identity for identity, words in _processes(below) if KEEPER in " ".join(words)]
    if not keepers:
        return
    tasks = len([1 for _ in _tasks(below)])
    await asyncio.gather(*(children.end(keeper, grace_s=TASK_GRACE_S) for keeper in keepers))
    screen.step("tasks", f"ended: {tasks} processes")


async def end_haproxy(below: Path, screen: Screen) -> None:
    """The load balancer's daemon leaves HAProxy serving; a clean end does not."""
    found = [identity for identity, words in _processes(below) if Path(words[0]).name == "haproxy"]
    await asyncio.gather(*(children.end(identity, grace_s=HAPROXY_GRACE_S) for identity in found))
    if found:
        screen.step("haproxy", "ended")


async def _sweep(data_dir: Path, screen: Screen) -> None:
    """Whatever still carries the data directory in its command line or sandbox: killed, and said."""
    left = {identity for identity, _ in _processes(data_dir)} | set(_tasks(data_dir))
    for identity in left:
        send_signal(identity, signal.SIGKILL)
    if left:
        screen.step("leftovers", f"killed: {len(left)} processes", style="note")


def _processes(below: Path) -> Iterator[tuple[Identity, Sequence[str]]]:
    """Processes of ours with a word below this folder in their command line; never ourselves or our parents."""
    for pid, words in command_lines():
        if any(f"{below}/" in word for word in words) and pid not in _ancestors() and (identity := identify(pid)):
            yield identity, words


def _tasks(below: Path) -> Iterator[Identity]:
    """Processes whose environment says that their sandbox lies below this folder."""
    marker = f"MESOS_SANDBOX={below}/".encode()
    for pid, _ in command_lines():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # another user's, or it ended
            continue
        if any(v.startswith(marker) for v in environment.split(b"\0")) and (identity := identify(pid)):
            yield identity


def _ancestors() -> set[int]:
    out, pid = set(), os.getpid()
    while pid > 1:
        out.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            break
    return out

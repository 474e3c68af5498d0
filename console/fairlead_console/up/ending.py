"""The clean end: whoever starts others ends before those it would start again; nothing is left behind.

Apps stay in the registry: the next `up` runs them again.
"""

import asyncio
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fairlead_console.addresses import Addresses
from fairlead_console.up import children
from fairlead_console.up.record import command_lines, own, running
from fairlead_console.up.screen import Screen
from fairlead_daemon.client import call, make_session
from fairlead_daemon.errors import FairleadError
from fairlead_daemon.processes import Identity, environment, identify, neighbours, send_signal

ORDER: Sequence[str] = ("console", "monitor", "messaging", "services", "agent", "lb", "dns", "master", "registry")
"""Kinds. Services before agents, or it would replace the tasks that end; the registry last, all others write to it."""
KEEPER = "fairlead_core.agent.keeper"
TASK_GRACE_S = 10.0
HAPROXY_GRACE_S = 5.0
ANSWER_S = 5.0


async def end_everything(processes: Mapping[str, Identity], addresses: Addresses, screen: Screen) -> None:
    """`processes` by name; what they looked after is found by the data directory's path."""
    data_dir = Path(addresses.data_dir)
    for kind in ORDER:
        if kind == "lb":
            await _release_balancer(addresses)
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


async def _release_balancer(addresses: Addresses) -> None:
    """Its own clean stop ends HAProxy and its registration, for which kills would wait; signals do the rest."""
    for balancer in filter(None, (addresses.lb_node, addresses.lb)):
        async with make_session(addresses.token_path) as session:
            with suppress(FairleadError):
                await call(session, "POST", f"{balancer}/fairlead/stop", wait_s=ANSWER_S)


async def end_tasks(below: Path, screen: Screen) -> None:
    """Keepers end their tasks at SIGTERM, and then themselves; what they leave is killed."""
    keepers = list(_keepers(below))
    if not keepers:
        return
    tasks = len([1 for _ in _tasks(below)])
    await asyncio.gather(*(children.end(keeper, grace_s=TASK_GRACE_S) for keeper in keepers))
    screen.step("tasks", f"ended: {tasks} processes")


async def end_haproxy(below: Path, screen: Screen) -> None:
    """One whose daemon was not there to end it."""
    found = list(_haproxies(below))
    await asyncio.gather(*(children.end(identity, grace_s=HAPROXY_GRACE_S) for identity in found))
    if found:
        screen.step("haproxy", "ended")


async def _sweep(data_dir: Path, screen: Screen) -> None:
    """What still runs of ours is killed, and said. Someone's `tail -f` of a log is not ours."""
    daemons = {identity for _, identity in running(data_dir)}
    left = daemons | set(_keepers(data_dir)) | set(_haproxies(data_dir)) | set(_tasks(data_dir))
    for identity in left:
        send_signal(identity, signal.SIGKILL)
    if left:
        screen.step("leftovers", f"killed: {len(left)} processes", style="note")


def _keepers(below: Path) -> Iterator[Identity]:
    return (identity for identity, words in _processes(below) if KEEPER in words)


def _haproxies(below: Path) -> Iterator[Identity]:
    return (identity for identity, words in _processes(below) if Path(words[0]).name == "haproxy")


def _processes(below: Path) -> Iterator[tuple[Identity, Sequence[str]]]:
    """Processes of our user with a word below this folder in their command line."""
    for pid, words in command_lines(below):
        if any(f"{below}/" in word for word in words) and own(pid) and (identity := identify(pid)):
            yield identity, words


def _tasks(below: Path) -> Iterator[Identity]:
    """Processes whose environment says that their sandbox lies below this folder."""
    marker = f"MESOS_SANDBOX={below}/".encode()
    for pid in neighbours(below):
        if any(v.startswith(marker) for v in environment(pid)) and (identity := identify(pid)):
            yield identity

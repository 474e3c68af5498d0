"""Withdraws announced members whose announcer died. The leading master runs it: what ends with a session raises no
revision, so that somebody who leads must commit it.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import aclosing

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.decisions.leaving import DEAD_RECORD_S
from fairlead_discovery.records import Lease, Leaving, Reason, decode, encode
from fairlead_discovery.registry import Change, Delete, Guard, Node, Put, Registry, Sight

GRACE_S = 1.0
"""An announcement that is replaced by its owner's next session is away for a moment; and of a cut that ends many
sessions, those of one service are seen together.
"""
LAST_S = 60.0
"""Never to zero at once: when all that stands of a service has lost its lease, it stays so long; it may be a cut."""
FIRST_LOOK_S = 3.0
"""After taking over: announcers whose registry was away need as long to announce again."""
REFUSED_S = 30.0
"""A service whose members are not ours to take away is tried again so often."""
TICK_S = 0.1
ANSWER_S = 15.0
BACKOFF = Backoff(first_s=0.2, most_s=2.0)
log = Log("discovery")


class Janitor:
    """`run()` for as long as the guard's leadership lasts. Every withdrawal is checked once more before it is made."""

    def __init__(self, registry: Registry, guard: Guard | None = None) -> None:
        self._registry = registry
        self._guard = guard
        self._leases: dict[str, Lease] = {}
        self._due: dict[str, tuple[float, str]] = {}
        """By task: when to look, and its service."""
        self._held: set[str] = set()
        """Tasks that were put off once, as the last of their service."""
        self._records: dict[str, float] = {}
        """By task: when its leaving record goes."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._look_once())
            group.create_task(self._work())

    async def _follow(self) -> None:
        async for nodes in self._registry.follow(paths.ANNOUNCED):
            now = decoded_leases(nodes)
            for task, lease in self._leases.items():
                if task not in now:
                    self._due[task] = (time.monotonic() + GRACE_S, lease.service)
            self._leases = now

    async def _look_once(self) -> None:
        """What an announcer left that died while nobody led."""
        await asyncio.sleep(FIRST_LOOK_S)
        async with aclosing(self._registry.watch()) as sights:  # type: ignore[type-var]  # every backend's is a generator
            sight = await anext(s async for s in sights if s.in_sight)
        for task, service in announced_in(sight).items():
            if task not in self._leases:
                self._due.setdefault(task, (time.monotonic(), service))

    async def _work(self) -> None:
        attempt = 0
        while True:
            await asyncio.sleep(TICK_S)
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._sweep(time.monotonic())
                attempt = 0
            except (FairleadError, TimeoutError) as error:
                log.warning("dead announcer not withdrawn yet", why=str(error) or "no answer")
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1

    async def _sweep(self, now_s: float) -> None:
        for service in {service for when_s, service in self._due.values() if when_s <= now_s}:
            try:
                await self._sweep_service(service, now_s)
            except Refused as error:  # closed to us, say: that is no reason to leave the others
                for task in [task for task, due in self._due.items() if due[1] == service and due[0] <= now_s]:
                    self._due[task] = (now_s + REFUSED_S, service)
                log.warning("dead announcers not withdrawn", service=service, why=str(error))
        for task, when_s in list(self._records.items()):
            if when_s <= now_s:
                if not await self._leased(task):
                    await self._registry.commit([Delete(paths.leaving(task), missing_ok=True)], guard=self._guard)
                del self._records[task]

    async def _sweep_service(self, service: str, now_s: float) -> None:
        due = {task: due for task, due in self._due.items() if due[1] == service and due[0] <= now_s}
        gone = {task for task in due if not await self._leased(task)}
        names = await self._registry.tree.names(paths.endpoint_folder(service))
        last = names and all(paths.task_of(name) in gone for name in names)
        if last and not gone <= self._held:
            log.error("all that stands of a service lost its lease, it stays for now", service=service, count=len(gone))
            self._held |= gone
            self._due.update(dict.fromkeys(gone, (now_s + LAST_S, service)))
            gone = set()
        for task, entry in due.items():
            if task in gone:
                await self._withdraw(task, service)
            if self._due.get(task) == entry:  # else it was put off, or its lease ended again meanwhile
                del self._due[task]
                self._held.discard(task)

    async def _leased(self, task: str) -> bool:
        return await self._registry.read(paths.below(paths.ANNOUNCED, task)) is not None

    async def _withdraw(self, task: str, service: str) -> None:
        names = await self._registry.tree.names(paths.endpoint_folder(service))
        mine = [name for name in names if paths.task_of(name) == task]
        self._records[task] = time.monotonic() + DEAD_RECORD_S
        if not mine:
            return
        record = Leaving(task=task, service=service, member=mine[0], reason=Reason.DEAD, deadline_s=time.time())
        changes: list[Change] = [Delete(paths.member(service, name), missing_ok=True) for name in mine]
        changes.append(Put(paths.leaving(task), encode(record)))
        revision = await self._registry.commit(changes, guard=self._guard)
        log.info("dead announcer withdrawn", task=task, service=service, revision=revision)


def decoded_leases(nodes: Mapping[str, Node]) -> dict[str, Lease]:
    """By task id; what cannot be read is named in the log."""
    out: dict[str, Lease] = {}
    for name, node in nodes.items():
        try:
            out[paths.unescape(name)] = decode(Lease, node.data, place=f"{paths.ANNOUNCED}/{name}")
        except Refused as error:
            log.warning("lease unreadable", why=str(error))
    return out


def announced_in(sight: Sight) -> dict[str, str]:
    """Task id -> service of every announced member, and of every leaving record of one."""
    found: dict[str, str] = {}
    for folder, nodes in sight.folders.items():
        parent, _, segment = folder.rpartition("/")
        if parent == paths.ENDPOINTS:
            tasks = map(paths.task_of, nodes)
            found.update({task: paths.unescape(segment) for task in tasks if paths.is_announced(task)})
    for name in sight.folders.get(paths.LEAVING) or ():
        task = paths.unescape(name)
        if paths.is_announced(task):
            found.setdefault(task, task.removeprefix(paths.ANNOUNCED_TASK).rpartition("~")[0])
    return found

"""Announces services that fairlead does not schedule: checked, registered while healthy, drained at the end.

The announcer commits its own member, so that no leader is needed for it to come and go; beside it stands a lease
(an announcement). When the announcer dies the lease ends with its session, and the leading master withdraws the
member. Every step leads from what stands to what should stand: an outcome that is unknown is read again.
"""

import asyncio
import math
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.web import Health
from fairlead_discovery import metrics, paths
from fairlead_discovery.adapters.probes import probe
from fairlead_discovery.audience import Audience
from fairlead_discovery.decisions.announcements import (
    Bridge,
    Departing,
    Service,
    changes_to,
    is_address,
    lease_of,
    member_of,
)
from fairlead_discovery.decisions.checks import Check, Tally, count, named
from fairlead_discovery.decisions.foreign_nodes import node_of_service, services_of
from fairlead_discovery.decisions.leaving import DEAD_RECORD_S, Departure, is_due
from fairlead_discovery.decisions.settling import keep
from fairlead_discovery.foreign import follow
from fairlead_discovery.records import Member, Reason, encode
from fairlead_discovery.registry import Announcement, Delete, Registry

POLL_S = 2.0
"""How often an announcer looks whether its member still stands: somebody may have taken it for dead."""
RESOLVE_S = 30.0
ANSWER_S = 10.0
JITTER = 0.1
BACKOFF = Backoff(first_s=0.1, most_s=2.0)
DONE_S = 3.0
"""How long the tidying at the end may take."""
log = Log("announce")


class Announcer:
    """All that one process announces. `run` until cancelled, then `leave`."""

    def __init__(
        self,
        registry: Registry,
        services: Sequence[Service],
        bridges: Sequence[Bridge] = (),
        *,
        health: Health | None = None,
    ) -> None:
        self._changed = asyncio.Event()
        self._health = health or Health()
        self._audience = Audience(registry, self._changed.set)
        self._own = tuple(Charge(registry, service, self._tell) for service in services)
        self._ferries = tuple(Ferry(registry, bridge, self._tell) for bridge in bridges)
        self._tell()

    def charges(self) -> "tuple[Charge, ...]":
        return (*self._own, *(charge for ferry in self._ferries for charge in ferry.charges()))

    def _tell(self) -> None:
        """What is not announced, and why, to whoever asks for it."""
        missing = {charge.service.task: why for charge in self.charges() if (why := charge.missing)}
        self._health.waits.clear()
        self._health.waits.update(missing)
        metrics.announced.labels(state="announced").set(len(self.charges()) - len(missing))
        metrics.announced.labels(state="missing").set(len(missing))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._audience.follow_names())  # a server that goes is remembered for its TTL
            for body in (*(charge.run() for charge in self._own), *(ferry.run() for ferry in self._ferries)):
                group.create_task(body)

    async def leave(self) -> None:
        """Withdraws everything and returns when nobody sends work any more, at the latest after each `drain_s`."""
        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(body) for body in self._audience.bodies()]
            leaving = [group.create_task(charge.leave(self._audience, self._changed)) for charge in self.charges()]
            if leaving:
                await asyncio.wait(leaving)
            for follower in followers:
                follower.cancel()


class Ferry:
    """What stands in a foreign folder, announced here: whoever wrote a node answers for it, so that none is checked.

    What vanishes all at once is taken for its owners' fault, and stays until they had time to come back.
    """

    def __init__(self, registry: Registry, bridge: Bridge, told: Callable[[], None]) -> None:
        self._registry = registry
        self._bridge = bridge
        self._told = told
        self._runs: dict[str, tuple[Charge, asyncio.Task[None]]] = {}
        self._going: dict[str, asyncio.Task[None]] = {}
        self._wanted: Mapping[str, Service] = {}
        self._kept: Mapping[str, float] = {}
        """See keep; monotonic."""
        self._read = asyncio.Event()

    def charges(self) -> "tuple[Charge, ...]":
        return tuple(charge for charge, _ in self._runs.values())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(group))
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._next_s()):
                        await self._read.wait()
                self._read.clear()
                self._bring(group)

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        async for reading in follow(self._registry, self._bridge.format, self._bridge.path):
            self._wanted = services_of(self._bridge, reading)
            self._bring(group)  # at once: the next reading may show the folder otherwise
            self._read.set()

    def _next_s(self) -> float | None:
        """When the next one that is kept goes, by the loop's clock; None: not by itself."""
        due_s = min(self._kept.values(), default=math.inf)
        wait_s = max(0.0, due_s - time.monotonic())
        return None if math.isinf(due_s) else asyncio.get_running_loop().time() + wait_s

    def _bring(self, group: asyncio.TaskGroup) -> None:
        """From what runs to what should, now."""
        wanted = self._wanted
        self._keep(wanted)
        for task in [t for t, (charge, _) in self._runs.items() if wanted.get(t) != charge.service]:
            if task in self._kept:
                continue
            charge, running = self._runs.pop(task)
            running.cancel()
            if task not in wanted:
                self._going[task] = group.create_task(charge.drop())
        for task in wanted.keys() - self._runs.keys():
            if (going := self._going.pop(task, None)) is not None:
                going.cancel()
            charge = Charge(self._registry, wanted[task], self._told)
            self._runs[task] = (charge, group.create_task(charge.run()))
        self._told()

    def _keep(self, wanted: Mapping[str, Service]) -> None:
        standing = {task: charge.service for task, (charge, _) in self._runs.items()}
        before, settle_s = self._kept, self._bridge.settle_s
        self._kept = keep(before, standing, wanted, now_s=time.monotonic(), settle_s=settle_s)
        if self._kept.keys() - before.keys():
            event = "bridge lost endpoints, they stay for now" if wanted else "bridge empty, its last endpoints stay"
            log.error(event, path=self._bridge.path, count=len(self._kept), here=len(wanted))


class Charge:
    """One announced instance."""

    def __init__(self, registry: Registry, service: Service, told: Callable[[], None]) -> None:
        self.service = service
        self._registry = registry
        self._told = told
        """Called when `missing` may have changed."""
        self._tallies = {index: Tally() for index in range(len(service.checks))}
        self._address = service.host if is_address(service.host) else ""
        self._name: str | None = None
        """The node that stands, "" for none, None when we do not know."""
        self._record_until_s: float | None = time.monotonic()
        """When our leaving record goes; at the start there may be one of our predecessor."""
        self._lease: Announcement | None = None
        self._foreign: dict[str, Announcement] = {}
        self._wake = asyncio.Event()

    @property
    def healthy(self) -> bool:
        return bool(self._address) and all(tally.up is True for tally in self._tallies.values())

    @property
    def missing(self) -> str:
        """Why it is not announced, "" when it is."""
        if not self._address:
            return f"{self.service.host} is not resolved"
        for index, check in enumerate(self.service.checks):
            if self._tallies[index].up is not True:
                return f"{check.type}: {self._tallies[index].why or 'not checked yet'}"
        return "" if self._name else "not in the registry yet"

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            if not self._address:
                group.create_task(self._resolve())
            for index, check in enumerate(self.service.checks):
                group.create_task(self._check(index, check))
            group.create_task(self._settle())

    # --- what the checks say

    async def _resolve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    found = await loop.getaddrinfo(self.service.host, self.service.port, type=socket.SOCK_STREAM)
                addresses = sorted({str(item[4][0]) for item in found})
                if self._address not in addresses:
                    self._address = addresses[0]
                    log.info("resolved", host=self.service.host, address=self._address)
                    self._wake.set()
            except (OSError, TimeoutError) as error:
                log.warning("host not resolved", host=self.service.host, why=str(error) or "no answer")
            await asyncio.sleep(jittered(RESOLVE_S if self._address else 1.0))

    async def _check(self, index: int, check: Check) -> None:
        while True:
            begin_s = time.monotonic()
            if self._address:
                why = await probe(named(check, self.service.host), self._address, self.service.port)
                before = self._tallies[index]
                after = count(before, why, rise=check.rise, fall=check.fall)
                self._tallies[index] = after
                metrics.checks.labels(type=check.type, result="bad" if why else "good").inc()
                if before.up != after.up:
                    event = "healthy" if after.up else "unhealthy"
                    log.info(event, service=self.service.key, check=check.type, why=after.why or "it answers")
                    self._told()
                    self._wake.set()
            await asyncio.sleep(max(0.0, jittered(check.interval_s) - (time.monotonic() - begin_s)))

    # --- what the registry holds

    async def _settle(self) -> None:
        attempt = 0
        while True:
            self._wake.clear()
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._bring()
                attempt = 0
                self._told()
            except (FairleadError, TimeoutError) as error:
                self._name = None
                self._told()
                log.warning("not announced yet", service=self.service.key, why=str(error) or "no answer")
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(jittered(POLL_S)):
                    await self._wake.wait()

    async def _bring(self) -> None:
        wanted = member_of(self.service, self._address) if self.healthy else None
        if wanted is not None:
            await self._hold_lease()
        await self._commit(wanted, Departing(reason=Reason.UNHEALTHY, deadline_s=time.time()))
        await self._bring_foreign(stands=wanted is not None)
        if self._record_until_s is not None and time.monotonic() >= self._record_until_s:
            await self._end_record()

    async def _commit(self, wanted: Member | None, departing: Departing) -> int | None:
        """The revision of the change, None when there was nothing to change."""
        changes = changes_to(self.service, await self._standing(), wanted, departing)
        name = paths.member_name(self.service.task, encode(wanted)) if wanted is not None else ""
        if not changes:
            self._name = name
            return None
        self._name = None  # until we know
        revision = await self._registry.commit(changes)
        self._name = name
        self._record_until_s = None if name else time.monotonic() + DEAD_RECORD_S
        event = "announced" if name else "withdrawn"
        log.info(event, service=self.service.key, address=f"{self._address}:{self.service.port}", revision=revision)
        return revision

    async def _standing(self) -> list[str]:
        key, task = self.service.key, self.service.task
        if self._name == "":
            return []
        if self._name is not None:
            return [self._name] if await self._registry.read(paths.member(key, self._name)) is not None else []
        names = await self._registry.tree.names(paths.endpoint_folder(key))
        return [name for name in names if paths.task_of(name) == task]

    async def _hold_lease(self) -> None:
        """Before the member: else it would look as if its announcer had died."""
        if self._lease is None:
            data = encode(lease_of(self.service, self._address))
            self._lease = await self._registry.announce(paths.below(paths.ANNOUNCED, self.service.task), data)

    async def _bring_foreign(self, *, stands: bool) -> None:
        wanted = {}
        if stands:
            made = (node_of_service(self.service, self._address, also) for also in self.service.also)
            wanted = {node.path: node.data for node in made}
        for path in [p for p in self._foreign if p not in wanted]:
            await self._foreign.pop(path).end()
        for path, data in wanted.items():
            if path not in self._foreign:
                self._foreign[path] = await self._registry.announce(path, data)

    async def _end_record(self) -> None:
        path = paths.leaving(self.service.task)
        if await self._registry.read(path) is not None:
            await self._registry.commit([Delete(path, missing_ok=True)])
        self._record_until_s = None

    # --- the end

    async def leave(self, audience: Audience, changed: asyncio.Event) -> None:
        """Withdrawn first, ended when the last reader let go: the same rule as for a task that is to be killed."""
        end_s = time.monotonic() + self.service.drain_s
        try:
            async with asyncio.timeout(self.service.drain_s):
                departure = await self._depart(end_s)
                if departure is not None:
                    await self._until_due(departure, audience, changed)
        except TimeoutError:
            log.warning("not drained in time", service=self.service.key, seconds=self.service.drain_s)
        try:
            async with asyncio.timeout(DONE_S):
                await self._end_record()
        except (FairleadError, TimeoutError) as error:
            log.warning("leaving record not ended", service=self.service.key, why=str(error) or "no answer")
        if self._lease is not None:
            await self._lease.end()
        log.info("left", service=self.service.key)

    async def drop(self) -> None:
        """Gone at its owner: withdrawn at once; the record goes as a dead task's does."""
        departing = Departing(reason=Reason.DEAD, deadline_s=time.time())
        steps = (lambda: self._commit(None, departing), self._end_record)
        for index, step in enumerate(steps):
            await asyncio.sleep(DEAD_RECORD_S if index else 0)
            while True:
                try:
                    async with asyncio.timeout(ANSWER_S):
                        await step()
                    break
                except (FairleadError, TimeoutError) as error:
                    self._name = None
                    log.warning("not withdrawn yet", service=self.service.key, why=str(error) or "no answer")
                    await asyncio.sleep(jittered(1.0))
        if self._lease is not None:
            await self._lease.end()

    async def _depart(self, end_s: float) -> Departure | None:
        """None when nothing stood. Tries until its time is over."""
        deadline_s = time.time() + self.service.drain_s
        attempt, certain = 0, True
        while True:
            try:
                revision = await self._commit(None, Departing(reason=Reason.DRAIN, deadline_s=deadline_s))
                if revision is None and not certain:  # an earlier try had succeeded: its revision is at most this one
                    revision = await self._registry.commit(())
                await self._bring_foreign(stands=False)
            except FairleadError as error:
                self._name, certain = None, not isinstance(error, Unavailable)
                log.warning("not withdrawn yet", service=self.service.key, why=str(error))
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
            else:
                if revision is None:
                    return None
                return Departure(
                    task=self.service.task,
                    reason=Reason.DRAIN,
                    deadline_s=end_s,
                    revision=revision,
                    committed_s=time.monotonic(),
                )

    async def _until_due(self, departure: Departure, audience: Audience, changed: asyncio.Event) -> None:
        await audience.known.wait()
        while not is_due(departure, audience.readers(now_s=time.monotonic()), now_s=time.monotonic()):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await changed.wait()
                changed.clear()


def jittered(seconds: float) -> float:
    """A tenth more or less, so that a thousand announcers do not ask at once."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # jitter

"""Names follow a Mesos master's state, for clusters without a fairlead registry: read, judged, taken, kept on disk."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from fairlead_daemon.errors import FairleadError, Refused
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.records import MasterInfo
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.adapters.mesos_master import MesosMaster
from fairlead_dns.decisions.mesos_state import Sight, believable, decode, sight
from fairlead_dns.following import Following
from fairlead_dns.naming_metrics import mesos_states
from fairlead_dns.naming_settings import MesosSource

log = Log("dns")
V = TypeVar("V")
LEAST_S = 0.1
PARTS = 4.0
"""Between two readings: so much, and so many times as long as the last one took. The master has other things to do."""
LISTEN_S = 5.0
AGAIN_S = 2.0
"""No master answers: one may be about to lead, and names wait for it."""
NOTHING = Snapshot(revision=-1, trust=Trust.STALE)


@dataclass(slots=True)
class MesosFollowing:
    """Owned by one task. `file` keeps the last state that was believed."""

    source: MesosSource
    following: Following
    file: Path
    snapshot: Snapshot = NOTHING
    _tasks: int = 0
    _doubted_s: float | None = None
    """Since when what we read is not believed."""
    _masters: tuple[MasterInfo, ...] = field(default=())
    _missed: bool = False
    """It has been told that there is no state yet."""
    _place: str = ""
    """Which master answered last."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a master tells of a change."""

    async def run(self) -> None:
        """For ever. Raises BadSettings at the start."""
        master = MesosMaster(self.source)
        try:
            await self._load()
            async with asyncio.TaskGroup() as group:
                if self.source.events:
                    group.create_task(self._listen(master))
                await self._read_on(master)
        finally:
            await master.close()

    async def _listen(self, master: MesosMaster) -> None:
        """A master that tells nothing, or no more, is asked again after a while."""
        while True:
            if not self._place:
                await asyncio.sleep(LEAST_S)
                continue
            await master.changes(self._place, self._changed)
            await asyncio.sleep(min(self.source.refresh_s, LISTEN_S))

    async def _read_on(self, master: MesosMaster) -> None:
        while True:
            start_s = time.monotonic()
            self._changed.clear()
            if not await self._turn(master):
                await asyncio.sleep(min(self.source.refresh_s, AGAIN_S))
                continue
            pause_s = LEAST_S + PARTS * (time.monotonic() - start_s)
            await asyncio.sleep(min(self.source.refresh_s, pause_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(self.source.refresh_s - min(self.source.refresh_s, pause_s)):
                    await self._changed.wait()

    async def _load(self) -> None:
        try:
            seen = sight(decode(await asyncio.to_thread(self.file.read_bytes), place=str(self.file)))
        except FileNotFoundError:
            return
        except (OSError, Refused) as error:
            log.warning("kept state unreadable", file=self.file, why=str(error))
            return
        await self._take(seen, Trust.STALE, why="kept from before the start")

    async def _turn(self, master: MesosMaster) -> bool:
        """Whether a state was read."""
        try:
            data, place = await master.state()
            seen = await asyncio.to_thread(lambda: sight(decode(data, place=place)))
        except FairleadError as error:
            mesos_states.labels(outcome="failed").inc()
            await self._doubt(Trust.STALE, str(error))
            return False
        self._masters, self._place = master.masters, place
        if not believable(self._tasks, seen) and self._held():
            why = f"{seen.tasks} of {self._tasks} tasks left, or agents have not registered anew yet"
            mesos_states.labels(outcome="held").inc()
            await self._doubt(Trust.HELD, f"{place}: {why}")
            return True
        self._doubted_s = None
        before = self.snapshot.revision
        await self._take(seen, Trust.LIVE)
        mesos_states.labels(outcome="unchanged" if self.snapshot.revision == before else "taken").inc()
        if self.snapshot.revision != before:
            await self._keep(data)
        return True

    def _held(self) -> bool:
        """Whether there is something to hold on to, and it has not been held long enough."""
        now_s = time.monotonic()
        if self._doubted_s is None:
            self._doubted_s = now_s
        return self._tasks > 0 and now_s - self._doubted_s < self.source.settle_s

    async def _doubt(self, trust: Trust, why: str) -> None:
        if self.snapshot.revision < 0:
            if not self._missed:
                log.warning("no state of a master yet", why=why)
            self._missed = True
        elif self.snapshot.trust is not trust:
            self.snapshot = replace(self.snapshot, trust=trust, why=why)
            await self.following.take(self.snapshot)

    async def _take(self, seen: Sight, trust: Trust, why: str = "") -> None:
        members, portless = same(self.snapshot.members, seen.members), same(self.snapshot.portless, seen.portless)
        changed = members != self.snapshot.members or portless != self.snapshot.portless
        revision = max(int(time.time()), self.snapshot.revision + 1) if changed or self.snapshot.revision < 0 else None
        before = self.snapshot
        self.snapshot = Snapshot(
            revision=before.revision if revision is None else revision,
            trust=trust,
            why=why,
            members=members,
            portless=portless,
        )
        self._tasks = seen.tasks
        names = self.following.names
        names.take_frameworks(seen.frameworks)
        names.take_agents(seen.agents)
        names.take_masters(self._masters, seen.leader)
        if revision is not None or before.trust is not trust:
            await self.following.take(self.snapshot)

    async def _keep(self, data: bytes) -> None:
        try:
            await asyncio.to_thread(replace_file, self.file, data)
        except OSError as error:
            log.warning("state not kept", file=self.file, why=str(error))


def same(before: Mapping[str, Mapping[str, V]], now: Mapping[str, Mapping[str, V]]) -> dict[str, Mapping[str, V]]:
    """`now`, with the very objects of `before` for what is equal: readers find changes by identity."""
    return {key: before[key] if before.get(key) == tasks else tasks for key, tasks in now.items()}

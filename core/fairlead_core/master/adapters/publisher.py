"""Carries the cluster's plan into the registry, one guarded commit after the other; a doubt is settled by reading."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from fairlead_core.master.decisions import plan
from fairlead_core.master.decisions.model import Cluster, Moment, Stored
from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Conflict, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.records import Leaving, decode
from fairlead_discovery.registry import Folder, Guard, Registry, Sight

COALESCE_S = 0.003
"""What happens within so short a time goes into one commit."""
COMMIT_WAIT_S = 15.0
log = Log("master.publish")


class _Owner(msgspec.Struct, frozen=True):
    framework_id: str = ""
    agent: str = ""


class _Owned(msgspec.Struct, frozen=True):
    task: _Owner = _Owner()


def stored_nodes(folders: Mapping[str, Folder]) -> Iterator[Stored]:
    """Every member and portless node of a sight; one that cannot be read belongs to nobody, and goes.

    What was announced is left out: it is its announcer's, and the janitor's.
    """
    for path, nodes in folders.items():
        parent, _, segment = path.rpartition("/")
        if parent not in {paths.ENDPOINTS, paths.PORTLESS}:
            continue
        for name, data in nodes.items():
            if paths.is_announced(paths.task_of(name)):
                continue
            owner = _owner(data)
            yield Stored(
                service=paths.unescape(segment),
                name=name,
                member=parent == paths.ENDPOINTS,
                task_id=paths.task_of(name),
                framework_id=owner.framework_id,
                agent_id=owner.agent,
            )


def _owner(data: bytes) -> _Owner:
    try:
        return msgspec.json.decode(data, type=_Owned).task
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Owner()


def leaving_records(folders: Mapping[str, Folder]) -> dict[str, Leaving]:
    out: dict[str, Leaving] = {}
    for name, data in (folders.get(paths.LEAVING) or {}).items():
        if paths.is_announced(paths.unescape(name)):
            continue
        try:
            out[paths.unescape(name)] = decode(Leaving, data, place=f"{paths.LEAVING}/{name}")
        except Refused as error:
            log.warning("leaving record unreadable", why=str(error))
    return out


class Publisher:
    """Owns the leader's writing to the clocked tree."""

    def __init__(
        self,
        registry: Registry,
        cluster: Cluster,
        guard: Guard,
        *,
        clock: Callable[[], Moment],
        settle: Callable[[], Any],
    ) -> None:
        self.wake = asyncio.Event()
        self._registry = registry
        self._cluster = cluster
        self._guard = guard
        self._clock = clock
        self._settle = settle
        self._sight = Sight(in_sight=False)
        self._seen = asyncio.Event()
        self._refused: frozenset[str] = frozenset()
        """Named in the log."""
        self._backoff = Backoff(first_s=0.1, most_s=2.0)

    async def watch(self) -> None:
        async for sight in self._registry.watch():
            self._sight = sight
            self._seen.set()

    async def read(self) -> None:
        """Takes what stands from a sight that holds every commit made so far. Raises Conflict, Unavailable."""
        async with asyncio.timeout(COMMIT_WAIT_S):
            revision = await self._registry.commit((), guard=self._guard)
            while not (self._sight.in_sight and self._sight.revision >= revision):
                self._seen.clear()
                await self._seen.wait()
        now = self._clock()
        plan.take_stored(self._cluster, stored_nodes(self._sight.folders))
        plan.take_leaving(self._cluster, leaving_records(self._sight.folders), self._sight.revision, now=now)

    async def run(self) -> None:
        """For as long as this leadership lasts."""
        while True:
            await self.wake.wait()
            await asyncio.sleep(COALESCE_S)
            self.wake.clear()
            batch = plan.make(self._cluster, now=self._clock())
            self._name_refused(batch.refused)
            if batch.changes:
                await self._commit(batch)
            self._settle()

    def _name_refused(self, refused: Mapping[str, str]) -> None:
        """Each once."""
        for path in refused.keys() - self._refused:
            log.error("not published, the registry would not take it", why=refused[path])
        self._refused |= refused.keys()

    async def _commit(self, batch: plan.Batch) -> None:
        plan.issued(self._cluster, batch)
        try:
            async with asyncio.timeout(COMMIT_WAIT_S):
                revision = await self._registry.commit(batch.changes, guard=self._guard)
        except (Unavailable, Conflict, Refused, TimeoutError) as error:
            log.warning("commit failed", why=str(error) or "no answer", **batch.fields())
            await self._read_again()
            return
        plan.stands(self._cluster, batch, revision, now=self._clock())
        log.info("published", revision=revision, **batch.fields())

    async def _read_again(self) -> None:
        attempt = 0
        while True:
            await asyncio.sleep(self._backoff.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
            attempt += 1
            try:
                await self.read()
            except (Unavailable, Conflict, Refused, TimeoutError) as error:
                log.warning("registry unread", why=str(error) or "no answer", attempt=attempt)
            else:
                return

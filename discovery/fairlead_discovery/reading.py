"""Snapshots from sights: decoding, trust, the last good state on disk. Decided once, here, for every reader."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from pathlib import Path

from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import metrics, paths
from fairlead_discovery.announcing import first
from fairlead_discovery.decisions.belief import Belief, Now
from fairlead_discovery.decisions.decoding import Contents, Hider
from fairlead_discovery.decisions.delta import Delta, differing
from fairlead_discovery.decisions.election import lowest
from fairlead_discovery.decisions.trust import Confirmed
from fairlead_discovery.keeping import Keeper, load
from fairlead_discovery.records import Member, decode, encode
from fairlead_discovery.registry import Registry, Sight
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_discovery.store import Cell

log = Log("discovery")
GRACE_S = 0.5
"""At the start: how long the first sight may take before the state on disk is served."""
CONFIRM_POLL_S = 1.0
UNLED_S = 3.0
"""So long without a candidate for master, and readers go by the agents' own announcements."""
CONFIRM_WAIT_S = 10.0
_TRUSTS = {trust: metrics.snapshot_trust.labels(trust=trust.value) for trust in Trust}


async def snapshots(registry: Registry, *, keep: Path | None = None) -> AsyncIterator[Snapshot]:
    """Snapshots for ever: at once (from `keep`, stale, when the registry is out of sight), then at every change of
    content or trust. `keep` is where the last good state lies across restarts. Cancel or aclose to stop.

    A reader that has never seen anything says so: revision -1, stale, empty.
    """
    reader = Reader(registry, keep)
    tasks = [asyncio.get_running_loop().create_task(reader.supervise(body)) for body in reader.bodies()]
    try:
        try:
            async with asyncio.timeout(GRACE_S):
                await first(reader.seen, reader.crashed)
        except TimeoutError:
            pass
        while True:
            changed = reader.cell.changed
            yield reader.cell.value
            await first(changed, reader.crashed)
            if reader.error is not None:
                raise reader.error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def confirm(registry: Registry) -> Confirmed:
    """A person's word that the registry is right as it is now. Readers that hold their last good state accept it.

    Raises Unavailable when the registry is out of sight.
    """
    async with aclosing(registry.watch()) as sights:  # type: ignore[type-var]  # every backend's is a generator
        try:
            async with asyncio.timeout(CONFIRM_WAIT_S):
                sight = await anext(s async for s in sights if s.in_sight)
        except TimeoutError as error:
            raise Unavailable("registry out of sight, nothing was confirmed") from error
    word = Confirmed(cluster=sight.cluster, revision=sight.revision, time_s=time.time())
    await registry.write(paths.CONFIRMED, encode(word))
    return word


async def tell_confirmed(registry: Registry, heed: Callable[[Confirmed], None]) -> None:
    """For ever: gives each word of `confirm`, for those who judge for themselves what they are told of this registry."""
    last: Confirmed | None = None
    while True:
        try:
            async with asyncio.timeout(CONFIRM_WAIT_S):
                node = await registry.read(paths.CONFIRMED)
            word = None if node is None else decode(Confirmed, node.data, place=paths.CONFIRMED)
            if word is not None and word != last:
                heed(word)
            last = word
        except (FairleadError, TimeoutError) as error:
            log.debug("confirmation not read", why=str(error))
        await asyncio.sleep(CONFIRM_POLL_S)


class Reader:
    """Takes every sight as it comes, so that no leaving record is missed however slow the snapshots' taker is."""

    def __init__(self, registry: Registry, keep: Path | None) -> None:
        self.seen = asyncio.Event()
        """There has been a sight of the registry."""
        self.crashed = asyncio.Event()
        self.error: BaseException | None = None
        self._registry = registry
        self._belief = Belief()
        self._hider = Hider()
        self._sight = Sight(in_sight=False)
        self._held = asyncio.Event()
        self._led = True
        self._leases: dict[str, frozenset[str]] = {}
        """By folder: the agents that are announced, and the instances that fairlead does not schedule."""
        self._keeper = Keeper(keep) if keep is not None else None
        kept = load(keep) if keep is not None else None
        if kept is not None:
            sight = Sight(in_sight=False, cluster=kept.cluster, revision=kept.revision, folders=kept.folders)
            self._belief.remember(sight, known_s=kept.known_s, now=_now())
        self.cell = Cell(self._snapshot())
        metrics.snapshot_age_seconds.set_function(lambda: self._belief.age_s(now=_now()))

    def bodies(self) -> list[Coroutine[None, None, None]]:
        keeping = [self._keeper.run()] if self._keeper is not None else []
        return [self._watch(), self._follow_masters(), *self._leased(), self._poll_confirmed(), *keeping]

    async def supervise(self, body: Coroutine[None, None, None]) -> None:
        try:
            await body
        except Exception as error:  # noqa: BLE001  # a bug, or a registry closed under us: snapshots() raises it
            self.error = error
            self.crashed.set()

    # --- what comes in

    async def _watch(self) -> None:
        async for sight in self._registry.watch():
            self._observe(sight)

    async def _follow_masters(self) -> None:
        folder, _, stem = paths.MASTER_CANDIDACY.rpartition("/")
        patience: asyncio.TimerHandle | None = None
        try:
            async for nodes in self._registry.follow(folder):
                if patience is not None:
                    patience.cancel()
                if lowest(nodes, stem) is not None:
                    self._set_led(led=True)
                else:
                    patience = asyncio.get_running_loop().call_later(UNLED_S, lambda: self._set_led(led=False))
        finally:
            if patience is not None:
                patience.cancel()

    def _set_led(self, *, led: bool) -> None:
        if led != self._led:
            self._led = led
            log.info("a master leads" if led else "no master leads: members stay while their agents are announced")
            self._publish()

    def _leased(self) -> tuple[Coroutine[None, None, None], ...]:
        return self._follow_leases(paths.AGENTS), self._follow_leases(paths.ANNOUNCED)

    async def _follow_leases(self, folder: str) -> None:
        async for nodes in self._registry.follow(folder):
            self._leases[folder] = frozenset(map(paths.unescape, nodes))
            if not self._led:
                self._publish()

    async def _poll_confirmed(self) -> None:
        while True:
            await self._held.wait()
            try:
                node = await self._registry.read(paths.CONFIRMED)
                if node is not None:
                    self._observe(self._sight, decode(Confirmed, node.data, place=paths.CONFIRMED))
            except FairleadError as error:
                log.debug("confirmation not read", why=str(error))
            await asyncio.sleep(CONFIRM_POLL_S)

    def _observe(self, sight: Sight, word: Confirmed | None = None) -> None:
        self._sight = sight
        before = self._belief.doubt
        self._belief.see(sight, now=_now(), word=word)
        self._tell(was_held=before is not None)
        if sight.in_sight:
            self.seen.set()
        self._publish()

    def _tell(self, *, was_held: bool) -> None:
        good, doubt = self._belief.good, self._belief.doubt
        if self._keeper is not None:
            self._keeper.live = self._belief.in_sight and doubt is None
            if self._keeper.live and good is not None:
                self._keeper.put(good.sight)
        if doubt is not None and not was_held:
            revision = good.reading.revision if good is not None else -1
            log.error("registry not believed, the last good state is served", why=doubt.why, revision=revision)
            self._held.set()
        elif doubt is None and was_held:
            log.info("registry believed again", revision=self._sight.revision)
            self._held.clear()

    # --- what goes out

    def _publish(self) -> None:
        snapshot = self._snapshot()
        measure(snapshot)
        if not alike(self.cell.value, snapshot):
            self.cell.set(snapshot)

    def _snapshot(self) -> Snapshot:
        trust, why = self._trust()
        good = self._belief.good
        if good is None:
            return Snapshot(revision=-1, trust=trust, why=why)
        contents = good.contents
        members, delta = self._visible(contents, live=trust is Trust.LIVE)
        return Snapshot(
            revision=good.reading.revision,
            trust=trust,
            why=why,
            age_s=self._belief.age_s(now=_now()),
            cluster=good.reading.cluster,
            committed_s=good.sight.committed_s,
            members=members,
            portless=contents.portless,
            leaving=contents.leaving,
            routes=contents.routes,
            policies=contents.policies,
            bad={**contents.bad, **good.sight.unreadable} if good.sight.unreadable else contents.bad,
            delta=delta,
        )

    def _trust(self) -> tuple[Trust, str]:
        if not self._belief.in_sight:
            why = f": {self._sight.why}" if self._sight.why else ""
            return Trust.STALE, f"the registry is out of sight{why}"
        if self._belief.doubt is not None:
            return Trust.HELD, self._belief.doubt.why
        return Trust.LIVE, ""

    def _visible(self, contents: Contents, *, live: bool) -> tuple[Mapping[str, Mapping[str, Member]], Delta]:
        by_lease = live and not self._led
        return self._hider.visible(contents, frozenset[str]().union(*self._leases.values()) if by_lease else None)


def _now() -> Now:
    return Now(steady_s=time.monotonic(), wall_s=time.time())


def alike(one: Snapshot, other: Snapshot) -> bool:
    """Nothing new to tell: only the age differs."""
    plain = one.revision == other.revision and one.trust is other.trust and one.why == other.why
    if not plain or one.cluster != other.cluster or one.bad != other.bad:
        return False
    flat = one.leaving is other.leaving and one.routes is other.routes and one.policies is other.policies
    return flat and _same(one, other)


def _same(one: Snapshot, other: Snapshot) -> bool:
    return not any(
        differing(mine, theirs, None) for mine, theirs in ((one.members, other.members), (one.portless, other.portless))
    )


def measure(snapshot: Snapshot) -> None:
    metrics.snapshot_revision.set(snapshot.revision)
    metrics.snapshot_bad_nodes.set(len(snapshot.bad))
    for trust, gauge in _TRUSTS.items():
        gauge.set(trust is snapshot.trust)

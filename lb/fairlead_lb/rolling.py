"""One balancer after the other: who may reload now, and how it went. The loop asks and never waits."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping

from fairlead_daemon.errors import Conflict, FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.records import Balancer, decode, encode
from fairlead_discovery.registry import NEW, Node, Registry
from fairlead_lb import metrics
from fairlead_lb.decisions import rollout
from fairlead_lb.decisions.rollout import Answer, ByService, Phase, Rollout, between

log = Log("lb.rollout")
POLL_S = 0.3
ANSWER_S = 3.0
GRANT_S = 10.0
"""A permission that is not used goes back."""
HEALTHY_S = 6.0
"""So long a first reload is watched before the others follow; longer than an audit, which counts."""
BASELINE_S = 30.0


class Gate:
    """`open` says whether a reload may come now; `done` tells how it went; `run` talks with the registry."""

    def __init__(self, me: str, *, enabled: bool) -> None:
        self.why = ""
        """Why a reload waits, "" when none does."""
        self.peers: frozenset[str] = frozenset()
        self.granted: Callable[[], None] = lambda: None
        """Called when a reload that was asked for may come."""
        self._me = me
        self._enabled = enabled
        self._asked: tuple[str, float] | None = None
        self._held = ""
        self._done: str | None = None
        self._finished = asyncio.Event()
        self._wake = asyncio.Event()
        self._seen: tuple[int, float] | None = None
        self._counted: deque[tuple[float, ByService]] = deque()
        self._at_reload: ByService = {}
        """What was counted last when HAProxy was reloaded: the loop counts just before."""

    # --- the loop's side -----------------------------------------------------------------------------------------

    def open(self, structure: str) -> bool:
        """Whether HAProxy may be reloaded now for what is wanted (see rollout.structure_of)."""
        if not self._enabled or not self.peers or structure == self._held:
            return True
        now_s = time.monotonic()
        known = self._asked is not None and self._asked[0] == structure and not self.stopped
        since_s = self._asked[1] if known and self._asked is not None else now_s
        self._asked = (structure, since_s)
        self._wake.set()
        if now_s - since_s > rollout.LONGEST_WAIT_S:
            log.warning("reloading without the others' consent", waited_s=round(now_s - since_s), why=self.why)
            self._asked = None
            return True
        return False

    @property
    def stopped(self) -> bool:
        """Whether another balancer's reload by this structure did harm."""
        return self.why.startswith("stopped")

    def done(self, why: str | None = "") -> None:
        """The reload has happened, or was refused (`why`), or did not come (None)."""
        self._asked = None
        if self._held:
            self._at_reload = self._newest_count
            self._done = why
            self._finished.set()

    def counted(self, served: ByService) -> None:
        """All requests so far of those who fail by no order of theirs, after each look at HAProxy's counters."""
        now_s = time.monotonic()
        self._counted.append((now_s, served))
        while len(self._counted) > 2 and now_s - self._counted[1][0] > BASELINE_S:
            self._counted.popleft()

    # --- the registry's side -------------------------------------------------------------------------------------

    async def run(self, registry: Registry, unwell: Callable[[], str]) -> None:
        """For ever. `unwell`: what is wrong with HAProxy now, "" when nothing is."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(registry))
            group.create_task(self._work(registry, unwell))

    async def _follow(self, registry: Registry) -> None:
        async for nodes in registry.follow(paths.BALANCERS):
            self.peers = frozenset(_others(nodes, self._me))
            self.granted()

    async def _work(self, registry: Registry, unwell: Callable[[], str]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._asked is not None:
                try:
                    if (before := await self._take(registry, self._asked[0])) is not None:
                        await self._watch(registry, before[0], unwell)
                except (FairleadError, TimeoutError) as error:
                    self.why = f"the registry does not answer: {error}"
                await asyncio.sleep(POLL_S)
            self.why = ""

    async def _take(self, registry: Registry, structure: str) -> tuple[Rollout | None] | None:
        """What was said before, when the document is ours now; None when not yet. Raises Unavailable."""
        said, version = await self._read(registry)
        if self._seen is None or version != self._seen[0]:
            self._seen = (version, time.monotonic())
        seen_for_s = time.monotonic() - self._seen[1]
        answer = rollout.may(said, me=self._me, structure=structure, seen_for_s=seen_for_s)
        if answer is not Answer.TAKE:
            assert said is not None
            stopped = answer is Answer.STOP
            self.why = f"stopped: {said.balancer}: {said.why}" if stopped else f"{said.balancer} is reloading"
            metrics.ROLLOUT_STOPPED.set(stopped)
            return None
        try:
            await self._write(registry, structure, Phase.TRYING, "", expect=version)
        except Conflict:
            return None
        metrics.ROLLOUT_STOPPED.set(0)
        return (said,)

    async def _watch(self, registry: Registry, before: Rollout | None, unwell: Callable[[], str]) -> None:
        """The loop reloads now; then the others hear how it went."""
        assert self._asked is not None
        structure = self._asked[0]
        first = not rollout.tried(before, structure)
        self._held, self._done, self.why = structure, None, ""
        self._finished.clear()
        earlier = self._counted[0][1] if self._counted else {}
        self.granted()
        try:
            why = await self._reloaded()
            if why is None:
                self._asked = None
            if why is None and not (why := unwell()):
                phase = Phase.GOOD
                structure = before.structure if before is not None else ""
            else:
                if not why and first:
                    why = await self._harm(between(earlier, self._at_reload), unwell)
                phase = Phase.HARMED if why else Phase.GOOD
        finally:
            self._held = ""
        if phase is Phase.HARMED:
            log.error("reload did harm; the other balancers do not follow", reason=why)
        await self._tell(registry, structure, phase, why or "")

    async def _reloaded(self) -> str | None:
        """What was wrong with it at once; None when it did not come."""
        try:
            async with asyncio.timeout(GRANT_S):
                await self._finished.wait()
        except TimeoutError:
            return None
        return self._done

    @property
    def _newest_count(self) -> ByService:
        return self._counted[-1][1] if self._counted else {}

    async def _harm(self, before: ByService, unwell: Callable[[], str]) -> str:
        end_s = time.monotonic() + HEALTHY_S
        while time.monotonic() < end_s:
            if why := unwell() or rollout.harm(before, between(self._at_reload, self._newest_count)):
                return why
            await asyncio.sleep(POLL_S)
        return ""

    async def _tell(self, registry: Registry, structure: str, phase: Phase, why: str) -> None:
        """Until it is heard, or we are taken for dead."""
        end_s = time.monotonic() + rollout.LEASE_S
        while time.monotonic() < end_s:
            try:
                return await self._write(registry, structure, phase, why)
            except Unavailable:
                await asyncio.sleep(POLL_S)
        raise Unavailable(f"registry: {paths.ROLLOUT} was not written")

    async def _read(self, registry: Registry) -> tuple[Rollout | None, int]:
        async with asyncio.timeout(ANSWER_S):
            node = await registry.read(paths.ROLLOUT)
        if node is None:
            return None, NEW
        try:
            return decode(Rollout, node.data, place=paths.ROLLOUT), node.version
        except FairleadError:
            return None, node.version

    async def _write(self, registry: Registry, structure: str, phase: Phase, why: str, *, expect: int = -1) -> None:
        word = Rollout(balancer=self._me, structure=structure, phase=phase, why=why, at_s=time.time())
        try:
            async with asyncio.timeout(ANSWER_S):
                await registry.write(paths.ROLLOUT, encode(word), expect=expect)
        except TimeoutError as error:
            raise Unavailable("registry: no answer") from error


def _others(nodes: Mapping[str, Node], me: str) -> list[str]:
    """Registered balancers but us and those of single machines."""
    found = []
    for name, node in nodes.items():
        try:
            one = decode(Balancer, node.data, place=name)
        except FairleadError:
            continue
        if one.id != me and not one.node:
            found.append(one.id)
    return found

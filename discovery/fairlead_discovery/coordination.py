"""Locks, semaphores, elections, barriers and groups for tasks, made of candidacies and announcements.

    async with lock(registry, "reports") as held:
        await work(fence=held.fence)          # and stop when held.lost is set

What is held is a lease: it is true for as long as the registry was heard of within LEASE_S, less than a session. A
`fence` only ever rises for one name and slot; give it to what you write to, and let that refuse lower ones. It is the
only thing that helps against a process that was paused between looking at its lease and writing.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from fairlead_daemon.errors import Conflict, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.decisions.given_names import checked
from fairlead_discovery.guardian import boottime_s
from fairlead_discovery.records import Record, decode, encode
from fairlead_discovery.registry import SESSION_S, Announcement, Guard, Registry, Standing

LEASE_S = SESSION_S - 2.0
"""ZooKeeper's followers tell their leader of a session once a tick: it may end up to 2 s sooner than we think."""
RENEW_S = 1.0
HANDOVER_S = 1.0
"""How long a new holder waits when the one before did not say that it had ended: the time to end its command."""
ANSWER_S = 3.0
log = Log("coordination")


class Holder(Record, frozen=True, kw_only=True):
    """Who holds, for people. `since_s` is wall clock."""

    who: str
    fence: int
    since_s: float


@dataclass(eq=False, slots=True)
class Held:
    """A lease on one slot of one name. `good_until_s` by CLOCK_BOOTTIME; it moves on while the registry answers."""

    name: str
    slot: int
    fence: int
    good_until_s: float
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    renewed: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""

    def check(self) -> None:
        """Raises Conflict when the lease is over, or may be."""
        if self.lost.is_set() or boottime_s() >= self.good_until_s:
            raise Conflict(f"{self.name} is no longer held: {self.why or 'the registry was not heard of'}")

    def renew(self, until_s: float) -> None:
        self.good_until_s = max(self.good_until_s, until_s)
        self.renewed.set()

    def lose(self, why: str) -> None:
        if not self.lost.is_set():
            self.why = why
            log.warning("lost", name=self.name, slot=self.slot, fence=self.fence, why=why)
            self.lost.set()


# --- locks, semaphores, elections --------------------------------------------------------------------------------------


@asynccontextmanager
async def lock(registry: Registry, name: str, *, wait_s: float | None = None) -> AsyncIterator[Held]:
    """Waits for it, for ever or `wait_s`. When it is not got by then raises Conflict naming the holder, or Unavailable."""
    async with semaphore(registry, name, 1, wait_s=wait_s) as held:
        yield held


@asynccontextmanager
async def semaphore(
    registry: Registry, name: str, limit: int, *, kind: str = "lock", wait_s: float | None = None
) -> AsyncIterator[Held]:
    """One of `limit` slots; everybody must say the same limit. `lock` is a semaphore of one. Refused for an empty name."""
    seats = [Seat(registry, f"{kind}:{checked(kind, name)}", slot) for slot in range(limit)]
    async with AsyncExitStack() as stack:
        for seat in seats:
            await stack.enter_async_context(seat)
        held = await _first(seats, wait_s)
        if held is None:
            raise await _refusal(registry, name, seats)
        for seat in seats:
            if seat.slot != held.slot:
                await seat.leave()
        yield held


async def elected(registry: Registry, name: str) -> AsyncIterator[Held]:
    """Each leadership of ours, one after the other. The next begins when the caller asks for it, after `held.lost`."""
    while True:
        async with semaphore(registry, name, 1, kind="elect") as held:
            yield held


async def _first(seats: "Sequence[Seat]", wait_s: float | None) -> Held | None:
    waits = [asyncio.ensure_future(seat.held()) for seat in seats]
    try:
        done, _ = await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return next((wait.result() for wait in waits if wait in done), None)


async def _refusal(registry: Registry, name: str, seats: "Sequence[Seat]") -> FairleadError:
    """Why it was not got."""
    words = []
    try:
        async with asyncio.timeout(ANSWER_S):
            for seat in seats:
                node = await registry.read(seat.holder_path)
                if node is not None:
                    words.append(decode(Holder, node.data, place=seat.holder_path).who)
    except (Unavailable, TimeoutError):
        return Unavailable(f"{name} was not got: the registry is out of sight")
    except Refused as error:
        return error
    return Conflict(f"{name} is held by {', '.join(words) or 'somebody else'}")


class Seat:
    """One candidacy for one slot, from entering to leaving; keeps the lease while it leads."""

    def __init__(self, registry: Registry, name: str, slot: int) -> None:
        self.name = name
        self.slot = slot
        self._role = f"{name}#{slot}"
        self._registry = registry
        self._standing = Standing(leading=False)
        self._moved = asyncio.Event()
        self._held: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
        self._elected = 0
        """The epoch we have had, to be released."""
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def holder_path(self) -> str:
        return paths.below(paths.HOLDERS, self._role)

    @property
    def _released_path(self) -> str:
        return paths.below(paths.RELEASED, self._role)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._stand()), loop.create_task(self._hold()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def held(self) -> Held:
        return await asyncio.shield(self._held)

    async def leave(self) -> None:
        """Says that whoever comes next need not wait, and withdraws. The caller has ended what it did."""
        if not self._tasks:
            return
        candidacy, holding = self._tasks
        self._tasks = ()
        holding.cancel()
        await asyncio.wait((holding,))
        held = self._held.result() if self._held.done() and not self._held.cancelled() else None
        if self._elected and (held is None or not held.lost.is_set()):
            with suppress(FairleadError, TimeoutError):  # then the next one waits
                async with asyncio.timeout(ANSWER_S):
                    guard = Guard(self._role, self._elected)
                    await self._registry.write(self._released_path, str(self._elected).encode(), guard=guard)
        candidacy.cancel()
        await asyncio.wait((candidacy,))
        self._held.cancel()

    async def _stand(self) -> None:
        me = encode(Holder(who=whoami(), fence=0, since_s=time.time()))
        async with aclosing(self._registry.campaign(self._role, me)) as standings:  # type: ignore[type-var]  # a generator on every backend
            async for standing in standings:
                self._standing = standing
                moved, self._moved = self._moved, asyncio.Event()
                moved.set()

    async def _hold(self) -> None:
        while True:
            moved = self._moved
            if self._standing.leading:
                try:
                    held, version = await self._begin(self._standing.epoch)
                except (FairleadError, TimeoutError) as error:
                    log.warning("not held yet", name=self._role, why=str(error) or "no answer")
                    await asyncio.sleep(0.2)
                    continue
                self._held.set_result(held)
                await self._keep(held, version)
                return
            await moved.wait()

    async def _begin(self, fence: int) -> tuple[Held, int]:
        """The lease and the version of the epoch's node while it is ours."""
        async with asyncio.timeout(ANSWER_S):
            released = await self._registry.read(self._released_path)
        if released is None or released.data != str(fence - 1).encode():
            await asyncio.sleep(HANDOVER_S)
        self._elected = fence  # from here on we may say that all before us have ended
        begin_s = boottime_s()
        async with asyncio.timeout(ANSWER_S):
            epoch = await self._registry.read(paths.epoch(self._role))
            holder = Holder(who=whoami(), fence=fence, since_s=time.time())
            await self._registry.write(self.holder_path, encode(holder), guard=Guard(self._role, fence))
        if epoch is None or self._standing != Standing(leading=True, epoch=fence, leader=self._standing.leader):
            raise Conflict("the standing has changed")
        log.info("held", name=self.name, slot=self.slot, fence=fence)
        held = Held(name=self.name, slot=self.slot, fence=fence, good_until_s=begin_s + LEASE_S)
        return held, epoch.version

    async def _keep(self, held: Held, version: int) -> None:
        """Until it is lost."""
        while not held.lost.is_set():
            moved = self._moved
            begin_s = boottime_s()
            try:
                async with asyncio.timeout(ANSWER_S):
                    epoch = await self._registry.read(paths.epoch(self._role))
                if epoch is None or epoch.version != version:
                    held.lose("another has it")
                elif self._standing.leading and self._standing.epoch == held.fence:
                    held.renew(begin_s + LEASE_S)
            except (Unavailable, TimeoutError):
                pass  # the lease runs on, and out
            self._judge(held)
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await moved.wait()

    def _judge(self, held: Held) -> None:
        standing = self._standing
        if standing.leading and standing.epoch != held.fence:
            held.lose("our session had ended")
        elif not standing.leading and standing.leader is not None:
            held.lose("another has it")
        elif boottime_s() >= held.good_until_s:
            held.lose(f"the registry was not heard of for {LEASE_S:g} s")


def is_lease(path: str) -> bool:
    """Whether it is a candidacy for something of this file, as `/fairlead/elections/lock:x#0/c_0000000001`."""
    folder, _, role = path.rpartition("/")[0].rpartition("/")
    return folder == paths.ELECTIONS and "#" in paths.unescape(role)


def whoami() -> str:
    return f"{socket.gethostname()} pid {os.getpid()}"


# --- barriers and groups -----------------------------------------------------------------------------------------------


async def barrier(registry: Registry, name: str, parties: int, *, identity: str = "") -> None:
    """Returns when so many have come. It stays open: a name serves once. Who is cancelled while waiting counts no more.

    `identity` tells the parties apart; the same one counts once.
    """
    folder = paths.below(paths.BARRIERS, checked("barrier", name))
    opened = f"{folder}/opened"
    party = paths.escape(checked(f"barrier {name}: party", identity or _unique()))
    mine = await registry.announce(f"{folder}/party_{party}", b"")
    try:
        async with aclosing(registry.follow(folder)) as looks:  # type: ignore[type-var]  # a generator on every backend
            async for nodes in looks:
                if "opened" in nodes:
                    return
                if sum(node.startswith("party_") for node in nodes) >= parties:
                    await _insist(registry, opened)
                    return
    finally:
        await mine.end()


async def _insist(registry: Registry, path: str) -> None:
    """Writes it, once or twice, until it is sure to stand."""
    while True:
        try:
            await registry.write(path, b"")
        except Unavailable:
            await asyncio.sleep(0.2)
        else:
            return


def _unique() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}"


@dataclass(frozen=True, slots=True)
class Group:
    """Who is there: members live as long as their sessions. Raises Refused for an empty name."""

    registry: Registry
    name: str

    def __post_init__(self) -> None:
        checked("group", self.name)

    @property
    def _folder(self) -> str:
        return paths.below(paths.GROUPS, self.name)

    async def join(self, identity: str, data: bytes = b"") -> Announcement:
        """Until `end()` of what is returned, or the session's end."""
        member = paths.escape(checked(f"group {self.name}: member", identity))
        return await self.registry.announce(f"{self._folder}/{member}", data)

    async def members(self) -> AsyncIterator[Mapping[str, bytes]]:
        """By identity: at once, then at every change."""
        async for nodes in self.registry.follow(self._folder):
            yield {paths.unescape(name): node.data for name, node in nodes.items()}

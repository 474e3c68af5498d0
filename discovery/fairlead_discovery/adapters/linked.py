"""A Store over a link to a hub: the client of the `local` backend, and of its twin in memory.

The link may break and come back at any time: the session is resumed (or, when it ended without us, a new one
begins), and every feed is asked for anew. A request whose answer was lost is Unavailable: nobody knows.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Conflict, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import messages as m
from fairlead_discovery import metrics
from fairlead_discovery.decisions.delta import Delta
from fairlead_discovery.decisions.ops import AnyOp
from fairlead_discovery.decisions.sharing import Shared
from fairlead_discovery.records import Cluster, decode
from fairlead_discovery.registry import SESSION_S, Folder, Node, Sight
from fairlead_discovery.store import Cell, Connection, Importing, Outcome, check_usable, check_writable

log = Log("discovery")
T = TypeVar("T")
A = TypeVar("A", bound=m.Answer)
ASK_S = 5.0
PING_S = SESSION_S / 4
SILENCE_S = SESSION_S / 2
"""A link that has been silent for so long is dropped: there is time left to resume the session on another."""
WARN_ATTEMPT = 3
"""Of a row of failed tries, this one is logged."""
UNDER_WAY_ATTEMPT = 36
"""So many while an import or a copy into it is under way; after about half a minute it may have been killed."""
BLINK_S = 1.0
"""How long a request waits for the link to come back before it is refused: a registry's restart takes less."""
BACKOFF = Backoff(first_s=0.02, factor=1.6, most_s=1.0)
_ERRORS: Mapping[str, type[FairleadError]] = {"conflict": Conflict, "refused": Refused}


class Link(Protocol):
    def send(self, message: m.AnyRequest) -> None: ...

    def close(self) -> None: ...


Connect = Callable[[Callable[[m.AnyReply], None], Callable[[], None]], Awaitable[Link]]
"""`connect(on_message, on_lost)`: raises OSError; `on_lost` is called once, also after our own close."""


class Feed(Protocol):
    folder: str

    def take(self, push: m.Push) -> None: ...


class ClockFeed:
    """The clocked tree, put together from pushes."""

    folder = ""

    def __init__(self) -> None:
        self.cell = Cell(Sight(in_sight=False))
        self.cluster = Cluster(uuid="")

    def take(self, push: m.Push) -> None:
        old = self.cell.value.folders
        gone = set(old.keys() - push.folders.keys()) if push.whole else set[str]()
        there: dict[str, Folder] = {}
        for name, changes in push.folders.items():
            before = old.get(name, {})
            now = changed({} if push.whole else before, {k: None if v is None else v[0] for k, v in changes.items()})
            if now != before:
                if now:
                    there[name] = now
                else:
                    gone.add(name)
        folders = Shared.of(old).changed(there, gone)
        self.cell.set(
            Sight(
                in_sight=True,
                cluster=self.cluster.uuid,
                revision=self.cluster.base + push.revision,
                folders=folders,
                committed_s=push.committed_s,
                delta=Delta(old, frozenset(gone.union(there))),
            )
        )

    def lose(self) -> None:
        last = self.cell.value
        if last.in_sight:
            self.cell.set(Sight(in_sight=False, cluster=last.cluster, revision=last.revision, folders=last.folders))


class FolderFeed:
    """One folder's nodes with their versions. `users` counts the iterators on it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.cell: Cell[Mapping[str, Node] | None] = Cell(None)
        self.users = 0

    def take(self, push: m.Push) -> None:
        changes = push.folders.get(self.folder, {})
        nodes = {name: None if wire is None else Node(*wire) for name, wire in changes.items()}
        before = self.cell.value or {}
        now = changed({} if push.whole else before, nodes)
        if self.cell.value is None or now != before:
            self.cell.set(now)


def changed(before: Mapping[str, T], changes: Mapping[str, T | None]) -> dict[str, T]:
    after = dict(before)
    for name, value in changes.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = value
    return after


class Waiting(Generic[A]):
    """A question under way, and the kind of its answer."""

    def __init__(self, kind: type[A]) -> None:
        self.kind = kind
        self.future: asyncio.Future[A] = asyncio.get_running_loop().create_future()

    def answer(self, reply: m.Answer) -> None:
        if self.future.done():
            return
        if isinstance(reply, m.Failed):
            self.future.set_exception(_ERRORS.get(reply.kind, Unavailable)(reply.message))
        elif isinstance(reply, self.kind):
            self.future.set_result(reply)

    def fail(self, error: FairleadError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # its owner may have been cancelled: nobody need look


class LinkedStore:
    """See store.Store. `place` names the registry in errors."""

    def __init__(self, connect: Connect, place: str) -> None:
        self.place = place
        self.connection = Cell(Connection(in_sight=False))
        self._connect = connect
        self._link: Link | None = None
        self._heard_s = 0.0
        self._number = 0
        self._waiting: dict[int, Waiting[m.Welcome] | Waiting[m.Done] | Waiting[m.Got] | Waiting[m.Named]] = {}
        self._feeds: dict[int, ClockFeed | FolderFeed] = {}
        self._clock: ClockFeed | None = None
        self._folders: dict[str, FolderFeed] = {}
        self.cluster = Cluster(uuid="")
        self.admin = False
        self._broken = asyncio.Event()
        self._hello = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    # --- Store

    async def multi(self, ops: Sequence[AnyOp], *, clocked: bool = False) -> Outcome:
        check_writable(self.cluster, place=f"registry {self.place}", admin=self.admin)
        done = await self._ask(m.Multi(ops=tuple(ops), clocked=clocked), m.Done)
        return Outcome(self.cluster.base + done.revision, done.results)

    async def get(self, path: str) -> Node | None:
        got = await self._ask(m.Get(path=path), m.Got)
        return None if got.version < 0 else Node(got.data, got.version, got.passing)

    async def names(self, folder: str) -> tuple[str, ...]:
        return (await self._ask(m.Names(folder=folder), m.Named)).names

    async def owned(self, folder: str) -> tuple[str, ...]:
        return (await self._ask(m.Names(folder=folder, owned=True), m.Named)).names

    async def sights(self) -> AsyncIterator[Sight]:
        if self._clock is None:
            self._clock = ClockFeed()
            self._clock.cluster = self.cluster
            self._subscribe(self._clock)
        async for sight in self._clock.cell.changes():
            yield sight

    async def follow(self, folder: str) -> AsyncIterator[Mapping[str, Node]]:
        feed = self._folders.get(folder)
        if feed is None:
            feed = self._folders[folder] = FolderFeed(folder)
            self._subscribe(feed)
        feed.users += 1
        try:
            async for nodes in feed.cell.changes():
                if nodes is not None:
                    yield nodes
        finally:
            feed.users -= 1
            if not feed.users:
                del self._folders[folder]
                self._unsubscribe(feed)

    async def renew(self) -> None:
        """The record comes with each Welcome."""
        self.connection.set(Connection(in_sight=False, session=self.connection.value.session))
        self._broken.set()

    async def close(self) -> None:
        try:
            if self.connection.value.in_sight:
                await self._ask(m.Bye(), m.Done, wait_s=1.0)
        except FairleadError:
            pass  # then the session ends by itself, in 10 s
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._drop_link()

    # --- asking

    async def _ask(self, request: m.Request, kind: type[A], *, wait_s: float = ASK_S) -> A:
        if not self.connection.value.in_sight:
            await self._blink()
        return await self._ask_link(request, kind, wait_s=wait_s)

    async def _ask_link(self, request: m.Request, kind: type[A], *, wait_s: float = ASK_S) -> A:
        """Raises Unavailable when no answer comes: then the outcome is unknown."""
        if self._link is None:
            raise Unavailable(f"registry {self.place} is out of sight")
        number = self._next()
        waiting = Waiting(kind)
        self._waiting[number] = waiting  # type: ignore[assignment]  # a union of what A may be
        try:
            self._link.send(msgspec.structs.replace(request, number=number))  # type: ignore[arg-type]  # any request
            async with asyncio.timeout(wait_s):
                return await waiting.future
        except TimeoutError as error:
            raise Unavailable(f"registry {self.place} did not answer in {wait_s:g} s") from error
        finally:
            self._waiting.pop(number, None)

    async def _blink(self) -> None:
        try:
            async with asyncio.timeout(BLINK_S):
                async for connection in self.connection.changes():
                    if connection.in_sight:
                        return
        except TimeoutError as error:
            raise Unavailable(f"registry {self.place} is out of sight") from error

    def _next(self) -> int:
        self._number += 1
        return self._number

    # --- feeds

    def _subscribe(self, feed: ClockFeed | FolderFeed) -> None:
        number = self._next()
        self._feeds[number] = feed
        if self._link is not None and self.connection.value.in_sight:
            self._link.send(m.Subscribe(number=number, folder=feed.folder))

    def _unsubscribe(self, feed: FolderFeed) -> None:
        number = next((n for n, f in self._feeds.items() if f is feed), 0)
        self._feeds.pop(number, None)
        if self._link is not None and number:
            self._link.send(m.Unsubscribe(subscription=number))

    def _subscribe_all(self) -> None:
        feeds = tuple(self._feeds.values())
        self._feeds.clear()  # pushes of the old subscriptions may still be under way
        for feed in feeds:
            self._subscribe(feed)

    # --- the link

    async def _run(self) -> None:
        attempt = 0
        while True:
            try:
                await self._open()
            except (OSError, TimeoutError, FairleadError) as error:
                if attempt == (UNDER_WAY_ATTEMPT if isinstance(error, Importing) else WARN_ATTEMPT):
                    log.warning("registry out of sight", place=self.place, why=str(error))
                self._drop_link()
                await asyncio.sleep(BACKOFF.delay_s(attempt, chance=random.random()))  # noqa: S311  # jitter
                attempt += 1
                continue
            attempt = 0
            await self._keep()
            self._lost()
            await asyncio.sleep(BACKOFF.delay_s(0, chance=random.random()))  # noqa: S311  # jitter

    async def _open(self) -> None:
        self._hello.clear()
        broken = self._broken = asyncio.Event()  # one a link: the end of an old one may be told late

        def receive(reply: m.AnyReply) -> None:
            if self._broken is broken:
                self._receive(reply)

        async with asyncio.timeout(ASK_S):
            self._link = await self._connect(receive, broken.set)
        self._heard_s = asyncio.get_running_loop().time()
        await self._say_hello()

    async def _say_hello(self) -> None:
        before = self.connection.value.session
        welcome = await self._ask_link(m.Hello(session=before), m.Welcome)
        cluster = decode(Cluster, welcome.cluster, place=f"registry {self.place}: cluster")
        check_usable(cluster, place=f"registry {self.place}", admin=self.admin)
        self.cluster = cluster
        if self._clock is not None:
            self._clock.cluster = cluster
        if before and before != welcome.session:
            metrics.sessions_lost.inc()
            log.warning("session lost", place=self.place)
        self.connection.set(Connection(in_sight=True, session=welcome.session))
        metrics.in_sight.set(1)
        self._subscribe_all()

    async def _keep(self) -> None:
        """Pings until the link breaks or falls silent; says Hello again when the session has ended."""
        loop = asyncio.get_running_loop()
        while not self._broken.is_set() and loop.time() - self._heard_s < SILENCE_S:
            if self._hello.is_set():
                self._hello.clear()
                try:
                    await self._say_hello()
                except FairleadError:
                    return
            assert self._link is not None
            self._link.send(m.Ping())
            try:
                async with asyncio.timeout(PING_S):
                    await self._event()
            except TimeoutError:
                continue

    async def _event(self) -> None:
        waits = [asyncio.ensure_future(self._broken.wait()), asyncio.ensure_future(self._hello.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _receive(self, reply: m.AnyReply) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        if isinstance(reply, m.Push):
            feed = self._feeds.get(reply.subscription)
            if feed is not None:
                feed.take(reply)
        elif isinstance(reply, m.Ended):
            self.connection.set(Connection(in_sight=False, session=self.connection.value.session))
            self._hello.set()
        elif reply.number in self._waiting:
            self._waiting[reply.number].answer(reply)

    def _lost(self) -> None:
        """Out of sight: what was asked has an unknown outcome, the feeds stand still."""
        self._drop_link()
        metrics.in_sight.set(0)
        metrics.reconnects.inc()
        self.connection.set(Connection(in_sight=False, session=self.connection.value.session))
        if self._clock is not None:
            self._clock.lose()

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        for waiting in tuple(self._waiting.values()):
            waiting.fail(Unavailable(f"registry {self.place} went out of sight, the outcome is unknown"))

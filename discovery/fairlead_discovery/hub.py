"""The serving side of the `local` and `memory` backends: sessions, requests in batches, watches pushed.

One pump owns the state: it takes what has come in, applies it, has it stored, and only then answers and pushes.
So nobody ever hears of what a crash could take back. Requests that come while a batch is being stored make the next
batch: one fsync serves all of it.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from fairlead_daemon.errors import Conflict, FairleadError, Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_discovery import messages as m
from fairlead_discovery import metrics, paths
from fairlead_discovery.decisions.nodes import Effects, Nodes, folder_nodes
from fairlead_discovery.decisions.ops import Set, check_sizes
from fairlead_discovery.records import Cluster, decode
from fairlead_discovery.registry import SESSION_S

log = Log("registry")
BATCH = 2000
TICK_S = 0.5
PAUSED_S = 2.0
"""A tick this late means that we were stopped: then nobody's silence counts against them."""
_KINDS: tuple[tuple[type[FairleadError], str], ...] = ((Conflict, "conflict"), (Refused, "refused"))


class Peer(Protocol):
    """The other end of a connection."""

    def send(self, message: m.AnyReply) -> None: ...

    def close(self) -> None:
        """What was sent still arrives."""
        ...

    def backed_up(self) -> bool:
        """It does not read as fast as we write: keep its pushes back (they coalesce)."""
        ...


@dataclass(slots=True, eq=False)
class Subscription:
    number: int
    folder: str
    whole: bool = True
    touched: bool = True
    dirty: dict[str, set[str]] = field(default_factory=dict)

    def mark(self, folder: str, name: str) -> None:
        self.touched = True
        if not self.whole:
            self.dirty.setdefault(folder, set()).add(name)


@dataclass(slots=True, eq=False)
class Client:
    peer: Peer
    session: str = ""
    subscriptions: dict[int, Subscription] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _End:
    """A session is over."""

    session: str


@dataclass(frozen=True, slots=True)
class _Nudge:
    """A slow reader can take more."""


Item = tuple[Client | None, m.AnyRequest | _End | _Nudge]
Store = Callable[[Effects], Awaitable[None]]


class Hub:
    """`store` puts effects on disk and raises Unavailable; `reload` then gives back what is on disk."""

    def __init__(self, nodes: Nodes, *, store: Store | None = None, reload: Callable[[], Nodes] | None = None) -> None:
        self.nodes = nodes
        self._store = store
        self._reload = reload
        self._clients: set[Client] = set()
        self._turned_away: set[Client] = set()
        self._unstored: set[str] = set()
        """Sessions opened while the disk was full: they are stored with whatever can be stored next."""
        self._base = _base(nodes)
        self._committed_s = 0.0
        self._queue: deque[Item] = deque()
        self._loop = asyncio.get_running_loop()
        self._heard = dict.fromkeys(nodes.sessions, self._loop.time())
        self._pump: asyncio.Task[None] | None = None
        self._crashed: asyncio.Future[None] = self._loop.create_future()
        self._pumping = False
        self._ticked = self._loop.time()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    # --- called by transports

    def attach(self, peer: Peer) -> Client:
        client = Client(peer)
        self._clients.add(client)
        metrics.clients.set(len(self._clients))
        return client

    def detach(self, client: Client) -> None:
        self._clients.discard(client)
        metrics.clients.set(len(self._clients))

    def receive(self, client: Client, request: m.AnyRequest) -> None:
        if client.session in self._heard:
            self._heard[client.session] = self._loop.time()
        self._enqueue((client, request))

    def end_session(self, session: str) -> None:
        self._enqueue((None, _End(session)))

    def nudge(self) -> None:
        self._enqueue((None, _Nudge()))

    def lives(self, session: str) -> bool:
        return session in self.nodes.sessions

    async def crash(self) -> None:
        """Waits for a bug in the pump, and raises it."""
        await asyncio.shield(self._crashed)

    async def close(self) -> None:
        """Waits until everything taken in is stored and answered."""
        self._timer.cancel()
        while self._pump is not None and not self._pump.done():
            await asyncio.wait([self._pump])

    # --- the pump

    def _enqueue(self, item: Item) -> None:
        self._queue.append(item)
        if self._pumping:
            return
        self._pumping = True
        if self._store is None:
            self._loop.call_soon(self._pump_in_memory)
        else:
            self._pump = self._loop.create_task(self._pump_to_disk(self._store))

    def _pump_in_memory(self) -> None:
        self._pumping = False
        while self._queue:
            answers, _, effects = self._apply_batch()
            self._publish(answers, effects)

    async def _pump_to_disk(self, store: Store) -> None:
        try:
            while self._queue:
                answers, asked, effects = self._apply_batch()
                if effects:
                    for session in self._unstored:
                        effects.sessions.setdefault(session, True)
                    try:
                        await store(effects)
                        self._unstored.clear()
                    except Unavailable as error:
                        log.error("not stored", why=str(error))  # noqa: TRY400  # a full disk is no bug: no traceback
                        self._take_back()
                        both = zip(answers, asked, strict=True)
                        answers = [(c, self._answer_unstored(c, r, a, error)) for (c, a), r in both]
                        effects = Effects()
                self._publish(answers, effects)
        except Exception as error:  # noqa: BLE001  # a bug: crash() hands it to the daemon, which ends
            self._crashed.set_exception(error)
        finally:
            self._pumping = False

    def _take_back(self) -> None:
        assert self._reload is not None
        self.nodes = self._reload()
        for session in self._unstored:
            self.nodes.open_session(session)
        now = self._loop.time()
        self._heard = {s: self._heard.get(s, now) for s in self.nodes.sessions}

    def _answer_unstored(
        self, client: Client, request: m.AnyRequest, answer: m.AnyReply, error: Unavailable
    ) -> m.AnyReply:
        """Who only reads is served all the same, from what is on disk: also who comes now."""
        match request:
            case m.Get() | m.Names():
                return self._answer(client, request, Effects()) or _failed(answer, error)
            case m.Hello():
                opened = Effects()
                welcome = self._hello(client, request, opened)
                self._unstored |= opened.sessions.keys()
                return welcome
            case m.Ping():
                return answer
            case _:
                return _failed(answer, error)

    def _apply_batch(self) -> tuple[list[tuple[Client, m.AnyReply]], list[m.AnyRequest], Effects]:
        """The answers, what each of them answers, and what must be stored before they are given."""
        answers: list[tuple[Client, m.AnyReply]] = []
        asked: list[m.AnyRequest] = []
        effects = Effects()
        for _ in range(min(len(self._queue), BATCH)):
            client, request = self._queue.popleft()
            if isinstance(request, _End):
                effects.add(self._end(request.session))
            elif client is not None and not isinstance(request, _Nudge) and client in self._clients:
                answer = self._answer(client, request, effects)
                if answer is not None:
                    answers.append((client, answer))
                    asked.append(request)
        return answers, asked, effects

    def _answer(self, client: Client, request: m.AnyRequest, effects: Effects) -> m.AnyReply | None:
        match request:
            case m.Multi():
                return self._multi(client, request, effects)
            case m.Get(number=number, path=path):
                entry = self.nodes.get(path)
                return (
                    m.Got(number=number)
                    if entry is None
                    else m.Got(number=number, data=entry.data, version=entry.version, passing=bool(entry.owner))
                )
            case m.Names(number=number, folder=folder, owned=owned):
                names = self.nodes.owned(folder, client.session) if owned else self.nodes.names(folder)
                return m.Named(number=number, names=names)
            case m.Subscribe(number=number, folder=folder):
                client.subscriptions[number] = Subscription(number, folder)
                return None
            case m.Unsubscribe(subscription=number):
                client.subscriptions.pop(number, None)
                return None
            case m.Hello():
                return self._hello(client, request, effects)
            case m.Ping(number=number):
                return m.Done(number=number)
            case m.Bye(number=number):
                effects.add(self._end(client.session))
                return m.Done(number=number)

    def _multi(self, client: Client, request: m.Multi, effects: Effects) -> m.AnyReply:
        clock = (Set(path=paths.REVISION),) if request.clocked else ()
        try:
            check_sizes(request.ops)
            applied = self.nodes.apply((*clock, *request.ops), session=client.session)
        except (Conflict, Refused) as error:
            kind = next(name for kind, name in _KINDS if isinstance(error, kind))
            return m.Failed(number=request.number, kind=kind, message=str(error))
        effects.add(applied.effects)
        if paths.CLUSTER in applied.effects.nodes:
            self._turn_away()
        return m.Done(number=request.number, revision=self.nodes.revision, results=applied.results[len(clock) :])

    def _turn_away(self) -> None:
        """Clients learn whose registry this is when they connect: when that has changed they must do it again."""
        self._base = _base(self.nodes)
        self._turned_away |= self._clients
        self._clients.clear()

    def _hello(self, client: Client, request: m.Hello, effects: Effects) -> m.AnyReply:
        if abs(request.version - m.VERSION) > 1:
            text = f"the registry speaks version {m.VERSION} of its protocol, this client {request.version}"
            return m.Failed(number=request.number, kind="refused", message=text)
        session = request.session
        if session not in self.nodes.sessions:
            session = secrets.token_hex(8)
            effects.add(self.nodes.open_session(session))
        for other in self._clients:
            if other is not client and other.session == session:  # its link is dead, or it will find a new session
                other.session = ""
                other.peer.send(m.Ended())
        client.session = session
        client.subscriptions.clear()
        self._heard[session] = self._loop.time()
        cluster = self.nodes.get(paths.CLUSTER)
        return m.Welcome(number=request.number, session=session, cluster=cluster.data if cluster is not None else b"")

    def _end(self, session: str) -> Effects:
        self._heard.pop(session, None)
        for client in self._clients:
            if client.session == session and session:
                client.session = ""
                client.peer.send(m.Ended())
        metrics.sessions.set(len(self._heard))
        return self.nodes.end_session(session)

    # --- pushing

    def _publish(self, answers: Iterable[tuple[Client, m.AnyReply]], effects: Effects) -> None:
        metrics.revision.set(self._base + self.nodes.revision)
        metrics.sessions.set(len(self._heard))
        for client, answer in answers:
            client.peer.send(answer)
        for client in self._turned_away:
            self._loop.call_soon(client.peer.close)
        self._turned_away.clear()
        self._mark(effects)
        for client in self._clients:
            if client.subscriptions and not client.peer.backed_up():
                self._push(client)

    def _mark(self, effects: Effects) -> None:
        subscriptions = [s for c in self._clients for s in c.subscriptions.values()]
        clocked = [s for s in subscriptions if not s.folder]
        by_folder: dict[str, list[Subscription]] = {}
        for subscription in subscriptions:
            by_folder.setdefault(subscription.folder, []).append(subscription)
        for path in effects.nodes:
            folder, _, name = path.rpartition("/")
            for subscription in by_folder.get(folder, ()):
                subscription.mark(folder, name)
            if paths.clocked_folder(path):
                for subscription in clocked:
                    subscription.mark(folder, name)
            elif path == paths.REVISION:
                self._committed_s = time.time()
                for subscription in clocked:
                    subscription.touched = True

    def _push(self, client: Client) -> None:
        for subscription in client.subscriptions.values():
            if subscription.touched:
                client.peer.send(self._build(subscription))
                subscription.touched = subscription.whole = False
                subscription.dirty = {}

    def _build(self, subscription: Subscription) -> m.Push:
        return m.Push(
            subscription=subscription.number,
            revision=self.nodes.revision,
            whole=subscription.whole,
            committed_s=self._committed_s,
            folders=self._whole(subscription.folder) if subscription.whole else self._changes(subscription.dirty),
        )

    def _whole(self, folder: str) -> dict[str, dict[str, m.WireNode | None]]:
        folders = (folder,) if folder else tuple(self.nodes.clocked_folders())
        return {f: {**folder_nodes(self.nodes.nodes(f))} for f in folders}

    def _changes(self, dirty: dict[str, set[str]]) -> dict[str, dict[str, m.WireNode | None]]:
        return {folder: {name: self._wire(f"{folder}/{name}") for name in names} for folder, names in dirty.items()}

    def _wire(self, path: str) -> m.WireNode | None:
        entry = self.nodes.get(path)
        return None if entry is None else (entry.data, entry.version)

    # --- sessions

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._ticked > TICK_S + PAUSED_S:
            self._heard = dict.fromkeys(self._heard, now)
        self._ticked = now
        for session, heard in self._heard.items():
            if now - heard > SESSION_S:
                log.warning("session ended", session=session, silent_s=now - heard)
                self.end_session(session)
        self._timer = self._loop.call_later(TICK_S, self._tick)


def _base(nodes: Nodes) -> int:
    entry = nodes.get(paths.CLUSTER)
    return decode(Cluster, entry.data, place=paths.CLUSTER).base if entry is not None else 0


def _failed(answer: m.AnyReply, error: Unavailable) -> m.AnyReply:
    number = answer.number if isinstance(answer, m.Answer) else 0
    return m.Failed(number=number, kind="unavailable", message=str(error))

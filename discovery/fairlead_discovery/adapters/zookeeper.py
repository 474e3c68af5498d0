"""ZooKeeper through kazoo: the only file that imports it, and where its threads end.

Everything crosses to the event loop in the one order it came: replies, watch events and changes of the connection.
kazoo has two queues and threads for them, and a snapshot put together from both lacked changes at or below its
revision in 55 of 842 tries; in one order in none.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from queue import Queue
from select import POLLIN, POLLOUT, POLLPRI, poll
from typing import Any, TypeVar

from kazoo import exceptions as kz
from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.serialization import GetChildren
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL, make_acl

from fairlead_daemon.errors import BadSettings, Conflict, Refused, Unavailable
from fairlead_discovery.adapters import zookeeper_bulk as bulk
from fairlead_discovery.adapters.zookeeper_place import Place, credentials, secret
from fairlead_discovery.decisions.ops import Check, Drop, Make
from fairlead_discovery.decisions.sessions import Event, forgets_seen
from fairlead_discovery.registry import ANY, SESSION_S

T = TypeVar("T")
ASK_S = 6.0
PATIENCE = 4
Watch = Callable[[], None]
"""Called on the event loop, once, after the next change (or when the connection is lost: then all are dropped)."""
_HINT = ", are the credentials (zk://…?auth=FILE) those it was made with?"
_UNKNOWN = (
    kz.ConnectionLoss,
    kz.SessionExpiredError,
    kz.ConnectionClosedError,
    kz.OperationTimeoutError,
    kz.SessionMovedError,
)
_ANSWERS = (kz.NoNodeError, kz.NodeExistsError, kz.NotEmptyError, kz.BadVersionError, kz.UnimplementedError)
"""Told by the server, and understood by who asked."""
_COLLATERAL = (kz.RolledBackError, kz.RuntimeInconsistency)
"""What the other operations of a refused transaction report."""
_OVER = {KeeperState.AUTH_FAILED: Event.REFUSED, KeeperState.CLOSED: Event.ENDED}
"""Closed, but not by us (then nobody listens): an answer that kazoo cannot read, as an error it does not know, ends its
thread for good.
"""


class _AtOnce(Queue):  # type: ignore[type-arg]  # of whatever kazoo puts there
    """Calls what is put in on the spot; what is no call (kazoo's word to stop) goes to the worker."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if callable(item):
            item()
        else:
            super().put(item, block, timeout)


class OneQueueHandler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo is untyped
    """Watch events the way of replies, in the order in which they came: all are called in kazoo's connection thread,
    which is safe because ours only hand over to the event loop, and saves each reply the way through another thread.
    """

    queue_impl = _AtOnce

    def __init__(self, calling: Callable[[], None]) -> None:
        """`calling` is called before each connection, in kazoo's thread, just before it says what it has seen."""
        super().__init__()
        self._calling = calling

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        self._calling()
        return super().create_connection(*args, **kwargs)

    def select(
        self, readers: Sequence[Any], writers: Sequence[Any], _errors: Sequence[Any], timeout_s: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """As kazoo's, which makes an epoll for each of the four times a request asks."""
        poller = poll()
        for reader in readers:
            poller.register(reader, POLLIN | POLLPRI)
        for writer in writers:
            poller.register(writer, POLLOUT)
        ready = {handle for handle, _ in poller.poll(None if timeout_s is None else ceil(1000 * timeout_s))}
        return [r for r in readers if r.fileno() in ready], [w for w in writers if w.fileno() in ready], []


class _Children(GetChildren):  # type: ignore[misc]  # kazoo is untyped
    """kazoo's, with an answer of 10,000 names read in 1 ms, not in 8."""

    @classmethod
    def deserialize(cls, data: bytes, offset: int) -> list[str]:
        return bulk.names(data, offset)


@dataclass(frozen=True, slots=True)
class Link:
    """The connection changed: it is up with `session`, or `event` says what became of it."""

    session: str = ""
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Znode:
    data: bytes
    version: int
    children: int
    owner: str
    changed_s: float = 0.0
    """Unix time, by ZooKeeper's clock."""


@dataclass(frozen=True, slots=True)
class Insert:
    """A plain create: what a Set becomes where there is no node yet."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Replace:
    """A plain set: what a Set becomes where there is a node."""

    path: str
    data: bytes
    version: int = ANY


Step = Make | Insert | Replace | Drop | Check


class Closed(Refused):
    """The node's ACL does not let us read it."""


class StepRefused(Conflict):
    """One step of a transaction could not be done, so nothing was. `missing`: for want of a node (or a parent)."""

    def __init__(self, message: str, *, index: int, missing: bool = False, exists: bool = False) -> None:
        super().__init__(message)
        self.index = index
        self.missing = missing
        self.exists = exists


class Client:
    """One ZooKeeper session after another. `on_link` is called on the event loop, in order with all the rest.

    Raises Unavailable when there is no answer (a write's outcome is then unknown).
    """

    def __init__(self, place: Place, on_link: Callable[[Link], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._reads_many = True
        """Until a server says that it cannot."""
        self.answers, self.answers_s = 0, 0.0
        """So many came, and what they took in all: without what our own event loop is busy with meanwhile."""
        self._place = place
        self._on_link = on_link
        self._begin()

    def _begin(self) -> None:
        self._broken_s: float | None = None
        self._handler = OneQueueHandler(self._calling)
        retry = KazooRetry(max_tries=-1, delay=0.05, backoff=2, max_jitter=0.3, max_delay=1.0)
        try:
            self._kazoo = KazooClient(
                hosts=_repeated(self._place.hosts),
                timeout=SESSION_S,
                handler=self._handler,
                connection_retry=retry,
                logger=_quiet_log(),
                **_access(self._place),
            )
        except ValueError as error:
            raise BadSettings(f"registry: {self._place.name}: {error}") from error
        self._kazoo.add_listener(self._listen)
        self._kazoo.start_async()

    async def get(self, path: str, watch: Watch | None = None) -> Znode | None:
        """None when there is no such node; then there is no watch either. Raises Closed."""
        try:
            data, stat = await self._call(self._kazoo.get_async, path, self._watcher(watch))
        except kz.NoNodeError:
            return None
        return _znode(data, stat)

    async def get_many(self, paths: Sequence[str]) -> Sequence[bytes | Closed | None]:
        """Data of nodes that never change, in one request; None for no such node, Closed for one we may not read."""
        if self._reads_many:
            try:
                return _found(paths, await self._call(self._ask_many, bulk.ReadMany(tuple(paths))))
            except kz.UnimplementedError:  # before ZooKeeper 3.6; it closes the connection, the session goes on
                self._reads_many = False
                raise Unavailable("zookeeper: it reads nodes one by one only") from None
        return await asyncio.gather(*map(self._get_data, paths))

    async def _get_data(self, path: str) -> bytes | Closed | None:
        try:
            node = await self.get(path)
        except Closed as closed:
            return closed
        return None if node is None else node.data

    def _ask_many(self, request: bulk.ReadMany) -> Any:
        asked = self._handler.async_result()
        self._kazoo._call(request, asked)  # noqa: SLF001  # kazoo has no other way for a request it does not know
        return asked

    async def stat(self, path: str, watch: Watch | None = None) -> Znode | None:
        """Without the data. The watch is set in any case: it is called when the node comes."""
        stat = await self._call(self._kazoo.exists_async, path, self._watcher(watch))
        return None if stat is None else _znode(b"", stat)

    async def children(self, path: str, watch: Watch | None = None) -> tuple[str, ...] | None:
        """In no order. None when there is no such node; then there is no watch either. Raises Closed."""
        try:
            names: Sequence[str] = await self._call(self._ask_children, path, self._watcher(watch))
        except kz.NoNodeError:
            return None
        return tuple(names)

    def _ask_children(self, path: str, watcher: Callable[[Any], None] | None) -> Any:
        asked = self._handler.async_result()
        self._kazoo._call(_Children(path, watcher), asked)  # noqa: SLF001  # see _ask_many
        return asked

    async def create(self, path: str, data: bytes = b"") -> bool:
        """False when it is there already, or its parent is not."""
        try:
            await self._call(self._kazoo.create_async, path, data)
        except (kz.NodeExistsError, kz.NoNodeError):
            return False
        return True

    async def delete(self, path: str) -> bool:
        """False when it is not there, or has children."""
        try:
            await self._call(self._kazoo.delete_async, path)
        except (kz.NotEmptyError, kz.NoNodeError):
            return False
        return True

    async def transact(self, steps: Sequence[Step]) -> list[int | str]:
        """Versions and made paths, one for each step. Raises StepRefused: nothing was done."""
        transaction = self._kazoo.transaction()
        for step in steps:
            _add(transaction, step)
        results = await self._call(transaction.commit_async)
        for index, result in enumerate(results):
            if isinstance(result, Exception) and not isinstance(result, _COLLATERAL):
                raise _refused(steps[index], index, result)
        if any(isinstance(r, Exception) for r in results):
            raise Unavailable(f"zookeeper transaction: {results!r}")
        return [r if isinstance(s, Make) else getattr(r, "version", 0) for s, r in zip(steps, results, strict=True)]

    async def begin_again(self) -> None:
        """Another kazoo client in the place of one that has given up."""
        await self.close()
        self._begin()

    async def close(self) -> None:
        """Ends the session and its threads."""
        self._kazoo.remove_listener(self._listen)
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        try:
            self._kazoo.stop()
        finally:
            self._kazoo.close()

    async def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        name = str(args[0]) if args else "transaction"
        try:
            method(*args).rawlink(partial(self._arrived, future, time.monotonic()))
            return await answered(future)
        except (*_UNKNOWN, TimeoutError) as error:
            raise Unavailable(f"zookeeper {name}: {type(error).__name__}, the outcome is unknown") from error
        except kz.NoAuthError as error:
            raise _closed(name) from error
        except (kz.AuthFailedError, kz.InvalidACLError, kz.NoChildrenForEphemeralsError) as error:
            raise Refused(f"zookeeper {name}: {type(error).__name__}{_HINT}") from error
        except _ANSWERS:
            raise
        except kz.KazooException as error:  # of a server in trouble: who asked tries again, and must not end by it
            raise Unavailable(f"zookeeper {name}: {type(error).__name__}") from error

    def _settle(self, future: "asyncio.Future[Any]", took_s: float, result: Any) -> None:
        self.answers += 1
        self.answers_s += took_s
        _resolve(future, result)

    # --- from kazoo's threads

    def _arrived(self, future: "asyncio.Future[Any]", asked_s: float, result: Any) -> None:
        self._cross(self._settle, future, time.monotonic() - asked_s, result)

    def _cross(self, function: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *args)

    def _watcher(self, watch: Watch | None) -> Callable[[Any], None] | None:
        return None if watch is None else partial(self._watched, watch)

    def _watched(self, watch: Watch, _event: Any) -> None:
        self._cross(watch)

    def _calling(self) -> None:
        if self._broken_s is not None and forgets_seen(time.monotonic() - self._broken_s):
            self._kazoo.last_zxid = 0

    def _listen(self, state: str) -> None:
        self._broken_s = time.monotonic() if state == KazooState.SUSPENDED else None
        link = self._link(state)
        self._handler.completion_queue.put(lambda: self._cross(self._on_link, link))

    def _link(self, state: str) -> Link:
        identity = self._kazoo.client_id if state == KazooState.CONNECTED else None
        if identity is not None:
            return Link(session=_session(identity[0]))
        if state == KazooState.LOST:
            return Link(event=_OVER.get(self._kazoo.client_state, Event.EXPIRED))
        return Link(event=Event.SUSPENDED)


def _access(place: Place) -> dict[str, Any]:
    """Who we are, whom we let read what we make, and how the connection is kept from others' eyes.

    The ACL scheme "auth" is turned into our identity by the server: no digest is computed or shown here.
    """
    options: dict[str, Any] = {}
    if place.auth:
        options["auth_data"] = [("digest", credentials(place.auth))]
        world = [make_acl("world", "anyone", read=True)] if place.readers == "world" else []
        options["default_acl"] = [*CREATOR_ALL_ACL, *world]
    if place.tls:
        _check_tls(place)
        options |= {"use_ssl": True, "ca": place.tls, "verify_certs": True, "check_hostname": True}
    if place.cert:
        options |= {"certfile": place.cert, "keyfile": place.key}
    return options


def _check_tls(place: Place) -> None:
    """Kazoo would find out in its thread, again and again. Raises BadSettings."""
    names = " ".join(filter(None, (place.tls, place.cert, place.key)))
    try:
        context = ssl.create_default_context(cafile=place.tls)
        if place.cert:
            secret(place.key)
            context.load_cert_chain(place.cert, place.key)
    except OSError as error:  # also what is no certificate
        raise BadSettings(f"registry: {place.name}: {names}: {error}") from error


def _quiet_log() -> logging.Logger:
    """Only what ends it: kazoo writes a line for every try, and at DEBUG every request with its password.

    What has become of a connection is told by those who use it, once a change.
    """
    log = logging.getLogger("kazoo.client")
    log.setLevel(logging.CRITICAL)
    return log


def _repeated(hosts: str) -> str:
    """Each host so often that there are PATIENCE at least.

    kazoo waits the session's time divided by the number of hosts for the answer to a connect. A server that is just
    starting may take a connection and never answer it: with one host that cost the whole 10 s, and the session.
    """
    names = hosts.split(",")
    return ",".join(names * -(-PATIENCE // len(names)))


def _resolve(future: "asyncio.Future[Any]", result: Any) -> None:
    if future.done():
        return
    if result.exception is not None:
        future.set_exception(result.exception)
    else:
        future.set_result(result.value)


async def answered(future: "asyncio.Future[T]") -> T:
    """Raises TimeoutError after ASK_S. When our own loop was busy for so long, the answer that came meanwhile counts."""
    try:
        async with asyncio.timeout(ASK_S):
            return await future
    except TimeoutError:
        if future.done() and not future.cancelled():
            return future.result()
        raise


def _found(paths: Sequence[str], answers: Sequence[bytes | int | None]) -> Sequence[bytes | Closed | None]:
    """Raises Refused naming the first node with an error that is not its ACL's."""
    return [
        _error(path, answer) if isinstance(answer, int) else answer for path, answer in zip(paths, answers, strict=True)
    ]


def _error(path: str, number: int) -> Closed:
    error = kz.EXCEPTIONS.get(number)
    if error is kz.NoAuthError:
        return _closed(path)
    raise Refused(f"zookeeper {path}: {getattr(error, '__name__', number)}{_HINT}")


def _closed(path: str) -> Closed:
    return Closed(f"zookeeper {path}: NoAuthError, its ACL does not let us{_HINT}")


def _session(number: int) -> str:
    return f"{number & 0xFFFFFFFFFFFFFFFF:x}" if number else ""


def _znode(data: bytes | None, stat: Any) -> Znode:
    return Znode(data or b"", stat.version, stat.numChildren, _session(stat.ephemeralOwner), stat.mtime / 1000)


def _add(transaction: Any, step: Step) -> None:
    match step:
        case Make(path=path, data=data, sequential=sequential):
            transaction.create(path, data, ephemeral=True, sequence=sequential)
        case Insert(path, data):
            transaction.create(path, data)
        case Replace(path, data, version):
            transaction.set_data(path, data, version)
        case Drop(path=path, expect=version):
            transaction.delete(path, version)
        case Check(path=path, version=version):
            transaction.check(path, version)


_WORDS: Mapping[type[Exception], str] = {
    kz.NoNodeError: "no such node",
    kz.NodeExistsError: "exists already",
    kz.BadVersionError: "has another version",
    kz.NotEmptyError: "other nodes lie below it",
}


def _refused(step: Step, index: int, error: Exception) -> Exception:
    if isinstance(error, (kz.NoAuthError, kz.NoChildrenForEphemeralsError, kz.InvalidACLError)):
        return Refused(f"zookeeper {step.path}: {type(error).__name__}{_HINT}")
    words = _WORDS.get(type(error), type(error).__name__)
    missing, exists = isinstance(error, kz.NoNodeError), isinstance(error, kz.NodeExistsError)
    return StepRefused(f"{step.path}: {words}", index=index, missing=missing, exists=exists)

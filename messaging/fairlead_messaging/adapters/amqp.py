"""pika, and the only file that knows it: connections and channels as things one awaits.

pika's callbacks come on the event loop. A connection or channel that ended has its `closed` future set with a Closed.
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import (
    AMQPChannelError,
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from fairlead_daemon.errors import BadSettings, FairleadError, Refused, Unavailable
from fairlead_messaging.decisions.messages import (
    Declaration,
    DeclareBinding,
    DeclareExchange,
    DeclareQueue,
    Message,
)

T = TypeVar("T")
logging.getLogger("pika").setLevel(logging.CRITICAL)  # what it would say is raised here, in one line
WAIT_S = 10.0
HEARTBEAT_S = 20
GATHERED_BYTES = 64 * 1024
PERSISTENT, TRANSIENT = 2, 1
SOFT_ERRORS = frozenset({311, 312, 313, 403, 404, 405, 406})
"""Reply codes by which a broker closes a channel over what was asked on it."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Why something ended. `ours`: it was asked for. `over`: the broker's reply code for what was asked, else 0."""

    why: str
    ours: bool = False
    over: int = 0


def check_url(url: str) -> str:
    """Raises BadSettings; the password is not repeated."""
    parts = urlsplit(url)
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
        raise BadSettings(f"{shown(url)}: expected amqp://user:password@host:port/vhost")
    return url


def shown(url: str) -> str:
    """Without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if rest else url.rpartition("@")[2]


class _Gathering(AsyncioConnection):  # type: ignore[misc]  # pika is untyped
    """Publishes of one turn of the event loop leave in few writes. pika alone makes three system calls a message.

    `_output_marshaled_frames` is pika's own: were it called otherwise one day, all would be as without us.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        super().__init__(*arguments, **named)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        size_bytes = sum(map(len, marshaled_frames))
        self.bytes_sent += size_bytes
        self.frames_sent += len(marshaled_frames)
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._write_gathered)
        self._gathered += marshaled_frames
        self._gathered_bytes += size_bytes
        if len(marshaled_frames) == 1 or self._gathered_bytes >= GATHERED_BYTES:  # one frame is no publish: at once
            self._write_gathered()

    def _write_gathered(self) -> None:
        if self._gathered and not self.is_closed:
            data = b"".join(self._gathered)
            self._gathered, self._gathered_bytes = [], 0
            self._adapter_emit_data(data)


class Connection:
    """An open connection."""

    def __init__(self, raw: Any, name: str) -> None:
        self._raw = raw
        self.name = name
        self.closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self.blocked = ""
        """Why the broker takes no publishes now ("low on disk"); "" when it does."""
        self.on_blocked: Callable[[], None] = lambda: None

    @staticmethod
    async def open(url: str, client: str) -> "Connection":
        """Raises Unavailable (not reached, no answer) or Refused (login, virtual host)."""
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        connection: list[Connection] = []

        def failed(_raw: Any, error: BaseException) -> None:
            if not opened.done():
                opened.set_exception(_translated(error, shown(url)))

        def closed(_raw: Any, error: BaseException) -> None:
            failed(_raw, error)
            for one in connection:
                one._ended(error)  # noqa: SLF001  # its own class

        raw = _Gathering(
            _parameters(url, client),
            on_open_callback=lambda raw: _set(opened, raw),
            on_open_error_callback=failed,
            on_close_callback=closed,
        )
        try:
            async with asyncio.timeout(WAIT_S):
                await opened
        except BaseException as error:
            _abandon(raw)
            if isinstance(error, TimeoutError):
                raise Unavailable(f"{shown(url)}: no answer within {WAIT_S:.0f} s") from error
            raise
        connection.append(Connection(raw, shown(url)))
        connection[0]._listen()  # noqa: SLF001  # its own class
        return connection[0]

    def _listen(self) -> None:
        self._raw.add_on_connection_blocked_callback(lambda _c, frame: self._set_blocked(str(frame.method.reason)))
        self._raw.add_on_connection_unblocked_callback(lambda _c, _frame: self._set_blocked(""))
        if self._raw.is_closed:
            self._ended(None)

    def _set_blocked(self, why: str) -> None:
        self.blocked = why
        self.on_blocked()

    def _ended(self, error: BaseException | None) -> None:
        _set(self.closed, _reason(error))

    async def channel(self) -> "Channel":
        """Raises Unavailable when the connection ends meanwhile."""
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        raw = _guarded(self.name, lambda: self._raw.channel(on_open_callback=lambda c: _set(opened, c)))
        channel = Channel(raw, self)
        await channel.wait(opened)
        return channel

    async def close(self) -> None:
        """In order, within a second; never raises."""
        if self._raw.is_open:
            _quietly(self._raw.close)
        try:
            async with asyncio.timeout(1):
                await asyncio.shield(self.closed)
        except TimeoutError:
            _abandon(self._raw)


class Channel:
    """An open channel. Its methods raise Refused for the broker's no, Unavailable when it ends meanwhile."""

    def __init__(self, raw: Any, connection: Connection) -> None:
        self._raw = raw
        self.connection = connection
        self.closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        raw.add_on_close_callback(lambda _c, error: _set(self.closed, _reason(error)))

    @property
    def is_open(self) -> bool:
        return bool(self._raw.is_open)

    async def wait(self, answer: "asyncio.Future[Any]") -> Any:
        """The answer, unless the channel or its connection ends before it comes."""
        ends = (self.closed, self.connection.closed)
        done, _ = await asyncio.wait((answer, *ends), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if answer in done:
            return answer.result()
        for end in ends:
            if end in done:
                raise _as_error(end.result(), self.connection.name)
        raise Unavailable(f"{self.connection.name}: no answer within {WAIT_S:.0f} s")

    async def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        given = {**named, "callback": lambda frame: _set(answer, frame)}
        _guarded(self.connection.name, lambda: method(*arguments, **given))
        return await self.wait(answer)

    async def declare(self, wish: Declaration) -> None:
        match wish:
            case DeclareExchange():
                arguments = dict(wish.arguments)
                await self._call(
                    self._raw.exchange_declare, wish.name, wish.type, durable=wish.durable, arguments=arguments
                )
            case DeclareQueue():
                kind = {} if wish.type == "classic" else {"x-queue-type": wish.type}
                arguments = {**wish.arguments, **kind}
                await self._call(self._raw.queue_declare, wish.name, durable=wish.durable, arguments=arguments)
            case DeclareBinding():
                await self._call(
                    self._raw.queue_bind, wish.queue, wish.exchange, wish.routing_key, arguments=dict(wish.arguments)
                )

    # --- publishing

    async def confirm(self, settled: Callable[[int, bool, bool], None], returned: Callable[[str, str], None]) -> None:
        """From here on `settled(tag, multiple, accepted)` for what is published, and `returned(message_id, why)` before
        it for mandatory messages that no queue takes.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def acked(frame: Any) -> None:
            method = frame.method
            settled(method.delivery_tag, method.multiple, method.NAME == "Basic.Ack")

        self._raw.add_on_return_callback(lambda _c, m, p, _b: returned(p.message_id or "", str(m.reply_text)))
        self._raw.confirm_delivery(acked, callback=lambda frame: _set(answer, frame))
        await self.wait(answer)

    def publish(self, message: Message, message_id: str) -> None:
        """Hands it to the connection. Raises Unavailable when that has ended, Refused when AMQP has no form for it;
        nothing was sent then.
        """
        properties = pika.BasicProperties(
            message_id=message_id,
            delivery_mode=PERSISTENT if message.persistent else TRANSIENT,
            **_properties(message),
        )
        try:
            self._raw.basic_publish(message.exchange, message.routing_key, message.body, properties, message.mandatory)
        except (AMQPConnectionError, AMQPChannelError) as error:
            raise Unavailable(f"{self.connection.name}: {error!r}") from error
        except (AMQPError, TypeError, ValueError, AssertionError, struct.error) as error:
            raise Refused(f"cannot be encoded: {error!r}") from error

    # --- consuming

    async def consume(
        self, queue: str, prefetch: int, delivered: Callable[[Any, Any, bytes], None], cancelled: Callable[[], None]
    ) -> str:
        """The consumer's tag. `delivered(method, properties, body)` for each message; `cancelled` by the broker."""
        await self._call(self._raw.basic_qos, prefetch_count=prefetch)
        self._raw.add_on_cancel_callback(lambda _frame: cancelled())
        frame = await self._call(
            self._raw.basic_consume, queue, lambda _c, method, properties, body: delivered(method, properties, body)
        )
        return str(frame.method.consumer_tag)

    async def cancel(self, tag: str) -> None:
        await self._call(self._raw.basic_cancel, tag)

    def ack(self, tag: int, *, multiple: bool) -> None:
        _quietly(lambda: self._raw.basic_ack(tag, multiple))

    def reject(self, tag: int, *, requeue: bool) -> None:
        _quietly(lambda: self._raw.basic_reject(tag, requeue))

    async def close(self) -> None:
        """Never raises."""
        if self._raw.is_open:
            _quietly(self._raw.close)
            await asyncio.wait((self.closed, self.connection.closed), timeout=1, return_when=asyncio.FIRST_COMPLETED)


def _properties(message: Message) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if message.headers:
        given["headers"] = dict(message.headers)
    for key in ("content_type", "correlation_id", "reply_to", "type"):
        if value := getattr(message, key):
            given[key] = value
    if message.expires_s is not None:
        given["expiration"] = str(round(message.expires_s * 1000))
    if message.priority is not None:
        given["priority"] = message.priority
    if message.timestamp_s is not None:
        given["timestamp"] = message.timestamp_s
    return given


@lru_cache(maxsize=64)
def _parameters(url: str, client: str) -> pika.URLParameters:
    parameters = pika.URLParameters(check_url(url))
    parameters.heartbeat = HEARTBEAT_S
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = WAIT_S
    parameters.client_properties = {"connection_name": client, "product": "fairlead"}
    return parameters


def _set(future: "asyncio.Future[T]", value: T) -> None:
    """The first word counts."""
    if not future.done():
        future.set_result(value)


def _guarded(name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except AMQPError as error:
        raise Unavailable(f"{name}: {error!r}") from error


def _quietly(call: Callable[[], object]) -> None:
    """What is said to a connection that has ended meanwhile is said to nobody; the broker does as if it were not."""
    with suppress(AMQPError):
        call()


def _abandon(raw: Any) -> None:
    """Closes its socket at once: nobody waits for it any more."""
    if raw.is_closed:
        return
    if raw.is_open or raw.is_closing:
        _quietly(lambda: raw._terminate_stream(AMQPError("abandoned")))  # noqa: SLF001  # pika has no public way
    else:
        _quietly(raw.close)


def _reason(error: BaseException | None) -> Closed:
    if isinstance(error, ChannelClosedByBroker):
        return Closed(str(error.reply_text), over=int(error.reply_code))
    if isinstance(error, ConnectionClosedByBroker):
        return Closed(str(error.reply_text) or "the broker closed the connection")
    code = getattr(error, "reply_code", None)
    return Closed(str(getattr(error, "reply_text", "") or error or "closed"), ours=code in {200, 0})


def _as_error(closed: Closed, name: str) -> FairleadError:
    return Refused(f"{name}: {closed.why}") if closed.over in SOFT_ERRORS else Unavailable(f"{name}: {closed.why}")


def _translated(error: BaseException, name: str) -> FairleadError:
    """Of an opening that failed: pika wraps the cause, at times several."""
    for cause in _causes(error):
        if isinstance(cause, ProbableAuthenticationError | AuthenticationError):
            return Refused(f"{name}: user or password is wrong")
        if isinstance(cause, ProbableAccessDeniedError):
            return Refused(f"{name}: no such virtual host, or no permission for it")
        if isinstance(cause, ConnectionClosedByBroker):
            return Refused(f"{name}: {cause.reply_text}")
        if isinstance(cause, OSError) and cause.strerror:
            return Unavailable(f"{name}: {cause.strerror.lower()}")
    return Unavailable(f"{name}: {error!r}")


def _causes(error: BaseException) -> list[BaseException]:
    found, queue = [], [error]
    while queue:
        one = queue.pop(0)
        found.append(one)
        queue += [e for e in (*getattr(one, "exceptions", ()), getattr(one, "exception", None), one.__cause__) if e]
        queue += [e for e in one.args if isinstance(e, BaseException)]
    return found

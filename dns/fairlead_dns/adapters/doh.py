"""DNS over HTTPS: HTTP/2 through h2, HTTP/1.1 through aiohttp, whichever the client's TLS hello asks for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from fairlead_daemon.connections import Forgiving, Nonsense
from fairlead_dns.adapters.tcp import REPLIES_BYTES, TcpServer
from fairlead_dns.decisions import doh
from fairlead_dns.decisions.asked import Came
from fairlead_dns.decisions.front import Relayed, Stream, Waiting
from fairlead_dns.decisions.wire import reply_code

STREAMS = 64
RESETS = 1000  # a client that takes back so many of its questions is closed (the rapid reset attack)
SETTINGS: dict[h2.settings.SettingCodes, int] = {
    h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65535,  # what clients count on before they have read this
    h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 16384,
    h2.settings.SettingCodes.ENABLE_PUSH: 0,
    h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 0,
}
ALLOWED = "GET, POST"
TOLD_EVERY_S = 60.0
SERVER = "fairlead"  # not the versions of what it is made of
Answered = Callable[[bytes | None], None]


@dataclass(slots=True, eq=False)
class DohServer:
    """All HTTPS connections; they count among those of `tcp`, under its limits."""

    tcp: TcpServer
    path: str
    nonsense: Nonsense = field(default_factory=lambda: Nonsense(TOLD_EVERY_S))
    """One for all connections, so that nobody fills the log by opening many."""
    _http1: web.Server = field(init=False)
    came: dict[asyncio.BaseTransport, "HttpsConnection"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._http1 = web.Server(self._one)

    def http1(self) -> Forgiving:
        return Forgiving(self._http1, self.nonsense, idle_s=self.tcp.limits.idle_s)

    def protocol(self, came: Came) -> "HttpsConnection":
        return HttpsConnection(self, came)

    def ask(self, packet: bytes, came: Came, answered: Answered) -> asyncio.Future[bytes | None] | None:
        """`answered` is called at once or, when a future is returned, later, unless that is cancelled."""
        reply = self.tcp.front.reply(packet, came)
        if isinstance(reply, Waiting):
            return self.tcp.waiters.add(reply, answered)
        assert not isinstance(reply, Stream | Relayed)  # the front refuses here what would need one
        answered(reply)
        return None

    def count(self, connection: "HttpsConnection", reply: bytes | None) -> None:
        if reply is None:
            self.tcp.counts.silences += 1
            return
        self.tcp.used(connection)
        self.tcp.counts.replies[connection.came.transport][reply_code(reply)] += 1

    async def _one(self, request: web.BaseRequest) -> web.Response:
        """HTTP/1.1: one question at a time."""
        assert request.transport is not None
        connection = self.came[request.transport]
        if (request.content_length or 0) > doh.QUERY_BYTES:
            return _refused(doh.TOO_LONG)
        try:
            body = await _body(request) if request.method == "POST" else b""
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
            self.nonsense.came(request.remote, "a body that is not what its head says")
            return _refused(NO_BODY)
        packet = doh.query(self.path, request.method, request.raw_path, request.headers.get("Content-Type", ""), body)
        if isinstance(packet, doh.Refusal):
            return _refused(packet)
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        waiting = self.ask(packet, connection.came, lambda reply: None if future.done() else future.set_result(reply))
        try:
            reply = await future
        finally:
            if waiting is not None:
                waiting.cancel()
        self.count(connection, reply)
        if reply is None:
            return _refused(NO_QUERY)
        headers = {"Cache-Control": _cached(reply), "Server": SERVER}
        return web.Response(body=reply, content_type=doh.MEDIA, headers=headers)


NO_QUERY = doh.Refusal(400, "this is no DNS query\n")
NO_BODY = doh.Refusal(400, "the body is not what the head says\n")


async def _body(request: web.BaseRequest) -> bytes:
    """Cut where it is longer than a query may be. Raises what aiohttp does for a body that is none."""
    body = await request.content.read(doh.QUERY_BYTES + 1)
    while 0 < len(body) <= doh.QUERY_BYTES and (more := await request.content.read(doh.QUERY_BYTES + 1)):
        body += more
    return body


def _refused(refusal: doh.Refusal) -> web.Response:
    response = web.Response(status=refusal.status, text=refusal.text)
    if refusal.status == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ALLOWED
    response.headers["Server"] = SERVER
    response.force_close()  # what else the client sends is not read
    return response


def _cached(reply: bytes) -> str:
    return f"max-age={doh.max_age_s(reply)}"


class HttpsConnection(asyncio.Protocol):
    """One client; hands all to the HTTP version that TLS has agreed on."""

    transport: asyncio.Transport
    inner: "asyncio.Protocol"

    def __init__(self, server: DohServer, came: Came) -> None:
        self._server = server
        self.came = came

    @property
    def client(self) -> str:
        return self.came.client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=REPLIES_BYTES)
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        self.inner = Http2(self._server, self) if chosen == "h2" else self._server.http1()
        self._server.came[transport] = self
        self._server.tcp.admit(self)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        self.inner.eof_received()
        return None  # TLS has no half-closed connections

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.came.pop(self.transport, None)
        self._server.tcp.forget(self)
        self.inner.connection_lost(exc)

    def abort(self) -> None:
        self._server.tcp.forget(self)
        self.transport.abort()

    def finish(self) -> None:
        self._server.tcp.forget(self)
        self.transport.close()


@dataclass(slots=True)
class _Request:
    method: str = ""
    target: str = ""
    media: str = ""
    body: bytes = b""


class Http2(asyncio.Protocol):
    """Streams are answered as their replies come. What a client does not take is bounded: then its questions are refused."""

    transport: asyncio.Transport

    def __init__(self, server: DohServer, connection: HttpsConnection) -> None:
        self._server = server
        self._connection = connection
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self._requests: dict[int, _Request] = {}
        self._waiting: dict[int, asyncio.Future[bytes | None]] = {}
        self._unsent: dict[int, bytes] = {}
        self._resets = 0
        self._frames = doh.Frames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._h2.local_settings = h2.settings.Settings(client=False, initial_values=SETTINGS)
        self._h2.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        for future in tuple(self._waiting.values()):
            future.cancel()

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._frames.too_long(data):
            self._h2.close_connection(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
            self._flush()
            self.transport.close()
            return
        try:
            for event in self._h2.receive_data(data):
                self._happened(event)
        except h2.exceptions.ProtocolError:
            self._flush()
            self.transport.close()
        else:
            self._flush()

    def _happened(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(number), headers=headers):
                self._begun(number, dict(headers or ()))
            case h2.events.DataReceived(stream_id=int(number), data=bytes(data)):
                self._more(number, data, event.flow_controlled_length or 0)
            case h2.events.StreamReset(stream_id=int(number)):
                self._taken_back(number)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._send_on()
            case h2.events.ConnectionTerminated():
                self.transport.close()
            case _:
                pass
        if isinstance(event, h2.events.StreamEnded) and event.stream_id in self._requests:
            self._ask(event.stream_id, self._requests.pop(event.stream_id))

    def _begun(self, number: int, headers: dict[str | bytes, str | bytes]) -> None:
        found = {str(name): str(value) for name, value in headers.items()}
        if sum(map(len, self._unsent.values())) > REPLIES_BYTES:
            self._h2.reset_stream(number, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        self._requests[number] = _Request(
            found.get(":method", ""), found.get(":path", ""), found.get("content-type", "")
        )

    def _more(self, number: int, data: bytes, size: int) -> None:
        self._h2.acknowledge_received_data(size, number)
        request = self._requests.get(number)
        if request is not None:
            request.body = (request.body + data)[: doh.QUERY_BYTES + 1]
            if len(request.body) > doh.QUERY_BYTES:
                self._cut_short(number)

    def _cut_short(self, number: int) -> None:
        """Answered before it has all come; the rest of it is not wanted (RFC 9113, 8.1), other streams go on."""
        del self._requests[number]
        self._respond(number, doh.TOO_LONG.status, "text/plain", doh.TOO_LONG.text.encode(), "no-store")
        self._unsent.pop(number, None)
        with suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(number, h2.errors.ErrorCodes.NO_ERROR)

    def _taken_back(self, number: int) -> None:
        self._requests.pop(number, None)
        self._unsent.pop(number, None)
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.cancel()
        self._resets += 1
        if self._resets > RESETS:
            self._h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self.transport.close()

    def _ask(self, number: int, request: _Request) -> None:
        packet = doh.query(self._server.path, request.method, request.target, request.media, request.body)
        if isinstance(packet, doh.Refusal):
            self._respond(number, packet.status, "text/plain", packet.text.encode(), "no-store")
            return
        waiting = self._server.ask(packet, self._connection.came, lambda reply: self._answered(number, reply))
        if waiting is not None:
            self._waiting[number] = waiting

    def _answered(self, number: int, reply: bytes | None) -> None:
        late = self._waiting.pop(number, None) is not None
        if self.transport.is_closing():
            return
        self._server.count(self._connection, reply)
        if reply is None:
            self._respond(number, NO_QUERY.status, "text/plain", NO_QUERY.text.encode(), "no-store")
        else:
            self._respond(number, 200, doh.MEDIA, reply, _cached(reply))
        if late:
            self._flush()

    def _respond(self, number: int, status: int, media: str, body: bytes, caching: str) -> None:
        headers = [
            (":status", str(status)),
            ("content-type", media),
            ("content-length", str(len(body))),
            ("cache-control", caching),
        ]
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("allow", ALLOWED))
        with suppress(h2.exceptions.ProtocolError):  # the client took the stream back in the same breath
            self._h2.send_headers(number, headers)
            self._unsent[number] = body
            self._send_on()

    def _send_on(self) -> None:
        """As much of what waits as the client's windows take."""
        for number, body in tuple(self._unsent.items()):
            try:
                self._unsent[number] = self._send(number, body)
            except h2.exceptions.ProtocolError:
                self._unsent[number] = b""
            if not self._unsent[number]:
                del self._unsent[number]

    def _send(self, number: int, body: bytes) -> bytes:
        """What did not go."""
        while body:
            size = min(len(body), self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if size <= 0:
                return body
            self._h2.send_data(number, body[:size], end_stream=size == len(body))
            body = body[size:]
        return b""

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

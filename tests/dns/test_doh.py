"""DNS over HTTPS, on a real TLS socket: what HTTP/2 clients may do to it."""

import asyncio
import ssl
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from fairlead_dns.adapters import doh as adapter
from fairlead_dns.adapters import files
from fairlead_dns.adapters.doh import DohServer
from fairlead_dns.adapters.gate import Gate
from fairlead_dns.adapters.sockets import bind_streams
from fairlead_dns.adapters.tcp import Limits, TcpServer
from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions import doh, wire
from fairlead_dns.decisions.asked import Asked, Handled, Transport, error
from fairlead_dns.metrics import Counts
from harness.certificates import self_signed
from harness.names import member, names, opt, query
from harness.waiting import eventually

pytestmark = pytest.mark.needs("openssl")
WEB = "web.marathon.mesos"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"))


class Later:
    """A forwarder that answers when it is told to."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[bytes | None]] = []
        self.asked: list[Asked] = []

    def reply(self, asked: Asked) -> Handled:
        self.asked.append(asked)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def answer(self, number: int) -> None:
        self.futures[number].set_result(error(self.asked[number], wire.NOERROR))


class Client:
    """An HTTP/2 client that does what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        wanted = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=wanted)
        self.h2.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, str] = {}
        self.ended: set[int] = set()
        self.received: dict[int, int] = {}
        self.reset: set[int] = set()
        self.closed = False

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def get(self, packet: bytes) -> int:
        number = self.h2.get_next_available_stream_id()
        text = urlsafe_b64encode(packet).rstrip(b"=").decode()
        self._send(number, [(":method", "GET"), (":path", f"/dns-query?dns={text}")], b"")
        return number

    def post(self, packet: bytes, media: str = doh.MEDIA) -> int:
        number = self.h2.get_next_available_stream_id()
        self._send(number, [(":method", "POST"), (":path", "/dns-query"), ("content-type", media)], packet)
        return number

    def begin_post(self) -> int:
        number = self.h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":path", "/dns-query"), (":scheme", "https"), (":authority", "dns.test")]
        self.h2.send_headers(number, [*headers, ("content-type", doh.MEDIA)])
        self.flush()
        return number

    def _send(self, number: int, headers: list[tuple[str, str]], body: bytes) -> None:
        extra = [(":scheme", "https"), (":authority", "dns.test")]
        self.h2.send_headers(number, headers[:2] + extra + headers[2:], end_stream=not body)
        if body:
            self.h2.send_data(number, body, end_stream=True)
        self.flush()

    async def some(self) -> None:
        """What the server sends next."""
        async with asyncio.timeout(10):
            data = await self.reader.read(65536)
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    self.statuses[event.stream_id] = dict(event.headers)[":status"]
                case h2.events.DataReceived():
                    number = event.stream_id
                    self.bodies[number] = self.bodies.get(number, b"") + event.data
                    self.received[number] = self.received.get(number, 0) + event.flow_controlled_length
                case h2.events.StreamEnded():
                    self.ended.add(event.stream_id)
                case h2.events.StreamReset():
                    self.reset.add(event.stream_id)
                case h2.events.ConnectionTerminated():
                    self.closed = True
                case _:
                    pass
        self.flush()

    async def until_ended(self, *numbers: int) -> list[bytes]:
        while not self.ended.issuperset(numbers):
            assert not self.closed
            await self.some()
        return [self.bodies[number] for number in numbers]


@asynccontextmanager
async def serving(certificate: tuple[Path, Path], *, instances: int = 1) -> AsyncIterator[tuple[int, TcpServer, Later]]:
    made, later, waiters = names(*(member(n) for n in range(instances))), Later(), Waiters(most=100, patience_s=20)
    made.front.serve(b"\0", later)
    tcp = TcpServer(made.front, Counts(), Limits(connections=50, per_client=50, idle_s=30), waiters)
    context = files.tls_context(files.ALPN)
    files.certificate(*certificate, (context,)).first()
    (bound,) = bind_streams("listen_https", "127.0.0.1:0")
    place, sock = bound.place, bound.stream
    accepting = Gate(sock, Transport.DOH, DohServer(tcp, "/dns-query").protocol, context).open()
    yield place.port, tcp, later
    accepting.cancel()
    tcp.close()
    waiters.close()
    await asyncio.sleep(0)


@asynccontextmanager
async def client(port: int, *, window: int = 65535) -> AsyncIterator[Client]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    made = Client(reader, writer, window)
    made.flush()
    yield made
    writer.close()


async def test_get_and_post_give_the_same(certificate: tuple[Path, Path]) -> None:
    """Of one query the same bytes."""
    async with serving(certificate) as (port, tcp, _), client(port) as asking:
        packet = query(WEB, number=0, opt=opt())
        one, two = await asking.until_ended(asking.get(packet), asking.post(packet))

        assert one == two
        assert 2 == tcp.counts.replies[Transport.DOH][0]


async def test_replies_overtake_each_other(certificate: tuple[Path, Path]) -> None:
    """What waits for another server holds nothing up, and comes when it comes."""
    async with serving(certificate) as (port, _, later), client(port) as asking:
        slow, other = asking.get(query("slow.org")), asking.get(query("other.org"))
        quick = asking.get(query(WEB))
        await asking.until_ended(quick)
        assert set() == asking.ended & {slow, other}
        later.answer(1)
        await asking.until_ended(other)
        later.answer(0)

        assert b"\x04slow\x03org" in (await asking.until_ended(slow))[0]


async def test_a_small_window_gets_it_in_pieces(certificate: tuple[Path, Path]) -> None:
    """No byte more than the client allows; the rest when it allows more."""
    async with serving(certificate, instances=200) as (port, _, _), client(port, window=500) as asking:
        number = asking.get(query(WEB))
        while asking.received.get(number, 0) < 500:
            await asking.some()
        assert (500, False) == (asking.received[number], number in asking.ended)
        asking.h2.increment_flow_control_window(10_000, number)
        asking.flush()

        assert 200 == int.from_bytes((await asking.until_ended(number))[0][6:8], "big")


async def test_a_client_that_takes_nothing_is_refused_more(certificate: tuple[Path, Path]) -> None:
    """What waits to be sent is bounded, and others are served on."""
    async with serving(certificate, instances=1000) as (port, _, _), client(port, window=0) as asking:
        for _ in range(40):
            asking.get(query(WEB))
        refused: set[int] = set()
        while not refused:
            async with asyncio.timeout(10):
                data = await asking.reader.read(65536)
            refused |= {e.stream_id for e in asking.h2.receive_data(data) if isinstance(e, h2.events.StreamReset)}
        async with client(port) as other:
            assert 1 == len(await other.until_ended(other.get(query(WEB))))


async def test_a_question_taken_back_is_forgotten(certificate: tuple[Path, Path]) -> None:
    """The forwarder need not go on with it."""
    async with serving(certificate) as (port, tcp, later), client(port) as asking:
        number = asking.get(query("slow.org"))
        await asking.until_ended(asking.get(query(WEB)))
        assert 1 == len(tcp.waiters.open)
        asking.h2.reset_stream(number)
        await asking.until_ended(asking.get(query(WEB)))

        assert ({}, True) == (tcp.waiters.open, later.futures[0].cancelled())


async def test_rapid_resets_end_the_connection(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking and taking back without end is an attack."""
    monkeypatch.setattr(adapter, "RESETS", 20)
    async with serving(certificate) as (port, _, _), client(port) as asking:
        for _ in range(30):
            asking.h2.reset_stream(asking.get(query("slow.org")))
        asking.flush()
        while not asking.closed:
            await asking.some()

        assert asking.closed


async def test_junk_ends_the_connection(certificate: tuple[Path, Path]) -> None:
    """What is not HTTP/2 after HTTP/2 was agreed on."""
    async with serving(certificate) as (port, tcp, _), client(port) as asking:
        await asking.until_ended(asking.get(query(WEB)))
        asking.writer.write(b"\xff" * 500)
        while not asking.closed:
            await asking.some()
        async with client(port) as other:
            await other.until_ended(other.get(query(WEB)))
            assert 1 <= len(tcp.open) <= 2


async def test_a_body_of_another_kind_is_told(certificate: tuple[Path, Path]) -> None:
    """415, 400 and 413 by HTTP, each on its own stream."""
    async with serving(certificate) as (port, _, _), client(port) as asking:
        numbers = [asking.post(b"{}", "application/json"), asking.post(b"\0" * 5), asking.post(bytes(5000))]
        await asking.until_ended(*numbers)

        assert ["415", "400", "413"] == [asking.statuses[number] for number in numbers]


async def test_a_body_that_is_far_too_long_ends_its_own_stream_only(certificate: tuple[Path, Path]) -> None:
    """413 before it has all come, and the next question is answered."""
    async with serving(certificate) as (port, _, _), client(port) as asking:
        number = asking.begin_post()
        sent = 0
        while number not in asking.statuses and sent < 70_000:
            while size := min(asking.h2.local_flow_control_window(number), 8_192):
                asking.h2.send_data(number, bytes(size))
                sent += size
            asking.flush()
            await asking.some()
        while number not in asking.reset:
            await asking.some()
        following = asking.get(query(WEB))
        await asking.until_ended(following)

        assert ["413", "200"] == [asking.statuses[number], asking.statuses[following]]


async def nobody(tcp: TcpServer) -> bool:
    return not tcp.open


JUNK = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    bytes(range(255, -1, -1)) + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"POST /dns-query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz-secret\r\n",
    b"POST /dns-query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\0\0",
    b"POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nabc",
    b"POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip",
)


async def test_junk_over_http_1_does_not_fill_the_log(
    certificate: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """No request, a body that is none or that ends early: one line for all, no traceback, and others are served on."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    async with serving(certificate) as (port, tcp, _):
        for junk in JUNK * 3:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(junk)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await reader.read()
            writer.close()
        await eventually("all are gone", lambda: nobody(tcp))
        async with client(port) as other:
            await other.until_ended(other.get(query(WEB)))

    told = [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    assert ["malformed requests"] == [record.getMessage().split(" count=")[0] for record in told]
    assert not any(record.exc_info for record in told)


def cases() -> Iterator[tuple[bytes, int]]:
    made = names(member(), ttl_s=7, negative_ttl_s=3)
    for name, kind, age_s in ((WEB, "A", 7), ("nope.mesos", "A", 3), (WEB, "TXT", 3), ("x.org", "A", 0)):
        from harness.names import raw_reply

        yield raw_reply(made.answers, query(name, kind, opt=opt())) or b"", age_s


@pytest.mark.parametrize(("reply", "age_s"), list(cases()))
def test_http_caches_keep_it_as_long_as_dns_ones(reply: bytes, age_s: int) -> None:
    """The least TTL: of the answer, or of the SOA of "there is none"; a refusal is not kept."""
    assert age_s == doh.max_age_s(reply)


def frame(length: int, kind: int = 0) -> bytes:
    return length.to_bytes(3, "big") + bytes((kind, 0, 0, 0, 0, 1))


@pytest.mark.parametrize("step", [1, 5, 9, 10_000])
def test_frames_too_long_are_seen_by_their_first_bytes(step: int) -> None:
    """However the bytes arrive; header blocks count with their continuations."""

    def seen(data: bytes) -> bool:
        frames = doh.Frames()
        return any(frames.too_long(data[at : at + step]) for at in range(0, len(data), step))

    good = (
        bytes(24)
        + (frame(16384) + bytes(16384)) * 2
        + frame(0)
        + frame(16384, 1)
        + bytes(16384)
        + frame(100, 9)
        + bytes(100)
    )

    assert not seen(good)
    assert seen(good + frame(16385))
    assert seen(good + frame(16384, 9))

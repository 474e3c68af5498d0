"""UDP and TCP on real sockets of the loopback interface, in this process."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import dnslib
import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_dns.adapters.gate import Gate
from fairlead_dns.adapters.sockets import bind, local_addresses, parse_place
from fairlead_dns.adapters.tcp import MOST_WAITING, Limits, TcpServer
from fairlead_dns.adapters.udp import UdpServer
from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Asked, Handled, Transport, error
from fairlead_dns.metrics import Counts
from fairlead_dns.names import Names
from harness.names import data, ede, member, names, opt, query, rcode
from harness.waiting import eventually

WEB = "web.marathon.mesos"


class Served:
    """One port, both transports."""

    def __init__(self, made: Names, limits: Limits) -> None:
        self.counts = Counts()
        self.waiters = Waiters(most=100, patience_s=60)
        (pair,) = bind("listen", "127.0.0.1:0")
        self.port = pair.place.port
        self.udp = UdpServer(pair.udp, made.front, self.counts, self.waiters)
        self.tcp = TcpServer(made.front, self.counts, limits, self.waiters)
        self.listener = pair.tcp


@asynccontextmanager
async def serving(
    made: Names | None = None, *, connections: int = 8, per_client: int = 8, idle_s: float = 30
) -> AsyncIterator[Served]:
    served = Served(made or names(member()), Limits(connections=connections, per_client=per_client, idle_s=idle_s))
    accepting = Gate(served.listener, Transport.TCP, served.tcp.protocol).open()
    sweeping = asyncio.ensure_future(served.tcp.sweep())
    yield served
    sweeping.cancel()
    accepting.cancel()
    served.udp.close()
    served.tcp.close()
    await asyncio.sleep(0)


def framed(*packets: bytes) -> bytes:
    return b"".join(len(p).to_bytes(2, "big") + p for p in packets)


async def read_reply(reader: asyncio.StreamReader) -> dnslib.DNSRecord:
    async with asyncio.timeout(5):
        size = int.from_bytes(await reader.readexactly(2), "big")
        return dnslib.DNSRecord.parse(await reader.readexactly(size))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def udp_client(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(("127.0.0.1", port))
    return sock


async def receive(sock: socket.socket) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(sock, 65535)


async def test_udp_answers_every_packet_of_a_burst() -> None:
    """A thousand questions at once: a thousand replies with their own ids, most from the packet cache."""
    async with serving() as served:
        client = await udp_client(served.port)
        ids = set()
        for start in range(0, 1000, 100):
            for number in range(start, start + 100):
                client.send(query(WEB, number=number))
            ids |= {int.from_bytes((await receive(client))[:2], "big") for _ in range(100)}
        client.close()

        assert (set(range(1000)), 999) == (ids, served.counts.cache_hits)


async def test_junk_over_udp_changes_nothing() -> None:
    """Two thousand packets of noise, then a question: answered."""
    chance = random.Random(5)
    async with serving() as served:
        client = await udp_client(served.port)
        for number in range(2000):
            noise = chance.randbytes(chance.randrange(1, 80))
            client.send(noise if number % 2 else query(WEB)[: chance.randrange(1, 36)] + noise)
            if number % 50 == 0:
                await asyncio.sleep(0)
        client.close()
        fresh = await udp_client(served.port)
        fresh.send(query(WEB))

        assert ["10.0.0.1"] == data(dnslib.DNSRecord.parse(await receive(fresh)))
        fresh.close()


async def test_closing_answers_what_has_come() -> None:
    """What waits in the socket when the daemon stops is answered first."""
    async with serving() as served:
        client = await udp_client(served.port)
        client.send(query(WEB))
        served.udp.close()

        assert ["10.0.0.1"] == data(dnslib.DNSRecord.parse(await receive(client)))
        client.close()
        served.udp = UdpServer(bind("listen", "127.0.0.1:0")[0].udp, names().front, Counts(), served.waiters)


async def test_under_overload_the_oldest_are_dropped() -> None:
    """More came than is answered in time: the newest are answered, the oldest counted and gone."""
    made = names(member())
    (pair,) = bind("listen", "127.0.0.1:0")
    pair.tcp.close()
    pair.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 400_000)
    counts = Counts()
    server = UdpServer(pair.udp, made.front, counts, Waiters(most=1, patience_s=1))
    client = await udp_client(pair.place.port)
    for number in range(3000):  # the kernel takes the first of them, and drops the rest
        client.send(query(WEB, number=number))
    ids = []
    for _ in range(100):
        server.drain()
        with suppress(BlockingIOError):
            while True:
                ids.append(int.from_bytes(client.recv(4096)[:2], "big"))
    client.close()
    server.close()

    assert counts.shed >= 100
    gap = next(at for at, number in enumerate(ids) if number != at)
    assert (128, 128 + counts.shed) == (gap, ids[gap])  # a drain answered, the next oldest dropped, all others answered
    assert list(range(ids[gap], ids[gap] + len(ids) - gap)) == ids[gap:]


async def test_tcp_answers_pipelined_queries() -> None:
    """Forty questions in one write: forty replies with their ids, over one connection."""
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(*(query(WEB, number=n) for n in range(40))))

        assert list(range(40)) == [(await read_reply(reader)).header.id for _ in range(40)]
        writer.close()


async def test_tcp_takes_queries_byte_by_byte() -> None:
    """Framing does not depend on how the bytes arrive."""
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        for byte in framed(query(WEB), query(WEB, number=7)):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

        assert [4711, 7] == [(await read_reply(reader)).header.id for _ in range(2)]
        writer.close()


async def test_tcp_answers_after_half_close() -> None:
    """A client that says "no more" still gets what it asked, then the end."""
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(*(query(WEB, number=n) for n in range(60))))
        writer.write_eof()

        assert list(range(60)) == [(await read_reply(reader)).header.id for _ in range(60)]
        assert await is_closed(reader)


async def test_tcp_gives_what_udp_cut() -> None:
    """A hundred endpoints: TC over UDP, all of them over TCP."""
    made = names(*(member(n) for n in range(100)))
    async with serving(made) as served:
        client = await udp_client(served.port)
        client.send(query(WEB))
        cut = dnslib.DNSRecord.parse(await receive(client))
        client.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(query(WEB)))
        whole = await read_reply(reader)
        writer.close()

        assert (1, 0, 100) == (cut.header.tc, whole.header.tc, len(data(whole)))


async def test_an_idle_connection_is_closed() -> None:
    """Nothing asked for the idle time: closed, and forgotten."""
    async with serving(idle_s=0.2) as served:
        reader, _ = await asyncio.open_connection("127.0.0.1", served.port)

        assert await is_closed(reader)
        assert ({}, {}) == (served.tcp.open, served.tcp.clients)


async def test_a_query_that_never_ends_is_closed() -> None:
    """One byte now and then is no activity: only answers are."""
    async with serving(idle_s=0.3) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        closed = asyncio.ensure_future(is_closed(reader))
        for byte in framed(query(WEB))[:-1]:
            if closed.done():
                break
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.03)

        assert await closed


async def test_a_client_that_does_not_read_is_not_served_on() -> None:
    """Memory stays bounded: its queries wait in the kernel, and after the idle time it is closed."""
    made = names(*(member(n) for n in range(250)))
    async with serving(made, idle_s=0.4) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.transport.pause_reading()
        writer.write(framed(query(WEB)) * 20_000)
        await eventually("it is closed", lambda: _now(not served.tcp.open))

        assert sum(served.counts.replies[Transport.TCP]) < 20_000
        writer.transport.abort()
        del reader


async def _now(value: bool) -> bool:
    return value


async def test_a_query_over_4096_bytes_is_refused() -> None:
    """No query is that long."""
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"\xff\xff" + bytes(100))

        assert await is_closed(reader)


async def test_one_client_has_its_share_of_connections() -> None:
    """The third connection of a client that may have two is served; the one of them that is idle longest is closed."""
    async with serving(per_client=2) as served:
        links = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(3)]
        closed = await is_closed(links[0][0])
        for _, writer in links[1:]:
            writer.write(framed(query(WEB)))

        assert ([["10.0.0.1"]] * 2, True) == ([data(await read_reply(r)) for r, _ in links[1:]], closed)
        for _, writer in links:
            writer.close()


async def test_a_client_with_many_idle_connections_is_still_answered() -> None:
    """A crowd of them, in one go: each new one is served at once, and the books stay right."""
    async with serving(connections=20, per_client=8) as served:
        links = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(60)]
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(query(WEB)))

        assert ["10.0.0.1"] == data(await read_reply(reader))
        assert ({"127.0.0.1": 8}, 8) == (served.tcp.clients, len(served.tcp.open))
        for _, one in (*links, (reader, writer)):
            one.close()


async def test_the_longest_idle_connection_makes_room() -> None:
    """At the limit a new connection is served, the one that asked longest ago is closed."""
    async with serving(connections=2) as served:
        first, second = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
        first[1].write(framed(query(WEB)))
        await read_reply(first[0])
        third = await asyncio.open_connection("127.0.0.1", served.port)
        third[1].write(framed(query(WEB)))

        assert (["10.0.0.1"], True) == (data(await read_reply(third[0])), await is_closed(second[0]))
        for _, writer in (first, second, third):
            writer.close()


async def test_junk_over_tcp_ends_nothing_else() -> None:
    """Noise on one connection; another is answered."""
    chance = random.Random(3)
    async with serving() as served:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(chance.randbytes(300))
            await asyncio.sleep(0)
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(query(WEB)))

        assert ["10.0.0.1"] == data(await read_reply(reader))
        writer.close()


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "localhost:53", "127.0.0.1:x", "127.0.0.1:70000", ":53", "[::1:53", "::1:53", ""]
)
def test_bad_addresses_name_the_option(text: str) -> None:
    """`listen` wants ip:port."""
    with pytest.raises(BadSettings, match=r"listen: .*expected ip:port"):
        parse_place("listen", text)


def test_a_busy_port_names_port_and_option() -> None:
    """Another program's socket, which does not share: a clear error, and nothing stays bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(BadSettings, match=f"listen: cannot listen on 127.0.0.1:{port}: another process"):
            bind("listen", f"127.0.0.1:{port}")


def test_a_foreign_address_names_the_reason() -> None:
    """An address of another machine."""
    with pytest.raises(BadSettings, match=r"192\.0\.2\.1:5300: this machine has no such address"):
        bind("listen", "192.0.2.1:5300")


def test_two_processes_may_share_a_port() -> None:
    """SO_REUSEPORT on both transports."""
    first = bind("listen", "127.0.0.1:0")
    second = bind("listen", f"127.0.0.1:{first[0].place.port}")

    assert first[0].place == second[0].place
    for pair in (*first, *second):
        pair.close()


def test_the_wildcard_is_every_address_by_itself() -> None:
    """Bound one by one, so that replies come from the address that was asked."""
    assert "127.0.0.1" in local_addresses(six=False)


async def test_ipv6_is_served() -> None:
    """`[::1]:port`, over both transports."""
    if not local_addresses(six=True):
        pytest.skip("this machine has no IPv6")
    (pair,) = bind("listen", "[::1]:0")
    made, counts = names(member()), Counts()
    waiters = Waiters(most=4, patience_s=5)
    udp = UdpServer(pair.udp, made.front, counts, waiters)
    tcp = TcpServer(made.front, counts, Limits(connections=4, per_client=4, idle_s=5), waiters)
    accepting = Gate(pair.tcp, Transport.TCP, tcp.protocol).open()
    client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.connect(("::1", pair.place.port))
    client.send(query(WEB))
    reader, writer = await asyncio.open_connection("::1", pair.place.port)
    writer.write(framed(query(WEB)))

    replies = [dnslib.DNSRecord.parse(await receive(client)), await read_reply(reader)]
    assert [["10.0.0.1"]] * 2 == [data(reply) for reply in replies]
    client.close()
    writer.close()
    udp.close()
    accepting.cancel()
    tcp.close()


async def test_replies_are_counted_by_code() -> None:
    """Every reply once, over each transport, BADVERS apart from NOERROR."""
    asked = (
        query(WEB),
        query(WEB, "AAAA"),
        query("nope.mesos"),
        query("com"),
        query(WEB, opt=opt(version=1)),
        query(WEB)[:20],
        query(WEB, flags=15 << 11),
    )
    expected = {"NOERROR": 2, "NXDOMAIN": 1, "REFUSED": 1, "BADVERS": 1, "FORMERR": 1, "NOTIMP": 1}
    async with serving() as served:
        client = await udp_client(served.port)
        for packet in asked:
            client.send(packet)
            await receive(client)
        client.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(*asked))
        for _ in asked:
            await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()

        for counted in (served.counts.replies[Transport.UDP], served.counts.replies[Transport.TCP]):
            assert expected == {wire.RCODE_NAMES[code]: n for code, n in enumerate(counted) if n}


# --- handlers that answer later, or at length -------------------------------------------------------------------------


MESSAGES = 30_000
"""Of about a kilobyte: more than the kernel's buffers hold."""


class Later:
    """Answers `slow…` when it is told to, `long…` in many messages."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Asked, asyncio.Future[bytes | None]]] = []
        self.pulled = 0

    def reply(self, asked: Asked) -> Handled:
        if asked.query.name.startswith(b"\4long"):
            return self.messages(asked)
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.waiting.append((asked, future))
        return future

    def messages(self, asked: Asked) -> Iterator[bytes]:
        whole = error(asked, wire.NOERROR)
        for _ in range(MESSAGES):
            self.pulled += 1
            yield whole + bytes(1000)

    def answer(self, number: int) -> None:
        asked, future = self.waiting[number]
        if not future.done():
            future.set_result(error(asked, wire.NOERROR))


def with_later() -> tuple[Names, Later]:
    made, later = names(member()), Later()
    made.front.serve(b"\0", later)
    return made, later


async def asked_for(later: Later, count: int) -> None:
    await eventually("the handler is asked", lambda: _now(len(later.waiting) >= count))


async def test_tcp_replies_overtake_those_that_wait() -> None:
    """Out of order (RFC 7766): the quick one first, the others as they come, each once."""
    made, later = with_later()
    async with serving(made) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(query("slow.a", number=1), query("slow.b", number=2), query(WEB, number=3)))

        assert 3 == (await read_reply(reader)).header.id
        later.answer(1)
        assert 2 == (await read_reply(reader)).header.id
        later.answer(0)
        assert 1 == (await read_reply(reader)).header.id
        writer.close()


async def test_a_half_closed_connection_gets_what_waits() -> None:
    """Then it is closed."""
    made, later = with_later()
    async with serving(made) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(query("slow.a", number=1)))
        writer.write_eof()
        await asked_for(later, 1)
        later.answer(0)

        assert 1 == (await read_reply(reader)).header.id
        assert await is_closed(reader)


async def test_one_connection_has_so_many_open_questions() -> None:
    """It is read no further; when one is answered the next is taken. None is lost."""
    made, later = with_later()
    async with serving(made) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(*(query("slow.a", number=n) for n in range(90))))
        await asked_for(later, MOST_WAITING)
        await asyncio.sleep(0.05)
        assert MOST_WAITING == len(later.waiting)
        for number in range(90):
            await asked_for(later, number + 1)
            later.answer(number)

        assert set(range(90)) == {(await read_reply(reader)).header.id for _ in range(90)}
        writer.close()


async def test_who_hangs_up_is_not_waited_for() -> None:
    """A reset, not a half-closed connection: what it asked is taken back."""
    made, later = with_later()
    async with serving(made) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(query("slow.a")))
        await asked_for(later, 1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

        await eventually("it is cancelled", lambda: _now(later.waiting[0][1].cancelled()))
        assert {} == served.waiters.open


async def test_udp_replies_may_be_late_too() -> None:
    """They find their client; what takes too long is SERVFAIL with the reason."""
    made, later = with_later()
    async with serving(made) as served:
        client = await udp_client(served.port)
        client.send(query("slow.a", number=1))
        client.send(query(WEB, number=2))
        assert 2 == dnslib.DNSRecord.parse(await receive(client)).header.id
        later.answer(0)
        assert 1 == dnslib.DNSRecord.parse(await receive(client)).header.id
        served.waiters.patience_s = 0.05
        client.send(query("slow.b", opt=opt()))
        late = dnslib.DNSRecord.parse(await receive(client))

        assert ("SERVFAIL", 22) == (rcode(late), ede(late))
        client.close()


async def test_of_too_many_waiting_the_oldest_gives_way() -> None:
    """In all connections together; counted, and the newest is answered."""
    made, later = with_later()
    async with serving(made) as served:
        served.waiters.most = 10
        client = await udp_client(served.port)
        for number in range(15):
            client.send(query("slow.a", number=number))
        await asked_for(later, 15)
        assert (10, 5) == (len(served.waiters.open), served.waiters.shed)
        assert [True] * 5 == [future.cancelled() for _, future in later.waiting[:5]]
        later.answer(14)

        assert 14 == dnslib.DNSRecord.parse(await receive(client)).header.id
        client.close()


async def test_a_handler_that_fails_is_servfail() -> None:
    """And the server stays."""
    made, later = with_later()
    async with serving(made) as served:
        client = await udp_client(served.port)
        client.send(query("slow.a"))
        await asked_for(later, 1)
        later.waiting[0][1].set_exception(ValueError("a bug"))

        assert "SERVFAIL" == rcode(dnslib.DNSRecord.parse(await receive(client)))
        client.close()


async def test_a_long_reply_is_pulled_as_it_is_read() -> None:
    """Many messages in order; not many more than the client reads are made, and the next query is answered after."""
    made, later = with_later()
    async with serving(made) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=2048)
        writer.write(framed(query("long.a", "AXFR", number=5), query(WEB, number=6)))
        await eventually("it has begun", lambda: _now(later.pulled > 0))
        await asyncio.sleep(0.1)
        before = later.pulled
        async with asyncio.timeout(20):
            for _ in range(MESSAGES):
                size = int.from_bytes(await reader.readexactly(2), "big")
                await reader.readexactly(size)
        whole = await read_reply(reader)

        assert (6, ["10.0.0.1"]) == (whole.header.id, data(whole))
        assert before < MESSAGES
        writer.close()


async def test_a_connection_has_so_many_queries() -> None:
    """Then it is closed in order: all of them answered."""
    async with serving() as served:
        served.tcp.limits = replace(served.tcp.limits, queries=20)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(framed(*(query(WEB, number=n) for n in range(30))))

        assert list(range(20)) == [(await read_reply(reader)).header.id for _ in range(20)]
        assert await is_closed(reader)

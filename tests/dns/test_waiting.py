"""Handlers that answer later, or at length: over real sockets, in this process."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import dnslib

from fairlead_dns.adapters.tcp import MOST_WAITING
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Asked, Handled, error
from fairlead_dns.names import Names
from harness.dns_sockets import WEB, framed, is_closed, now, read_reply, receive, serving, udp_client
from harness.names import data, ede, member, names, opt, query, rcode
from harness.waiting import eventually

MESSAGES = 1500
"""Of about twenty kilobytes: more than the kernel's buffers hold."""


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
            yield whole + bytes(20_000)

    def answer(self, number: int) -> None:
        asked, future = self.waiting[number]
        if not future.done():
            future.set_result(error(asked, wire.NOERROR))


def with_later() -> tuple[Names, Later]:
    made, later = names(member()), Later()
    made.front.serve(b"\0", later)
    return made, later


async def asked_for(later: Later, count: int) -> None:
    await eventually("the handler is asked", lambda: now(len(later.waiting) >= count))


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

        await eventually("it is cancelled", lambda: now(later.waiting[0][1].cancelled()))
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
    """In all connections together; counted and told so, and the newest is answered."""
    made, later = with_later()
    async with serving(made) as served:
        served.waiters.most = 10
        client = await udp_client(served.port)
        for number in range(15):
            client.send(query("slow.a", number=number))
        await asked_for(later, 15)
        assert (10, 5) == (len(served.waiters.open), served.waiters.shed)
        assert [True] * 5 == [future.cancelled() for _, future in later.waiting[:5]]
        shed = [dnslib.DNSRecord.parse(await receive(client)) for _ in range(5)]
        later.answer(14)

        assert [(number, "SERVFAIL") for number in range(5)] == [(reply.header.id, rcode(reply)) for reply in shed]
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
        await eventually("it has begun", lambda: now(later.pulled > 0))
        await asyncio.sleep(0.1)
        before = later.pulled
        async with asyncio.timeout(60):
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

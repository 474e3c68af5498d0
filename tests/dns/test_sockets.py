"""UDP and TCP on real sockets of the loopback interface, in this process."""

import asyncio
import random
import socket
from contextlib import suppress

import dnslib
import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_dns.adapters.gate import Gate
from fairlead_dns.adapters.sockets import bind, local_addresses, parse_place
from fairlead_dns.adapters.tcp import Limits, TcpServer
from fairlead_dns.adapters.udp import UdpServer
from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Transport
from fairlead_dns.metrics import Counts
from harness.dns_sockets import WEB, framed, is_closed, now, read_reply, receive, serving, udp_client
from harness.names import data, member, names, opt, query
from harness.waiting import eventually


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


async def test_under_overload_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """More came than is answered in time: the newest are answered, the oldest counted and gone."""
    monkeypatch.setattr("fairlead_dns.adapters.udp.DRAIN", 16)
    made = names(member())
    (pair,) = bind("listen", "127.0.0.1:0")
    pair.stream.close()
    pair.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 400_000)
    counts = Counts()
    server = UdpServer(pair.udp, made.front, counts, Waiters(most=1, patience_s=1))
    client = await udp_client(pair.place.port)
    for number in range(3000):  # the kernel takes the first of them, and drops the rest
        client.send(query(WEB, number=number))
    ids = []
    for _ in range(300):
        server.drain()
        with suppress(BlockingIOError):
            while True:
                ids.append(int.from_bytes(client.recv(4096)[:2], "big"))
    client.close()
    server.close()

    assert counts.shed > 0
    gap = next(at for at, number in enumerate(ids) if number != at)
    assert (16, 16 + counts.shed) == (gap, ids[gap])  # a drain answered, the next oldest dropped, all others answered
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
        await eventually("it is closed", lambda: now(not served.tcp.open))

        assert sum(served.counts.replies[Transport.TCP]) < 20_000
        writer.transport.abort()
        del reader


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
    accepting = Gate(pair.stream, Transport.TCP, tcp.protocol).open()
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

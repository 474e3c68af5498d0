"""Whatever bytes come, whole or byte by byte: a reply others can read, or silence; never an exception, never for long."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_dns.adapters.gate import Gate
from fairlead_dns.adapters.sockets import bind_streams
from fairlead_dns.adapters.tcp import Limits, TcpServer
from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.asked import Came, Transport
from fairlead_dns.metrics import Counts
from harness.fuzzing import CLIENTS, agrees, everything, holds
from harness.names import opt, option, query

FRONT = everything()
BOUND_S = 2.0
"""Of CPU for one message: hundreds of times what the worst one takes."""

interesting = st.sampled_from([0, 1, 2, 6, 10, 12, 28, 33, 41, 63, 64, 0x7F, 0x80, 0xC0, 0xFA, 0xFB, 0xFC, 0xFF])
options = st.lists(
    st.tuples(st.sampled_from([3, 8, 9, 10, 11, 12, 15, 19, 100]), st.binary(max_size=42)), max_size=4
).map(lambda found: b"".join(option(code, data) for code, data in found))
kinds = st.sampled_from([0, 1, 2, 5, 6, 12, 16, 28, 33, 41, 64, 65, 249, 250, 251, 252, 255, 1000, 65535])
labels = st.sampled_from(["mesos", "web", "marathon", "slave", "_tcp", "_web", "x", "WEB", "version", "bind", "a" * 49])
queries = st.builds(
    lambda parts, kind, klass, flags, extra: query(".".join(parts), kind, klass=klass, flags=flags, opt=extra),
    st.lists(labels, max_size=5),
    kinds,
    st.sampled_from([1, 3, 4, 254, 255]),
    st.integers(0, 0x7FFF),
    st.one_of(
        st.just(b""),
        st.builds(
            lambda size, version, bits, more: opt(size, version=version, flags=bits, options=more),
            st.sampled_from([0, 100, 512, 513, 1232, 4096, 65535]),
            st.sampled_from([0, 0, 0, 1, 255]),
            st.sampled_from([0, 0x8000, 0x7FFF]),
            options,
        ),
    ),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A query with some bytes changed, cut, doubled or appended."""
    packet = bytearray(draw(queries))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 200), interesting), max_size=4)):
        packet[at % len(packet)] = byte
    cut = draw(st.integers(0, len(packet)))
    how = draw(st.sampled_from(["whole", "cut", "more", "record"]))
    if how == "cut":
        return bytes(packet[:cut])
    if how == "more":
        return bytes(packet) + draw(st.binary(max_size=20))
    if how == "record":
        kind, data = draw(st.sampled_from([1, 6, 41, 250])), draw(st.binary(max_size=40))
        owner = draw(st.sampled_from([b"\0", b"\xc0\x0c", b"\3xfr\3key\0", b"\xc0\xff"]))
        return (
            bytes(packet[:11])
            + bytes((packet[11] + 1 & 255,))
            + bytes(packet[12:])
            + owner
            + struct.pack("!HHIH", kind, 255, 0, len(data))
            + data
        )
    return bytes(packet)


packets = st.one_of(queries, damaged(), st.binary(max_size=200))
came = st.builds(Came, st.sampled_from(Transport), st.sampled_from(CLIENTS))


@settings(max_examples=500)
@given(packets, came)
def test_any_message_is_answered_by_the_rules(packet: bytes, how: Came) -> None:
    """With everything switched on, over every transport; twice, so that prebuilt answers are seen too."""
    first = holds(FRONT, packet, how)
    again = holds(FRONT, packet, how)

    assert (first is None) == (again is None)


@settings(max_examples=500)
@given(packets)
def test_two_parsers_read_the_same_question(packet: bytes) -> None:
    """What dnspython and we both take for a query is the same query."""
    agrees(packet)


@settings(max_examples=200)
@given(queries)
def test_three_parsers_read_whole_queries_the_same(packet: bytes) -> None:
    """dnslib too, with the OPT (its reading of options leaves out an empty last one)."""
    ours, theirs = wire.parse_query(packet), dnslib.DNSRecord.parse(packet)

    assert ours.kind == theirs.q.qtype
    assert (ours.edns is not None) == bool(theirs.ar)
    if ours.edns is not None:
        assert ours.edns.payload_bytes == theirs.ar[0].rclass


def heaviest() -> list[bytes]:
    """Messages of 64 kB that keep a careless parser busy."""
    head = b"\0\1\0\0\0\1"
    least = b"\0" + struct.pack("!HHIH", 1, 1, 0, 0)
    pointer = b"\xc0\x0c" + struct.pack("!HHIH", 250, 255, 0, 0)
    many_options = b"".join(option(100) for _ in range(16_000))
    name = b"\x3f" + b"a" * 63
    return [
        head + b"\xff\xff" * 3 + b"\0\0\1\0\1" + least * 5950,
        head + b"\0\0\0\0\xff\xff" + b"\0\0\1\0\1" + pointer * 5400,
        head + b"\0\0\0\0\0\1" + b"\0\0\1\0\1" + opt(options=many_options),
        head + b"\xff\xff\0\0\0\0" + b"\0\0\1\0\1" + name * 1020,
        head + bytes(6) + b"\1a" * 32_000,
        head + bytes(6) + b"\xc0\x0c" * 32_000,
        b"\xff" * 65_535,
        bytes(65_535),
    ]


@pytest.mark.parametrize("packet", heaviest(), ids=range(8))
def test_the_heaviest_messages_cost_little(packet: bytes) -> None:
    """Work is bounded by the message's length, whatever its counts and pointers say."""
    start_s = time.process_time()
    holds(FRONT, packet, Came(Transport.TCP, "10.0.0.1"))

    assert len(packet) <= 65_535
    assert time.process_time() - start_s < BOUND_S


# --- over TCP ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    waiters = Waiters(most=10, patience_s=5)
    tcp = TcpServer(everything(), Counts(), Limits(connections=50, per_client=50, idle_s=30), waiters)
    (bound,) = bind_streams("listen", "127.0.0.1:0")
    place, sock = bound.place, bound.stream
    accepting = Gate(sock, Transport.TCP, tcp.protocol).open()
    yield place.port
    accepting.cancel()
    tcp.close()
    await asyncio.sleep(0)


async def exchanged(port: int, pieces: list[bytes]) -> bytes:
    """All that comes back on a connection where this is sent, piece by piece, until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(30):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        try:
            found = await reader.read()
        except ConnectionError:
            found = b""
    writer.close()
    return found


@settings(max_examples=25)
@given(st.lists(packets, min_size=1, max_size=4))
def test_framing_does_not_depend_on_pieces(messages: list[bytes]) -> None:
    """Sent whole or byte by byte the replies are the same, and each is what the front says by itself."""
    stream = b"".join(len(m).to_bytes(2, "big") + m for m in messages)

    async def both() -> tuple[bytes, bytes]:
        async with serving() as port:
            return await exchanged(port, [stream]), await exchanged(port, [bytes((b,)) for b in stream])

    whole, pieces = asyncio.run(both())

    assert _shapes(whole) == _shapes(pieces)
    assert len(_shapes(whole)) == sum(holds(FRONT, m, Came(Transport.TCP, "127.0.0.1")) is not None for m in messages)


@settings(max_examples=25)
@given(st.binary(max_size=400))
def test_any_stream_leaves_the_server_standing(stream: bytes) -> None:
    """Lengths that lie, ends in the middle: the next connection is answered."""

    async def then_asked() -> bytes:
        async with serving() as port:
            await exchanged(port, [stream])
            packet = query("web.marathon.mesos")
            return await exchanged(port, [len(packet).to_bytes(2, "big") + packet])

    assert 30 == _shapes(asyncio.run(then_asked()))[0][2]


def _shapes(stream: bytes) -> list[tuple[bytes, int, int]]:
    """Id, code and count of each reply: the addresses' order differs from one to the next."""
    found, at = [], 0
    while at + 2 <= len(stream):
        size = int.from_bytes(stream[at : at + 2], "big")
        message = stream[at + 2 : at + 2 + size]
        found.append((message[:2], message[3] & 15, int.from_bytes(message[6:8], "big")))
        at += 2 + size
    return found

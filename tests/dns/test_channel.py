"""The line between a name server and its workers: what is large goes in pieces, as fast as it is read."""

import asyncio
import socket
from collections.abc import Iterator

from fairlead_dns.adapters.channel import Beat, Channel, Message, ZonePart, ZonePut
from fairlead_dns.decisions.compose import RRset

COUNT = 400
SET = RRset(b"\1a\0", 16, 60, (bytes(100_000),))


async def test_a_large_zone_goes_as_fast_as_it_is_read() -> None:
    """It is made piece by piece, nobody counts as behind, and what is sent later comes after it, in order."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    heard: list[Message] = []
    left, right = Channel(heard.append), Channel(heard.append)
    await loop.create_connection(lambda: left, sock=ours)
    transport, _ = await loop.create_connection(lambda: right, sock=theirs)
    transport.pause_reading()
    made = 0

    def parts() -> Iterator[Message]:
        nonlocal made
        for made in range(1, COUNT + 1):  # noqa: B007  # counted for the test
            yield ZonePart(number=6, apex=b"\1a\0", sets=(SET,))
        yield ZonePut(number=7, apex=b"\1a\0")

    left.send_parts(parts())
    left.send(Beat(number=7))
    await asyncio.sleep(0.1)
    assert made < COUNT
    assert not left.behind
    transport.resume_reading()
    async with asyncio.timeout(30):
        while len(heard) < COUNT + 2:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)

    assert [ZonePart] * COUNT + [ZonePut, Beat] == [type(message) for message in heard]
    left.close()
    right.close()


async def test_who_reads_nothing_is_behind() -> None:
    """Of messages that wait, also of those behind a zone."""
    ours, theirs = socket.socketpair()
    left = Channel(lambda _: None)
    await asyncio.get_running_loop().create_connection(lambda: left, sock=ours)
    left.send_parts(iter([ZonePart(number=6, apex=b"\1a\0", sets=(SET,))] * 100))
    assert not left.behind
    for _ in range(700):
        left.send(ZonePart(number=6, apex=b"\1a\0", sets=(SET,)))

    assert left.behind
    left.close()
    theirs.close()

"""What clients cost that ask and do not read."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from discovery.records_of import WEB, member, publish
from discovery.test_listing_http import DNS, Site, serving
from fairlead_daemon.errors import Unavailable
from fairlead_discovery import metrics
from fairlead_discovery.adapters import pieces
from fairlead_discovery.adapters.listing_http import Limits
from fairlead_discovery.adapters.pieces import BIG_BYTES, Bodies
from fairlead_discovery.snapshots import Snapshot, Trust
from harness.waiting import eventually

STREAM = "Accept: text/event-stream\r\n"


@contextmanager
def mute(site: Site) -> Iterator[socket.socket]:
    """A client with next to no room for what it does not read."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0)
        yield client


async def ask(site: Site, client: socket.socket, path: str, headers: str = "") -> bytes:
    """The status line of the answer."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", int(site.url.rpartition(":")[2])))
    await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
    async with asyncio.timeout(30):
        return (await loop.sock_recv(client, 20)).partition(b"\r")[0]


async def left(client: socket.socket) -> int:
    """Bytes that come before it is cut off."""
    size = 0
    async with asyncio.timeout(30):
        try:
            while data := await asyncio.get_running_loop().sock_recv(client, 65536):
                size += len(data)
        except ConnectionError:
            pass
    return size


def take(site: Site, size: int, count: int = 1) -> None:
    """WEB has endpoints of so many bytes each."""
    members = {f"m{n}": msgspec.structs.replace(member(n), zone="z" * size) for n in range(count)}
    site.listing.take(Snapshot(revision=1, trust=Trust.LIVE, members={WEB: members}))


async def test_who_does_not_read_a_big_answer_counts_and_is_cut_off():
    """It gets no more than fits the buffers; one that reads gets all. After a long poll too."""
    path = f"/v2/services/{DNS}?index=1-00000000-live&wait=20s"
    async with serving("unread", Limits(per_client=2, write_s=4.0)) as site:
        await site.commit(publish(1))
        take(site, 20_000, 400)
        with mute(site) as one, mute(site) as other, mute(site) as third:
            statuses = [await ask(site, client, path) for client in (one, other, third)]
            await eventually(
                "both are cut off", lambda: asyncio.sleep(0, not metrics.watchers._value.get()), within_s=30
            )
            unread = await left(one)
        status, body, _ = await site.get(path)

    assert [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Un"[:20]] == [s[:20] for s in statuses]
    assert unread < 2_000_000
    assert (200, 400) == (status, len(body["endpoints"]))


@pytest.mark.parametrize("path", ["/v2/services", f"/v2/services/{DNS}"])
async def test_a_stream_that_fits_the_kernels_buffer_and_is_not_read_is_closed(path: str):
    """Nothing waits for it on our side: what counts is what arrives."""
    async with serving("fits", Limits(write_s=0.3, beat_s=0.1)) as site:
        await site.commit(publish(1))
        take(site, 40_000)
        with mute(site) as client:
            status = await ask(site, client, path, STREAM)
            await eventually("it is closed", lambda: asyncio.sleep(0, not site.listing._waiting), within_s=30)

    assert b"HTTP/1.1 200 OK" == status


def test_a_big_answer_is_there_once():
    """However many clients are sent it; another revision's is another."""
    bodies = Bodies()
    first = bodies.of("a", 1, lambda: ["x" * BIG_BYTES])

    assert first is bodies.of("a", 1, lambda: pytest.fail("made again"))
    assert first is not bodies.of("a", 2, lambda: ["y" * BIG_BYTES])


def test_slow_clients_of_many_revisions_hold_only_so_much(monkeypatch: pytest.MonkeyPatch):
    """Who reads the same as another one is served all the same."""
    monkeypatch.setattr(pieces, "SENT_BYTES", 10)
    bodies, one, other = Bodies(), b"x" * 8, b"y" * 8
    with bodies.sending(one), bodies.sending(one), pytest.raises(Unavailable, match="slow"), bodies.sending(other):
        pass
    with bodies.sending(other):
        pass

    assert {} == bodies._sent


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/event-stream"}])
@pytest.mark.parametrize("count", [1, 400])
async def test_head_is_the_plain_answers_head(headers: dict[str, str], count: int):
    """Whoever asks for a stream: it has no end, and HEAD no body."""
    async with serving("head", Limits()) as site:
        await site.commit(publish(1))
        take(site, 2000, count)
        for path in ("/v2/services", f"/v2/services/{DNS}"):
            async with (
                asyncio.timeout(30),
                site.session.head(f"{site.url}{path}", headers=headers) as head,
                site.session.get(f"{site.url}{path}") as plain,
            ):
                keys = ("Content-Type", "Content-Length", "ETag", "X-Fairlead-Index")
                same = [head.headers.get(key) == plain.headers[key] for key in keys]

            assert (200, [True] * 4) == (head.status, same)

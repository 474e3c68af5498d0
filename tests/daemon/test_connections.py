"""The HTTP server and clients that are slow, silent, many, or talk nonsense."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from fairlead_daemon.connections import Limits
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.web import Health, make_app, serve

QUICK = Limits(silence_s=0.2, idle_s=0.6, strangers=4, settle_s=0)
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def serving(tmp_path: Path, limits: Limits = QUICK) -> AsyncIterator[int]:
    settings = DaemonSettings(data_dir=str(tmp_path), token="off")
    app = make_app(settings, Health())

    async def length(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(4 * limits.silence_s)
        return await length(request)

    app.router.add_post("/length", length)
    app.router.add_post("/slow", slow)
    runner, port = await serve(app, settings, limits=limits)
    try:
        yield port
    finally:
        await runner.cleanup()


async def ended(reader: asyncio.StreamReader, *, within_s: float) -> bytes:
    """What came until the server closed. A reset is an end."""
    try:
        return await asyncio.wait_for(reader.read(), within_s)
    except ConnectionError:
        return b""


def head(path: str, length: int) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


@pytest.mark.parametrize("sent", [b"", GET[:20], head("/length", 100), head("/length", 100) + b"12345"])
async def test_a_client_that_says_no_more_is_let_go(tmp_path: Path, sent: bytes):
    """Nothing at all, half a head, no body, half a body: the connection does not stay for ever."""
    async with serving(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)

        assert b"" == await ended(reader, within_s=2)
        writer.close()


async def test_a_head_that_trickles_is_let_go(tmp_path: Path):
    """A byte now and then is no progress."""
    async with serving(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        begin = asyncio.get_running_loop().time()
        for byte in GET * 10:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
            if reader.at_eof() or reader.exception() is not None:
                break
        writer.close()

        assert asyncio.get_running_loop().time() - begin < 1


async def test_a_slow_body_and_a_slow_page_are_waited_for(tmp_path: Path):
    """Pieces that come are progress; what takes long here is not the client's fault, also with a body not yet read."""
    body = b"x" * 1_000_000
    patient = replace(QUICK, silence_s=1.0)  # a loaded machine is late, too
    async with serving(tmp_path, patient) as port, ClientSession() as session:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(8):
                yield b"12345"
                await asyncio.sleep(0.2)

        headers = {"Content-Type": "application/json"}
        async with session.post(f"http://127.0.0.1:{port}/length", data=pieces(), headers=headers) as answer:
            assert "40" == await answer.text()
        async with session.post(f"http://127.0.0.1:{port}/slow", data=body, headers=headers) as answer:
            assert "1000000" == await answer.text()


async def test_a_connection_is_kept_between_requests_for_a_while(tmp_path: Path):
    """Longer than a head may take, not for ever."""
    async with serving(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(GET)
            assert b"200 OK" in await reader.readuntil(b'{"status":"ok"}')
            await asyncio.sleep(0.35)

        assert b"" == await ended(reader, within_s=3)
        writer.close()


async def test_many_that_say_nothing_keep_nobody_out(tmp_path: Path):
    """The one that waits longest makes room; whoever asks is answered."""
    limits = Limits(silence_s=30, strangers=4, settle_s=0)
    async with serving(tmp_path, limits) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)

        assert b"200 OK" in await reader.readuntil(b'{"status":"ok"}')
        assert [b"", b""] == [await ended(r, within_s=2) for r, _ in idle[:2]]
        for _, one in idle:
            one.close()
        writer.close()


async def test_many_that_asked_before_are_all_kept(tmp_path: Path):
    """A master with more agents than the limit for strangers: nobody is cut off between two requests."""
    async with serving(tmp_path, Limits(strangers=4, settle_s=0)) as port:
        links = []
        for _ in range(20):
            links.append(await asyncio.open_connection("127.0.0.1", port))
            links[-1][1].write(GET)
            await links[-1][0].readuntil(b'{"status":"ok"}')
        for reader, writer in links:
            writer.write(GET)

            assert b"200 OK" in await reader.readuntil(b'{"status":"ok"}')
            writer.close()


async def test_many_that_come_at_once_are_all_answered(tmp_path: Path):
    """A crowd of new connections is no attack: each has its request right behind it."""
    async with serving(tmp_path, Limits(strangers=4)) as port:
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in links:
            writer.write(GET)

        answers = [await reader.readuntil(b'{"status":"ok"}') for reader, _ in links]

        assert 20 == sum(b"200 OK" in answer for answer in answers)
        for _, writer in links:
            writer.close()


async def test_nonsense_is_a_line_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A 400 for each, in the words of every other error; no traceback for a client's mistake."""
    bad_body = head("/length", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"zz\r\n\r\n"
    with caplog.at_level(logging.DEBUG):
        async with serving(tmp_path) as port:
            for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n", bad_body):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                answer = await ended(reader, within_s=2)
                assert b"HTTP/1.1 400 " in answer[:40] or b"HTTP/1.0 400 " in answer[:40], answer
                assert b'{"message":"' in answer
                writer.close()

    assert ["malformed requests"] == [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert not any(r.exc_info for r in caplog.records)

"""Checks: what peers answer, what that means, and when a service is up. Bytes as the servers' protocols define them."""

import asyncio
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.adapters.probes import probe
from fairlead_discovery.announcer import check_files
from fairlead_discovery.decisions.announce_files import Wanted
from fairlead_discovery.decisions.announcements import Service
from fairlead_discovery.decisions.checks import (
    Check,
    Tally,
    count,
    judge_amqp,
    judge_http,
    judge_postgres,
    judge_redis,
    named,
    parse,
    postgres_startup,
)
from harness.ports import free_port
from harness.servers import require

AMQP_START = bytes.fromhex("01 0000 000001f4 000a 000a 00 09".replace(" ", "")) + b"x" * 40
POSTGRES_PASSWORD = b"R" + struct.pack(">II", 8, 5)


def postgres_error(state: str) -> bytes:
    body = b"SFATAL\0" + b"C" + state.encode() + b"\0" + b"Msay\0" + b"\0"
    return b"E" + struct.pack(">I", len(body) + 4) + body


ANSWERS = (
    (judge_http, b"HTTP/1.1 200 OK\r\n", ""),
    (judge_http, b"HTTP/1.0 302 Found\r\nx", ""),
    (judge_http, b"HTTP/1.1 503 Busy\r\n", "HTTP 503"),
    (judge_http, b"SSH-2.0-OpenSSH\r\n", "no HTTP answer"),
    (judge_http, b"HTTP/1.1 abc\r\n", "no HTTP answer"),
    (judge_redis, b"+PONG\r\n", ""),
    (judge_redis, b"-NOAUTH Authentication required.\r\n", ""),
    (judge_redis, b"-LOADING Redis is loading\r\n", "redis says '-LOADING Redis is loading'"),
    (judge_amqp, AMQP_START, ""),
    (judge_amqp, b"AMQP\0\0\x09\x01", "it speaks another AMQP"),
    (judge_amqp, b"HTTP/1.1 400 Bad", "no AMQP answer"),
    (judge_postgres, POSTGRES_PASSWORD, ""),
    (judge_postgres, postgres_error("28000"), ""),
    (judge_postgres, postgres_error("57P03"), "PostgreSQL says say"),
    (judge_postgres, b"HTTP/1.1", "no PostgreSQL answer"),
)


@pytest.mark.parametrize(("judge", "answer", "verdict"), ANSWERS)
def test_answers_are_judged(judge: Callable[[bytes], str | None], answer: bytes, verdict: str):
    """An empty verdict is healthy; everything else says why not."""
    assert verdict == judge(answer)


@pytest.mark.parametrize(("judge", "answer", "verdict"), ANSWERS)
def test_answers_are_judged_byte_by_byte_as_whole(judge: Callable[[bytes], str | None], answer: bytes, verdict: str):
    """However the network cuts it: more is asked for until there is a verdict, and it is the same in kind."""
    verdicts = [v for n in range(len(answer) + 1) if (v := judge(answer[:n])) is not None]

    assert bool(verdict) == bool(verdicts[0])


def test_a_postgres_handshake_is_well_formed():
    """Length, protocol 3.0, pairs ended by zeros, and one more."""
    message = postgres_startup("me")

    assert (len(message), 196608) == struct.unpack_from(">II", message)
    assert b"user\0me\0database\0postgres\0\0" == message[8:]


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 3), st.integers(1, 3))
def test_up_needs_a_rise_and_down_a_fall(answers: list[bool], rise: int, fall: int):
    """The state changes only after so many in a row that speak against it, and always then."""
    tally = Tally()
    for index, good in enumerate(answers):
        before, tally = tally, count(tally, "" if good else "bad", rise=rise, fall=fall)
        needed = rise if good else fall
        row = answers[max(0, index + 1 - needed) : index + 1]
        turned = len(row) == needed and set(row) == {good}

        assert tally.up == (good if turned or before.up == good else before.up)


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("http:/health", Check(type="http", path="/health")),
        ("http", Check(type="http")),
        ("https:/health", Check(type="https", path="/health")),
        ("tcp", Check(type="tcp")),
        ("command:/bin/x a:b", Check(type="command", command="/bin/x a:b")),
        ("postgres", Check(type="postgres")),
    ],
)
def test_checks_are_written_short(text: str, check: Check):
    """As on the command line."""
    assert check == parse(text)


@pytest.mark.parametrize(
    "text", ["", "ftp:/x", "https:x", "http:x", "http:/a b", "http:/a\r\nX: y", "tcp:80", "command:"]
)
def test_bad_checks_are_refused_by_name(text: str):
    """Nothing of it gets to a peer."""
    with pytest.raises(BadSettings, match="check"):
        parse(text)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A server that reads something and answers that; its port. "" never answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        if answer:
            writer.close()
        else:
            await asyncio.sleep(5)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("kind", "answer", "verdict"),
    [
        ("http", b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("redis", b"+PONG\r\n", ""),
        ("rabbitmq", AMQP_START, ""),
        ("postgres", POSTGRES_PASSWORD, ""),
        ("redis", b"+PO", "it closed the connection"),
        ("http", b"", "no answer within 0.2 s"),
    ],
)
async def test_a_probe_speaks_with_a_server(kind: str, answer: bytes, verdict: str):
    """Over a real socket."""
    async with answering(answer) as port:
        assert verdict == await probe(Check(type=kind, timeout_s=0.2), "127.0.0.1", port)


async def test_a_probe_says_that_nobody_listens():
    """A refused connection is a reason like any other."""
    async with answering(b"x") as port:
        pass

    assert "Connect" in await probe(Check(type="tcp"), "127.0.0.1", port)


@pytest.mark.parametrize(
    ("command", "verdict"),
    [
        (f"{sys.executable} -c ''", ""),
        (f"{sys.executable} -c 'exit(3)'", "the command ended with 3"),
        ("/nonexistent", "[Errno 2] No such file or directory: '/nonexistent'"),
        ("sleep 5", "no answer within 1 s"),
        ("sh -c 'unbalanced", "No closing quotation"),
    ],
)
async def test_commands_are_run_and_ended(command: str, verdict: str):
    """Exit 0 is good; one that takes too long is killed with what it started."""
    assert verdict == await probe(Check(type="command", command=command), "127.0.0.1", 1)


# --- TLS


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """One that vouches for itself, at db.example and no other name; `<name>.pem` is its authority too."""
    words = f"req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -days 2 -subj /CN=db.example"
    more = ["-addext", "subjectAltName=DNS:db.example"]
    subprocess.run([require("openssl"), *words.split(), *more], cwd=folder, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "other")
    return folder, certificate(folder, "ours")


@pytest.mark.parametrize(
    ("changes", "status", "verdict"),
    [
        ({"ca": "ours.pem"}, 200, ""),
        ({"ca": "ours.pem"}, 503, "HTTP 503"),
        ({"ca": "other.pem"}, 200, "its certificate is not good: self-signed certificate"),
        ({}, 200, "its certificate is not good: self-signed certificate"),
        ({"ca": "ours.pem", "server_name": "web.example"}, 200, "Hostname mismatch"),
        ({"verify": False}, 200, ""),
        ({"ca": "none.pem"}, 200, "No such file"),
    ],
)
async def test_https_checks_look_at_the_certificate(
    certified: tuple[Path, ssl.SSLContext], changes: dict[str, Any], status: int, verdict: str
):
    """Its authority, its name; unless told not to. The request says by which name it asks."""
    folder, context = certified
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["Host"].partition(":")[0])
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/health", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    given = {**changes, **({"ca": str(folder / changes["ca"])} if "ca" in changes else {})}
    check = named(Check(**{"type": "https", "path": "/health", "timeout_s": 5.0, **given}), "db.example")
    why = await probe(check, "127.0.0.1", port)
    await runner.cleanup()

    assert verdict in why
    assert bool(verdict) == bool(why)
    assert {"db.example"} >= set(asked)


async def test_https_checks_a_plain_server_is_not_healthy():
    """It speaks no TLS."""
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert "" != await probe(Check(type="https", verify=False, timeout_s=1.0), "127.0.0.1", port)


def test_a_ca_that_cannot_be_read_is_named_at_the_start(tmp_path: Path):
    """With its service."""
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    service = Service(name="db", host="h", port=1, checks=(Check(type="https", ca=str(junk)),))

    with pytest.raises(BadSettings, match=f"db: checks: ca: {junk}"):
        check_files(Wanted(services=(service,)), where="file")

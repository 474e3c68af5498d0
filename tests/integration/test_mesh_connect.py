"""Programs without TLS that call as who they are: `fairlead mesh connect` before a real HAProxy, tried by other users."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead_discovery.forwarding import LOCALHOST
from fairlead_discovery.identities import Answer
from fairlead_discovery.policies import Source
from harness.balancer import Balancer, member, route, service
from harness.mesh import Caller, Mesh, intend, is_open, meshed
from harness.ports import free_port
from harness.waiting import eventually, wait_until

pytestmark = pytest.mark.needs("haproxy")
WEB, CART, OPS = "marathon:/shop/web", "marathon:/shop/cart", "etl:ops"
DAY_S = 86_400.0
IN_MODULE = pytest.mark.asyncio(loop_scope="module")
Place = tuple[Balancer, Mesh]
as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")
ASK = (
    "import sys, urllib.request, urllib.error\n"
    "try: print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())\n"
    "except urllib.error.HTTPError as e: print(e.code)\n"
    "except OSError as e: print('cut')\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Place]:
    short = Path(f"/tmp/fl-connect-{os.getpid()}")
    short.mkdir(mode=0o755)
    async with meshed(short, intentions_default="deny") as made:
        await service(made[0], "/shop/cart")
        await service(made[0], "/shop/tcp", mode="tcp")
        await intend(made[0], Source(name=WEB), to=CART)
        await intend(made[0], Source(name=WEB), to="marathon:/shop/tcp")
        yield made
    shutil.rmtree(short, ignore_errors=True)


@contextmanager
def connecting(place: Place, caller: Caller, *words: str, mesh_port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """`fairlead mesh connect` with these words; its errors are its output."""
    lb, _ = place
    command = [
        sys.executable, "-m", "fairlead_console", "mesh", "connect",
        "--mesh", f"127.0.0.1:{mesh_port or lb.settings.mesh_port}",
        "--mesh-tcp", f"127.0.0.1:{lb.settings.mesh_tcp_port}",
        "--identity", str(caller.place.file), "--roots", str(caller.place.bundle_file), *words,
    ]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.wait(10)


async def opened(port: int) -> None:
    await eventually("it listens", lambda: is_open(port), within_s=30)


async def ask(port: int, *, user: int | None = None) -> str:
    """What a program of that user is told."""
    words = ["-c", ASK, f"http://{LOCALHOST}:{port}/"]
    running = await asyncio.create_subprocess_exec(
        "/usr/bin/python3", *words, stdout=asyncio.subprocess.PIPE, user=user, cwd="/"
    )
    return (await running.communicate())[0].decode().strip()


@IN_MODULE
async def test_a_plain_program_calls_as_the_service_whose_certificate_it_is(place: Place):
    """HTTP and TCP; an intention decides by that name; who has another certificate is refused by it."""
    _, mesh = place
    ports = [free_port() for _ in range(3)]
    web, ops = await mesh.caller(WEB), await mesh.caller(OPS)
    words = ("--to", f"{ports[0]}={CART}", "--tcp", f"{ports[1]}=marathon:/shop/tcp")
    with connecting(place, web, *words), connecting(place, ops, "--to", f"{ports[2]}={CART}"):
        for port in ports:
            await opened(port)
        found = [await ask(port) for port in ports]

    assert ["shop-cart", "shop-tcp", "403"] == found


@as_root
@IN_MODULE
async def test_another_users_programs_are_nobody_here(place: Place):
    """The port is open to the whole machine; the certificate is not lent to it. root is another user too."""
    port = free_port()
    web = await place[1].caller(WEB)
    with connecting(place, web, "--to", f"{port}={CART}") as running:
        await opened(port)
        found = [await ask(port, user=65534), await ask(port)]
        running.terminate()
        said = (await asyncio.to_thread(running.communicate, timeout=20))[0]

    assert ["cut", "shop-cart"] == found
    assert f"it is uid 65534's, we are {os.getuid()}" in said


@IN_MODULE
async def test_missing_expired_and_foreign_certificates_open_no_way(place: Place):
    """Nor does a mesh that shows a service's certificate instead of a balancer's: that could be anybody's listener."""
    _, mesh = place
    expired = await mesh.caller(WEB, of=mesh.authority(ago_s=2 * DAY_S))
    foreign = await mesh.caller(WEB, of=mesh.authority(folder="other"))
    gone = await mesh.caller(WEB)
    gone.place.file.unlink()
    right, thief = await mesh.caller(WEB), await mesh.caller(OPS)
    trap = free_port()
    context = await asyncio.to_thread(server_context, thief)
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(note, LOCALHOST, trap, ssl=context)
    found = []
    for caller, at in ((expired, 0), (foreign, 0), (gone, 0), (right, trap)):
        port = free_port()
        with connecting(place, caller, "--to", f"{port}={CART}", mesh_port=at):
            await opened(port)
            found.append(await ask(port))
    server.close()

    assert ["cut"] * 4 == found
    assert not b"".join(seen)


def server_context(caller: Caller) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(caller.place.file)
    return made


@IN_MODULE
async def test_a_renewed_certificate_is_shown_from_the_next_connection_on(place: Place):
    """In place of one that had expired, without a restart."""
    _, mesh = place
    port = free_port()
    web = await mesh.caller(WEB, of=mesh.authority(ago_s=2 * DAY_S))
    with connecting(place, web, "--to", f"{port}={CART}"):
        await opened(port)
        before = await ask(port)
        fresh = await mesh.caller(WEB)
        key = (fresh.place.folder / "key.pem").read_text()
        chain = (fresh.place.folder / "cert.pem").read_text()
        web.place.keep(key, Answer(spiffe_id="", chain=chain, bundle=mesh.authority().bundle(), not_after_s=0))
        after = await ask(port)

    assert ("cut", "shop-cart") == (before, after)


@IN_MODULE
async def test_the_command_beside_it_is_the_process_itself(place: Place):
    """Its exit is told, its end ends the forwarder, and a signal reaches it as if nothing stood before it."""
    _, mesh = place
    port, web = free_port(), await mesh.caller(WEB)
    script = f"import time, urllib.request as u; print(u.urlopen('http://{LOCALHOST}:{port}/').read().decode(), flush=True); time.sleep(60)"
    with connecting(place, web, "--to", f"{port}={CART}", "--", sys.executable, "-c", script) as running:
        assert running.stdout is not None
        first = await asyncio.to_thread(running.stdout.readline)
        running.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(running.wait, 20)
        await asyncio.to_thread(wait_until, "the port is free again", lambda: not _open(port))
    with connecting(place, web, "--to", f"{free_port()}={CART}", "--", "sh", "-c", "exit 7") as running:
        other = await asyncio.to_thread(running.wait, 20)

    assert ("shop-cart\n", -signal.SIGTERM, 7) == (first, code, other)


def _open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((LOCALHOST, port)) == 0


@IN_MODULE
async def test_what_is_missing_is_named(place: Place):
    """Before the command starts."""
    web, taken = await place[1].caller(WEB), place[0].settings.mesh_port
    table = {
        ("--to", "cart"): "expected PORT=SERVICE",
        ("--to", f"{taken}={CART}"): "Address already in use",
        ("--to", "9000=cart:"): "expected PORT=SERVICE",
        (): "--to: not given",
    }
    found = {}
    for words, why in table.items():
        with connecting(place, web, *words, "--", "echo", "started") as running:
            said = (await asyncio.to_thread(running.communicate, timeout=20))[0]
            found[words] = (running.returncode, why in said, "started" in said)

    assert dict.fromkeys(table, (2, True, False)) == found


@IN_MODULE
async def test_nothing_is_lost_of_what_is_larger_than_any_buffer(place: Place):
    """Both ways at once, over TCP, with a reader that is slow."""
    lb, mesh = place

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, LOCALHOST, 0)
    at = server.sockets[0].getsockname()[1]
    await lb.applied(await lb.publish(member("echo", at, app="/echo"), routes=[route("/echo", mode="tcp")]))
    await intend(lb, Source(name=WEB), to="marathon:/echo")
    sent = os.urandom(1 << 20) * 8
    port = free_port()
    with connecting(place, await mesh.caller(WEB), "--tcp", f"{port}=marathon:/echo"):
        await opened(port)
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
        writer.write(sent)
        await asyncio.sleep(0.3)  # nobody reads meanwhile
        async with asyncio.timeout(30):
            found = await reader.readexactly(len(sent))
        writer.close()
    server.close()

    assert sent == found

"""HTTPS towards clients: served by name, replaced while it runs, never lost by a bad file."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_lb import certificates
from fairlead_lb.adapters import socket_cli
from harness.balancer import Balancer, Task, balancer, fetch, route
from harness.certificates import first_der, self_signed, shown_certificate
from harness.clients import Clients
from harness.ports import free_port
from harness.servers import require
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy", "openssl")
HOST = "shop.example"


def put(folder: Path, name: str, host: str) -> None:
    """As tools that rotate do: whole, under its name."""
    require("openssl")
    cert, key = self_signed(folder.parent, host)
    beside = folder / f".{name}"
    beside.write_text(cert.read_text() + key.read_text())
    beside.replace(folder / name)


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    folder = short_dir / "in"
    folder.mkdir()
    put(folder, "default.pem", HOST)
    async with balancer(short_dir, https_port=free_port(), certificate=str(folder)) as made:
        task = await Task("one").start()
        await made.applied(await made.publish(task.member(), routes=[route(vhosts=(HOST,))]))
        yield made


async def shaken(place: Balancer, host: str) -> bytes:
    return await shown_certificate(place.settings.https_port, host)


def der(folder: Path, name: str) -> bytes:
    return first_der((folder / name).read_text())


async def shows(place: Balancer, host: str, expected: bytes) -> bool:
    return expected == await shaken(place, host)


async def ask(place: Balancer, host: str, authority: Path) -> str:
    """A whole request over TLS, the certificate verified."""
    context = ssl.create_default_context(cafile=str(authority))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", place.settings.https_port, ssl=context, server_hostname=host
    )
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read(-1)
    writer.close()
    return answer.decode()


async def test_a_host_answers_over_tls_and_others_by_their_own_certificate(place: Balancer, short_dir: Path):
    """A file that is added is served by its name, without a reload."""
    folder = short_dir / "in"
    answer = await ask(place, HOST, folder / "default.pem")
    put(folder, "other.pem", "other.example")
    await eventually("the new one is shown", lambda: shows(place, "other.example", der(folder, "other.pem")))

    assert answer.startswith("HTTP/1.1 200")
    assert answer.endswith("one")
    assert der(folder, "default.pem") == await shaken(place, HOST)
    assert 0 == (await place.status())["reloads"]


async def test_a_certificate_is_replaced_and_removed_while_it_serves(place: Balancer, short_dir: Path):
    """No request of a bystander fails, no reload; what is served is what the status says."""
    folder = short_dir / "in"
    put(folder, "other.pem", "other.example")
    async with Clients(place.settings.http_port, HOST) as clients:
        await eventually("it is shown", lambda: shows(place, "other.example", der(folder, "other.pem")))
        put(folder, "other.pem", "other.example")
        await eventually("its successor is shown", lambda: shows(place, "other.example", der(folder, "other.pem")))
        (folder / "other.pem").unlink()
        await eventually("the default is shown", lambda: shows(place, "other.example", der(folder, "default.pem")))

    async def alone() -> bool:
        served = (await place.status())["certificates"]["served"]
        return [("default.pem", [HOST])] == [(c["file"], c["names"][:1]) for c in served]

    await eventually("the status says so", alone)
    assert [] == clients.failures
    assert 0 == (await place.status())["reloads"]


async def test_a_bad_file_changes_nothing_but_is_told(place: Balancer, short_dir: Path):
    """Also over a new start of everything."""
    folder = short_dir / "in"
    good = der(folder, "default.pem")
    (folder / "default.pem").write_text("rubbish")
    await eventually("it is told", lambda: told(place))
    await place.kill_daemon()
    await place.start()

    assert good == await shaken(place, HOST)
    assert await eventually("it is told again", lambda: told(place))


async def told(place: Balancer) -> bool:
    return "no certificate in it" in str((await place.status())["certificates"]["problems"])


async def test_tls_comes_with_the_first_certificate(short_dir: Path):
    """An empty folder is no error; the first file needs one reload."""
    folder = short_dir / "in"
    folder.mkdir()
    async with balancer(short_dir, https_port=free_port(), certificate=str(folder)) as place:
        task = await Task("one").start()
        await place.applied(await place.publish(task.member(), routes=[route(vhosts=(HOST,))]))
        put(folder, "a.pem", HOST)
        await eventually("TLS is there", lambda: shows(place, HOST, der(folder, "a.pem")))
        await eventually("by one reload", lambda: reloaded(place, 1))


async def reloaded(place: Balancer, times: int) -> bool:
    return times == (await place.status())["reloads"]


async def test_a_path_that_is_not_there_is_refused(short_dir: Path):
    """A typing error must not look like HTTPS that is off."""
    with pytest.raises(BadSettings, match=r"certificate: /no/such\.pem: no such file or folder"):
        async with Balancer(short_dir, certificate="/no/such.pem") as place:
            await place.start()


async def test_a_certificate_taken_away_by_hand_is_put_back_and_counted(
    place: Balancer, short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """The audit reads certificates back, too."""
    monkeypatch.setattr(certificates, "AUDIT_S", 0.3)
    put(short_dir / "in", "b.pem", "b.example")
    expected = der(short_dir / "in", "b.pem")
    await eventually("it is served", lambda: shows(place, "b.example", expected), within_s=20)
    generation = (await place.status())["haproxy"]["generation"]
    folder = short_dir / "data" / "lb"
    socket = folder / "run" / f"w{generation}.sock"
    for command in (f"del ssl crt-list {folder}/certs.list {folder}/certs/b.pem", f"del ssl cert {folder}/certs/b.pem"):
        await socket_cli.ask(socket, command)

    async def counted() -> bool:
        return 'fairlead_lb_repairs_total{kind="certificates"}' in (await fetch(place.admin, "/metrics"))[1]

    await eventually("it is counted", counted, within_s=20)
    await eventually("it is back", lambda: shows(place, "b.example", expected), within_s=20)

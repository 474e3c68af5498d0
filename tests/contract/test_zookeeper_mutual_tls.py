"""A ZooKeeper that asks for certificates of its clients: as docs/operating.md sets it up, with PEM files."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fairlead_daemon.errors import BadSettings, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.registry import Create
from harness.ports import free_port
from harness.servers import require
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

from .following import collecting
from .test_zookeeper_access import NETTY, PASSWORD, authority, credentials


def certificate(folder: Path, name: str, *, by: str) -> None:
    """`<name>.pem` and `<name>.key`, vouched for by the authority `<by>.pem`."""
    words = f"req -x509 -CA {by}.pem -CAkey {by}.key -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -days 2"
    more = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    subprocess.run([require("openssl"), *words.split(), *more], cwd=folder, check=True, capture_output=True)
    (folder / f"{name}.key").chmod(0o600)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A server that wants certificates by `ours`; its files, and the port that speaks TLS."""
    folder, port = tmp_path_factory.mktemp("mtls"), free_port()
    for name in ("ours", "theirs"):
        authority(folder, key=f"{name}.key", certificate=f"{name}.pem")
    for name, by in (("server", "ours"), ("client", "ours"), ("stranger", "theirs")):
        certificate(folder, name, by=by)
    (folder / "server-both.pem").write_text((folder / "server.pem").read_text() + (folder / "server.key").read_text())
    server = ZooKeeper(folder / "z")
    config = server.folder / "zoo.cfg"
    config.write_text(
        f"{config.read_text()}secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n"
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nssl.clientAuth=need\n"
        f"ssl.keyStore.type=PEM\nssl.keyStore.location={folder}/server-both.pem\n"
        f"ssl.trustStore.type=PEM\nssl.trustStore.location={folder}/ours.pem\n"
    )
    server.server.command = [f"{word}:{NETTY}" if "zookeeper.jar" in word else word for word in server.server.command]
    server.start()
    wait_until("the secure port", lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close() is None)
    yield folder, port
    server.stop()


@pytest.fixture
async def opened() -> AsyncIterator[list[ComposedRegistry]]:
    registries: list[ComposedRegistry] = []
    yield registries
    for registry in registries:
        await registry.close()


async def test_a_client_with_a_certificate_works(guarded: tuple[Path, int], opened: list[ComposedRegistry]):
    """Commits, documents, announcements; with digest credentials on top."""
    folder, port = guarded
    file = credentials(folder, f"fairlead:{PASSWORD}")
    tls = f"tls={folder}/ours.pem&cert={folder}/client.pem&key={folder}/client.key"
    opened.append(await open_registry(f"zk://127.0.0.1:{port}/mutual?{tls}&auth={file}&readers=none"))
    async with collecting(opened[0].watch()) as sights:
        await sights.until(lambda sight: sight.in_sight, within_s=60)
    before = await opened[0].commit([Create(paths.member("s:a", "member_t1_00000000"), b"{}")])
    await opened[0].write(paths.below(paths.APPS, "a"), b"{}")
    await opened[0].announce(f"{paths.AGENTS}/a1", b"{}")

    assert before < await opened[0].commit([])
    assert ("a",) == await opened[0].tree.names(paths.APPS)


@pytest.mark.parametrize("who", ["", "&cert={0}/stranger.pem&key={0}/stranger.key"])
async def test_without_one_of_ours_nothing_is_read_or_written(
    guarded: tuple[Path, int], opened: list[ComposedRegistry], who: str
):
    """No certificate, or one by another authority: the server does not speak with it."""
    folder, port = guarded
    opened.append(await open_registry(f"zk://127.0.0.1:{port}/mutual?tls={folder}/ours.pem{who.format(folder)}"))

    with pytest.raises(Unavailable):
        await opened[0].commit([])
    with pytest.raises(Unavailable):
        await opened[0].tree.names("/")


async def test_a_key_that_others_may_read_is_refused(guarded: tuple[Path, int]):
    """At the start, by its name."""
    folder, port = guarded
    key = folder / "careless.key"
    await asyncio.to_thread(key.write_text, (folder / "client.key").read_text())
    key.chmod(0o644)

    with pytest.raises(BadSettings, match="others may read it"):
        await open_registry(f"zk://127.0.0.1:{port}/x?tls={folder}/ours.pem&cert={folder}/client.pem&key={key}")

"""Who may do what on ZooKeeper: digest credentials, ACLs on everything that is made, TLS."""

import logging
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from fairlead_daemon.errors import BadSettings, Refused, Unavailable
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.registry import Create
from harness.ports import free_port
from harness.servers import require
from harness.waiting import wait_until
from harness.zookeeper import ZooKeeper

from .following import collecting

PASSWORD = "s3cret-of-the-test"


def credentials(folder: Path, text: str, *, mode: int = 0o600) -> Path:
    file = folder / f"auth-{uuid4().hex}"
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.fixture
async def opened() -> AsyncIterator[list[ComposedRegistry]]:
    registries: list[ComposedRegistry] = []
    yield registries
    for registry in registries:
        await registry.close()


@pytest.fixture
def stranger(zookeeper: ZooKeeper) -> Iterator[KazooClient]:
    """A client without credentials."""
    client = KazooClient(zookeeper.hosts)
    client.start()
    yield client
    client.stop()
    client.close()


def every_path(client: KazooClient, path: str) -> Iterator[str]:
    yield path
    for name in client.get_children(path):
        yield from every_path(client, f"{path}/{name}")


async def work(url: str, opened: list[ComposedRegistry]) -> ComposedRegistry:
    """Something of each kind: clocked, a document, an announcement, an election."""
    registry = await open_registry(url)
    opened.append(registry)
    async with collecting(registry.watch()) as sights:
        await sights.until(lambda sight: sight.in_sight, within_s=60)
    await registry.commit([Create(paths.member("s:a", "member_t1_00000000"), b"{}")])
    await registry.write(paths.below(paths.APPS, "a"), b"{}")
    await registry.announce(f"{paths.AGENTS}/a1", b"{}")
    async with collecting(registry.campaign("master", b"1", candidacy=paths.MASTER_CANDIDACY)) as standings:
        await standings.until(lambda s: s.leading)
    return registry


async def test_strangers_read_and_change_nothing(
    zookeeper: ZooKeeper, short_dir: Path, opened: list[ComposedRegistry], stranger: KazooClient
):
    """Every node, the chroot's too, is ours to change, and the world's to read: Mesos' clients must find the master."""
    root = f"/{uuid4().hex}/deep"
    file = credentials(short_dir, f"fairlead:{PASSWORD}\n")
    await work(f"{zookeeper.url}{root}?auth={file}", opened)
    found = list(every_path(stranger, root))

    assert len(found) > 10
    for path in found:
        with pytest.raises(NoAuthError):
            stranger.set(path, b"x")
        with pytest.raises(NoAuthError):
            stranger.create(f"{path}/x", b"x")


async def test_readers_none_shows_strangers_nothing(
    zookeeper: ZooKeeper, short_dir: Path, opened: list[ComposedRegistry], stranger: KazooClient
):
    """Not even names; another of ours sees all."""
    root = f"/{uuid4().hex}"
    url = f"{zookeeper.url}{root}?auth={credentials(short_dir, f'fairlead:{PASSWORD}')}&readers=none"
    await work(url, opened)
    with pytest.raises(NoAuthError):
        stranger.get_children(root)
    opened.append(await open_registry(url))

    assert b"{}" == (await opened[-1].tree.get(paths.member("s:a", "member_t1_00000000"))).data


async def test_wrong_credentials_are_named(zookeeper: ZooKeeper, short_dir: Path, opened: list[ComposedRegistry]):
    """Reading goes, writing is refused with the place to look at."""
    root = f"{zookeeper.url}/{uuid4().hex}"
    await work(f"{root}?auth={credentials(short_dir, 'fairlead:right')}", opened)
    opened.append(await open_registry(f"{root}?auth={credentials(short_dir, 'fairlead:wrong')}"))

    with pytest.raises(Refused, match="credentials"):
        await opened[-1].commit([Create(paths.member("s:a", "member_t2_00000000"), b"{}")])


async def test_the_password_is_shown_nowhere(
    zookeeper: ZooKeeper, short_dir: Path, opened: list[ComposedRegistry], caplog: pytest.LogCaptureFixture
):
    """Not in the log at its most talkative, not in errors, not in the store's own name."""
    caplog.set_level(logging.DEBUG)
    url = f"{zookeeper.url}/{uuid4().hex}?auth={credentials(short_dir, f'fairlead:{PASSWORD}')}"
    registry = await work(url, opened)

    assert caplog.records
    assert PASSWORD not in caplog.text + repr(vars(registry.store))


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [("u:p", 0o640, "others may read it"), ("nobody", 0o600, "user:password"), ("u:p\nx", 0o600, "user:password")],
)
async def test_a_careless_credentials_file_is_refused(short_dir: Path, text: str, mode: int, why: str):
    """At the start, by its name."""
    file = credentials(short_dir, text, mode=mode)

    with pytest.raises(BadSettings, match=why):
        await open_registry(f"zk://127.0.0.1:1/x?auth={file}")
    with pytest.raises(BadSettings, match="No such file"):
        await open_registry("zk://127.0.0.1:1/x?auth=/does/not/exist")


def authority(folder: Path, *, key: str, certificate: str) -> None:
    """One that vouches for itself, at 127.0.0.1."""
    words = f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=127.0.0.1"
    more = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([require("openssl"), *words.split(), *more], cwd=folder, check=True, capture_output=True)


NETTY = ":".join(f"/usr/share/java/netty-{part}.jar" for part in ("codec", "resolver", "transport-native-unix-common"))


@pytest.fixture
def tls_zookeeper(short_dir: Path) -> Iterator[tuple[ZooKeeper, int]]:
    """A server with a certificate for 127.0.0.1, made here; the port that speaks TLS."""
    port = free_port()
    authority(short_dir, key="key.pem", certificate="ca.pem")
    words = "pkcs12 -export -in ca.pem -inkey key.pem -out s.p12 -passout pass:changeit"
    subprocess.run([require("openssl"), *words.split()], cwd=short_dir, check=True, capture_output=True)
    server = ZooKeeper(short_dir / "z")
    config = server.folder / "zoo.cfg"
    config.write_text(
        f"{config.read_text()}secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n"
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nssl.clientAuth=none\n"
        f"ssl.keyStore.location={short_dir}/s.p12\nssl.keyStore.password=changeit\n"
    )
    server.server.command = [f"{word}:{NETTY}" if "zookeeper.jar" in word else word for word in server.server.command]
    server.start()
    wait_until("the secure port", lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close() is None)
    yield server, port
    server.stop()


async def test_tls_with_the_servers_authority(
    tls_zookeeper: tuple[ZooKeeper, int], short_dir: Path, opened: list[ComposedRegistry]
):
    """Reads and writes go; a server that the authority does not vouch for is never spoken to."""
    _, port = tls_zookeeper
    registry = await work(f"zk://127.0.0.1:{port}/x?tls={short_dir}/ca.pem", opened)
    assert await registry.commit([])

    other = short_dir / "other.pem"
    authority(short_dir, key="other.key", certificate=other.name)
    opened.append(await open_registry(f"zk://127.0.0.1:{port}/x?tls={other}"))
    with pytest.raises(Unavailable):
        await opened[-1].commit([])


async def test_bad_tls_files_are_named(short_dir: Path):
    """At the start: missing, or no certificate."""
    junk = short_dir / "junk.pem"
    junk.write_text("no certificate")

    for file in (junk, short_dir / "none.pem"):
        with pytest.raises(BadSettings, match=str(file)):
            await open_registry(f"zk://127.0.0.1:1/x?tls={file}")

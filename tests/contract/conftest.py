"""The three backends behind one face, with the faults that each must survive."""

import asyncio
import shutil
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from fairlead_discovery import messages
from fairlead_discovery.adapters.local import ClientEnd
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.adapters.zookeeper_store import ZooKeeperStore
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.relocating import RelocatingStore
from harness.servers import Server
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper

RUN_REGISTRY = (
    "import sys; from fairlead_daemon.main import main; from fairlead_discovery.registryd import DAEMON; "
    "sys.exit(main(DAEMON, sys.argv[1:]))"
)
RUN_IMPATIENT_REGISTRY = "from fairlead_discovery import hub; hub.SESSION_S = 5.0; " + RUN_REGISTRY
"""Its sessions end after 5 s of silence instead of 10."""


class Backend:
    """`open()` gives a registry with a session of its own; the test closes none of them."""

    name = ""
    url = ""

    def __init__(self) -> None:
        self.opened: list[ComposedRegistry] = []

    async def open(self, *, follow: bool = True) -> ComposedRegistry:
        registry = await open_registry(self.url, follow=follow)
        self.opened.append(registry)
        return registry

    async def stop(self) -> None:
        """The registry goes without a word."""
        raise NotImplementedError

    async def start(self) -> None:
        """It comes back with what it had stored."""
        raise NotImplementedError

    async def expire(self, registry: ComposedRegistry) -> None:
        """Its session ends, as if it had been silent for too long."""
        raise NotImplementedError

    async def close(self) -> None:
        await asyncio.gather(*(registry.close() for registry in self.opened))


class Memory(Backend):
    name = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.place = uuid4().hex
        self.url = f"memory:{self.place}"

    async def stop(self) -> None:
        cluster(self.place).stop()

    async def start(self) -> None:
        cluster(self.place).start()

    async def expire(self, registry: ComposedRegistry) -> None:
        cluster(self.place).expire(registry.store)


class Local(Backend):
    name = "local"

    def __init__(self, folder: Path, program: str = RUN_REGISTRY) -> None:
        super().__init__()
        self.socket = folder / "r.sock"
        self.url = f"local:{self.socket}"
        self.server = Server(
            [sys.executable, "-c", program, "--set", f"registry={self.url}", "--set", f"data_dir={folder}/d"],
            log=folder / "registry.log",
        )

    async def stop(self) -> None:
        self.server.kill()

    async def start(self) -> None:
        self.server.start()

        async def there() -> bool:
            _, writer = await asyncio.open_unix_connection(str(self.socket))
            writer.close()
            return True

        await eventually("the registry's socket", there)

    async def expire(self, registry: ComposedRegistry) -> None:
        """Somebody else takes the session over and ends it: the very message a closing client sends."""
        _, end = await asyncio.get_running_loop().create_unix_connection(
            lambda: ClientEnd(lambda _message: None, lambda: None), str(self.socket)
        )
        end.send(messages.Hello(number=1, session=registry.store.connection.value.session))
        end.send(messages.Bye(number=2))
        await asyncio.sleep(0.1)
        end.close()

    async def close(self) -> None:
        await super().close()
        self.server.stop()


class OnZooKeeper(Backend):
    name = "zookeeper"

    def __init__(self, server: ZooKeeper) -> None:
        super().__init__()
        self.server = server
        self.url = f"{server.url}/{uuid4().hex}"

    async def stop(self) -> None:
        self.server.kill()

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def expire(self, registry: ComposedRegistry) -> None:
        """A second connection resumes the session and closes it; meanwhile the owner cannot connect and snatch it back."""
        client = bare_store(registry).client
        session, password = client._kazoo.client_id
        connect = struct.pack(">iqiqi", 0, 0, 10_000, session, len(password)) + password + b"\0"
        close = struct.pack(">ii", 1, -11)
        handler = client._handler
        handler.create_connection = _refuse
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            writer.write(struct.pack(">i", len(connect)) + connect + struct.pack(">i", len(close)) + close)
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()
        finally:
            del handler.create_connection

        async def forgotten() -> bool:
            """Among the sessions: a closed connection may stand in the dump's last part for seconds more."""
            dump = await asyncio.to_thread(self.server.command, "dump")
            return f"{session:#x}" not in dump.partition("Connections dump")[0]

        await eventually("the session is gone", forgotten)

    async def close(self) -> None:
        if not self.server.server.running():
            await self.start()
        await super().close()


def bare_store(registry: ComposedRegistry) -> ZooKeeperStore:
    store = registry.store.now if isinstance(registry.store, RelocatingStore) else registry.store
    assert isinstance(store, ZooKeeperStore)
    return store


def _refuse(*_arguments: object, **_options: object) -> None:
    raise ConnectionRefusedError


@pytest.fixture(scope="session")
def contract_zookeeper() -> Iterator[ZooKeeper]:
    """A ZooKeeper that these tests may kill."""
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    server = ZooKeeper(folder).start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["memory", "local", "zookeeper"])
async def backend(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[Backend]:
    async for made in _made(request, short_dir):
        yield made


@pytest.fixture(params=["local", "zookeeper"])
async def real_backend(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[Backend]:
    """Those that a process of its own can reach."""
    async for made in _made(request, short_dir):
        yield made


async def _made(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[Backend]:
    made: Backend
    match request.param:
        case "memory":
            made = Memory()
        case "local":
            made = Local(short_dir)
            await made.start()
        case _:
            made = OnZooKeeper(request.getfixturevalue("contract_zookeeper"))
    yield made
    await made.close()

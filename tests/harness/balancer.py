"""`fairlead lb` in the test's own loop, with a real HAProxy, over a registry the test writes to."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_daemon.processes import identify
from fairlead_discovery import paths
from fairlead_discovery.backends import open_registry
from fairlead_discovery.records import (
    Address,
    Discovery,
    Leaving,
    Member,
    Port,
    Progress,
    Reason,
    Route,
    RoutePort,
    TaskRef,
    decode,
    encode,
)
from fairlead_discovery.registry import Delete, Put
from fairlead_lb.adapters.store import Running
from fairlead_lb.daemon import run
from fairlead_lb.settings import LbSettings, lb_folder
from harness.ports import free_port, free_range
from harness.waiting import eventually

_names = itertools.count()


class Task:
    """A real HTTP server in the test's loop: says who it is, counts what it was asked, is slow when told to."""

    def __init__(self, task_id: str, *, app: str = "/shop/web", host: str = "127.0.0.1") -> None:
        self.id = task_id
        self.host = host
        self.app = app
        self.port = 0
        self.delay_s = 0.0
        self.seen: list[str] = []
        self.connections = 0
        self.status = 200
        self.last_headers: dict[str, str] = {}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> "Task":
        self._server = await asyncio.start_server(self._serve, self.host, port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """As a killed process: nothing is answered any more."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("PRI "):  # HTTP/2, which it does not speak
            writer.write(b"HTTP/1.1 400 no\r\nContent-Length: 0\r\n\r\n")
            return False
        path = head.split()[1]
        pairs = (line.partition(": ") for line in head.split("\r\n")[1:] if line)
        self.last_headers = {name.lower(): value for name, _, value in pairs}
        if path == "/health":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return "connection: close" not in head.lower()
        self.seen.append(f"{head.split()[0]} {path}")
        if "slow=" in path:
            await asyncio.sleep(float(path.rpartition("slow=")[2]))
        await asyncio.sleep(self.delay_s)
        body = self.id.encode()
        status = path.rpartition("status=")[2].partition("&")[0] if "status=" in path else str(self.status)
        moved = f"Location: {path.rpartition('moved=')[2]}\r\n" if "moved=" in path else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{moved}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return "connection: close" not in head.lower()

    def member(self) -> Member:
        return member(self.id, self.port, app=self.app, host=self.host)


def member(task_id: str, port: int, *, app: str = "/shop/web", host: str = "127.0.0.1", weight: float = 1.0) -> Member:
    return Member(
        serviceEndpoint=Address(host=host, port=port),
        task=TaskRef(id=task_id, name="web", framework="marathon", framework_id="f", agent="a", app=app),
        discovery=Discovery(),
        ports=(Port(index=0, number=port, host_port=port),),
        weight=weight,
        status="ALIVE",
    )


def route(app: str = "/shop/web", **port: Any) -> Route:
    return Route(service=f"marathon:{app}", app=app, ports=(RoutePort(index=0, **port),))


class Balancer:
    """Publishes what the master and the services would, runs `fairlead lb`, and asks HAProxy as a client."""

    def __init__(self, folder: Path, registry_url: str = "", **settings: Any) -> None:
        self.folder = folder
        self.url = registry_url or f"memory:lb{os.getpid()}-{next(_names)}"
        ports = free_range(10)
        self.settings = LbSettings(
            **{
                "registry": self.url,
                "data_dir": str(folder / "data"),
                "http_port": free_port(),
                "https_port": 0,
                "service_ports": f"{ports[0]}-{ports[-1]}",
                "max_connections": 500,
                "id": "lb",
                "token": "off",
                **settings,
            }
        )
        self.first_port = int(self.settings.service_ports.partition("-")[0] or 0)
        self.registry: Any = None
        self.context = Context(name="lb", log=Log("lb"))
        self._running: asyncio.Task[None] | None = None
        self.admin = ""

    async def __aenter__(self) -> Self:
        self.registry = await open_registry(self.url)
        return self

    async def __aexit__(self, *_error: object) -> None:
        try:
            await self.stop_daemon()
        finally:
            await self.registry.close()
            self.kill_haproxy()

    # --- the daemon ------------------------------------------------------------------------------------------------

    async def start(self) -> "Balancer":
        self.context = Context(name="lb", log=Log("lb"))
        port = self.settings.port if self.settings.port != 9090 else free_port()
        self.settings = msgspec.structs.replace(self.settings, port=port)
        self.admin = f"http://127.0.0.1:{port}"
        self._running = asyncio.create_task(run(self.settings, self.context))
        await eventually("it serves", self._serves, within_s=10)
        return self

    async def _serves(self) -> bool:
        if self._running is not None and self._running.done():
            await self._running
        status = await self.status()
        return bool(status["haproxy"]["running"] and status["trust"] != "unknown")

    async def stop_daemon(self) -> None:
        """SIGTERM's way: HAProxy serves on."""
        self.context.stop.set()
        if self._running is not None:
            await asyncio.wait_for(self._running, 10)
            self._running = None

    async def kill_daemon(self) -> None:
        """As kill -9: nothing is said, nothing is tidied."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    async def wait_ended(self) -> None:
        """Of itself, in order."""
        assert self._running is not None
        await asyncio.wait_for(self._running, 15)
        self._running = None

    def kill_haproxy(self) -> None:
        path = lb_folder(self.settings) / "process.json"
        if path.exists():
            running = msgspec.json.decode(path.read_bytes(), type=Running)
            for identity in (running.master, *running.workers):
                if identify(identity.pid) == identity:
                    os.kill(identity.pid, signal.SIGKILL)

    async def status(self, query: str = "fresh=1") -> dict[str, Any]:
        status, body = await fetch(self.admin, f"/status?{query}")
        assert status == 200, body
        value: dict[str, Any] = msgspec.json.decode(body)
        return value

    async def servers(self, service: str = "marathon:/shop/web") -> dict[str, str]:
        """Task -> state, as `/status` tells it."""
        found = [s for s in (await self.status())["services"] if s["service"] == service]
        return {server["task"]: server["state"] for s in found for server in s["servers"]}

    # --- what others write ------------------------------------------------------------------------------------------

    async def publish(self, *members: Member, routes: Iterable[Route] = ()) -> int:
        changes = [Put(paths.route(r.service), encode(r)) for r in routes]
        for one in members:
            data = encode(one)
            changes.append(Put(paths.member(f"marathon:{one.task.app}", paths.member_name(one.task.id, data)), data))
        revision: int = await self.registry.commit(changes)
        return revision

    async def publish_as(self, service: str, one: Member) -> int:
        data = encode(one)
        name = paths.member_name(one.task.id, data)
        revision: int = await self.registry.commit([Put(paths.member(service, name), data)])
        return revision

    async def leave(self, *members: Member, reason: Reason = Reason.KILL) -> int:
        """As the master does: away with the member, there with the leaving record, in one commit."""
        changes: list[Any] = []
        for one in members:
            name = paths.member_name(one.task.id, encode(one))
            service = f"marathon:{one.task.app}"
            changes.append(Delete(paths.member(service, name)))
            record = Leaving(task=one.task.id, service=service, member=name, reason=reason, deadline_s=4e9)
            changes.append(Put(paths.leaving(one.task.id), encode(record)))
        revision: int = await self.registry.commit(changes)
        return revision

    async def gone(self, *task_ids: str) -> int:
        revision: int = await self.registry.commit([Delete(paths.leaving(t)) for t in task_ids])
        return revision

    async def progress(self) -> Progress:
        node = await self.registry.read(paths.below(paths.PROGRESS, "lb"))
        assert node is not None, "no progress was written"
        return decode(Progress, node.data, place="progress")

    async def applied(self, revision: int, *, within_s: float = 10) -> Progress:
        """Waits until this balancer reports the revision."""

        async def probe() -> Progress | None:
            progress = await self.progress()
            return progress if progress.applied_revision >= revision else None

        found = await eventually(f"revision {revision} is applied", probe, within_s=within_s)
        assert found is not None
        return found

    # --- a client ----------------------------------------------------------------------------------------------------

    async def ask(self, host: str = "shop.example", path: str = "/", *, port: int = 0) -> tuple[int, str]:
        where = f"http://127.0.0.1:{port or self.settings.http_port}"
        return await fetch(where, path, host=host)


async def fetch(where: str, path: str, *, host: str = "", method: str = "GET") -> tuple[int, str]:
    """One request on a connection of its own: status and body. Raises OSError, also when the answer is cut."""
    place = where.removeprefix("http://")
    address, _, port = place.rpartition(":")
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection(address, int(port))
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host or place}\r\nConnection: close\r\n\r\n".encode())
            raw = await reader.read(-1)
        finally:
            writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/"):
        raise ConnectionError(f"cut answer: {raw[:40]!r}")
    return int(head.split()[1]), body.decode("utf-8", "replace")


async def service(place: Balancer, app: str, **port: Any) -> Task:
    """One task of the app, with a route, once it is served."""
    task = await Task(app.strip("/").replace("/", "-"), app=app).start()
    await place.applied(await place.publish(task.member(), routes=[route(app, **port)]))
    return task


@contextlib.asynccontextmanager
async def balancer(folder: Path, registry_url: str = "", **settings: Any) -> AsyncIterator[Balancer]:
    async with Balancer(folder, registry_url, **settings) as place:
        await place.start()
        yield place
    shutil.rmtree(folder / "data", ignore_errors=True)

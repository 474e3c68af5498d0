"""Two machines' node balancers that ask one another over mTLS, at two addresses of this one."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from harness.balancer import Balancer, Task, fetch, route
from harness.mesh import Caller, Mesh
from harness.ports import free_port
from harness.waiting import eventually

HERE, THERE = "127.0.0.2", "127.0.0.3"


@dataclasses.dataclass
class Pair:
    here: Balancer
    there: Balancer
    mesh: Mesh

    async def deploy(self, app: str, *hosts: str, **port: object) -> list[Task]:
        """A task on each of these machines, once both balancers serve them."""
        tasks = [await Task(f"{app.strip('/')}-{host[-1]}", app=app, host=host).start() for host in hosts]
        members = [t.member() for t in tasks]
        await self.applied(await self.here.publish(*members, routes=[route(app, vhosts=(vhost(app),), **port)]))
        return tasks

    async def applied(self, revision: int) -> None:
        for lb in (self.here, self.there):

            async def probe(lb: Balancer = lb) -> bool:
                return int((await lb.status())["applied_revision"] or 0) >= revision

            await eventually(f"revision {revision} is applied", probe, within_s=30)

    async def ask(self, app: str, path: str = "/", method: str = "GET") -> tuple[int, str]:
        """In plain, as a program of the first machine."""
        return await fetch(f"http://{HERE}:{self.here.settings.http_port}", path, host=vhost(app), method=method)

    def balancer(self, which: Balancer) -> Caller:
        """As whoever has stolen that balancer's certificate, or is it."""
        return Caller(which.folder / "data" / "lb-node" / "identity")


def vhost(app: str) -> str:
    return f"{app.strip('/').replace('/', '-')}.example"


@contextlib.asynccontextmanager
async def machine(folder: Path, url: str, address: str, mesh: Mesh, **more: object) -> AsyncIterator[Balancer]:
    folder.mkdir(mode=0o755)
    settings = {
        "node": True, "id": f"node-{address[-1]}", "machine": (address,), "bind": address, "locality": "machine",
        "mesh_bind": address, "mesh_port": free_port(), "mesh_between": True, "identity_authority": mesh.url,
        "spare_backends": 2, "keepalive_s": 2, "reserved_ports": "", **more,
    }  # fmt: skip
    async with Balancer(folder, url, **settings) as lb:
        yield lb


@contextlib.asynccontextmanager
async def two_machines(**more: object) -> AsyncIterator[Pair]:
    """Both have their identity, and take callers."""
    folder = Path(f"/tmp/fl-between-{os.getpid()}")
    folder.mkdir(mode=0o755)
    url, mesh = f"memory:{folder.name}", Mesh(folder)
    try:
        async with (
            machine(folder / "a", url, HERE, mesh, **more) as here,
            machine(folder / "b", url, THERE, mesh, **more) as there,
        ):
            await mesh.start(url)
            for lb in (here, there):
                await lb.start()
            for lb in (here, there):
                door = (lb.settings.mesh_bind, lb.settings.mesh_port)
                await eventually("its door is open", lambda door=door: is_there(*door), within_s=30)
            yield Pair(here, there, mesh)
            await mesh.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def is_there(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True

"""`fairlead lb` as a process of its own: what kills it is a real SIGKILL."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from fairlead_lb.settings import LbSettings
from harness.balancer import Balancer
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import eventually, wait_until

RUN = """
import asyncio, os, pathlib, signal, sys
from fairlead_daemon.main import main
from fairlead_lb.adapters import process
from fairlead_lb.daemon import DAEMON

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def dying(*args):
    where = pathlib.Path(sys.argv[1]).read_text()
    if where == "written":
        die()
    if where == "reloading":
        asyncio.get_running_loop().call_later(0.02, die)
    now = await told(*args)
    if where == "reloaded":
        die()
    return now

told, process.reload = process.reload, dying
sys.exit(main(DAEMON, sys.argv[2:]))
"""
"""Kills itself where the file of its first argument says, at its next reload."""
REGISTRYD = (
    "import sys; from fairlead_daemon.main import main; from fairlead_discovery.registryd import DAEMON;"
    " sys.exit(main(DAEMON, sys.argv[1:]))"
)


class BalancerProcess(Balancer):
    """As Balancer. Its registry must be one that several processes reach."""

    server: Server | None = None

    async def start(self) -> "BalancerProcess":
        port = self.settings.port if self.settings.port != LbSettings().port else free_port()
        self.settings = msgspec.structs.replace(self.settings, port=port)
        self.admin = f"http://127.0.0.1:{port}"
        self.die_at("")
        command = [sys.executable, "-c", RUN, str(self.folder / "die-at"), *_sets(self.settings)]
        self.server = Server(command, log=self.folder / "lb.log").start()
        await eventually("it serves", self._serves, within_s=30)
        return self

    async def stop_daemon(self) -> None:
        if self.server is not None:
            await asyncio.to_thread(self.server.stop)

    async def kill_daemon(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.kill)

    def die_at(self, where: str) -> None:
        """At its next reload: with the file `written`, 20 ms `reloading`, or `reloaded`; "": not at all."""
        (self.folder / "die-at").write_text(where)

    async def died(self) -> bool:
        return self.server is not None and not self.server.running()


def _sets(settings: LbSettings) -> Iterator[str]:
    plain = LbSettings()
    for name in settings.__struct_fields__:
        if (value := getattr(settings, name)) != getattr(plain, name):
            yield from ("--set", f"{name}={json.dumps(value)}")


@asynccontextmanager
async def balancer_process(folder: Path, registry_url: str, **settings: object) -> AsyncIterator[BalancerProcess]:
    async with BalancerProcess(folder, registry_url, **settings) as place:
        await place.start()
        yield place


@asynccontextmanager
async def local_registry(folder: Path) -> AsyncIterator[str]:
    """`fairlead registry` in a process of its own: its url."""
    url = f"local:{folder}/r.sock"
    (folder / "registry").mkdir()
    told = (f"registry={url}", f"data_dir={folder}/registry", "token=off", "port=0")
    command = [sys.executable, "-c", REGISTRYD, *(part for each in told for part in ("--set", each))]
    server = Server(command, log=folder / "registry.log").start()
    try:
        await asyncio.to_thread(wait_until, "the registry", lambda: os.path.exists(folder / "r.sock"), within_s=20)
        yield url
    finally:
        await asyncio.to_thread(server.stop)

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

RUN = (
    "import sys; from fairlead_daemon.main import main; from fairlead_lb.daemon import DAEMON;"
    " sys.exit(main(DAEMON, sys.argv[1:]))"
)
REGISTRYD = RUN.replace("fairlead_lb.daemon", "fairlead_discovery.registryd")
DYING = (
    "import asyncio, os, pathlib, signal, sys; from fairlead_daemon.main import main; from fairlead_lb.daemon import DAEMON;"
    " from fairlead_lb.adapters import process; told = process.reload\n"
    "def die(): os.kill(os.getpid(), signal.SIGKILL)\n"
    "async def dying(*args):\n"
    "  where = pathlib.Path(sys.argv[1]).read_text()\n"
    "  if where == 'written': die()\n"
    "  if where == 'reloading': asyncio.get_running_loop().call_later(0.02, die)\n"
    "  now = await told(*args)\n"
    "  if where == 'reloaded': die()\n"
    "  return now\n"
    "process.reload = dying; sys.exit(main(DAEMON, sys.argv[2:]))"
)
"""Kills itself where the file of its first argument says, at its next reload."""


class BalancerProcess(Balancer):
    """As Balancer. Its registry must be one that several processes reach."""

    server: Server | None = None

    async def start(self, die_at: str = "") -> "BalancerProcess":
        port = self.settings.port if self.settings.port != LbSettings.port else free_port()
        self.settings = msgspec.structs.replace(self.settings, port=port)
        self.admin = f"http://127.0.0.1:{port}"
        (self.folder / "die-at").write_text(die_at)
        command = [sys.executable, "-c", DYING, str(self.folder / "die-at")] if die_at else [sys.executable, "-c", RUN]
        self.server = Server([*command, *_sets(self.settings)], log=self.folder / "lb.log").start()
        await eventually("it serves", self._serves, within_s=30)
        return self

    async def stop_daemon(self) -> None:
        if self.server is not None:
            await asyncio.to_thread(self.server.stop)

    async def kill_daemon(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.kill)

    async def died(self) -> bool:
        return self.server is not None and not self.server.running()


def _sets(settings: LbSettings) -> Iterator[str]:
    given = {name: value for name in settings.__struct_fields__ if (value := getattr(settings, name)) != _default(name)}
    for name, value in given.items():
        yield from ("--set", f"{name}={json.dumps(value)}")


def _default(name: str) -> object:
    return getattr(LbSettings(), name)


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

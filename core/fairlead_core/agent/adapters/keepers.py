"""The keeper over its lives: one that dies is noticed at once, what it left is ended, another takes its place."""

import asyncio
import os
import random
from collections.abc import Callable, Mapping

from fairlead_core.agent import metrics
from fairlead_core.agent.adapters.keeper_link import KeeperLink, connect, end_what_is_left
from fairlead_core.agent.keeper.protocol import Held
from fairlead_core.agent.keeper.records import Folder
from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.processes import Identity, alive
from fairlead_daemon.web import Health

log = Log("agent.keeper")
_BACKOFF = Backoff(first_s=0.2, most_s=5.0)


class Keepers:
    """`link()` waits for a living keeper. `adopt` gets every keeper's list first, `ended` every exit after it."""

    def __init__(self, folder: Folder, instance: str, health: Health) -> None:
        self._folder = folder
        self._instance = instance
        self._health = health
        self._link: KeeperLink | None = None
        self._there = asyncio.Event()

    async def link(self) -> KeeperLink:
        await self._there.wait()
        assert self._link is not None
        return self._link

    def pid(self) -> int:
        """0 while there is none."""
        return self._link.identity.pid if self._link is not None else 0

    async def run(self, adopt: Callable[[Mapping[str, Held]], None], ended: Callable[[Held], None]) -> None:
        """For ever: keeps a keeper there. `adopt` and `ended` are called in the order things happened."""
        failures = 0
        while True:
            try:
                link = await connect(self._folder, self._instance)
            except (FairleadError, OSError) as error:
                self._health.wait("keeper", str(error))
                log.warning("no keeper", why=str(error))
                await asyncio.sleep(_BACKOFF.delay_s(failures, chance=random.random()))  # noqa: S311  # jitter
                failures += 1
                continue
            failures = 0
            await self._live_with(link, adopt, ended)

    async def _live_with(
        self, link: KeeperLink, adopt: Callable[[Mapping[str, Held]], None], ended: Callable[[Held], None]
    ) -> None:
        early: list[Held] = []
        sink: Callable[[Held], None] = early.append

        def exited(held: Held) -> None:
            sink(held)

        async with asyncio.TaskGroup() as group:
            listening = group.create_task(link.listen(exited))
            watching = group.create_task(_until_dead(link))
            try:
                adopt(await link.held())
                for held in early:
                    ended(held)
                sink = ended
                self._open(link)
                await link.gone.wait()
            except Unavailable as error:
                log.warning("keeper lost while being adopted", why=str(error))
            finally:
                self._shut(link)
                listening.cancel()
                watching.cancel()
        await self._after(link.identity)

    def _open(self, link: KeeperLink) -> None:
        self._link = link
        self._there.set()
        self._health.ready("keeper")
        log.info("keeper adopted", pid=link.identity.pid)

    def _shut(self, link: KeeperLink) -> None:
        self._there.clear()
        self._link = None
        link.close()

    async def _after(self, identity: Identity) -> None:
        """A connection alone may be lost too; only a dead keeper's tasks are ended."""
        if alive(identity):
            return
        metrics.KEEPER_DEATHS.inc()
        self._health.wait("keeper", "it died; another is being started")
        log.error("keeper died, ending its tasks", pid=identity.pid)
        if not await end_what_is_left(self._folder, self._instance):
            log.error("some processes of the dead keeper would not end")


async def _until_dead(link: KeeperLink) -> None:
    """Closes the link when its process ends: a pidfd tells of processes that are not our children."""
    loop = asyncio.get_running_loop()
    try:
        handle = os.pidfd_open(link.identity.pid)
    except OSError:
        link.close()
        return
    loop.add_reader(handle, link.close)
    try:
        await link.gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)

"""What the rest of the house sees of this balancer: its registration and its progress, in the registry."""

import asyncio
import time
from collections.abc import Callable

import msgspec

from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.waiting import within
from fairlead_discovery import paths
from fairlead_discovery.records import Balancer, Progress, encode
from fairlead_discovery.registry import Registry

log = Log("lb.reporter")
PAUSE_S = 0.1  # at most ten a second
RENEW_S = 10.0  # a registry restored from elsewhere, or an operator's mistake, lost it
WRITE_S = 5.0


class Reporter:
    """Writes the newest progress; a write whose outcome is unknown is simply written again."""

    def __init__(self, registry: Registry, me: Balancer, newest: Callable[[], Progress | None]) -> None:
        self._registry = registry
        self._me = me
        self._newest = newest

    async def run(self, changed: asyncio.Event) -> None:
        """For ever. Registered before the first progress: from then on kills wait for us."""
        failed = False
        while True:
            changed.clear()
            try:
                await self._write()
                failed = False
            except FairleadError as error:
                if not failed:
                    log.warning("progress is not written", reason=str(error))
                failed = True
                changed.set()
            await asyncio.sleep(PAUSE_S if not failed else 10 * PAUSE_S)
            if self._me.node and not failed:  # nobody waits for its word, and there is one a machine
                await asyncio.sleep(RENEW_S)
            else:
                await within(changed, RENEW_S)

    async def end(self) -> None:
        """Takes the registration away: HAProxy has really stopped. Raises Unavailable."""
        for folder in (paths.BALANCERS, paths.PROGRESS):
            try:
                async with asyncio.timeout(WRITE_S):
                    await self._registry.remove(paths.below(folder, self._me.id))
            except TimeoutError as error:
                raise Unavailable(f"registry: {folder}/{self._me.id} was not removed") from error

    async def _write(self) -> None:
        newest = self._newest()
        try:
            async with asyncio.timeout(WRITE_S):
                await self._registry.write(paths.below(paths.BALANCERS, self._me.id), encode(self._me))
                if newest is not None:
                    await self._registry.write(
                        paths.below(paths.PROGRESS, self._me.id),
                        encode(msgspec.structs.replace(newest, written_s=time.time())),
                    )
        except TimeoutError as error:
            raise Unavailable("registry: no answer") from error

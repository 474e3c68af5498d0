"""From a command to a process of the keeper: prepared as its user, spawned once, ended, forgotten."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from fairlead_core.agent.adapters.accounts import Account, unreachable
from fairlead_core.agent.adapters.sandboxes import fetch
from fairlead_core.agent.decisions import tasks
from fairlead_core.agent.keeper.protocol import Held, Launch
from fairlead_core.agent.world import World
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log

KEEPER_RETRY_S = 0.05
log = Log("agent.task")


class Child:
    """One key at the keeper. Asked again of the next keeper when one dies: every request is idempotent."""

    def __init__(self, world: World, key: str) -> None:
        self._world = world
        self._key = key

    async def prepare(
        self, command: tasks.Command, account: Account, sandbox: Path, environment: Mapping[str, str]
    ) -> Launch:
        """All that can be refused before anything runs. Raises Refused with the reason."""
        if barrier := unreachable(self._world.sandboxes.root, account):
            raise Refused(f"sandbox: {barrier}")
        self._world.sandboxes.make(sandbox, account)
        for uri in command.uris:
            await fetch(uri, sandbox, account)
        return Launch(
            key=self._key,
            argv=tasks.argv(command),
            env=environment,
            folder=str(sandbox),
            stdout=str(sandbox / "stdout"),
            stderr=str(sandbox / "stderr"),
            uid=account.uid,
            gid=account.gid,
            resolv_conf=await self._world.resolver.file(),
        )

    async def spawn(self, launch: Launch) -> Held:
        """Raises Refused when it cannot start, in words."""
        while True:
            link = await self._world.keepers.link()
            try:
                return await link.spawn(launch)
            except Unavailable as error:
                log.warning("spawn not answered, asking again", key=self._key, why=str(error))
                await asyncio.sleep(KEEPER_RETRY_S)

    async def end(self, grace_s: float) -> None:
        while True:
            link = await self._world.keepers.link()
            try:
                await link.end(self._key, grace_s=grace_s)
            except Unavailable:
                await asyncio.sleep(KEEPER_RETRY_S)
            else:
                return

    async def forget(self) -> None:
        while True:
            link = await self._world.keepers.link()
            try:
                await link.forget(self._key)
            except Unavailable:
                await asyncio.sleep(KEEPER_RETRY_S)
            except Refused as error:
                log.warning("the keeper keeps it", key=self._key, why=str(error))
                return
            else:
                return

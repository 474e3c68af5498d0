"""Serials go on where a registry has begun anew: one that was replaced has a lower revision than secondaries have heard.

The serial is then the revision and what stands in the registry beside it, for all its name servers, so that it goes on
from the last one that was said (RFC 1982), instead of standing still until the revision has caught up.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fairlead_daemon.errors import Conflict, FairleadError
from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.registry import NEW, Node, Registry
from fairlead_dns.decisions.journal import later
from fairlead_dns.names import SERIALS, Names

log = Log("dns")
NAME = "ahead"
READ_S = 5.0
CALM_S = 1.0


def parse(node: Node | None) -> int:
    """0 for what nobody of ours wrote."""
    text = node.data.decode("ascii", "replace") if node is not None else ""
    return int(text) % SERIALS if text.isascii() and text.isdigit() else 0


@dataclass(slots=True)
class Onward:
    """`file` holds the last serial that was said, so that it is known after a restart too."""

    names: Names
    registry: Registry
    file: Path
    floor: int | None = None
    _heard: bool = False
    _kept: int | None = None
    _path: str = field(default=paths.below(paths.NAME_SERIALS, NAME))

    async def run(self) -> None:
        """For ever: hears what other servers have put there, and keeps what was said."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._keep())

    async def load(self) -> None:
        self.floor = await asyncio.to_thread(_serial_in, self.file)

    async def hear(self) -> None:
        """What stands there now, as well as it can be known: out of sight it is heard later."""
        try:
            async with asyncio.timeout(READ_S):
                self._take(parse(await self.registry.read(self._path)))
        except (FairleadError, TimeoutError) as error:
            log.debug("not read how far serials are ahead", why=str(error) or "no answer")

    async def allows(self) -> bool:
        """Whether the serial of this moment may be said. If it is behind, it will be another one soon.

        Raises Unavailable, Refused.
        """
        if not self._heard:
            async with asyncio.timeout(READ_S):
                self._take(parse(await self.registry.read(self._path)))
        known = self.names.ledger.serial if self.names.ledger.serial is not None else self.floor
        if known is None or not later(known, self.names.serial_now):
            return True
        await self._step(known)
        return False

    async def _step(self, known: int) -> None:
        async with asyncio.timeout(READ_S):
            node = await self.registry.read(self._path)
            ahead = parse(node)
            if later(known, (self.names.snapshot.revision + ahead) % SERIALS):
                ahead = (known + 1 - self.names.snapshot.revision) % SERIALS
                with suppress(Conflict):  # another server was first: it is heard of, and looked at again
                    await self.registry.write(self._path, b"%d" % ahead, expect=NEW if node is None else node.version)
                    log.warning(
                        "the registry's revision is below the last serial, serials go on from there",
                        revision=self.names.snapshot.revision,
                        serial=known,
                    )
        self._take(ahead)

    async def _follow(self) -> None:
        async for nodes in self.registry.follow(paths.NAME_SERIALS):
            self._take(parse(nodes.get(NAME)))

    def _take(self, ahead: int) -> None:
        self._heard = True
        if ahead != self.names.ahead:
            self.names.ahead = ahead
            self.names.applied.set()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(CALM_S)
            serial = self.names.ledger.serial
            if serial is not None and serial != self._kept:
                self._kept = serial
                try:
                    await asyncio.to_thread(replace_file, self.file, b"%d\n" % serial)
                except OSError as error:
                    log.warning("serial not kept", file=self.file, why=str(error))


def _serial_in(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) % SERIALS if text.isascii() and text.isdigit() else None

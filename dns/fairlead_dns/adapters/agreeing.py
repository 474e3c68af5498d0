"""Gives serials to names that come from a Mesos master, the same on all servers that share a registry for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fairlead_daemon.errors import Conflict, FairleadError
from fairlead_daemon.logs import Log
from fairlead_discovery.registry import NEW, Registry
from fairlead_discovery.snapshots import Trust
from fairlead_dns.adapters.settling import shared_path
from fairlead_dns.decisions.agreeing import Content, Word, agree, parse_word
from fairlead_dns.decisions.settling import OWN
from fairlead_dns.names import Names

log = Log("dns")
READ_S = 5.0
AGAIN_S = 1.0


@dataclass(slots=True)
class Agreeing:
    """Owned by one task. While the registry is out of sight secondaries stay at the serial they have."""

    names: Names
    registry: Registry
    settled: Callable[[], None]
    """Called when there is something new to fetch."""
    resume: Callable[[], Awaitable[None]] | None = None
    """See Settler."""
    _path: str = field(init=False)
    _away: bool = False

    def __post_init__(self) -> None:
        self._path = shared_path(self.names)

    async def run(self) -> None:
        content = None
        while True:
            await self.names.applied.wait()
            self.names.applied.clear()
            if self.names.applying or self.names.answers.trust is None:
                continue  # the end of it sets `applied` again
            if self.resume is not None:
                resume, self.resume = self.resume, None
                await resume()
                self.names.applied.set()  # much may have changed meanwhile
                continue
            if content is None:
                content = Content(self.names.ledger, self._own())
            try:
                serial = await self._agreed(content)
            except Conflict:  # another server was first
                self.names.applied.set()
            except (FairleadError, TimeoutError) as error:
                self._tell_away(str(error) or "no answer")
                await asyncio.sleep(AGAIN_S)
                self.names.applied.set()
            else:
                if serial is not None:
                    await self._settle(content, serial)

    async def _agreed(self, content: Content) -> int | None:
        """None: the names have changed meanwhile, or are old ones that nobody has given a serial."""
        counted, digest, known = self.names.version, content.digest(), self.names.ledger.serial
        async with asyncio.timeout(READ_S):
            node = await self.registry.read(self._path)
            word = Word() if node is None else parse_word(node.data.decode("ascii", "replace"))
            serial, said = agree(word, digest, known, now_s=time.time())
            if said is not None and self.names.answers.trust is not Trust.LIVE:
                return None
            if said is not None:
                expect = NEW if node is None else node.version
                await self.registry.write(self._path, said.text.encode(), expect=expect)
        if self._away:
            log.info("serials are agreed upon again")
        self._away = False
        return serial if self.names.version == counted and not self.names.applying else None

    async def _settle(self, content: Content, serial: int) -> None:
        content.settling()
        for moved in self.names.settling(serial=serial):
            if moved:
                self.settled()
            await asyncio.sleep(0)  # queries have their turn

    def _own(self) -> frozenset[bytes]:
        records = (r for who, some in self.names.sources.others.items() if who.startswith(OWN[0]) for r in some)
        return frozenset(record.owner for record in records)

    def _tell_away(self, why: str) -> None:
        if not self._away:
            log.warning("serials not agreed upon, secondaries stay where they are", why=why)
        self._away = True

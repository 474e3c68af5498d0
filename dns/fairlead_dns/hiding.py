"""Zone files within a domain that is served from endpoints: what they hide, for the log and the metric."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fairlead_daemon.logs import Log
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.static import hidden_from, hidden_names
from fairlead_dns.names import Names

log = Log("dns")
LOOK_S = 1.0
SLICE = 2000  # names looked at between two turns of the queries
TOLD = 5  # names in the log: who has read so many knows which they are


@dataclass(slots=True)
class Hiding:
    """`apexes` are those of zone files, also of broken ones: these hide as much. Told once when they come, and once
    when names come to be hidden.
    """

    names: Names
    apexes: Callable[[], Iterable[bytes]]
    counts: dict[bytes, int] = field(default_factory=dict)
    """Of each zone file that may hide names: how many it does."""
    _seen: tuple[int, frozenset[bytes]] = (-1, frozenset())

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        domains = self.names.authority.apexes
        found = frozenset(apex for apex in self.apexes() if hidden_from(apex, domains) is not None)
        version = self.names.version if found else 0
        if (version, found) == self._seen:
            return
        self._seen = version, found
        for apex in self.counts.keys() - found:
            del self.counts[apex]
        for apex in sorted(found):
            self._count(apex, await self._hidden(apex))

    async def _hidden(self, apex: bytes) -> list[bytes]:
        every = list(self.names.zone.names)
        found: list[bytes] = []
        for at in range(0, len(every), SLICE):
            found += (name for name in hidden_names(apex, every[at : at + SLICE]) if not self._is_own(name))
            await asyncio.sleep(0)
        return found

    def _is_own(self, name: bytes) -> bool:
        """The reverse name of a known address: a zone of its own, which nothing above it hides."""
        route = self.names.front.routes.get(name)
        return route is not None and route.handler is self.names.answers

    def _count(self, apex: bytes, hidden: list[bytes]) -> None:
        before = self.counts.get(apex)
        self.counts[apex] = len(hidden)
        if before is not None and (before or not hidden):
            return
        domain = hidden_from(apex, self.names.authority.apexes)
        log.warning(
            "a zone file lies within a domain served from endpoints, and hides their names",
            zone=wire.text(apex),
            domain=wire.text(domain or b"\0"),
            hidden=len(hidden),
            such_as=",".join(sorted(map(wire.text, hidden))[:TOLD]),
        )

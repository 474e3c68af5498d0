"""Finding a service from a program, without DNS: its endpoints as they are now, and which to use next.

async with Resolver("zk://h1:2181,h2:2181") as resolver:  # or http://h1:8400,h2:8400, or an open Registry
    endpoint = resolver.pick("web-shop.marathon.mesos", client_zone="eu-1")
    async for endpoints in resolver.watch("marathon:/shop/web"):
        ...
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_discovery.adapters.listing_client import Servers, http_snapshots, is_http, parse_urls
from fairlead_discovery.announcing import first
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.delta import differing
from fairlead_discovery.decisions.picking import Endpoint, Pool, Strategy, endpoints
from fairlead_discovery.decisions.service_names import Meant, NameIndex, Naming, Wanted, parse
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import UNKNOWN, Snapshot
from fairlead_discovery.store import Cell

FIRST_S = 5.0
"""How long entering waits for a first snapshot; after it a Resolver without one says that nothing is known."""


class Resolver:
    """Reads the registry while it is entered; `pick` never waits. Names may be service keys, app ids or DNS names.

    `source` is a Registry, its URL, or `http://h1:8400,h2:8400`: servers of the HTTP watch API, one of which is asked
    (with the token in `token_file`, if any) for all services, or for `names` alone: then others are Refused.
    Out of sight the last good state is used; with `keep`, a file, also after a restart. Servers that deny us while
    nothing is known are Refused, by entering or by the next question.
    """

    def __init__(
        self,
        source: Registry | str,
        *,
        naming: Naming = Naming(),  # noqa: B008  # frozen
        keep: Path | None = None,
        names: Collection[str] = (),
        token_file: Path | None = None,
    ) -> None:
        self._source = source
        self._only = frozenset(names)
        self._token_file = token_file
        self._domain = naming.domain
        self._keep = keep
        self._index = NameIndex(naming.spec)
        self._snapshot = Cell(UNKNOWN)
        self._known = asyncio.Event()
        self._pools: dict[str, Pool] = {}
        self._meanings: dict[str, frozenset[Meant]] = {}
        """Of each pool's name."""
        self._turns: dict[str, int] = {}
        self._loads: dict[str, int] = {}
        self._reading: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reading = asyncio.get_running_loop().create_task(self._read())
        self._reading.add_done_callback(self._end)
        try:
            async with asyncio.timeout(FIRST_S):
                await first(self._known, self._ended)
        except TimeoutError:
            pass
        self._raise_ended()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    @property
    def snapshot(self) -> Snapshot:
        """What picks go by, with how far it is to be believed."""
        return self._snapshot.value

    def endpoints(self, name: str) -> tuple[Endpoint, ...]:
        """By address; () when there are none. Raises Refused for what names no service."""
        return self._pool(name).endpoints

    def services(self, name: str) -> frozenset[str]:
        """The keys of the services so called: a key means its own, though there may be none; a name of one instance
        means none. Raises Refused for what names no service.
        """
        return frozenset(one.service for one in self._index.meant(self._parsed(name)) if one.instance is None)

    async def watch(self, name: str) -> AsyncIterator[tuple[Endpoint, ...]]:
        """The endpoints at once and at every change of them. Raises Refused as `endpoints`."""
        last: tuple[Endpoint, ...] | None = None
        while not self._ended.is_set():
            changed = self._snapshot.changed
            now = self.endpoints(name)
            if now != last:
                last = now
                yield now
            await first(changed, self._ended)
        self._raise_ended()

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """The newest snapshot at once and after every change of anything, coalesced."""
        while not self._ended.is_set():
            changed = self._snapshot.changed
            yield self._snapshot.value
            await first(changed, self._ended)
        self._raise_ended()

    def pick(self, name: str, *, key: str = "", client_zone: str = "", strategy: Strategy | None = None) -> Endpoint:
        """Without a strategy: RING with a key, LOCAL with a zone, else LEAST_OF_TWO. A strategy looks at nothing else:
        RENDEZVOUS and RING at the key, LOCAL at the zone.

        Raises Unavailable when there is no endpoint, Refused for what names no service.
        """
        pool = self._pools.get(name) or self._pool(name)
        if not pool.endpoints:
            raise Unavailable(f"{name}: no endpoint ({self.snapshot.why or 'none is published'})")
        if strategy is None:
            strategy = Strategy.RING if key else Strategy.LOCAL if client_zone else Strategy.LEAST_OF_TWO
        return STRATEGIES[strategy](self, pool, _Asked(name, key, client_zone))

    def pick_other(self, name: str, tried: Collection[Endpoint], *, client_zone: str = "") -> Endpoint:
        """One that was not tried yet. Raises Unavailable when all were."""
        left = Pool(endpoint for endpoint in self.endpoints(name) if endpoint not in tried)
        if not left.endpoints:
            raise Unavailable(f"{name}: none of {len(tried)} endpoints answers")
        return left.local(client_zone, random.random())  # noqa: S311  # balance, no secret

    @contextmanager
    def using(self, endpoint: Endpoint) -> Iterator[Endpoint]:
        """Counts a request in flight, which LEAST_OF_TWO goes by."""
        self.begin(endpoint)
        try:
            yield endpoint
        finally:
            self.end(endpoint)

    def begin(self, endpoint: Endpoint) -> None:
        self._loads[endpoint.name] = self._loads.get(endpoint.name, 0) + 1

    def end(self, endpoint: Endpoint) -> None:
        left = self._loads.get(endpoint.name, 0) - 1
        if left > 0:
            self._loads[endpoint.name] = left
        else:
            self._loads.pop(endpoint.name, None)

    # --- how

    def _raise_ended(self) -> None:
        """Raises what reading ended with, or Unavailable when it was closed; nothing while it goes on."""
        if not self._ended.is_set():
            return
        assert self._reading is not None, "only it sets the event"
        error = None if self._reading.cancelled() else self._reading.exception()
        raise error or Unavailable("the resolver is closed")

    def _end(self, _: asyncio.Task[None]) -> None:
        self._pools = {}  # the next pick says why nothing is read any more
        self._ended.set()

    async def _read(self) -> None:
        if isinstance(self._source, str) and not is_http(self._source):
            registry = await _opened(self._source)
            try:
                await self._follow(snapshots(registry, keep=self._keep))
            finally:
                await registry.close()
        elif isinstance(self._source, str):
            urls = parse_urls(self._source)
            only = tuple(sorted(self._only))
            servers = Servers(urls=urls, names=only, token_file=self._token_file, keep=self._keep)
            await self._follow(http_snapshots(servers))
        else:
            await self._follow(snapshots(self._source, keep=self._keep))

    async def _follow(self, source: AsyncIterator[Snapshot]) -> None:
        async with aclosing(source) as found:  # type: ignore[type-var]  # a generator
            async for snapshot in found:
                self._take(snapshot)

    def _take(self, snapshot: Snapshot) -> None:
        changed = frozenset(differing(self._snapshot.value.members, snapshot.members, snapshot.delta))
        self._index.take(snapshot.members, changed)
        self._snapshot.set(snapshot)
        for name in [*self._pools] if changed else ():
            meant = self._meanings[name]
            if any(one.service in changed for one in meant) or meant != self._index.meant(self._parsed(name)):
                del self._pools[name], self._meanings[name]
        if snapshot.revision >= 0:
            self._known.set()

    def _parsed(self, name: str) -> Wanted:
        return parse(name, domain=self._domain)

    def _pool(self, name: str) -> Pool:
        pool = self._pools.get(name)
        if pool is None:
            self._raise_ended()
            wanted = self._parsed(name)
            if self._only and name not in self._only:
                raise Refused(f"{name}: not among the names that this resolver was made for")
            meant, members = self._index.meant(wanted), self._snapshot.value.members
            found = ((one.service, one.of(members.get(one.service, {}).values())) for one in meant)
            pool = Pool({e for service, those in found for e in endpoints(service, those, wanted.port)})
            if pool.endpoints:  # names that mean nothing are not kept: there are endlessly many
                self._pools[name], self._meanings[name] = pool, meant
        return pool

    def _turn(self, pool: Pool, asked: "_Asked") -> Endpoint:
        number = self._turns[asked.name] = self._turns.get(asked.name, 0) + 1
        return pool.turn(number)

    def _least(self, pool: Pool, _: "_Asked") -> Endpoint:
        return pool.least_of_two((random.random(), random.random()), self._loads)  # noqa: S311  # balance, no secret


async def _opened(url: str) -> Registry:
    """Whoever gives up before it is open leaves no session behind."""
    opening = asyncio.ensure_future(open_registry(url))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await (await opening).close()
        raise


class _Asked(NamedTuple):
    name: str
    key: str
    zone: str


STRATEGIES: Mapping[Strategy, Callable[[Resolver, Pool, _Asked], Endpoint]] = {
    Strategy.RANDOM: lambda _, pool, __: pool.random(random.random()),  # noqa: S311  # balance, no secret
    Strategy.ROUND_ROBIN: Resolver._turn,  # noqa: SLF001  # the table of its own methods
    Strategy.LEAST_OF_TWO: Resolver._least,  # noqa: SLF001  # see above
    Strategy.LOCAL: lambda _, pool, asked: pool.local(asked.zone, random.random()),  # noqa: S311  # see above
    Strategy.RENDEZVOUS: lambda _, pool, asked: pool.rendezvous(asked.key),
    Strategy.RING: lambda _, pool, asked: pool.ring(asked.key),
}

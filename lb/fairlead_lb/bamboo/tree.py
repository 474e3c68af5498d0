"""A Bamboo's tree in its ZooKeeper, read and followed. Nothing is ever written there."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from fairlead_daemon.backoff import Backoff
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_daemon.waiting import within
from fairlead_discovery.adapters.zookeeper import Client, Link
from fairlead_discovery.decisions.sessions import Event
from fairlead_discovery.policies import Bamboo
from fairlead_lb.bamboo.settings import place_of
from fairlead_lb.decisions.bamboo_records import rule_of

log = Log("lb.bamboo")
AT_ONCE = 500
AGAIN_S = 30.0
"""Bamboo touches the parent with every change; others may not, and are found by looking."""
FIRST_S = 6.0
BACKOFF = Backoff(first_s=0.2, most_s=5.0)
OVER = frozenset({Event.REFUSED, Event.ENDED})


class BambooTree:
    """`rules` by service, and `skipped` nodes with the reason. Made in a running event loop."""

    def __init__(self, url: str, framework: str) -> None:
        self.rules: Mapping[str, Bamboo] = {}
        self.skipped: Mapping[str, str] = {}
        self.problem = "not read yet"
        """Why it is out of sight; "" when it is not."""
        self._framework = framework
        self._place = place_of(url)
        self._path = self._place.root
        self._wake = asyncio.Event()
        self._up = asyncio.Event()
        self._over = False
        self._watched: set[str] = set()
        self._by_name: dict[str, Bamboo] = {}
        self._client = Client(replace(self._place, root=""), self._linked)

    async def read(self) -> None:
        """All of it, now. Raises Unavailable, and Refused when there is no such path."""
        try:
            async with asyncio.timeout(FIRST_S):
                await self._up.wait()
        except TimeoutError as error:
            raise Unavailable(f"{self._place.name}: out of sight") from error
        await self._parent()
        names = await self._client.children(self._path, self._watch("children"))
        if names is None:
            self._watched.clear()  # there is none on what is not there
            raise Refused(f"{self._place.name}: no such node")
        nodes: dict[str, bytes] = {}
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            found = await self._client.get_many([f"{self._path}/{name}" for name in part])
            nodes |= {name: data for name, data in zip(part, found, strict=True) if isinstance(data, bytes)}
        self._decode(nodes)

    async def _parent(self) -> None:
        """For its watch alone: Bamboo sets it after each change of a child."""
        if "data" not in self._watched:
            await self._client.get(self._path, self._watch("data"))

    def _decode(self, nodes: Mapping[str, bytes]) -> None:
        """A node that cannot be read keeps what it said last."""
        kept, skipped = {}, {}
        for name in sorted(nodes):
            try:
                kept[name] = rule_of(self._framework, name, nodes[name])
            except Refused as error:
                skipped[name] = str(error)
                if name in self._by_name:
                    kept[name] = self._by_name[name]
        for name, why in skipped.items():
            if self.skipped.get(name) != why:
                log.warning("node of bamboo's tree skipped", node=f"{self._path}/{name}", why=why)
        self._by_name, self.skipped = kept, skipped
        self.rules = {rule.service: rule for rule in kept.values()}

    async def follow(self, take: Callable[[Mapping[str, Bamboo]], None]) -> None:
        """For ever: at once, then at every change. Out of sight, or gone, its last rules stay."""
        attempt = 0
        while True:
            self._wake.clear()
            try:
                await self.read()
                take(self.rules)
                self.problem = ""
                attempt, wait_s = 0, AGAIN_S
            except (Unavailable, Refused) as error:
                if not attempt:
                    log.warning("bamboo's tree is not read, its last rules stay", why=str(error))
                self.problem = str(error)
                wait_s = BACKOFF.delay_s(attempt, chance=random.random())  # noqa: S311  # jitter
                attempt += 1
            await within(self._wake, wait_s)
            if self._over:
                self._over = False
                await self._client.begin_again()

    def _watch(self, what: str) -> Callable[[], None] | None:
        """At most one of each kind at a time."""
        if what in self._watched:
            return None
        self._watched.add(what)

        def fired() -> None:
            self._watched.discard(what)
            self._wake.set()

        return fired

    def _linked(self, link: Link) -> None:
        """A new connection knows nothing of our watches."""
        self._watched.clear()
        if link.session:
            self._up.set()
        elif link.event is not Event.SUSPENDED:
            self._up.clear()
        self._over = self._over or link.event in OVER
        self._wake.set()

    async def close(self) -> None:
        await self._client.close()


async def read_once(url: str, framework: str) -> BambooTree:
    """For an import. Raises BadSettings, Unavailable, Refused. Closed already."""
    tree = BambooTree(url, framework)
    try:
        await tree.read()
    finally:
        await tree.close()
    return tree

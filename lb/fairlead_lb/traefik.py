"""Writes Traefik's tree into the registry's ZooKeeper: one elected balancer, only what differs."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress

from fairlead_daemon.errors import Conflict, FairleadError
from fairlead_daemon.logs import Log
from fairlead_discovery import paths
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.decisions.ops import AnyOp, Check, Drop, Set
from fairlead_lb import metrics
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.traefik import MARK, PREFIX, ROUTERS, SERVICES, Put, Remove, Step, applied, steps, tree

log = Log("lb.traefik")
ROLE = "traefik"
LOOK_S = 0.2
CALM = 5
"""So many times as long as a change took nothing more is looked at: a large tree must not keep the loop busy."""
RETRY_S = 1.0
WRITE_S = 20.0
READS = 200


class TraefikWriter:
    """`newest` is what is wanted, None while it may not be believed."""

    def __init__(
        self, registry: ComposedRegistry, root: str, entrypoints: Sequence[str], newest: Callable[[], Wanted | None]
    ) -> None:
        self._registry = registry
        self._root = root
        self._entrypoints = entrypoints
        self._newest = newest
        self._there: dict[str, str] = {}
        self._marks: tuple[str, ...] = ()
        self._epoch = 0
        self._count = 0

    async def run(self, name: str) -> None:
        """For ever: writes while elected."""
        writing: asyncio.Task[None] | None = None
        try:
            async with aclosing(self._registry.campaign(ROLE, name.encode())) as standings:  # type: ignore[type-var]  # a generator
                async for standing in standings:
                    if writing is not None:
                        await _ended(writing)
                    writing = None
                    if standing.leading:
                        self._epoch = standing.epoch
                        writing = asyncio.create_task(self._write())
                        log.info("writes traefik's tree", root=self._root)
        finally:
            if writing is not None:
                await _ended(writing)

    async def _write(self) -> None:
        """While we lead. What stands there is read again after each failure: its outcome may be unknown."""
        known: Wanted | None = None
        read = False
        told: object = None
        while True:
            begin = time.monotonic()
            wanted = self._newest()
            try:
                if not read:
                    await self._read()
                    read, known = True, None
                if wanted is not None and wanted is not known:
                    await self._bring(wanted)
                    known = wanted
                told = None
            except (FairleadError, TimeoutError) as error:
                read = False
                if str(error) != told:
                    log.warning("traefik's tree is not written", why=str(error))
                told = str(error)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(max(LOOK_S, CALM * (time.monotonic() - begin)))

    async def _bring(self, wanted: Wanted) -> None:
        """Raises Conflict when another leads by now, Unavailable."""
        found = tree(wanted, self._entrypoints)
        self._count += 1
        mark = f"{MARK}{self._epoch}-{self._count}"
        for batch in steps(self._there, found.nodes, mark, self._marks):
            async with asyncio.timeout(WRITE_S):
                await self._registry.store.multi((self._guard(), *(self._op(step) for step in batch)))
            self._there = applied(self._there, [s for s in batch if not s.path.startswith(MARK)])
            self._marks = (mark,) if any(s.path == mark for s in batch) else self._marks
            metrics.TRAEFIK_STEPS.inc(len(batch))

    def _guard(self) -> Check:
        version = self._epoch - self._registry.store.cluster.epoch_base
        if version < 0:
            raise Conflict("this leadership is older than the registry")
        return Check(path=paths.epoch(ROLE), version=version)

    def _op(self, step: Step) -> AnyOp:
        path = f"{self._root}/{step.path}"
        if isinstance(step, Remove):
            return Drop(path=path, missing_ok=True)
        assert isinstance(step, Put)
        return Set(path=path, data=step.data.encode())

    async def _read(self) -> None:
        """What stands there under our names."""
        found: dict[str, str] = {}
        for folder in (ROUTERS, SERVICES):
            ours = [n for n in await self._registry.tree.names(f"{self._root}/{folder}") if n.startswith(PREFIX)]
            level = [f"{folder}/{name}" for name in ours]
            while level:
                level = await self._read_level(level, found)
        marks = [n for n in await self._registry.tree.names(self._root) if n.startswith(MARK)]
        self._there, self._marks = found, tuple(marks)

    async def _read_level(self, level: Sequence[str], found: dict[str, str]) -> list[str]:
        below: list[str] = []
        for start in range(0, len(level), READS):
            part = level[start : start + READS]
            nodes = await asyncio.gather(*(self._registry.tree.get(f"{self._root}/{path}") for path in part))
            names = await asyncio.gather(*(self._registry.tree.names(f"{self._root}/{path}") for path in part))
            for path, node, children in zip(part, nodes, names, strict=True):
                found[path] = node.data.decode("utf-8", "replace") if node is not None else ""
                below += [f"{path}/{child}" for child in children]
        return below


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

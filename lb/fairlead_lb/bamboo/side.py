"""All of Bamboo beside the balancer's loop: its API, its tree, its template, its counters."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from fairlead_daemon.main import Context
from fairlead_daemon.web import json_response, make_app, serve
from fairlead_discovery.policies import Bamboo
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.bamboo import marathon
from fairlead_lb.bamboo.book import Book
from fairlead_lb.bamboo.kept import Kept
from fairlead_lb.bamboo.output import Output, target_of
from fairlead_lb.bamboo.rest import CALLBACK, CONTENT_TYPES, Api
from fairlead_lb.bamboo.settings import BambooSettings, bound, check, notes
from fairlead_lb.bamboo.statsd import StatsD
from fairlead_lb.decisions.acl import Grammar

if TYPE_CHECKING:
    from fairlead_lb.bamboo.tree import BambooTree
FIRST_TREE_S = 6.0
"""A tree that was never read is waited for so long; then the registry's routes are served without it."""


class Side:
    """`take` gets the snapshots, `book.offer` gives them."""

    def __init__(self, settings: BambooSettings, folder: Path, take: Callable[[Snapshot], None]) -> None:
        check(settings)
        self.book = Book(settings.bamboo_framework, take)
        self.api = Api(self.book, Grammar(raw=settings.allow_raw_acl))
        self._settings = settings
        self._kept = Kept(folder / "bamboo.json")
        self._runner: web.AppRunner | None = None
        self._tree: BambooTree | None = None
        self._output: Output | None = None
        if settings.bamboo_zookeeper:
            self._expect_tree()
        self._statsd = StatsD(settings.statsd, settings.statsd_prefix) if settings.statsd else None
        if self._statsd is not None:
            self.api.counted = self._statsd.count

    def _expect_tree(self) -> None:
        """Nothing is given on before its rules are known, as they were last at the least."""
        self.book.waits = True
        kept = self._kept.load()
        if kept is not None:
            self.book.take_tree(kept)

    def add_pages(self, app: web.Application) -> None:
        """To the daemon's own."""
        self.api.add_to(app)
        app.router.add_get("/fairlead/bamboo", self.report)

    async def listen(self, context: Context) -> None:
        """On Bamboo's own address, where `/status` is `OK`, if there is one. Raises BadSettings."""
        for note in notes(self._settings):
            context.log.warning("of bamboo's file", note=note)
        settings = bound(self._settings)
        if settings is None:
            return
        app = make_app(settings, context.health, content_types=CONTENT_TYPES, own_proof=(CALLBACK,))
        self.api.add_to(app)
        app.router.add_get("/status", self.api.ok)
        self._runner, port = await serve(app, settings, option="bamboo_bind")
        context.log.info("bamboo's API listens", host=settings.host, port=port)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def bodies(self, registry: Registry, applied: Callable[[], int]) -> Iterator[Awaitable[None]]:
        """What runs as long as the daemon."""
        self.api.registry = registry
        settings = self._settings
        if settings.bamboo_zookeeper:
            yield self._follow_tree(settings.bamboo_zookeeper)
        if settings.bamboo_marathon:
            yield marathon.follow(marathon.endpoints(settings.bamboo_marathon), self.book)
        target = target_of(settings)
        if target is not None:
            self._output = Output(target)
            self._output.counted = self.api.counted
            yield self._output.run(self.book)
        if self._statsd is not None:
            yield self._statsd.run(applied)

    async def report(self, _request: web.Request) -> web.Response:
        """`/fairlead/bamboo`: how current the tree and the template's output are."""
        tree, output = self._tree, self._output
        return json_response(
            {
                "rules": len(self.book.rules()),
                "tree": None
                if tree is None
                else {"url": self._settings.bamboo_zookeeper, "problem": tree.problem, "skipped": dict(tree.skipped)},
                "template": None
                if output is None
                else {"output": self._settings.bamboo_output, "problem": output.problem},
            }
        )

    async def _follow_tree(self, url: str) -> None:
        from fairlead_lb.bamboo.tree import BambooTree  # noqa: PLC0415  # kazoo's import can wait until HAProxy serves

        tree = self._tree = BambooTree(url, self.book.framework)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(tree.follow(self._take_tree))
                group.create_task(self._no_longer())
        finally:
            await tree.close()

    def _take_tree(self, rules: Mapping[str, Bamboo]) -> None:
        if self.book.waits or rules != self.book.tree:
            self.book.take_tree(rules)
            self._kept.put(rules)
            self.api.counted("reload.domain")

    async def _no_longer(self) -> None:
        await asyncio.sleep(FIRST_TREE_S)
        if self.book.waits:
            self.book.take_tree({})

"""Bamboo's template without a balancer of ours: rendered once, or kept rendered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager

from fairlead_daemon.errors import Unavailable
from fairlead_discovery.reading import snapshots
from fairlead_discovery.registry import Registry
from fairlead_discovery.snapshots import Trust
from fairlead_lb.bamboo import marathon
from fairlead_lb.bamboo.book import Book
from fairlead_lb.bamboo.output import Output, Target, rendered
from fairlead_lb.bamboo.settings import BambooSettings
from fairlead_lb.bamboo.tree import BambooTree

FIRST_S = 8.0


async def once(registry: Registry, settings: BambooSettings, target: Target) -> str:
    """The text. Raises Unavailable when the registry, or a tree that is asked for, is out of sight; Refused."""
    async with _filled(registry, settings) as book:
        try:
            async with asyncio.timeout(FIRST_S):
                while not _known(book, settings):
                    book.changed.clear()
                    await book.changed.wait()
        except TimeoutError as error:
            raise Unavailable(f"the registry, or another source, is out of sight since {FIRST_S:g} s") from error
        return rendered(target, book.apps(), book.services())


async def keep(registry: Registry, settings: BambooSettings, target: Target) -> None:
    """For ever."""
    async with _filled(registry, settings) as book:
        await Output(target).run(book)


def _known(book: Book, settings: BambooSettings) -> bool:
    live = book.snapshot is not None and book.snapshot.trust is Trust.LIVE
    return live and (bool(book.definitions) or not settings.bamboo_marathon)


@asynccontextmanager
async def _filled(registry: Registry, settings: BambooSettings) -> AsyncIterator[Book]:
    """A book that is kept up; what follows ends with the block."""
    book = Book(settings.bamboo_framework, lambda _snapshot: None)
    sources: list[Awaitable[None]] = [_follow(registry, book)]
    tree = None
    if settings.bamboo_zookeeper:
        book.waits = True
        tree = BambooTree(settings.bamboo_zookeeper, book.framework)
        sources.append(tree.follow(book.take_tree))
    if settings.bamboo_marathon:
        sources.append(marathon.follow(marathon.endpoints(settings.bamboo_marathon), book))
    tasks = [asyncio.ensure_future(source) for source in sources]
    try:
        yield book
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tree is not None:
            await tree.close()


async def _follow(registry: Registry, book: Book) -> None:
    async with aclosing(snapshots(registry)) as found:  # type: ignore[type-var]  # it is a generator
        async for snapshot in found:
            book.offer(snapshot)

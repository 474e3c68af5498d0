"""Reading from endless iterators in tests: one task collects, the test waits for what it wants to see."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Collected(Generic[T]):
    """Everything an iterator has given so far."""

    def __init__(self) -> None:
        self.all: list[T] = []
        self._more = asyncio.Event()

    @property
    def last(self) -> T:
        return self.all[-1]

    def add(self, value: T) -> None:
        self.all.append(value)
        self._more.set()

    async def until(self, wanted: Callable[[T], object], *, within_s: float = 15.0) -> T:
        """The newest value, once it is wanted."""
        try:
            async with asyncio.timeout(within_s):
                while not (self.all and wanted(self.all[-1])):
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s; last: {self.all[-1:]}") from None
        return self.all[-1]


@asynccontextmanager
async def collecting(source: AsyncIterator[T]) -> AsyncIterator[Collected[T]]:
    """Reads in the background; the iterator is closed at the end."""
    collected: Collected[T] = Collected()

    async def read() -> None:
        try:
            async for value in source:
                collected.add(value)
        finally:
            await source.aclose()  # type: ignore[attr-defined]

    task = asyncio.create_task(read())
    try:
        yield collected
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]

"""Marathon's event stream: what happened, to whoever listens. A listener that is too slow misses the oldest."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

KEPT = 1000


class Events:
    """Publishing never waits."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()

    def publish(self, event: dict[str, Any]) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @contextmanager
    def listener(self) -> Iterator["Listener"]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(KEPT)
        self._listeners.add(queue)
        try:
            yield Listener(queue)
        finally:
            self._listeners.discard(queue)


class Listener:
    def __init__(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        self._queue = queue

    async def events(self, *, silence_s: float) -> AsyncIterator[dict[str, Any] | None]:
        """None after each silence: the moment for a sign of life."""
        while True:
            try:
                async with asyncio.timeout(silence_s):
                    event = await self._queue.get()
            except TimeoutError:
                yield None
            else:
                yield event

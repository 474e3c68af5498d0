"""Waiting for something to become true, with a deadline and a reason."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(what: str, probe: Callable[[], T], *, within_s: float = 10.0, every_s: float = 0.02) -> T:
    """The first true value of `probe()`; exceptions count as not yet. AssertionError with the last one at the deadline."""
    end = time.monotonic() + within_s
    while True:
        why: object = "it stayed false"
        try:
            if value := probe():
                return value
        except (OSError, AssertionError, LookupError, ValueError, RuntimeError) as error:
            why = error
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {within_s} s ({why!r})")
        time.sleep(every_s)


async def eventually(
    what: str, probe: Callable[[], Awaitable[T]], *, within_s: float = 10.0, every_s: float = 0.02
) -> T:
    """As wait_until, for an async probe."""
    end = asyncio.get_running_loop().time() + within_s
    while True:
        why: object = "it stayed false"
        try:
            if value := await probe():
                return value
        except (OSError, AssertionError, LookupError, ValueError, RuntimeError) as error:
            why = error
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"{what}: not within {within_s} s ({why!r})")
        await asyncio.sleep(every_s)

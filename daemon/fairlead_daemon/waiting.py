"""Waiting for an event, but not for ever."""

import asyncio


async def within(event: asyncio.Event, wait_s: float) -> None:
    """Returns when the event is set, at the latest after `wait_s`."""
    try:
        async with asyncio.timeout(wait_s):
            await event.wait()
    except TimeoutError:
        pass

"""What only Marathon knows of apps: environment, labels, readiness checks. Without it the rest works all the same."""

import asyncio
from collections.abc import Mapping, Sequence

import aiohttp

from fairlead_daemon.client import call, make_session
from fairlead_daemon.errors import FairleadError, Unavailable
from fairlead_daemon.logs import Log
from fairlead_lb.bamboo.book import Book
from fairlead_lb.decisions.bamboo_records import Definition

log = Log("lb.bamboo")
POLL_S = 5.0


def endpoints(text: str) -> tuple[str, ...]:
    """`http://a:8080,http://b:8080/` by one."""
    return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())


async def follow(places: Sequence[str], book: Book) -> None:
    """For ever. The first that answers is asked again first; out of sight the last answer stands."""
    failed = False
    async with make_session() as session:
        while True:
            try:
                book.take_definitions(await _ask(session, places))
                failed = False
            except (FairleadError, TypeError, ValueError, KeyError, AttributeError) as error:
                if not failed:
                    log.warning("no marathon says what apps are made of", why=str(error))
                failed = True
            await asyncio.sleep(POLL_S)


async def _ask(session: aiohttp.ClientSession, places: Sequence[str]) -> Mapping[str, Definition]:
    problems = []
    for place in places:
        try:
            found = await call(session, "GET", f"{place}/v2/apps")
        except FairleadError as error:
            problems.append(str(error))
            continue
        return {str(app["id"]): app for app in found["apps"]}
    raise Unavailable("; ".join(problems) or "no marathon is set")

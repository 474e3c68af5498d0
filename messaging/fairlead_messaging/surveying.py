"""One look at all brokers of a topology, and what follows from it: plans, links, the carrying out of plans."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from fairlead_daemon.client import make_session
from fairlead_daemon.errors import FairleadError, Refused, Unavailable, Unsafe
from fairlead_messaging.adapters.management import Management
from fairlead_messaging.decisions import links as linking
from fairlead_messaging.decisions.declared import Topology
from fairlead_messaging.decisions.links import Judged, Listed
from fairlead_messaging.decisions.planned import Actual, Plan, rounds
from fairlead_messaging.decisions.planning import plan, standing
from fairlead_messaging.decisions.wanted import Place, Wanted, topology

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What was seen of one broker. Without `actual`, `error` says why."""

    broker: str
    place: Place
    wanted: Wanted
    actual: Actual | None = None
    listed: tuple[Listed, ...] = ()
    error: FairleadError | None = None

    @property
    def why(self) -> str:
        return str(self.error) if self.error is not None else ""


async def apart(body: Callable[[aiohttp.ClientSession], Awaitable[T]]) -> T:
    """Runs `body` with a session of its own: brokers are strangers, and never see fairlead's token."""
    async with make_session() as session:
        return await body(session)


async def survey(session: aiohttp.ClientSession, settings: Topology, places: Mapping[str, Place]) -> tuple[View, ...]:
    """All brokers at once, in the order of the declaration. One that does not answer is a view without `actual`."""
    wanted = topology(settings, places)
    views = (_look(session, places[name], wanted[name]) for name in settings.brokers)
    return tuple(await asyncio.gather(*views))


async def _look(session: aiohttp.ClientSession, place: Place, wanted: Wanted) -> View:
    broker = wanted.broker
    if not place.management:
        return View(broker=broker, place=place, wanted=wanted, error=Unavailable(f"{broker}: {place.why}"))
    management = Management(session, broker, place)
    try:
        actual = await management.actual(wanted.topology)
        listed = await management.links()
    except FairleadError as error:
        return View(broker=broker, place=place, wanted=wanted, error=error)
    return View(broker=broker, place=place, wanted=wanted, actual=actual, listed=listed)


def plans(views: Iterable[View], *, prune: bool) -> tuple[Plan, ...]:
    """Of the brokers that answered."""
    return tuple(plan(view.wanted, view.actual, prune=prune) for view in views if view.actual is not None)


def links(views: Iterable[View]) -> tuple[Judged, ...]:
    """Every link that is expected or listed on any of them."""
    return tuple(judged for view in views for judged in _links_of(view))


def _links_of(view: View) -> Sequence[Judged]:
    if view.actual is None:
        alone = standing(view.wanted, Actual())
        return linking.unanswered(view.broker, linking.expected(alone), view.why)
    there = view.actual.things
    wanted = linking.expected({**there, **standing(view.wanted, view.actual)})
    return linking.judge(view.broker, wanted, there, view.listed)


def refuse(plans: Iterable[Plan], *, force: bool) -> None:
    """Raises Refused for what cannot be done, Unsafe for what needs --force: before anything is done on any broker."""
    blocked = [f"{p.broker}: {obstacle}" for p in plans for obstacle in p.blocked]
    if blocked:
        raise Refused("; ".join(blocked))
    unsafe = [f"{p.broker}: {obstacle}" for p in plans for obstacle in p.unsafe]
    if unsafe and not force:
        raise Unsafe("; ".join(unsafe) + "; --force does it all the same")


async def carry_out(
    session: aiohttp.ClientSession, views: Iterable[View], plans: Sequence[Plan], *, force: bool
) -> int:
    """Every step of every plan; returns how many. Raises at the first that fails, naming it.

    What links need stands on all brokers before the first link is made.
    """
    by_broker = {view.broker: view for view in views}
    done = 0
    for number in (0, 1):
        for one in plans:
            view = by_broker[one.broker]
            management = Management(session, one.broker, view.place)
            steps = rounds(one.steps)[number]
            done += await management.carry_out(one, steps, view.wanted.topology, force=force)
    return done

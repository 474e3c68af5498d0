"""What only a reload can do: candidate, check, swap, read back; and whose fault it is when HAProxy refuses.

Checking thousands of backends, and reading them, takes HAProxy up to seconds. Both go on beside the loop, which tells
the running HAProxy meanwhile what comes: the file is made anew, of what is served then, just before the reload, and what
comes during that is told again to the new worker, and counts as applied only then.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from fairlead_daemon.errors import Refused, Unavailable
from fairlead_daemon.logs import Log
from fairlead_lb import counting, deciding, metrics, reading, sessions
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import fragments, pace, picture, render, routes
from fairlead_lb.decisions.change import Reload, Serving
from fairlead_lb.decisions.conditions import FrontRule
from fairlead_lb.decisions.fragments import of_tenants, text_of
from fairlead_lb.decisions.rollout import structure_of
from fairlead_lb.decisions.router_lines import FrontRouter
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.values import Frame, Picture, Structure
from fairlead_lb.desk import Desk
from fairlead_lb.supervisor import within_limits

log = Log("lb")
REFUSED_RELOAD_S = 5.0
GATE_S = 0.5
TRIES = 3
"""Checks of a structure that is another one before each has ended; the next holds the loop until HAProxy is reloaded."""
REFUSED_KEPT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """HAProxy's words against a candidate; against rules, routers and backends of it."""

    error: Refused
    rules: Mapping[FrontRule, str] = field(default_factory=dict)
    routers: Mapping[FrontRouter, str] = field(default_factory=dict)
    backends: Mapping[str, str] = field(default_factory=dict)
    suspects: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)
class Attempt:
    """A reload under way: `check` first, which finds somebody to blame or nobody; then `swap`."""

    found: Reload
    candidate: Picture
    check: asyncio.Task[Blame | None]
    swap: asyncio.Task[None] | None = None
    wanted: Wanted = field(default_factory=Wanted)
    """What the new worker comes up with, under the names it has there."""
    decided: Wanted = field(default_factory=Wanted)
    """The same as it was decided; when that is another one later, something has come meanwhile."""

    @property
    def task(self) -> "asyncio.Task[Blame | None] | asyncio.Task[None]":
        return self.check if self.swap is None else self.swap


def swapping(desk: Desk) -> bool:
    """Whether HAProxy is between two workers: what it is told now, the next one may not know."""
    return desk.attempt is not None and desk.attempt.swap is not None


async def end(desk: Desk) -> None:
    """With the loop. A reload that has begun goes through all the same; a successor sees it."""
    attempt, desk.attempt = desk.attempt, None
    if attempt is not None:
        attempt.task.cancel()
        await asyncio.wait({attempt.task})


def reload_when_due(desk: Desk, found: Reload) -> None:
    """Begins a reload, beside the loop, unless one is under way."""
    desk.state.pending = found.reasons
    if desk.attempt is not None or time.monotonic() < desk.times.reload_due():
        return
    if not desk.gate.open(structure_of(desk.state.wanted)):
        desk.times.gate_not_before = time.monotonic() + GATE_S
        return
    serving = desk.state.serving
    assert serving is not None
    desk.probe(serving.structure, desk.state.wanted.maps)
    candidate = _candidate(desk)[0]
    desk.unsaved = True  # the check wants the candidate's maps on disk
    desk.attempt = Attempt(found=found, candidate=candidate, check=asyncio.create_task(_check(desk, candidate)))
    desk.attempt.check.add_done_callback(lambda _: desk.wake.set())


def _candidate(desk: Desk) -> tuple[Picture, Wanted]:
    """Of what is served and wanted now."""
    serving = desk.state.serving
    assert serving is not None
    wanted = routes.brought_home(desk.state.wanted, desk.names_in_use())
    return within_limits(picture.wanted_picture(serving, wanted, desk.around)), wanted


async def _check(desk: Desk, candidate: Picture) -> Blame | None:
    try:
        await desk.supervisor.try_out(candidate)
    except Refused as error:
        return await _blame(desk, candidate, error)
    await counting.look_before_reload(desk)
    return None


async def go_on(desk: Desk) -> bool:
    """Whether HAProxy was reloaded, and so must be told what came meanwhile. Raises Unavailable."""
    attempt = desk.attempt
    if attempt is None or (desk.tries < TRIES and not attempt.task.done()):
        return False
    await asyncio.wait({attempt.task})
    if attempt.swap is None:
        if (blame := _ended(desk, attempt.check)) is None:
            await _swap_when_current(desk, attempt)
        else:
            _blamed(desk, attempt.candidate, blame)
        return False
    desk.attempt, desk.tries = None, 0
    try:
        attempt.swap.result()
    except Refused as error:
        desk.gate.done(str(error))
        _not_reloaded(desk, error)
        return False
    except Unavailable as error:
        desk.gate.done(str(error))
        raise
    try:
        await _reloaded(desk, attempt)
    except Unavailable as error:
        desk.gate.done(str(error))
        raise
    desk.gate.done()
    return True


def _ended(desk: Desk, check: "asyncio.Task[Blame | None]") -> Blame | None:
    try:
        blame = check.result()
    except Unavailable:
        desk.attempt = None
        desk.gate.done(None)
        raise
    if blame is not None:
        desk.attempt, desk.tries = None, 0
        desk.gate.done(None)
    return blame


async def _swap_when_current(desk: Desk, attempt: Attempt) -> None:
    """What was checked, as it is wanted at this moment: with other servers, and new services of kinds HAProxy has taken.
    What it has not taken yet is checked first.
    """
    serving = desk.state.serving
    assert serving is not None
    desk.verdicts.learn_checked(attempt.candidate.structure)
    fresh, wanted = _candidate(desk)
    ended = not desk.supervisor.alive or serving.structure.generation >= attempt.candidate.structure.generation
    if ended or not desk.verdicts.knows(fresh.structure):
        desk.attempt = None
        desk.tries += 1
        desk.gate.done(None)
        desk.wake.set()
        return
    attempt.candidate, attempt.wanted, attempt.decided = fresh, wanted, desk.state.wanted
    attempt.swap = asyncio.create_task(desk.supervisor.swap(fresh))
    attempt.swap.add_done_callback(lambda _: desk.wake.set())
    await asyncio.sleep(0)  # the file is written before anything else comes


def clear_up(desk: Desk) -> None:
    """Gives up what removed services held, some seconds later; what is wanted is served meanwhile. And a worn worker."""
    serving, now = desk.state.serving, time.monotonic()
    if serving is not None and desk.worn == serving.structure.generation:
        reload_when_due(desk, Reload(reasons=("this worker does not show today's identity",)))
        return
    desk.times.leftovers_skipped = now - desk.times.leftovers_looked < pace.LEFTOVER_LOOK_S
    if desk.times.leftovers_skipped:
        return
    desk.times.leftovers_looked = now
    wants = serving is not None and desk.state.wanted.revision >= 0
    left = (
        changes.leftovers(serving.structure, desk.state.wanted, desk.around, serving.slots) if serving and wants else ()
    )
    if not left:
        desk.times.leftovers_since = 0.0
    elif not desk.times.leftovers_since:
        desk.times.leftovers_since = now
    elif now >= desk.times.leftovers_due():
        reload_when_due(desk, Reload(reasons=left))


async def _reloaded(desk: Desk, attempt: Attempt) -> None:
    serving, candidate = desk.state.serving, attempt.candidate
    assert serving is not None
    meanwhile = desk.state.wanted is not attempt.decided
    former = desk.state.former if desk.supervisor.processes.old else {}
    desk.state.former = {**former, **serving.structure.owners}
    strays = {place: who for place, who in desk.state.strays.items() if desk.supervisor.old_used.get(place)}
    desk.state.strays = sessions.strayed(strays, serving, candidate)
    desk.state.wanted = attempt.wanted
    desk.state.reloads += 1
    desk.state.pending = ()
    desk.state.last_error = ""
    metrics.RELOADS.labels("done").inc()
    log.info("structure changed", reasons="; ".join(attempt.found.reasons)[:300])
    desk.memory.rendered(candidate)
    desk.verdicts.learn(candidate.structure)
    desk.times.reload_not_before = time.monotonic() + pace.reload_pause_s(len(desk.supervisor.processes.old))
    desk.unsaved = meanwhile
    # What it was started with, should it not be read back now: its predecessor is not asked again.
    desk.state.serving = Serving(structure=candidate.structure, slots=candidate.slots, maps=candidate.maps)
    desk.look_at_all()
    if meanwhile and desk.decided is not None:
        deciding.want(desk, desk.decided.snapshot)
        deciding.pin(desk)
    await reading.read(desk, desk.state.serving.structure)


# --- refused -----------------------------------------------------------------------------------------------------


async def _blame(desk: Desk, candidate: Picture, error: Refused) -> Blame:
    """Finds the tenants whose fragments HAProxy refuses by themselves. Changes nothing but what is known of fragments."""
    structure = candidate.structure
    if _of_our_files(structure.frame, error):
        return Blame(error=error)
    if not desk.verdicts.knows_head(structure):
        if await _refused_with(desk, candidate, ()):
            return Blame(error=error)  # it is nobody's route
        running = desk.state.serving.structure if desk.state.serving else structure
        if rules := await _faulty_rules(desk, candidate, running):
            return Blame(error=error, rules=rules)
        if routers := await _faulty_routers(desk, candidate, running):
            return Blame(error=error, routers=routers)
    suspects = desk.verdicts.suspects(structure)
    faulty = await _culprits(desk, candidate, suspects) or await _culprits(desk, candidate, tuple(structure.owners))
    desk.verdicts.learn_fragments(structure, set(suspects) - faulty.keys() if faulty else ())
    return Blame(error=error, backends=faulty or dict.fromkeys(suspects, str(error)), suspects=suspects)


def _blamed(desk: Desk, candidate: Picture, blame: Blame) -> None:
    """Who is refused is left out from here on, their last good fragments stay."""
    structure = candidate.structure
    metrics.RELOADS.labels("refused").inc()
    _not_reloaded(desk, blame.error)
    for rule, why in blame.rules.items():
        desk.state.refused_rules[rule.service, rule.conditions] = why
        log.warning("rule refused by haproxy", service=rule.service, reason=why)
    for router, why in blame.routers.items():
        desk.state.refused_routers[router.id] = why
        log.warning("router refused by haproxy", service=router.service, reason=why)
    for name, why in blame.backends.items():
        owner, shape = structure.owners[name], structure.shapes[name]
        desk.state.refused_shapes[owner, msgspec.structs.replace(shape, timed=False)] = why
        log.warning("route refused by haproxy", service=owner.service, reason=why)
    while len(desk.state.refused_shapes) > REFUSED_KEPT:  # one that comes again is found again
        desk.state.refused_shapes.pop(next(iter(desk.state.refused_shapes)))
    if (blame.rules or blame.routers or blame.suspects) and desk.state.snapshot is not None:
        deciding.want(desk, desk.state.snapshot)
        desk.times.reload_not_before = 0.0
        desk.wake.set()


async def _faulty_rules(desk: Desk, candidate: Picture, running: Structure) -> Mapping[FrontRule, str]:
    """New lines of the frontend that are at fault."""
    new = {str(n): rule for n, rule in enumerate(candidate.structure.rules) if rule not in running.rules}
    faulty = await _search(
        tuple(new), lambda group: _refused_with(desk, candidate, tuple(new[number] for number in group))
    )
    return {new[number]: why for number, why in faulty.items()}


async def _faulty_routers(desk: Desk, candidate: Picture, running: Structure) -> Mapping[FrontRouter, str]:
    """New routers that are at fault."""
    new = {router.id: router for router in candidate.structure.routers if router not in running.routers}
    faulty = await _search(
        tuple(new), lambda group: _refused_with(desk, candidate, (), tuple(new[one] for one in group))
    )
    return {new[one]: why for one, why in faulty.items()}


def _of_our_files(frame: Frame, error: Refused) -> bool:
    """About an identity or certificates of the balancer itself, which may come any moment: no tenant can name them."""
    return any(place and place in str(error) for place in (frame.identity, frame.certificates))


async def _refused_with(
    desk: Desk, candidate: Picture, rules: tuple[FrontRule, ...], routers: tuple[FrontRouter, ...] = ()
) -> str:
    """What HAProxy says against a configuration of no backends and these lines of the frontend alone."""
    head = msgspec.structs.replace(of_tenants(candidate.structure, ()), rules=rules, routers=routers)
    return await _refused(desk, render.config_of(head, []))


async def _culprits(desk: Desk, candidate: Picture, suspects: Sequence[str]) -> dict[str, str]:
    """Backend -> HAProxy's words against it."""
    return await _search(suspects, lambda group: _refused(desk, text_of(candidate, group)))


async def _search(suspects: Sequence[str], refused: Callable[[Sequence[str]], Awaitable[str]]) -> dict[str, str]:
    """Who is refused alone -> HAProxy's words. `refused` looks at a group, and says "" when HAProxy takes it."""
    search = fragments.culprits(suspects)
    why: dict[str, str] = {}
    try:
        group = next(search)
        while True:
            said = await refused(group)
            if said and len(group) == 1:
                why[group[0]] = said
            group = search.send(bool(said))
    except StopIteration as found:
        return {name: why[name] for name in found.value}


async def _refused(desk: Desk, text: str) -> str:
    """HAProxy's words against it, "" when it takes it."""
    try:
        await desk.supervisor.check(text)
    except Refused as error:
        return str(error)
    return ""


def _not_reloaded(desk: Desk, error: Refused) -> None:
    desk.state.last_error = str(error)
    desk.times.reload_not_before = time.monotonic() + REFUSED_RELOAD_S
    log.error("reload refused; haproxy serves as before", reason=str(error))

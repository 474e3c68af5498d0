"""What only a reload can do: candidate, check, swap, read back; and whose fault it is when HAProxy refuses."""

import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log
from fairlead_lb import counting, deciding, metrics, reading
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import fragments, pace, picture, render, routes
from fairlead_lb.decisions.change import Reload, Serving
from fairlead_lb.decisions.conditions import FrontRule
from fairlead_lb.decisions.fragments import of_tenants, text_of
from fairlead_lb.decisions.rollout import structure_of
from fairlead_lb.decisions.router_lines import FrontRouter
from fairlead_lb.decisions.values import Picture, Structure
from fairlead_lb.desk import Desk

log = Log("lb")
REFUSED_RELOAD_S = 5.0
GATE_S = 0.5


async def reload_when_due(desk: Desk, found: Reload) -> bool:
    """Whether HAProxy was reloaded, and so must be told what came meanwhile."""
    desk.state.pending = found.reasons
    if time.monotonic() < desk.times.reload_due():
        return False
    if not desk.gate.open(structure_of(desk.state.wanted)):
        desk.times.gate_not_before = time.monotonic() + GATE_S
        return False
    serving = desk.state.serving
    assert serving is not None
    desk.probe(serving.structure, desk.state.wanted.maps)
    wanted = routes.brought_home(desk.state.wanted, desk.names_in_use())
    candidate = picture.wanted_picture(serving, wanted, desk.around)
    try:
        candidate = await desk.supervisor.try_out(candidate)
    except Refused as error:
        desk.gate.done(None)
        await _blame(desk, candidate, error)
        return False
    await counting.look_before_reload(desk)
    try:
        await desk.supervisor.swap(candidate)
    except Refused as error:
        desk.gate.done(str(error))
        _not_reloaded(desk, error)
        return False
    desk.state.former = {**(desk.state.former if desk.supervisor.processes.old else {}), **serving.structure.owners}
    desk.state.wanted = wanted
    await _reloaded(desk, candidate, found)
    desk.gate.done()
    return True


async def clear_up(desk: Desk) -> bool:
    """Gives up what removed services held, some seconds later; what is wanted is served meanwhile."""
    serving, now = desk.state.serving, time.monotonic()
    desk.times.leftovers_skipped = now - desk.times.leftovers_looked < pace.LEFTOVER_LOOK_S
    if desk.times.leftovers_skipped:
        return False
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
        return await reload_when_due(desk, Reload(reasons=left))
    return False


async def _reloaded(desk: Desk, candidate: Picture, found: Reload) -> None:
    desk.state.reloads += 1
    desk.state.pending = ()
    desk.state.last_error = ""
    metrics.RELOADS.labels("done").inc()
    log.info("structure changed", reasons="; ".join(found.reasons)[:300])
    desk.memory.rendered(candidate)
    desk.verdicts.learn(candidate.structure)
    desk.times.reload_not_before = time.monotonic() + pace.reload_pause_s(len(desk.supervisor.processes.old))
    desk.unsaved = False
    # What it was started with, should it not be read back now: its predecessor is not asked again.
    desk.state.serving = Serving(structure=candidate.structure, slots=candidate.slots, maps=candidate.maps)
    await reading.read(desk, candidate.structure)


async def _blame(desk: Desk, candidate: Picture, error: Refused) -> None:
    """Finds the tenants whose fragments HAProxy refuses by themselves; their last good ones stay."""
    metrics.RELOADS.labels("refused").inc()
    _not_reloaded(desk, error)
    structure = candidate.structure
    if not desk.verdicts.knows_head(structure):
        if await _refused_with(desk, candidate, ()):
            return  # it is nobody's route
        if await _blame_rules(desk, candidate, desk.state.serving.structure if desk.state.serving else structure):
            return
        if await _blame_routers(desk, candidate, desk.state.serving.structure if desk.state.serving else structure):
            return
    suspects = desk.verdicts.suspects(structure)
    faulty = await _culprits(desk, candidate, suspects) or await _culprits(desk, candidate, tuple(structure.owners))
    desk.verdicts.learn_fragments(structure, set(suspects) - faulty.keys() if faulty else ())
    for name, why in (faulty or dict.fromkeys(suspects, str(error))).items():
        owner, shape = structure.owners[name], structure.shapes[name]
        desk.state.refused_shapes[owner, msgspec.structs.replace(shape, timed=False)] = why
        log.warning("route refused by haproxy", service=owner.service, reason=why)
    metrics.BAD_FRAGMENTS.set(len(desk.state.refused_shapes))
    if suspects and desk.state.snapshot is not None:
        deciding.want(desk, desk.state.snapshot)
        desk.times.reload_not_before = 0.0
        desk.wake.set()


async def _blame_rules(desk: Desk, candidate: Picture, running: Structure) -> bool:
    """Whether new lines of the frontend are at fault; they are left out from here on."""
    new = {str(n): rule for n, rule in enumerate(candidate.structure.rules) if rule not in running.rules}
    faulty = await _search(
        tuple(new), lambda group: _refused_with(desk, candidate, tuple(new[number] for number in group))
    )
    for number, why in faulty.items():
        rule = new[number]
        desk.state.refused_rules[rule.service, rule.conditions] = why
        log.warning("rule refused by haproxy", service=rule.service, reason=why)
    if faulty and desk.state.snapshot is not None:
        deciding.want(desk, desk.state.snapshot)
        desk.times.reload_not_before = 0.0
        desk.wake.set()
    return bool(faulty)


async def _blame_routers(desk: Desk, candidate: Picture, running: Structure) -> bool:
    """Whether new routers are at fault; the last good ones count from here on."""
    new = {router.id: router for router in candidate.structure.routers if router not in running.routers}
    faulty = await _search(
        tuple(new), lambda group: _refused_with(desk, candidate, (), tuple(new[one] for one in group))
    )
    for one, why in faulty.items():
        desk.state.refused_routers[one] = why
        log.warning("router refused by haproxy", service=new[one].service, reason=why)
    if faulty and desk.state.snapshot is not None:
        deciding.want(desk, desk.state.snapshot)
        desk.times.reload_not_before = 0.0
        desk.wake.set()
    return bool(faulty)


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

"""HAProxy as it says it is: read whole, audited, drains looked at; and told, then read back."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from fairlead_daemon.errors import Unavailable
from fairlead_daemon.logs import Log
from fairlead_lb import counting, metrics
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import pace, panic
from fairlead_lb.decisions import slots as slot_plans
from fairlead_lb.decisions.commands import Command, MapEntry, MapWhole
from fairlead_lb.decisions.values import MAP_NAMES, Slots, Structure
from fairlead_lb.desk import Desk
from fairlead_lb.state import OLD_WORKERS_S

log = Log("lb")
AUDIT_STEP = 20
"""Backends; some milliseconds."""


async def read(desk: Desk, structure: Structure) -> None:
    """All of it; slots that are as they were stay the same objects. Raises Unavailable."""
    known = desk.state.serving.slots if desk.state.serving is not None else {}
    serving = await desk.supervisor.read(structure, desk.memory.task_of)
    slots = {name: known[name] if known.get(name) == now else now for name, now in serving.slots.items()}
    desk.state.serving = replace(serving, slots=slots)
    desk.look_at_all()
    desk.times.audited = time.monotonic()
    desk.recognise()


async def audit(desk: Desk) -> bool:
    """Someone else may have changed HAProxy by its socket, or a command was lost: what differs is applied again.

    A few backends at a time, until somebody wakes the controller: a change waits for one step, not for thousands of
    slots. The next call goes on. Returns whether all has been looked at. Raises Unavailable.
    """
    serving = desk.state.serving
    if serving is None:
        return False
    if not desk.to_audit:
        await desk.supervisor.read_old(serving.structure)
        if paused := await desk.supervisor.mend_frontends(serving.structure):
            _repair(desk, "frontends", paused)
        await _audit_maps(desk)
        desk.to_audit = tuple(sorted(serving.slots))
        desk.slot_states.clear()
    while desk.to_audit:
        some, desk.to_audit = desk.to_audit[:AUDIT_STEP], desk.to_audit[AUDIT_STEP:]
        await _audit_backends(desk, some)
        if desk.wake.is_set() and desk.to_audit:
            return False
    desk.times.audited = time.monotonic()
    counting.look_beside(desk)
    metrics.count_slots(desk.slot_states)
    if (now := desk.state.serving) is not None:
        metrics.count_backends(now.structure)
    desk.store.trim_log()
    return True


async def _audit_maps(desk: Desk) -> None:
    before = desk.state.serving
    assert before is not None
    await _read_maps(desk, list(MAP_NAMES))
    now = desk.state.serving
    assert now is not None
    changed = [name for name in MAP_NAMES if getattr(before.maps, name) != getattr(now.maps, name)]
    if changed:
        _repair(desk, "maps", changed)
    else:
        desk.state.serving = before


async def _audit_backends(desk: Desk, names: Iterable[str]) -> None:
    before = desk.state.serving
    assert before is not None
    there = [name for name in names if name in before.slots and name in before.structure.shapes]
    if not there:
        return
    found = await desk.supervisor.read_backends(before.structure, there, desk.memory.task_of)
    for slots in found.values():
        desk.slot_states.update(metrics.states_of(slots.values()))
    fresh = {name: slots for name, slots in found.items() if slots != before.slots[name]}
    if not fresh:
        return
    desk.replace_slots(fresh)
    desk.recognise()
    places = slot_plans.places
    changed = [name for name, slots in fresh.items() if places(slots) != places(before.slots[name])]
    if changed:
        _repair(desk, "backends", changed)


def _repair(desk: Desk, kind: str, names: Sequence[str]) -> None:
    """The controller's next turn does."""
    metrics.REPAIRS.labels(kind).inc(len(names))
    log.warning("haproxy was changed by someone else", kind=kind, names=" ".join(names)[:200])
    desk.wake.set()


async def look_for_panic(desk: Desk) -> None:
    """After an audit: whether HAProxy's checks have taken out most servers of a service."""
    serving = desk.state.serving
    if serving is None:
        return
    before, now_s = desk.panic, time.monotonic()
    desk.panic, commands = panic.look(serving, before, percent=desk.panic_percent, now_s=now_s)
    metrics.PANICKING.set(len(desk.panic.since_s))
    if fresh := sorted(desk.panic.since_s.keys() - before.since_s.keys()):
        log.error("most servers fail their checks; all of them are served", backends=" ".join(fresh)[:300])
    if commands:
        await perform(desk, commands)


async def look_at_old_workers(desk: Desk) -> None:
    now = time.monotonic()
    serving = desk.state.serving
    if serving is not None and desk.supervisor.processes.old and now - desk.times.old_looked > OLD_WORKERS_S:
        desk.times.old_looked = now
        await desk.supervisor.read_old(serving.structure)


async def slots_now(desk: Desk, names: Sequence[str]) -> Mapping[str, Slots]:
    """Of these backends as HAProxy says at this moment, health included; as last read while it does not answer.

    Some at a time, for others wait. What is as it was is the same object. Changes nothing.
    """
    found: dict[str, Slots] = {}
    for begin in range(0, len(names), AUDIT_STEP):
        if (serving := desk.state.serving) is None:
            break
        some = [name for name in names[begin : begin + AUDIT_STEP] if name in serving.slots]
        known = {name: serving.slots[name] for name in some}
        try:
            now = await desk.supervisor.read_backends(serving.structure, some, desk.memory.task_of) if some else {}
        except Unavailable:
            now = {}
        found |= {name: now[name] if name in now and now[name] != there else there for name, there in known.items()}
    return found


def drains(desk: Desk, *, swapping: bool) -> frozenset[str]:
    """Backends with a slot in quarantine that may go on. `swapping`: those that are wanted. Spares stay whose they are:
    the next worker comes up with their owners of before.
    """
    if not swapping:
        return desk.draining()
    serving, wanted = desk.state.serving, desk.state.wanted.backends
    owners = serving.structure.owners if serving is not None else {}
    return frozenset(n for n in desk.draining() if n in wanted and owners.get(n) == wanted[n].key)


async def look_at_drains(desk: Desk, *, swapping: bool = False) -> None:
    """`swapping`: the master has no voice. Workers that were old before only lose connections, so what was read of them
    still holds.
    """
    names, now = drains(desk, swapping=swapping), time.monotonic()
    if not names:
        desk.times.drains_since = now
        return
    if now - desk.times.drains_looked < pace.poll_s(now - desk.times.drains_since):
        return
    desk.times.drains_looked = now
    serving = desk.state.serving
    assert serving is not None
    if not swapping:
        await desk.supervisor.read_old(serving.structure)
    there = {name: serving.slots[name] for name in sorted(names)}
    desk.replace_slots(await desk.supervisor.read_used(serving.structure, there))
    if await _tidy(desk, names):
        desk.times.drains_since = pace.since_s(desk.times.drains_since, now_s=now)


async def _tidy(desk: Desk, names: Iterable[str]) -> bool:
    """One step of quarantine a look: the next wants connections counted after it. Whether there was one."""
    serving, wanted = desk.state.serving, desk.state.wanted
    assert serving is not None
    commands = [c for p in changes.plans(serving, wanted, frozenset(names)).values() for c in p.tidies]
    if commands:
        await perform(desk, commands)
    return bool(commands)


async def perform(desk: Desk, commands: Iterable[Command]) -> list[str]:
    """Tells HAProxy, and reads back what they changed. Returns its objections. Raises Unavailable."""
    serving = desk.state.serving
    assert serving is not None
    ordered = list(commands)
    desk.memory.placed(ordered)
    objections = await desk.supervisor.perform(serving.structure, ordered)
    desk.unsaved = True
    await _read_backends(desk, {c.backend for c in ordered if not isinstance(c, MapEntry | MapWhole)})
    if maps := sorted({c.map for c in ordered if isinstance(c, MapEntry | MapWhole)}):
        await _read_maps(desk, maps)
    return objections


async def _read_backends(desk: Desk, names: Iterable[str]) -> None:
    serving = desk.state.serving
    assert serving is not None
    desk.replace_slots(await desk.supervisor.read_backends(serving.structure, sorted(names), desk.memory.task_of))


async def _read_maps(desk: Desk, names: list[str]) -> None:
    serving = desk.state.serving
    assert serving is not None
    found = await desk.supervisor.read_maps(serving.structure, names)
    desk.state.serving = replace(serving, maps=msgspec.structs.replace(serving.maps, **found))

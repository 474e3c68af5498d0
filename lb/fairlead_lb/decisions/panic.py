"""Panic: when HAProxy's own checks take out most servers of a service, the checks are doubted, not the servers.

The registry says that they are healthy; what is left would be overloaded. So those that are down are made up, their
checks stopped, until the panic has lasted for a while; then the checks decide again. HAProxy has no such threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.commands import ServerCommand, SetChecked, SetUp
from fairlead_lb.decisions.nearness import is_far
from fairlead_lb.decisions.values import Admin, Slot, Slots

PANIC_S = 30.0
"""So long the checks of a service are stopped at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panic:
    """`since_s`: backends that are served in spite of their checks. `doubted`: those that will be, if the next look
    finds the same: a killed server is down before the registry has told us of it.
    """

    since_s: Mapping[str, float] = field(default_factory=dict)
    doubted: frozenset[str] = frozenset()


def look(serving: Serving, before: Panic, *, percent: float, now_s: float) -> tuple[Panic, tuple[ServerCommand, ...]]:
    """After each audit. `percent` 0: never."""
    since: dict[str, float] = {}
    doubted: set[str] = set()
    commands: list[ServerCommand] = []
    for name, shape in serving.structure.shapes.items():
        slots = serving.slots.get(name, {}) if shape.check is not None else {}
        stopped = [place for place, slot in slots.items() if slot.unchecked]
        if stopped and now_s - before.since_s.get(name, -PANIC_S) < PANIC_S:
            since[name] = before.since_s[name]
            stopped = [place for place in stopped if not _serves(slots[place])]
        commands += [SetChecked(name, place, checked=True) for place in stopped]
        if not _few(slots, percent):
            continue
        if name in since or name in before.doubted:
            since.setdefault(name, now_s)
            for place, slot in slots.items():
                if _serves(slot) and not slot.up:
                    commands += [SetChecked(name, place, checked=False), SetUp(name, place)]
        else:
            doubted.add(name)
    return Panic(since_s=since, doubted=frozenset(doubted)), tuple(commands)


def _serves(slot: Slot) -> bool:
    return slot.admin is Admin.READY and not slot.empty


def _few(slots: Slots, percent: float) -> bool:
    """Whether fewer are up by their checks than `percent` of those that shall serve; never while there are far ones,
    which take over for the near.
    """
    if any(is_far(place) and _serves(slot) for place, slot in slots.items()):
        return False
    ready = [slot for slot in slots.values() if _serves(slot)]
    healthy = sum(slot.up and not slot.unchecked for slot in ready)
    return len(ready) > 1 and healthy * 100 < percent * len(ready)

"""What the parts of the controller share. One task works on it, so nothing here is locked."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fairlead_daemon.logs import Log
from fairlead_lb import metrics
from fairlead_lb.adapters import ports
from fairlead_lb.adapters.store import Store
from fairlead_lb.decisions import change as changes
from fairlead_lb.decisions import picture, routes, vips
from fairlead_lb.decisions import slots as slot_plans
from fairlead_lb.decisions.change import Surroundings
from fairlead_lb.decisions.counters import Totals
from fairlead_lb.decisions.fragments import Verdicts
from fairlead_lb.decisions.last_good import Kept
from fairlead_lb.decisions.panic import Panic
from fairlead_lb.decisions.parts import Parts
from fairlead_lb.decisions.rails import Rails
from fairlead_lb.decisions.shortcut import Decided
from fairlead_lb.decisions.values import Key, Maps, Slots, Structure, ports_of
from fairlead_lb.memory import Memory
from fairlead_lb.rolling import Gate
from fairlead_lb.state import State, Times
from fairlead_lb.supervisor import Supervisor

if TYPE_CHECKING:
    from fairlead_lb.reloading import Attempt

log = Log("lb")


@dataclass(slots=True)
class _Looks:
    """Which backends have slots that want attention: there may be thousands."""

    leaving: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    """One holds a task that nobody noted."""

    def at(self, name: str, slots: Slots) -> None:
        there = slots.values()
        for names, yes in (
            (self.leaving, any(map(slot_plans.leaves, there))),
            (self.unknown, any(not s.task and not s.empty for s in there)),
        ):
            names.add(name) if yes else names.discard(name)


@dataclass(slots=True)
class Desk:
    """`state` is what others see; the rest only the controller's parts do."""

    supervisor: Supervisor
    store: Store
    around: Surroundings
    derived: routes.Derive
    rails: Rails
    state: State = field(default_factory=State)
    times: Times = field(default_factory=Times)
    memory: Memory = field(default_factory=lambda: Memory({}))
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    unplanned: set[str] | None = None
    """Backends that may need something; None: all."""
    steady: changes.Steady = field(default_factory=changes.Steady)
    decided: Decided | None = None
    panic: Panic = field(default_factory=Panic)
    gate: Gate = field(default_factory=lambda: Gate("", enabled=False))
    attempt: "Attempt | None" = None
    """The reload under way."""
    tries: int = 0
    """How often in a row the structure was another one before its check had ended."""
    counting: "asyncio.Task[None] | None" = None
    totals: Totals = field(default_factory=Totals)
    verdicts: Verdicts = field(default_factory=Verdicts)
    good: Mapping[str, Parts] = field(default_factory=dict)
    """What HAProxy has taken, by service."""
    good_policies: Mapping[str, Kept] = field(default_factory=dict)
    """The same of routers and resolvers, by their nodes' names."""
    pinned: Collection[Key] | None = None
    """Ports whose requests stay with their fallbacks; None: nobody has looked yet, so as HAProxy has it."""
    watched: tuple[Maps | None, bool] = (None, False)
    """Whether any backend is watched, and as of which maps."""
    panic_percent: float = 0.0
    worn: int | None = None
    """Generation of a worker that only a successor can mend."""
    live_seen: bool = False
    unsaved: bool = False
    """Whether HAProxy has been told something that is not on disk yet."""
    to_audit: tuple[str, ...] = ()
    """Backends that the audit under way has not come to yet."""
    slot_states: Counter[str] = field(default_factory=Counter)
    """Of those that it has come to."""
    _looks: _Looks = field(default_factory=_Looks)
    _unseen: set[str] | None = None
    """Backends whose slots were read since they were looked at; None: all."""

    def replace_slots(self, found: Mapping[str, Slots]) -> None:
        """By backend. Those that are as they were are no news."""
        serving = self.state.serving
        assert serving is not None
        news = {name: slots for name, slots in found.items() if serving.slots.get(name) != slots}
        if not news:
            return
        self.state.serving = replace(serving, slots={**serving.slots, **news})
        for marked in (self.unplanned, self._unseen):
            if marked is not None:
                marked.update(news)

    def look_at_all(self) -> None:
        """HAProxy was read whole, or is not what we took it for."""
        self.unplanned = self._unseen = None

    def recognise(self) -> None:
        """Slots of an adopted HAProxy whose task nobody noted are known by their address from now on."""
        backends = self.state.wanted.backends
        for name in self._look().unknown & backends.keys():
            slots, backend = self.slots_of(name), backends[name]
            for place, server in slot_plans.recognised(backend, slots).items():
                self.memory.put(name, place, (server.host, server.port, server.task))
            self.replace_slots({name: {p: self.memory.named(name, p, s) for p, s in slots.items()}})

    def slots_of(self, name: str) -> Slots:
        serving = self.state.serving
        return serving.slots.get(name, {}) if serving is not None else {}

    def reload_may_come(self) -> None:
        """Called by the gate."""
        self.times.gate_not_before = 0.0
        self.wake.set()

    def names_in_use(self) -> set[str]:
        """Backends that a running worker, old or new, serves somebody by."""
        owners = self.state.serving.structure.owners if self.state.serving else ()
        return {*owners, *self.supervisor.names_of_old}

    # --- ports ---------------------------------------------------------------------------------------------------

    def asked(self, maps: Maps) -> set[int]:
        """Ports these maps want bound, whoever holds them now."""
        return picture.ports_to_bind(maps, replace(self.around, taken_ports=frozenset()))

    def note_taken(self, taken: Mapping[int, str]) -> None:
        if set(taken) - set(self.state.taken):
            log.warning("service ports held by other processes", ports=" ".join(map(str, sorted(taken)))[:200])
        self.state.taken = taken
        self.around = replace(self.around, taken_ports=frozenset(taken))
        metrics.TAKEN_PORTS.set(len(taken))

    def note_taken_vips(self, taken: Mapping[str, str]) -> None:
        if set(taken) - set(self.state.taken_vips):
            log.warning("VIPs held by other processes", vips=" ".join(sorted(taken))[:200])
        self.state.taken_vips = taken
        self.around = replace(self.around, taken_vips=frozenset(taken))

    def probe(self, running: Structure | None, maps: Maps) -> None:
        """Tries the ports HAProxy does not hold yet; `running` None: all of them."""
        same_host = running is not None and running.frame.host == self.around.frame.host
        held = set(ports_of(running)) if running is not None and same_host else set()
        self.note_taken(ports.taken(self.around.frame.host, sorted(self.asked(maps) - held)))
        listening = set(running.vips) if running is not None else set()
        self.note_taken_vips(ports.taken_places(map(vips.split, sorted(set(maps.vips) - listening))))

    def draining(self) -> frozenset[str]:
        """Backends with a slot in quarantine."""
        return frozenset(self._look().leaving)

    def _look(self) -> _Looks:
        """At what was read since the last look."""
        slots = self.state.serving.slots if self.state.serving is not None else {}
        if self._unseen is None:
            self._looks = _Looks()
        for name in slots if self._unseen is None else self._unseen:
            self._looks.at(name, slots.get(name, {}))
        self._unseen = set()
        return self._looks

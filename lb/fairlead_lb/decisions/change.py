"""What leads from what HAProxy serves to what it shall serve: nothing, runtime commands, or a reload."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import msgspec

from fairlead_lb.decisions import routers, spares, splits
from fairlead_lb.decisions import slots as slot_plans
from fairlead_lb.decisions.bamboo import Manner
from fairlead_lb.decisions.between import Between
from fairlead_lb.decisions.commands import Command, MapCommand, MapEntry, MapWhole, ServerCommand
from fairlead_lb.decisions.dials import casing
from fairlead_lb.decisions.forbidden import Forbidden
from fairlead_lb.decisions.mesh import MeshRules
from fairlead_lb.decisions.naming import is_spare
from fairlead_lb.decisions.nearness import Standing
from fairlead_lb.decisions.router_lines import FrontRouter
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.values import (
    DIALS,
    LAYOUT,
    ROUTERS,
    SPLITS,
    VERDICTS,
    Backend,
    Frame,
    Maps,
    Slots,
    Structure,
    bound,
    ports_of,
)
from fairlead_lb.decisions.vips import VipRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What HAProxy has, read back from it."""

    structure: Structure
    slots: Mapping[str, Slots] = field(default_factory=dict)
    maps: Maps = field(default_factory=Maps)


@dataclass(frozen=True, slots=True)
class Nothing:
    """HAProxy serves what is wanted, and no slot is in quarantine that could leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeCommands:
    """`routing` turn requests where they shall go: dials, bring servers, turn the maps, take servers away, in this order.
    `tidies` lead slots through quarantine; requests do not notice.
    """

    routing_commands: tuple[Command, ...] = ()
    tidies: tuple[ServerCommand, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """`reasons` cannot be had at run time; the commands can, and need not wait for it."""

    reasons: tuple[str, ...]
    routing_commands: tuple[Command, ...] = ()
    tidies: tuple[ServerCommand, ...] = ()


Plans = Mapping[str, slot_plans.SlotPlan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else decides over structure: our settings, and the ports HAProxy may bind."""

    frame: Frame
    service_ports: tuple[int, int]
    taken_ports: frozenset[int] = frozenset()
    spare_backends: int = 0
    """Of each usual kind; 0: none."""
    forbidden: Forbidden = field(default_factory=Forbidden)
    groups: frozenset[str] = frozenset({"*"})
    """Whose ports this balancer serves."""
    vips: VipRules | None = None
    taken_vips: frozenset[str] = frozenset()
    standing: Standing | None = None
    """None: no server is nearer than another."""
    manner: Manner = field(default_factory=Manner)
    callers: MeshRules = field(default_factory=MeshRules)
    between: Between | None = None

    def in_range(self, port: int) -> bool:
        """Held from the start, whether a service has it or not."""
        low, high = self.service_ports
        return low <= port <= high

    def may_bind(self, port: int) -> bool:
        return port not in self.taken_ports and not self.forbidden.why(port)


def plans(serving: Serving, wanted: Wanted, among: AbstractSet[str] | None = None) -> Plans:
    """By backend. `among`: those whose slots or servers have changed since they needed nothing; None: all."""
    names = serving.slots if among is None else sorted(among & serving.slots.keys())
    return {
        name: slot_plans.plan(_owned(serving.structure, wanted, name), name, serving.slots[name], wanted.dead)
        for name in names
    }


def unsettled(plans: Plans) -> set[str]:
    """Backends that need something yet, or more than commands can do. Quarantine alone is nothing to be planned anew: each
    of its steps follows a look at the slots, which are others then.
    """
    return {name for name, plan in plans.items() if plan.brings or plan.takes or plan.homeless}


@dataclass(slots=True)
class Steady:
    """What of a change does not hang on servers: kept while all that it is made of is the very same."""

    _of: tuple[object, ...] = ()
    _found: "_Rest | None" = None

    def rest(self, serving: Serving, wanted: Wanted, around: "Surroundings") -> "_Rest":
        """The wanted maps are another object whenever a backend has come, gone or changed its shape (see shortcut)."""
        made_of = (serving.structure, serving.maps, wanted.maps, wanted.rules, wanted.leads, around)
        if self._found is None or any(a is not b for a, b in zip(made_of, self._of, strict=True)):
            self._of, self._found = made_of, _rest(serving, wanted, around)
        return self._found


@dataclass(frozen=True, slots=True)
class _Rest:
    reasons: tuple[str, ...]
    turns: tuple[Command, ...]
    """Before servers are brought."""
    maps: tuple[Command, ...]
    forgotten: tuple[Command, ...]


def _rest(serving: Serving, wanted: Wanted, around: "Surroundings") -> _Rest:
    verdicts, forgotten = _verdict_commands(serving, wanted)
    turns = (*verdicts, *_dial_commands(serving, wanted))  # judged by today's word before anybody is newly judged
    reasons = tuple(_structural(serving.structure, wanted, around))
    return _Rest(reasons, turns, tuple(_map_commands(serving, wanted)), tuple(forgotten))


def change(
    serving: Serving, wanted: Wanted, around: Surroundings, plans: Plans, steady: Steady | None = None
) -> Nothing | RuntimeCommands | Reload:
    rest = (steady or Steady()).rest(serving, wanted, around)
    reasons = [
        *rest.reasons,
        *(f"backend {n} needs {len(p.homeless)} more slots" for n, p in plans.items() if p.homeless),
    ]
    brings = [c for p in plans.values() for c in p.brings]
    takes = [c for p in plans.values() for c in p.takes]
    tidies = tuple(c for p in plans.values() for c in p.tidies)
    routing = (*rest.turns, *brings, *rest.maps, *takes, *rest.forgotten)
    if reasons:
        return Reload(reasons=tuple(reasons), routing_commands=routing, tidies=tidies)
    return RuntimeCommands(routing_commands=routing, tidies=tidies) if routing or tidies else Nothing()


def _owned(structure: Structure, wanted: Wanted, name: str) -> Backend | None:
    """The wanted backend, when the running one of this name is the same service's."""
    backend = wanted.backends.get(name)
    return backend if backend is not None and structure.owners.get(name) == backend.key else None


def _structural(structure: Structure, wanted: Wanted, around: Surroundings) -> list[str]:
    reasons = ["settings changed"] if structure.frame != around.frame else []
    if structure.layout != LAYOUT:
        reasons.append("written by another version of fairlead")
    for name, backend in wanted.backends.items():
        if structure.owners.get(name) != backend.key:
            why = f": no spare is left that is {spares.kind(casing(backend.shape))}" if around.spare_backends else ""
            reasons.append(f"backend {name} is new{why}")
        elif structure.shapes[name] != casing(backend.shape):
            reasons.append(f"backend {name} has another shape")
    if structure.rules != wanted.rules:
        reasons.append("rules that no map can hold changed")
    known = _ids(structure.routers)
    reasons += [f"router of {r.service} changed" for r in wanted.fronts if r.id not in known]
    for port in wanted.maps.ports:
        number = int(port)
        if not bound(structure, number) and around.may_bind(number):
            reasons.append(f"service port {port} is not bound")
    bindable = set(wanted.maps.vips) - around.taken_vips
    reasons += [f"VIP {place} is not bound" for place in sorted(bindable - set(structure.vips))]
    reasons += [f"{why}, but bound" for port in ports_of(structure) if (why := around.forbidden.why(port))]
    return reasons


def leftovers(
    structure: Structure, wanted: Wanted, around: Surroundings, slots: Mapping[str, Slots]
) -> tuple[str, ...]:
    """What a removed service left behind that somebody else may want, and what new ones may want soon: reasons for a
    reload that has time.
    """
    unused = (p for p in ports_of(structure) if not around.in_range(p) and str(p) not in wanted.maps.ports)
    given_up = tuple(f"service port {port} is bound for nobody" for port in unused)
    given_up += tuple(f"VIP {place} is bound for nobody" for place in structure.vips if place not in wanted.maps.vips)
    idle = (r.service for r in structure.routers if r.id not in _ids(wanted.fronts))
    given_up += tuple(f"a router of {service} is nobody's any more" for service in idle)
    few = (n for n, b in wanted.backends.items() if n in slots and slot_plans.low(len(b.servers), len(slots[n])))
    given_up += tuple(f"backend {name} has few empty slots" for name in few)
    return given_up + spares.low(structure, wanted, around.spare_backends)


def lent(serving: Serving, wanted: Wanted) -> Structure:
    """The running structure with today's owners of its spares. Whoever is gone owns one until its slots are empty."""
    structure = serving.structure
    held = {
        name: key
        for name, key in wanted.names.items()
        if is_spare(name) and name in structure.shapes and (name in wanted.backends or _occupied(serving, name))
    }
    owners = {name: key for name, key in structure.owners.items() if not is_spare(name)} | held
    return structure if owners == structure.owners else msgspec.structs.replace(structure, owners=owners)


def _occupied(serving: Serving, name: str) -> bool:
    return any(not slot.empty or slot.used for slot in serving.slots.get(name, {}).values())


def servable(structure: Structure, wanted: Wanted) -> Maps:
    """The wanted maps, less what the running structure cannot serve before its reload (without a bind, no port)."""
    there = {
        name
        for name, b in wanted.backends.items()
        if structure.owners.get(name) == b.key and structure.shapes[name].mode == b.shape.mode
    }
    ports = {p: b for p, b in wanted.maps.ports.items() if b in there and structure.binds}
    hosts = {h: b for h, b in wanted.maps.hosts.items() if b in there}
    vips = {v: b for v, b in wanted.maps.vips.items() if b in there} if structure.vips else {}
    same = structure.layout == LAYOUT
    return Maps(
        hosts=hosts,
        plain={h: b for h, b in wanted.maps.plain.items() if b in there} if same else {},
        wilds=wanted.maps.wilds,
        ports=ports,
        vips=vips,
        names={n: b for n, b in wanted.maps.names.items() if b in there and structure.frame.passthrough},
        modes={p: m for p, m in wanted.maps.modes.items() if p in ports or p in vips},
        targets={t: b for t, b in wanted.maps.targets.items() if b in there} if same else {},
        **splits.kept(wanted.maps, there),
        **routers.kept(wanted.maps, there, _ids(structure.routers) if same else ()),
    )


def _ids(fronts: Iterable[FrontRouter]) -> frozenset[str]:
    return frozenset(router.id for router in fronts)


def _verdict_commands(serving: Serving, wanted: Wanted) -> tuple[list[MapCommand], list[MapCommand]]:
    """What is turned or new, and what goes: what a verdict refers to is there before it and goes after it."""
    if serving.structure.layout != LAYOUT:
        return [], []
    rows = [c for name in VERDICTS for c in _entries(name, getattr(serving.maps, name), getattr(wanted.maps, name))]
    gone: list[MapCommand] = [c for c in rows if isinstance(c, MapEntry) and c.value is None]
    kept = [c for c in rows if not isinstance(c, MapEntry) or c.value is not None]
    return kept, gone[::-1]


def _dial_commands(serving: Serving, wanted: Wanted) -> list[MapCommand]:
    """Those of a backend that nobody wants any more stay for its last requests."""
    if serving.structure.layout != LAYOUT:
        return []
    there = {n for n, b in wanted.backends.items() if serving.structure.owners.get(n) == b.key}
    found: list[MapCommand] = []
    for name in DIALS:
        now, target = getattr(serving.maps, name), getattr(wanted.maps, name)
        found += _entries(
            name, {n: v for n, v in now.items() if n in there}, {n: v for n, v in target.items() if n in there}
        )
    return found


def _map_commands(serving: Serving, wanted: Wanted) -> list[MapCommand]:
    target = servable(serving.structure, wanted)
    found: list[MapCommand] = []
    for name in ("modes", "ports", "vips", "names", "hosts", "targets"):  # a port's mode before its way
        found += _entries(name, getattr(serving.maps, name), getattr(target, name))
    if serving.structure.layout == LAYOUT:
        found += _split_commands(serving.maps, target)
        found += _entries("plain", serving.maps.plain, target.plain)
        target = routers.waiting(serving.maps, target, wanted.maps)
        for name in ROUTERS:
            found += _entries(name, getattr(serving.maps, name), getattr(target, name))
    if list(serving.maps.wilds.items()) != list(target.wilds.items()):
        found.append(MapWhole("wilds", tuple(target.wilds.items())))
    return sorted(found, key=_turn)


def _turn(command: MapCommand) -> int:
    """What goes, goes last; where a leg leads goes after the router that has it."""
    if not isinstance(command, MapEntry) or command.value is not None:
        return 0
    return 2 if command.map == "hops" else 1


def _split_commands(now: Maps, target: Maps) -> list[MapCommand]:
    """All shares change in one moment: a client that draws between two entries would go astray."""
    found: list[MapCommand] = [MapWhole("shares", tuple(target.shares.items()))] if now.shares != target.shares else []
    for name in SPLITS:
        found += [] if name == "shares" else _entries(name, getattr(now, name), getattr(target, name))
    return found


def _entries(name: str, now: Mapping[str, str], target: Mapping[str, str]) -> list[MapCommand]:
    if now == target:
        return []
    turned: list[MapCommand] = [
        MapEntry(name, key, value, key in now) for key, value in target.items() if now.get(key) != value
    ]
    return turned + [MapEntry(name, key, None, True) for key in now if key not in target]

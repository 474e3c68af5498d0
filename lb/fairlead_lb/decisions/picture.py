"""The next picture: what a reloaded or freshly started HAProxy comes up with, so that it is right at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from fairlead_lb.decisions import render, spares
from fairlead_lb.decisions import slots as slot_plans
from fairlead_lb.decisions.change import Serving, Surroundings
from fairlead_lb.decisions.commands import apply_to_slots
from fairlead_lb.decisions.dials import casing
from fairlead_lb.decisions.nearness import FAR, is_far
from fairlead_lb.decisions.routes import Wanted
from fairlead_lb.decisions.values import LAYOUT, Admin, Frame, Key, Maps, Picture, Shape, Slot, Slots, Structure

SPARE_SLOTS = 8


def wanted_picture(serving: Serving, wanted: Wanted, around: Surroundings) -> Picture:
    """Slots keep their names and servers; new servers stand in empty ones, more slots where they do not suffice.

    A slot still in quarantine keeps its address, in maintenance: old workers may hold connections to it. Backends that
    nothing wants are left out; an old worker ends their sessions.
    """
    generation = serving.structure.generation + 1
    spare = spares.fresh(wanted, around.spare_backends, generation)
    names = {key: name for name, key in serving.structure.owners.items()}
    slots = {name: _slots(serving, wanted, name, names, far=around.frame.far_slots) for name in wanted.backends}
    structure = Structure(
        generation=generation,
        frame=around.frame,
        layout=LAYOUT,
        binds=ranges(ports_to_bind(wanted.maps, around)),
        vips=vips_to_bind(wanted.maps, around),
        shapes={**{name: casing(b.shape) for name, b in wanted.backends.items()}, **spare},
        owners={name: b.key for name, b in wanted.backends.items()},
        rules=wanted.rules,
        routers=wanted.fronts,
    )
    return Picture(
        structure=structure,
        slots={**slots, **{name: _empty(SPARE_SLOTS, far=around.frame.far_slots) for name in spare}},
        maps=wanted.maps,
    )


def first_picture(around: Surroundings) -> Picture:
    """Of a HAProxy that serves nobody yet."""
    return wanted_picture(Serving(structure=Structure(frame=around.frame, generation=-1)), Wanted(), around)


def _empty(count: int, *, far: bool) -> Slots:
    names = ("s", FAR) if far else ("s",)
    return {f"{name}{number}": Slot() for name in names for number in range(1, count + 1)}


@dataclass(frozen=True, slots=True)
class _Fragment:
    """One backend: what it is made of, and what is made of it."""

    slots: Slots
    shape: Shape
    frame: Frame
    rendered: Slots
    text: str


class Fragments:
    """Texts of backends, made again only for slots that are another object than last time."""

    def __init__(self) -> None:
        self._made: dict[str, _Fragment] = {}

    def current(self, serving: Serving) -> tuple[Picture, str]:
        """`current_picture(serving)` and its configuration."""
        before, there, frame = self._made, serving.slots, serving.structure.frame
        self._made = {
            name: made
            if (made := before.get(name)) is not None
            and made.slots is there[name]
            and made.shape is shape
            and made.frame is frame
            else _fragment(name, shape, there[name], frame)
            for name, shape in serving.structure.shapes.items()
        }
        slots = {
            name: self._made[name].rendered if name in self._made else _rendered(there)
            for name, there in serving.slots.items()
        }
        text = render.config_of(serving.structure, [made.text for made in self._made.values()])
        return Picture(structure=serving.structure, slots=slots, maps=serving.maps), text


def _fragment(name: str, shape: Shape, slots: Slots, frame: Frame) -> _Fragment:
    rendered = _rendered(slots)
    return _Fragment(slots, shape, frame, rendered, render.backend_text(name, shape, rendered, frame))


def current_picture(serving: Serving) -> Picture:
    """What is served now, to be kept on disk between reloads."""
    slots = {name: _rendered(there) for name, there in serving.slots.items()}
    return Picture(structure=serving.structure, slots=slots, maps=serving.maps)


def _rendered(slots: Slots) -> Slots:
    return {place: as_rendered(slot) for place, slot in slots.items()}


def successor(serving: Serving) -> Picture:
    """The same for another HAProxy beside this one: the worker's socket is the generation's."""
    structure = msgspec.structs.replace(serving.structure, generation=serving.structure.generation + 1)
    return msgspec.structs.replace(current_picture(serving), structure=structure)


def rebound(picture: Picture, around: Surroundings) -> Picture:
    """The same picture on other binds: for a fresh start, when ports were taken meanwhile."""
    structure = msgspec.structs.replace(
        picture.structure,
        frame=around.frame,
        binds=ranges(ports_to_bind(picture.maps, around)),
        vips=vips_to_bind(picture.maps, around),
    )
    return msgspec.structs.replace(picture, structure=structure)


def ports_to_bind(maps: Maps, around: Surroundings) -> set[int]:
    """The range, whatever services ask for beyond it, less what others hold or may have at any time."""
    low, high = around.service_ports
    whole = set(range(low, high + 1)) if high else set()
    return {port for port in whole | {int(p) for p in maps.ports} if around.may_bind(port)}


def vips_to_bind(maps: Maps, around: Surroundings) -> tuple[str, ...]:
    return tuple(sorted(set(maps.vips) - around.taken_vips)) if around.vips is not None else ()


def ranges(ports: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """{1, 2, 3, 5} -> ((1, 3), (5, 5))"""
    found: list[tuple[int, int]] = []
    for port in sorted(ports):
        if found and found[-1][1] == port - 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return tuple(found)


def _slots(serving: Serving, wanted: Wanted, name: str, names: Mapping[Key, str], *, far: bool) -> Slots:
    """`names`: where each service stands now; it may be in a spare. `far`: there are far slots too."""
    backend = wanted.backends[name]
    now: dict[str, Slot] = dict(serving.slots.get(names.get(backend.key, ""), {}))
    missing = slot_plans.plan(backend, name, now, wanted.dead).homeless
    had = sum(not is_far(place) for place in now)
    near = max(
        slot_plans.count_for(len(backend.servers), had=had, spare=SPARE_SLOTS), had + sum(not s.far for s in missing)
    )
    now.update({f"s{number}": Slot() for number in range(had + 1, near + 1)})
    if far:
        had = len(now) - near
        most = max(had, len(backend.servers) + SPARE_SLOTS, had + sum(s.far for s in missing))
        now.update({f"{FAR}{number}": Slot() for number in range(had + 1, most + 1)})
    plan = slot_plans.plan(backend, name, now, wanted.dead)
    after = apply_to_slots(now, plan.brings + plan.takes)
    return {place: as_rendered(slot) for place, slot in after.items()}


def as_rendered(slot: Slot) -> Slot:
    """A drained server comes up in maintenance: a new worker has no sessions on it to finish."""
    admin = slot.admin if slot.admin is Admin.READY and not slot.empty else Admin.MAINT
    up = admin is Admin.READY
    if slot.admin is admin and slot.up is up and not slot.used and not slot.unchecked:
        return slot
    return msgspec.structs.replace(slot, admin=admin, used=0, up=up, unchecked=False)

"""What `/status` says of each service: thousands of servers, and others wait for the loop meanwhile.

So a service's entry is encoded once and kept for as long as its slots are the same object, and after every few of them
the loop goes round.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead_lb.decisions import map_keys
from fairlead_lb.decisions.between import HOME
from fairlead_lb.decisions.nearness import is_far
from fairlead_lb.decisions.values import Admin, Key, Slot, Slots
from fairlead_lb.state import State

STEP = 50
"""Services; some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A service's entry but for its servers."""

    key: Key
    backend: str
    wanted: bool
    mode: str
    service_port: int
    vips: tuple[str, ...]
    hosts: tuple[str, ...]


class Listing:
    """Entries of services, by backend, as JSON."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Served, Slots, msgspec.Raw]] = {}

    async def services(self, state: State, slots: Mapping[str, Slots]) -> Sequence[msgspec.Raw]:
        """Of the backends in `slots` that matter, by name; what is not served any more is forgotten."""
        found: list[msgspec.Raw] = []
        for number, served in enumerate(_served(state, slots)):
            found.append(self._entry(served, slots[served.backend]))
            if number % STEP == STEP - 1:
                await asyncio.sleep(0)
        owners = state.serving.structure.owners if state.serving is not None else {}
        for name in self._made.keys() - owners.keys():
            del self._made[name]
        return found

    def _entry(self, served: Served, slots: Slots) -> msgspec.Raw:
        made = self._made.get(served.backend)
        if made is not None and made[1] is slots and made[0] == served:
            return made[2]
        entry = msgspec.Raw(msgspec.json.encode(_told(served, slots)))
        self._made[served.backend] = (served, slots, entry)
        return entry


def backends_of(state: State, service: str) -> Sequence[str]:
    """Those that somebody stands in, by name; "": of all services. Colours of a group are told as the group."""
    service = state.wanted.groups.of.get(service, service)
    owners = state.serving.structure.owners if state.serving is not None else {}
    return sorted(name for name, key in owners.items() if service in ("", key.service))


def slots_of(state: State, names: Sequence[str]) -> Mapping[str, Slots]:
    """As last read."""
    slots = state.serving.slots if state.serving is not None else {}
    return {name: slots[name] for name in names if name in slots}


def _served(state: State, slots: Mapping[str, Slots]) -> Sequence[Served]:
    serving = state.serving
    if serving is None:
        return ()
    hosts: dict[str, list[str]] = {}
    for key, backend in serving.maps.hosts.items():
        hosts.setdefault(backend, []).append(map_keys.shown(key))
    vips: dict[str, list[str]] = {}
    for place, backend in serving.maps.vips.items():
        vips.setdefault(backend, []).append(place)
    ports = {backend: int(port) for port, backend in serving.maps.ports.items()}
    owners, shapes = serving.structure.owners, serving.structure.shapes
    return [
        Served(
            key=owners[name],
            backend=name,
            wanted=state.wanted.revision < 0 or name in state.wanted.backends,
            mode=shapes[name].mode,
            service_port=ports.get(name, 0),
            vips=tuple(vips.get(name, ())),
            hosts=tuple(hosts.get(name, ())),
        )
        for name in sorted(slots)
        if name in owners and _matters(name, state, slots[name])
    ]


def _matters(backend: str, state: State, slots: Slots) -> bool:
    """Wanted, or not yet empty; before anything is known to be wanted all that is served matters."""
    wanted = state.wanted
    return wanted.revision < 0 or backend in wanted.backends or any(not s.empty for s in slots.values())


def _told(served: Served, slots: Slots) -> Mapping[str, Any]:
    return {
        "service": served.key.service,
        "port_index": served.key.index % HOME,
        **({"home": True} if served.key.index >= HOME else {}),
        "backend": served.backend,
        "wanted": served.wanted,
        "mode": served.mode,
        "service_port": served.service_port,
        "vips": served.vips,
        "hosts": served.hosts,
        "servers": [_server(place, slot) for place, slot in slots.items() if not slot.empty],
        "slots": len(slots),
    }


def _server(place: str, slot: Slot) -> Mapping[str, Any]:
    return {
        "slot": place,
        "task": slot.task,
        "host": slot.host,
        "port": slot.port,
        "state": _state_of(slot),
        "weight": slot.weight,
        "sessions": slot.used,
        "far": is_far(place),
    }


def _state_of(slot: Slot) -> str:
    """`ready` gets new requests; `down` would, but its check failed, `aside` too, but for its errors or its
    member's weight of 0; `drain` and `maint` do not.
    """
    if slot.admin is Admin.READY and slot.up and not slot.weight:
        return "aside"
    return "down" if slot.admin is Admin.READY and not slot.up else str(slot.admin)

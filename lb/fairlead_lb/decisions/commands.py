"""Runtime commands as values: what they say on HAProxy's socket, and what they do to a slot."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from fairlead_lb.decisions.values import DUMMY_HOST, DUMMY_PORT, Admin, Slot, Slots


@dataclass(frozen=True, slots=True)
class SetAddress:
    """Only ever on a slot without connections: what is in flight would return to the slot's pool."""

    backend: str
    slot: str
    host: str
    port: int
    task: str

    def text(self) -> str:
        return f"set server {self.backend}/{self.slot} addr {self.host} port {self.port}"

    def after(self, slot: Slot) -> Slot:
        return msgspec.structs.replace(slot, host=self.host, port=self.port, task=self.task)


@dataclass(frozen=True, slots=True)
class SetWeight:
    backend: str
    slot: str
    weight: int

    def text(self) -> str:
        return f"set server {self.backend}/{self.slot} weight {self.weight}"

    def after(self, slot: Slot) -> Slot:
        return msgspec.structs.replace(slot, weight=self.weight)


@dataclass(frozen=True, slots=True)
class SetState:
    """Ready is up at once: the agent has checked the task; HAProxy's own first failed check takes it out."""

    backend: str
    slot: str
    admin: Admin

    def text(self) -> str:
        return f"set server {self.backend}/{self.slot} state {self.admin}"

    def after(self, slot: Slot) -> Slot:
        return msgspec.structs.replace(slot, admin=self.admin, up=self.admin is Admin.READY)


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Ends the sessions of a dead server: nothing answers them any more."""

    backend: str
    slot: str

    def text(self) -> str:
        return f"shutdown sessions server {self.backend}/{self.slot}"

    def after(self, slot: Slot) -> Slot:
        return msgspec.structs.replace(slot, used=0)


@dataclass(frozen=True, slots=True)
class SetChecked:
    """Whether HAProxy's checks decide over it. Stopped, it stays as it is."""

    backend: str
    slot: str
    checked: bool

    def text(self) -> str:
        return f"{'enable' if self.checked else 'disable'} health {self.backend}/{self.slot}"

    def after(self, slot: Slot) -> Slot:
        return msgspec.structs.replace(slot, unchecked=not self.checked)


@dataclass(frozen=True, slots=True)
class SetUp:
    """Up, until a check says otherwise."""

    backend: str
    slot: str

    def text(self) -> str:
        return f"set server {self.backend}/{self.slot} health up"

    def after(self, slot: Slot) -> Slot:
        return msgspec.structs.replace(slot, up=True)


ServerCommand = SetAddress | SetWeight | SetState | Shutdown | SetChecked | SetUp


@dataclass(frozen=True, slots=True)
class MapEntry:
    """Sets (`known`: the key is there), adds, or with value None deletes one entry of a map."""

    map: str
    key: str
    value: str | None
    known: bool

    def text(self, file: str) -> str:
        if self.value is None:
            return f"del map {file} {self.key}"
        return f"{'set' if self.known else 'add'} map {file} {self.key} {self.value}"


@dataclass(frozen=True, slots=True)
class MapWhole:
    """Replaces a map at once: where the order counts (the first match wins)."""

    map: str
    entries: tuple[tuple[str, str], ...]


MapCommand = MapEntry | MapWhole
Command = ServerCommand | MapCommand


def empty_slot(backend: str, slot: str) -> SetAddress:
    return SetAddress(backend, slot, DUMMY_HOST, DUMMY_PORT, "")


def apply_to_slots(slots: Slots, commands: Iterable[ServerCommand]) -> dict[str, Slot]:
    """What HAProxy has after the commands, without asking it."""
    after = dict(slots)
    for command in commands:
        after[command.slot] = command.after(after[command.slot])
    return after


def apply_to_map(entries: Mapping[str, str], command: MapCommand) -> dict[str, str]:
    if isinstance(command, MapWhole):
        return dict(command.entries)
    after = dict(entries)
    if command.value is None:
        after.pop(command.key, None)
    else:
        after[command.key] = command.value
    return after

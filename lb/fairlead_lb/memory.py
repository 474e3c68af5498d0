"""Which task was put into which slot: HAProxy knows addresses only."""

from collections.abc import Iterable, Mapping

import msgspec

from fairlead_lb.decisions.commands import Command, SetAddress
from fairlead_lb.decisions.values import Picture, Slot

Place = tuple[str, str]
"""Backend and slot."""


class Memory:
    """Owned by the controller. Begins with what its predecessor noted: (backend, slot, host, port) -> task."""

    def __init__(self, noted: Mapping[tuple[str, str, str, int], str]) -> None:
        self._placed: dict[Place, tuple[str, int, str]] = {
            (backend, slot): (host, port, task) for (backend, slot, host, port), task in noted.items()
        }
        self._served: dict[Place, str] = {place: what[2] for place, what in self._placed.items() if what[2]}

    def placed(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, SetAddress):
                self.put(command.backend, command.slot, (command.host, command.port, command.task))

    def rendered(self, picture: Picture) -> None:
        for backend, slots in picture.slots.items():
            for place, slot in slots.items():
                self.put(backend, place, (slot.host, slot.port, slot.task))

    def put(self, backend: str, place: str, what: tuple[str, int, str]) -> None:
        """`what`: host, port, task."""
        self._placed[backend, place] = what
        if what[2]:
            self._served[backend, place] = what[2]

    def served_last(self, backend: str, place: str) -> str:
        """The task there, or the last one that was; "" when nobody knows."""
        return self._served.get((backend, place), "")

    def task_at(self, backend: str, place: str) -> str:
        """Of whatever stood there last; "" when nobody knows."""
        return self._placed.get((backend, place), ("", 0, ""))[2]

    def task_of(self, backend: str, place: str, slot: Slot) -> str:
        """Empty for an address that somebody else put there."""
        host, port, task = self._placed.get((backend, place), ("", 0, ""))
        return task if (host, port) == (slot.host, slot.port) else ""

    def named(self, backend: str, place: str, slot: Slot) -> Slot:
        return msgspec.structs.replace(slot, task="" if slot.empty else self.task_of(backend, place, slot))

"""What is to be told the master, in two stages: first recorded, then sent.

An intent (a launch, a kill) is sent only after the record that names it is durable; an acknowledgement only after
what the update said is.
"""

from dataclasses import dataclass, field
from typing import Any

ACCEPT = "ACCEPT"
KILL = "KILL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One scheduler call. `tasks`: whose launch it is. `generation`: the subscription it belongs to."""

    kind: str
    payload: dict[str, Any]
    generation: int
    tasks: tuple[str, ...] = ()


@dataclass(slots=True)
class Outbox:
    """`dirty`: apps whose record must be written before `waiting` may go."""

    dirty: dict[str, None] = field(default_factory=dict)
    waiting: list[Call] = field(default_factory=list)

    def take(self) -> tuple[list[str], list[Call]]:
        """All of it, leaving nothing."""
        dirty, waiting = list(self.dirty), self.waiting
        self.dirty, self.waiting = {}, []
        return dirty, waiting

    def give_back(self, dirty: list[str], waiting: list[Call]) -> None:
        """What could not be recorded, ahead of what has come since."""
        self.dirty = dict.fromkeys(dirty) | self.dirty
        self.waiting = waiting + self.waiting

    def __bool__(self) -> bool:
        return bool(self.dirty or self.waiting)


def split_flow(calls: list[Call]) -> tuple[list[Call], list[Call]]:
    """Those that may overtake one another, and REVIVE and SUPPRESS, which may not."""
    flow = [c for c in calls if c.kind in {"REVIVE", "SUPPRESS"}]
    return [c for c in calls if c.kind not in {"REVIVE", "SUPPRESS"}], flow[-1:]

"""The values a plan is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fairlead_messaging.decisions.gates import FIRST, Version
from fairlead_messaging.decisions.things import Key, Kind, Thing, Things, differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Actual:
    """What stands on one broker. `made` is what this topology has made there, as its ledger says."""

    version: Version = FIRST
    version_text: str = ""
    things: Things = field(default_factory=dict)
    made: frozenset[Key] = frozenset()
    messages: Mapping[Key, int] = field(default_factory=dict)
    """Of queues that hold some."""
    consumers: Mapping[Key, int] = field(default_factory=dict)
    """Of queues that have some."""
    federation: bool = True
    """Whether the federation plugins are enabled."""
    links: int = 0
    """How many federation links are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Make it, or change `before` into it."""

    thing: Thing
    before: Thing | None = None

    @property
    def action(self) -> str:
        return "create" if self.before is None else "change"

    @property
    def why(self) -> str:
        return "; ".join(differences(self.before.body, self.thing.body)) if self.before is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    thing: Thing

    @property
    def action(self) -> str:
        return "delete"

    @property
    def why(self) -> str:
        return "no longer declared"


Step = Put | Delete


def rounds(steps: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """What links need to be there on every broker before any of them starts, and the rest; each in its order."""
    first = tuple(step for step in steps if isinstance(step, Put) and step.thing.kind not in LINKING)
    return first, tuple(step for step in steps if step not in first)


LINKING = frozenset({Kind.UPSTREAM, Kind.UPSTREAM_SET, Kind.POLICY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a plan is not carried out. `forcible`: a person's --force does it all the same."""

    thing: Thing | None
    why: str
    forcible: bool

    def __str__(self) -> str:
        return f"{self.thing}: {self.why}" if self.thing is not None else self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in the order in which they can be done; what cannot be done at all is among the obstacles alone."""

    broker: str
    steps: tuple[Step, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    notes: tuple[str, ...] = ()
    made: frozenset[Key] = frozenset()
    """What the ledger says once the plan is done."""

    @property
    def blocked(self) -> tuple[Obstacle, ...]:
        """What no --force helps."""
        return tuple(o for o in self.obstacles if not o.forcible)

    @property
    def unsafe(self) -> tuple[Obstacle, ...]:
        return tuple(o for o in self.obstacles if o.forcible)

    def harmless(self) -> tuple[Step, ...]:
        """The steps that no obstacle speaks against: what a daemon does without a person. Never a deletion."""
        doubted = {o.thing.key for o in self.obstacles if o.thing is not None}
        return tuple(step for step in self.steps if isinstance(step, Put) and step.thing.key not in doubted)

    def fields(self) -> dict[str, int]:
        """Counts for the one log line of a cycle."""
        actions = [step.action for step in self.steps]
        counts = {action: actions.count(action) for action in ("create", "change", "delete")}
        return {**counts, "obstacles": len(self.obstacles)}

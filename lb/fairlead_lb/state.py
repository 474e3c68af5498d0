"""What the controller knows at this moment; pages and the reporter read it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_discovery.records import Progress
from fairlead_discovery.snapshots import Snapshot
from fairlead_lb.decisions import pace, routes
from fairlead_lb.decisions.change import Serving
from fairlead_lb.decisions.conditions import Condition
from fairlead_lb.decisions.judging import Judgement
from fairlead_lb.decisions.nearness import Spilling
from fairlead_lb.decisions.values import Key, Shape

OLD_WORKERS_S = 1.0


@dataclass(slots=True)
class Times:
    """Monotonic seconds; 0 is long ago."""

    arrived: float = 0.0
    decided: float = 0.0
    decided_before: float = 0.0
    applied: float = 0.0
    reload_not_before: float = 0.0
    gate_not_before: float = 0.0
    """Another balancer reloads first."""
    save_not_before: float = 0.0
    good_kept: float = 0.0
    servers_counted: float = 0.0
    audited: float = 0.0
    audit_part: float = 0.0
    drains_looked: float = 0.0
    drains_since: float = 0.0
    old_looked: float = 0.0
    watched: float = 0.0
    spill_looked: float = 0.0
    leftovers_since: float = 0.0
    leftovers_looked: float = 0.0
    leftovers_skipped: bool = False
    deaf_since: float = 0.0
    """0: HAProxy was reached last time."""

    def reload_due(self) -> float:
        return max(self.reload_not_before, self.gate_not_before)

    def leftovers_due(self) -> float:
        return max(self.leftovers_since + pace.LEFTOVER_S, self.reload_due())

    def waits(self, now: float, *, old_workers: bool, pending: Collection[str]) -> Iterator[float]:
        """Seconds until each thing that is due by the clock."""
        if old_workers:
            yield OLD_WORKERS_S
        if self.leftovers_skipped:
            yield self.leftovers_looked + pace.LEFTOVER_LOOK_S - now
        if self.leftovers_since:
            yield max(self.leftovers_due(), self.leftovers_looked + pace.LEFTOVER_LOOK_S) - now
        if pending:
            yield self.reload_due() - now


@dataclass(slots=True)
class State:
    """What pages and the reporter read; only the controller writes it."""

    snapshot: Snapshot | None = None
    snapshot_at: float = 0.0
    frozen: str = ""
    """Why HAProxy is left as it is, "" when it is not."""
    wanted: routes.Wanted = field(default_factory=routes.Wanted)
    serving: Serving | None = None
    judgement: Judgement = field(default_factory=Judgement)
    spilling: Spilling = field(default_factory=Spilling)
    progress: Progress | None = None
    reloads: int = 0
    last_error: str = ""
    taken: Mapping[int, str] = field(default_factory=dict)
    taken_vips: Mapping[str, str] = field(default_factory=dict)
    pending: tuple[str, ...] = ()
    """Why a reload is due."""
    hostnames: dict[str, str] = field(default_factory=dict)
    """Of agents, by their ids; also of those that are gone."""
    former: dict[str, Key] = field(default_factory=dict)
    """Owners of backends that only old workers may still have."""
    strays: Mapping[tuple[str, str], Collection[tuple[str, str]]] = field(default_factory=dict)
    """By backend and slot: service and task of those who stood there in an old worker, and not in the one after it."""
    refused_shapes: dict[tuple[Key, Shape], str] = field(default_factory=dict)
    refused_routers: dict[str, str] = field(default_factory=dict)
    """What HAProxy's own check turned down, by the router's `id`."""
    refused_rules: dict[tuple[str, tuple[Condition, ...]], str] = field(default_factory=dict)

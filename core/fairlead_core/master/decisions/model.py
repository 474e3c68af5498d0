"""What the leading master knows: agents, frameworks, tasks, offers. Owned by one loop, changed by these modules only.

Times are seconds of one monotonic clock unless a name ends in `_wall_s`; they come in as arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead_core.agent_protocol import Message
from fairlead_core.master.decisions.statuses import TERMINAL, Json, labels_of
from fairlead_core.resources import Resources
from fairlead_discovery import paths
from fairlead_discovery.records import Reason

TaskKey = tuple[str, str]
"""Framework id and task id: task ids are unique within a framework only."""
COMPLETED_KEPT = 1000
"""Finished tasks a framework is remembered by, as in Mesos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Now, by both clocks: `s` monotonic, `wall_s` seconds since 1970."""

    s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A node as it should stand: below paths.endpoint_folder(service), or in PORTLESS when it has no ports."""

    service: str
    name: str
    data: bytes
    member: bool

    @property
    def path(self) -> str:
        make = paths.member if self.member else paths.portless
        return make(self.service, self.name)


@dataclass(slots=True, kw_only=True)
class Leave:
    """A task told to leave. Without `revision` the withdrawal is not committed yet."""

    reason: Reason
    deadline_s: float
    deadline_wall_s: float
    service: str = ""
    member: str = ""
    revision: int | None = None
    committed_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Task:
    """`state` is the latest known; `statuses` the last of each state, for pages."""

    id: str
    framework_id: str
    agent_id: str
    info: Json
    resources: Resources
    role: str = "*"
    state: str = "TASK_STAGING"
    healthy: bool | None = None
    status: Json = field(default_factory=dict)
    statuses: list[Json] = field(default_factory=list)
    unacknowledged: str = ""
    """Uuid of the latest update the framework still owes an acknowledgement for."""
    service: str = ""
    running_since_s: float | None = None
    leave: Leave | None = None
    kill_sent: bool = False
    executor_id: str = ""
    made: Publication | None = None
    """What publishing made of it; made again after whatever it is made of has changed."""
    held: bool = False
    """Whether its resources are counted: not when it ended, not while its agent is unreachable."""

    @property
    def key(self) -> TaskKey:
        return (self.framework_id, self.id)

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def labels(self) -> dict[str, str]:
        return labels_of(self.info.get("labels"))

    @property
    def name(self) -> str:
        return str(self.info.get("name") or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A framework does not want offers within `refused` of one agent until then."""

    until_s: float
    refused: Resources


@dataclass(slots=True, kw_only=True)
class Framework:
    """`stream_id` "" while disconnected; `removed_at_s` is when it is torn down if it does not come back."""

    id: str
    name: str
    info: Json
    roles: tuple[str, ...] = ("*",)
    capabilities: frozenset[str] = frozenset()
    failover_timeout_s: float = 0.0
    stream_id: str = ""
    address: str = ""
    registered_wall_s: float = 0.0
    reregistered_wall_s: float = 0.0
    removed_at_s: float | None = None
    suppressed: set[str] = field(default_factory=set)
    filters: dict[str, Filter] = field(default_factory=dict)
    """By agent id."""
    tasks: dict[str, Task] = field(default_factory=dict)
    completed: dict[str, Task] = field(default_factory=dict)
    offers: dict[str, "Offer"] = field(default_factory=dict)
    allocated: dict[str, dict[str, int]] = field(default_factory=dict)
    """By role, thousandths of each scalar in tasks, executors and offers: what fairness is measured by."""
    recovered: bool = False
    """Known from the registry or an agent, not subscribed since this leader took over."""

    @property
    def connected(self) -> bool:
        return bool(self.stream_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    id: str
    framework_id: str
    agent_id: str
    role: str
    resources: Resources
    made_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """A custom executor and what it holds itself, beside its tasks, in a role of its framework."""

    info: Json
    resources: Resources
    role: str


@dataclass(slots=True, kw_only=True)
class Drain:
    """A machine being emptied. At `deadline_wall_s` what remains is told to leave."""

    deadline_wall_s: float
    started_wall_s: float
    mark_gone: bool = False
    told: bool = False
    drained: bool = False
    grace_ns: int | None = None


@dataclass(slots=True, kw_only=True)
class Agent:
    """An agent that registered with this leader, or (`seen` False) one that the registry or a member names."""

    id: str
    hostname: str = ""
    ip: str = ""
    port: int = 0
    boot_id: str = ""
    total: Resources = field(default_factory=Resources)
    attributes: tuple[Json, ...] = ()
    zone: str = ""
    region: str = ""
    seen: bool = False
    stream_id: str = ""
    heard_s: float = 0.0
    closed: bool = False
    """Its stream was closed by a machine that answers, or it said goodbye: the longer grace."""
    suspect: bool = False
    unreachable: bool = False
    unreachable_wall_s: float = 0.0
    deactivated: bool = False
    gone: bool = False
    drain: Drain | None = None
    registered_wall_s: float = 0.0
    reregistered_wall_s: float = 0.0
    tasks: dict[TaskKey, Task] = field(default_factory=dict)
    executors: dict[tuple[str, str], "Executor"] = field(default_factory=dict)
    """Custom executors by (framework id, executor id)."""
    used: Resources = field(default_factory=Resources)
    offered: Resources = field(default_factory=Resources)
    offers: dict[str, Offer] = field(default_factory=dict)
    counted: Resources = field(default_factory=Resources)
    """Its part of Cluster.total."""

    @property
    def connected(self) -> bool:
        return bool(self.stream_id)

    @property
    def offerable(self) -> bool:
        return self.connected and not (self.deactivated or self.drain or self.gone or self.suspect)

    @property
    def free(self) -> Resources:
        return self.total - self.used - self.offered


# --- what the adapters are to do -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """An event to a framework's stream."""

    stream_id: str
    event: Json


@dataclass(frozen=True, slots=True)
class Hang:
    """Close a framework's stream after what was sent."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class Order:
    """A command to an agent's stream."""

    stream_id: str
    command: Message


@dataclass(frozen=True, slots=True)
class HangAgent:
    stream_id: str


Effect = Send | Hang | Order | HangAgent


@dataclass(slots=True, kw_only=True)
class InverseOffer:
    id: str
    framework_id: str
    agent_id: str
    answer: str = ""
    """"", "accepted" or "declined"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A published node as it stands. Whose it is, as far as its content says."""

    service: str
    name: str
    member: bool
    task_id: str
    framework_id: str = ""
    agent_id: str = ""

    @property
    def path(self) -> str:
        make = paths.member if self.member else paths.portless
        return make(self.service, self.name)


@dataclass(slots=True, kw_only=True)
class Cluster:
    """All of it. `effects` and the sets are taken by the daemon after every event."""

    master_id: str
    epoch: int
    started_s: float
    drain_default_s: float = 300.0
    framework_return_s: float = 60.0
    settle_s: float = 30.0
    """How long after taking over agents that lead nowhere else may still come back."""
    agents: dict[str, Agent] = field(default_factory=dict)
    frameworks: dict[str, Framework] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    inverse_offers: dict[str, InverseOffer] = field(default_factory=dict)
    torn_down: dict[str, Framework] = field(default_factory=dict)
    total: Resources = field(default_factory=Resources)
    services: dict[str, dict[TaskKey, Task]] = field(default_factory=dict)
    """Live tasks by service key."""
    stored: dict[str, dict[str, Stored]] = field(default_factory=dict)
    """What stands in the registry, by service and node name."""
    leaves: dict[str, Leave] = field(default_factory=dict)
    """By task id: everything that has, or is about to have, a leaving record."""
    queued: dict[TaskKey, Reason] = field(default_factory=dict)
    """Kills that wait until another framework's task of the same id has left, and its record is gone."""
    ended: dict[str, float] = field(default_factory=dict)
    """Leaving records to delete, by task id, and from when on."""
    later: dict[str, float] = field(default_factory=dict)
    """Services to look at again at a time: portless tasks are published only after a while."""
    largest_ttl_s: float = 0.0
    effects: list[Effect] = field(default_factory=list)
    dirty_agents: set[str] = field(default_factory=set)
    """Agents with something to offer, for the next allocation."""
    touched: set[str] = field(default_factory=set)
    """Services whose publication may have changed."""
    unsaved_frameworks: set[str] = field(default_factory=set)
    unsaved_agents: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    next_framework: int = 0
    next_agent: int = 0
    next_offer: int = 0

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def send(self, framework_id: str, event: Json) -> None:
        """Dropped when it is not connected: it reconciles when it comes back."""
        framework = self.frameworks.get(framework_id)
        if framework is not None and framework.stream_id:
            self.effects.append(Send(framework.stream_id, event))

    def order(self, agent_id: str, command: Message) -> None:
        """Dropped when it is not connected: registering brings it up again."""
        agent = self.agents.get(agent_id)
        if agent is not None and agent.stream_id:
            self.effects.append(Order(agent.stream_id, command))

    def take(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def task(self, framework_id: str, task_id: str) -> Task | None:
        framework = self.frameworks.get(framework_id)
        return None if framework is None else framework.tasks.get(task_id)

    def touch(self, task: Task) -> None:
        if task.service:
            self.touched.add(task.service)


def capabilities_of(info: Mapping[str, Any]) -> frozenset[str]:
    items = info.get("capabilities") or ()
    return frozenset(str(c.get("type")) for c in items if isinstance(c, Mapping))

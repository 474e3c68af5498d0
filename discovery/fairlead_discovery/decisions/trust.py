"""May a reading be believed? Pure rules; the first that fits says why not.

What leaves in order leaves a record (`leaving/<task>`). What disappears without one, much of it at once, is a fault
of somebody: a wiped tree, a leader that knows nothing. Readers then keep the last good state until a person says
that it is right, or the missing come back.

Two kinds of disappearance are in order without a record: tasks of a service that has as many new ones (replaced),
and all tasks of whole agents, as long as at least half of the agents stay (suspects, architecture 3.5).
"""

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

MASS_TASKS = 4
"""With fewer than these one cannot tell a disaster from an ordinary day."""
GAP_S = 600.0
"""Who has not looked for so long has missed ordinary departures: then only an empty tree is suspicious."""
RECORD_MEMORY_S = 120.0
"""So long a leaving record is remembered after it was seen."""
ANCHOR_S = 3.0
"""A disappearance spread over so much time is still one."""

Tasks = Mapping[str, Mapping[str, str]]
"""By service, by task id: the agent."""


class Cause(enum.StrEnum):
    CLUSTER = "cluster"
    REVISION = "revision"
    EMPTY = "empty"
    MASS = "mass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What trust looks at. `bare`: the whole clocked tree is empty, routes and all. `count` of tasks; None: count them."""

    cluster: str
    revision: int
    tasks: Tasks
    bare: bool
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    cause: Cause
    why: str


@dataclass(frozen=True, kw_only=True)  # no slots: what is costly is worked out once, and only if asked for
class Comparison:
    """The last good reading and a new one. `recorded`: tasks that were seen leaving lately; `touched`: services that
    may lack a task, None for all.
    """

    good: Reading
    new: Reading
    recorded: Collection[str]
    gap_s: float = 0.0
    held: Cause | None = None
    """Why the reading before this one was not believed."""
    touched: Collection[str] | None = None
    lost_most: int | None = None
    """No more tasks than these can have disappeared; None: nobody has counted."""

    @cached_property
    def known(self) -> int:
        return sum(map(len, self.good.tasks.values())) if self.good.count is None else self.good.count

    @cached_property
    def missing(self) -> int:
        """How many tasks have disappeared that nothing accounts for."""
        return _unaccounted(self._lost, self.good.tasks, self.new.tasks) if self.missing_most else 0

    @cached_property
    def missing_most(self) -> int:
        """As many at most: what withdrawn agents account for is left out, for that takes a look at all tasks."""
        return _unreplaced(self._lost, self.good.tasks, self.new.tasks, ())

    @cached_property
    def _lost(self) -> Tasks:
        return _without_record(self.good.tasks, self.new.tasks, self.recorded, self.touched)


class Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word: this cluster, as it was then, is to be believed. `time_s` is wall clock."""

    cluster: str
    revision: int
    time_s: float


def judge(c: Comparison) -> Doubt | None:
    """None: believe it."""
    for cause, fits, why in RULES:
        if fits(c):
            return Doubt(cause=cause, why=why(c))
    return None


def settles(word: Confirmed | None, doubt: Doubt, new: Reading, *, good_s: float) -> bool:
    """Whether a person's word is about this doubt: said of this cluster, after the good state was last true."""
    if word is None or word.cluster != new.cluster:
        return False
    return doubt.cause is Cause.CLUSTER or word.time_s >= good_s


def missing(good: Tasks, new: Tasks, recorded: Collection[str]) -> int:
    """How many tasks have disappeared that nothing accounts for."""
    return _unaccounted(_without_record(good, new, recorded, None), good, new)


def _without_record(good: Tasks, new: Tasks, recorded: Collection[str], touched: Collection[str] | None) -> Tasks:
    gone: dict[str, dict[str, str]] = {}
    for service in good if touched is None else touched:
        tasks, now = good.get(service, {}), new.get(service, {})
        if now is tasks or tasks.keys() <= now.keys():
            continue
        missed = {task: tasks[task] for task in tasks.keys() - now.keys() if task not in recorded}
        if missed:
            gone[service] = missed
    return gone


def _unaccounted(gone: Tasks, good: Tasks, new: Tasks) -> int:
    if not gone:
        return 0
    agents = {agent for tasks in gone.values() for agent in tasks.values()}
    return _unreplaced(gone, good, new, withdrawn(good, new, agents))


def _unreplaced(gone: Tasks, good: Tasks, new: Tasks, withdrawn: Collection[str]) -> int:
    missed = 0
    for service, tasks in gone.items():
        before = good.get(service, {})
        replacements = sum(task not in before for task in new.get(service, {}))
        missed += max(0, sum(agent not in withdrawn for agent in tasks.values()) - replacements)
    return missed


def withdrawn(good: Tasks, new: Tasks, touched: Collection[str]) -> frozenset[str]:
    """Of the agents that lost tasks, those that look withdrawn as a whole: what they still have are services that
    would be empty without them. None when that were more than half of all agents.
    """
    holding: set[str] = set()
    for tasks in new.values():
        agents = set(tasks.values())
        if not agents <= set(touched):
            holding |= agents
    whole = frozenset(touched) - holding
    everyone = {agent for tasks in good.values() for agent in tasks.values()}
    return whole if 2 * len(whole) <= len(everyone) else frozenset()


Rule = tuple[Cause, Callable[[Comparison], bool], Callable[[Comparison], str]]
RULES: Sequence[Rule] = (
    (
        Cause.CLUSTER,
        lambda c: bool(c.good.cluster) and c.new.cluster != c.good.cluster,
        lambda c: f"the registry is another one: cluster {c.new.cluster}, it was {c.good.cluster}",
    ),
    (
        Cause.REVISION,
        lambda c: c.new.revision < c.good.revision,
        lambda c: f"the revision went back from {c.good.revision} to {c.new.revision}",
    ),
    (
        Cause.REVISION,  # it has caught up by new commits, but is it what it was?
        lambda c: c.held is Cause.REVISION and c.missing > 0,
        lambda c: f"the revision had gone back, and {c.missing} tasks of before are missing",
    ),
    (
        Cause.EMPTY,
        lambda c: c.new.bare and c.missing > 0,
        lambda c: f"the registry is empty, {c.missing} tasks are gone without a leaving record",
    ),
    (
        Cause.MASS,
        lambda c: (
            c.gap_s < GAP_S
            and (c.lost_most is None or c.known < 2 * c.lost_most)  # else there is no need to look who they are
            and 2 * c.missing_most > MASS_TASKS
            and MASS_TASKS <= c.known < 2 * c.missing_most
            and c.known < 2 * c.missing
        ),
        lambda c: f"{c.missing} of {c.known} tasks are gone at once without a leaving record",
    ),
)

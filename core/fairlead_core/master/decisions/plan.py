"""What the registry should hold of the tasks, as one batch of changes. What stands is `Cluster.stored`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead_core.master.decisions import killing, life
from fairlead_core.master.decisions.model import Agent, Cluster, Leave, Moment, Publication, Stored, Task
from fairlead_core.master.decisions.publishing import (
    PORTLESS_AFTER_S,
    Candidate,
    is_up,
    plan_service,
    publication,
)
from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions.ops import check_sizes, of_change
from fairlead_discovery.records import Leaving, Reason, encode
from fairlead_discovery.registry import Change, Create, Delete, Put

BATCH_CHANGES = 400
BATCH_BYTES = 256 * 1024
"""One transaction stays below ZooKeeper's 1 MB."""
UNCLAIMED_S = 3600.0
"""How long what an absent agent stood for is kept: its member nodes, and the records of its leaving tasks."""


@dataclass(slots=True)
class Batch:
    """Changes of one commit, and what to note when it stands."""

    changes: list[Change] = field(default_factory=list)
    created: list[Stored] = field(default_factory=list)
    deleted: list[Stored] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """What the registry would not take, by path, with the reason: it is left out, so that the rest is published."""
    weight_bytes: int = 0

    @property
    def full(self) -> bool:
        return len(self.changes) >= BATCH_CHANGES or self.weight_bytes >= BATCH_BYTES

    def fields(self) -> dict[str, int]:
        """For the cycle's one log line."""
        return {
            "created": len(self.created),
            "deleted": len(self.deleted),
            "leaving": len(self.leaving),
            "dead": len(self.dead),
            "ended": len(self.ended),
        }


def make(cluster: Cluster, *, now: Moment) -> Batch:
    """The next batch; services that did not fit stay touched."""
    batch = Batch()
    for service in sorted(cluster.touched):
        if batch.full:
            break
        cluster.touched.discard(service)
        _add_service(cluster, batch, service, now)
    for task_id, when_s in cluster.ended.items():
        if when_s <= now.s and not batch.full:
            batch.ended.append(task_id)
            batch.changes.append(Delete(paths.leaving(task_id), missing_ok=True))
    return batch


def _add_service(cluster: Cluster, batch: Batch, service: str, now: Moment) -> None:
    stored = cluster.stored.get(service) or {}
    plan = plan_service(stored.values(), list(candidates(cluster, service, now)))
    for new in plan.create:
        if batch.full:
            cluster.touched.add(service)
            return
        create = Create(new.path, new.data)
        if not _takes(batch, create):
            continue
        batch.changes.append(create)
        batch.created.append(_as_stored(cluster, new))
        batch.weight_bytes += len(new.data)
    for old in plan.delete:
        if batch.full:
            cluster.touched.add(service)
            return
        batch.changes.append(Delete(old.path, missing_ok=True))
        batch.deleted.append(old)
        record = _record_for(cluster, batch, old, now)
        if record is not None:
            put = Put(paths.leaving(old.task_id), encode(record))
            batch.changes += [put] if _takes(batch, put) else []
    _kill_unpublished(cluster, service)


def _takes(batch: Batch, change: Change) -> bool:
    try:
        check_sizes((of_change(change),))
    except Refused as error:
        batch.refused[change.path] = str(error)
        return False
    return True


def _record_for(cluster: Cluster, batch: Batch, old: Stored, now: Moment) -> Leaving | None:
    """The leaving record that goes with a withdrawal; none for what may come back (suspect, unhealthy)."""
    if not old.member or old.task_id in batch.leaving or old.task_id in batch.dead:
        return None
    leave = cluster.leaves.get(old.task_id)
    if leave is not None and leave.service == old.service:
        if leave.revision is not None:
            return None
        batch.leaving.append(old.task_id)
        return killing.record_of(old.task_id, leave)
    if leave is not None or _live_task(cluster, old) is not None:
        return None  # another framework's task of the same id is leaving: the record is that one's
    batch.dead.append(old.task_id)
    return Leaving(task=old.task_id, service=old.service, member=old.name, reason=Reason.DEAD, deadline_s=now.wall_s)


def _kill_unpublished(cluster: Cluster, service: str) -> None:
    """A task told to leave whose member is withdrawn already (it was suspect, say): nothing to wait for."""
    for task in list((cluster.services.get(service) or {}).values()):
        leave = task.leave
        if leave is not None and leave.revision is None and not killing.published_members(cluster, task):
            cluster.leaves.pop(task.id, None)
            task.leave = None
            life.order_kill(cluster, task, leave.reason)


def candidates(cluster: Cluster, service: str, now: Moment) -> Iterator[Candidate]:
    """Of live tasks, and of nodes whose agent has not come back to this leader yet."""
    tasks = cluster.services.get(service) or {}
    for task in tasks.values():
        candidate = _of_task(cluster, task, now)
        if candidate is not None:
            yield candidate
    for stored in (cluster.stored.get(service) or {}).values():
        agent = cluster.agents.get(stored.agent_id)
        if agent is not None and _stands_for(cluster, agent, stored, now) and _live_task(cluster, stored) is None:
            cluster.later.setdefault(service, cluster.started_s + UNCLAIMED_S)
            yield Candidate(name=stored.name, member=stored.member, suspect=agent.suspect or agent.unreachable)


def _stands_for(cluster: Cluster, agent: Agent, stored: Stored, now: Moment) -> bool:
    """A node of an agent that may come back; in the end nobody claims it any more."""
    away = not agent.seen and not agent.gone and now.s < cluster.started_s + UNCLAIMED_S
    return away and stored.framework_id not in cluster.torn_down and stored.task_id not in cluster.leaves


def _live_task(cluster: Cluster, stored: Stored) -> Task | None:
    tasks = cluster.services.get(stored.service) or {}
    return tasks.get((stored.framework_id, stored.task_id))


def _of_task(cluster: Cluster, task: Task, now: Moment) -> Candidate | None:
    agent = cluster.agents[task.agent_id]
    lost_sight = task.state == "TASK_UNREACHABLE" and task.running_since_s is not None and task.healthy is not False
    if not is_up(task) and not (lost_sight and task.leave is None and not task.kill_sent):
        return None
    framework = cluster.frameworks[task.framework_id]
    made = publication(task, agent, framework.name)
    if not made.member and made.name not in (cluster.stored.get(task.service) or {}):
        assert task.running_since_s is not None
        if now.s - task.running_since_s < PORTLESS_AFTER_S:
            cluster.later[task.service] = task.running_since_s + PORTLESS_AFTER_S
            return None
    return Candidate(name=made.name, member=made.member, suspect=agent.suspect or agent.unreachable, publication=made)


def _as_stored(cluster: Cluster, new: Publication) -> Stored:
    task_id = paths.task_of(new.name)
    tasks = cluster.services.get(new.service) or {}
    task = next(t for t in tasks.values() if t.id == task_id)
    return Stored(
        service=new.service,
        name=new.name,
        member=new.member,
        task_id=task_id,
        framework_id=task.framework_id,
        agent_id=task.agent_id,
    )


def issued(cluster: Cluster, batch: Batch) -> None:
    """From now on its nodes may stand: a kill must treat them as published."""
    for new in batch.created:
        cluster.stored.setdefault(new.service, {})[new.name] = new


def stands(cluster: Cluster, batch: Batch, revision: int, *, now: Moment) -> None:
    """The commit succeeded."""
    for old in batch.deleted:
        nodes = cluster.stored.get(old.service) or {}
        nodes.pop(old.name, None)
        if not nodes:
            cluster.stored.pop(old.service, None)
    for task_id in batch.ended:
        cluster.ended.pop(task_id, None)
    for task_id in batch.leaving:
        killing.committed(cluster, task_id, revision, now=now)
    for task_id in batch.dead:
        life.died(cluster, task_id, now=now)


def time_has_come(cluster: Cluster, *, now: Moment) -> bool:
    """Whether something is to be planned only because time has passed."""
    for service in [s for s, when_s in cluster.later.items() if when_s <= now.s]:
        del cluster.later[service]
        cluster.touched.add(service)
    return bool(cluster.touched) or any(when_s <= now.s for when_s in cluster.ended.values())


def take_stored(cluster: Cluster, stored: Iterable[Stored]) -> None:
    """What a sight of the registry holds. Agents it names and we have not met may come back: they are waited for."""
    cluster.stored = {}
    for node in stored:
        cluster.stored.setdefault(node.service, {})[node.name] = node
        if node.agent_id and node.agent_id not in cluster.agents:
            cluster.agents[node.agent_id] = Agent(id=node.agent_id)
    cluster.touched.update(cluster.stored, cluster.services)


def take_leaving(cluster: Cluster, records: Mapping[str, Leaving], revision: int, *, now: Moment) -> None:
    """At taking over, and after a commit whose outcome was unknown. What nobody waits for any more is deleted."""
    for task_id, record in records.items():
        leave = cluster.leaves.get(task_id)
        if leave is not None and leave.revision is None:
            killing.committed(cluster, task_id, revision, now=now)
        elif leave is None and task_id not in cluster.ended:
            killing.take_up(cluster, record, revision, now=now)
            _bind(cluster, record, cluster.leaves.get(task_id))


def _bind(cluster: Cluster, record: Leaving, leave: Leave | None) -> None:
    if leave is None:
        return
    for task in (cluster.services.get(record.service) or {}).values():
        if task.id == record.task and task.leave is None:
            killing.bind(cluster, task)


def drop_unclaimed(cluster: Cluster, *, now: Moment) -> None:
    """Leaving records whose task no agent knows: at once when its agents are all back, else when time has run out."""
    away = any(not a.seen and not a.gone and not a.unreachable for a in cluster.agents.values())
    for task_id, leave in list(cluster.leaves.items()):
        if leave.revision is None or killing.task_of(cluster, leave, task_id) is not None:
            continue
        lost = any(a.unreachable for a in cluster.agents.values())
        patience_s = UNCLAIMED_S if away or lost else 0.0
        if now.s >= max(leave.deadline_s + patience_s, cluster.started_s + cluster.settle_s):
            del cluster.leaves[task_id]
            cluster.ended[task_id] = now.s

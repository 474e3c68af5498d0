"""Leave before dying: a published task is withdrawn first and killed when nobody can be sent to it any more."""

from fairlead_core.master.decisions import life
from fairlead_core.master.decisions.model import Cluster, Leave, Moment, Task
from fairlead_core.master.decisions.statuses import made_by_master, update_event
from fairlead_core.master.decisions.tasks import DEFAULT_DRAIN_S, drain_s
from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import leaving
from fairlead_discovery.decisions.leaving import Departure, Readers
from fairlead_discovery.records import Leaving, Reason


def kill(cluster: Cluster, task: Task, reason: Reason, *, now: Moment) -> None:
    """Idempotent. Unpublished, portless and unhealthy tasks go at once; a published one is told to leave first."""
    if task.terminal:
        return
    names = published_members(cluster, task)
    if reason is Reason.UNHEALTHY or not names:
        if task.leave is None or reason is Reason.UNHEALTHY:
            life.order_kill(cluster, task, reason)
        return
    if task.leave is not None or task.kill_sent:
        return
    if task.id in cluster.leaves or task.id in cluster.ended:
        cluster.queued.setdefault(task.key, reason)
        return
    seconds = _drain_s(task)
    task.leave = Leave(
        reason=reason,
        deadline_s=now.s + seconds,
        deadline_wall_s=now.wall_s + seconds,
        service=task.service,
        member=names[0],
    )
    cluster.leaves[task.id] = task.leave
    cluster.touch(task)


def kill_queued(cluster: Cluster, *, now: Moment) -> None:
    """Tasks that waited for another framework's task of the same id: a leaving record is named by the id alone."""
    for key, reason in list(cluster.queued.items()):
        if key[1] not in cluster.leaves and key[1] not in cluster.ended:
            del cluster.queued[key]
            task = cluster.task(*key)
            if task is not None:
                kill(cluster, task, reason, now=now)


def _drain_s(task: Task) -> float:
    try:
        return drain_s(task.labels)
    except Refused:  # only possible for a task that an older master let in
        return DEFAULT_DRAIN_S


def published_members(cluster: Cluster, task: Task) -> list[str]:
    """Names of its member nodes that stand (or may: a commit is on its way)."""
    stored = cluster.stored.get(task.service) or {}
    return [s.name for s in stored.values() if s.member and s.task_id == task.id and _same(s.framework_id, task)]


def _same(framework_id: str, task: Task) -> bool:
    return framework_id in {"", task.framework_id}


def record_of(task_id: str, leave: Leave) -> Leaving:
    return Leaving(
        task=task_id,
        service=leave.service,
        member=leave.member,
        reason=leave.reason,
        deadline_s=leave.deadline_wall_s,
    )


def committed(cluster: Cluster, task_id: str, revision: int, *, now: Moment) -> None:
    """Its withdrawal stands: from now on the clock runs, and capable frameworks are told TASK_KILLING."""
    leave = cluster.leaves.get(task_id)
    if leave is None or leave.revision is not None:
        if leave is None:  # it ended while the commit was on its way
            cluster.ended[task_id] = now.s
        return
    leave.revision, leave.committed_s = revision, now.s
    task = task_of(cluster, leave, task_id)
    if task is None or task.terminal:
        return
    if task.state == "TASK_RUNNING":
        task.state = "TASK_KILLING"
        tell_killing(cluster, task, now=now)


def tell_killing(cluster: Cluster, task: Task, *, now: Moment) -> None:
    framework = cluster.frameworks[task.framework_id]
    if "TASK_KILLING_STATE" in framework.capabilities:
        status = made_by_master(
            task.id, task.agent_id, "TASK_KILLING", now_s=now.wall_s, message="leaving: withdrawn from the names"
        )
        cluster.send(framework.id, update_event(status))


def task_of(cluster: Cluster, leave: Leave, task_id: str) -> Task | None:
    """The live task a leave is for, if its agent has told us of it."""
    tasks = cluster.services.get(leave.service) or {}
    return next((t for t in tasks.values() if t.id == task_id and t.leave is leave), None)


def kill_due(cluster: Cluster, readers: Readers, *, now: Moment) -> int:
    """Orders the kills that are due; returns how many leaves are still waiting."""
    waiting = 0
    for task_id, leave in cluster.leaves.items():
        task = task_of(cluster, leave, task_id)
        if task is None or task.kill_sent:
            continue
        departure = Departure(
            task=task_id,
            reason=leave.reason,
            deadline_s=leave.deadline_s,
            revision=leave.revision,
            committed_s=leave.committed_s,
        )
        if leaving.is_due(departure, readers, now_s=now.s):
            life.order_kill(cluster, task, leave.reason)
        else:
            waiting += 1
    return waiting


LONGEST_TAKEN_OVER_S = 3600.0
"""A deadline far in the future is a clock that was set, not a wish."""


def take_up(cluster: Cluster, record: Leaving, revision: int, *, now: Moment) -> None:
    """A leaving record found at taking over: finished, never republished. Its time counts from now: never too early."""
    rest_s = min(max(0.0, record.deadline_s - now.wall_s), LONGEST_TAKEN_OVER_S)
    if record.reason is Reason.DEAD:
        life.died(cluster, record.task, now=now)
        return
    cluster.leaves[record.task] = Leave(
        reason=record.reason,
        deadline_s=now.s + rest_s,
        deadline_wall_s=record.deadline_s,
        service=record.service,
        member=record.member,
        revision=revision,
        committed_s=now.s,
    )


def bind(cluster: Cluster, task: Task) -> None:
    """A task an agent has just told us of may be one that is leaving."""
    leave = cluster.leaves.get(task.id)
    if leave is not None and leave.service == task.service and not task.terminal:
        task.leave = leave
        if task.state == "TASK_RUNNING" and leave.revision is not None:
            task.state = "TASK_KILLING"

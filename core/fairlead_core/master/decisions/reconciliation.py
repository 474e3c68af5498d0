"""What a framework is told that asks about a task: Mesos' table (`master.cpp`, reconcile), first match wins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_core.master.decisions.model import Cluster, Framework, Moment, Task
from fairlead_core.master.decisions.statuses import made_by_master, understood, update_event

SILENT = ""
"""No answer: whoever knows is not back yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`agent` is "registered", "returning" (known, not back yet), "unreachable", "gone", "unknown" or "" (not named)."""

    task_state: str = ""
    agent: str = ""
    anyone_returning: bool = False


TABLE: Sequence[tuple[str, Callable[[Question], bool]]] = (
    ("latest", lambda q: q.task_state != ""),
    (SILENT, lambda q: q.agent == "returning" or (q.agent == "" and q.anyone_returning)),
    ("TASK_GONE", lambda q: q.agent == "registered"),
    ("TASK_UNREACHABLE", lambda q: q.agent == "unreachable"),
    ("TASK_GONE_BY_OPERATOR", lambda q: q.agent == "gone"),
    ("TASK_UNKNOWN", lambda _: True),
)


def decide(question: Question) -> str:
    return next(answer for answer, matches in TABLE if matches(question))


def standing_of(cluster: Cluster, agent_id: str) -> str:
    agent = cluster.agents.get(agent_id)
    if not agent_id or agent is None:
        return "unknown" if agent_id else ""
    if agent.gone:
        return "gone"
    if agent.unreachable:
        return "unreachable"
    return "registered" if agent.seen else "returning"


def answer_one(cluster: Cluster, framework: Framework, task_id: str, agent_id: str, *, now: Moment) -> None:
    """Explicit reconciliation of one task."""
    task = framework.tasks.get(task_id)
    returning = any(not (a.seen or a.gone or a.unreachable) for a in cluster.agents.values())
    question = Question(
        task_state=task.state if task else "", agent=standing_of(cluster, agent_id), anyone_returning=returning
    )
    verdict = decide(question)
    if verdict == "latest":
        assert task is not None
        cluster.send(framework.id, update_event(latest(task, framework, now=now)))
    elif verdict != SILENT:
        more: dict[str, Any] = {"message": "Reconciliation: Task is unknown to the master"}
        if verdict == "TASK_UNREACHABLE":
            when = cluster.agents[agent_id].unreachable_wall_s
            more["unreachable_time"] = {"nanoseconds": int(when * 1e9)}
        state = understood(verdict, framework.capabilities)
        status = made_by_master(task_id, agent_id, state, now_s=now.wall_s, reason="REASON_RECONCILIATION", **more)
        cluster.send(framework.id, update_event(status))


def answer_all(cluster: Cluster, framework: Framework, *, now: Moment) -> None:
    """Implicit reconciliation: every task known, nothing else."""
    for task in framework.tasks.values():
        cluster.send(framework.id, update_event(latest(task, framework, now=now)))


def latest(task: Task, framework: Framework, *, now: Moment) -> dict[str, Any]:
    more: dict[str, Any] = {"message": "Reconciliation: Latest task state", "healthy": task.healthy}
    container = task.status.get("container_status")
    if container:
        more["container_status"] = container
    if task.executor_id:
        more["executor_id"] = {"value": task.executor_id}
    state = understood(task.state, framework.capabilities)
    return made_by_master(task.id, task.agent_id, state, now_s=now.wall_s, reason="REASON_RECONCILIATION", **more)

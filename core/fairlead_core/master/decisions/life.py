"""A task's life as the master sees it: what it holds, how its state moves, when it is forgotten."""

from typing import Any

from fairlead_core import history
from fairlead_core.agent_protocol import Kill
from fairlead_core.master.decisions import publishing
from fairlead_core.master.decisions.allocation import charge
from fairlead_core.master.decisions.model import COMPLETED_KEPT, Agent, Cluster, Executor, Framework, Moment, Task
from fairlead_core.master.decisions.statuses import Json, is_terminal, made_by_master, understood, update_event
from fairlead_core.master.decisions.tasks import kill_grace_s
from fairlead_core.resources import UNRESERVED, Resources
from fairlead_discovery.decisions.leaving import DEAD_RECORD_S

STATUSES_KEPT = 10


def add(cluster: Cluster, framework: Framework, agent: Agent, task: Task) -> None:
    """A task known from now on; it holds its resources unless it has ended."""
    task.service = publishing.service_of(framework.name, task.info)
    framework.tasks[task.id] = task
    agent.tasks[task.key] = task
    if not task.terminal:
        cluster.services.setdefault(task.service, {})[task.key] = task
        hold(cluster, task)


def hold(cluster: Cluster, task: Task) -> None:
    if not task.held:
        task.held = True
        cluster.agents[task.agent_id].used += task.resources
        charge(cluster.frameworks[task.framework_id], task.role, task.resources)


def release(cluster: Cluster, task: Task) -> None:
    if task.held:
        task.held = False
        give_back(cluster.agents[task.agent_id], task.resources)
        charge(cluster.frameworks[task.framework_id], task.role, task.resources, sign=-1)
        cluster.dirty_agents.add(task.agent_id)


def give_back(agent: Agent, resources: Resources) -> None:
    assert agent.used.contains(resources), f"agent {agent.id} was given back more than it lent"
    agent.used -= resources


def add_executor(agent: Agent, framework: Framework, info: Json, resources: Resources) -> None:
    """An executor's own resources, once however often it is named. Its role is that of the framework's first."""
    key = (framework.id, str((info.get("executor_id") or {}).get("value") or ""))
    if key not in agent.executors:
        role = framework.roles[0] if framework.roles else UNRESERVED
        agent.executors[key] = Executor(info=info, resources=resources, role=role)
        agent.used += resources
        charge(framework, role, resources)


def remove_executor(cluster: Cluster, agent: Agent, key: tuple[str, str]) -> None:
    executor = agent.executors.pop(key, None)
    if executor is None:
        return
    give_back(agent, executor.resources)
    framework = cluster.frameworks.get(key[0])
    if framework is not None:
        charge(framework, executor.role, executor.resources, sign=-1)
    cluster.dirty_agents.add(agent.id)


def move(cluster: Cluster, task: Task, status: Json, *, state: str, now: Moment) -> None:
    """The task's state follows its status; `state` may be ahead of it. What has ended stays ended."""
    task.status, task.made = status, None
    _remember(task, status)
    if task.terminal:
        return
    healthy = status.get("healthy")
    if isinstance(healthy, bool):
        task.healthy = healthy
    if state == "TASK_RUNNING" and task.state == "TASK_KILLING":
        state = "TASK_KILLING"  # a late health report of a task that is leaving
    task.state = state
    if state == "TASK_RUNNING" and task.running_since_s is None:
        task.running_since_s = now.s
    cluster.touch(task)
    if is_terminal(state):
        end(cluster, task, now=now)
    elif state == "TASK_UNREACHABLE":
        release(cluster, task)
    else:
        hold(cluster, task)


def _remember(task: Task, status: Json) -> None:
    """The last status of each state, newest last; addresses given once hold until others are."""
    before = next((s for s in task.statuses if s.get("state") == status.get("state")), {})
    kept = {k: before[k] for k in ("container_status", "labels") if k in before and k not in status}
    status = {**status, **kept} if kept else status
    task.statuses = [s for s in task.statuses if s.get("state") != status.get("state")][-(STATUSES_KEPT - 1) :]
    task.statuses.append(status)


def end(cluster: Cluster, task: Task, *, now: Moment) -> None:
    """It is over: nothing is held, its leaving record may go. Its member goes with the next commit."""
    release(cluster, task)
    cluster.count(f"tasks_{task.state.removeprefix('TASK_').lower()}")
    live = cluster.services.get(task.service)
    if live is not None:
        live.pop(task.key, None)
        if not live:
            del cluster.services[task.service]
    leave = cluster.leaves.get(task.id)
    if leave is not None and leave is task.leave:
        del cluster.leaves[task.id]
        if leave.revision is not None:
            cluster.ended[task.id] = now.s
    cluster.touch(task)


def died(cluster: Cluster, task_id: str, *, now: Moment) -> None:
    """A leaving record was made for a task that died while published: it goes after a short while."""
    cluster.ended[task_id] = now.s + DEAD_RECORD_S


def forget(cluster: Cluster, task: Task) -> None:
    """Over and acknowledged: remembered for pages only."""
    framework = cluster.frameworks[task.framework_id]
    framework.tasks.pop(task.id, None)
    cluster.agents[task.agent_id].tasks.pop(task.key, None)
    task.info, task.status = history.brief_task(task.info), history.brief_status(task.status)
    task.statuses = [history.brief_status(status) for status in task.statuses]
    framework.completed[task.id] = task
    while len(framework.completed) > COMPLETED_KEPT:
        del framework.completed[next(iter(framework.completed))]


def settle(cluster: Cluster, task: Task, state: str, *, now: Moment, **more: Any) -> None:
    """The master itself decides a state and tells the framework; ended tasks are forgotten, nobody acknowledges."""
    framework = cluster.frameworks[task.framework_id]
    told = understood(state, framework.capabilities)
    status = made_by_master(task.id, task.agent_id, told, now_s=now.wall_s, **more)
    cluster.send(framework.id, update_event(status))
    move(cluster, task, status, state=told, now=now)
    if task.terminal:
        forget(cluster, task)


def order_kill(cluster: Cluster, task: Task, reason: str) -> None:
    """To the agent, at once; said again when it registers anew."""
    task.kill_sent = True
    cluster.count("kills")
    cluster.touch(task)
    cluster.order(
        task.agent_id,
        Kill(
            epoch=cluster.epoch,
            framework_id=task.framework_id,
            task_id=task.id,
            grace_s=kill_grace_s(task.info),
            reason=reason,
        ),
    )

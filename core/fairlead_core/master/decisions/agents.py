"""Agents come, beat, fall silent, are drained and go."""

from collections.abc import Iterable, Sequence

from fairlead_core.agent_protocol import (
    Acknowledge,
    ExecutorEnded,
    ExecutorMessage,
    Gone,
    Kill,
    Register,
    Registered,
    Run,
    ShutdownFramework,
    TaskState,
    Update,
)
from fairlead_core.master.decisions import killing, life
from fairlead_core.master.decisions.allocation import remove_offer, rescind
from fairlead_core.master.decisions.calls import roles_of
from fairlead_core.master.decisions.liveness import Signs, Verdict, judge
from fairlead_core.master.decisions.model import Agent, Cluster, Framework, HangAgent, Moment, Task, capabilities_of
from fairlead_core.master.decisions.statuses import Json, is_terminal, made_by_master, text_of, update_event
from fairlead_core.resources import Resources, from_mesos
from fairlead_daemon.errors import Refused


class IsGone(Refused):
    """The agent was marked gone and never comes back."""


def register(cluster: Cluster, message: Register, stream_id: str, *, now: Moment) -> Agent:
    """(Re-)registration with the whole state. Raises IsGone, Refused on resources that cannot be read."""
    total = from_mesos(message.resources)
    agent = cluster.agents.get(message.agent_id) if message.agent_id else None
    if agent is not None and agent.gone:
        raise IsGone(f"agent {agent.id} was marked gone")
    if agent is None:
        agent = Agent(id=message.agent_id or _new_id(cluster), registered_wall_s=now.wall_s)
        cluster.agents[agent.id] = agent
    if agent.stream_id:
        cluster.effects.append(HangAgent(agent.stream_id))
    rescind(cluster, list(agent.offers.values()))
    _take_over_address(cluster, agent, message, now=now)
    _describe(agent, message, total)
    agent.stream_id, agent.seen, agent.unreachable, agent.closed = stream_id, True, False, False
    agent.reregistered_wall_s = now.wall_s
    agent.registered_wall_s = agent.registered_wall_s or now.wall_s
    count_in(cluster, agent)
    registered = Registered(agent_id=agent.id, stream_id=stream_id, epoch=cluster.epoch, master_id=cluster.master_id)
    cluster.order(agent.id, registered)
    _take_up(cluster, agent, message, now=now)
    heard(cluster, agent, now=now)
    cluster.dirty_agents.add(agent.id)
    cluster.unsaved_agents.add(agent.id)
    touch_services(cluster, agent)
    cluster.count("agent_registrations")
    return agent


def _new_id(cluster: Cluster) -> str:
    cluster.next_agent += 1
    return f"{cluster.master_id}-S{cluster.next_agent - 1}"


def _describe(agent: Agent, message: Register, total: Resources) -> None:
    agent.hostname, agent.ip, agent.port = message.hostname, message.ip, message.port
    agent.boot_id, agent.total = message.boot_id, total
    for task in agent.tasks.values():
        task.made = None
    agent.attributes, agent.zone, agent.region = message.attributes, message.zone, message.region


def count_in(cluster: Cluster, agent: Agent) -> None:
    """Its part of the cluster's total, by which shares are measured: nothing while it is unreachable or gone."""
    part = agent.total if agent.seen and not agent.unreachable and not agent.gone else Resources()
    if part != agent.counted:
        cluster.total = cluster.total - agent.counted + part
        agent.counted = part


def _take_over_address(cluster: Cluster, agent: Agent, message: Register, *, now: Moment) -> None:
    """An agent that lost its id stands where another stood: that one will not come back."""
    for other in list(cluster.agents.values()):
        away = other is not agent and other.seen and not other.connected and not other.gone
        if away and (other.ip, other.port) == (message.ip, message.port):
            remove(cluster, other, "TASK_GONE", now=now)


def _take_up(cluster: Cluster, agent: Agent, message: Register, *, now: Moment) -> None:
    infos = {text_of(info.get("id")): info for info in message.frameworks}
    for framework_id in {*infos, *(t.framework_id for t in message.tasks)}:
        _framework_for(cluster, agent, framework_id, infos.get(framework_id, {}), now)
    _take_executors(cluster, agent, message.executors)
    told = set()
    for state in message.tasks:
        framework = cluster.frameworks.get(state.framework_id)
        if framework is not None:
            told.add((framework.id, text_of(state.task.get("task_id"))))
            _take_task(cluster, agent, framework, state, now)
    for task in [t for key, t in agent.tasks.items() if key not in told and not t.terminal]:
        _not_told(cluster, agent, task, now=now)


def _framework_for(cluster: Cluster, agent: Agent, framework_id: str, info: Json, now: Moment) -> None:
    if framework_id in cluster.torn_down:
        cluster.order(agent.id, ShutdownFramework(epoch=cluster.epoch, framework_id=framework_id))
    elif framework_id and framework_id not in cluster.frameworks:
        cluster.frameworks[framework_id] = recovered(cluster, framework_id, info, now)
        cluster.unsaved_frameworks.add(framework_id)


def recovered(cluster: Cluster, framework_id: str, info: Json, now: Moment) -> Framework:
    """A framework known from an agent or the registry: it has its failover time, and time to find us, to come back."""
    timeout = info.get("failover_timeout")
    timeout_s = float(timeout) if isinstance(timeout, int | float) else 0.0
    return Framework(
        id=framework_id,
        name=str(info.get("name") or ""),
        info=info,
        roles=roles_of(info),
        capabilities=capabilities_of(info),
        failover_timeout_s=timeout_s,
        removed_at_s=now.s + max(timeout_s, cluster.framework_return_s),
        recovered=True,
    )


def _take_executors(cluster: Cluster, agent: Agent, infos: Sequence[Json]) -> None:
    for key in list(agent.executors):
        life.remove_executor(cluster, agent, key)
    for info in infos:
        framework = cluster.frameworks.get(text_of(info.get("framework_id")))
        if framework is not None:
            resources = from_mesos(info.get("resources") or (), place="executors.resources")
            life.add_executor(agent, framework, info, resources)


def _take_task(cluster: Cluster, agent: Agent, framework: Framework, told: TaskState, now: Moment) -> None:
    task_id = text_of(told.task.get("task_id"))
    state = str(told.status.get("state") or "TASK_STAGING")
    task = framework.tasks.get(task_id)
    before = framework.completed.get(task_id)
    if task is None and before is not None and before.state == "TASK_LOST" and not is_terminal(state):
        _kill_unknown(cluster, agent, framework.id, task_id)  # it was told that it is lost: it must not run on
        return
    if task is not None and task.agent_id != agent.id:
        _kill_unknown(cluster, agent, framework.id, task_id)  # it was given up here and runs elsewhere by now
        return
    if task is None:
        task = Task(
            id=task_id,
            framework_id=framework.id,
            agent_id=agent.id,
            info=told.task,
            resources=from_mesos(told.task.get("resources") or (), place=f"task {task_id}: resources"),
            role=_role_of(told.task, framework),
            executor_id=told.executor_id,
        )
        if is_terminal(state):
            task.state = state
        life.add(cluster, framework, agent, task)
    task.unacknowledged = "" if told.acknowledged else str(told.status.get("uuid") or "")
    returned = task.state == "TASK_UNREACHABLE"
    life.move(cluster, task, told.status, state=state, now=now)
    if returned and not task.terminal:
        status = made_by_master(
            task.id, agent.id, task.state, now_s=now.wall_s, reason="REASON_AGENT_REREGISTERED", healthy=task.healthy
        )
        cluster.send(framework.id, update_event(status))
    if task.terminal and told.acknowledged:
        life.forget(cluster, task)
        return
    if task.leave is None:
        killing.bind(cluster, task)
    if task.kill_sent and not task.terminal:
        life.order_kill(cluster, task, task.leave.reason if task.leave else "kill")


def _role_of(info: Json, framework: Framework) -> str:
    for item in info.get("resources") or ():
        role = (item.get("allocation_info") or {}).get("role")
        if isinstance(role, str) and role in framework.roles:
            return role
    return framework.roles[0] if framework.roles else "*"


def _kill_unknown(cluster: Cluster, agent: Agent, framework_id: str, task_id: str) -> None:
    cluster.order(agent.id, Kill(epoch=cluster.epoch, framework_id=framework_id, task_id=task_id))


def _not_told(cluster: Cluster, agent: Agent, task: Task, *, now: Moment) -> None:
    """A task the agent does not know: the order to run it was lost (said again, it is idempotent), or the task is."""
    framework = cluster.frameworks[task.framework_id]
    if task.state == "TASK_STAGING" and not task.kill_sent:
        cluster.order(agent.id, Run(epoch=cluster.epoch, framework=framework.info, task=task.info))
        return
    state = "TASK_KILLED" if task.state == "TASK_STAGING" else "TASK_DROPPED"
    life.settle(
        cluster,
        task,
        state,
        now=now,
        reason="REASON_RECONCILIATION",
        message="the task is unknown to its agent",
    )


def touch_services(cluster: Cluster, agent: Agent) -> None:
    """Everything its tasks, or nodes that name it, belong to."""
    cluster.touched.update(t.service for t in agent.tasks.values())
    cluster.touched.update(
        service for service, nodes in cluster.stored.items() if any(n.agent_id == agent.id for n in nodes.values())
    )


def heard(cluster: Cluster, agent: Agent, *, now: Moment) -> None:
    agent.heard_s, agent.closed = now.s, False
    if agent.suspect:
        agent.suspect = False
        touch_services(cluster, agent)
        cluster.dirty_agents.add(agent.id)


def updated(cluster: Cluster, agent: Agent, update: Update, *, now: Moment) -> None:
    """A status update: the state moves, and the framework is told. The agent repeats it until acknowledged."""
    framework = cluster.frameworks.get(update.framework_id)
    if framework is None:
        if update.framework_id in cluster.torn_down:
            cluster.order(agent.id, ShutdownFramework(epoch=cluster.epoch, framework_id=update.framework_id))
        return
    status = update.status
    if "agent_id" not in status:
        status = {**status, "agent_id": {"value": agent.id}}
    task = framework.tasks.get(text_of(status.get("task_id")))
    cluster.count("status_updates")
    if task is not None and task.agent_id != agent.id:
        _acknowledge(cluster, agent, framework.id, status)  # of a task given up here, that runs elsewhere by now
        return
    if task is not None:
        task.unacknowledged = str(status.get("uuid") or "")
        told = str(status.get("state") or "")
        ahead = update.latest_state if is_terminal(update.latest_state) else told
        life.move(cluster, task, status, state=ahead, now=now)
        if not task.unacknowledged and is_terminal(told):
            life.forget(cluster, task)
    cluster.send(framework.id, update_event(status))


def _acknowledge(cluster: Cluster, agent: Agent, framework_id: str, status: Json) -> None:
    task_id, uuid = text_of(status.get("task_id")), str(status.get("uuid") or "")
    cluster.order(agent.id, Acknowledge(epoch=cluster.epoch, framework_id=framework_id, task_id=task_id, uuid=uuid))


def executor_ended(cluster: Cluster, agent: Agent, report: ExecutorEnded) -> None:
    life.remove_executor(cluster, agent, (report.framework_id, report.executor_id))
    failure = {
        "agent_id": {"value": agent.id},
        "executor_id": {"value": report.executor_id},
        "status": report.status,
    }
    cluster.send(report.framework_id, {"type": "FAILURE", "failure": failure})


def executor_message(cluster: Cluster, agent: Agent, report: ExecutorMessage) -> None:
    message = {
        "agent_id": {"value": agent.id},
        "executor_id": {"value": report.executor_id},
        "data": report.data,
    }
    cluster.send(report.framework_id, {"type": "MESSAGE", "message": message})


def disconnected(cluster: Cluster, agent: Agent, stream_id: str) -> None:
    """Its stream was closed by the other side: a restart, until proved otherwise. A suspect stays one."""
    if agent.stream_id == stream_id:
        agent.stream_id = ""
        agent.closed = not agent.suspect
        rescind(cluster, list(agent.offers.values()))


def said_goodbye(cluster: Cluster, agent: Agent) -> None:
    agent.closed = True
    rescind(cluster, list(agent.offers.values()))


def watch_over(cluster: Cluster, announced: Iterable[str], *, now: Moment) -> None:
    """Who has become suspect or unreachable by now. `announced` are agents with a living session in the registry."""
    living = frozenset(announced)
    for agent in list(cluster.agents.values()):
        if agent.gone or agent.unreachable:
            continue
        verdict = _verdict(cluster, agent, living, now)
        if verdict.suspect and not agent.suspect:
            agent.suspect = True
            rescind(cluster, list(agent.offers.values()))
            touch_services(cluster, agent)
            cluster.count("agents_suspected")
        if verdict.unreachable:
            make_unreachable(cluster, agent, now=now)


def _verdict(cluster: Cluster, agent: Agent, living: frozenset[str], now: Moment) -> Verdict:
    closed = agent.closed if agent.seen else agent.id in living
    signs = Signs(
        heard_s=max(agent.heard_s, 0.0) if agent.seen else cluster.started_s, closed=closed, suspect=agent.suspect
    )
    return judge(signs, now_s=now.s, leading_since_s=cluster.started_s)


def make_unreachable(cluster: Cluster, agent: Agent, *, now: Moment) -> None:
    agent.unreachable, agent.unreachable_wall_s = True, now.wall_s
    if agent.stream_id:
        cluster.effects.append(HangAgent(agent.stream_id))
        agent.stream_id = ""
    rescind(cluster, list(agent.offers.values()))
    for task in [t for t in agent.tasks.values() if not t.terminal]:
        life.settle(
            cluster,
            task,
            "TASK_UNREACHABLE",
            now=now,
            reason="REASON_AGENT_REMOVED",
            message="agent is silent: health check timed out",
            unreachable_time={"nanoseconds": int(now.wall_s * 1e9)},
        )
    _lost(cluster, agent)


def _lost(cluster: Cluster, agent: Agent) -> None:
    """Everyone subscribed is told, as in Mesos; what it held counts no more."""
    for key in list(agent.executors):
        life.remove_executor(cluster, agent, key)
    count_in(cluster, agent)
    cluster.unsaved_agents.add(agent.id)
    touch_services(cluster, agent)
    for framework in cluster.frameworks.values():
        cluster.send(framework.id, {"type": "FAILURE", "failure": {"agent_id": {"value": agent.id}}})


def remove(cluster: Cluster, agent: Agent, state: str, *, now: Moment) -> None:
    """It never comes back (gone by an operator, or replaced): its tasks are over."""
    agent.gone = True
    for offer in list(agent.offers.values()):
        remove_offer(cluster, offer)
        cluster.send(offer.framework_id, {"type": "RESCIND", "rescind": {"offer_id": {"value": offer.id}}})
    for task in list(agent.tasks.values()):
        if task.terminal:
            life.forget(cluster, task)
            continue
        life.settle(
            cluster,
            task,
            state,
            now=now,
            reason="REASON_AGENT_REMOVED_BY_OPERATOR" if state == "TASK_GONE_BY_OPERATOR" else "REASON_AGENT_REMOVED",
            message="agent has been removed",
        )
    cluster.order(agent.id, Gone(epoch=cluster.epoch))
    _lost(cluster, agent)

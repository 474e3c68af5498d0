"""ACCEPT and DECLINE: offers turn into tasks; what is left over is refused for a while."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairlead_core.agent_protocol import Run
from fairlead_core.master.decisions import life, tasks
from fairlead_core.master.decisions.allocation import refuse, refuse_s, remove_offer
from fairlead_core.master.decisions.calls import Accept, Decline, Filters, Operation
from fairlead_core.master.decisions.model import Agent, Cluster, Framework, Moment, Offer, Task
from fairlead_core.master.decisions.statuses import Json, made_by_master, text_of, understood, update_event
from fairlead_core.resources import Resources
from fairlead_daemon.errors import Refused


@dataclass(slots=True)
class Ledger:
    """One ACCEPT at work: what is left of its offers."""

    framework: Framework
    agent: Agent
    role: str
    left: Resources
    launched: int = 0


def accept(cluster: Cluster, framework: Framework, call: Accept, *, now: Moment) -> None:
    offers = [framework.offers.get(o.value) for o in call.offer_ids]
    known = list({o.id: o for o in offers if o is not None}.values())
    problem = _offer_problem(call, offers, known)
    for offer in known:
        remove_offer(cluster, offer)
    if problem:
        _drop_all(cluster, framework, call.operations, problem, now=now)
        return
    agent = cluster.agents[known[0].agent_id]
    ledger = Ledger(framework, agent, known[0].role, _sum(known))
    for operation in call.operations:
        _perform(cluster, ledger, operation, now=now)
    _refuse_rest(ledger, call.filters, now=now)


def decline(cluster: Cluster, framework: Framework, call: Decline, *, now: Moment) -> None:
    """Offers that are no longer valid are passed over: a rescind crossed the call."""
    seconds = _seconds(call.filters)
    for offer in [framework.offers.get(o.value) for o in call.offer_ids]:
        if offer is not None and offer.id in framework.offers:
            remove_offer(cluster, offer)
            refuse(framework, offer.agent_id, offer.resources, seconds=seconds, now_s=now.s)


def _seconds(filters: Filters | None) -> float:
    return refuse_s(filters.refuse_seconds if filters else None)


def _refuse_rest(ledger: Ledger, filters: Filters | None, *, now: Moment) -> None:
    seconds = _seconds(filters)
    if seconds > 0 or not ledger.launched:
        refuse(ledger.framework, ledger.agent.id, ledger.left, seconds=seconds, now_s=now.s)


def _sum(offers: Iterable[Offer]) -> Resources:
    total = Resources()
    for offer in offers:
        total += offer.resources
    return total


def _offer_problem(call: Accept, offers: Sequence[Offer | None], known: Sequence[Offer]) -> str:
    if not offers:
        return "No offers specified"
    if len({o.value for o in call.offer_ids}) != len(offers):
        return "Duplicate offer in offer list"
    for given, offer in zip(call.offer_ids, offers, strict=True):
        if offer is None:
            return f"Offer {given.value} is no longer valid"
    if len({o.agent_id for o in known}) > 1:
        return "Aggregated offers must belong to one single agent"
    if len({o.role for o in known}) > 1:
        return "Aggregated offers must be allocated to the same role"
    return ""


def _task_infos(operation: Operation) -> list[Json]:
    if operation.type == "LAUNCH" and operation.launch:
        return list(operation.launch.task_infos)
    if operation.type == "LAUNCH_GROUP" and operation.launch_group:
        return list(operation.launch_group.task_group.tasks)
    return []


def _drop_all(
    cluster: Cluster, framework: Framework, operations: Sequence[Operation], problem: str, *, now: Moment
) -> None:
    state = understood("TASK_DROPPED", framework.capabilities)
    for operation in operations:
        for info in _task_infos(operation):
            status = made_by_master(
                text_of(info.get("task_id")),
                text_of(info.get("agent_id")),
                state,
                now_s=now.wall_s,
                reason="REASON_INVALID_OFFERS",
                message=f"Task launched with invalid offers: {problem}",
            )
            cluster.send(framework.id, update_event(status))
        _fail_operation(cluster, framework, operation, problem)


def _perform(cluster: Cluster, ledger: Ledger, operation: Operation, *, now: Moment) -> None:
    if operation.type == "LAUNCH":
        for info in _task_infos(operation):
            _launch(cluster, ledger, info, now=now)
        return
    for info in _task_infos(operation):
        _refuse_task(cluster, ledger, info, "task groups are not supported by this master", now=now, group=True)
    _fail_operation(cluster, ledger.framework, operation, f"{operation.type} is not supported by this master")


def _fail_operation(cluster: Cluster, framework: Framework, operation: Operation, problem: str) -> None:
    if operation.id is not None:
        status = {"operation_id": {"value": operation.id.value}, "state": "OPERATION_ERROR", "message": problem}
        cluster.send(framework.id, {"type": "UPDATE_OPERATION_STATUS", "update_operation_status": {"status": status}})


def _launch(cluster: Cluster, ledger: Ledger, info: Json, *, now: Moment) -> None:
    framework, agent = ledger.framework, ledger.agent
    ground = tasks.Ground(framework=framework, agent=agent, available=ledger.left, largest_ttl_s=cluster.largest_ttl_s)
    try:
        launch = tasks.check(info, ground)
    except Refused as error:
        _refuse_task(cluster, ledger, info, str(error), now=now)
        return
    ledger.left -= launch.needed
    ledger.launched += 1
    task = Task(
        id=launch.task_id,
        framework_id=framework.id,
        agent_id=agent.id,
        info=info,
        resources=launch.resources,
        role=ledger.role,
        executor_id=launch.executor_id,
    )
    life.add(cluster, framework, agent, task)
    if launch.executor_id:
        life.add_executor(agent, framework, info["executor"], launch.executor_resources)
    cluster.count("launches")
    cluster.order(agent.id, Run(epoch=cluster.epoch, framework=framework.info, task=info))


def _refuse_task(
    cluster: Cluster, ledger: Ledger, info: Json, problem: str, *, now: Moment, group: bool = False
) -> None:
    status = made_by_master(
        text_of(info.get("task_id")),
        text_of(info.get("agent_id")) or ledger.agent.id,
        "TASK_ERROR",
        now_s=now.wall_s,
        reason="REASON_TASK_GROUP_INVALID" if group else "REASON_TASK_INVALID",
        message=problem,
    )
    cluster.count("tasks_refused")
    cluster.send(ledger.framework.id, update_event(status))

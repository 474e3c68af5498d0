"""One scheduler call of a subscribed framework, performed on the cluster."""

from collections.abc import Callable, Mapping

from fairlead_core.agent_protocol import Acknowledge, ExecutorMessage, ShutdownExecutor
from fairlead_core.master.decisions import accepting, allocation, draining, frameworks, killing, life, reconciliation
from fairlead_core.master.decisions.calls import Call, InverseAnswer, Roles
from fairlead_core.master.decisions.model import Cluster, Framework, Moment
from fairlead_core.master.decisions.statuses import is_terminal
from fairlead_discovery.records import Reason

Action = Callable[[Cluster, Framework, Call, Moment], None]


def handle(cluster: Cluster, framework: Framework, call: Call, now: Moment) -> None:
    """Calls the built-in allocator ignores (REQUEST …) change nothing."""
    cluster.count(f"calls_{call.type.lower()}")
    action = ACTIONS.get(call.type)
    if action is not None:
        action(cluster, framework, call, now)


def _accept(cluster: Cluster, framework: Framework, call: Call, now: Moment) -> None:
    assert call.accept is not None
    accepting.accept(cluster, framework, call.accept, now=now)


def _decline(cluster: Cluster, framework: Framework, call: Call, now: Moment) -> None:
    assert call.decline is not None
    accepting.decline(cluster, framework, call.decline, now=now)


def _revive(cluster: Cluster, framework: Framework, call: Call, _now: Moment) -> None:
    allocation.revive(cluster, framework, (call.revive or Roles()).named())


def _suppress(_cluster: Cluster, framework: Framework, call: Call, _now: Moment) -> None:
    allocation.suppress(framework, (call.suppress or Roles()).named())


def _kill(cluster: Cluster, framework: Framework, call: Call, now: Moment) -> None:
    assert call.kill is not None
    task = framework.tasks.get(call.kill.task_id.value)
    agent_id = call.kill.agent_id.value if call.kill.agent_id else ""
    if task is None:
        task_id = call.kill.task_id.value
        reconciliation.answer_one(cluster, framework, task_id, agent_id, now=now)
    elif not agent_id or agent_id == task.agent_id:
        killing.kill(cluster, task, reason_of(call), now=now)


def reason_of(call: Call) -> Reason:
    text = call.fairlead.reason if call.fairlead else Reason.KILL
    return Reason(text) if text in {"kill", "scale", "drain", "unhealthy"} else Reason.KILL


def _acknowledge(cluster: Cluster, framework: Framework, call: Call, _now: Moment) -> None:
    assert call.acknowledge is not None
    given = call.acknowledge
    if given.agent_id.value in cluster.agents:
        cluster.order(
            given.agent_id.value,
            Acknowledge(epoch=cluster.epoch, framework_id=framework.id, task_id=given.task_id.value, uuid=given.uuid),
        )
    task = framework.tasks.get(given.task_id.value)
    if task is not None and task.unacknowledged == given.uuid:
        task.unacknowledged = ""
        if is_terminal(str(task.status.get("state"))):
            life.forget(cluster, task)


def _reconcile(cluster: Cluster, framework: Framework, call: Call, now: Moment) -> None:
    assert call.reconcile is not None
    if not call.reconcile.tasks:
        reconciliation.answer_all(cluster, framework, now=now)
    for asked in call.reconcile.tasks:
        agent_id = asked.agent_id.value if asked.agent_id else ""
        reconciliation.answer_one(cluster, framework, asked.task_id.value, agent_id, now=now)


def _message(cluster: Cluster, framework: Framework, call: Call, _now: Moment) -> None:
    assert call.message is not None
    if call.message.agent_id is not None:
        cluster.order(
            call.message.agent_id.value,
            ExecutorMessage(
                framework_id=framework.id,
                executor_id=call.message.executor_id.value,
                data=call.message.data,
                epoch=cluster.epoch,
            ),
        )


def _shutdown(cluster: Cluster, framework: Framework, call: Call, _now: Moment) -> None:
    assert call.shutdown is not None
    if call.shutdown.agent_id is not None:
        cluster.order(
            call.shutdown.agent_id.value,
            ShutdownExecutor(
                epoch=cluster.epoch, framework_id=framework.id, executor_id=call.shutdown.executor_id.value
            ),
        )


def _teardown(cluster: Cluster, framework: Framework, _call: Call, now: Moment) -> None:
    frameworks.tear_down(cluster, framework, now=now)


def _inverse(answer: str) -> Action:
    def act(cluster: Cluster, framework: Framework, call: Call, _now: Moment) -> None:
        given = call.accept_inverse_offers or call.decline_inverse_offers or InverseAnswer()
        draining.answer(cluster, framework, [o.value for o in given.inverse_offer_ids], answer)

    return act


def _update_framework(cluster: Cluster, framework: Framework, call: Call, _now: Moment) -> None:
    assert call.update_framework is not None
    frameworks.describe(framework, call.update_framework)
    cluster.unsaved_frameworks.add(framework.id)
    allocation.everything_dirty(cluster)


ACTIONS: Mapping[str, Action] = {
    "ACCEPT": _accept,
    "DECLINE": _decline,
    "REVIVE": _revive,
    "SUPPRESS": _suppress,
    "KILL": _kill,
    "ACKNOWLEDGE": _acknowledge,
    "RECONCILE": _reconcile,
    "MESSAGE": _message,
    "SHUTDOWN": _shutdown,
    "TEARDOWN": _teardown,
    "ACCEPT_INVERSE_OFFERS": _inverse("accepted"),
    "DECLINE_INVERSE_OFFERS": _inverse("declined"),
    "UPDATE_FRAMEWORK": _update_framework,
}

"""Whether what an agent says is of the shape that it must have, before any of it changes what the master knows."""

from fairlead_core import shapes
from fairlead_core.agent_protocol import Mesos, Register, TaskState
from fairlead_core.master.decisions.calls import id_problem
from fairlead_core.master.decisions.statuses import text_of
from fairlead_core.resources import from_mesos
from fairlead_daemon.errors import Refused

PORT_MOST = 65535


def problem(message: Register) -> str:
    """Why the registration is refused, with the place; "" when it is not. Its tasks are judged one by one."""
    if message.agent_id and (why := id_problem(message.agent_id)):
        return f"agent_id: {why}"
    if not 0 <= message.port <= PORT_MOST:
        return f"port: {message.port} is no port"
    if why := _resources_problem(message.resources, "resources"):
        return why
    lists = (
        (shapes.Attribute, message.attributes, "attributes"),
        (shapes.Framework, message.frameworks, "frameworks"),
        (shapes.Executor, message.executors, "executors"),
    )
    found = (
        shapes.problem(kind, item, place=f"{place}[{position}]")
        for kind, items, place in lists
        for position, item in enumerate(items)
    )
    return next(filter(None, found), "") or _executors_problem(message)


def _executors_problem(message: Register) -> str:
    found = (
        _resources_problem(info.get("resources") or (), f"executors[{position}].resources")
        for position, info in enumerate(message.executors)
    )
    return next(filter(None, found), "")


def _resources_problem(items: object, place: str) -> str:
    try:
        from_mesos(items if isinstance(items, list | tuple) else (), place=place)
    except Refused as error:
        return str(error)
    return ""


def task_problem(state: TaskState) -> str:
    """Why a task that an agent holds is none."""
    if why := shapes.problem(shapes.Task, state.task, place="task"):
        return why
    if why := id_problem(text_of(state.task.get("task_id"))) or id_problem(state.framework_id):
        return f"task or framework: {why}"
    return _resources_problem(state.task.get("resources") or (), "task.resources") or status_problem(state.status)


def status_problem(status: Mesos) -> str:
    """Why a TaskStatus is none."""
    return shapes.problem(shapes.Status, status, place="status")

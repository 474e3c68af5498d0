"""Frameworks come, fail over, are waited for and are torn down."""

from typing import Any

from fairlead_core.agent_protocol import ShutdownFramework
from fairlead_core.master.decisions import draining, life
from fairlead_core.master.decisions.allocation import everything_dirty, remove_offer, rescind
from fairlead_core.master.decisions.calls import Info, Subscribe, roles_of
from fairlead_core.master.decisions.model import Cluster, Framework, Hang, Moment, capabilities_of
from fairlead_core.master.decisions.statuses import text_of
from fairlead_daemon.errors import Refused

HEARTBEAT_S = 15.0
TORN_DOWN_KEPT = 50
"""Completed frameworks remembered, as in Mesos."""


class WasRemoved(Refused):
    """The framework was torn down: its id is spent."""


def subscribe(cluster: Cluster, call: Subscribe, stream_id: str, address: str, *, now: Moment) -> Framework:
    """A new framework, one that failed over, or one that came back. Raises WasRemoved."""
    info = call.framework_info
    framework_id = text_of(info.get("id"))
    if framework_id in cluster.torn_down:
        raise WasRemoved("Framework has been removed")
    if not framework_id:
        framework_id = f"{cluster.master_id}-{cluster.next_framework:04d}"
        cluster.next_framework += 1
    framework = cluster.frameworks.get(framework_id)
    if framework is None:
        framework = Framework(id=framework_id, name=str(info["name"]), info=info, registered_wall_s=now.wall_s)
        cluster.frameworks[framework_id] = framework
    elif framework.stream_id:
        fail_over(cluster, framework)
    framework.stream_id, framework.address = stream_id, address
    framework.removed_at_s, framework.recovered = None, False
    framework.registered_wall_s = framework.registered_wall_s or now.wall_s
    framework.reregistered_wall_s = now.wall_s
    describe(framework, call)
    framework.filters.clear()
    rescind(cluster, list(framework.offers.values()))
    draining.withdraw_from(cluster, framework)
    cluster.unsaved_frameworks.add(framework_id)
    cluster.count("subscriptions")
    everything_dirty(cluster)
    return framework


def welcome(cluster: Cluster, framework: Framework, master_info: object) -> None:
    """SUBSCRIBED, the HEARTBEAT that hides one client's off-by-one, and the drains that concern it."""
    subscribed = {
        "framework_id": {"value": framework.id},
        "heartbeat_interval_seconds": HEARTBEAT_S,
        "master_info": master_info,
    }
    cluster.send(framework.id, {"type": "SUBSCRIBED", "subscribed": subscribed})
    cluster.send(framework.id, {"type": "HEARTBEAT"})
    draining.invite(cluster, framework)


def describe(framework: Framework, call: Subscribe) -> None:
    info: Info = {**call.framework_info, "id": {"value": framework.id}}
    if not framework.name or not framework.tasks:  # names of services hold as long as its tasks run
        framework.name = str(info["name"])
    framework.info = info
    framework.roles = roles_of(info)
    framework.capabilities = capabilities_of(info)
    framework.failover_timeout_s = float(info.get("failover_timeout") or 0.0)
    framework.suppressed = set(call.suppressed_roles) & set(framework.roles)


def fail_over(cluster: Cluster, framework: Framework) -> None:
    """Another instance of it took over: the older stream is told and closed."""
    cluster.send(framework.id, {"type": "ERROR", "error": {"message": "Framework failed over"}})
    cluster.effects.append(Hang(framework.stream_id))
    framework.stream_id = ""


def disconnected(cluster: Cluster, framework: Framework, stream_id: str, *, now: Moment) -> None:
    """Its stream is gone: it has `failover_timeout` to come back."""
    if framework.stream_id != stream_id:
        return
    framework.stream_id = ""
    framework.removed_at_s = now.s + framework.failover_timeout_s
    rescind(cluster, list(framework.offers.values()))
    cluster.unsaved_frameworks.add(framework.id)


def expire(cluster: Cluster, *, now: Moment) -> list[str]:
    """Tears down those that did not come back in time; returns their ids."""
    late = [f for f in cluster.frameworks.values() if f.removed_at_s is not None and f.removed_at_s <= now.s]
    for framework in late:
        tear_down(cluster, framework, now=now)
    return [f.id for f in late]


def tear_down(cluster: Cluster, framework: Framework, *, now: Moment) -> None:
    """All of it ends: offers, tasks, executors. Its id is spent."""
    for offer in list(framework.offers.values()):
        remove_offer(cluster, offer)
    for agent in cluster.agents.values():
        for key in [k for k in agent.executors if k[0] == framework.id]:
            life.remove_executor(cluster, agent, key)
        if agent.seen and not agent.gone:
            cluster.order(agent.id, ShutdownFramework(epoch=cluster.epoch, framework_id=framework.id))
    for task in list(framework.tasks.values()):
        if not task.terminal:
            task.state = "TASK_KILLED"
            life.end(cluster, task, now=now)
        life.forget(cluster, task)
    draining.withdraw_from(cluster, framework)
    if framework.stream_id:
        cluster.effects.append(Hang(framework.stream_id))
        framework.stream_id = ""
    del cluster.frameworks[framework.id]
    cluster.torn_down[framework.id] = framework
    while len(cluster.torn_down) > TORN_DOWN_KEPT:
        del cluster.torn_down[next(iter(cluster.torn_down))]
    cluster.unsaved_frameworks.add(framework.id)


def info_json(framework: Framework) -> dict[str, Any]:
    return dict(framework.info)

"""The v1 operator API's answers: `{"type": T, "<t lower>": {...}}`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_core.master.decisions import views
from fairlead_core.master.decisions.allocation import offer_json
from fairlead_core.master.decisions.draining import drain_state
from fairlead_core.master.decisions.model import Agent, Cluster, Framework, Task
from fairlead_core.resources import to_mesos

Page = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighted:
    """What a reading call looks at."""

    cluster: Cluster
    info: Mapping[str, Any]
    started_wall_s: float
    uptime_s: float


def _task(task: Task) -> Page:
    out: Page = {
        "name": task.name,
        "task_id": {"value": task.id},
        "framework_id": {"value": task.framework_id},
        "agent_id": {"value": task.agent_id},
        "state": task.state,
        "resources": to_mesos(task.resources, allocated_to=task.role),
        "statuses": list(task.statuses),
    }
    for key in ("discovery", "container", "health_check", "labels", "kill_policy"):
        if task.info.get(key):
            out[key] = task.info[key]
    return out


def _agent(agent: Agent) -> Page:
    out: Page = {
        "agent_info": {
            "id": {"value": agent.id},
            "hostname": agent.hostname,
            "port": agent.port,
            "resources": to_mesos(agent.total),
            "attributes": list(agent.attributes),
        },
        "active": agent.offerable,
        "deactivated": agent.deactivated or agent.drain is not None,
        "version": views.VERSION,
        "pid": f"slave(1)@{agent.ip}:{agent.port}",
        "registered_time": {"nanoseconds": int(agent.registered_wall_s * 1e9)},
        "reregistered_time": {"nanoseconds": int(agent.reregistered_wall_s * 1e9)},
        "total_resources": to_mesos(agent.total),
        "allocated_resources": to_mesos(agent.used),
        "offered_resources": to_mesos(agent.offered),
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "AGENT_DRAINING"}],
    }
    if agent.drain is not None:
        config = {k: v for k, v in views.drain_info(agent)["config"].items() if k != "deadline"}
        out["drain_info"] = {"state": drain_state(agent), "config": config}
        out["estimated_drain_start_time"] = {"nanoseconds": int(agent.drain.started_wall_s * 1e9)}
    return out


def _framework(framework: Framework) -> Page:
    return {
        "framework_info": framework.info,
        "active": framework.connected,
        "connected": framework.connected,
        "recovered": framework.recovered,
        "registered_time": {"nanoseconds": int(framework.registered_wall_s * 1e9)},
        "reregistered_time": {"nanoseconds": int(framework.reregistered_wall_s * 1e9)},
    }


def _agents(seen: Sighted) -> Page:
    return {
        "agents": [_agent(a) for a in views.listed_agents(seen.cluster)],
        "recovered_agents": [
            {"id": {"value": a.id}, "hostname": a.hostname}
            for a in seen.cluster.agents.values()
            if not a.seen and not a.gone
        ],
    }


def _frameworks(seen: Sighted) -> Page:
    return {
        "frameworks": [
            {**_framework(f), "offers": [offer_json(seen.cluster, o) for o in f.offers.values()]}
            for f in seen.cluster.frameworks.values()
        ],
        "completed_frameworks": [_framework(f) for f in seen.cluster.torn_down.values()],
        "recovered_frameworks": [],
    }


def _tasks(seen: Sighted) -> Page:
    live = [t for f in seen.cluster.frameworks.values() for t in f.tasks.values()]
    done = [
        t for f in (*seen.cluster.frameworks.values(), *seen.cluster.torn_down.values()) for t in f.completed.values()
    ]
    return {
        "pending_tasks": [],
        "tasks": [_task(t) for t in live if t.state != "TASK_UNREACHABLE"],
        "unreachable_tasks": [_task(t) for t in live if t.state == "TASK_UNREACHABLE"],
        "completed_tasks": [_task(t) for t in done],
        "orphan_tasks": [],
    }


def _state(seen: Sighted) -> Page:
    return {
        "get_tasks": _tasks(seen),
        "get_executors": {"executors": []},
        "get_frameworks": _frameworks(seen),
        "get_agents": _agents(seen),
    }


def _master(seen: Sighted) -> Page:
    start = {"nanoseconds": int(seen.started_wall_s * 1e9)}
    return {
        "master_info": dict(seen.info),
        "start_time": start["nanoseconds"] / 1e9,
        "elected_time": seen.started_wall_s,
    }


def _metrics(seen: Sighted) -> Page:
    values = views.metrics(seen.cluster, uptime_s=seen.uptime_s)
    return {"metrics": [{"name": k, "value": v} for k, v in sorted(values.items())]}


READS: Mapping[str, Callable[[Sighted], Page]] = {
    "GET_HEALTH": lambda _: {"healthy": True},
    "GET_VERSION": lambda _: {"version_info": {"version": views.VERSION}},
    "GET_STATE": _state,
    "GET_AGENTS": _agents,
    "GET_FRAMEWORKS": _frameworks,
    "GET_TASKS": _tasks,
    "GET_MASTER": _master,
    "GET_METRICS": _metrics,
    "GET_FLAGS": lambda _: {"flags": []},
}


def read(kind: str, seen: Sighted) -> Page:
    return {"type": kind, kind.lower(): READS[kind](seen)}

"""The master's pages, in the shapes that Mesos' readers (Mesos-DNS, exporters, dashboards) know."""

from collections.abc import Iterable, Mapping
from typing import Any

from fairlead_core.master.decisions.allocation import domain_json
from fairlead_core.master.decisions.draining import drain_state
from fairlead_core.master.decisions.model import Agent, Cluster, Framework, Offer, Task
from fairlead_core.master.decisions.statuses import labels_of
from fairlead_core.resources import Resources

VERSION = "1.11.0"
Page = dict[str, Any]


def resources(bundle: Resources) -> Page:
    """`{"cpus": 1.5, "disk": 0, "gpus": 0, "mem": 64.0, "ports": "[31000-31001]"}`, reserved ones included."""
    out: Page = {name: bundle.total(name) for name in ("cpus", "disk", "gpus", "mem")}
    out.update({name: bundle.total(name) for name, _ in bundle.scalars if name not in out})
    ports = bundle.ports()
    if ports:
        out["ports"] = "[" + ", ".join(f"{b}-{e}" for b, e in ports) + "]"
    return out


def task(item: Task) -> Page:
    out: Page = {
        "id": item.id,
        "name": item.name,
        "framework_id": item.framework_id,
        "executor_id": item.executor_id,
        "slave_id": item.agent_id,
        "agent_id": item.agent_id,
        "state": item.state,
        "resources": resources(item.resources),
        "role": item.role,
        "statuses": [_status(s) for s in item.statuses],
        "labels": [{"key": k, "value": v} for k, v in item.labels.items()],
    }
    for key in ("discovery", "container", "health_check"):
        if item.info.get(key):
            out[key] = item.info[key]
    return out


def _status(status: Mapping[str, Any]) -> Page:
    keys = ("state", "timestamp", "container_status", "healthy", "reason", "message")
    out = {k: status[k] for k in keys if k in status}
    labels = labels_of(status.get("labels"))
    if labels:
        out["labels"] = [{"key": k, "value": v} for k, v in labels.items()]
    return out


def offer(item: Offer) -> Page:
    return {
        "id": item.id,
        "framework_id": item.framework_id,
        "slave_id": item.agent_id,
        "allocation_info": {"role": item.role},
        "resources": resources(item.resources),
    }


def _held(tasks: Iterable[Task]) -> Resources:
    total = Resources()
    for item in tasks:
        if item.held:
            total += item.resources
    return total


def framework(cluster: Cluster, item: Framework, *, tasks: bool = True) -> Page:
    host, _, port = item.address.rpartition(":")
    used = _held(item.tasks.values())
    offered = Resources()
    for made in item.offers.values():
        offered += made.resources
    out: Page = {
        "id": item.id,
        "name": item.name,
        "pid": f"scheduler-{item.id}@{item.address}" if item.address else "",
        "used_resources": resources(used),
        "offered_resources": resources(offered),
        "resources": resources(used + offered),
        "capabilities": sorted(item.capabilities),
        "hostname": str(item.info.get("hostname") or host),
        "port": int(port) if port.isdigit() else 0,
        "webui_url": str(item.info.get("webui_url") or ""),
        "active": item.connected,
        "connected": item.connected,
        "recovered": item.recovered,
        "user": str(item.info.get("user") or ""),
        "failover_timeout": item.failover_timeout_s,
        "checkpoint": bool(item.info.get("checkpoint")),
        "principal": str(item.info.get("principal") or ""),
        "registered_time": item.registered_wall_s,
        "reregistered_time": item.reregistered_wall_s,
        "unregistered_time": 0.0,
    }
    if "MULTI_ROLE" in item.capabilities:
        out["roles"] = list(item.roles)
    else:
        out["role"] = item.roles[0] if item.roles else "*"
    if tasks:
        live = [t for t in item.tasks.values() if t.state != "TASK_UNREACHABLE"]
        out["tasks"] = [task(t) for t in live]
        out["unreachable_tasks"] = [task(t) for t in item.tasks.values() if t.state == "TASK_UNREACHABLE"]
        out["completed_tasks"] = [task(t) for t in item.completed.values()]
        out["offers"] = [offer(o) for o in item.offers.values()]
        out["executors"] = [
            {"executor_id": key[1], "slave_id": a.id}
            for a in cluster.agents.values()
            for key in a.executors
            if key[0] == item.id
        ]
    return out


def agent(item: Agent) -> Page:
    out: Page = {
        "id": item.id,
        "hostname": item.hostname,
        "port": item.port,
        "pid": f"slave(1)@{item.ip}:{item.port}",
        "version": VERSION,
        "active": item.offerable,
        "deactivated": item.deactivated or item.drain is not None,
        "connected": item.connected,
        "suspect": item.suspect,
        "registered_time": item.registered_wall_s,
        "reregistered_time": item.reregistered_wall_s,
        "attributes": {str(a.get("name")): _attribute(a) for a in item.attributes},
        "resources": resources(item.total),
        "used_resources": resources(item.used),
        "offered_resources": resources(item.offered),
        "unreserved_resources": resources(item.total),
        "reserved_resources": {},
        "capabilities": ["MULTI_ROLE", "AGENT_DRAINING"],
    }
    if info := drain_info(item):
        out["drain_info"] = info
    if domain := domain_json(item):
        out["domain"] = domain
    return out


def _attribute(attribute: Mapping[str, Any]) -> object:
    for key in ("text", "scalar"):
        if isinstance(attribute.get(key), Mapping):
            return attribute[key].get("value")
    ranges = (attribute.get("ranges") or {}).get("range") or ()
    return "[" + ", ".join(f"{r['begin']}-{r['end']}" for r in ranges) + "]"


def drain_info(item: Agent) -> Page:
    if item.drain is None:
        return {}
    config: Page = {"mark_gone": item.drain.mark_gone}
    if item.drain.grace_ns is not None:
        config["max_grace_period"] = {"nanoseconds": item.drain.grace_ns}
    return {"state": drain_state(item), "config": config, "deadline": item.drain.deadline_wall_s}


def listed_agents(cluster: Cluster) -> list[Agent]:
    return [a for a in cluster.agents.values() if a.seen and not a.gone and not a.unreachable]


def state(cluster: Cluster, info: Mapping[str, Any], *, started_wall_s: float) -> Page:
    agents = cluster.agents.values()
    return {
        **_header(cluster, info),
        "start_time": started_wall_s,
        "elected_time": started_wall_s,
        "activated_slaves": sum(a.offerable for a in agents),
        "deactivated_slaves": sum(a.connected and not a.offerable for a in agents),
        "unreachable_slaves": sum(a.unreachable for a in agents),
        "slaves": [agent(a) for a in listed_agents(cluster)],
        "recovered_slaves": [{"id": a.id, "hostname": a.hostname} for a in agents if not a.seen and not a.gone],
        "frameworks": [framework(cluster, f) for f in cluster.frameworks.values()],
        "completed_frameworks": [framework(cluster, f) for f in cluster.torn_down.values()],
        "orphan_tasks": [],
        "unregistered_frameworks": [],
        "flags": {},
    }


def _header(cluster: Cluster, info: Mapping[str, Any]) -> Page:
    return {
        "version": VERSION,
        "id": cluster.master_id,
        "pid": info["pid"],
        "hostname": info["hostname"],
        "leader": info["pid"],
        "leader_info": {"id": info["id"], "pid": info["pid"], "hostname": info["hostname"], "port": info["port"]},
        "cluster": "fairlead",
    }


def summary(cluster: Cluster, info: Mapping[str, Any]) -> Page:
    return {
        **_header(cluster, info),
        "slaves": [{**agent(a), **_counts(a.tasks.values())} for a in listed_agents(cluster)],
        "frameworks": [
            {**framework(cluster, f, tasks=False), **_counts(f.tasks.values())} for f in cluster.frameworks.values()
        ],
    }


COUNTED = (
    "TASK_STAGING",
    "TASK_STARTING",
    "TASK_RUNNING",
    "TASK_KILLING",
    "TASK_FINISHED",
    "TASK_KILLED",
    "TASK_FAILED",
    "TASK_LOST",
    "TASK_ERROR",
    "TASK_UNREACHABLE",
)


def _counts(tasks: Iterable[Task]) -> Page:
    out: Page = dict.fromkeys(COUNTED, 0)
    for item in tasks:
        out[item.state] = out.get(item.state, 0) + 1
    return out


def metrics(cluster: Cluster, *, uptime_s: float) -> dict[str, float]:
    """`/metrics/snapshot`, under the names dashboards know."""
    agents, frameworks = cluster.agents.values(), cluster.frameworks.values()
    states = _counts(t for f in frameworks for t in f.tasks.values())
    used = Resources()
    for each in agents:
        used += each.used
    out: dict[str, float] = {
        "master/elected": 1.0,
        "master/uptime_secs": uptime_s,
        "master/slaves_active": sum(a.offerable for a in agents),
        "master/slaves_connected": sum(a.connected for a in agents),
        "master/slaves_disconnected": sum(a.seen and not a.connected and not a.unreachable for a in agents),
        "master/slaves_inactive": sum(a.connected and not a.offerable for a in agents),
        "master/slaves_unreachable": sum(a.unreachable for a in agents),
        "master/frameworks_active": sum(f.connected for f in frameworks),
        "master/frameworks_connected": sum(f.connected for f in frameworks),
        "master/frameworks_disconnected": sum(not f.connected for f in frameworks),
        "master/frameworks_inactive": sum(not f.connected for f in frameworks),
        "master/outstanding_offers": len(cluster.offers),
        "allocator/mesos/allocation_runs": cluster.counts.get("allocation_runs", 0),
        "master/messages_status_update": cluster.counts.get("status_updates", 0),
    }
    for name in ("staging", "starting", "running", "killing", "unreachable"):
        out[f"master/tasks_{name}"] = states[f"TASK_{name.upper()}"]
    for name in ("finished", "failed", "killed", "lost", "error", "dropped", "gone"):
        out[f"master/tasks_{name}"] = cluster.counts.get(f"tasks_{name}", 0)
    for name in ("cpus", "mem", "disk", "gpus"):
        whole, part = cluster.total.total(name), used.total(name)
        out[f"master/{name}_total"] = whole
        out[f"master/{name}_used"] = part
        out[f"master/{name}_percent"] = part / whole if whole else 0.0
    return out

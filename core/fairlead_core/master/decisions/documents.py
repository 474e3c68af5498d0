"""What outlives the leading master: its frameworks, and agents that are drained, deactivated, unreachable or gone."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from fairlead_core.master.decisions.agents import recovered
from fairlead_core.master.decisions.model import Agent, Cluster, Drain, Framework, Moment
from fairlead_discovery import records


class FrameworkDocument(records.Framework, frozen=True, kw_only=True):
    """records.Framework, which name servers read, and what the next leader needs."""

    info: Mapping[str, Any] = msgspec.field(default_factory=dict)
    registered_s: float = 0.0


class AgentDocument(records.Record, frozen=True, kw_only=True):
    """Wall-clock seconds. `drain_deadline_s` 0: not draining."""

    id: str
    hostname: str = ""
    ip: str = ""
    port: int = 0
    registered_s: float = 0.0
    unreachable_s: float = 0.0
    gone: bool = False
    deactivated: bool = False
    drain_deadline_s: float = 0.0
    drain_started_s: float = 0.0
    drain_grace_ns: int | None = None
    mark_gone: bool = False
    drained: bool = False


def framework_document(framework: Framework) -> FrameworkDocument:
    host = framework.address.rpartition(":")[0]
    return FrameworkDocument(
        id=framework.id,
        name=framework.name,
        hostname=str(framework.info.get("hostname") or host),
        ip=host,
        port=_port_of(framework),
        active=framework.connected,
        info=framework.info,
        registered_s=framework.registered_wall_s,
    )


def _port_of(framework: Framework) -> int:
    """Of its web page: the stream it holds comes from a port of the moment. 0 when it names none."""
    try:
        return urlsplit(str(framework.info.get("webui_url") or "")).port or 0
    except ValueError:
        return 0


def agent_document(agent: Agent) -> AgentDocument:
    drain = agent.drain
    return AgentDocument(
        id=agent.id,
        hostname=agent.hostname,
        ip=agent.ip,
        port=agent.port,
        registered_s=agent.registered_wall_s,
        unreachable_s=agent.unreachable_wall_s if agent.unreachable else 0.0,
        gone=agent.gone,
        deactivated=agent.deactivated,
        drain_deadline_s=drain.deadline_wall_s if drain else 0.0,
        drain_started_s=drain.started_wall_s if drain else 0.0,
        drain_grace_ns=drain.grace_ns if drain else None,
        mark_gone=drain.mark_gone if drain else False,
        drained=drain.drained if drain else False,
    )


def take_framework(cluster: Cluster, document: FrameworkDocument, *, now: Moment) -> None:
    """A framework of the leader before: waited for."""
    info = document.info or {"id": {"value": document.id}, "name": document.name, "user": ""}
    framework = recovered(cluster, document.id, info, now)
    framework.name = document.name
    framework.registered_wall_s = document.registered_s
    framework.address = f"{document.ip}:0" if document.ip else ""
    cluster.frameworks[document.id] = framework


def take_agent(cluster: Cluster, document: AgentDocument) -> None:
    drain = None
    if document.drain_deadline_s:
        drain = Drain(
            deadline_wall_s=document.drain_deadline_s,
            started_wall_s=document.drain_started_s,
            grace_ns=document.drain_grace_ns,
            mark_gone=document.mark_gone,
            drained=document.drained,
        )
    cluster.agents[document.id] = Agent(
        id=document.id,
        hostname=document.hostname,
        ip=document.ip,
        port=document.port,
        registered_wall_s=document.registered_s,
        unreachable=document.unreachable_s > 0,
        unreachable_wall_s=document.unreachable_s,
        gone=document.gone,
        deactivated=document.deactivated,
        drain=drain,
    )

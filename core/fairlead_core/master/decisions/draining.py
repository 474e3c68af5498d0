"""Emptying a machine: no more offers, inverse offers to its frameworks, at the deadline what remains leaves."""

from typing import Any

from fairlead_core.master.decisions import agents, killing
from fairlead_core.master.decisions.allocation import agent_url, rescind
from fairlead_core.master.decisions.model import Agent, Cluster, Drain, Framework, InverseOffer, Moment
from fairlead_discovery.records import Reason


def drain(cluster: Cluster, agent: Agent, *, grace_ns: int | None, mark_gone: bool, now: Moment) -> None:
    """Idempotent: a second call changes the deadline only."""
    seconds = cluster.drain_default_s if grace_ns is None else grace_ns / 1e9
    started_s = agent.drain.started_wall_s if agent.drain else now.wall_s
    agent.drain = Drain(
        deadline_wall_s=now.wall_s + seconds, started_wall_s=started_s, mark_gone=mark_gone, grace_ns=grace_ns
    )
    rescind(cluster, list(agent.offers.values()))
    withdraw_inverse_offers(cluster, agent)
    cluster.unsaved_agents.add(agent.id)
    for framework in cluster.frameworks.values():
        invite(cluster, framework)


def deactivate(cluster: Cluster, agent: Agent) -> None:
    agent.deactivated = True
    rescind(cluster, list(agent.offers.values()))
    cluster.unsaved_agents.add(agent.id)


def reactivate(cluster: Cluster, agent: Agent) -> None:
    """Undoes both. What is leaving already leaves."""
    agent.drain, agent.deactivated = None, False
    withdraw_inverse_offers(cluster, agent)
    cluster.dirty_agents.add(agent.id)
    cluster.unsaved_agents.add(agent.id)


def invite(cluster: Cluster, framework: Framework) -> None:
    """Inverse offers to one framework, of every draining agent that runs its tasks and did not ask yet."""
    if not framework.connected:
        return
    asked = {o.agent_id for o in cluster.inverse_offers.values() if o.framework_id == framework.id}
    holding = {t.agent_id for t in framework.tasks.values() if not t.terminal}
    made = []
    for agent_id in sorted(holding - asked):
        agent = cluster.agents[agent_id]
        if agent.drain is not None and not agent.gone:
            made.append(_inverse_offer(cluster, framework, agent))
    if made:
        cluster.send(framework.id, {"type": "INVERSE_OFFERS", "inverse_offers": {"inverse_offers": made}})


def _inverse_offer(cluster: Cluster, framework: Framework, agent: Agent) -> dict[str, Any]:
    assert agent.drain is not None
    offer = InverseOffer(id=f"{cluster.master_id}-O{cluster.next_offer}", framework_id=framework.id, agent_id=agent.id)
    cluster.next_offer += 1
    cluster.inverse_offers[offer.id] = offer
    return {
        "id": {"value": offer.id},
        "framework_id": {"value": framework.id},
        "agent_id": {"value": agent.id},
        "url": agent_url(agent),
        "unavailability": {"start": {"nanoseconds": int(agent.drain.deadline_wall_s * 1e9)}},
        "resources": [],
    }


def withdraw_inverse_offers(cluster: Cluster, agent: Agent) -> None:
    for offer in [o for o in cluster.inverse_offers.values() if o.agent_id == agent.id]:
        del cluster.inverse_offers[offer.id]
        event = {"type": "RESCIND_INVERSE_OFFER", "rescind_inverse_offer": {"inverse_offer_id": {"value": offer.id}}}
        cluster.send(offer.framework_id, event)


def withdraw_from(cluster: Cluster, framework: Framework) -> None:
    """It is gone, or its stream is: it is asked afresh when it comes back."""
    for offer in [o for o in cluster.inverse_offers.values() if o.framework_id == framework.id]:
        del cluster.inverse_offers[offer.id]


def answer(cluster: Cluster, framework: Framework, ids: list[str], verdict: str) -> None:
    for offer_id in ids:
        offer = cluster.inverse_offers.get(offer_id)
        if offer is not None and offer.framework_id == framework.id:
            offer.answer = verdict


def watch_over(cluster: Cluster, *, now: Moment) -> None:
    """At the deadline what remains is told to leave; an empty machine is DRAINED (and gone, if that was asked)."""
    for agent in list(cluster.agents.values()):
        if agent.drain is None or agent.gone or not agent.seen:
            continue
        for framework_id in {t.framework_id for t in agent.tasks.values()}:
            invite(cluster, cluster.frameworks[framework_id])  # tasks may have come with the agent, after a failover
        if not agent.tasks:
            _drained(cluster, agent, now=now)
        elif now.wall_s >= agent.drain.deadline_wall_s and not agent.unreachable:
            for task in [t for t in agent.tasks.values() if not t.terminal and t.leave is None and not t.kill_sent]:
                killing.kill(cluster, task, Reason.DRAIN, now=now)


def _drained(cluster: Cluster, agent: Agent, *, now: Moment) -> None:
    assert agent.drain is not None
    if agent.drain.drained:
        return
    agent.drain.drained = True
    withdraw_inverse_offers(cluster, agent)
    cluster.unsaved_agents.add(agent.id)
    if agent.drain.mark_gone:
        agents.remove(cluster, agent, "TASK_GONE_BY_OPERATOR", now=now)


def drain_state(agent: Agent) -> str:
    if agent.drain is None:
        return ""
    return "DRAINED" if agent.drain.drained else "DRAINING"

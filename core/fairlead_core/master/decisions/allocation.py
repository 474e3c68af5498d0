"""Fair offers: weighted dominant resource fairness over roles, then over the frameworks of a role.

All free resources of an agent go into one offer to the framework with the least share that wants them. The order is
kept sorted and only what an offer changed is sorted in again.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_core.master.decisions.model import Agent, Cluster, Filter, Framework, Offer
from fairlead_core.master.decisions.statuses import text_of
from fairlead_core.resources import UNRESERVED, Resources, to_mesos

ALLOCATION_INTERVAL_S = 1.0
"""Mesos': a refusal lasts at least this long, or decline and offer would chase one another."""
DEFAULT_REFUSE_S = 5.0
SAT_ON_S = 5.0
"""An unanswered offer may give way to a larger one only then: a rescind that crosses an ACCEPT loses its tasks."""
LONGEST_REFUSE_S = 31_536_000.0
LEAST_CPUS = 10
"""Thousandths; with less of this *and* of memory there is nothing worth offering (Mesos' MIN_CPUS, MIN_MEM)."""
LEAST_MEM = 32_000


def refuse_s(given: float | None) -> float:
    """Mesos' reading of `filters.refuse_seconds`: absent or negative is the default, a year is the most."""
    if given is None or given < 0 or given != given:  # noqa: PLR0124  # NaN differs from itself
        return DEFAULT_REFUSE_S
    return min(given, LONGEST_REFUSE_S)


def share(allocated: Mapping[str, int], total: Mapping[str, int]) -> float:
    """The dominant share: the largest part of any one resource of the cluster."""
    return max((n / total[name] for name, n in allocated.items() if total.get(name)), default=0.0)


def scalars_by_name(resources: Resources) -> dict[str, int]:
    out: dict[str, int] = {}
    for (name, _), value in resources.scalars.items():
        out[name] = out.get(name, 0) + value
    return out


def charge(framework: Framework, role: str, resources: Resources, *, sign: int = 1) -> None:
    """Counts `resources` for (or with sign -1 against) a framework's share in a role."""
    held = framework.allocated.setdefault(role, {})
    for (name, _), value in resources.scalars.items():
        left = held.get(name, 0) + sign * value
        assert left >= 0, f"framework {framework.id} gave back more {name} than it had"
        held[name] = left


def usable(free: Resources, role: str) -> Resources:
    """What a framework may be offered in `role`: the unreserved, and what is reserved for the role or one above it."""
    if all(key[1] == UNRESERVED for key in free.scalars) and all(key[1] == UNRESERVED for key in free.ranges):
        return free
    mine = _ancestry(role)
    return Resources(
        {k: v for k, v in free.scalars.items() if k[1] in mine}, {k: v for k, v in free.ranges.items() if k[1] in mine}
    )


def _ancestry(role: str) -> frozenset[str]:
    parts = role.split("/")
    return frozenset({UNRESERVED, *("/".join(parts[: n + 1]) for n in range(len(parts)))})


def worth_offering(resources: Resources) -> bool:
    amounts = scalars_by_name(resources)
    return amounts.get("cpus", 0) >= LEAST_CPUS or amounts.get("mem", 0) >= LEAST_MEM


@dataclass(slots=True)
class Order:
    """Who is next: roles by share, and in each role its frameworks by share. Names break ties, so it is repeatable."""

    total: Mapping[str, int]
    weights: Mapping[str, float]
    roles: list[tuple[float, str]] = field(default_factory=list)
    members: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    held: dict[str, dict[str, int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.roles)

    def role_share(self, role: str) -> float:
        return share(self.held.get(role, {}), self.total) / self.weights.get(role, 1.0)

    def resort(self, framework: Framework, role: str, before: tuple[float, float], given: Resources) -> None:
        """After an offer: two entries move. `before` are the role's and the framework's share as they stood."""
        held = self.held.setdefault(role, {})
        for name, value in scalars_by_name(given).items():
            held[name] = held.get(name, 0) + value
        self.roles.remove((before[0], role))
        insort(self.roles, (self.role_share(role), role))
        members = self.members[role]
        members.remove((before[1], framework.id))
        insort(members, (share(framework.allocated.get(role, {}), self.total), framework.id))


def order_of(frameworks: Iterable[Framework], total: Resources, weights: Mapping[str, float]) -> Order:
    """Everyone who may be offered something now; shares count what disconnected frameworks hold, too."""
    order = Order(scalars_by_name(total), weights)
    for framework in frameworks:
        for role, amounts in framework.allocated.items():
            held = order.held.setdefault(role, {})
            for name, value in amounts.items():
                held[name] = held.get(name, 0) + value
        if framework.connected:
            for role in framework.roles:
                if role not in framework.suppressed:
                    entry = (share(framework.allocated.get(role, {}), order.total), framework.id)
                    order.members.setdefault(role, []).append(entry)
    for members in order.members.values():
        members.sort()
    order.roles = sorted((order.role_share(role), role) for role in order.members)
    return order


def allocate(cluster: Cluster, *, now_s: float, weights: Mapping[str, float]) -> list[Offer]:
    """Offers what the dirty agents have free, and says so to the frameworks, one OFFERS event each."""
    order = order_of(cluster.frameworks.values(), cluster.total, weights)
    dirty, cluster.dirty_agents = sorted(cluster.dirty_agents), set()
    cluster.count("allocation_runs")
    made: list[Offer] = []
    if not order:
        return made
    for agent_id in dirty:
        agent = cluster.agents.get(agent_id)
        if agent is not None and agent.offerable:
            offer = _offer_one(cluster, agent, order, now_s)
            if offer is not None:
                made.append(offer)
    _announce(cluster, made)
    return made


def _offer_one(cluster: Cluster, agent: Agent, order: Order, now_s: float) -> Offer | None:
    free = agent.free
    if not worth_offering(free):
        return None
    for role_share, role in order.roles:
        offered = usable(free, role)
        if not worth_offering(offered):
            continue
        for own_share, framework_id in order.members[role]:
            framework = cluster.frameworks[framework_id]
            if wants(framework, agent, offered, now_s) and may_offer(framework, agent, role, now_s):
                whole = take_back(cluster, framework, agent) + offered
                offer = add_offer(cluster, framework, agent, role, whole, now_s=now_s)
                order.resort(framework, role, (role_share, own_share), offered)
                return offer
    return None


def may_offer(framework: Framework, agent: Agent, role: str, now_s: float) -> bool:
    """One offer of an agent per framework at a time. One it has been sitting on gives way to one with all of it."""
    mine = [o for o in agent.offers.values() if o.framework_id == framework.id]
    return all(o.role == role and now_s - o.made_s >= SAT_ON_S for o in mine)


def take_back(cluster: Cluster, framework: Framework, agent: Agent) -> Resources:
    mine = [o for o in agent.offers.values() if o.framework_id == framework.id]
    rescind(cluster, mine)
    total = Resources()
    for offer in mine:
        total += offer.resources
    return total


def wants(framework: Framework, agent: Agent, offered: Resources, now_s: float) -> bool:
    """Nothing it refused; machines with GPUs only to those who ask for GPUs."""
    if ("gpus", UNRESERVED) in agent.total.scalars and "GPU_RESOURCES" not in framework.capabilities:
        return False
    refused = framework.filters.get(agent.id)
    if refused is None:
        return True
    if refused.until_s > now_s and refused.refused.contains(offered):
        return False
    if refused.until_s <= now_s:
        del framework.filters[agent.id]
    return True


def add_offer(
    cluster: Cluster, framework: Framework, agent: Agent, role: str, resources: Resources, *, now_s: float
) -> Offer:
    offer = Offer(
        id=f"{cluster.master_id}-O{cluster.next_offer}",
        framework_id=framework.id,
        agent_id=agent.id,
        role=role,
        resources=resources,
        made_s=now_s,
    )
    cluster.next_offer += 1
    cluster.offers[offer.id] = framework.offers[offer.id] = agent.offers[offer.id] = offer
    agent.offered += resources
    charge(framework, role, resources)
    return offer


def remove_offer(cluster: Cluster, offer: Offer) -> None:
    """The resources are free again, and the agent is up for the next allocation."""
    del cluster.offers[offer.id]
    framework = cluster.frameworks[offer.framework_id]
    del framework.offers[offer.id]
    charge(framework, offer.role, offer.resources, sign=-1)
    agent = cluster.agents[offer.agent_id]
    del agent.offers[offer.id]
    agent.offered -= offer.resources
    cluster.dirty_agents.add(agent.id)


def rescind(cluster: Cluster, offers: Sequence[Offer]) -> None:
    for offer in offers:
        remove_offer(cluster, offer)
        cluster.send(offer.framework_id, {"type": "RESCIND", "rescind": {"offer_id": {"value": offer.id}}})


def refuse(framework: Framework, agent_id: str, refused: Resources, *, seconds: float, now_s: float) -> None:
    if refused:
        until_s = now_s + max(seconds, ALLOCATION_INTERVAL_S)
        framework.filters[agent_id] = Filter(until_s=until_s, refused=refused)


def revive(cluster: Cluster, framework: Framework, roles: Iterable[str] = ()) -> None:
    """Mesos' double meaning: un-suppress the roles (none named: all) and forget every refusal."""
    framework.suppressed -= set(roles) or set(framework.roles)
    framework.filters.clear()
    everything_dirty(cluster)


def suppress(framework: Framework, roles: Iterable[str] = ()) -> None:
    framework.suppressed |= set(roles) or set(framework.roles)


def everything_dirty(cluster: Cluster) -> None:
    cluster.dirty_agents.update(a.id for a in cluster.agents.values() if a.offerable)


def _announce(cluster: Cluster, made: Sequence[Offer]) -> None:
    events: dict[str, list[dict[str, Any]]] = {}
    for offer in made:
        events.setdefault(offer.framework_id, []).append(offer_json(cluster, offer))
    for framework_id, offers in events.items():
        cluster.count("offers", len(offers))
        cluster.send(framework_id, {"type": "OFFERS", "offers": {"offers": offers}})


def offer_json(cluster: Cluster, offer: Offer) -> dict[str, Any]:
    agent = cluster.agents[offer.agent_id]
    out: dict[str, Any] = {
        "id": {"value": offer.id},
        "framework_id": {"value": offer.framework_id},
        "agent_id": {"value": agent.id},
        "hostname": agent.hostname,
        "url": agent_url(agent),
        "allocation_info": {"role": offer.role},
        "resources": to_mesos(offer.resources, allocated_to=offer.role),
    }
    if agent.attributes:
        out["attributes"] = agent.attributes
    if domain := domain_json(agent):
        out["domain"] = domain
    mine = [executor for owner, executor in agent.executors if owner == offer.framework_id]
    if mine:
        out["executor_ids"] = [{"value": e} for e in mine]
    return out


def domain_json(agent: Agent) -> dict[str, Any]:
    if not (agent.zone or agent.region):
        return {}
    return {"fault_domain": {"region": {"name": agent.region}, "zone": {"name": agent.zone}}}


def agent_url(agent: Agent) -> dict[str, Any]:
    address = {"hostname": agent.hostname, "ip": agent.ip, "port": agent.port}
    return {"scheme": "http", "address": address, "path": "/slave(1)"}


def ids_of(values: Iterable[object]) -> list[str]:
    return [text_of(v) for v in values]

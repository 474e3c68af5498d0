"""All that a task, an agent and we ourselves are called, in every dialect that is set. One table, no order."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from fairlead_discovery.records import Agent, Member, Portless
from fairlead_dns.decisions import dialects, layers, naming
from fairlead_dns.decisions.naming import Dialect, Instance, Record, Rules

OF_TASK: Mapping[str, Callable[[Instance, Dialect, Rules], Iterator[Record]]] = {
    "consul": dialects.consul,
    "kubernetes": dialects.kubernetes,
    "dcos": dialects.dcos,
    "numbered_ports": layers.numbered_ports,
    "svcb": layers.svcb,
    "dns_sd": layers.dns_sd,
}


def of_task(task: Member | Portless, rules: Rules, rival: str = "") -> tuple[Record, ...]:
    """Every record of one task, each once. `rival`: see Instance."""
    if not rules.dialects:
        return naming.of_task(task, rules, rival)
    one = naming.instance(task, rules, rival)
    others = chain.from_iterable(
        OF_TASK[dialect.kind](one, dialect, rules) for dialect in rules.dialects if dialect.kind in OF_TASK
    )
    return naming.timed(dict.fromkeys(chain(naming.of_instance(one, rules), others)), task.discovery, rules)


def of_agent(agent: Agent, rules: Rules, *, rival: bool = False) -> tuple[Record, ...]:
    """`rival`: see naming.of_agent."""
    found = dict.fromkeys(naming.of_agent(agent, (agent.host,), rules, rival=rival))
    for dialect in rules.dialects:
        if dialect.kind == "consul":
            label = naming.agent_label(agent)
            found.update(dict.fromkeys(dialects.consul_node(label, naming.parsed((agent.host,)), dialect)))
    return tuple(found)


def of_ourselves(rules: Rules) -> tuple[Record, ...]:
    """What a dialect says whatever runs."""
    found: dict[Record, None] = {}
    for dialect in rules.dialects:
        if dialect.kind == "kubernetes":
            found.update(dict.fromkeys(dialects.kubernetes_itself(dialect)))
        if dialect.kind == "dns_sd":
            found.update(dict.fromkeys(layers.dns_sd_itself(rules)))
    return tuple(found)


def apexes(rules: Rules) -> tuple[str, ...]:
    """The domains of dialects, each once, without those that lie below `domain`."""
    found = dict.fromkeys(filter(None, map(dialects.domain_of, rules.dialects)))
    return tuple(d for d in found if d != rules.domain and not d.endswith(f".{rules.domain}"))

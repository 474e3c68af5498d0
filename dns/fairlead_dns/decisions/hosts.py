"""Frameworks and agents whose names give one label, and those whose label had to be cut: what a person must be told."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.records import Agent, Framework
from fairlead_dns.decisions import wire
from fairlead_dns.decisions.naming import Rules, agent_label, agent_name, framework_labels, told_apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Who is as Sources.others has it: `framework <id>`, `agent <id>`."""

    shared: Mapping[str, tuple[str, ...]]
    """Name below the domain -> who has it, of those that several names give."""
    apart: Mapping[str, str]
    """Of these: who -> the label that is its alone."""
    cut: Mapping[str, tuple[str, ...]]
    """Who -> the name that was too long."""
    rivals: frozenset[str]
    """The names, as given, that share one."""


def frameworks(known: Mapping[str, Framework], rules: Rules) -> Hosts:
    """Several frameworks of one name are one: a scheduler and its next life."""
    names = {key: each.name for key, each in known.items()}
    labelled = {name: framework_labels(name, rules.spec) for name in names.values()}
    return _hosts("framework", names, labelled, [name for name in labelled if _is_long(name, rules)])


def agents(known: Mapping[str, Agent]) -> Hosts:
    """Several agents of one host name are on one machine."""
    names = {key: agent_name(each) for key, each in known.items()}
    labelled = {agent_name(each): agent_label(each) for each in known.values()}
    return _hosts("agent", names, labelled, [name for name in labelled if _is_long_host(name)])


def _hosts(kind: str, names: Mapping[str, str], labelled: Mapping[str, str], long: Collection[str]) -> Hosts:
    holders: dict[str, list[str]] = {}
    for name, label in labelled.items():
        holders.setdefault(label, []).append(name)
    shared = {label: frozenset(them) for label, them in holders.items() if label and len(them) > 1}
    rivals = frozenset(name for them in shared.values() for name in them)
    suffix = ".slave" if kind == "agent" else ""
    return Hosts(
        shared={
            f"{label}{suffix}": tuple(sorted(f"{kind} {key}" for key, name in names.items() if name in them))
            for label, them in shared.items()
        },
        apart={f"{kind} {key}": told_apart(labelled[name], name) for key, name in names.items() if name in rivals},
        cut={f"{kind} {key}": (name,) for key, name in names.items() if name in long},
        rivals=rivals,
    )


def _is_long(name: str, rules: Rules) -> bool:
    limit = labels.RFC952_LIMIT if rules.rfc952 else labels.LABEL_LIMIT
    parts = [part for part in map(labels.legal, name.split(".")) if part]
    whole = sum(min(len(part), limit) + 1 for part in parts) + len(f"_framework._tcp.{rules.domain}.") + 2
    return any(len(part.strip("-")) > limit for part in parts) or whole > wire.NAME_LIMIT


def _is_long_host(name: str) -> bool:
    return len(labels.legal(name).strip("-")) > labels.LABEL_LIMIT

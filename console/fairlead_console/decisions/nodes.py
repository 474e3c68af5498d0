"""Agents as an operator sees them, from the master's `/slaves`."""

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead_daemon.errors import Refused

Agent = Mapping[str, Any]


def find(agents: Sequence[Agent], text: str) -> Agent:
    """By id, host name or a unique beginning of either. Raises Refused naming the candidates."""
    for key in ("id", "hostname"):
        exact = [a for a in agents if a.get(key) == text]
        if len(exact) == 1:
            return exact[0]
    found = [a for a in agents if any(str(a.get(key, "")).startswith(text) for key in ("id", "hostname"))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{a['id']} ({a.get('hostname', '?')})" for a in found or agents)
    raise Refused(f"{text}: {'more than one node' if found else 'no such node'}; there are: {names or 'none'}")


def condition(agent: Agent) -> str:
    """One word: active, draining, drained, deactivated, suspect, unreachable."""
    draining = str((agent.get("drain_info") or {}).get("state", "")).lower()
    if draining:
        return draining
    if agent.get("deactivated"):
        return "deactivated"
    if agent.get("suspect"):
        return "suspect"
    return "active" if agent.get("active", True) else "unreachable"


def amount(resources: Mapping[str, Any], name: str) -> str:
    value = resources.get(name, 0)
    return f"{float(value):g}"


def used(agent: Agent, name: str) -> str:
    """`0.5/4`: taken of what there is."""
    return f"{amount(agent.get('used_resources') or {}, name)}/{amount(agent.get('resources') or {}, name)}"


def address(agent: Agent) -> str:
    """`127.0.0.1:5051` of Mesos' `slave(1)@127.0.0.1:5051`."""
    return str(agent.get("pid", "")).partition("@")[2]

"""Nodes with what they have, what of it is used or on offer, and whether work may go there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from fairlead_console.decisions import nodes as words
from fairlead_console.web.decisions.answers import Node
from fairlead_console.web.decisions.services import BAD, GOOD, WAIT

TONES = {"active": GOOD, "draining": WAIT, "drained": WAIT, "deactivated": WAIT}
MEASURED = (("cpus", "CPUs", ""), ("mem", "memory", "MB"), ("disk", "disk", "MB"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One resource: how much of it tasks have, and how much lies in offers just now."""

    name: str
    unit: str
    used: float
    offered: float
    total: float

    @property
    def text(self) -> str:
        offered = f", {self.offered:g} offered" if self.offered else ""
        return f"{self.used:g} of {self.total:g}{f' {self.unit}' if self.unit else ''}{offered}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    id: str
    name: str
    address: str
    state: str
    tone: str
    instances: int
    measures: Sequence[Measure]
    attributes: str


def node_views(nodes: Sequence[Node], instances: Mapping[str, int]) -> tuple[NodeView, ...]:
    """By name. `instances` are published instances by agent id."""
    return tuple(_view(node, instances.get(node.id, 0)) for node in sorted(nodes, key=lambda n: (n.hostname, n.id)))


def _view(node: Node, instances: int) -> NodeView:
    plain = msgspec.to_builtins(node)
    state = "suspect" if node.suspect else words.condition(plain)
    return NodeView(
        id=node.id,
        name=node.hostname or node.id,
        address=words.address(plain),
        state=state,
        tone=TONES.get(state, BAD),
        instances=instances,
        measures=tuple(_measure(node, *named) for named in MEASURED),
        attributes=", ".join(f"{key}={value}" for key, value in sorted(node.attributes.items())),
    )


def _measure(node: Node, key: str, name: str, unit: str) -> Measure:
    return Measure(
        name=name,
        unit=unit,
        used=_number(node.used_resources, key),
        offered=_number(node.offered_resources, key),
        total=_number(node.resources, key),
    )


def _number(resources: Mapping[str, float | str], key: str) -> float:
    value = resources.get(key, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0

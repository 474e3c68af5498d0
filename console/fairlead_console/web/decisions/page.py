"""The whole page as values: one view a section, each compared with the one before to know what changed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_console.web.decisions import reports
from fairlead_console.web.decisions.answers import Answer, Apps, Balancer, Nodes, Tasks
from fairlead_console.web.decisions.graph import Graph, Point, graph
from fairlead_console.web.decisions.header import Header, header
from fairlead_console.web.decisions.nodes import NodeView, node_views
from fairlead_console.web.decisions.services import BAD, Known, Service, services
from fairlead_discovery.snapshots import Snapshot

SECTIONS = ("summary", "services", "nodes", "links", "alerts", "graph")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known at one moment. `rates` are the console's own measurements of requests per second."""

    snapshot: Snapshot
    age_s: float = 0.0
    domain: str = "mesos"
    apps: Answer[Apps] = field(default_factory=Answer)
    tasks: Answer[Tasks] = field(default_factory=Answer)
    nodes: Answer[Nodes] = field(default_factory=Answer)
    balancer: Answer[Balancer] = field(default_factory=Answer)
    links: Answer[tuple[reports.Link, ...]] = field(default_factory=Answer)
    alerts: Answer[tuple[reports.Alert, ...]] = field(default_factory=Answer)
    measured: Answer[tuple[Point, ...]] = field(default_factory=Answer)
    rates: Sequence[Point] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What a template gets. `notes` say who did not answer, and since when what is shown stands."""

    notes: Sequence[str] = ()
    absent: str = ""
    """Why there is nothing to show at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Section):
    """Counts are None where nobody can tell."""

    header: Header
    services: int
    instances: int
    troubled: Sequence[str]
    nodes: int | None
    firing: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Section):
    services: Sequence[Service]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesView(Section):
    nodes: Sequence[NodeView]


@dataclass(frozen=True, slots=True, kw_only=True)
class Links(Section):
    links: Sequence[reports.Link]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts(Section):
    alerts: Sequence[reports.Alert]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphView(Section):
    graph: Graph | None
    source: str


def page(facts: Facts) -> Mapping[str, Section]:
    """A view for each of SECTIONS, in their order."""
    found = services(
        Known(
            snapshot=facts.snapshot,
            apps=facts.apps.value.apps if facts.apps.value else (),
            tasks=facts.tasks.value.tasks if facts.tasks.value else (),
            nodes=facts.nodes.value.slaves if facts.nodes.value else (),
            balancer=facts.balancer.value,
            domain=facts.domain,
        )
    )
    return {
        "summary": _summary(facts, found),
        "services": Services(
            services=found,
            notes=(
                *_notes(("The service scheduler", facts.apps), ("The balancer", facts.balancer)),
                *_trouble(facts.balancer.value),
            ),
        ),
        "nodes": _nodes(facts),
        "links": Links(
            links=facts.links.value or (),
            notes=_notes(("Messaging", facts.links)),
            absent=_absent("Messaging", facts.links),
        ),
        "alerts": Alerts(
            alerts=facts.alerts.value or (),
            notes=_notes(("The monitor", facts.alerts)),
            absent=_absent("The monitor", facts.alerts),
        ),
        "graph": _graph(facts),
    }


def _summary(facts: Facts, found: Sequence[Service]) -> Summary:
    return Summary(
        header=header(facts.snapshot, age_s=facts.age_s),
        services=len(found),
        instances=sum(service.serving for service in found),
        troubled=tuple(service.title for service in found if service.tone == BAD),
        nodes=len(facts.nodes.value.slaves) if facts.nodes.value else None,
        firing=None if facts.alerts.value is None else sum(1 for a in facts.alerts.value if a.state == "firing"),
    )


def _nodes(facts: Facts) -> NodesView:
    published = Counter(member.task.agent for members in facts.snapshot.members.values() for member in members.values())
    published.update(member.task.agent for members in facts.snapshot.portless.values() for member in members.values())
    nodes = facts.nodes.value.slaves if facts.nodes.value else ()
    return NodesView(
        nodes=node_views(nodes, published),
        notes=_notes(("The master", facts.nodes)),
        absent=_absent("The master", facts.nodes),
    )


def _graph(facts: Facts) -> GraphView:
    """The monitor's hour when it runs, else what the console itself has seen of the balancer."""
    if facts.measured.value and (drawn := graph(facts.measured.value)) and not facts.measured.why:
        return GraphView(graph=drawn, source="the monitor")
    drawn = graph(facts.rates)
    absent = _absent("The balancer", facts.balancer) or ("" if drawn else "Measuring: the line begins in a few seconds")
    return GraphView(graph=drawn, source="the balancer's counters", absent="" if drawn else absent)


def _notes(*asked: tuple[str, Answer[Any]]) -> tuple[str, ...]:
    """A sentence for each whose newest answer is none."""
    return tuple(
        f"{name} {'is no help' if answer.answered else 'does not answer'}: {answer.why}"
        + (f"; this is what it said at {answer.seen}" if answer.value is not None else "")
        for name, answer in asked
        if answer.why
    )


def _trouble(balancer: Balancer | None) -> tuple[str, ...]:
    return (
        (f"The balancer could not apply a change: {balancer.last_error}",) if balancer and balancer.last_error else ()
    )


def _absent(name: str, answer: Answer[Any]) -> str:
    """Why nothing of it can be shown, "" when something can."""
    if answer.value is not None:
        return ""
    if answer.off:
        return f"{name} is switched off by setting"
    if answer.answered:
        return f"{name} is no help: {answer.why}"
    return f"{name} is not running" if answer.why else f"{name} has not answered yet"

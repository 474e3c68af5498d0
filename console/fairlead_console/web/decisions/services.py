"""Services with their instances, health, names and routes, joined from what four parts know."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fairlead_console.decisions.names import srv_name
from fairlead_console.web.decisions.answers import App, Backend, Balancer, Node, Task
from fairlead_discovery.decisions import dns_labels as labels
from fairlead_discovery.paths import split_service_key
from fairlead_discovery.records import Leaving, Member, Portless
from fairlead_discovery.snapshots import Snapshot

T = TypeVar("T")
SHOWN = 50
"""Instances listed of a service; with more the page says how many are left out."""
GOOD, WAIT, BAD, IDLE = "good", "wait", "bad", "idle"
"""How a word is coloured. The word itself says it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One task. `state` in a word, `tone` its colour; `server` is what the balancer makes of it, "" when nothing."""

    id: str
    state: str
    tone: str
    address: str = ""
    node: str = ""
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteView:
    """One backend of the balancer: where requests come in, and how many servers take them."""

    backend: str
    mode: str
    port: int
    hosts: Sequence[str]
    ready: int
    servers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """`wanted` is None for a framework that does not say how many it wants."""

    key: str
    title: str
    framework: str
    state: str
    tone: str
    wanted: int | None
    serving: int
    names: Sequence[str]
    routes: Sequence[RouteView]
    instances: Sequence[Instance]
    more: int = 0
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the parts said. What did not answer is empty; `scheduler` is the framework whose apps these are."""

    snapshot: Snapshot
    apps: Sequence[App] = ()
    tasks: Sequence[Task] = ()
    nodes: Sequence[Node] = ()
    balancer: Balancer | None = None
    domain: str = "mesos"
    scheduler: str = "marathon"


def services(known: Known) -> tuple[Service, ...]:
    """Every service that is published, leaving, routed or wanted, by framework and name."""
    apps = {f"{known.scheduler}:{app.id}": app for app in known.apps}
    tasks = _grouped((f"{known.scheduler}:{task.app}", task) for task in known.tasks)
    snapshot = known.snapshot
    balancer = known.balancer or Balancer()
    nodes = {node.id: node.hostname for node in known.nodes}
    leaving = _grouped((entry.service, entry) for entry in snapshot.leaving.values())
    backends = _grouped((backend.service, backend) for backend in balancer.services)
    keys = {*snapshot.members, *snapshot.portless, *snapshot.routes, *leaving, *backends, *apps}
    return tuple(
        _service(
            Parts(
                key=key,
                app=apps.get(key),
                tasks=tasks.get(key, ()),
                found=published(snapshot, key),
                leaving=leaving.get(key, ()),
                backends=backends.get(key, ()),
            ),
            nodes=nodes,
            domain=known.domain,
            refused=balancer.refused.get(key),
        )
        for key in sorted(keys)
    )


def _grouped(pairs: Iterable[tuple[str, T]]) -> Mapping[str, list[T]]:
    out: dict[str, list[T]] = {}
    for key, value in pairs:
        out.setdefault(key, []).append(value)
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is known of one service."""

    key: str
    app: App | None
    tasks: Sequence[Task]
    found: Sequence[Member | Portless]
    leaving: Sequence[Leaving]
    backends: Sequence[Backend]


def _service(parts: Parts, *, nodes: Mapping[str, str], domain: str, refused: object) -> Service:
    framework, name = split_service_key(parts.key)
    shown, count = instances(parts, nodes)
    state, tone = condition(parts.app, len(parts.found))
    return Service(
        key=parts.key,
        title=name,
        framework=framework,
        state=state,
        tone=tone,
        wanted=parts.app.instances if parts.app else None,
        serving=len(parts.found),
        names=names(parts.found, domain),
        routes=tuple(map(_route, parts.backends)),
        instances=shown,
        more=count - len(shown),
        refused=_refusal(refused),
    )


def _route(backend: Backend) -> RouteView:
    return RouteView(
        backend=backend.backend,
        mode=backend.mode,
        port=backend.service_port,
        hosts=backend.hosts,
        ready=sum(1 for server in backend.servers if server.state == "ready"),
        servers=len(backend.servers),
    )


def _refusal(why: object) -> str:
    return "; ".join(map(str, why)) if isinstance(why, list | tuple) else str(why or "")


def published(snapshot: Snapshot, key: str) -> tuple[Member | Portless, ...]:
    return (*snapshot.members.get(key, {}).values(), *snapshot.portless.get(key, {}).values())


def condition(app: App | None, serving: int) -> tuple[str, str]:
    """A word or two, and its colour; the first that holds. Without an app only what is published counts.

    `serving` is the registry's word: a healthy task on a suspect node does not count in it.
    """
    if app is None:
        return ("published", GOOD) if serving else ("not published", IDLE)
    ready = app.healthy if app.checks else app.running
    if app.deployments:
        return "deploying", WAIT
    if app.instances == 0 and not app.running:
        return "suspended", IDLE
    if app.unhealthy:
        return f"{app.unhealthy} unhealthy", BAD
    if ready < app.instances:
        return f"{app.instances - ready} missing", BAD
    if serving < app.instances:
        return f"{app.instances - serving} out of reach", BAD
    return ("healthy" if app.checks else "running"), GOOD


def names(found: Sequence[Member | Portless], domain: str) -> tuple[str, ...]:
    """`web-shop.marathon.mesos` for A and AAAA, `_web-shop._tcp.marathon.mesos` for SRV when there are ports."""
    told = {(t.discovery.name or t.task.name, t.task.framework, isinstance(t, Member)): None for t in found}
    out: dict[str, None] = {}
    for name, framework, ports in told:
        label, fragment = labels.rfc1123(name), labels.domain_fragment(framework, labels.rfc1123)
        if label and fragment:
            whole = f"{label}.{fragment}.{domain}"
            out.update(dict.fromkeys((whole, srv_name(whole)) if ports else (whole,)))
    return tuple(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """What is known of one task."""

    leaving: Leaving | None
    found: Member | Portless | None
    task: Task | None


def instances(parts: Parts, nodes: Mapping[str, str]) -> tuple[tuple[Instance, ...], int]:
    """The first SHOWN by id, and how many there are: each task once, whoever knows it. `nodes` are names by agent id."""
    leaving = {entry.task: entry for entry in parts.leaving}
    found = {task.task.id: task for task in parts.found}
    tasks = {task.id: task for task in parts.tasks}
    servers = {server.task: server.state for backend in parts.backends for server in backend.servers}
    ids = sorted({*leaving, *found, *tasks})
    shown = (
        _instance(
            task_id,
            Sightings(leaving=leaving.get(task_id), found=found.get(task_id), task=tasks.get(task_id)),
            server=servers.get(task_id, ""),
            nodes=nodes,
        )
        for task_id in ids[:SHOWN]
    )
    return tuple(shown), len(ids)


def _instance(task_id: str, seen: Sightings, *, server: str, nodes: Mapping[str, str]) -> Instance:
    found, task = seen.found, seen.task
    state, tone = _standing(seen)
    agent = found.task.agent if found else task.agent if task else ""
    return Instance(
        id=task_id,
        state=state,
        tone=tone,
        address=(_address(found) if found else "") or (_placed(task) if task else ""),
        node=nodes.get(agent) or (task.host if task else "") or agent,
        server=server,
    )


def _standing(seen: Sightings) -> tuple[str, str]:
    """In a word, and its colour: the registry says whether it is reached, the scheduler how it is."""
    if seen.leaving:
        return f"leaving ({seen.leaving.reason})", WAIT
    if seen.task and any(not check.alive for check in seen.task.checks):
        return "unhealthy", BAD
    if seen.found:
        return "serving", GOOD
    return (seen.task.state.removeprefix("TASK_").lower() if seen.task else "unknown"), WAIT


def _placed(task: Task) -> str:
    return f"{task.host}:{task.ports[0]}" if task.ports else task.host


def _address(found: Member | Portless) -> str:
    if isinstance(found, Member):
        return f"{found.serviceEndpoint.host}:{found.serviceEndpoint.port}"
    return next(iter((*found.ips.netinfo, *found.ips.mesos, *found.ips.host)), "")

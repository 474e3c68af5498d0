"""Which task is published, under which name and with which content. The content never changes while a task runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_core.master.decisions.model import Agent, Publication, Stored, Task
from fairlead_core.master.decisions.statuses import Json, labels_of
from fairlead_discovery import paths
from fairlead_discovery.decisions import label_names
from fairlead_discovery.records import Address, Discovery, Ips, Member, Port, Portless, TaskRef, encode

PORTLESS_AFTER_S = 1.0
"""Short batch tasks without ports cost the registry nothing."""


def service_of(framework_name: str, info: Json) -> str:
    """`marathon:/shop/web`, `etl:worker`: the full app id if the task carries one, else discovery or task name."""
    labels = labels_of(info.get("labels"))
    discovery = info.get("discovery")
    given = discovery.get("name") if isinstance(discovery, Mapping) else None
    return paths.service_key(framework_name, labels.get(label_names.APP_ID) or str(given or info.get("name") or ""))


def is_up(task: Task) -> bool:
    """RUNNING, healthy if it has a health check, and not told to leave: what may be published."""
    if task.state != "TASK_RUNNING" or task.leave is not None or task.kill_sent:
        return False
    return task.healthy is True if task.info.get("health_check") else task.healthy is not False


def publication(task: Task, agent: Agent, framework_name: str) -> Publication:
    """The node of a task. The same task on the same agent gives the same bytes under every leader."""
    if task.made is None:
        task.made = _make(task, agent, framework_name)
    return task.made


def _make(task: Task, agent: Agent, framework_name: str) -> Publication:
    ports = ports_of(task.info)
    ref = TaskRef(
        id=task.id,
        name=task.name,
        framework=framework_name,
        framework_id=task.framework_id,
        agent=agent.id,
        app=task.labels.get(label_names.APP_ID, ""),
        version=task.labels.get(label_names.APP_VERSION, ""),
    )
    discovery, ips = discovery_of(task.info), ips_of(task.statuses, agent)
    if not ports:
        data = encode(Portless(task=ref, discovery=discovery, ips=ips))
        name = paths.portless_name(task.id, data)
        return Publication(service=task.service, name=name, data=data, member=False)
    member = Member(
        serviceEndpoint=Address(host=agent.ip, port=ports[0].host_port),
        additionalEndpoints={p.name or str(p.index): Address(host=agent.ip, port=p.host_port) for p in ports},
        status="ALIVE",
        task=ref,
        discovery=discovery,
        ports=ports,
        ips=ips,
        zone=agent.zone,
        region=agent.region,
    )
    data = encode(member)
    return Publication(service=task.service, name=paths.member_name(task.id, data), data=data, member=True)


def ports_of(info: Json) -> tuple[Port, ...]:
    """From DiscoveryInfo, else the `ports` resources in the order they were given."""
    discovery = info.get("discovery")
    ports = discovery.get("ports") if isinstance(discovery, Mapping) else None
    items = ports.get("ports") if isinstance(ports, Mapping) else None
    if isinstance(items, list) and items:
        mapped = _mapped_ports(info)
        return tuple(_discovery_port(index, item, mapped) for index, item in enumerate(items) if _is_port(item))
    return tuple(
        Port(index=index, number=number, host_port=number) for index, number in enumerate(_resource_ports(info))
    )


def _is_port(item: object) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("number"), int) and 0 < item["number"] < 65536


def _discovery_port(index: int, item: Json, mapped: Mapping[int, int]) -> Port:
    protocols = tuple(p.strip().lower() for p in str(item.get("protocol") or "").split(",") if p.strip())
    number = int(item["number"])
    return Port(
        index=index,
        number=number,
        host_port=mapped.get(number, number),
        name=str(item.get("name") or ""),
        protocols=protocols,
        labels=labels_of(item.get("labels")),
    )


def _mapped_ports(info: Json) -> dict[int, int]:
    """Container port to host port, for bridged containers."""
    container = info.get("container")
    if not isinstance(container, Mapping):
        return {}
    holders: list[Any] = [container.get("docker"), *(container.get("network_infos") or ())]
    mappings = [m for h in holders if isinstance(h, Mapping) for m in h.get("port_mappings") or ()]
    return {
        int(m["container_port"]): int(m["host_port"])
        for m in mappings
        if isinstance(m, Mapping) and m.get("container_port") and m.get("host_port")
    }


def _resource_ports(info: Json) -> Iterable[int]:
    for item in info.get("resources") or ():
        if isinstance(item, Mapping) and item.get("name") == "ports":
            for each in (item.get("ranges") or {}).get("range") or ():
                yield from range(int(each["begin"]), int(each["end"]) + 1)


def discovery_of(info: Json) -> Discovery:
    """What name servers are to know of a task stands in its own labels as well as in its DiscoveryInfo's: these win."""
    given = info.get("discovery")
    own = {k: v for k, v in labels_of(info.get("labels")).items() if k.startswith(label_names.DNS)}
    if not isinstance(given, Mapping):
        return Discovery(labels=own)
    return Discovery(
        name=str(given.get("name") or ""),
        visibility=str(given.get("visibility") or ""),
        labels={**own, **labels_of(given.get("labels"))},
        given=True,
    )


def ips_of(statuses: Sequence[Json], agent: Agent) -> Ips:
    """A task's addresses by source, from its latest RUNNING status, as Mesos-DNS reads them."""
    running = next((s for s in reversed(statuses) if s.get("state") == "TASK_RUNNING"), {})
    labels = labels_of(running.get("labels"))
    return Ips(
        host=(agent.ip,) if agent.ip else (),
        mesos=_listed(labels.get("MesosContainerizer.NetworkSettings.IPAddress")),
        docker=_listed(labels.get("Docker.NetworkSettings.IPAddress")),
        netinfo=tuple(_network_ips(running)),
    )


def _listed(text: str | None) -> tuple[str, ...]:
    return (text,) if text else ()


def _network_ips(status: Json) -> Iterable[str]:
    container = status.get("container_status")
    for network in (container.get("network_infos") if isinstance(container, Mapping) else None) or ():
        for address in (network.get("ip_addresses") if isinstance(network, Mapping) else None) or ():
            if isinstance(address, Mapping) and isinstance(address.get("ip_address"), str):
                yield address["ip_address"]


# --- what of a service should stand --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A publication that may stand: of a live task, or one an agent that is not back yet stands for."""

    name: str
    member: bool
    suspect: bool = False
    publication: Publication | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    create: tuple[Publication, ...] = ()
    delete: tuple[Stored, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.create or self.delete)


def plan_service(stored: Iterable[Stored], candidates: Sequence[Candidate]) -> ServicePlan:
    """What to change so that the candidates stand.

    Suspects are withdrawn, but never to zero: when every candidate is suspect, those of them that stand stay.
    """
    standing = {s.name: s for s in stored}
    wanted: dict[str, Candidate] = {}
    for member in (True, False):
        kind = [c for c in candidates if c.member == member]
        good = [c for c in kind if not c.suspect]
        wanted.update((c.name, c) for c in (good or [c for c in kind if c.name in standing]))
    return ServicePlan(
        create=tuple(c.publication for name, c in wanted.items() if name not in standing and c.publication is not None),
        delete=tuple(s for name, s in standing.items() if name not in wanted),
    )

"""A Mesos master's /state into what a registry would tell: tasks, frameworks, agents, masters.

As Mesos-DNS read it: TASK_RUNNING tasks of every framework on agents that are known, the ports of the `ports` resource,
addresses from the newest running status. Beyond it: what a task's health check says is heeded.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fairlead_daemon.errors import Refused
from fairlead_discovery import paths
from fairlead_discovery.decisions import label_names
from fairlead_discovery.records import (
    Address,
    Agent,
    Discovery,
    Framework,
    Ips,
    MasterAddress,
    MasterInfo,
    Member,
    Port,
    Portless,
    TaskRef,
    encode,
)
from fairlead_dns.decisions import wire

HALF = 0.5
FEW = 10  # tasks: fewer may well go at once
MESOS_LABEL = "MesosContainerizer.NetworkSettings.IPAddress"
DOCKER_LABEL = "Docker.NetworkSettings.IPAddress"


class Label(msgspec.Struct, frozen=True):
    """One label."""

    key: str = ""
    value: str = ""


class Labels(msgspec.Struct, frozen=True):
    """Labels, as DiscoveryInfo has them."""

    labels: tuple[Label, ...] = ()


class IpAddress(msgspec.Struct, frozen=True):
    """One address."""

    ip_address: str = ""


class Network(msgspec.Struct, frozen=True):
    """One network of a container; before Mesos 0.26 with a single address."""

    ip_addresses: tuple[IpAddress, ...] = ()
    ip_address: str = ""


class Container(msgspec.Struct, frozen=True):
    """What is known of a container."""

    network_infos: tuple[Network, ...] = ()


class Status(msgspec.Struct, frozen=True):
    """One status update."""

    state: str = ""
    timestamp: float = 0.0
    healthy: bool | None = None
    labels: tuple[Label, ...] = ()
    container_status: Container = Container()


class DiscoveryPort(msgspec.Struct, frozen=True):
    """One port of a DiscoveryInfo."""

    number: int = 0
    name: str = ""
    protocol: str = ""


class DiscoveryPorts(msgspec.Struct, frozen=True):
    """Its ports."""

    ports: tuple[DiscoveryPort, ...] = ()


class DiscoveryInfo(msgspec.Struct, frozen=True):
    """What a framework wants a task to be found by."""

    name: str = ""
    visibility: str = ""
    ports: DiscoveryPorts = DiscoveryPorts()
    labels: Labels = Labels()


class TaskState(msgspec.Struct, frozen=True):
    """One task."""

    id: str
    name: str = ""
    slave_id: str = ""
    state: str = ""
    statuses: tuple[Status, ...] = ()
    resources: Mapping[str, Any] = {}
    discovery: DiscoveryInfo | None = None
    labels: tuple[Label, ...] = ()


class FrameworkState(msgspec.Struct, frozen=True):
    """One framework."""

    id: str
    name: str = ""
    hostname: str = ""
    pid: str = ""
    tasks: tuple[TaskState, ...] = ()


class AgentState(msgspec.Struct, frozen=True):
    """One agent. `pid`: `slave(1)@10.0.0.1:5051`."""

    id: str
    hostname: str = ""
    pid: str = ""


class State(msgspec.Struct, frozen=True):
    """The page, as far as names need it."""

    leader: str = ""
    pid: str = ""
    frameworks: tuple[FrameworkState, ...] = ()
    slaves: tuple[AgentState, ...] = ()
    recovered_slaves: tuple[AgentState, ...] = ()
    """Agents that a new leader has not heard of yet: their tasks are missing here and run on."""


_decoder = msgspec.json.Decoder(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One reading. Services are keyed as in a registry: `marathon:/shop/web`, `etl:worker`."""

    members: Mapping[str, Mapping[str, Member]] = field(default_factory=dict)
    portless: Mapping[str, Mapping[str, Portless]] = field(default_factory=dict)
    frameworks: Mapping[str, Framework] = field(default_factory=dict)
    agents: Mapping[str, Agent] = field(default_factory=dict)
    leader: MasterInfo | None = None
    settled: bool = True
    """False: a new leader that has not heard of all agents yet."""

    @property
    def tasks(self) -> int:
        return sum(map(len, self.members.values())) + sum(map(len, self.portless.values()))


def decode(data: bytes, *, place: str) -> State:
    """Raises Refused naming `place` and the field."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise Refused(f"{place}: {error}") from error


def sight(state: State) -> Sight:
    agents = {each.id: _agent(each) for each in state.slaves}
    members: dict[str, dict[str, Member]] = {}
    portless: dict[str, dict[str, Portless]] = {}
    for framework in state.frameworks:
        for task in framework.tasks:
            agent = agents.get(task.slave_id)
            if agent is None or task.state != "TASK_RUNNING" or _newest(task).healthy is False:
                continue
            made = _made(framework, task, agent)
            service = _service(framework, task)
            if isinstance(made, Member):
                members.setdefault(service, {})[paths.member_name(task.id, encode(made))] = made
            else:
                portless.setdefault(service, {})[paths.portless_name(task.id, encode(made))] = made
    return Sight(
        members=members,
        portless=portless,
        frameworks={each.id: _framework(each) for each in state.frameworks},
        agents=agents,
        leader=master(state.leader or state.pid),
        settled=not state.recovered_slaves,
    )


def believable(before: int, after: Sight) -> bool:
    """Not when more than half of `before` tasks have gone at once, or a new leader still waits for its agents.

    Mesos' agents have 75 s to register with a new leader; until then their tasks run and are missing.
    """
    return after.settled and not (before >= FEW and after.tasks < before * HALF)


def is_change(part: bytes) -> bool:
    """Whether a piece of the operator API's event stream tells of more than that the stream lives."""
    return part.count(b'"type"') > part.count(b'"HEARTBEAT"')


def master(pid: str, hostname: str = "") -> MasterInfo | None:
    """`master@10.0.0.1:5050` as MasterInfo; None where it names no address."""
    ip, port = _place(pid)
    if wire.address(ip) is None:
        return None
    name = hostname or ip
    address = MasterAddress(hostname=name, ip=ip, port=port)
    return MasterInfo(address=address, hostname=name, id=f"{ip}:{port}", ip=0, pid=pid, port=port, version="")


class _Pid(msgspec.Struct, frozen=True):
    pid: str = ""
    hostname: str = ""


PID_FIELD, BYTES = 4, 2


def candidates(names: Iterable[str]) -> list[str]:
    """Nodes of masters, the leader's first: `json.info_0000000001`, `info_0000000001` before Mesos 0.24."""
    found = [name for name in names if re.fullmatch(r"(json\.)?info_\d+", name)]
    return sorted(found, key=lambda name: (int(name.rpartition("_")[2]), name))


def master_of_node(name: str, data: bytes) -> MasterInfo | None:
    """Of a node's data: JSON, or protobuf in nodes without `json.`; None where it cannot be read."""
    if not name.startswith("json."):
        return master(_protobuf_pid(data))
    try:
        told = msgspec.json.decode(data, type=_Pid)
    except msgspec.DecodeError:
        return None
    return master(told.pid, told.hostname)


def _protobuf_pid(data: bytes) -> str:
    """MasterInfo.pid, the string of field 4; "" where the bytes are no message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == BYTES:
            size, at = _varint(data, at)
            if key >> 3 == PID_FIELD:
                return data[at : at + size].decode("ascii", "replace")
            at += size
        elif key & 7 == 0:
            _, at = _varint(data, at)
        else:
            return ""
    return ""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:  # no varint is longer
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # the last byte of a varint
            return value, at
    return 0, len(data)


def _place(pid: str) -> tuple[str, int]:
    """`slave(1)@10.0.0.1:5051` -> ("10.0.0.1", 5051), `…@[::1]:5051` too; ("", 0) for what is none."""
    found = re.fullmatch(r"[^@]*@(.+):(\d{1,5})", pid)
    return (found[1].strip("[]"), int(found[2])) if found else ("", 0)


def _agent(each: AgentState) -> Agent:
    ip, port = _place(each.pid)
    return Agent(id=each.id, host=ip or each.hostname, port=port, boot_id="", hostname=each.hostname)


def _framework(each: FrameworkState) -> Framework:
    ip, port = _place(each.pid)
    return Framework(id=each.id, name=each.name, hostname=each.hostname, ip=ip, port=port)


def _service(framework: FrameworkState, task: TaskState) -> str:
    discovery = task.discovery.name if task.discovery is not None else ""
    app = next((each.value for each in task.labels if each.key == label_names.APP_ID), "")
    return paths.service_key(framework.name, app or discovery or task.name)


def _newest(task: TaskState) -> Status:
    running = [status for status in task.statuses if status.state == "TASK_RUNNING"]
    return max(running, key=lambda status: status.timestamp, default=Status())


def _made(framework: FrameworkState, task: TaskState, agent: Agent) -> Member | Portless:
    labels = {each.key: each.value for each in task.labels if each.key.startswith(label_names.DNS)}
    ref = TaskRef(
        id=task.id,
        name=task.name,
        framework=framework.name,
        framework_id=framework.id,
        agent=agent.id,
        app=next((each.value for each in task.labels if each.key == label_names.APP_ID), ""),
    )
    discovery, ports = _discovery(task, labels), tuple(_ports(task))
    ips = _ips(task, agent)
    if not ports:
        return Portless(task=ref, discovery=discovery, ips=ips)
    return Member(
        serviceEndpoint=Address(host=agent.host, port=ports[0].host_port or ports[0].number),
        task=ref,
        discovery=discovery,
        ports=ports,
        ips=ips,
        status="ALIVE",
    )


def _discovery(task: TaskState, labels: Mapping[str, str]) -> Discovery:
    given = task.discovery
    if given is None:
        return Discovery(labels=dict(labels))
    own = {each.key: each.value for each in given.labels.labels}
    return Discovery(name=given.name, visibility=given.visibility, labels={**labels, **own}, given=True)


def _ports(task: TaskState) -> Iterator[Port]:
    """Discovery ports beside the host ports of the same place; of either kind there may be more."""
    host = list(port_numbers(task.resources.get("ports")))
    told = _merged(task.discovery.ports.ports) if task.discovery is not None else []
    for index in range(max(len(host), len(told))):
        at_host = host[index] if index < len(host) else 0
        if index < len(told):
            number, name, protocols = told[index]
            yield Port(index=index, number=number, host_port=at_host, name=name, protocols=protocols)
        else:
            yield Port(index=index, number=0 if told else at_host, host_port=at_host)


def _merged(ports: Iterable[DiscoveryPort]) -> list[tuple[int, str, tuple[str, ...]]]:
    """One entry a number and name, with all its protocols; none when one entry says none, which means both."""
    found: dict[tuple[int, str], list[str]] = {}
    for port in ports:
        found.setdefault((port.number, port.name), []).append(port.protocol.lower())
    return [
        (number, name, () if "" in protocols else tuple(dict.fromkeys(protocols)))
        for (number, name), protocols in found.items()
    ]


def port_numbers(text: object) -> Iterator[int]:
    """`[31354-31355, 31400-31400]` -> 31354, 31355, 31400; nothing for what is no such text."""
    for first, last in re.findall(r"(\d{1,5})-(\d{1,5})", text) if isinstance(text, str) else ():
        yield from range(int(first), min(int(last), 65535) + 1)


def _ips(task: TaskState, agent: Agent) -> Ips:
    status = _newest(task)
    labels = {each.key: each.value for each in status.labels}
    networks = status.container_status.network_infos
    return Ips(
        host=(agent.host,),
        mesos=tuple(filter(None, (labels.get(MESOS_LABEL, ""),))),
        docker=tuple(filter(None, (labels.get(DOCKER_LABEL, ""),))),
        netinfo=tuple(ip for network in networks for ip in _of_network(network)),
    )


def _of_network(network: Network) -> Iterator[str]:
    found = [each.ip_address for each in network.ip_addresses if each.ip_address]
    yield from found or filter(None, (network.ip_address,))

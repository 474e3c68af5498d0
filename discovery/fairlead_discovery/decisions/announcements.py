"""What is announced of a service that fairlead does not schedule, as a member like any other."""

import ipaddress
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from fairlead_daemon.errors import BadSettings
from fairlead_discovery import paths
from fairlead_discovery.decisions import labels, vips
from fairlead_discovery.decisions.checks import Check
from fairlead_discovery.decisions.words import BadLabel
from fairlead_discovery.records import (
    Address,
    Discovery,
    Ips,
    Lease,
    Leaving,
    Member,
    Port,
    Reason,
    TaskRef,
    encode,
)
from fairlead_discovery.registry import Change, Create, Delete, Put

FRAMEWORK = "static"
FRAMEWORK_ID = "announced"
Format = Literal["serverset", "nerve", "nerve-base64", "curator", "treadmill"]


class Also(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A foreign form written beside our own: an ephemeral node below `path` of the same ZooKeeper."""

    format: Format
    path: str
    leader: bool = False
    """Of `serverset`: a leader node (`singleton_candidate_…`) instead of a member: the lowest that stands leads."""

    @property
    def problem(self) -> str:
        return "leader nodes are of serversets alone" if self.leader and self.format != "serverset" else ""


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instance to announce. Its names are those of a task: `<name>.<framework>.<domain>`."""

    name: str
    host: str = ""
    """Where it is reached: an address, or a name that is resolved every 30 s. Empty: this machine's."""
    port: int
    framework: str = FRAMEWORK
    id: str = ""
    """Tells instances of one service apart; the same after a restart. Empty: `<host>-<port>`."""
    port_name: str = ""
    """`http` routes as HTTP; a virtual host does so too."""
    protocol: Literal["tcp", "udp"] = "tcp"
    additional_ports: Mapping[str, int] = msgspec.field(default_factory=dict)
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Read as a task's: HAPROXY_0_VHOST and the like; VIP_0 and the like as labels of `port`."""
    vhost: str = ""
    """Short for the label HAPROXY_0_VHOST."""
    weight: float = 1.0
    zone: str = ""
    region: str = ""
    shard: int | None = None
    checks: tuple[Check, ...] = (Check(),)
    """All must be good. None at all: it is announced for as long as the announcer runs."""
    drain_s: float = 30.0
    """How long at most the end waits for balancers and cached names."""
    also: tuple[Also, ...] = ()

    @property
    def key(self) -> str:
        return paths.service_key(self.framework, self.name)

    @property
    def task(self) -> str:
        return paths.announced_task(self.key, self.id or f"{self.host}-{self.port}")

    @property
    def all_labels(self) -> Mapping[str, str]:
        return {**self.labels, "HAPROXY_0_VHOST": self.vhost} if self.vhost else self.labels


class Bridge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A foreign folder of the same registry, each of whose endpoints is announced as an instance of one service."""

    name: str
    format: Format
    path: str
    framework: str = FRAMEWORK
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Added to the endpoints' own."""
    vhost: str = ""
    drain_s: float = 30.0
    settle_s: float = 30.0
    """Endpoints that vanished together stay so long after the first of them is back."""

    @property
    def key(self) -> str:
        return paths.service_key(self.framework, self.name)


def problem(service: Service) -> str:
    """What is wrong with it, "" if nothing."""
    for number in (service.port, *service.additional_ports.values()):
        if not 0 < number < 65536:
            return f"port: {number} is no port, 1 to 65535"
    if not service.name or not service.framework:
        return "name and framework must not be empty"
    if not 0 <= service.weight <= 256:
        return f"weight: {service.weight:g} is not between 0 and 256"
    if service.drain_s < 0:
        return "drain_s: below 0"
    if service.vhost:
        try:
            labels.vhosts(service.vhost)
        except BadLabel as error:
            return f"vhost: {error}"
    parts = (
        *(("checks", check.problem) for check in service.checks),
        *(("also", also.problem) for also in service.also),
    )
    return next((f"{what}: {why}" for what, why in parts if why), "")


def check_all(services: Sequence[Service], bridges: Sequence[Bridge] = (), *, where: str) -> None:
    """Raises BadSettings naming the service."""
    for bridge in bridges:
        if not bridge.path.startswith("/") or bridge.path.endswith("/"):
            raise BadSettings(f"{where}: {bridge.name}: path: {bridge.path!r} is no folder's path")
        if not 0 <= bridge.settle_s < math.inf:
            raise BadSettings(f"{where}: {bridge.name}: settle_s: {bridge.settle_s:g} is no time from 0")
    if not services and not bridges:
        raise BadSettings(f"{where}: no service to announce")
    seen: set[str] = set()
    for service in services:
        why = problem(service) or ("announced twice" if service.task in seen else "")
        if why:
            raise BadSettings(f"{where}: {service.name or 'a service'}: {why}")
        seen.add(service.task)


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def member_of(service: Service, address: str) -> Member:
    """`address` is an IP address: names and balancers take nothing else."""
    named = {service.port_name or "0": service.port, **service.additional_ports}
    vip_labels = {label: text for label, text in service.all_labels.items() if vips.asked((label,))}
    rest = {label: text for label, text in service.all_labels.items() if label not in vip_labels}
    ports = tuple(
        Port(
            index=index,
            number=number,
            host_port=number,
            name=name if index or service.port_name else "",
            protocols=(service.protocol,) if index == 0 else ("tcp",),
            labels=vip_labels if index == 0 else {},
        )
        for index, (name, number) in enumerate(named.items())
    )
    return Member(
        serviceEndpoint=Address(host=address, port=service.port),
        additionalEndpoints={name: Address(host=address, port=number) for name, number in named.items()},
        status="ALIVE",
        shard=service.shard,
        task=TaskRef(
            id=service.task,
            name=service.name,
            framework=service.framework,
            framework_id=FRAMEWORK_ID,
            agent=service.task,
        ),
        discovery=Discovery(name=service.name, visibility="EXTERNAL", labels=rest, given=True),
        ports=ports,
        ips=Ips(host=(address,)),
        zone=service.zone,
        region=service.region,
        weight=service.weight,
    )


def lease_of(service: Service, address: str) -> Lease:
    return Lease(task=service.task, service=service.key, host=address, port=service.port)


# --- from what stands to what should stand ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Departing:
    """Why a member goes, and by when whoever uses it must be done (wall clock)."""

    reason: Reason
    deadline_s: float


def changes_to(
    service: Service, standing: Iterable[str], wanted: Member | None, departing: Departing
) -> tuple[Change, ...]:
    """One commit from the standing nodes of our task to the wanted one; () when nothing is to be done.

    A return takes the leaving record with it, a departure leaves one. Created before its predecessor is deleted.
    """
    have = frozenset(standing)
    if wanted is None:
        gone = sorted(have)
        record = Leaving(
            task=service.task,
            service=service.key,
            member=gone[0] if gone else "",
            reason=departing.reason,
            deadline_s=departing.deadline_s,
        )
        deletes = tuple(Delete(paths.member(service.key, name), missing_ok=True) for name in gone)
        return (*deletes, Put(paths.leaving(service.task), encode(record))) if gone else ()
    data = encode(wanted)
    name = paths.member_name(service.task, data)
    if have == {name}:
        return ()
    create: tuple[Change, ...] = () if name in have else (Create(paths.member(service.key, name), data),)
    others = tuple(Delete(paths.member(service.key, old), missing_ok=True) for old in sorted(have - {name}))
    return (*create, Delete(paths.leaving(service.task), missing_ok=True), *others)

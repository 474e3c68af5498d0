"""What master and agent read of Mesos' messages, by type; the messages themselves are passed on whole.

A value of the wrong type is a fault of whoever sent it, told when it comes in, and not ours when it is used later.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from fairlead_core.resources import NUMBER_MOST

Duration = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MOST)]
DURATION_MOST_S = 9.2e9
"""Mesos' longest Duration: 2^63 nanoseconds, 292 years."""
Seconds = Annotated[float, msgspec.Meta(ge=-DURATION_MOST_S, le=DURATION_MOST_S)]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Every field may be missing or null: whether it must be there is somebody else's question."""


class Value(Shape, frozen=True, kw_only=True):
    value: str | None = None


class Label(Shape, frozen=True, kw_only=True):
    key: str | None = None
    value: str | None = None


class Labels(Shape, frozen=True, kw_only=True):
    labels: list[Label] | None = None


class Nanoseconds(Shape, frozen=True, kw_only=True):
    nanoseconds: Duration | None = None


class KillPolicy(Shape, frozen=True, kw_only=True):
    grace_period: Nanoseconds | None = None


class AllocationInfo(Shape, frozen=True, kw_only=True):
    role: str | None = None


class Scalar(Shape, frozen=True, kw_only=True):
    value: float


class Range(Shape, frozen=True, kw_only=True):
    begin: Number
    end: Number


class Ranges(Shape, frozen=True, kw_only=True):
    range: list[Range] | None = None


class Reservation(Shape, frozen=True, kw_only=True):
    role: str | None = None


class Resource(Shape, frozen=True, kw_only=True):
    name: str
    type: str | None = None
    role: str | None = None
    scalar: Scalar | None = None
    ranges: Ranges | None = None
    reservations: list[Reservation] | None = None
    allocation_info: AllocationInfo | None = None


class Executor(Shape, frozen=True, kw_only=True):
    executor_id: Value | None = None
    framework_id: Value | None = None
    type: str | None = None
    command: Mapping[str, Any] | None = None
    resources: list[Resource] | None = None


class DiscoveryPort(Shape, frozen=True, kw_only=True):
    number: Duration | None = None
    name: str | None = None
    protocol: str | None = None
    labels: Labels | None = None


class DiscoveryPorts(Shape, frozen=True, kw_only=True):
    ports: list[DiscoveryPort] | None = None


class Discovery(Shape, frozen=True, kw_only=True):
    name: str | None = None
    visibility: str | None = None
    ports: DiscoveryPorts | None = None
    labels: Labels | None = None


class PortMapping(Shape, frozen=True, kw_only=True):
    container_port: Number | None = None
    host_port: Number | None = None


class Mapped(Shape, frozen=True, kw_only=True):
    port_mappings: list[PortMapping] | None = None


class Container(Shape, frozen=True, kw_only=True):
    docker: Mapped | None = None
    network_infos: list[Mapped] | Mapped | None = None
    """Alone too: Mesos' JSON reader takes one object for a list, and Yelp's task_processing sends it so."""


class Task(Shape, frozen=True, kw_only=True):
    name: str | None = None
    task_id: Value | None = None
    agent_id: Value | None = None
    resources: list[Resource] | None = None
    executor: Executor | None = None
    command: Mapping[str, Any] | None = None
    container: Container | None = None
    discovery: Discovery | None = None
    health_check: Mapping[str, Any] | None = None
    labels: Labels | None = None
    kill_policy: KillPolicy | None = None
    max_completion_time: Nanoseconds | None = None


class Address(Shape, frozen=True, kw_only=True):
    ip_address: str | None = None


class NetworkInfo(Shape, frozen=True, kw_only=True):
    ip_addresses: list[Address] | None = None


class ContainerStatus(Shape, frozen=True, kw_only=True):
    network_infos: list[NetworkInfo] | None = None


class Status(Shape, frozen=True, kw_only=True):
    task_id: Value | None = None
    agent_id: Value | None = None
    executor_id: Value | None = None
    state: str | None = None
    uuid: str | None = None
    message: str | None = None
    reason: str | None = None
    source: str | None = None
    timestamp: Annotated[float, msgspec.Meta(ge=0, le=1e11)] | None = None
    healthy: bool | None = None
    labels: Labels | None = None
    container_status: ContainerStatus | None = None


class Capability(Shape, frozen=True, kw_only=True):
    type: str | None = None


class Framework(Shape, frozen=True, kw_only=True):
    id: Value | None = None
    name: str | None = None
    user: str | None = None
    hostname: str | None = None
    principal: str | None = None
    webui_url: str | None = None
    checkpoint: bool | None = None
    role: str | None = None
    roles: list[str] | None = None
    capabilities: list[Capability] | None = None
    failover_timeout: Seconds | None = None
    labels: Labels | None = None


class AttributeRange(Shape, frozen=True, kw_only=True):
    begin: Duration
    end: Duration


class AttributeRanges(Shape, frozen=True, kw_only=True):
    range: list[AttributeRange] | None = None


class Items(Shape, frozen=True, kw_only=True):
    item: list[str] | None = None


class Attribute(Shape, frozen=True, kw_only=True):
    name: str
    type: str | None = None
    text: Value | None = None
    scalar: Scalar | None = None
    ranges: AttributeRanges | None = None
    set: Items | None = None


def problem(kind: type[Shape], value: object, *, place: str) -> str:
    """Why it is not of this shape, with the path, as in `task.discovery.ports: Expected object, got array`; "" when it is.

    Numbers and booleans may be text, as protobuf's JSON allows.
    """
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        text, _, path = str(error).rpartition(" - at `$")
        return f"{place}{path.rstrip('`')}: {text}" if text else f"{place}: {error}"
    return ""

"""Other people's registration formats, to and from one endpoint model.

serverset      <path>/member_<10 digits>     {"serviceEndpoint":{"host","port"},"additionalEndpoints":{},"status","shard"}
                                             leaders are `singleton_candidate_<10 digits>`
nerve          <path>/<id>_<10 digits>       {"host","port","name","weight","haproxy_server_options","labels"}
nerve-base64   <path>/base64_<len>_<url-safe base64 of that JSON>_<10 digits>, without data
curator        <path>/<service>/<id>         {"name","id","address","port","sslPort","payload","serviceType","enabled",…}
treadmill      <path>/<proid>/<app>#<instance>:<proto>:<endpoint>     host:port

What is wrong raises BadNode with the reason; `read_folder` skips, counts and names it.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import msgspec

from fairlead_discovery.decisions.announcements import Also, Bridge, Service
from fairlead_discovery.records import Address

ALIVE = "ALIVE"
STATUSES = frozenset({"DEAD", "STARTING", ALIVE, "STOPPING", "STOPPED", "WARNING"})
NODE_LIMIT_BYTES = 64 * 1024
"""As nerve: longer paths and records are nobody's endpoint."""


class BadNode(ValueError):  # noqa: N818  # named as the five errors are
    """The reason alone; whoever reads adds the node's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What all formats have in common. `ports` are further ones by name; `shard`, `weight` None: not said."""

    host: str
    port: int
    id: str = ""
    ports: Mapping[str, Address] = field(default_factory=dict)
    alive: bool = True
    shard: int | None = None
    weight: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    leader: bool = False
    options: str = ""
    """Nerve's haproxy_server_options."""
    secure_port: int | None = None
    """Curator's sslPort."""


@dataclass(frozen=True, slots=True)
class ForeignNode:
    path: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A folder as endpoints by node name, and what was skipped with the reason."""

    endpoints: Mapping[str, Endpoint]
    skipped: Mapping[str, str]


# --- ServerSets --------------------------------------------------------------------------------------------------------

_SEQUENCE = re.compile(r"_(\d{10})$")
MEMBER, LEADER = "member_", "singleton_candidate_"
_VECTOR = re.compile(r"inet=(?P<host>[^|]+):(?P<port>\d+)\|?")


def read_serverset(name: str, data: bytes) -> Endpoint | None:
    """None for what is no member: Finagle's `vector_…` weights lie beside them."""
    if not name.startswith((MEMBER, LEADER)):
        return None
    record = _json(data)
    host, port = _address(record.get("serviceEndpoint"), "serviceEndpoint")
    status = record.get("status", ALIVE)
    if status not in STATUSES:
        raise BadNode(f"status {status!r:.40} is none")
    shard = record.get("shard")
    if shard is not None and not _is_int(shard):
        raise BadNode("shard is no number")
    further = record.get("additionalEndpoints") or {}
    if not isinstance(further, dict):
        raise BadNode("additionalEndpoints is no object")
    ports = {key: Address(host=h, port=p) for key, (h, p) in ((k, _address(v, k)) for k, v in further.items())}
    leader = name.startswith(LEADER)
    return Endpoint(host=host, port=port, ports=ports, alive=status == ALIVE, shard=shard, leader=leader)


def write_serverset(endpoint: Endpoint) -> tuple[str, bytes]:
    record: dict[str, Any] = {
        "serviceEndpoint": {"host": endpoint.host, "port": endpoint.port},
        "additionalEndpoints": {k: {"host": a.host, "port": a.port} for k, a in sorted(endpoint.ports.items())},
        "status": ALIVE if endpoint.alive else "STOPPING",
    }
    if endpoint.shard is not None:
        record["shard"] = endpoint.shard
    prefix = LEADER if endpoint.leader else MEMBER
    return f"{prefix}{stable_sequence(endpoint)}", msgspec.json.encode(record)


def read_vector(data: bytes) -> Mapping[str, float]:
    """Finagle's weights by `host:port`, from the data of a `vector_…` node."""
    out: dict[str, float] = {}
    vector = _json(data).get("vector")
    for item in vector if isinstance(vector, list) else ():
        match = _VECTOR.match(str(item.get("select", ""))) if isinstance(item, dict) else None
        weight = item.get("weight") if match else None
        if match and isinstance(weight, int | float) and weight >= 0:
            out[f"{match['host']}:{match['port']}"] = float(weight)
    return out


# --- Nerve -------------------------------------------------------------------------------------------------------------


def read_nerve(name: str, data: bytes) -> Endpoint:
    return _nerve(name, _json(data))


def read_nerve_base64(name: str, _data: bytes) -> Endpoint:
    word, length, text = _base64_parts(name)
    if word != "base64" or not length.isdigit():
        raise BadNode("no base64_<length>_<text>_<sequence>")
    if int(length) != len(text):
        raise BadNode(f"{len(text)} characters where {length} were announced")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadNode("no base64") from error
    return _nerve("", _json(raw))


def _base64_parts(name: str) -> tuple[str, str, str]:
    head, _, rest = _SEQUENCE.sub("", name).partition("_")
    length, _, text = rest.partition("_")
    return head, length, text


def _nerve(name: str, record: Mapping[str, Any]) -> Endpoint:
    host, port = _address(record, "record")
    weight = record.get("weight")
    if weight is not None and (not _is_int(weight) or weight < 0):
        raise BadNode("weight is no number from 0")
    named = record.get("name")
    return Endpoint(
        host=host,
        port=port,
        id=named if isinstance(named, str) else _SEQUENCE.sub("", name),
        weight=weight,
        labels=_labels(record.get("labels")),
        options=str(record.get("haproxy_server_options") or ""),
    )


def write_nerve(endpoint: Endpoint) -> tuple[str, bytes]:
    name = quote(endpoint.id or f"{endpoint.host}-{endpoint.port}", safe=".-:~")
    return f"{name}_{stable_sequence(endpoint)}", _nerve_json(endpoint)


def write_nerve_base64(endpoint: Endpoint) -> tuple[str, bytes]:
    text = base64.urlsafe_b64encode(_nerve_json(endpoint)).decode()
    return f"base64_{len(text)}_{text}_{stable_sequence(endpoint)}", b""


def _nerve_json(endpoint: Endpoint) -> bytes:
    record: dict[str, Any] = {"host": endpoint.host, "port": endpoint.port, "name": endpoint.id}
    if endpoint.weight is not None:
        record["weight"] = endpoint.weight
    if endpoint.options:
        record["haproxy_server_options"] = endpoint.options
    if endpoint.labels:
        record["labels"] = dict(sorted(endpoint.labels.items()))
    return msgspec.json.encode(record)


# --- Curator, Treadmill --------------------------------------------------------------------------------------------


def read_curator(name: str, data: bytes) -> Endpoint:
    record = _json(data)
    host, port = record.get("address"), record.get("port")
    secure = record.get("sslPort")
    if secure is not None and not _is_port(secure):
        raise BadNode("sslPort is no port")
    payload = record.get("payload")
    values = payload if isinstance(payload, dict) else {}
    return Endpoint(
        host=_host(host, "address"),
        port=_port(port if port is not None else secure, "port"),
        id=str(record.get("id") or name),
        alive=record.get("enabled") is not False,
        labels={k: v for k, v in values.items() if isinstance(v, str) and k != "@class"},
        secure_port=secure,
    )


def write_curator(endpoint: Endpoint, service: str) -> tuple[str, bytes]:
    """`registrationTimeUTC` is 0: the node's own time says when it was made."""
    identity = endpoint.id or f"{endpoint.host}-{endpoint.port}"
    record = {
        "name": service,
        "id": identity,
        "address": endpoint.host,
        "port": endpoint.port,
        "sslPort": endpoint.secure_port,
        "payload": {"@class": "java.util.LinkedHashMap", **endpoint.labels} if endpoint.labels else None,
        "registrationTimeUTC": 0,
        "serviceType": "DYNAMIC",
        "uriSpec": None,
        "enabled": endpoint.alive,
    }
    return f"{quote(service, safe='')}/{quote(identity, safe='.-:~')}", msgspec.json.encode(record)


_TREADMILL = re.compile(r"(?P<app>[^#:]+)#(?P<instance>[^:]+):(?P<proto>tcp|udp):(?P<endpoint>[^:]+)")


def read_treadmill(name: str, data: bytes) -> Endpoint:
    match = _TREADMILL.fullmatch(name)
    if match is None:
        raise BadNode("no <app>#<instance>:<proto>:<endpoint>")
    host, colon, port = data.decode("utf-8", "replace").strip().rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5:
        raise BadNode("no host:port")
    labels = {"proto": match["proto"], "endpoint": match["endpoint"]}
    return Endpoint(
        host=_host(host, "host"),
        port=_port(int(port), "port"),
        id=f"{match['app']}#{match['instance']}",
        labels=labels,
    )


def write_treadmill(endpoint: Endpoint) -> tuple[str, bytes]:
    identity = endpoint.id if "#" in endpoint.id else f"{endpoint.id or 'service'}#{stable_sequence(endpoint)}"
    app, _, instance = identity.partition("#")
    app, instance = (quote(part, safe=".-~") for part in (app, instance))
    proto, name = endpoint.labels.get("proto", "tcp"), endpoint.labels.get("endpoint", "http")
    return f"{app}#{instance}:{proto}:{quote(name, safe='.-~')}", f"{endpoint.host}:{endpoint.port}".encode()


# --- all of them -----------------------------------------------------------------------------------------------------

READERS: Mapping[str, Callable[[str, bytes], Endpoint | None]] = {
    "serverset": read_serverset,
    "nerve": read_nerve,
    "nerve-base64": read_nerve_base64,
    "curator": read_curator,
    "treadmill": read_treadmill,
}
WRITERS: Mapping[str, Callable[[Endpoint, str], tuple[str, bytes]]] = {
    "serverset": lambda endpoint, _service: write_serverset(endpoint),
    "nerve": lambda endpoint, _service: write_nerve(endpoint),
    "nerve-base64": lambda endpoint, _service: write_nerve_base64(endpoint),
    "curator": write_curator,
    "treadmill": lambda endpoint, _service: write_treadmill(endpoint),
}
"""Endpoint and service name to a node's name (below the format's folder) and data."""


def read_node(form: str, name: str, data: bytes) -> Endpoint | None:
    """None for nodes that are no endpoints by design. Raises BadNode."""
    if len(data) > NODE_LIMIT_BYTES or len(name) > NODE_LIMIT_BYTES:
        raise BadNode(f"over {NODE_LIMIT_BYTES} bytes")
    if form == "nerve" and name.startswith("base64_"):
        form = "nerve-base64"
    return READERS[form](name, data)


def read_folder(form: str, nodes: Iterable[tuple[str, bytes]]) -> Reading:
    endpoints: dict[str, Endpoint] = {}
    skipped: dict[str, str] = {}
    for name, data in nodes:
        try:
            endpoint = read_node(form, name, data)
        except BadNode as error:
            skipped[name] = str(error)
        else:
            if endpoint is not None:
                endpoints[name] = endpoint
    return Reading(endpoints=endpoints, skipped=skipped)


def endpoint_of(service: Service, address: str) -> Endpoint:
    """What is announced, for people who read another format."""
    return Endpoint(
        host=address,
        port=service.port,
        id=service.id or f"{address}-{service.port}",
        ports={name: Address(host=address, port=number) for name, number in service.additional_ports.items()},
        shard=service.shard,
        weight=round(service.weight),
        labels=service.all_labels,
    )


def services_of(bridge: Bridge, reading: Reading) -> dict[str, Service]:
    """What a bridge announces, by task id: living endpoints, no leader nodes (each leader is a member as well)."""
    out: dict[str, Service] = {}
    for name, endpoint in reading.endpoints.items():
        if endpoint.alive and not endpoint.leader:
            service = Service(
                name=bridge.name,
                framework=bridge.framework,
                host=endpoint.host,
                port=endpoint.port,
                id=name,
                additional_ports={k: a.port for k, a in endpoint.ports.items() if a.port != endpoint.port},
                labels={**endpoint.labels, **bridge.labels},
                vhost=bridge.vhost,
                weight=float(min(endpoint.weight, 256)) if endpoint.weight else 1.0,
                shard=endpoint.shard,
                checks=(),
                drain_s=bridge.drain_s,
            )
            out[service.task] = service
    return out


def node_of_service(service: Service, address: str, also: Also) -> ForeignNode:
    name, data = WRITERS[also.format](replace(endpoint_of(service, address), leader=also.leader), service.name)
    return ForeignNode(path=f"{also.path.rstrip('/')}/{name}", data=data)


def stable_sequence(endpoint: Endpoint) -> str:
    """Ten digits as ZooKeeper's sequences have, but the same for the same endpoint: it is made again in its place."""
    text = f"{endpoint.id} {endpoint.host} {endpoint.port}".encode()
    return f"{int.from_bytes(hashlib.sha256(text).digest()[:4]) % 2**31:010d}"


# --- parts -----------------------------------------------------------------------------------------------------------


def _json(data: bytes) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadNode("no JSON") from error
    if not isinstance(value, dict):
        raise BadNode("no JSON object")
    return value


def _address(value: object, what: str) -> tuple[str, int]:
    if not isinstance(value, Mapping):
        raise BadNode(f"{what} is no object")
    return _host(value.get("host"), f"{what}: host"), _port(value.get("port"), f"{what}: port")


def _host(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable() or " " in value:
        raise BadNode(f"{what} is no host")
    return value


def _port(value: object, what: str) -> int:
    if not _is_port(value):
        raise BadNode(f"{what} is no port")
    assert isinstance(value, int)
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_port(value: object) -> bool:
    return _is_int(value) and 0 < int(value) < 65536  # type: ignore[call-overload]  # an int by now


def _labels(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadNode("labels is no object")
    return {str(k): str(v) for k, v in value.items()}

"""What a person declares in `topology.toml`: the tables, their keys, and every mistake in them at once.

Names are the broker's own; `on`, `from` and `to` name brokers of this file. An empty `on` means every broker.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from fairlead_daemon.errors import BadSettings

DEFAULT_VHOST = "/"
LONGEST_NAME = 255
Arguments = Mapping[str, Any]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table."""


class Broker(_Table, frozen=True, kw_only=True):
    """One RabbitMQ cluster: where it is, by addresses or as a service of the registry, and whose word it takes."""

    management: str = ""
    """Base URL of the management API, `http://rabbit-1:15672`."""
    amqp: tuple[str, ...] = ()
    """Where clients and other brokers reach it, `amqp://rabbit-1:5672`; several are nodes of this one cluster."""
    service: str = ""
    """Instead of both: a service key (`marathon:/shop/broker`), an app id, or a DNS name of it."""
    management_port: str = "management"
    """With `service`: name or index of the port that serves the management API."""
    amqp_port: str = "amqp"
    """With `service`: name or index of the AMQP port."""
    credentials_file: str = ""
    """File with `user:password`, relative to this one."""
    credentials_env: str = ""
    """Environment variable with `user:password`. Neither: guest:guest, which RabbitMQ takes on loopback only."""
    cluster_name: str = ""
    """Given to the broker; federation tells brokers apart by it, so that two may never share one. Empty: left alone."""


class Placed(_Table, frozen=True, kw_only=True):
    """What stands in one virtual host of some brokers."""

    vhost: str = DEFAULT_VHOST
    on: tuple[str, ...] = ()


class Vhost(_Table, frozen=True, kw_only=True):
    name: str
    on: tuple[str, ...] = ()


class Exchange(Placed, frozen=True, kw_only=True):
    name: str
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = {}


class Queue(Placed, frozen=True, kw_only=True):
    name: str
    type: Literal["classic", "quorum", "stream"] = "classic"
    durable: bool = True
    auto_delete: bool = False
    arguments: Arguments = {}


class Binding(Placed, frozen=True, kw_only=True, rename={"source": "from", "queue": "to", "exchange": "to_exchange"}):
    source: str
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    arguments: Arguments = {}


class Policy(Placed, frozen=True, kw_only=True):
    name: str
    pattern: str
    apply_to: Literal["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"] = "all"
    priority: int = 0
    definition: Arguments


class Federated(_Table, frozen=True, kw_only=True, rename={"sources": "from", "targets": "to"}):
    """An exchange or queue whose messages come from brokers `from` to brokers `to`. It is declared on all of them."""

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    vhost: str = DEFAULT_VHOST
    ack_mode: Literal["on-confirm", "on-publish", "no-ack"] = "on-confirm"
    """`on-confirm` loses nothing; the others are for messages that may be lost."""
    prefetch_count: int = 1000
    """Unacknowledged messages on a link: 1000 carried 12,000/s on one machine, 10 carried 5,000."""
    reconnect_delay_s: float = 5
    """How long a link that lost its broker waits before it tries again."""
    trust_user_id: bool = False


class FederatedExchange(Federated, frozen=True, kw_only=True):
    max_hops: int = 1
    """How many links a message may pass. Full meshes need 1, chains their length."""
    expires_s: float = 0
    """After so long without its link the upstream drops what it buffers for it. 0: never."""
    message_ttl_s: float = 0
    """How long the upstream buffers a message for a link that is down. 0: for ever."""


class FederatedQueue(Federated, frozen=True, kw_only=True):
    pass


class Topology(_Table, frozen=True, kw_only=True):
    """The whole file. `name` marks what is made as this topology's: two of them on one broker leave each other alone."""

    name: str = "default"
    brokers: Mapping[str, Broker] = {}
    vhosts: tuple[Vhost, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    policies: tuple[Policy, ...] = ()
    federated_exchanges: tuple[FederatedExchange, ...] = ()
    federated_queues: tuple[FederatedQueue, ...] = ()


TABLES: Mapping[str, type[_Table]] = {
    "vhosts": Vhost,
    "exchanges": Exchange,
    "queues": Queue,
    "bindings": Binding,
    "policies": Policy,
    "federated_exchanges": FederatedExchange,
    "federated_queues": FederatedQueue,
}
_BROKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
T = TypeVar("T")


def read(values: Mapping[str, Any], *, where: str) -> Topology:
    """Raises BadSettings with every mistake: `topology.toml: queues[0].durable: Expected bool, got str; …`."""
    mistakes: list[str] = []
    tables: dict[str, Any] = {}
    for key, value in values.items():
        if key == "name":
            tables[key] = _converted(value, str, key, mistakes)
        elif key == "brokers":
            tables[key] = _brokers(value, mistakes)
        elif key in TABLES:
            tables[key] = _entries(value, TABLES[key], key, mistakes)
        else:
            mistakes.append(f"{key}: unknown key")
    if not mistakes:
        topology = Topology(**tables)
        mistakes = list(_mistakes(topology))
        if not mistakes:
            return topology
    raise BadSettings(f"{where}: " + "; ".join(mistakes))


def _brokers(value: object, mistakes: list[str]) -> dict[str, Broker]:
    if not isinstance(value, dict):
        mistakes.append("brokers: expected tables, as in [brokers.east]")
        return {}
    found = {name: _converted(one, Broker, f"brokers.{name}", mistakes) for name, one in value.items()}
    return {name: one for name, one in found.items() if one is not None}


def _entries(value: object, kind: type[T], key: str, mistakes: list[str]) -> tuple[T, ...]:
    if not isinstance(value, list):
        mistakes.append(f"{key}: expected a list of tables, as in [[{key}]]")
        return ()
    found = [_converted(one, kind, f"{key}[{number}]", mistakes) for number, one in enumerate(value)]
    return tuple(one for one in found if one is not None)


def _converted(value: object, kind: type[T], place: str, mistakes: list[str]) -> T | None:
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        mistakes.append(_worded(str(error), place))
        return None


def _worded(message: str, place: str) -> str:
    """Msgspec's words with the place first."""
    text, sign, at = message.rpartition(" - at `$")
    if sign:
        return f"{place}{at.rstrip('`')}: {text}"
    if unknown := re.search(r"unknown field `(.+)`", message):
        return f"{place}.{unknown[1]}: unknown key"
    if absent := re.search(r"missing required field `(.+)`", message):
        return f"{place}.{absent[1]}: is missing"
    return f"{place}: {message}"


# --- what the tables say together


def _mistakes(topology: Topology) -> Iterator[str]:
    if not _BROKER_NAME.fullmatch(topology.name):
        yield f"name: {topology.name!r}: letters, digits, _ . - only"
    if not topology.brokers:
        yield "brokers: none; name at least one as in [brokers.east]"
    for name, broker in topology.brokers.items():
        yield from (f"brokers.{name}{text}" for text in _of_broker(name, broker))
    yield from _shared_cluster_names(topology.brokers)
    for table in TABLES:
        for number, entry in enumerate(getattr(topology, table)):
            yield from (f"{table}[{number}]{text}" for text in _of_entry(topology, entry))
    yield from _doubles(topology)


def _of_broker(name: str, broker: Broker) -> Iterator[str]:
    if not _BROKER_NAME.fullmatch(name):
        yield ": a broker's name has letters, digits, _ . - only"
    if broker.service and (broker.management or broker.amqp):
        yield ".service: stands instead of management and amqp, not beside them"
    if not broker.service and not broker.management:
        yield ".management: is missing (or service, to find the broker in the registry)"
    if not broker.service and not broker.amqp:
        yield ".amqp: is missing (or service, to find the broker in the registry)"
    if broker.management and not re.fullmatch(r"https?://[^/@\s]+/?", broker.management):
        yield f".management: {broker.management}: expected http://host:port without path and credentials"
    for url in broker.amqp:
        if not re.fullmatch(r"amqps?://[^/@\s]+/?", url):
            yield f".amqp: {url}: expected amqp://host:port without credentials and virtual host"
    if broker.credentials_file and broker.credentials_env:
        yield ".credentials_env: stands instead of credentials_file, not beside it"


def _shared_cluster_names(brokers: Mapping[str, Broker]) -> Iterator[str]:
    owners: dict[str, str] = {}
    for name, broker in brokers.items():
        first = owners.setdefault(broker.cluster_name, name) if broker.cluster_name else name
        if first != name:
            yield f"brokers.{name}.cluster_name: {broker.cluster_name} is {first}'s; federation needs one each"


def _of_entry(topology: Topology, entry: Any) -> Iterator[str]:
    for key in ("on", "from", "to"):
        for broker in _brokers_of(entry, key):
            if broker not in topology.brokers:
                yield f".{key}: no such broker: {broker}"
    if isinstance(entry, Federated):
        yield from _of_federated(topology, entry)
    for kind, check in CHECKS:
        if isinstance(entry, kind):
            yield from check(entry)


def _brokers_of(entry: Any, key: str) -> Sequence[str]:
    found: Sequence[str] = ()
    if isinstance(entry, Federated):
        found = {"from": entry.sources, "to": entry.targets}.get(key, ())
    elif key == "on":
        found = entry.on
    return found


def _name_faults(name: str, *, what: str = "name") -> Iterator[str]:
    if not name:
        yield f".{what}: is empty"
    elif len(name.encode()) > LONGEST_NAME:
        yield f".{what}: {name[:40]}...: over {LONGEST_NAME} bytes"
    elif any(ord(c) < 0x20 or ord(c) == 0x7F for c in name):
        yield f".{what}: {name!r}: holds control characters"


def _of_exchange(exchange: Exchange) -> Iterator[str]:
    yield from _name_faults(exchange.name)
    if exchange.name.startswith("amq."):
        yield f".name: {exchange.name}: names with amq. are the broker's own"


def _of_queue(queue: Queue) -> Iterator[str]:
    yield from _name_faults(queue.name)
    if queue.name.startswith("amq."):
        yield f".name: {queue.name}: names with amq. are the broker's own"
    if queue.type != "classic" and not queue.durable:
        yield f".durable: a {queue.type} queue is always durable"
    if "x-queue-type" in queue.arguments:
        yield ".arguments.x-queue-type: say type = instead"


def _of_binding(binding: Binding) -> Iterator[str]:
    yield from _name_faults(binding.source, what="from")
    if bool(binding.queue) == bool(binding.exchange):
        yield ".to: exactly one of to (a queue) and to_exchange is needed"


def _of_policy(policy: Policy) -> Iterator[str]:
    yield from _name_faults(policy.name)
    try:
        re.compile(policy.pattern)
    except re.error as error:
        yield f".pattern: {policy.pattern!r}: {error}"
    if not policy.definition:
        yield ".definition: is empty"
    yield from (
        f".definition.{key}: federation is declared by [[federated_exchanges]] and [[federated_queues]]"
        for key in policy.definition
        if key.startswith("federation-upstream")
    )


def _of_vhost(vhost: Vhost) -> Iterator[str]:
    yield from _name_faults(vhost.name)


def _of_federated(topology: Topology, entry: Federated) -> Iterator[str]:
    yield from _name_faults(entry.name)
    if set(entry.sources) | set(entry.targets) <= set(entry.sources) & set(entry.targets) and len(entry.targets) < 2:
        yield ".from: a broker is not its own upstream; name another in from or to"
    elif not entry.sources or not entry.targets:
        yield f".{'from' if not entry.sources else 'to'}: is empty"
    yield from (
        f".{key}: {value}: must not be negative"
        for key, value in msgspec.structs.asdict(entry).items()
        if isinstance(value, int | float) and value < 0
    )
    declared: Sequence[Exchange | Queue] = topology.queues
    table = "queues"
    if isinstance(entry, FederatedExchange):
        declared, table = topology.exchanges, "exchanges"
        if entry.max_hops < 1:
            yield ".max_hops: at least 1"
    for broker in dict.fromkeys((*entry.sources, *entry.targets)):
        if broker in topology.brokers and not _stands(declared, entry, broker):
            yield f".name: {entry.name} is not declared in [[{table}]] for {broker}, virtual host {entry.vhost}"


def _stands(declared: Iterable[Exchange | Queue], entry: Federated, broker: str) -> bool:
    return any(d.name == entry.name and d.vhost == entry.vhost and (not d.on or broker in d.on) for d in declared)


def _doubles(topology: Topology) -> Iterator[str]:
    """The same name twice on one broker; the same upstream twice for one object."""
    for table in ("vhosts", "exchanges", "queues", "policies"):
        seen: dict[tuple[str, str, str], int] = {}
        for number, entry in enumerate(getattr(topology, table)):
            for broker in entry.on or topology.brokers:
                first = seen.setdefault((broker, getattr(entry, "vhost", ""), entry.name), number)
                if first != number:
                    yield f"{table}[{number}].name: {entry.name} stands on {broker} by {table}[{first}] already"
    for table in ("federated_exchanges", "federated_queues"):
        links: dict[tuple[str, ...], int] = {}
        for number, entry in enumerate(getattr(topology, table)):
            for source, target in pairs(entry):
                first = links.setdefault((entry.vhost, entry.name, source, target), number)
                if first != number:
                    yield f"{table}[{number}]: {source} to {target} is federated by {table}[{first}] already"


def pairs(entry: Federated) -> Iterator[tuple[str, str]]:
    """Upstream and downstream broker of every link; a broker is never its own upstream."""
    return ((s, t) for t in dict.fromkeys(entry.targets) for s in dict.fromkeys(entry.sources) if s != t)


CHECKS: Sequence[tuple[type[_Table], Callable[[Any], Iterator[str]]]] = (
    (Vhost, _of_vhost),
    (Exchange, _of_exchange),
    (Queue, _of_queue),
    (Binding, _of_binding),
    (Policy, _of_policy),
)

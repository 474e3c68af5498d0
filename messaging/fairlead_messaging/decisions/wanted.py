"""From the declaration to what shall stand on each broker. Policies are left for the plan, which knows the broker's own."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fairlead_messaging.decisions.declared import (
    Binding,
    Exchange,
    Federated,
    FederatedExchange,
    Policy,
    Queue,
    Topology,
    Vhost,
    pairs,
)
from fairlead_messaging.decisions.things import Key, Kind, Thing, Things, binding, queue_body


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a broker is and as whom it is asked. Empty `amqp`: it is not found anywhere at the moment."""

    management: str = ""
    amqp: tuple[str, ...] = ()
    user: str = "guest"
    password: str = "guest"  # noqa: S105  # RabbitMQ's own default, taken on loopback only
    why: str = ""
    """Why it is not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """One object that draws messages from the upstreams of a set."""

    kind: Kind
    """EXCHANGE or QUEUE."""
    vhost: str
    name: str
    upstream_set: str
    policy: str
    """Name of the one policy made for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What shall stand on one broker. `kept` names upstreams whose broker is not found now: they stay as they are."""

    broker: str
    topology: str
    things: Things = field(default_factory=dict)
    federations: tuple[Federation, ...] = ()
    kept: frozenset[Key] = frozenset()


def topology(settings: Topology, places: Mapping[str, Place]) -> dict[str, Wanted]:
    """By broker. `places` has every broker of the settings."""
    return {broker: _for_broker(settings, places, broker) for broker in settings.brokers}


def _for_broker(settings: Topology, places: Mapping[str, Place], broker: str) -> Wanted:
    plain = [thing for entry, make in _entries(settings) if _stands_on(entry, broker) for thing in [make(entry)]]
    if name := settings.brokers[broker].cluster_name:
        plain.append(Thing(kind=Kind.CLUSTER_NAME, vhost="", name="cluster", body={"name": name}))
    federated = [entry for entry in _federated(settings) if broker in entry.targets]
    upstreams, kept = _upstreams(settings.name, federated, places, broker)
    sets = _sets(settings.name, federated, broker)
    return Wanted(
        broker=broker,
        topology=settings.name,
        things={thing.key: thing for thing in (*plain, *upstreams, *sets.values())},
        federations=tuple(_federation(settings.name, kind, vhost, name) for kind, vhost, name in sets),
        kept=kept,
    )


def _entries(settings: Topology) -> Iterator[tuple[Any, Any]]:
    for entries, make in (
        (settings.vhosts, _vhost),
        (settings.exchanges, _exchange),
        (settings.queues, _queue),
        (settings.bindings, _binding),
        (settings.policies, _policy),
    ):
        yield from ((entry, make) for entry in entries)


def _stands_on(entry: Any, broker: str) -> bool:
    return not entry.on or broker in entry.on


def _vhost(entry: Vhost) -> Thing:
    return Thing(kind=Kind.VHOST, vhost="", name=entry.name)


def _exchange(entry: Exchange) -> Thing:
    body = {
        "type": entry.type,
        "durable": entry.durable,
        "auto_delete": entry.auto_delete,
        "internal": entry.internal,
        "arguments": dict(entry.arguments),
    }
    return Thing(kind=Kind.EXCHANGE, vhost=entry.vhost, name=entry.name, body=body)


def _queue(entry: Queue) -> Thing:
    body = queue_body(entry.type, durable=entry.durable, auto_delete=entry.auto_delete, arguments=dict(entry.arguments))
    return Thing(kind=Kind.QUEUE, vhost=entry.vhost, name=entry.name, body=body)


def _binding(entry: Binding) -> Thing:
    kind, target = ("queue", entry.queue) if entry.queue else ("exchange", entry.exchange)
    return binding(entry.vhost, entry.source, kind, target, (entry.routing_key, entry.arguments))


def _policy(entry: Policy) -> Thing:
    return Thing(
        kind=Kind.POLICY,
        vhost=entry.vhost,
        name=entry.name,
        body={
            "pattern": entry.pattern,
            "apply-to": entry.apply_to,
            "priority": entry.priority,
            "definition": dict(entry.definition),
        },
    )


# --- federation


def _federated(settings: Topology) -> Iterable[Federated]:
    return (*settings.federated_exchanges, *settings.federated_queues)


def prefix(topology_name: str) -> str:
    """Begins the name of everything that stands for federation: `fairlead.default.`."""
    return f"fairlead.{topology_name}."


def upstream_name(topology_name: str, source: str) -> str:
    return f"{prefix(topology_name)}{source}"


def _federation(topology_name: str, kind: Kind, vhost: str, name: str) -> Federation:
    made = f"{prefix(topology_name)}{kind}.{name}"
    return Federation(kind=kind, vhost=vhost, name=name, upstream_set=made, policy=made)


def _kind(entry: Federated) -> Kind:
    return Kind.EXCHANGE if isinstance(entry, FederatedExchange) else Kind.QUEUE


def _upstreams(
    topology_name: str, entries: Iterable[Federated], places: Mapping[str, Place], broker: str
) -> tuple[list[Thing], frozenset[Key]]:
    """One upstream a source broker and virtual host; what differs from object to object stands in the sets."""
    made: list[Thing] = []
    kept: set[Key] = set()
    wanted = {(entry.vhost, source) for entry in entries for source, target in pairs(entry) if target == broker}
    for vhost, source in sorted(wanted):
        found = uris(places[source], vhost)
        name = upstream_name(topology_name, source)
        thing = Thing(kind=Kind.UPSTREAM, vhost=vhost, name=name, body={"uri": list(found)})
        if found:
            made.append(thing)
        else:
            kept.add(thing.key)
    return made, frozenset(kept)


def uris(place: Place, vhost: str) -> tuple[str, ...]:
    """`amqp://user:password@host:5672/%2F` for each address."""
    out = []
    for url in place.amqp:
        scheme, _, rest = url.rstrip("/").partition("://")
        login = f"{quote(place.user, safe='')}:{quote(place.password, safe='')}"
        out.append(f"{scheme}://{login}@{rest}/{quote(vhost, safe='')}")
    return tuple(out)


def _sets(topology_name: str, entries: Iterable[Federated], broker: str) -> dict[tuple[Kind, str, str], Thing]:
    """One set an object, by its kind, virtual host and name."""
    members: dict[tuple[Kind, str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        for source, target in pairs(entry):
            if target == broker:
                object_key = (_kind(entry), entry.vhost, entry.name)
                member = {"upstream": upstream_name(topology_name, source), **_options(entry)}
                members.setdefault(object_key, []).append(member)
    return {
        (kind, vhost, name): Thing(
            kind=Kind.UPSTREAM_SET,
            vhost=vhost,
            name=_federation(topology_name, kind, vhost, name).upstream_set,
            body=sorted(found, key=lambda member: str(member["upstream"])),
        )
        for (kind, vhost, name), found in sorted(members.items())
    }


def _options(entry: Federated) -> dict[str, Any]:
    options: dict[str, Any] = {
        "ack-mode": entry.ack_mode,
        "prefetch-count": entry.prefetch_count,
        "reconnect-delay": entry.reconnect_delay_s,
        "trust-user-id": entry.trust_user_id,
    }
    if isinstance(entry, FederatedExchange):
        options["max-hops"] = entry.max_hops
        options |= {"expires": round(entry.expires_s * 1000)} if entry.expires_s else {}
        options |= {"message-ttl": round(entry.message_ttl_s * 1000)} if entry.message_ttl_s else {}
    return options

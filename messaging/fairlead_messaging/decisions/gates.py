"""What a RabbitMQ of some version does not know, or no longer heeds. A person gets the reason before the broker's 400."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fairlead_messaging.decisions.things import Kind, Thing

Version = tuple[int, ...]
FIRST: Version = (0,)
NEVER: Version = (1_000_000,)


def parse_version(text: str) -> Version:
    """`3.10.8`, `4.0.0-beta.1` -> (3, 10, 8), (4, 0, 0); (0,) for what is no version."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Between `since` and `before` the broker knows it; outside, `why` is said of what `holds`."""

    holds: Callable[[Thing], bool]
    why: str
    since: Version = FIRST
    before: Version = NEVER
    refuses: bool = True
    """Else the broker takes it, and a note says what comes of it."""


def _policy_key(*names: str) -> Callable[[Thing], bool]:
    return lambda thing: thing.kind is Kind.POLICY and any(name in thing.body["definition"] for name in names)


def _queue_argument(name: str) -> Callable[[Thing], bool]:
    return lambda thing: thing.kind is Kind.QUEUE and name in thing.body["arguments"]


def _queue_type(name: str) -> Callable[[Thing], bool]:
    return lambda thing: thing.kind is Kind.QUEUE and thing.body["arguments"].get("x-queue-type") == name


def _applies_to_types(thing: Thing) -> bool:
    return thing.kind is Kind.POLICY and thing.body["apply-to"] in {"classic_queues", "quorum_queues", "streams"}


GATES: Sequence[Gate] = (
    Gate(
        holds=_applies_to_types,
        since=(3, 12),
        why='apply_to a queue type needs RabbitMQ 3.12; "queues" works before',
    ),
    Gate(holds=_policy_key("consumer-timeout"), since=(3, 12), why="consumer-timeout in a policy needs RabbitMQ 3.12"),
    Gate(holds=_policy_key("queue-version"), since=(3, 10), why="queue-version needs RabbitMQ 3.10"),
    Gate(
        holds=_policy_key("ha-mode", "ha-params", "ha-sync-mode"),
        before=(4,),
        why="mirrored queues (ha-…) are gone since RabbitMQ 4.0; a quorum queue replicates",
    ),
    Gate(holds=_queue_type("quorum"), since=(3, 8), why="quorum queues need RabbitMQ 3.8"),
    Gate(holds=_queue_type("stream"), since=(3, 9), why="streams need RabbitMQ 3.9"),
    Gate(
        holds=_queue_argument("x-queue-mode"),
        before=(3, 12),
        refuses=False,
        why="x-queue-mode has no effect since RabbitMQ 3.12",
    ),
    Gate(
        holds=_policy_key("queue-mode"),
        before=(3, 12),
        refuses=False,
        why="queue-mode has no effect since RabbitMQ 3.12",
    ),
    Gate(
        holds=_policy_key("shards-per-node"),
        since=(3, 10, 13),
        why="the sharding plugin keeps a second node from starting before RabbitMQ 3.10.13",
    ),
)


def shut(thing: Thing, version: Version) -> Iterator[Gate]:
    """The gates that `thing` does not pass. A version nobody could read passes all."""
    if version == FIRST:
        return
    for gate in GATES:
        if gate.holds(thing) and not gate.since <= version < gate.before:
            yield gate

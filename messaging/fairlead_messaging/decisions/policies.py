"""Exactly one policy applies to an object: which one wins, and the one that joins federation to its keys."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fairlead_messaging.decisions.things import Kind, Thing
from fairlead_messaging.decisions.wanted import Federation

FEDERATION_KEYS = ("federation-upstream-set", "federation-upstream", "federation-upstream-pattern")
QUEUE_TYPES = {"classic_queues": "classic", "quorum_queues": "quorum", "streams": "stream"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An exchange or a queue, as policies see it. `queue_type` is "" for exchanges."""

    kind: Kind
    vhost: str
    name: str
    queue_type: str = ""


def target_of(thing: Thing) -> Target:
    """Of an exchange or queue."""
    arguments = thing.body.get("arguments", {})
    queue_type = arguments.get("x-queue-type", "classic") if thing.kind is Kind.QUEUE else ""
    return Target(kind=thing.kind, vhost=thing.vhost, name=thing.name, queue_type=queue_type)


def matches(policy: Thing, target: Target) -> bool:
    """RabbitMQ's rule: the pattern is searched, not matched whole. A pattern Python cannot read matches nothing."""
    if policy.vhost != target.vhost or not _applies(str(policy.body["apply-to"]), target):
        return False
    try:
        return re.search(policy.body["pattern"], target.name) is not None
    except re.error:
        return False


def _applies(apply_to: str, target: Target) -> bool:
    if apply_to == "all":
        return True
    if target.kind is Kind.EXCHANGE:
        return apply_to == "exchanges"
    return apply_to == "queues" or QUEUE_TYPES.get(apply_to) == target.queue_type


def winner(policies: Iterable[Thing], target: Target) -> Thing | None:
    """The highest priority; among equals RabbitMQ promises nothing, and the first name stands here."""
    matching = [policy for policy in policies if matches(policy, target)]
    return min(matching, key=lambda policy: (-int(policy.body["priority"]), policy.name), default=None)


def rivals(policies: Iterable[Thing], target: Target) -> tuple[str, ...]:
    """Names of policies that share the winning priority: which of them applies is chance."""
    matching = [policy for policy in policies if matches(policy, target)]
    top = max((int(policy.body["priority"]) for policy in matching), default=0)
    names = sorted(policy.name for policy in matching if int(policy.body["priority"]) == top)
    return tuple(names) if len(names) > 1 else ()


def merged(federation: Federation, best: Thing | None) -> Thing:
    """The one policy of a federated object: the keys of the policy that would win it, and its upstream set."""
    rest = best.body["definition"] if best is not None else {}
    definition = {key: value for key, value in rest.items() if key not in FEDERATION_KEYS}
    return Thing(
        kind=Kind.POLICY,
        vhost=federation.vhost,
        name=federation.policy,
        body={
            "pattern": f"^{re.escape(federation.name)}$",
            "apply-to": "exchanges" if federation.kind is Kind.EXCHANGE else "queues",
            "priority": int(best.body["priority"]) + 1 if best is not None else 0,
            "definition": {**definition, "federation-upstream-set": federation.upstream_set},
        },
    )


def federates(policy: Thing) -> str:
    """The federation key of a policy, "" when it has none."""
    return next((key for key in FEDERATION_KEYS if key in policy.body["definition"]), "")

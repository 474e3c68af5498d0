"""What is told of a ring, on the command line and over HTTP: the same values, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_daemon.errors import BadSettings
from fairlead_discovery.decisions.membership import (
    Membership,
    RingMember,
    Rings,
    balance,
    join,
    leave,
    moves,
    receivers,
    rings,
    short_slots,
    weigh,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Changes as if: members that join with their weight, that leave, that get another weight."""

    joins: Mapping[str, float]
    leaves: Sequence[str]
    weights: Mapping[str, float]


def weights(words: Sequence[str], *, what: str, default: float | None = None) -> dict[str, float]:
    """`node-4=2` -> {"node-4": 2.0}; without a weight the default, where there is one. Raises BadSettings."""
    found = {}
    for word in words:
        name, _, text = word.rpartition("=") if "=" in word else (word, "", "")
        try:
            found[name] = float(text) if text or default is None else default
        except ValueError as error:
            raise BadSettings(f"{what} {word}: {text!r} is no weight") from error
    return found


def planned(before: Membership, plan: Plan) -> Rings:
    """From the owners in use to those after the pending and the planned changes. Raises what the changes raise."""
    after = before
    for name, weight in plan.joins.items():
        after = join(after, RingMember(name=name, weight=weight))
    for name, weight in plan.weights.items():
        after = weigh(after, name, weight)
    for name in plan.leaves:
        after = leave(after, name)
    return Rings(membership=after, use=rings(before).use, next=rings(after).next)


def waiting(membership: Membership) -> list[str]:
    """Members whose readiness a pending hand-over waits for."""
    return sorted(receivers(rings(membership)) - set(membership.ready)) if membership.pending else []


def told_members(membership: Membership) -> dict[str, Any]:
    return {
        "service": membership.service,
        "version": membership.version,
        "pending": membership.pending,
        "waiting": waiting(membership),
        "slots": membership.slots,
        "points": membership.points,
        "replicas": membership.replicas,
        "bound_percent": membership.bound_percent,
        "ready": membership.ready,
        "members": membership.members,
    }


def told_owners(membership: Membership, keys: Sequence[str]) -> dict[str, Any]:
    both = rings(membership)
    answers = [
        {"key": key, "slot": both.use.slot(key), "owners": both.owners(key), "next_owners": both.next.owners(key)}
        for key in keys
    ]
    return {"service": membership.service, "version": membership.version, "keys": answers}


def told_moves(before: Membership, both: Rings) -> dict[str, Any]:
    found = [{"slot": move.slot, "to": move.receiver, "from": move.sources} for move in moves(both)]
    return {
        "service": before.service,
        "version": before.version,
        "copies": before.slots * before.replicas,
        "moves": found,
    }


def told_balance(membership: Membership) -> dict[str, Any]:
    return {
        "service": membership.service,
        "version": membership.version,
        "short_slots": short_slots(rings(membership).use),
        "members": balance(membership),
    }

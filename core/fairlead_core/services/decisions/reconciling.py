"""Wanted against running: how many to launch now, which to end now, and what it waits for.

Level-triggered: the same question is asked after every change, and a deployment is nothing but the way to the answer
"nothing to do". A task counts as ready when it is RUNNING and, if checked, healthy; what has not been confirmed by
the master since we subscribed is neither counted as ready nor ended.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`replace`: instances of other versions are to go (False after a deployment was cancelled by force)."""

    instances: int
    minimum_health_capacity: float = 1.0
    maximum_over_capacity: float = 1.0
    oldest_first: bool = False
    replace: bool = True

    @property
    def floor(self) -> int:
        """Our kills never bring the ready ones below this. 1e-9: 0.7 * 10 is 7, not 7.000000000000001."""
        return math.ceil(self.instances * self.minimum_health_capacity - 1e-9)

    @property
    def ceiling(self) -> int:
        """Never more than this while versions change; one above the floor when nothing could move otherwise."""
        most = math.floor(self.instances * (1 + self.maximum_over_capacity) + 1e-9)
        return most if most > self.floor or self.instances == 0 else self.floor + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An instance as reconciling sees it. `going`: asked to end; `draining`: its agent is being emptied."""

    id: str
    current: bool = True
    ready: bool = True
    confirmed: bool = True
    going: bool = False
    draining: bool = False
    staged_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """`reason` is a records.Reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`waits_for` is "" when all is as wanted."""

    launch: int = 0
    kills: tuple[Kill, ...] = ()
    waits_for: str = ""

    @property
    def settled(self) -> bool:
        return not self.launch and not self.kills and not self.waits_for


def reconcile(wanted: Wanted, seen: Sequence[Seen]) -> Plan:
    """`seen` holds every instance that has not ended, unless its loss has been accepted."""
    active = [one for one in seen if not one.going]
    outgoing = [one for one in active if _outgoing(one, wanted)]
    staying = [one for one in active if not _outgoing(one, wanted)]
    surplus = max(0, len(staying) - wanted.instances)
    victims = [Kill(id=one.id, reason="scale") for one in _ranked(staying, wanted)][:surplus]
    victims += [Kill(id=one.id, reason=_why(one)) for one in _ranked(outgoing, wanted)]
    kills = _allowed(victims, {one.id: one for one in active}, wanted.floor)
    missing = max(0, wanted.instances - len(staying))
    if outgoing:
        missing = max(0, min(missing, wanted.ceiling - len(seen)))
    return Plan(launch=missing, kills=kills, waits_for=_waits_for(wanted, seen, staying, outgoing))


def _outgoing(one: Seen, wanted: Wanted) -> bool:
    return one.draining or (wanted.replace and not one.current)


def _why(one: Seen) -> str:
    return "drain" if one.draining else "kill"


def _ranked(candidates: Iterable[Seen], wanted: Wanted) -> list[Seen]:
    """Whom to end first: not ready, other versions, drained agents, then by killSelection. Unconfirmed: nobody."""
    sign = 1 if wanted.oldest_first else -1
    known = [one for one in candidates if one.confirmed]
    return sorted(known, key=lambda one: (one.ready, one.current, not one.draining, sign * one.staged_s, one.id))


def _allowed(victims: Iterable[Kill], by_id: dict[str, Seen], floor: int) -> tuple[Kill, ...]:
    """The victims whose end leaves at least `floor` ready; one that is not ready costs nothing."""
    ready = sum(one.ready and one.confirmed for one in by_id.values())
    allowed: list[Kill] = []
    for kill in victims:
        counts = by_id[kill.id].ready
        if counts and ready - 1 < floor:
            continue
        ready -= counts
        allowed.append(kill)
    return tuple(allowed)


def _waits_for(wanted: Wanted, seen: Sequence[Seen], staying: Sequence[Seen], outgoing: Sequence[Seen]) -> str:
    unconfirmed = sum(not one.confirmed for one in seen)
    ready = sum(one.ready and one.confirmed for one in staying)
    going = sum(one.going for one in seen)
    new = " of the new version" if any(not one.current for one in outgoing) else ""
    missing, surplus = wanted.instances - len(staying), len(staying) - wanted.instances
    reasons = (
        (unconfirmed, f"the master's word on {number(unconfirmed)}"),
        (missing, f"{missing} of {number(wanted.instances)} to be launched"),
        (len(staying) - ready, f"{len(staying) - ready} of {number(len(staying))}{new} to be running and healthy"),
        (len(outgoing), f"{number(len(outgoing), 'old instance')} to be replaced"),
        (surplus, f"{number(surplus)} too many to be ended"),
        (going, f"{number(going)} to leave"),
    )
    return next((text for count, text in reasons if count > 0), "")


def number(count: int, what: str = "instance") -> str:
    """`1 instance`, `2 instances`."""
    return f"{count} {what}{'' if count == 1 else 's'}"

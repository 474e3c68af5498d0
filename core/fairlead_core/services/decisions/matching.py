"""Pending instances to offers: first fit, the offer with the fewest of the app's instances first, and why not.

Reasons are Marathon's, in the order of its funnel: the first that applies is the one that is told.
"""

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fairlead_core.resources import Key, Range, Resources, without
from fairlead_core.services.decisions.app import App
from fairlead_core.services.decisions.constraints import Place, allows, value_of
from fairlead_core.services.decisions.offers import Offer, port_count

Pick = Callable[[int], int]
"""Chance: a number from 0 to its argument minus one."""


class Reason(enum.StrEnum):
    ROLE = "UnfulfilledRole"
    CONSTRAINT = "UnfulfilledConstraint"
    RESERVATION = "NoCorrespondingReservationFound"
    MAINTENANCE = "AgentMaintenance"
    CPUS = "InsufficientCpus"
    MEM = "InsufficientMemory"
    DISK = "InsufficientDisk"
    GPUS = "InsufficientGpus"
    PORTS = "InsufficientPorts"
    SCARCE = "DeclinedScarceResources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """`count` instances of `app`, beside those that are at `places` already."""

    app: App
    count: int
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    app: App
    offer: Offer
    resources: Resources
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an offer was not taken for an app. `detail` is for people: `needs 4 cpus, offered 1.5`."""

    offer: Offer
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    launches: tuple[Launch, ...]
    refusals: Mapping[str, tuple[Refusal, ...]]
    """By app id: of every app that wants more than it got, the answer to each offer."""
    faults: Mapping[str, str]
    """By app id: why nothing could be decided for it. It has no launches, and took nothing from others."""


@dataclass(slots=True, eq=False)
class _Rest:
    """What is left of an offer."""

    offer: Offer
    left: Resources


def match(needs: Iterable[Need], offers: Sequence[Offer], *, now_s: float, pick: Pick) -> Matching:
    """Launches in the order they were decided; never more than a need's count, never more than an offer holds."""
    rests = [_Rest(offer, offer.resources) for offer in offers]
    launches: list[Launch] = []
    refusals: dict[str, tuple[Refusal, ...]] = {}
    faults: dict[str, str] = {}
    for need in needs:
        before = [rest.left for rest in rests]
        try:
            placed, refused = _place(need, rests, now_s=now_s, pick=pick)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one app, the others are to be placed
            faults[need.app.id] = f"it cannot be placed: {error!r}"
            for rest, left in zip(rests, before, strict=True):
                rest.left = left
            continue
        launches += placed
        if len(placed) < need.count:
            refusals[need.app.id] = refused
    return Matching(launches=tuple(launches), refusals=refusals, faults=faults)


def _place(need: Need, rests: Sequence[_Rest], *, now_s: float, pick: Pick) -> tuple[list[Launch], tuple[Refusal, ...]]:
    """Its launches, taken off the rests, and the last answer of every offer that had nothing more for it."""
    placed: list[Launch] = []
    places = list(need.places)
    hosts = Counter(place.hostname for place in places)
    refused: dict[str, Refusal] = {}
    open_rests = list(rests)
    while open_rests and len(placed) < need.count:
        rest = min(open_rests, key=lambda r: hosts[r.offer.place.hostname])
        answer = consider(need.app, rest.offer, rest.left, places, now_s=now_s, pick=pick)
        if isinstance(answer, Refusal):
            refused[rest.offer.id] = answer
            open_rests.remove(rest)
            continue
        placed.append(answer)
        rest.left -= answer.resources
        places.append(rest.offer.place)
        hosts[rest.offer.place.hostname] += 1
        if any(c[1] == "GROUP_BY" for c in need.app.constraints):  # groups have grown: who was refused may fit now
            open_rests += [r for r in rests if r not in open_rests and _by_constraint(refused.get(r.offer.id))]
    return placed, tuple(refused.values())


def _by_constraint(refusal: Refusal | None) -> bool:
    return refusal is not None and refusal.reason is Reason.CONSTRAINT


def consider(
    app: App, offer: Offer, left: Resources, places: Sequence[Place], *, now_s: float, pick: Pick
) -> Launch | Refusal:
    """One instance of `app` on what is `left` of the offer, or the first reason why not."""
    roles = app.accepted_resource_roles or (offer.role, "*")

    def no(reason: Reason, detail: str) -> Refusal:
        return Refusal(offer=offer, reason=reason, detail=detail)

    if not any(role in roles for _, role in (*left.scalars, *left.ranges)):
        return no(Reason.ROLE, f"takes only resources of role {' or '.join(sorted(set(roles)))}")
    for constraint in app.constraints:
        if not allows(constraint, offer.place, places):
            return no(Reason.CONSTRAINT, _constraint_detail(constraint, offer.place))
    if offer.leaves_s is not None and offer.leaves_s <= now_s:
        return no(Reason.MAINTENANCE, f"{offer.place.hostname} is being drained")
    taken: dict[Key, int] = {}
    for name, amount, unit, reason in (
        ("cpus", app.cpus, "cpus", Reason.CPUS),
        ("mem", app.mem, "MB of memory", Reason.MEM),
        ("disk", app.disk, "MB of disk", Reason.DISK),
    ):
        part = take_scalar(left, name, round(amount * 1000), roles)
        if part is None:
            return no(reason, f"needs {amount:g} {unit}, offered {available(left, name, roles):g}")
        taken.update(part)
    ports = take_ports(app, left, roles, pick)
    if ports is None:
        return no(Reason.PORTS, _ports_detail(app, left, roles))
    return Launch(
        app=app, offer=offer, resources=Resources(taken, _by_key(ports)), ports=tuple(number for number, _ in ports)
    )


def _constraint_detail(constraint: Sequence[str], place: Place) -> str:
    name = constraint[0]
    if value_of(place, name) is None:
        what = name.removeprefix("@") if name.startswith("@") else f"attribute {name}"
        return f"constraint {' '.join(constraint)}: {place.hostname} has no {what}"
    return f"constraint {' '.join(constraint)} does not allow {place.hostname}"


def take_scalar(left: Resources, name: str, amount: int, roles: Sequence[str]) -> dict[Key, int] | None:
    """Thousandths by key, roles in order; None when there is not enough."""
    taken: dict[Key, int] = {}
    for role in dict.fromkeys(roles):
        part = min(amount, left.scalars.get((name, role), 0))
        if part > 0:
            taken[name, role] = part
            amount -= part
    return taken if amount <= 0 else None


def available(left: Resources, name: str, roles: Sequence[str]) -> float:
    return sum(left.scalars.get((name, role), 0) for role in set(roles)) / 1000


def take_ports(app: App, left: Resources, roles: Sequence[str], pick: Pick) -> tuple[tuple[int, str], ...] | None:
    """(host port, role) of each port definition, in order; None when there are not enough."""
    free = {role: left.ranges.get(("ports", role), ()) for role in dict.fromkeys(roles)}
    wanted = [d.port if app.require_ports else 0 for d in app.port_definitions]
    taken: dict[int, tuple[int, str]] = {}
    for index in sorted(range(len(wanted)), key=lambda i: wanted[i] == 0):  # fixed ports first
        one = _take_port(free, wanted[index], pick)
        if one is None:
            return None
        free[one[1]] = without(free[one[1]], [(one[0], one[0])])
        taken[index] = one
    return tuple(taken[i] for i in range(len(wanted)))


def _take_port(free: Mapping[str, tuple[Range, ...]], number: int, pick: Pick) -> tuple[int, str] | None:
    for role, ranges in free.items():
        if number:
            if any(begin <= number <= end for begin, end in ranges):
                return number, role
        elif count := port_count(ranges):
            return _nth(ranges, pick(count)), role
    return None


def _nth(ranges: Iterable[Range], index: int) -> int:
    for begin, end in ranges:
        if index <= end - begin:
            return begin + index
        index -= end - begin + 1
    raise IndexError(index)


def _by_key(ports: Iterable[tuple[int, str]]) -> dict[Key, tuple[Range, ...]]:
    out: dict[Key, tuple[Range, ...]] = {}
    for number, role in sorted(ports):
        out["ports", role] = (*out.get(("ports", role), ()), (number, number))
    return out


def _ports_detail(app: App, left: Resources, roles: Sequence[str]) -> str:
    fixed = [str(d.port) for d in app.port_definitions if d.port]
    if app.require_ports and fixed:
        return f"needs the host ports {', '.join(fixed)}"
    offered = sum(port_count(left.ranges.get(("ports", role), ())) for role in set(roles))
    return f"needs {len(app.port_definitions)} ports, offered {offered}"

"""marathon-lb's blue and green deployment, step by step: what to do next follows from the two apps as they are.

Everything there is to remember stands in the apps' labels, so whoever comes later goes on, or goes back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import colours
from fairlead_discovery.decisions.words import BadLabel

COLOURS = ("blue", "green")
App = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    app: str
    instances: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Tasks that others stand in for by now; they are drained before they end, and not replaced."""

    app: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    app: str


Step = Scale | Retire | Remove | None
"""None: nothing is left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`new` takes over from `old` ("": nobody is there) until it has `target` instances, or `keep` of them beside the
    rest of the old ones.
    """

    new: str
    old: str = ""
    target: int = 1
    keep: int = 0


def next_step(plan: Plan, new: int, old_tasks: Sequence[str]) -> Step:
    """`new`: instances it has, all of them healthy and routed."""
    aim = plan.keep or plan.target
    if new >= aim and not plan.keep:
        return Remove(plan.old) if plan.old else None
    if gone := colours.drained(old_tasks, new, plan.target):
        return Retire(plan.old, tuple(gone))
    return Scale(plan.new, _grown(new, len(old_tasks), aim)) if new < aim else None


def _grown(new: int, old: int, aim: int) -> int:
    """By half of what there is; from as many as the old ones on to the end."""
    more = new + (new + 1) // 2
    return aim if more >= old else min(aim, max(more, new + 1))


def previous(apps: Sequence[App], group: str) -> Sequence[App]:
    """Apps of the group, the oldest first."""
    mine = [a for a in apps if _group(a) == group]
    return sorted(mine, key=lambda a: (str(_labels(a).get(colours.STARTED_AT, "")), a["id"]))


def group_of(definition: App) -> str:
    """Raises Refused."""
    labels = {colours.GROUP: str(definition["id"]).rstrip("/").rpartition("/")[2], **_labels(definition)}
    try:
        found = colours.of_labels(str(definition["id"]), labels)
    except BadLabel as error:
        raise Refused(str(error)) from error
    assert found is not None
    return found.group


def check_alone(apps: Sequence[App], group: str) -> None:
    """Raises Refused when an app that is not of the group has its name: balancers would not form it."""
    if any(a["id"] == group and _group(a) != group for a in apps):
        label = f"{colours.GROUP}={group.rpartition('/')[2]}"
        raise Refused(
            f"{group} runs as an app of its own: deploy it once with the label {label}, and it is taken over from"
        )


def _group(app: App) -> str:
    return group_of(app) if colours.GROUP in _labels(app) else ""


def _labels(app: App) -> Mapping[str, str]:
    return app.get("labels") or {}


def prepared(
    definition: App, before: App | None, *, initial: int, keep: int, started_at: str
) -> tuple[dict[str, Any], Plan]:
    """The app of the next colour, and what becomes of it and the one before."""
    labels = dict(_labels(definition))
    last = _labels(before) if before is not None else {}
    colour = COLOURS[1] if last.get(colours.COLOUR) == COLOURS[0] else COLOURS[0]
    target = int(definition.get("instances") or (before or {}).get("instances") or 1)
    keep = min(keep, target) if before is not None else 0
    begin = target if before is None else max(1, min(initial, keep or target))
    name = f"/{str(definition['id']).strip('/')}"
    labels |= {
        colours.GROUP: labels.get(colours.GROUP) or name.rpartition("/")[2],
        colours.APP_ID: name,
        colours.COLOUR: colour,
        colours.STARTED_AT: started_at,
        colours.TARGET: str(target),
        colours.NEW: str(keep),
    }
    made = {**definition, "id": f"{name}-{colour}", "instances": begin, "labels": labels}
    if before is not None:
        made = _on_the_same_ports(made, before)
    return made, Plan(new=made["id"], old=before["id"] if before is not None else "", target=target, keep=keep)


def _on_the_same_ports(made: dict[str, Any], before: App) -> dict[str, Any]:
    """Where the definition leaves the service port open, it is the one the service has."""
    ports = [p.get("port") or 0 for p in before.get("portDefinitions") or ()]
    given = made.get("portDefinitions")
    if not given:
        return made
    both = [{**p, "port": p.get("port") or (ports[i] if i < len(ports) else 0)} for i, p in enumerate(given)]
    return {**made, "portDefinitions": both}


def resumed(apps: Sequence[App], *, complete: str) -> Plan:
    """`complete`: "" as it was begun, "cur" all of the new colour, "prev" all of the old one. `apps`: oldest first.

    Raises Refused when there are not two of them.
    """
    if len(apps) != len(COLOURS):
        names = ", ".join(a["id"] for a in apps) or "none"
        raise Refused(f"there is nothing to go on with: of its group there are {names}")
    old, new = reversed(apps) if complete == "prev" else apps
    labels = _labels(apps[1])
    target = int(labels.get(colours.TARGET) or apps[1].get("instances") or 1)
    keep = 0 if complete else int(labels.get(colours.NEW) or 0)
    return Plan(new=new["id"], old=old["id"], target=target, keep=keep)

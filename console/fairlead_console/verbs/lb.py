"""`fairlead lb list|forget|template|certificate`: registrations of balancers, for which every kill waits; what they serve."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from fairlead_console.balancer import registrations, status
from fairlead_console.decisions.balancers import Registration
from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs.lb_certificate import certificate
from fairlead_console.verbs.lb_template import template
from fairlead_console.verbs.registry import in_registry
from fairlead_daemon.errors import Refused, Unavailable


@click.group(epilog="Example: fairlead lb list")
def lb() -> None:
    """List registered balancers; forget one that is gone for good. Certificates of the registry.

    `fairlead lb --config FILE` runs the balancer itself.
    """


lb.add_command(template)
lb.add_command(certificate)


@lb.command(name="list", epilog="Example: fairlead lb list")
@registry_verb
def list_(use: Use) -> None:
    """All registrations, with the revision each has applied and how long ago it said so."""
    found: Sequence[Registration] = in_registry(use, registrations)
    if use.as_json:
        show_json([
            {
                "id": r.id,
                "admin": r.admin,
                "node": r.node,
                "applied_revision": r.applied,
                "age_s": r.age_s,
                "state": r.state,
            }
            for r in found
        ])  # fmt: skip
        return
    rows = [
        (r.id, r.admin, "node" if r.node else "edge", "-" if r.applied is None else r.applied, _age(r), r.state)
        for r in found
    ]
    show_table(("balancer", "admin", "kind", "applied", "said", "state"), rows, empty="no balancer is registered")


@lb.command(epilog="Example: fairlead lb forget web-1-9090")
@click.argument("balancer")
@click.option("--yes", is_flag=True, help="Do not ask.")
@registry_verb
def forget(use: Use, balancer: str, *, yes: bool) -> None:
    """Remove the registration of BALANCER: kills wait for it no more. One that still runs registers again."""
    found: Sequence[Registration] = in_registry(use, registrations)
    one = next((r for r in found if r.id == balancer), None)
    if one is None:
        raise Refused(f"no such balancer: {balancer}; registered are {', '.join(r.id for r in found) or 'none'}")
    if not yes:
        running = "; it runs, and will register again" if one.state == "ok" else ""
        click.confirm(f"forget balancer {balancer}, heard of {_age(one)}{running}?", abort=True, err=True)
    in_registry(use, lambda registry: _remove(registry, balancer))
    if use.as_json:
        show_json({"forgotten": balancer})
    else:
        say(f"{balancer}: forgotten; kills wait for it no more")


async def _remove(registry: object, name: str) -> None:
    """The registration first: from then on its progress counts for nobody."""
    from fairlead_discovery import paths  # noqa: PLC0415  # `--help` is fast without it

    for folder in (paths.BALANCERS, paths.PROGRESS):
        await registry.remove(paths.below(folder, name))  # type: ignore[attr-defined]  # a Registry


def _age(one: Registration) -> str:
    return "never" if one.age_s is None else f"{one.age_s:.0f} s ago"


def status_of(use: Use, name: str) -> Mapping[str, Any]:
    """Of the balancer `name`, else of the first that answers: edges, nodes, where `fairlead up` has one. Raises Unavailable,
    Refused when nobody has that name.
    """
    there = _registered(use)
    asked = [one for one in there if name in ("", one.id)]
    if name and not asked:
        raise Refused(f"no balancer {name} is registered, but {', '.join(one.id for one in there) or 'none'}")
    places = [one.admin for one in sorted(asked, key=lambda one: one.node)]
    if not name and use.addresses.lb not in places:
        places.append(use.addresses.lb)
    for place in filter(None, places):
        if found := use.at_balancer(place).run(lambda calls: status(calls, "?fresh=1")):
            return found
    raise Unavailable(f"no balancer answers at {' or '.join(places) or '(no address known)'}")


def _registered(use: Use) -> Sequence[Registration]:
    """None while the registry is away: balancers answer without it."""
    if not use.addresses.registry:
        return ()
    try:
        return tuple(in_registry(use, registrations))
    except Unavailable:
        return ()

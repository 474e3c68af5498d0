"""`fairlead broker`: exchanges, queues, policies and federation of RabbitMQ brokers, from one file."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, verb
from fairlead_daemon.errors import FairleadError, Refused, Unavailable

READ_S = 5.0


@click.group(epilog="Example: fairlead broker plan topology.toml")
def broker() -> None:
    """Declare what stands on RabbitMQ brokers, and see their federation links."""


@broker.command(epilog="Example: fairlead broker plan topology.toml --prune")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--prune", is_flag=True, help="Also delete what this topology made and no longer declares.")
@verb
def plan(use: Use, file: Path, *, prune: bool) -> None:
    """Show what `apply` would do, and do nothing. Exit code 1 when it would be refused, 3 when a broker is away."""
    from fairlead_messaging import surveying  # noqa: PLC0415  # `--help` is fast without it

    views = _survey(use, file)
    plans = surveying.plans(views, prune=prune)
    _show_plans(use, views, plans)
    _raise_unanswered(views)
    surveying.refuse(plans, force=True)


@broker.command(epilog="Example: fairlead broker apply topology.toml --prune")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--prune", is_flag=True, help="Also delete what this topology made and no longer declares.")
@click.option("--force", is_flag=True, help="Do it although it loses messages, or changes what others made.")
@verb
def apply(use: Use, file: Path, *, prune: bool, force: bool) -> None:
    """Make the brokers what FILE declares. Does nothing where they are that already."""
    from fairlead_messaging import surveying  # noqa: PLC0415  # `--help` is fast without it

    views = _survey(use, file)
    plans = surveying.plans(views, prune=prune)
    _show_plans(use, views, plans)
    _raise_unanswered(views)
    surveying.refuse(plans, force=force)
    done = asyncio.run(surveying.apart(lambda session: surveying.carry_out(session, views, plans, force=force)))
    if not use.as_json and done:
        say(f"done: {done} steps")


@broker.command(
    epilog="Example: fairlead broker links topology.toml; or, asking `fairlead messaging`: fairlead broker links"
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@verb
def links(use: Use, file: Path | None) -> None:
    """Federation links: those that must be there, those the brokers list, and why one does not run.

    Without FILE, as the messaging daemon sees them. Exit code 1 when one does not run.
    """
    remarks: list[str] = []
    if file is None:
        told = use.run(lambda calls: calls.url("GET", f"{use.addresses.messaging}/status"))
        rows, remarks = told["links"], list(_remarks(told))
    else:
        from fairlead_messaging import surveying  # noqa: PLC0415  # `--help` is fast without it

        rows = [judged.as_json() for judged in surveying.links(_survey(use, file))]
    if use.as_json:
        show_json(rows)
    else:
        columns = ("state", "broker", "vhost", "kind", "name", "upstream", "why")
        show_table(columns, [[row[c] or "-" for c in columns] for row in rows], empty="no links are expected or listed")
        for remark in remarks:
            say(remark)
    if bad := [row for row in rows if row["state"] not in {"running", "starting"}]:
        raise Refused(f"{len(bad)} of {len(rows)} links do not run as expected")


@broker.command(epilog="Example: fairlead broker keep topology.toml")
@click.argument("file", type=click.Path(path_type=Path))
@verb
def keep(use: Use, file: Path) -> None:
    """Hand FILE to `fairlead messaging` through the registry: it keeps the brokers so from now on."""
    from fairlead_messaging import keeping  # noqa: PLC0415  # `--help` is fast without it

    name, text = keeping.readable_elsewhere(file)
    use.run(lambda _: keeping.hand_over(use.addresses.registry, name, text))
    show_json({"topology": name}) if use.as_json else say(f"topology {name} is kept; see fairlead broker links")


@broker.command(epilog="Example: fairlead broker forget default")
@click.argument("name")
@verb
def forget(use: Use, name: str) -> None:
    """Take topology NAME out of the registry: what it made stays, and nobody looks after it any more."""
    from fairlead_messaging import keeping  # noqa: PLC0415  # `--help` is fast without it

    use.run(lambda _: keeping.take_back(use.addresses.registry, name))
    show_json({"topology": name}) if use.as_json else say(f"topology {name} is no longer kept")


def _remarks(told: Mapping[str, Any]) -> Iterator[str]:
    """What the daemon waits for a person with, beside links."""
    yield from (f"topology {name} is not taken: {why}" for name, why in told["bad"].items())
    for topology in told["topologies"]:
        found = [topology["failed"]]
        for one in topology["brokers"]:
            found += [one["why"], *(f"{one['broker']}: {obstacle}" for obstacle in one["obstacles"])]
        yield from (f"topology {topology['name']}: {text}" for text in dict.fromkeys(found) if text)


def _survey(use: Use, file: Path) -> Any:
    from fairlead_messaging import keeping, surveying  # noqa: PLC0415  # see above
    from fairlead_messaging.adapters import topology_file  # noqa: PLC0415  # see above

    settings = topology_file.load(file)
    logins = topology_file.logins(settings, file.parent)

    async def look(session: Any) -> Any:
        places = await keeping.places(settings, logins, use.addresses.registry)
        return await surveying.survey(session, settings, places)

    return asyncio.run(surveying.apart(look))


def _raise_unanswered(views: Sequence[Any]) -> None:
    errors: list[FairleadError] = [view.error for view in views if view.error is not None]
    if errors:
        kind = Unavailable if all(isinstance(e, Unavailable) for e in errors) else Refused
        raise kind("; ".join(map(str, errors)))


def _show_plans(use: Use, views: Sequence[Any], plans: Sequence[Any]) -> None:
    if use.as_json:
        show_json({
            "brokers": [{"broker": p.broker, **_plan_json(p)} for p in plans],
            "unanswered": {view.broker: view.why for view in views if view.error is not None},
        })  # fmt: skip
        return
    rows = [(p.broker, step.action, str(step.thing), step.why or "-") for p in plans for step in p.steps]
    if rows or all(view.error is None for view in views):
        show_table(("broker", "action", "what", "why"), rows, empty="nothing to do")
    for p in plans:
        for obstacle in p.obstacles:
            say(f"{p.broker}: {'needs --force' if obstacle.forcible else 'impossible'}: {obstacle}")
        for note in p.notes:
            say(f"{p.broker}: note: {note}")


def _plan_json(plan: Any) -> dict[str, Any]:
    from fairlead_messaging.decisions.things import hidden, shown_name  # noqa: PLC0415  # loaded by now

    return {
        "steps": [
            {
                "action": step.action,
                "kind": str(step.thing.kind),
                "vhost": step.thing.vhost,
                "name": shown_name(step.thing),
                "body": hidden(step.thing.body),
                "why": step.why,
            }
            for step in plan.steps
        ],
        "obstacles": [{"why": str(o), "forcible": o.forcible} for o in plan.obstacles],
        "notes": list(plan.notes),
    }

"""`fairlead ring`: who owns a key, who is in a ring, and what a join or leave moves. Straight from the registry."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import click

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs.registry import with_registry
from fairlead_daemon.errors import Refused


@click.group(epilog="Example: fairlead ring owners orders user:42")
def ring() -> None:
    """Owners of keys in services that hold data; members that join and leave.

    A ring is made by `ring create`. A name without one is a service of the registry: its published endpoints.
    """


def _on_registry(use: Use, body: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(with_registry(use.registry, body))


def _change(use: Use, service: str, change: Callable[[Any], Any], told: Callable[[Any], str]) -> None:
    async def run(opened: Any) -> Any:
        from fairlead_discovery.rings import change_ring  # noqa: PLC0415  # `--help` is fast without it

        return await change_ring(opened, service, change)

    _show(use, _on_registry(use, run), told)


def _show(use: Use, membership: Any, told: Callable[[Any], str]) -> None:
    if use.as_json:
        show_json(membership)
    else:
        say(f"{membership.service}: {told(membership)} (version {membership.version})")


def _pending(membership: Any) -> str:
    from fairlead_discovery.decisions.ring_answers import waiting  # noqa: PLC0415  # see above

    if not membership.pending:
        return "nothing to hand over"
    return f"hand-over goes on, waiting for {', '.join(waiting(membership))}"


@ring.command(epilog="Example: fairlead ring create orders --replicas 3")
@click.argument("service")
@click.option("--replicas", default=1, show_default=True, help="Copies of each slot, on different machines.")
@click.option("--slots", default=16384, show_default=True, help="Units that move; a power of two.")
@click.option("--points", default=512, show_default=True, help="Virtual nodes of a member of weight 1.")
@click.option(
    "--bound",
    "bound_percent",
    default=100,
    show_default=True,
    help="Most a member owns, in percent of its fair share. More moves fewer slots, and shares differ more.",
)
@registry_verb
def create(use: Use, service: str, **shape: int) -> None:
    """Make a ring for SERVICE, without members yet."""
    from fairlead_discovery.decisions.membership import Membership  # noqa: PLC0415  # see above

    made = Membership(service=service, **shape)  # type: ignore[arg-type]  # names of options are those of its numbers

    async def run(opened: Any) -> Any:
        from fairlead_discovery.rings import create_ring  # noqa: PLC0415  # see above

        await create_ring(opened, made)

    _on_registry(use, run)
    _show(use, made, lambda _: "made; `fairlead ring join` adds members")


@ring.command(epilog="Example: fairlead ring destroy orders")
@click.argument("service")
@registry_verb
def destroy(use: Use, service: str) -> None:
    """Forget the ring of SERVICE and its members. No data is touched."""

    async def run(opened: Any) -> None:
        from fairlead_discovery.rings import remove_ring  # noqa: PLC0415  # see above

        await remove_ring(opened, service)

    _on_registry(use, run)
    if use.as_json:
        show_json({"service": service, "destroyed": True})
    else:
        say(f"{service}: destroyed")


@ring.command(epilog="Example: fairlead ring join orders node-4 --machine m4 --rack r2 --zone eu-1")
@click.argument("service")
@click.argument("member")
@click.option("--weight", default=1.0, show_default=True, help="Relative share of the data.")
@click.option("--machine", default="", help="Copies never share one. Default: a machine of its own.")
@click.option("--rack", default="", help="At most two of three copies stand in one.")
@click.option("--zone", default="", help="Copies are spread evenly over zones.")
@registry_verb
def join(use: Use, service: str, member: str, **given: Any) -> None:
    """Add MEMBER; it owns its slots when every gaining member is ready."""
    from fairlead_discovery.decisions import membership as m  # noqa: PLC0415  # see above

    _change(use, service, lambda before: m.join(before, m.RingMember(name=member, **given)), _pending)


def _on_member(name: str, change: str, summary: str) -> None:
    """A verb that takes SERVICE and MEMBER and is one pure function of the membership."""

    @ring.command(name=name, help=summary, epilog=f"Example: fairlead ring {name} orders node-2")
    @click.argument("service")
    @click.argument("member")
    @registry_verb
    def command(use: Use, service: str, member: str) -> None:
        from fairlead_discovery.decisions import membership as m  # noqa: PLC0415  # see above

        _change(use, service, lambda before: getattr(m, change)(before, member), _pending)

    assert isinstance(command, click.Command)


_on_member("leave", "leave", "Let MEMBER leave in order: it owns its slots until the others have them.")
_on_member("remove", "remove", "Take MEMBER out at once, because it is dead: nothing is handed over.")
_on_member("cancel", "cancel", "Take back the pending join, leave or weight of MEMBER.")


@ring.command(epilog="Example: fairlead ring weigh orders node-4 2")
@click.argument("service")
@click.argument("member")
@click.argument("weight", type=float)
@registry_verb
def weigh(use: Use, service: str, member: str, weight: float) -> None:
    """Give MEMBER another WEIGHT: it owns by the old one until every gaining member is ready."""
    from fairlead_discovery.decisions import membership as m  # noqa: PLC0415  # see above

    _change(use, service, lambda before: m.weigh(before, member, weight), _pending)


@ring.command(epilog="Example: fairlead ring ready orders node-4 --version 7")
@click.argument("service")
@click.argument("member")
@click.option("--version", type=int, required=True, help="The ring's version whose data it has; another is refused.")
@registry_verb
def ready(use: Use, service: str, member: str, version: int) -> None:
    """Say that MEMBER has all the data it gains. When all have, ownership moves."""
    from fairlead_discovery.decisions import membership as m  # noqa: PLC0415  # see above

    _change(use, service, lambda before: m.ready(before, member, version=version), _pending)


@ring.command(epilog="Example: fairlead ring settle orders")
@click.argument("service")
@registry_verb
def settle(use: Use, service: str) -> None:
    """Move ownership now, though not everybody is ready."""
    from fairlead_discovery.decisions import membership as m  # noqa: PLC0415  # see above

    _change(use, service, m.settle, lambda _: "ownership has moved")


@ring.command(epilog="Example: fairlead ring owners orders user:42 user:43")
@click.argument("service")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@registry_verb
def owners(use: Use, service: str, keys: Sequence[str]) -> None:
    """Who holds each KEY, the first owner first; and who will, while a hand-over goes on."""
    from fairlead_discovery.decisions.ring_answers import told_owners  # noqa: PLC0415  # see above

    found = _membership(use, service)
    told = told_owners(found, keys)
    if use.as_json:
        show_json(told)
        return
    if not found.members:
        raise Refused(f"{service}: the ring has no members")
    rows = [(row["key"], row["slot"], row["owners"], row["next_owners"]) for row in told["keys"]]
    show_table(
        ("key", "slot", "owners", "next"),
        [(k, s, ",".join(now) or "-", ",".join(then) if then != now else "") for k, s, now, then in rows],
        empty="",
    )


@ring.command(epilog="Example: fairlead ring diff orders --leave node-2")
@click.argument("service")
@click.option("--join", "joins", multiple=True, metavar="MEMBER[=WEIGHT]", help="As if it joined.")
@click.option("--leave", "leaves", multiple=True, metavar="MEMBER", help="As if it left.")
@click.option("--weigh", "weighs", multiple=True, metavar="MEMBER=WEIGHT", help="As if it weighed so.")
@click.option("--slots", "each", is_flag=True, help="Every slot, not only how many.")
@registry_verb
def diff(use: Use, service: str, *, each: bool, **changes: Sequence[str]) -> None:
    """What pending joins, leaves and weights move, or what further ones would. Nothing is changed."""
    from fairlead_discovery.decisions import membership as m  # noqa: PLC0415  # see above
    from fairlead_discovery.decisions import ring_answers as told  # noqa: PLC0415  # see above

    before = _membership(use, service)
    plan = told.Plan(
        joins=told.weights(changes["joins"], what="--join", default=1.0),
        leaves=changes["leaves"],
        weights=told.weights(changes["weighs"], what="--weigh"),
    )
    both = told.planned(before, plan)
    moves, copies = m.moves(both), before.slots * before.replicas
    if use.as_json:
        show_json(told.told_moves(before, both))
    elif each:
        show_table(
            ("slot", "from", "to"),
            [(x.slot, ",".join(x.sources) or "-", x.receiver) for x in moves],
            empty="nothing moves",
        )
    else:
        flows = [(source or "-", to, count) for (source, to), count in m.flows(both).items()]
        show_table(("from", "to", "slots"), flows, empty="nothing moves")
        if moves:
            say(f"{len(moves)} of {copies} copies move, {100 * len(moves) / copies:.1f} %")


@ring.command(epilog="Example: fairlead ring balance orders")
@click.argument("service")
@registry_verb
def balance(use: Use, service: str) -> None:
    """What each member holds beside its fair share, and slots with too few copies."""
    from fairlead_discovery.decisions.ring_answers import told_balance  # noqa: PLC0415  # see above

    found = _membership(use, service)
    told = told_balance(found)
    parts, short = told["members"], told["short_slots"]
    if use.as_json:
        show_json(told)
        return
    show_table(
        ("member", "state", "weight", "machine", "rack", "zone", "first", "copies", "share", "fair"),
        [
            (
                p.name,
                p.state,
                f"{p.weight:g}" if p.next_weight is None else f"{p.weight:g} -> {p.next_weight:g}",
                p.machine or "-",
                p.rack or "-",
                p.zone or "-",
                p.first,
                p.copies,
                f"{100 * p.share:.2f} %",
                f"{100 * p.fair:.2f} %",
            )
            for p in parts
        ],
        empty=f"{service}: the ring has no members",
    )
    if short and parts:
        say(f"{short} of {found.slots} slots have fewer than {found.replicas} copies: there are too few machines")


def _membership(use: Use, service: str) -> Any:
    """The service's ring, or one of its published endpoints."""

    async def run(opened: Any) -> Any:
        from fairlead_discovery.rings import ring_or_endpoints  # noqa: PLC0415  # see above

        return await ring_or_endpoints(opened, service)

    return _on_registry(use, run)

"""`fairlead route canary`: requests go over to another service step by step, and back by themselves when it does badly."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs.registry import in_registry
from fairlead_console.verbs.route_policies import policies, puts
from fairlead_daemon.errors import Refused


@click.group(
    epilog="Example: fairlead route canary start marathon:/shop --to marathon:/shop-next --steps 1,5,25,50,100"
)
def canary() -> None:
    """Send requests to another service step by step, as long as it answers as well as the old one.

    The leading balancer compares both at every step: shares of 5xx answers, and 99th percentiles of answer times. It
    goes on, holds, or brings all requests back at once, and says why.
    """


@canary.command(
    epilog="Example: fairlead route canary start erp:db --to erp:db2 --steps 5,50,100 --every 2m --max-5xx 0.5%"
)
@click.argument("service")
@click.option("--to", "other", required=True, metavar="OTHER", help="Who gets the requests; OTHER#1 for another port.")
@click.option("--steps", default="1,5,25,50,100", show_default=True, help="Percents, ascending; the last one stays.")
@click.option("--every", default="60s", show_default=True, help="How long each step is watched at the least.")
@click.option("--max-5xx", default="1%", show_default=True, help="More of its answers being 5xx abort it.")
@click.option("--max-p99-ratio", default=1.5, show_default=True, help="So much slower aborts it; 0: not looked at.")
@click.option("--min-requests", default=100, show_default=True, help="Answers it must have given at each step.")
@click.option(
    "--sticky", default="", metavar="cookie|source|header|none",
    help="How a client stays where it was sent first. Default: cookie; for TCP source.",
)  # fmt: skip
@click.option("--index", default=0, show_default=True, help="Which of SERVICE's ports.")
@click.option(
    "--yes", is_flag=True, help="Also where the canary that is over gets more than the first step: requests come back."
)
@registry_verb
def start(use: Use, service: str, *, other: str, **how: Any) -> None:
    """Begin a canary: OTHER gets the first step's share of SERVICE's requests."""
    made, revision = in_registry(use, lambda opened: _start(opened, service, other, how))
    if use.as_json:
        show_json({"id": made.id, "revision": revision})
    else:
        steps = ", ".join(f"{s:g}" for s in made.steps)
        say(f"{service}: canary {made.to.service} begins: {steps} % (`fairlead route canary status` tells how it goes)")


@canary.command(epilog="Example: fairlead route canary status marathon:/shop")
@click.argument("service", default="")
@registry_verb
def status(use: Use, service: str) -> int:
    """How far canaries are, and why. Exit 1 when one that is shown was aborted, or is refused."""
    found: Sequence[dict[str, Any]] = in_registry(use, lambda opened: _status(opened, service))
    if use.as_json:
        show_json(found)
    else:
        rows = [
            (
                c["service"], c["to"], c["state"], f"{c['percent']:g} %", f"{c['step']} of {len(c['steps'])}",
                _side(c, "own"), _side(c, "canary"), c["why"],
            )
            for c in found
        ]  # fmt: skip
        columns = ("service", "canary", "state", "share", "step", "service's answers", "canary's answers", "why")
        show_table(columns, rows, empty="no canary", long_last=True)
    return 1 if any(c["state"] in ("aborted", "refused") for c in found) else 0


@canary.command(epilog="Example: fairlead route canary abort marathon:/shop")
@click.argument("service")
@registry_verb
def abort(use: Use, service: str) -> None:
    """Bring all requests back to SERVICE at once. Balancers need no leader for it."""
    _ordered(use, service, "abort", "all requests come back")


@canary.command(epilog="Example: fairlead route canary promote marathon:/shop")
@click.argument("service")
@registry_verb
def promote(use: Use, service: str) -> None:
    """Send all requests to the canary at once, whatever was seen."""
    _ordered(use, service, "promote", "all requests go to the canary")


@canary.command(epilog="Example: fairlead route canary remove marathon:/shop")
@click.argument("service")
@click.option("--yes", is_flag=True, help="Also while the canary gets requests: they come back.")
@registry_verb
def remove(use: Use, service: str, *, yes: bool) -> None:
    """Forget the canary of SERVICE, once it is over: its requests are SERVICE's own again."""
    revision = in_registry(use, lambda opened: _remove(opened, service, sure=yes))
    _done(use, service, revision, "no canary any more")


async def _start(opened: Any, service: str, other: str, how: dict[str, Any]) -> tuple[Any, int]:
    from fairlead_discovery.policies import Canary, Split  # noqa: PLC0415  # `--help` is fast without it
    from fairlead_lb.decisions import split_files  # noqa: PLC0415  # see above

    there = [p for p in await policies(opened) if p.service == service]
    if any(isinstance(p, Split) for p in there):
        raise Refused(f"{service}: is split; `fairlead route split {service} --remove` first")
    before = _pair(there)
    if before is not None and before["state"] in ("waiting", "running"):
        raise Refused(f"{service}: its canary {before['to']} is {before['state']}; abort or promote it first")
    steps = tuple(split_files.percent(step, f"--steps {how['steps']}") for step in how["steps"].split(","))
    if before is not None and before["percent"] > steps[0] and not how["yes"]:
        raise Refused(
            f"{service}: {before['percent']:g} % of its requests go to {before['to']}, its canary that is"
            f" {before['state']}; --yes begins at {steps[0]:g} %, and brings the others back"
        )
    place = "route canary start"
    sticky = how["sticky"] or ("cookie" if await _mode(opened, service, how["index"]) == "http" else "source")
    made = Canary(
        service=service,
        id=f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}",
        to=split_files.target(other, place),
        index=how["index"],
        steps=steps,
        every_s=split_files.seconds(how["every"], "--every"),
        max_5xx_percent=split_files.percent(how["max_5xx"], "--max-5xx"),
        max_p99_ratio=how["max_p99_ratio"],
        min_requests=how["min_requests"],
        sticky="" if sticky == "none" else sticky,
    )
    return made, int(await opened.commit(puts({"it": split_files.canary_of(made, place)}, {})))


async def _mode(opened: Any, service: str, index: int) -> str:
    """Of the service's port; `http` when nobody wrote a route."""
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.records import Route, decode  # noqa: PLC0415  # see above

    node = await opened.tree.get(paths.route(service))
    ports = decode(Route, node.data, place=paths.route(service)).ports if node is not None else ()
    return next((p.mode for p in ports if p.index == index), "http")


async def _status(opened: Any, service: str) -> list[dict[str, Any]]:
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.records import decode  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.canary import Look  # noqa: PLC0415  # see above

    by_service: dict[str, list[Any]] = {}
    for policy in await policies(opened):
        if service in ("", policy.service):
            by_service.setdefault(policy.service, []).append(policy)
    found: list[dict[str, Any]] = []
    for name, there in sorted(by_service.items()):
        if (pair := _pair(there)) is None:
            continue
        node = await opened.tree.get(paths.below(paths.CANARIES, name))
        try:
            look = decode(Look, node.data, place=name) if node is not None else None
        except Refused:
            look = None  # the leading balancer writes it anew in a moment
        seen = msgspec.to_builtins(look) if look is not None and look.id == pair["id"] else {}
        why = seen.pop("why", "") if pair["state"] == "running" else ""
        found.append({**pair, **seen, "why": why or pair["reason"]})
    return found


def _pair(there: Sequence[Any]) -> dict[str, Any] | None:
    """One service's canary and its stage together."""
    from fairlead_discovery.policies import Canary, name_of  # noqa: PLC0415  # see above
    from fairlead_lb.split_pages import canaries_of  # noqa: PLC0415  # see above

    order = next((p for p in there if isinstance(p, Canary)), None)
    if order is None:
        return None
    [found] = canaries_of({name_of(p): p for p in there})
    return {**found, "id": order.id}


def _ordered(use: Use, service: str, order: str, text: str) -> None:
    _done(use, service, in_registry(use, lambda opened: _order(opened, service, order)), text)


async def _order(opened: Any, service: str, order: str) -> int:
    return int(await opened.commit(puts({"it": msgspec.structs.replace(await _of(opened, service), order=order)}, {})))


async def _remove(opened: Any, service: str, *, sure: bool) -> int:
    from fairlead_discovery.policies import Canary, CanaryStage  # noqa: PLC0415  # see above

    await _of(opened, service)
    there = [p for p in await policies(opened) if p.service == service]
    pair = _pair(there)
    if pair is not None and pair["percent"] and not sure:
        raise Refused(f"{service}: {pair['percent']:g} % of its requests go to {pair['to']}; --yes brings them back")
    gone = {str(n): p for n, p in enumerate(there) if isinstance(p, Canary | CanaryStage)}
    return int(await opened.commit(puts({}, gone)))


async def _of(opened: Any, service: str) -> Any:
    from fairlead_discovery.policies import Canary  # noqa: PLC0415  # see above

    found = [p for p in await policies(opened) if isinstance(p, Canary)]
    one = next((p for p in found if p.service == service), None)
    if one is None:
        others = ", ".join(p.service for p in found)
        raise Refused(f"{service}: has no canary{f'; there are canaries of {others}' if others else ''}")
    return one


def _side(one: dict[str, Any], side: str) -> str:
    """`1200, 0.5 % 5xx, p99 12 ms`."""
    if f"{side}_requests" not in one and f"{side}_p99_ms" not in one:
        return "-"
    p99 = one.get(f"{side}_p99_ms")
    return f"{one.get(f'{side}_requests', 0)}, {one.get(f'{side}_5xx_percent', 0.0):g} % 5xx" + (
        f", p99 {p99:g} ms" if p99 is not None else ""
    )


def _done(use: Use, service: str, revision: int, text: str) -> None:
    if use.as_json:
        show_json({"revision": revision})
    else:
        say(f"{service}: {text} (revision {revision})")

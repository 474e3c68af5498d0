"""`fairlead status`: everything on one screen. What does not answer is a line, not an error."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from fairlead_console.addresses import Addresses
from fairlead_console.balancer import registrations
from fairlead_console.balancer import status as balancer_status
from fairlead_console.decisions.balancers import Registration, problems
from fairlead_console.decisions.overview import Facts, summary, unreadable
from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Calls, Use, verb
from fairlead_daemon.errors import FairleadError, Unavailable

WAIT_S = 3.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """`why` is empty when ready."""

    name: str
    url: str
    state: str
    why: str


@click.command(epilog="Example: fairlead status --json")
@verb
def status(use: Use) -> None:
    """Every daemon, agent and app on one screen."""
    daemons, facts = use.run(_gather)
    lines = summary(facts)
    wrong = problems(facts.balancer, facts.balancers, unreadable_by_dns=unreadable(facts.name_metrics))
    if use.as_json:
        show_json({
            "daemons": [{"name": d.name, "url": d.url, "state": d.state, "why": d.why} for d in daemons],
            "summary": dict(lines),
            "problems": [{"what": what, "problem": text} for what, text in wrong],
        })  # fmt: skip
    else:
        show_table(("daemon", "address", "state", "why"), [(d.name, d.url, d.state, d.why) for d in daemons], empty="")
        say("")
        show_table(("what", "now"), lines, empty="")
        if wrong:
            say("")
            show_table(("problem of", "problem"), wrong, empty="")
    if all(d.state == "unreachable" for d in daemons):
        raise Unavailable("no daemon answers; `fairlead up` starts them here")


async def _gather(calls: Calls) -> tuple[Sequence[Daemon], Facts]:
    where = calls.addresses
    daemons = asyncio.gather(*(_daemon(calls, name, url) for name, url in _named(where)))
    answers = asyncio.gather(
        _get(calls, f"{where.master}/state"),
        _get(calls, f"{where.master}/slaves"),
        _get(calls, f"{where.services}/v2/apps"),
        balancer_status(calls),
        _get(calls, f"{where.dns_http[0]}/v1/axfr" if where.dns_http else ""),
        _get(calls, f"{where.monitor}/api/alerts" if where.monitor else ""),
    )
    metrics = asyncio.create_task(_text(calls, f"{where.dns_http[0]}/metrics" if where.dns_http else ""))
    in_registry = asyncio.create_task(_in_registry(where.registry))
    master, agents, apps, balancer, names, alerts = await answers
    revision, registered = await in_registry
    facts = Facts(
        master=master,
        agents=agents,
        apps=apps,
        balancer=balancer,
        names=names,
        alerts=alerts,
        name_metrics=await metrics,
        registry=where.registry,
        revision=revision,
        balancers=registered,
    )
    return await daemons, facts


async def _in_registry(url: str) -> tuple[int | None, Sequence[Registration]]:
    """The registry's clock and the balancers in it; None and none when it is out of sight, or not ours to open."""
    if not url:
        return None, ()
    from fairlead_console.verbs.registry import with_registry  # noqa: PLC0415  # loads the backends
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.records import Cluster, decode  # noqa: PLC0415  # see above

    async def read(opened: Any) -> tuple[int | None, Sequence[Registration]]:
        registered = await registrations(opened)
        cluster, clock = await opened.tree.get(paths.CLUSTER), await opened.tree.get(paths.REVISION)
        if cluster is None or clock is None:
            return None, registered
        return int(decode(Cluster, cluster.data, place=paths.CLUSTER).base + clock.version), registered

    try:
        async with asyncio.timeout(WAIT_S):
            found: tuple[int | None, Sequence[Registration]] = await with_registry(url, read)
            return found
    except (FairleadError, TimeoutError, AttributeError):
        return None, ()


async def _text(calls: Calls, url: str) -> str:
    """A page as it is; "" when it does not answer."""
    from aiohttp import ClientError  # noqa: PLC0415  # loaded by now

    try:
        async with asyncio.timeout(WAIT_S), calls.session.get(url) as response:
            return str(await response.text())
    except (ClientError, OSError, ValueError, TimeoutError):
        return ""


def _named(where: Addresses) -> list[tuple[str, str]]:
    named = [("master", where.master)]
    named += [(f"agent-{number}", url) for number, url in enumerate(where.agents, 1)]
    named += [("services", where.services)]
    named += [
        (f"dns-{number}" if len(where.dns_http) > 1 else "dns", url) for number, url in enumerate(where.dns_http, 1)
    ]
    local = (
        [("registry", f"unix:{where.registry.removeprefix('local:')}")] if where.registry.startswith("local:") else []
    )
    named += [("lb", where.lb)] if where.lb else []
    return [*local, *named, ("messaging", where.messaging), ("monitor", where.monitor), ("console", where.console)]


async def _daemon(calls: Calls, name: str, url: str) -> Daemon:
    from fairlead_console.up.ready import no_answer, why_not  # noqa: PLC0415  # loads aiohttp

    why = await why_not(calls.session, url if url.startswith("unix:") else f"{url}/ready", within_s=WAIT_S)
    if not why:
        return Daemon(name, url, "ready", "")
    return Daemon(name, url, "unreachable" if no_answer(why) else "not ready", why)


async def _get(calls: Calls, url: str) -> Mapping[str, Any]:
    """{} when it does not answer: its daemon's line says so."""
    try:
        async with asyncio.timeout(WAIT_S):
            return dict(await calls.url("GET", url)) if url else {}
    except (FairleadError, TimeoutError, TypeError, ValueError):
        return {}

"""`fairlead explain-name`: why a DNS name is answered as it is, in the name server's words."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import click

from fairlead_console.decisions.names import dns_name
from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Calls, Use, verb
from fairlead_daemon.errors import Unavailable

WAIT_S = 10.0


@click.command("explain-name", epilog="Example: fairlead explain-name web-demo.marathon.mesos --client 10.1.2.3")
@click.argument("name")
@click.option("--client", default="", metavar="IP", help="Who asks. Default: this machine.")
@click.option("--type", "kind", default="", metavar="TYPE", help="Record type. Default: A, or SRV for names with `_`.")
@click.option(
    "--at", "at", default="", metavar="TIME", help="What it answered then: 14:02, 5m (ago), 2026-11-20T14:02Z."
)
@verb
def explain_name(use: Use, name: str, client: str, kind: str, at: str) -> None:
    """Why NAME, a DNS name or an app id, is answered as it is: which node gives it, by which rule, what was left out."""
    wanted = dns_name(name)
    if at:
        told = use.run(lambda calls: _ask(calls, "history", {"name": wanted, "at": at}))
        show_json(told) if use.as_json else _show_past(told)
        return
    told = use.run(lambda calls: _ask(calls, "explain", {"name": wanted, "client": client, "type": kind}))
    show_json(told) if use.as_json else _show(told)


async def _ask(calls: Calls, page: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The first name server that answers. Raises Unavailable when none does, Refused in the server's words."""
    asked = urlencode({key: value for key, value in query.items() if value})
    failures = []
    for url in calls.addresses.dns_http:
        try:
            async with asyncio.timeout(WAIT_S):
                found: dict[str, Any] = await calls.url("GET", f"{url}/v2/{page}?{asked}")
                return found
        except (Unavailable, TimeoutError) as error:
            failures.append(f"{url}: {error or 'no answer in time'}")
    raise Unavailable("; ".join(failures) or "no name server's HTTP address is known")


def _show(told: Mapping[str, Any]) -> None:
    for sentence in told["says"]:
        say(sentence)
    records = told.get("records", ())
    if records:
        say("")
        where = [("/".join(filter(None, (row.get("region"), row.get("zone")))), row.get("tier", "")) for row in records]
        rows = [
            (row["data"], f"{row.get('weight', 1.0):g}", place, tier, row.get("left_out", "") or "answered")
            for row, (place, tier) in zip(records, where, strict=True)
        ]
        show_table(("record", "weight", "stands in", "tier", "for this client"), rows, empty="")
    givers = told.get("given_by", ())
    if givers:
        say("")
        rows = [(g["task"], g["rule"], ", ".join(g["records"]), g.get("filter", ""), g["node"]) for g in givers]
        show_table(("given by task", "rule", "records", "left out by", "node"), rows, empty="")
    for who, gives in told.get("others", {}).items():
        say(f"given by {who}: {', '.join(gives)}")
    say("")
    say(f"serial {told.get('serial', 0)}, {told.get('trust', 'none')}")


def _show_past(told: Mapping[str, Any]) -> None:
    since, until = told["since"], told["until"]
    if not told["remembered"]:
        say(f"{told['name']}: what it answered at {told['at']} is not remembered; history begins at {told['begins']}")
        say("the oldest that is remembered:")
    else:
        say(f"{told['name']} at {told['at']}:")
    for record in told["records"] or ("no records",):
        say(f"  {record}")
    if since:
        say(f"since {since['time']}, serial {since['serial']}")
    say(f"until {until['time']}, serial {until['serial']}" if until else "it still does")

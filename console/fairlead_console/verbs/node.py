"""`fairlead node`: agents, and taking one out of service without a lost request."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from fairlead_console.decisions.nodes import address, condition, find, used
from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Calls, Use, verb
from fairlead_daemon.errors import Refused, Unavailable

POLL_S = 0.3
NANOSECONDS = 1_000_000_000
TERMINAL = frozenset({
    "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_GONE", "TASK_DROPPED",
})  # fmt: skip


@click.group()
def node() -> None:
    """List, drain and undrain agents.

    Example: fairlead node drain agent-1
    """


@node.command(name="list", epilog="Example: fairlead node list")
@verb
def list_(use: Use) -> None:
    """All agents with what they have and what is taken of it."""

    async def both(calls: Calls) -> tuple[Sequence[Any], Mapping[str, int]]:
        return await agents(calls), await task_counts(calls)

    found, counts = use.run(both)
    if use.as_json:
        show_json(found)
        return
    show_table(
        ("node", "host", "address", "state", "tasks", "cpus", "mem"),
        [
            (
                a["id"],
                a.get("hostname", "?"),
                address(a),
                condition(a),
                counts.get(a["id"], 0),
                used(a, "cpus"),
                used(a, "mem"),
            )
            for a in found
        ],
        empty="no agents have registered",
    )


@node.command(epilog="Example: fairlead node drain S0 --grace 60")
@click.argument("which", metavar="NODE")
@click.option(
    "--grace", "grace_s", default=120.0, show_default=True, metavar="SECONDS", help="Then what is left is ended."
)
@click.option("--timeout", "timeout_s", default=300.0, show_default=True, metavar="SECONDS", help="How long to watch.")
@click.option("--no-wait", is_flag=True, help="Return once draining has begun.")
@verb
def drain(use: Use, which: str, grace_s: float, timeout_s: float, *, no_wait: bool) -> None:
    """Move every task off NODE (id, host name, or the beginning of one); nothing new starts there."""

    async def run(calls: Calls) -> None:
        agent = find(await agents(calls), which)
        grace = {"nanoseconds": round(grace_s * NANOSECONDS)}
        call = {"agent_id": {"value": agent["id"]}, "max_grace_period": grace}
        await calls.master("POST", "/api/v1", {"type": "DRAIN_AGENT", "drain_agent": call})
        if not no_wait:
            await _drained(calls, agent["id"], timeout_s=timeout_s, quiet=use.as_json)
        _answer(use, agent, "draining" if no_wait else "drained; `fairlead node undrain` takes it back")

    use.run(run)


@node.command(epilog="Example: fairlead node undrain S0")
@click.argument("which", metavar="NODE")
@verb
def undrain(use: Use, which: str) -> None:
    """Let NODE take tasks again."""

    async def run(calls: Calls) -> None:
        agent = find(await agents(calls), which)
        body = {"type": "REACTIVATE_AGENT", "reactivate_agent": {"agent_id": {"value": agent["id"]}}}
        await calls.master("POST", "/api/v1", body)
        _answer(use, agent, "takes tasks again")

    use.run(run)


def _answer(use: Use, agent: Mapping[str, Any], text: str) -> None:
    if use.as_json:
        show_json({"agent_id": agent["id"], "state": text.partition(";")[0]})
    else:
        say(f"{agent['id']} ({agent.get('hostname', '?')}): {text}")


async def _drained(calls: Calls, agent_id: str, *, timeout_s: float, quiet: bool) -> None:
    """Returns when it has no task and the master says drained. Raises Refused at the timeout."""
    end_s, last = time.monotonic() + timeout_s, ""
    while True:
        try:
            state = next((condition(a) for a in await agents(calls) if a["id"] == agent_id), "gone")
            left = (await task_counts(calls)).get(agent_id, 0)
        except Unavailable:  # the master is started again meanwhile; draining goes on
            state, left = "draining", -1
        if left == 0 and state != "draining":
            return
        text = f"{agent_id}: {state}, {left} tasks left"
        if text != last and left >= 0 and not quiet:
            say(text)
        last = text
        if time.monotonic() > end_s:
            raise Refused(f"{text} after {timeout_s:.0f} s; it goes on, see fairlead node list")
        await asyncio.sleep(POLL_S)


async def agents(calls: Calls) -> list[Mapping[str, Any]]:
    return sorted((await calls.master("GET", "/slaves"))["slaves"], key=lambda a: str(a["id"]))


async def task_counts(calls: Calls) -> Mapping[str, int]:
    """Tasks that have not ended, by agent id."""
    counts: dict[str, int] = {}
    for framework in (await calls.master("GET", "/state"))["frameworks"]:
        for task in framework.get("tasks", ()):
            if task.get("state") not in TERMINAL:
                counts[task["slave_id"]] = counts.get(task["slave_id"], 0) + 1
    return counts

"""What `fairlead lock` and `fairlead elect` share: options, signals, the command under its guardian."""

import asyncio
import functools
import signal
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import click

from fairlead_console.addresses import find
from fairlead_daemon.errors import BadSettings

STOPPED = 130
WAITS = "lease"
LEAST_HOLD_S = 2.0
"""What a lease of 8 s must leave beside the grace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    url: str
    command: tuple[str, ...]
    grace_s: float
    listen: str = ""


def held_options(function: Callable[..., int]) -> Callable[..., int]:
    """Adds the command and what finds the registry; the function gets a Given before its own arguments."""

    @click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
    @click.option("--grace", "grace_s", default=3.0, metavar="SECONDS", help="From SIGTERM to SIGKILL.  [default: 3]")
    @click.option("--listen", default="", metavar="HOST:PORT", help="Serve /health, /ready and /metrics there.")
    @click.option("--registry", "url", default="", metavar="URL", help="zk://… or local:…; default: FAIRLEAD_REGISTRY.")
    @click.option("--data-dir", default="", metavar="DIR", help="Data directory of the `fairlead up` to use.")
    @functools.wraps(function)
    def wrapped(*, grace_s: float, url: str, data_dir: str, **arguments: Any) -> int:
        from fairlead_daemon import logs  # noqa: PLC0415  # `--help` is fast without it
        from fairlead_discovery.coordination import LEASE_S  # noqa: PLC0415  # see above

        found = url or find(data_dir).registry
        if not found:
            raise BadSettings("no registry known; give --registry, set FAIRLEAD_REGISTRY, or name --data-dir")
        if not 0 <= grace_s <= LEASE_S - LEAST_HOLD_S:
            raise click.UsageError(f"--grace: from 0 to {LEASE_S - LEAST_HOLD_S:g}")
        logs.set_up("warning")
        command, listen = arguments.pop("command"), arguments.pop("listen")
        return function(Given(url=found, command=command, grace_s=grace_s, listen=listen), **arguments)

    return wrapped


def run_locked(given: Given, name: str, *, limit: int, wait_s: float | None) -> int:
    from fairlead_discovery.coordination import semaphore  # noqa: PLC0415  # `--help` is fast without it

    async def body(run: Run) -> int:
        async with semaphore(run.registry, name, limit, wait_s=wait_s) as held:
            return await run.command(held)

    return asyncio.run(_with_registry(given, body))


def run_elected(given: Given, name: str) -> int:
    from fairlead_discovery.coordination import elected  # noqa: PLC0415  # `--help` is fast without it

    async def body(run: Run) -> int:
        async with aclosing(elected(run.registry, name)) as leaderships:  # type: ignore[type-var]  # a generator
            async for held in leaderships:
                code = await run.command(held)
                if run.stop.is_set() or not held.lost.is_set():
                    return code
        raise AssertionError("elections do not end")

    return asyncio.run(_with_registry(given, body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a verb: its registry, and the signal to stop."""

    registry: Any
    given: Given
    stop: asyncio.Event
    begun: asyncio.Event
    """A command has been started: it is asked to end, and we wait for it."""
    health: Any
    """Ready while the command runs."""

    async def command(self, held: Any) -> int:
        from fairlead_discovery.held_command import Command, run_held  # noqa: PLC0415  # see above

        self.begun.set()
        self.health.ready(WAITS)
        try:
            return await run_held(held, Command(words=self.given.command, grace_s=self.given.grace_s), self.stop)
        finally:
            self.begun.clear()
            self.health.wait(WAITS, f"lost: {held.why}" if held.lost.is_set() else "its command has ended")


async def _with_registry(given: Given, body: Callable[[Run], Coroutine[Any, Any, int]]) -> int:
    """The exit code; 130 when a signal came while nothing was held."""
    from fairlead_daemon.web import Health  # noqa: PLC0415  # see above
    from fairlead_discovery.adapters.pages import pages  # noqa: PLC0415  # see above

    health = Health({WAITS: "somebody else has it, or the registry is out of sight"})
    async with pages(given.listen, health):
        return await _holding(given, health, body)


async def _holding(given: Given, health: Any, body: Callable[[Run], Coroutine[Any, Any, int]]) -> int:
    from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # see above

    registry = await open_registry(given.url)
    run = Run(registry=registry, given=given, stop=asyncio.Event(), begun=asyncio.Event(), health=health)
    work = asyncio.ensure_future(body(run))

    def asked() -> None:
        run.stop.set()
        if not run.begun.is_set():
            work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, asked)
    try:
        await asyncio.wait((work,))
        return STOPPED if work.cancelled() else work.result()
    finally:
        await registry.close()

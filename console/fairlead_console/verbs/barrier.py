"""`fairlead barrier`: waits until so many have come."""

import asyncio
from typing import Any

import click

from fairlead_console.output import say, show_json
from fairlead_console.use import Use, registry_verb
from fairlead_daemon.errors import Unavailable


@click.command(epilog="Example: fairlead barrier import-2026-11-20 --parties 3 --wait 600 && ./begin.sh")
@click.argument("name")
@click.option("--parties", type=click.IntRange(min=1), required=True, metavar="N", help="So many must have come.")
@click.option("--wait", "wait_s", type=float, default=None, metavar="SECONDS", help="Give up after so long, exit 3.")
@click.option("--as", "identity", default="", metavar="ME", help="Tells the parties apart: one of a name counts once.")
@registry_verb
def barrier(use: Use, name: str, parties: int, wait_s: float | None, identity: str) -> None:
    """Wait until N have come to the barrier NAME, all of them at the same time; then it is open for good.

    Who is ended while waiting counts no more. A name serves once.
    """
    where = use.registry

    async def run() -> None:
        from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # `--help` is fast without it
        from fairlead_discovery.coordination import barrier as wait  # noqa: PLC0415  # see above

        registry: Any = await open_registry(where)
        try:
            async with asyncio.timeout(wait_s):
                await wait(registry, name, parties, identity=identity)
        except TimeoutError as error:
            raise Unavailable(f"{name}: fewer than {parties} came within {wait_s:g} s") from error
        finally:
            await registry.close()

    asyncio.run(run())
    if use.as_json:
        show_json({"barrier": name, "open": True})
    else:
        say(f"{name}: open")

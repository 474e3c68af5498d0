"""`fairlead lock NAME -- cmd`: runs a command while a lock, or one slot of a semaphore, is held."""

import click

from fairlead_console.verbs.held import Given, held_options, run_locked


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: fairlead lock nightly-report --wait 60 -- ./report.sh",
)
@click.argument("name")
@click.option("--wait", "wait_s", type=float, default=None, metavar="SECONDS", help="Give up after so long, exit 1.")
@click.option("--limit", default=1, metavar="N", help="So many may hold it at once.  [default: 1]")
@held_options
def lock(given: Given, name: str, wait_s: float | None, limit: int) -> int:
    """Run a command while nobody else holds the lock NAME.

    The command gets FAIRLEAD_FENCE, a number that only rises; its exit code is ours. It is ended before the lock
    can be lost to another.
    """
    if limit < 1:
        raise click.UsageError("--limit: at least 1")
    return run_locked(given, name, limit=limit, wait_s=wait_s)

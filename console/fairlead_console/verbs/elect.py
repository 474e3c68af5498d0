"""`fairlead elect NAME -- cmd`: runs a command on whoever is elected, and on the next one when that is lost."""

import click

from fairlead_console.verbs.held import Given, held_options, run_elected


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: fairlead elect scheduler -- ./scheduler --active",
)
@click.argument("name")
@held_options
def elect(given: Given, name: str) -> int:
    """Stand for election; run the command while elected, and stand again when that is lost.

    The command gets FAIRLEAD_FENCE, a number that only rises. When it ends by itself so do we, with its exit code.
    """
    return run_elected(given, name)

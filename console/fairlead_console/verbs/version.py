"""`fairlead version`."""

from importlib.metadata import version as installed

import click

from fairlead_console.output import say, show_json


@click.command(epilog="Example: fairlead version")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def version(*, as_json: bool) -> None:
    """The version of fairlead."""
    found = installed("fairlead")
    if as_json:
        show_json({"version": found})
    else:
        say(f"fairlead {found}")

"""`fairlead check-zone`: what `fairlead dns` would say of a zone file, before it reads it."""

from pathlib import Path

import click

from fairlead_console.output import say, show_json
from fairlead_daemon.errors import BadSettings, Refused


@click.command(epilog="Example: fairlead check-zone /etc/fairlead/zones/example.org.zone")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--zone", default="", metavar="NAME", help="the zone's name; otherwise the file's name says it (NAME.zone)"
)
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def check_zone(file: Path, zone: str, as_json: bool) -> None:
    """Read a zone file as `fairlead dns` does: what it holds, what is doubtful; or file, line and reason why not.

    What it includes must lie in its folder or below.
    """
    from fairlead_dns.adapters.zonefiles import SUFFIX, Reading  # noqa: PLC0415  # only this verb needs it
    from fairlead_dns.decisions import wire  # noqa: PLC0415  # as above
    from fairlead_dns.decisions.static import BadZoneError  # noqa: PLC0415  # as above

    if not zone and file.suffix != SUFFIX:
        raise BadSettings(f"{file}: not named NAME{SUFFIX}: say --zone NAME")
    apex = wire.parse_text(zone or file.name.removesuffix(SUFFIX))
    if apex is None:
        raise BadSettings(f"{zone or file.stem} is no domain name")
    try:
        found = Reading(file.parent).zone(file.name, apex)
    except BadZoneError as error:
        raise Refused(str(error)) from error
    records = sum(len(rrset.data) for rrset in found.sets())
    if as_json:
        show_json(
            {
                "zone": wire.text(apex),
                "serial": found.serial,
                "names": len(found.names),
                "records": records,
                "warnings": list(found.warnings),
            }
        )
        return
    say(f"{wire.text(apex)}: serial {found.serial}, {len(found.names)} names, {records} records")
    for warning in found.warnings:
        say(f"doubtful: {warning}")

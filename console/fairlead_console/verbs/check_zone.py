"""`fairlead check-zone`: what `fairlead dns` would say of a zone file, before it reads it."""

from collections.abc import Iterator
from pathlib import Path

import click

from fairlead_console.output import say, show_json
from fairlead_daemon.errors import BadSettings, Refused


@click.command(epilog="Example: fairlead check-zone /etc/fairlead/zones/example.org.zone")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--zone", default="", metavar="NAME", help="the zone's name; otherwise the file's name says it (NAME.zone)"
)
@click.option(
    "--domain",
    "domains",
    multiple=True,
    metavar="NAME",
    help="a domain that `fairlead dns` serves from endpoints, as mesos: tells when the zone would hide names of it",
)
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def check_zone(file: Path, zone: str, domains: tuple[str, ...], as_json: bool) -> None:
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
    warnings = [*_hides(apex, domains), *found.warnings]
    records = sum(len(rrset.data) for rrset in found.sets())
    if as_json:
        show_json(
            {
                "zone": wire.text(apex),
                "serial": found.serial,
                "names": len(found.names),
                "records": records,
                "warnings": warnings,
            }
        )
        return
    say(f"{wire.text(apex)}: serial {found.serial}, {len(found.names)} names, {records} records")
    for warning in warnings:
        say(f"doubtful: {warning}")


def _hides(apex: bytes, domains: tuple[str, ...]) -> Iterator[str]:
    from fairlead_dns.decisions import wire  # noqa: PLC0415  # only this verb needs it
    from fairlead_dns.decisions.static import hidden_from  # noqa: PLC0415  # as above

    known = [(text, wire.parse_text(text)) for text in domains]
    for text, domain in known:
        if domain is None:
            raise BadSettings(f"--domain: {text!r} is no domain name")
    wired = [domain for _, domain in known if domain is not None]
    above = hidden_from(apex, wired)
    if apex in wired:
        yield f"{wire.text(apex)} is served from endpoints: the file is not served"
    elif above is not None:
        yield f"{wire.text(apex)} lies within {wire.text(above)}, served from endpoints: their names there are hidden"

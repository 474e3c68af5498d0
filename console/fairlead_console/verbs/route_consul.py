"""`fairlead route import|export consul`: Consul's config entries and ours."""

from pathlib import Path
from typing import Any

import click
import msgspec

from fairlead_console.output import say, show_json
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs import route_policies
from fairlead_console.verbs.registry import in_registry
from fairlead_daemon.errors import Refused

_FRAMEWORK = click.option("--framework", default="marathon", show_default=True, help="Whose services Consul's are.")
_SERVICE = click.option(
    "--service", "services", multiple=True, metavar="NAME=SERVICE", help="What one is called here; may be repeated."
)


@click.group(name="import", epilog="Example: fairlead route import consul router.json resolver.json --dry-run")
def import_() -> None:
    """Take routers, splits, resolvers and intentions over from elsewhere."""


@click.group(epilog="Example: fairlead route export consul > entries.json")
def export() -> None:
    """Write routers, splits, resolvers and intentions as others have them."""


@import_.command(epilog="Example: fairlead route import consul web.json --service web=marathon:/shop/web")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_FRAMEWORK
@_SERVICE
@click.option("--dry-run", is_flag=True, help="Show it as a route file, write nothing.")
@click.option("--partial", is_flag=True, help="Write what can be taken although other entries are refused.")
@registry_verb
def consul(
    use: Use, files: tuple[Path, ...], *, framework: str, services: tuple[str, ...], dry_run: bool, partial: bool
) -> int:
    """Take over config entries (JSON, as `consul config read` prints them): service-router, service-splitter,
    service-resolver and service-intentions, in one commit. Each replaces ours of its kind and service.

    What has no counterpart is named. Exit 1 when an entry is refused; then nothing is written without --partial.
    Intentions are closed to callers without an identity, as in Consul. Subsets of services that no file resolves are
    looked for in the registry, but not with --dry-run.
    """
    from fairlead_lb.decisions.consul_import import imported  # noqa: PLC0415  # `--help` is fast without it

    theirs = _names(framework, services)
    there = None if dry_run else _by_name(in_registry(use, route_policies.policies))
    found = imported([(str(file), file.read_bytes()) for file in files], theirs, there)
    for what, texts in (("left out", found.left), ("closed", found.closed), ("refused", found.refused)):
        for text in texts:
            click.echo(f"{what}: {text}", err=True)
    writes = bool(found.policies) and not dry_run and (partial or not found.refused)
    revision = in_registry(use, lambda opened: _write(opened, found.policies)) if writes else 0
    if use.as_json:
        show_json({
            "policies": {name: msgspec.to_builtins(p) for name, p in found.policies.items()},
            "left": list(found.left), "closed": list(found.closed), "refused": list(found.refused),
            "revision": revision or None,
        })  # fmt: skip
    elif writes:
        told = "\n".join(f"+ {name}: {route_policies.told(p)}" for name, p in sorted(found.policies.items()))
        route_policies.done(use, revision, f"{told}\ndone")
    elif dry_run:
        tables = route_policies.entries(list(found.policies.values()))
        say("\n\n".join(route_policies.toml(table, entry) for table, entry in tables))
    else:
        say("nothing is written")
    return 1 if found.refused else 0


def _by_name(policies: Any) -> Any:
    from fairlead_discovery.policies import name_of  # noqa: PLC0415  # see above

    return {name_of(policy): policy for policy in policies}


async def _write(opened: Any, policies: Any) -> int:
    from fairlead_lb.decisions.split_files import plan  # noqa: PLC0415  # see above

    plan(await route_policies.policies(opened), policies, prune=False)  # refuses where a canary decides
    return int(await opened.commit(route_policies.puts(policies, {})))


@export.command(
    name="consul", epilog="Example: fairlead route export consul --service web=marathon:/shop/web > entries.json"
)
@_FRAMEWORK
@_SERVICE
@registry_verb
def export_consul(use: Use, *, framework: str, services: tuple[str, ...]) -> int:
    """Print them as a JSON list of config entries. What Consul has no words for is named; exit 1 then."""
    from fairlead_lb.decisions.consul_export import exported  # noqa: PLC0415  # see above

    found = exported(in_registry(use, route_policies.policies), _names(framework, services))
    for text in found.refused:
        click.echo(f"refused: {text}", err=True)
    show_json([dict(entry) for entry in found.entries])
    return 1 if found.refused else 0


def _names(framework: str, services: tuple[str, ...]) -> Any:
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.consul_fields import Names  # noqa: PLC0415  # see above

    given: dict[str, str] = {}
    for text in services:
        name, equals, service = text.partition("=")
        if not equals or not all(paths.split_service_key(service)) or any(letter.isspace() for letter in service):
            raise Refused(f"--service {text}: NAME=SERVICE, as web=marathon:/shop/web")
        given[name] = service
    return Names(framework=framework, given=given)

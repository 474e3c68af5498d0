"""`fairlead lb template render|watch`: Bamboo's templates in Jinja2, for a HAProxy that fairlead does not drive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fairlead_console.output import say, show_json
from fairlead_console.use import Use, registry_verb


@click.group(epilog="Example: fairlead lb template render haproxy.cfg.j2")
def template() -> None:
    """Render a template with Bamboo's objects (Apps, Services) once, or keep its output current."""


def _sources(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where rules and definitions come from, beside the registry."""
    for option in (
        click.option("--zookeeper", default="", metavar="URL", help="A Bamboo's tree: zk://host:port/path."),
        click.option("--marathon", default="", metavar="URLS", help="Marathons that say apps' environment and labels."),
        click.option("--framework", default="marathon", show_default=True, help="Whose apps they are."),
    ):
        function = option(function)
    return function


@template.command(epilog="Example: fairlead lb template render haproxy.cfg.j2 > haproxy.cfg")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_sources
@registry_verb
def render(use: Use, file: Path, **sources: str) -> None:
    """Print what FILE makes of the apps and rules as they are now."""
    import asyncio  # noqa: PLC0415  # `--help` is fast without it

    from fairlead_lb.bamboo.output import Target  # noqa: PLC0415  # see above

    text = asyncio.run(_once(use.registry, _settings(sources), Target(template=file, output=file)))
    if use.as_json:
        show_json({"template": str(file), "text": text})
    else:
        say(text.removesuffix("\n"))


@template.command(
    epilog="Example: fairlead lb template watch haproxy.cfg.j2 --to /etc/haproxy/haproxy.cfg --reload 'systemctl reload haproxy'"
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="What is written.")
@click.option(
    "--validate", default="haproxy -c -f {{.}}", show_default=True, metavar="CMD", help="{{.}} is the candidate."
)
@click.option("--reload", "reload_", default="", metavar="CMD", help="Run after it was replaced, until it succeeds.")
@click.option("--cleanup", default="", metavar="CMD", help="Run after each reload.")
@_sources
@registry_verb
def watch(use: Use, file: Path, output: Path, validate: str, reload_: str, cleanup: str, **sources: str) -> None:
    """Keep the output of FILE current, until it is stopped. A template that is broken leaves the last good output."""
    import asyncio  # noqa: PLC0415  # see above

    from fairlead_daemon import logs  # noqa: PLC0415  # see above
    from fairlead_lb.bamboo.output import Target  # noqa: PLC0415  # see above

    logs.set_up("info")
    target = Target(template=file, output=output, validate=validate, reload=reload_, cleanup=cleanup)
    asyncio.run(_keep(use.registry, _settings(sources), target))


def _settings(sources: dict[str, str]) -> Any:
    from fairlead_lb.bamboo.settings import BambooSettings  # noqa: PLC0415  # see above

    return BambooSettings(
        bamboo_zookeeper=sources["zookeeper"],
        bamboo_marathon=sources["marathon"],
        bamboo_framework=sources["framework"],
    )


async def _once(url: str, settings: Any, target: Any) -> str:
    from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # see above
    from fairlead_lb.bamboo.standalone import once  # noqa: PLC0415  # see above

    registry = await open_registry(url)
    try:
        return await once(registry, settings, target)
    finally:
        await registry.close()


async def _keep(url: str, settings: Any, target: Any) -> None:
    from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # see above
    from fairlead_lb.bamboo.standalone import keep  # noqa: PLC0415  # see above

    registry = await open_registry(url)
    try:
        await keep(registry, settings, target)
    finally:
        await registry.close()

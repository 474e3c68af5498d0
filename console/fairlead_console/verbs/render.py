"""`fairlead render`: a file made of endpoints, kept true."""

import asyncio
from pathlib import Path
from typing import Any

import click

from fairlead_console.output import say, show_json
from fairlead_console.use import Use, resolver_verb


@click.command(
    epilog="Example: fairlead render web.cfg.j2 --to /etc/haproxy/web.cfg --check 'haproxy -c -f {}' --reload 'systemctl reload haproxy'"
)
@click.argument("template", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), metavar="FILE", help="What is written.")
@click.option("--check", default="", metavar="CMD", help="Must succeed before FILE is replaced; {} is the candidate.")
@click.option("--reload", "reload_", default="", metavar="CMD", help="Run after FILE was replaced.")
@click.option("--quiet", "quiet_s", default=0.2, show_default=True, metavar="SECONDS", help="Waits for a calm so long.")
@click.option("--allow-empty", is_flag=True, help="Write FILE though a service has no endpoint left.")
@click.option("--once", is_flag=True, help="Write it once and end.")
@resolver_verb
def render(use: Use, template: Path, target: Path, check: str, reload_: str, **more: Any) -> None:
    """Keep FILE what TEMPLATE (Jinja) makes of endpoints("NAME"): each has host, port, weight, zone, task, name."""
    from fairlead_daemon import logs  # noqa: PLC0415  # `--help` is fast without it
    from fairlead_discovery.rendering import Job, words  # noqa: PLC0415  # see above

    url = use.registry
    once = bool(more.pop("once"))
    job = Job(
        template=template,
        target=target,
        check=words(check, "--check"),
        reload=words(reload_, "--reload"),
        **more,
    )
    logs.set_up("warning" if once else "info")
    written = asyncio.run(_render(url, use.addresses.token_path, job, once=once))
    if use.as_json:
        show_json({"file": str(target), "written": written})
    else:
        say(f"{target}: {'written' if written else 'unchanged'}")


async def _render(url: str, token_file: Path | None, job: Any, *, once: bool) -> bool:
    from fairlead_discovery.rendering import Renderer  # noqa: PLC0415  # see above
    from fairlead_discovery.resolver import Resolver  # noqa: PLC0415  # see above

    async with Resolver(url, token_file=token_file) as resolver:
        renderer = Renderer(job, resolver)
        if once:
            return await renderer.once()
        await renderer.keep()
    raise AssertionError("keeping ends by a signal alone")

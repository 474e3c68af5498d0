"""`fairlead resolve`: the endpoints of a service, without DNS; for scripts."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from fairlead_console.output import say, show_json
from fairlead_console.use import Use, resolver_verb
from fairlead_daemon.errors import Unavailable


@click.command(
    epilog="Example: fairlead resolve /shop/web --pick; or: fairlead resolve web-shop.marathon.mesos --watch --json"
)
@click.argument("name")
@click.option("--pick", is_flag=True, help="One of them, by weight.")
@click.option("--key", default="", help="With --pick: the one that this key belongs to.")
@click.option("--zone", default="", help="With --pick: of this zone, as far as it goes round.")
@click.option("--watch", is_flag=True, help="All of them again at every change.")
@resolver_verb
def resolve(use: Use, name: str, *, watch: bool, **choice: Any) -> None:
    """Print the endpoints of NAME, `host:port` each: a service key, an app id, or a DNS name.

    Exit 3 when there is none. Servers of the HTTP watch API may want a token: FAIRLEAD_TOKEN_FILE names its file.
    With --json each is an object with weight and zone.
    """
    where = use.registry
    if watch and choice["pick"]:
        raise click.UsageError("--pick is one answer, --watch are many")
    asyncio.run(_resolve(where, use.addresses.token_path, name, _Show(as_json=use.as_json, watch=watch, **choice)))


class _Show:
    """What is printed of what is found."""

    def __init__(self, *, as_json: bool, watch: bool, pick: bool, key: str, zone: str) -> None:
        self.as_json = as_json
        self.watch = watch
        self.pick = pick or bool(key or zone)
        self.key = key
        self.zone = zone

    def show(self, found: Any) -> None:
        if self.watch and self.as_json:
            import msgspec  # noqa: PLC0415  # `--help` is fast without it

            say(msgspec.json.encode(found).decode())
        elif self.as_json:
            show_json(found[0] if self.pick else found)
        else:
            say(" ".join(each.name for each in found) if self.watch else "\n".join(each.name for each in found))


async def _resolve(url: str, token_file: Path | None, name: str, show: _Show) -> None:
    from fairlead_discovery.resolver import Resolver  # noqa: PLC0415  # see above

    async with Resolver(url, token_file=token_file) as resolver:
        if show.watch:
            async with aclosing(resolver.watch(name)) as changes:  # type: ignore[type-var]  # a generator
                async for found in changes:
                    show.show(found)
                    sys.stdout.flush()
        elif show.pick:
            show.show((resolver.pick(name, key=show.key, client_zone=show.zone),))
        else:
            found = resolver.endpoints(name)
            if not found:
                raise Unavailable(f"{name}: no endpoint ({resolver.snapshot.why or 'none is published'})")
            show.show(found)

"""`fairlead route router|resolver`: where requests lead by what they say, and which tasks of a service answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs import route_policies
from fairlead_console.verbs.registry import in_registry
from fairlead_daemon.errors import Refused


@click.group(epilog="Example: fairlead route router show marathon:/shop/web")
def router() -> None:
    """Requests for a service that lead to another one by path, header, query or method, as Consul's service-router.

    Routers are [[router]] tables of a route file, so `route plan|diff|apply` take them too.
    """


@click.group(epilog="Example: fairlead route resolver show marathon:/shop/web")
def resolver() -> None:
    """Which tasks of a service answer, as Consul's service-resolver: subsets, another service, how a server is chosen.

    Resolvers are [[resolver]] tables of a route file, so `route plan|diff|apply` take them too. A subset is called
    SERVICE@SUBSET in splits, canaries, failovers and routers.
    """


def _add_verbs(group: click.Group) -> None:
    kind = str(group.name)

    @group.command(epilog=f"Example: fairlead route {kind} show marathon:/shop/web > {kind}.toml")
    @click.argument("service", default="")
    @registry_verb
    def show(use: Use, service: str) -> None:
        _show(use, kind, service)

    @group.command(name="set", epilog=f"Example: fairlead route {kind} set {kind}.toml")
    @click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
    @registry_verb
    def set_(use: Use, file: Path) -> None:
        _set(use, kind, file)

    @group.command(epilog=f"Example: fairlead route {kind} remove marathon:/shop/web")
    @click.argument("service")
    @registry_verb
    def remove(use: Use, service: str) -> None:
        revision = in_registry(use, lambda opened: route_policies.take_away(opened, _type(kind), service))
        route_policies.done(use, revision, f"{service}: no {kind} any more")

    show.help = f"The {kind} of SERVICE as a [[{kind}]] table; without SERVICE a line for every {kind}."
    set_.help = (
        f"Write the [[{kind}]] tables of FILE, each in the place of its service's; nothing else of FILE or registry."
    )
    remove.help = f"Remove the {kind} of SERVICE."


for _group in (router, resolver):
    _add_verbs(_group)


def _show(use: Use, kind: str, service: str) -> None:
    found = [p for p in in_registry(use, route_policies.policies) if isinstance(p, _type(kind))]
    mine = [p for p in found if service in ("", p.service)]
    if service and not mine:
        raise Refused(f"{service}: has no {kind}")
    entries = [entry for _, entry in route_policies.entries(mine)]
    if use.as_json:
        show_json(entries)
    elif service:
        say(route_policies.toml(kind, entries[0]))
    else:
        show_table(
            ("service", "says"), [(p.service, route_policies.told(p)) for p in mine], empty=f"there is no {kind}"
        )


def _set(use: Use, kind: str, file: Path) -> None:
    from fairlead_lb.decisions import split_files  # noqa: PLC0415  # `--help` is fast without it

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: {error}") from error
    made = {name: p for name, p in split_files.parse(text, str(file)).items() if isinstance(p, _type(kind))}
    if not made:
        raise Refused(f"{file}: has no [[{kind}]]")

    async def write(opened: Any) -> int:
        return int(await opened.commit(route_policies.puts(made, {})))

    told = "; ".join(f"{p.service}: {route_policies.told(p)}" for p in made.values())
    route_policies.done(use, in_registry(use, write), told)


def _type(kind: str) -> Any:
    from fairlead_discovery.policies import Resolver, Router  # noqa: PLC0415  # see above

    return {"router": Router, "resolver": Resolver}[kind]


def request(where: str, method: str, headers: Sequence[str]) -> Any:
    """What a client would send for HOST[/PATH][?QUERY]. Raises a usage error for a header that is none."""
    from fairlead_lb.decisions.router_matches import Request  # noqa: PLC0415  # see above

    host, slash, rest = where.partition("/")
    path, _, query = rest.partition("?")
    found: dict[str, list[str]] = {"host": [host]} if not where.startswith(":") else {}
    for text in headers:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--header {text}: NAME=VALUE, as X-Version=2")
        found.setdefault(name.lower(), []).append(value)
    return Request(path=f"{slash or '/'}{path}", query=query, method=method.upper(), headers=found)


def leads(
    status: Mapping[str, Any], service: Mapping[str, Any], asked: Any
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any], Sequence[str]]:
    """Where a balancer's `/status` leads the request beyond `service`: the service that gets it (None: it answers 503),
    what of the router says so, and the same in lines.
    """
    place = (service["service"], service["port_index"])
    found = next((r for r in status.get("routers", ()) if (r["service"], r["port_index"]) == place), None)
    if found is None:
        return service, {}, ()
    from fairlead_discovery.policies import Router  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.router_files import when  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.router_matches import taken  # noqa: PLC0415  # see above

    made = msgspec.convert(found["router"], Router)
    number = taken(made, asked)
    later = "" if found["in_force"] else " (after the reload that is due)"
    if not number:
        return service, {"route": 0}, [f"none of its router's {len(made.route)} routes takes it{later}: it stays"]
    to, leg = found["to"][number - 1], made.route[number - 1]
    said: dict[str, Any] = {"route": number, "when": when(leg), "to": to, "in_force": found["in_force"]}
    if to is None:
        return None, said, [f"its router's route {number} ({said['when']}) leads nowhere: it answers 503{later}"]
    target = next((s for s in status["services"] if s["backend"] == to["backend"]), None)
    text = f"its router's route {number} ({said['when']}) leads to {to['service']} port {to['port_index']}{later}"
    return target, said, [text]

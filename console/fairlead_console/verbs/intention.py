"""`fairlead intention`: who may call whom. Written to the registry; balancers judge by it a moment later."""

from collections.abc import Mapping
from typing import Any

import click

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs.registry import in_registry
from fairlead_daemon.errors import Refused


@click.group(
    epilog="Example: fairlead intention allow marathon:/shop/web marathon:/shop/cart --method GET --path /items"
)
def intention() -> None:
    """Who may call whom, by identity, method and path.

    FROM and TO are services (framework:name). FROM may be `*`, anybody with an identity, or `anonymous`: whoever has
    none, as every caller that does not come by a mesh port with a certificate. TO may be `*`, every service. A name counts before `*`, a longer path before a shorter one, deny among equals.
    """


@intention.command(name="list", epilog="Example: fairlead intention list")
@registry_verb
def list_(use: Use) -> None:
    """Every intention, by the service that is called."""
    found, _ = _look(use)
    rows = [
        (s.name, service, s.action, ", ".join(s.methods) or "all", ", ".join(s.paths) or "all")
        for service, one in sorted(found.items())
        for s in one.sources
    ]
    if use.as_json:
        import msgspec  # noqa: PLC0415  # `--help` is fast without it

        show_json({service: msgspec.to_builtins(one) for service, one in sorted(found.items())})
        return
    rows += [("(others)", service, one.default, "all", "all") for service, one in sorted(found.items()) if one.default]
    rows += _unspoken(found)
    show_table(("from", "to", "action", "methods", "paths"), rows, empty="no intention; the balancers' default counts")


def _unspoken(found: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """What counts for anonymous callers of services of which nothing says it."""
    from fairlead_discovery.decisions.identity import ANONYMOUS  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.intentions import covers  # noqa: PLC0415  # see above

    return [
        (ANONYMOUS, service, _fallback(service, found) or "balancers' default", "all", "all")
        for service in sorted(found)
        if not covers(service, found, ANONYMOUS)
    ]


def _fallback(service: str, found: Mapping[str, Any]) -> str:
    """The default of the service's record, else of that for every service; "": neither says one."""
    return next((str(found[place].default) for place in (service, "*") if place in found and found[place].default), "")


def _options(function: Any) -> Any:
    path = click.option("--path", "paths", multiple=True, help="Only below this path; may be repeated.")
    return click.option("--method", "methods", multiple=True, help="Only this method; may be repeated.")(path(function))


@intention.command(epilog="Example: fairlead intention allow marathon:/shop/web marathon:/shop/cart")
@click.argument("caller", metavar="FROM")
@click.argument("service", metavar="TO")
@_options
@registry_verb
def allow(use: Use, caller: str, service: str, methods: tuple[str, ...], paths: tuple[str, ...]) -> None:
    """FROM may call TO."""
    _say(use, caller, service, "allow", (methods, paths))


@intention.command(epilog="Example: fairlead intention deny '*' marathon:/shop/cart --path /admin")
@click.argument("caller", metavar="FROM")
@click.argument("service", metavar="TO")
@_options
@registry_verb
def deny(use: Use, caller: str, service: str, methods: tuple[str, ...], paths: tuple[str, ...]) -> None:
    """FROM may not call TO."""
    _say(use, caller, service, "deny", (methods, paths))


@intention.command(epilog="Example: fairlead intention default deny marathon:/shop/cart")
@click.argument("action", type=click.Choice(["allow", "deny", "none"]))
@click.argument("service", metavar="TO")
@registry_verb
def default(use: Use, action: str, service: str) -> None:
    """What counts for callers of TO that no intention names; `none` leaves it to the balancers' setting."""
    from msgspec.structs import replace  # noqa: PLC0415  # see above

    wanted = "" if action == "none" else action
    revision = in_registry(use, lambda opened: _change(opened, service, lambda one: replace(one, default=wanted)))
    _told(use, revision, f"{service}: default {action}")


@intention.command(epilog="Example: fairlead intention remove marathon:/shop/web marathon:/shop/cart")
@click.argument("caller", metavar="FROM")
@click.argument("service", metavar="TO")
@click.option("--broken", is_flag=True, help="Forget all that is said of TO, when that cannot be read.")
@registry_verb
def remove(use: Use, caller: str, service: str, *, broken: bool) -> None:
    """Forget all that was said of FROM calling TO."""
    from msgspec.structs import replace  # noqa: PLC0415  # see above

    def without(one: Any) -> Any:
        left = tuple(s for s in one.sources if s.name != caller)
        if len(left) == len(one.sources):
            raise Refused(f"{service}: no intention for {caller}")
        return replace(one, sources=left)

    if broken:
        _told(use, in_registry(use, lambda opened: _forget(opened, service)), f"anybody to {service}: forgotten")
        return
    _told(use, in_registry(use, lambda opened: _change(opened, service, without)), f"{caller} to {service}: forgotten")


@intention.command(epilog="Example: fairlead intention check marathon:/shop/web marathon:/shop/cart GET /items/1")
@click.argument("caller", metavar="FROM")
@click.argument("service", metavar="TO")
@click.argument("method", default="")
@click.argument("path", default="/")
@click.option("--default", "assumed", type=click.Choice(["allow", "deny"]), default="allow", show_default=True,
              help="The balancers' intentions_default.")  # fmt: skip
@registry_verb
def check(use: Use, caller: str, service: str, method: str, path: str, assumed: str) -> int:
    """Whether FROM may call TO, and by which word. Without METHOD: as a TCP connection. Exit 0 when it may, 1 when not."""
    from fairlead_discovery.decisions.identity import ANONYMOUS  # noqa: PLC0415  # see above
    from fairlead_discovery.policies import Intentions  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.intentions import judge  # noqa: PLC0415  # see above

    records, bad = _look(use)
    records = {**records, **{broken: Intentions(service=broken, default="deny") for broken in bad}}
    found = judge(service, records, assumed, caller, method.upper(), path)
    other = judge(service, records, assumed, ANONYMOUS, method.upper(), path)
    if use.as_json:
        show_json(
            {"from": caller, "to": service, "allowed": found.allowed, "why": found.why, "anonymous": other.allowed}
        )
    else:
        say(f"{caller} {'may' if found.allowed else 'may not'} call {service}: {found.why}")
        if caller != ANONYMOUS:
            say(f"without an identity ({ANONYMOUS}): {'may' if other.allowed else 'may not'}: {other.why}")
    return 0 if found.allowed else 1


def _say(use: Use, caller: str, service: str, action: str, only: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    from msgspec.structs import replace  # noqa: PLC0415  # see above

    from fairlead_discovery.policies import Source  # noqa: PLC0415  # see above

    methods = tuple(m.upper() for m in only[0])
    said = Source(name=caller, action=action, methods=methods, paths=only[1])

    def with_it(one: Any) -> Any:
        others = [s for s in one.sources if (s.name, s.methods, s.paths) != (caller, methods, only[1])]
        return replace(one, sources=(*others, said))

    revision = in_registry(use, lambda opened: _change(opened, service, with_it))
    _told(use, revision, f"{caller} {'may' if action == 'allow' else 'may not'} call {service}")
    if caller == "*" and not use.as_json:
        _of_the_others(service, action, only, _look(use)[0])


def _of_the_others(
    service: str, action: str, only: tuple[tuple[str, ...], tuple[str, ...]], records: Mapping[str, Any]
) -> None:
    """`*` is who has an identity: says so, unless something is said of the others too."""
    from fairlead_discovery.decisions.identity import ANONYMOUS  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.intentions import covers  # noqa: PLC0415  # see above

    if covers(service, records, ANONYMOUS):
        return
    options = [*(f"--method {m.upper()}" for m in only[0]), *(f"--path {p}" for p in only[1])]
    shown = "'*'" if service == "*" else service
    words = " ".join(["fairlead intention", action, ANONYMOUS, shown, *options])
    say(f"callers without an identity ({ANONYMOUS}) are not covered; add: {words}")


async def _change(opened: Any, service: str, change: Any) -> int:
    """As routes: who writes last counts."""
    from fairlead_discovery.policies import Intentions, path_of  # noqa: PLC0415  # see above
    from fairlead_discovery.records import encode  # noqa: PLC0415  # see above
    from fairlead_discovery.registry import Delete, Put  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.intentions import checked  # noqa: PLC0415  # see above

    place = path_of(Intentions(service=service))
    node = await opened.tree.get(place)
    try:
        before = _read(node.data, place) if node is not None else Intentions(service=service)
    except Refused as error:
        raise Refused(f"{error}; `fairlead intention remove '*' {service} --broken` forgets it whole") from error
    after = checked(change(before))
    empty = not after.sources and not after.default
    return int(await opened.commit([Delete(place, missing_ok=True) if empty else Put(place, encode(after))]))


async def _forget(opened: Any, service: str) -> int:
    """Only what cannot be read. Raises Refused for what can."""
    from fairlead_discovery.policies import Intentions, path_of  # noqa: PLC0415  # see above
    from fairlead_discovery.registry import Delete  # noqa: PLC0415  # see above

    if service not in (await _records(opened))[1]:
        raise Refused(f"{service}: its intentions can be read; without --broken what is said of FROM is forgotten")
    return int(await opened.commit([Delete(path_of(Intentions(service=service)), missing_ok=True)]))


def _look(use: Use) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Records by service, and those that cannot be read with the reason: also told on the error output."""
    found, bad = in_registry(use, _records)
    for service, why in bad.items():
        click.echo(f"{service}: {why}; balancers keep its last good record, or let nobody call it", err=True)
    return found, bad


async def _records(opened: Any) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Both by service; a node under another's name is none of its own."""
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.policies import Intentions, name_of  # noqa: PLC0415  # see above

    head, found, bad = name_of(Intentions(service="")), {}, {}
    for name in await opened.tree.names(paths.POLICIES):
        if (said := paths.unescape(name)).startswith(head):
            place = f"{paths.POLICIES}/{name}"
            if (node := await opened.tree.get(place)) is not None:
                try:
                    record = _read(node.data, place)
                    found[record.service] = record
                except Refused as error:
                    bad[said.removeprefix(head)] = str(error)
    return found, bad


def _read(data: bytes, place: str) -> Any:
    """As balancers take it. Raises Refused."""
    from fairlead_discovery.policies import Intentions, well_placed  # noqa: PLC0415  # see above
    from fairlead_discovery.records import decode  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.intentions import checked  # noqa: PLC0415  # see above

    record = decode(Intentions, data, place=place)
    well_placed(record, place)
    return checked(record)


def _told(use: Use, revision: int, what: str) -> None:
    if use.as_json:
        show_json({"revision": revision})
    else:
        say(f"{what} (revision {revision}; `fairlead route wait --revision {revision}` waits until it counts)")

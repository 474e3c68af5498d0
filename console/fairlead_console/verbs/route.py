"""`fairlead route`: routes of services, those that apps bring and those that operators write."""

import asyncio
import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from fairlead_console import balancer, derived_routes
from fairlead_console.foreseen import Foreseen, ask
from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Calls, Use, registry_verb
from fairlead_console.verbs import route_policies, route_router
from fairlead_console.verbs.lb import status_of
from fairlead_console.verbs.registry import in_registry
from fairlead_console.verbs.route_bamboo import import_bamboo, rules_of
from fairlead_console.verbs.route_canary import canary
from fairlead_console.verbs.route_consul import export, import_
from fairlead_daemon.errors import Refused, Unavailable

POLL_S = 0.1
MOST_SHOWN = 300


@click.group(epilog="Example: fairlead route add erp:db --host erp.example.com --check /health")
def route() -> None:
    """Hosts, paths and ports that lead to services: list, write, explain, wait until they are served.

    Apps bring their routes with their labels. For what fairlead does not schedule an operator writes them here,
    one by one or as a file of [[route]] entries.
    """


for _command in (
    import_bamboo,
    canary,
    route_policies.split,
    route_policies.failover,
    route_router.router,
    route_router.resolver,
    import_,
    export,
):
    route.add_command(_command)


@route.command(name="list", epilog="Example: fairlead route list")
@registry_verb
def list_(use: Use) -> None:
    """Every service's route, where it comes from, and who shares its requests or stands in for it."""
    found, policies = in_registry(use, _readable)
    entries = [(one.source, entry) for one in found.values() for entry in _entries(one)]
    if use.as_json:
        shown = [
            {"source": source, **msgspec.to_builtins(e), **route_policies.beside(policies, e.service, e.index)}
            for source, e in entries
        ]
        show_json([*shown, *rules_of(policies)])
        return
    rows = [
        (
            e.service, e.index, ", ".join(f"{h}{e.path}" for h in e.hosts)[:MOST_SHOWN] or "-", e.port or "-", e.mode, source,
            route_policies.words_of(policies, e.service, e.index, e.mode) or "-",
        )
        for source, e in entries
    ]  # fmt: skip
    rows += [
        (rule["service"], 0, ", ".join(rule["hosts"]) or "-", "-", "http", "bamboo", rule["acl"] or "(default rule)")
        for rule in rules_of(policies)
    ]
    columns = ("service", "index", "hosts", "port", "mode", "written by", "shared")
    show_table(columns, rows, empty="no service has a route")


@route.command(epilog="Example: fairlead route show marathon:/shop/web > routes.toml")
@click.argument("service")
@registry_verb
def show(use: Use, service: str) -> None:
    """The route of SERVICE as [[route]], [[split]], [[failover]] and [[intention]] entries, which `route apply` takes."""
    found, policies = in_registry(use, _readable)
    one = found.get(service)
    others = route_policies.entries(policies, service)
    if one is None and not others:
        raise Refused(_no_route(service, list(found)))
    entries = [msgspec.to_builtins(entry) for entry in (_entries(one) if one is not None else ())]
    if use.as_json:
        show_json([{**e, **route_policies.beside(policies, service, e.get("index", 0))} for e in entries])
    else:
        tables = [("route", entry) for entry in entries] + others
        say("\n".join(route_policies.toml(table, entry) for table, entry in tables))


@route.command(epilog="Example: fairlead route add erp:db --host erp.example.com --path /api --check /health")
@click.argument("service")
@click.option("--index", default=0, show_default=True, help="Which of the service's ports.")
@click.option("--host", "hosts", multiple=True, help="Virtual host, perhaps *.example.com; may be repeated.")
@click.option("--path", default="", help="Only below this path of the hosts.")
@click.option("--port", default=0, help="Service port of its own.")
@click.option("--mode", default="http", type=click.Choice(["http", "tcp", "tls"]), show_default=True)
@click.option("--balance", default="roundrobin", show_default=True, help="HAProxy's algorithm.")
@click.option("--sticky", is_flag=True, help="A client stays with its server, by cookie.")
@click.option("--check", default="", help="A path HAProxy asks for, or tcp.")
@click.option("--check-every", default="2s", show_default=True)
@click.option("--check-timeout", default="2s", show_default=True, help="A check that takes longer has failed.")
@click.option("--check-fall", default=3, show_default=True, help="Failed checks until a server gets no requests.")
@click.option("--timeout", default="1m", show_default=True, help="How long a server may take.")
@click.option("--reuse", is_flag=True, help="Connections to servers are kept: the service never closes an idle one.")
@click.option("--group", "groups", multiple=True, help="Only balancers of this group serve it; may be repeated.")
@click.option(
    "--rule", "rules", multiple=True, metavar="WORD=VALUE", help="A traffic rule, as rate=100/s; see lb/README."
)
@registry_verb
def add(use: Use, service: str, *, rules: tuple[str, ...], **fields: Any) -> None:
    """Write or replace one route of SERVICE (framework:name, as in `route list`)."""
    fields["traffic"] = dict(_rule(text) for text in rules)
    from fairlead_lb.decisions.route_files import Entry, entries_of, routes_of, writable  # noqa: PLC0415  # `--help` is fast

    async def write(opened: Any) -> int:
        found, bad = await _all_routes(opened)
        if service in bad:
            raise Refused(f"{bad[service]}; `fairlead route remove {service}` first")
        now = found.get(service)
        writable(now, service)
        others = [e for e in (entries_of(now) if now is not None else ()) if e.index != fields["index"]]
        made = routes_of([*others, Entry(service=service, **fields)], "route add")
        return await _commit(opened, made, ())

    _written(use, in_registry(use, write), f"{service}: routed")


def _rule(text: str) -> tuple[str, str]:
    word, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--rule {text}: WORD=VALUE, as rate=100/s")
    return word.replace("-", "_"), value


@route.command(epilog="Example: fairlead route remove erp:db")
@click.argument("service")
@registry_verb
def remove(use: Use, service: str) -> None:
    """Remove the route of SERVICE that an operator wrote, or that cannot be read."""
    from fairlead_lb.decisions.route_files import writable  # noqa: PLC0415  # see above

    async def write(opened: Any) -> int:
        found, bad = await _all_routes(opened)
        if service not in found and service not in bad:
            raise Refused(_no_route(service, list(found)))
        writable(found.get(service), service)
        return await _commit(opened, {}, (service,))

    _written(use, in_registry(use, write), f"{service}: no route any more")


@route.command(epilog="Example: fairlead route plan routes.toml --prune")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--prune",
    is_flag=True,
    help="Also remove operators' routes that FILE does not have; intentions only if it has some.",
)
@registry_verb
def plan(use: Use, file: Path, *, prune: bool) -> int:
    """Show what applying FILE would change, and what each balancer would do: runtime commands, or a reload and why.

    Exit 0 when nothing would change, 1 when something would.
    """
    text = _text_of(file)

    async def look(opened: Any) -> tuple[Any, Any, Any]:
        return *await _plan(opened, file, text, prune=prune), await balancer.registrations(opened)

    found, policies, registered = in_registry(use, look)
    empty = found.empty and policies.empty
    told = () if empty else _foresee(use, found, policies, [(one.id, one.admin) for one in registered])
    _show_plan(use, found, policies, foreseen=told)
    return 0 if empty else 1


def _foresee(use: Use, found: Any, policies: Any, balancers: Sequence[tuple[str, str]]) -> Sequence[Foreseen]:
    routes = {**found.added, **{s: new for s, (_, new) in found.changed.items()}, **dict.fromkeys(found.removed)}
    others = {**policies.added, **policies.changed, **dict.fromkeys(policies.removed)}
    change = {"routes": msgspec.to_builtins(routes), "policies": msgspec.to_builtins(others)}
    return use.run(lambda calls: ask(calls, balancers, change))


@route.command(epilog="Example: fairlead route diff routes.toml --prune")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prune", is_flag=True, help="Also operators' routes that FILE does not have.")
@registry_verb
def diff(use: Use, file: Path, *, prune: bool) -> int:
    """Where FILE and the registry differ, line by line, as `route show` prints them. Exit 1 when they do."""
    text = _text_of(file)
    found, policies = in_registry(use, lambda opened: _plan(opened, file, text, prune=prune))
    before = [*found.removed.values(), *(old for old, _ in found.changed.values())]
    after = [*found.added.values(), *(new for _, new in found.changed.values())]
    lines = [*_diff(_toml(before), _toml(after), file), *_policy_lines(policies)]
    if use.as_json:
        show_json(lines)
    else:
        say("\n".join(lines) if lines else "no difference")
    return 1 if lines else 0


def _toml(routes: Sequence[Any]) -> str:
    entries = [msgspec.to_builtins(e) for one in sorted(routes, key=lambda r: r.service) for e in _entries(one)]
    return "\n".join(route_policies.toml("route", entry) for entry in entries)


def _diff(before: str, after: str, file: Path) -> Sequence[str]:
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), "registry", str(file), lineterm=""))


@route.command(epilog="Example: fairlead route apply routes.toml --prune")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--prune",
    is_flag=True,
    help="Also remove operators' routes that FILE does not have; intentions only if it has some.",
)
@registry_verb
def apply(use: Use, file: Path, *, prune: bool) -> None:
    """Make the routes those of FILE, in one commit."""
    text = _text_of(file)

    async def write(opened: Any) -> tuple[Any, Any, int]:
        found, policies = await _plan(opened, file, text, prune=prune)
        changed = {**found.added, **{s: new for s, (_, new) in found.changed.items()}}
        others = route_policies.puts({**policies.added, **policies.changed}, policies.removed)
        empty = found.empty and policies.empty
        return found, policies, 0 if empty else await _commit(opened, changed, tuple(found.removed), others)

    found, policies, revision = in_registry(use, write)
    _show_plan(use, found, policies, revision=revision)


@route.command(epilog="Example: fairlead route explain shop.example.com/cart?v=2 --header X-Beta=1; or: … :10100/cart")
@click.argument("where")
@click.option("--method", default="GET", show_default=True)
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Of the request; may be repeated.")
@click.option("--balancer", "name", default="", help="Whom to ask, as in `lb list`. Default: the first that answers.")
@registry_verb
def explain(use: Use, where: str, *, method: str, headers: tuple[str, ...], name: str) -> None:
    """Which service a request for WHERE (HOST[/PATH] or :PORT[/PATH], with a query) meets, where its router leads, and
    which servers may answer it.
    """
    found = status_of(use, name)
    from fairlead_lb.decisions.route_files import meets  # noqa: PLC0415  # see above

    where = where.partition("://")[2] or where
    asked = route_router.request(where, method, headers)
    host = where.partition("?")[0].partition("/")[0]
    if not host:
        raise click.UsageError("WHERE is HOST[/PATH] or :PORT")
    if where.startswith(":"):
        service = next((s for s in found["services"] if f":{s['service_port']}" == host), None)
        entry = host
    else:
        hosts = {key: s["backend"] for s in found["services"] for key in s["hosts"]}
        met = meets(hosts, host, asked.path)
        entry = met[0] if met is not None else ""
        service = next((s for s in found["services"] if met is not None and s["backend"] == met[1]), None)
    if service is None:
        raise Refused(f"{where}: no route; the balancer answers 404, or refuses the connection{_unless(found)}")
    target, router, routed = route_router.leads(found, service, asked)
    split, lines = route_policies.explained(found, target) if target is not None else (None, ())
    if use.as_json:
        show_json({"where": where, "entry": entry, **(target or service), "split": split, "router": router or None})
        return
    say(f"{where} meets {entry}: {service['service']} port {service['port_index']}, backend {service['backend']}")
    for line in (*routed, *lines):
        say(line)
    if target is None:
        return
    service = target
    rows = [
        (s["task"] or "?", f"{s['host']}:{s['port']}", s["state"], s["weight"], s["sessions"])
        for s in service["servers"]
    ]
    show_table(("task", "address", "state", "weight", "sessions"), rows, empty="no server: it answers 503")


@route.command(epilog="Example: fairlead route wait --service erp:db && curl -H 'Host: erp.example.com' …")
@click.option("--service", default="", help="Also wait until this service has a ready server everywhere.")
@click.option("--revision", default=-1, help="Registry revision to wait for. Default: the newest now.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, help="Seconds.")
@registry_verb
def wait(use: Use, service: str, revision: int, timeout_s: float) -> None:
    """Wait until every registered balancer has applied a revision, as read back from HAProxy. Exit 3 when one has not.

    Node balancers, one a machine, are not asked.
    """
    wanted = revision if revision >= 0 else in_registry(use, _revision)
    end_s = time.monotonic() + timeout_s
    while left := _behind(use, wanted, service):
        if time.monotonic() > end_s:
            raise Unavailable(f"revision {wanted}: not within {timeout_s:g} s: {'; '.join(left)}")
        time.sleep(POLL_S)
    if use.as_json:
        show_json({"revision": wanted, "service": service or None})
    else:
        say(f"revision {wanted} is served{f', {service} with a ready server' if service else ''}")


def _behind(use: Use, revision: int, service: str) -> Sequence[str]:
    """Who has not applied it yet, in words."""
    registered = [one for one in in_registry(use, balancer.registrations) if not one.node]
    if not registered:
        return ("no balancer is registered",)
    left = [f"{one.id} is at {one.applied}" for one in registered if one.applied is None or one.applied < revision]
    if left or not service:
        return left
    return use.run(lambda calls: _without(calls, [(one.id, one.admin) for one in registered], service))


async def _without(calls: Calls, balancers: Sequence[tuple[str, str]], service: str) -> Sequence[str]:
    asked = f"?fresh=1&service={quote(service, safe='')}"
    found = await asyncio.gather(*(calls.url("GET", f"{admin}/status{asked}") for _, admin in balancers))
    return [
        f"{name} has no ready server of {service}"
        for (name, _), status in zip(balancers, found, strict=True)
        if not any(
            server["state"] == "ready"
            for s in status["services"]
            if s["service"] in (service, *_groups(status, service))
            for server in s["servers"]
        )
    ]


def _groups(status: Mapping[str, Any], service: str) -> Sequence[str]:
    """As which it is served, where it is one colour of a deployment."""
    return [group for group, told in status.get("groups", {}).items() if service in told["services"]]


def _unless(found: Mapping[str, Any]) -> str:
    """Lines of the frontend are HAProxy's to judge."""
    rules = [f"{r['conditions']} (to {r['service']})" for r in found.get("rules", ())]
    return f", unless {' or '.join(rules[:3])}{' …' if len(rules) > 3 else ''}" if rules else ""


async def _revision(opened: Any) -> int:
    from contextlib import aclosing  # noqa: PLC0415  # see above

    async with aclosing(opened.watch()) as sights:
        async for sight in sights:
            if sight.in_sight:
                return int(sight.revision)
    raise Unavailable("the registry is out of sight")


async def _routes(opened: Any) -> Mapping[str, Any]:
    """Every route record by service. Raises Refused for one that cannot be read."""
    found, bad = await _all_routes(opened)
    for why in bad.values():
        raise Refused(why)
    return found


async def _all_routes(opened: Any) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """By service: records, and why others cannot be read."""
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.records import Route, decode  # noqa: PLC0415  # see above

    names = await opened.tree.names(paths.ROUTES)
    nodes = await asyncio.gather(*(opened.tree.get(f"{paths.ROUTES}/{name}") for name in names))
    found, bad = {}, {}
    for name, node in zip(names, nodes, strict=True):
        if node is not None:
            try:
                found[paths.unescape(name)] = decode(Route, node.data, place=f"{paths.ROUTES}/{name}")
            except Refused as error:
                bad[paths.unescape(name)] = str(error)
    return found, bad


async def _readable(opened: Any) -> tuple[Mapping[str, Any], Sequence[Any]]:
    """Routes, also those that labels make, and policies, to be shown: what cannot be read is named on the error output."""
    found, bad = await _all_routes(opened)
    for service, why in bad.items():
        click.echo(f"{service}: {why}; balancers keep its last good route", err=True)
    from_labels = await derived_routes.of_labels(opened, found.keys() | bad.keys())
    return {**found, **from_labels}, await route_policies.policies(opened)


def _text_of(file: Path) -> str:
    """Raises Refused naming the file."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: {error}") from error


async def _plan(opened: Any, file: Path, text: str, *, prune: bool) -> tuple[Any, Any]:
    """Of routes, and of splits, failovers and intentions."""
    from fairlead_lb.decisions import route_files, split_files  # noqa: PLC0415  # see above

    wanted, others = route_files.parse(text, str(file)), split_files.parse(text, str(file))
    routes, policies = await _written_down(opened)
    return route_files.plan(routes, wanted, prune=prune), split_files.plan(policies, others, prune=prune)


async def _written_down(opened: Any) -> tuple[Mapping[str, Any], Sequence[Any]]:
    """Routes, and policies."""
    return await _routes(opened), await route_policies.policies(opened)


async def _commit(opened: Any, written: Mapping[str, Any], removed: Sequence[str], others: Sequence[Any] = ()) -> int:
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.records import encode  # noqa: PLC0415  # see above
    from fairlead_discovery.registry import Delete, Put  # noqa: PLC0415  # see above

    puts = [Put(paths.route(service), encode(one)) for service, one in written.items()]
    gone = [Delete(paths.route(service), missing_ok=True) for service in removed]
    return int(await opened.commit([*puts, *gone, *others]))


def _written(use: Use, revision: int, told: str) -> None:
    if use.as_json:
        show_json({"revision": revision})
    else:
        say(f"{told} (revision {revision}; `fairlead route wait --revision {revision}` waits until it is served)")


def _show_plan(use: Use, found: Any, policies: Any, *, revision: int = 0, foreseen: Sequence[Foreseen] = ()) -> None:
    if use.as_json:
        show_json({
            "add": sorted(found.added), "change": sorted(found.changed), "remove": sorted(found.removed),
            "policies": {
                what: sorted(getattr(policies, what)) for what in ("added", "changed", "removed")
            },
            **({"revision": revision} if revision else {}),
            **({"balancers": [asdict(one) for one in foreseen]} if foreseen else {}),
        })  # fmt: skip
        return
    lines = [f"+ {s}" for s in sorted(found.added)] + [f"- {s}" for s in sorted(found.removed)]
    lines += [f"~ {s}: {', '.join(_differences(*pair))}" for s, pair in sorted(found.changed.items())]
    lines += _policy_lines(policies)
    lines += [line for one in foreseen for line in one.lines()]
    done = f"done (revision {revision})" if revision else ""
    say("\n".join([*lines, *([done] if done else [])]) if lines else "nothing to change")


def _policy_lines(policies: Any) -> Sequence[str]:
    signs = (("+", policies.added), ("-", policies.removed), ("~", policies.changed))
    return [f"{sign} {name}: {route_policies.told(one)}" for sign, some in signs for name, one in sorted(some.items())]


def _differences(before: Any, after: Any) -> Sequence[str]:
    """Port by port, field by field."""
    then = {e.index: msgspec.structs.asdict(e) for e in _entries(before)}
    now = {e.index: msgspec.structs.asdict(e) for e in _entries(after)}
    found = [f"port {i} {'added' if i in now else 'removed'}" for i in sorted(then.keys() ^ now.keys())]
    for index in sorted(then.keys() & now.keys()):
        old, new = then[index], now[index]
        found += [f"port {index} {f} {old[f]!r} -> {new[f]!r}" for f in new if old[f] != new[f]]
    return found or ["written by another version"]


def _entries(one: Any) -> Sequence[Any]:
    from fairlead_lb.decisions.route_files import entries_of  # noqa: PLC0415  # see above

    return list(entries_of(one))


def _no_route(service: str, known: Sequence[str]) -> str:
    from fairlead_console.decisions.names import nearest  # noqa: PLC0415  # only for an error

    near = nearest(service, known)
    return f"{service}: has no route{f'; did you mean {near[0]}?' if near else ''}"

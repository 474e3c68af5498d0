"""`fairlead route split|failover`: whom else a service's requests go to."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from fairlead_console.output import say, show_json
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs.registry import in_registry
from fairlead_daemon.errors import Refused


@click.command(epilog="Example: fairlead route split erp:db --to erp:db2=5 --to erp:db3=0.5% --sticky")
@click.argument("service")
@click.option(
    "--to", "shares", multiple=True, metavar="OTHER=PERCENT", help="A share; OTHER#1 for its port of index 1."
)
@click.option(
    "--sticky", default="", is_flag=False, flag_value="cookie", metavar="[cookie|source|header]",
    help="A client stays where it was sent first; by a cookie unless told otherwise.",
)  # fmt: skip
@click.option("--index", default=0, show_default=True, help="Which of SERVICE's ports.")
@click.option("--remove", is_flag=True, help="Everything stays with SERVICE again.")
@registry_verb
def split(use: Use, service: str, *, shares: tuple[str, ...], sticky: str, index: int, remove: bool) -> None:
    """Share the requests of SERVICE with others by percent; what is left over stays. Without options: show it.

    These shares replace those before. Balancers follow without a reload.
    """
    from fairlead_discovery.policies import Split  # noqa: PLC0415  # `--help` is fast without it
    from fairlead_lb.decisions.split_files import SplitEntry, split_of  # noqa: PLC0415  # see above

    if remove:
        done(use, in_registry(use, lambda opened: take_away(opened, Split, service)), f"{service}: not split any more")
    elif not shares:
        _show(use, in_registry(use, policies), service, Split)
    else:
        made = split_of(SplitEntry(service=service, index=index, to=_shares(shares), sticky=sticky), "route split")
        done(use, in_registry(use, lambda opened: _write(opened, made)), f"{service}: {told(made)}")


@click.command(epilog="Example: fairlead route failover erp:db --to erp:db-north --min-ready 2 --back-after 30s")
@click.argument("service")
@click.option(
    "--to", "others", multiple=True, metavar="OTHER", help="Who stands in; the first that has a ready server."
)
@click.option("--min-ready", default=1, show_default=True, help="Fewer ready servers of SERVICE are too few.")
@click.option("--back-after", default="10s", show_default=True, help="How long it must be well before they come back.")
@click.option("--index", default=0, show_default=True, help="Which of SERVICE's ports.")
@click.option("--remove", is_flag=True, help="Nobody stands in any more.")
@registry_verb
def failover(use: Use, service: str, *, others: tuple[str, ...], remove: bool, **how: Any) -> None:
    """Name who stands in for SERVICE while it has too few ready servers. Without options: show it."""
    from fairlead_discovery.policies import Failover  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.split_files import FailoverEntry, failover_of  # noqa: PLC0415  # see above

    if remove:
        done(use, in_registry(use, lambda opened: take_away(opened, Failover, service)), f"{service}: no failover")
    elif not others:
        _show(use, in_registry(use, policies), service, Failover)
    else:
        made = failover_of(FailoverEntry(service=service, to=others, **how), "route failover")
        done(use, in_registry(use, lambda opened: _write(opened, made)), f"{service}: {told(made)}")


def told(policy: Any) -> str:
    """In words: `5 % to erp:db2, sticky by cookie`."""
    from fairlead_discovery.policies import Intentions, Resolver, Router, Split  # noqa: PLC0415  # see above

    if isinstance(policy, Intentions):
        from fairlead_lb.decisions import intention_files  # noqa: PLC0415  # see above

        return intention_files.told(policy)
    if isinstance(policy, Resolver):
        from fairlead_lb.decisions import resolver_files  # noqa: PLC0415  # see above

        return resolver_files.told(policy)
    if isinstance(policy, Router):
        from fairlead_lb.decisions import router_files  # noqa: PLC0415  # see above

        return router_files.told(policy)
    if not isinstance(policy, Split):
        others = ", then ".join(t.service for t in policy.to)
        few = f" while it has fewer than {policy.min_ready} ready servers" if policy.min_ready > 1 else ""
        return f"falls over to {others}{few}"
    shares = ", ".join(f"{s.percent:g} % to {s.service}" for s in policy.shares)
    return f"{shares}{f', sticky by {policy.sticky}' if policy.sticky else ''}"


async def policies(opened: Any) -> Sequence[Any]:
    """Every policy of the registry that can be read, in the order of their nodes' names."""
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.policies import AnyPolicy, name_of  # noqa: PLC0415  # see above
    from fairlead_discovery.records import decode  # noqa: PLC0415  # see above

    found: list[Any] = []
    for name in await opened.tree.names(paths.POLICIES):
        node = await opened.tree.get(f"{paths.POLICIES}/{name}")
        try:
            policy: Any = decode(AnyPolicy, node.data, place=name) if node is not None else None  # type: ignore[arg-type]  # a union
        except Refused as error:
            click.echo(f"{error}: left out", err=True)
            continue
        if policy is not None and name_of(policy) == paths.unescape(name):
            found.append(policy)
        elif policy is not None:
            click.echo(f"{name}: it holds what belongs under {name_of(policy)}: left out", err=True)
    return found


def puts(written: Mapping[str, Any], removed: Mapping[str, Any]) -> list[Any]:
    """Changes for one commit."""
    from fairlead_discovery.policies import path_of  # noqa: PLC0415  # see above
    from fairlead_discovery.records import encode  # noqa: PLC0415  # see above
    from fairlead_discovery.registry import Delete, Put  # noqa: PLC0415  # see above

    return [
        *(Put(path_of(policy), encode(policy)) for policy in written.values()),
        *(Delete(path_of(policy), missing_ok=True) for policy in removed.values()),
    ]


def beside(found: Sequence[Any], service: str, index: int) -> Mapping[str, Any]:
    """What policies say of one port, by their kind: beside its route in JSON. Intentions are of all ports, and several."""
    mine = entries(found, service)
    one = {t: e for t, e in mine if t != "intention" and e.get("index", 0) == index}
    said = [e for t, e in mine if t == "intention"]
    return {**one, "intentions": said} if said else one


def words_of(found: Sequence[Any], service: str, index: int, mode: str) -> str:
    """The same in words; "" when they say nothing. What balancers refuse is shown as that. `mode`: of the port."""
    from fairlead_discovery.policies import Canary, Failover, Resolver, Router, Split  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.splits import refusal, split_of  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.values import Key  # noqa: PLC0415  # see above

    def said_of(policy: Any, text: str) -> str:
        split = policy if isinstance(policy, Split) else split_of(policy, None)
        modes = {Key(service, index): mode, **{Key(s.service, s.index): mode for s in split.shares}}
        why = refusal(split, modes)
        return f"{text} (refused: {why})" if why else text

    mine = [p for p in found if p.service == service and getattr(p, "index", index) == index]
    said = [
        said_of(p, told(p)) if isinstance(p, Split) else told(p)
        for p in mine
        if isinstance(p, Split | Failover | Router | Resolver)
    ]
    return "; ".join([*said, *(said_of(p, f"canary {p.to.service}") for p in mine if isinstance(p, Canary))])


def explained(status: Mapping[str, Any], service: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Sequence[str]]:
    """What a balancer's `/status` says of where else one port's requests go, and the same in lines."""
    place = (service["service"], service["port_index"])
    found = next((s for s in status.get("splits", ()) if (s["service"], s["port_index"]) == place), None)
    if found is None:
        return None, ()
    lines = [
        f"{s['percent']:g} % go to {s['service']}"
        + (f" ({s['ready']} ready)" if not s["falls_back"] else ", but stay here: it has no ready server")
        for s in found["shares"]
    ]
    if lines:
        how = f", sticky by {found['sticky']}" if found["sticky"] else ""
        lines.append(f"{found['rest_percent']:g} % stay with {service['service']} (by its {found['by']}{how})")
    if (over := found["failover"]) is not None:
        held = "; it is well again, and they come back soon" if over["held"] else ""
        to = ", then ".join(t["service"] for t in over["to"])
        lines.append(f"fails over to {to}" + (f": now all go to {over['active']}{held}" if over["active"] else ""))
    return found, lines


def entries(found: Sequence[Any], service: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Tables of a route file, of one service or of all."""
    from fairlead_lb.decisions.split_files import entries_of  # noqa: PLC0415  # see above

    mine = [p for p in found if service in ("", p.service)]
    return [(table, msgspec.to_builtins(entry)) for table, entry in entries_of(mine)]


def toml(table: str, entry: Mapping[str, Any]) -> str:
    """A router's routes are tables of their own, behind it."""
    legs = entry.get("route", ()) if table == "router" else ()
    plain = {name: value for name, value in entry.items() if not (legs and name == "route")}
    lines = [f"[[{table}]]", *(f"{name} = {_toml_value(value)}" for name, value in plain.items())]
    return "\n".join([*lines, *(toml("router.route", leg) for leg in legs)])


def _toml_value(value: object) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{msgspec.json.encode(k).decode()} = {_toml_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return msgspec.json.encode(value).decode()


def _shares(given: Sequence[str]) -> Mapping[str, float]:
    from fairlead_lb.decisions.split_files import percent  # noqa: PLC0415  # see above

    found: dict[str, float] = {}
    for text in given:
        other, equals, share = text.rpartition("=")
        if not equals:
            raise click.UsageError(f"--to {text}: expected OTHER=PERCENT, as erp:db2=5")
        if other in found:
            raise click.UsageError(f"--to {other}: given twice")
        found[other] = percent(share, f"--to {text}")
    return found


async def _write(opened: Any, policy: Any) -> int:
    from fairlead_lb.decisions.split_files import plan  # noqa: PLC0415  # see above

    plan(await policies(opened), {"it": policy}, prune=False)
    return int(await opened.commit(puts({"it": policy}, {})))


async def take_away(opened: Any, kind: Any, service: str) -> int:
    """The revision. Raises Refused when there is none."""
    found = next((p for p in await policies(opened) if isinstance(p, kind) and p.service == service), None)
    if found is None:
        raise Refused(f"{service}: has no {kind.__struct_config__.tag}")
    return int(await opened.commit(puts({}, {service: found})))


def _show(use: Use, found: Sequence[Any], service: str, kind: Any) -> None:
    mine = next((p for p in found if isinstance(p, kind) and p.service == service), None)
    if use.as_json:
        show_json(msgspec.to_builtins(mine) if mine is not None else None)
    else:
        say(f"{service}: {told(mine)}" if mine is not None else f"{service}: no {kind.__struct_config__.tag}")


def done(use: Use, revision: int, text: str) -> None:
    """Says that it is written, and how to wait for it."""
    if use.as_json:
        show_json({"revision": revision})
    else:
        say(f"{text} (revision {revision}; `fairlead route wait --revision {revision}` waits until it is served)")

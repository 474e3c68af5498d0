"""`fairlead route import-bamboo`: the rules of a Bamboo's tree in ZooKeeper become ours."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import click

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs.registry import in_registry


@click.command(
    epilog="Example: fairlead route import-bamboo --from zk://10.0.0.1:2181/marathon-haproxy/state --dry-run"
)
@click.option("--from", "source", default="", metavar="URL", help="zk://host:port,host:port/path of Bamboo's nodes.")
@click.option("--config", default="", metavar="FILE", help="Bamboo's JSON file, whose ZooKeeper it is.")
@click.option("--framework", default="marathon", show_default=True, help="Whose apps they are.")
@click.option("--dry-run", is_flag=True, help="Show it, write nothing.")
@click.option("--replace", is_flag=True, help="Also replace rules of ours that say something else.")
@click.option("--allow-raw", is_flag=True, help="Also take what needs allow_raw_acl at the balancers.")
@registry_verb
def import_bamboo(use: Use, source: str, config: str, framework: str, **how: bool) -> int:
    """Copy the rules of a Bamboo into the registry, in one commit. Exit 1 when one could not be taken.

    Each is parsed as balancers will: what they could not hold is named with the reason, and left where it is.
    """
    url = source or _of_file(config)
    if not url:
        raise click.UsageError("give --from zk://host:port/path, or --config with a ZooKeeper in it")
    steps, revision = in_registry(use, lambda opened: _imported(opened, url, framework, **how))
    _show(use, steps, revision)
    return 1 if any(step.what == "refused" for step in steps) else 0


def _of_file(config: str) -> str:
    if not config:
        return ""
    from fairlead_lb.bamboo.settings import beneath  # noqa: PLC0415  # `--help` is fast without it

    return str(beneath({"bamboo_config": config}).get("bamboo_zookeeper", ""))


async def _imported(
    opened: Any, url: str, framework: str, *, dry_run: bool, replace: bool, allow_raw: bool
) -> tuple[Sequence[Any], int]:
    from fairlead_discovery.policies import path_of  # noqa: PLC0415  # see above
    from fairlead_discovery.records import encode  # noqa: PLC0415  # see above
    from fairlead_discovery.registry import Put  # noqa: PLC0415  # see above
    from fairlead_lb.bamboo.tree import read_once  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.bamboo_import import plan  # noqa: PLC0415  # see above

    tree = await read_once(url, framework)
    steps = plan(tree.rules, tree.skipped, await _ours(opened), raw=allow_raw, replace=replace)
    puts = [Put(path_of(step.rule), encode(step.rule)) for step in steps if step.rule is not None]
    return steps, 0 if dry_run or not puts else int(await opened.commit(puts))


async def _ours(opened: Any) -> Mapping[str, Any]:
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.policies import Bamboo, of_kind  # noqa: PLC0415  # see above
    from fairlead_discovery.records import decode  # noqa: PLC0415  # see above

    names = [n for n in await opened.tree.names(paths.POLICIES) if n.startswith("bamboo~")]
    nodes = await asyncio.gather(*(opened.tree.get(f"{paths.POLICIES}/{name}") for name in names))
    found = {
        paths.unescape(name): decode(Bamboo, node.data, place=f"{paths.POLICIES}/{name}")
        for name, node in zip(names, nodes, strict=True)
        if node is not None
    }
    return of_kind(found, Bamboo)


def rules_of(policies: Sequence[Any]) -> list[dict[str, Any]]:
    """Bamboo's rules beside routes: `hosts` are what of them needs no condition of the frontend."""
    from fairlead_daemon.errors import Refused  # noqa: PLC0415  # see above
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.policies import Bamboo  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.acl import Grammar  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.bamboo import claims_of  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.map_keys import shown  # noqa: PLC0415  # see above

    found = []
    for rule in policies:
        if not isinstance(rule, Bamboo):
            continue
        try:
            claims = claims_of(rule.acl, paths.split_service_key(rule.service)[1], Grammar(raw=True))
            more = {"hosts": [*map(shown, claims.keys)], "conditions": len(claims.rules), "problem": ""}
        except Refused as error:
            more = {"hosts": [], "conditions": 0, "problem": str(error)}
        found.append({"source": "bamboo", "service": rule.service, "index": 0, "acl": rule.acl, **more})
    return found


def _show(use: Use, steps: Sequence[Any], revision: int) -> None:
    if use.as_json:
        shown = [{"id": s.id, "acl": s.acl, "result": s.what, "why": s.why} for s in steps]
        show_json({"rules": shown, "revision": revision or None})
        return
    rows = [(s.what, s.id, s.acl, s.why) for s in steps]
    show_table(("result", "app", "acl", "becomes"), rows, empty="there are no rules", long_last=True)
    if revision:
        say(f"done (revision {revision}; `fairlead route wait --revision {revision}` waits until it is served)")

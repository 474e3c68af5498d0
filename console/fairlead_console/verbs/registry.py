"""`fairlead registry tree|get|watch|confirm`: the registry's own content, straight from it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import click
import msgspec

from fairlead_console.output import say, show_json
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs import registry_moves
from fairlead_daemon.errors import Refused, Unavailable

WAIT_S = 10.0


@click.group(epilog="Example: fairlead registry tree /fairlead/endpoints")
def registry() -> None:
    """Look into the registry; save, restore, check, move it; confirm a held reading.

    `fairlead registry --config FILE` runs the local registry's process instead.
    """


def in_registry(use: Use, body: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Raises Unavailable when it is out of sight."""
    return asyncio.run(with_registry(use.registry, body))


async def with_registry(url: str, body: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """What `body` returns of the opened registry. Raises Unavailable when it is out of sight."""
    from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # `--help` is fast without it

    try:
        async with asyncio.timeout(WAIT_S):
            opened = await open_registry(url, follow=False)
            try:
                return await body(opened)
            finally:
                await opened.close()
    except TimeoutError as error:
        raise Unavailable(f"{url}: no answer within {WAIT_S:.0f} s") from error


@registry.command(epilog="Example: fairlead registry tree /fairlead/endpoints")
@click.argument("path", default="/fairlead")
@registry_verb
def tree(use: Use, path: str) -> None:
    """Every path below PATH (as /fairlead or /mesos) with the size of its data."""

    async def walk(opened: Any) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        stack = [path.rstrip("/") or "/"]
        while stack:
            here = stack.pop()
            node = await opened.tree.get(here) if here != "/" else None
            if node is not None:
                found.append((here, len(node.data)))
            names = await opened.tree.names(here)
            stack += [f"{here.rstrip('/')}/{name}" for name in reversed(names)]
        return found

    found = in_registry(use, walk)
    if use.as_json:
        show_json([{"path": where, "bytes": size} for where, size in found])
        return
    if not found:
        raise Refused(f"no such path: {path}")
    for where, size in found:
        say(f"{where}  {size} B" if size else where)


@registry.command(epilog="Example: fairlead registry get /fairlead/cluster")
@click.argument("path")
@registry_verb
def get(use: Use, path: str) -> None:
    """The data of one PATH as it is stored."""

    async def read(opened: Any) -> Any:
        return await opened.tree.get(path)

    node = in_registry(use, read)
    if node is None:
        raise Refused(f"no such path: {path}")
    text = node.data.decode("utf-8", "replace")
    if use.as_json:
        show_json({"path": path, "version": node.version, "data": text})
    else:
        say(text)


@registry.command(epilog="Example: fairlead registry watch /fairlead/agents")
@click.argument("path", default="/fairlead")
@click.option("--changes", type=click.IntRange(1), help="End after so many lines.")
@registry_verb
def watch(use: Use, path: str, changes: int | None) -> None:
    """Every change below PATH as it happens, until Ctrl-C: + made, ~ changed, - gone.

    Endpoints, tasks without ports, leaving records and routes are one tree with one revision; any other PATH is
    a folder, whose own nodes are shown.
    """
    from fairlead_console.watching_registry import lines  # noqa: PLC0415  # `--help` is fast without it

    url = use.registry

    async def show() -> None:
        left = changes
        async with aclosing(lines(url, path.rstrip("/") or "/")) as found:  # type: ignore[type-var]  # a generator
            async for line in found:
                if use.as_json:
                    say(msgspec.json.encode(line).decode())
                else:
                    say(
                        f"{line.revision if line.revision >= 0 else '-'} {line.change} {line.path}  {line.text}".rstrip()
                    )
                if left is not None and (left := left - 1) == 0:
                    return

    asyncio.run(show())


@registry.command(epilog="Example: fairlead registry confirm")
@registry_verb
def confirm(use: Use) -> None:
    """Tell every reader that what the registry holds now is right, after it was held back as unbelievable."""

    async def run(opened: Any) -> Any:
        from fairlead_discovery import reading  # noqa: PLC0415  # see above

        return await reading.confirm(opened)

    word = in_registry(use, run)
    if use.as_json:
        show_json({"cluster": word.cluster, "revision": word.revision})
    else:
        say(f"confirmed: readers believe cluster {word.cluster} at revision {word.revision}, and go on from there")


for _command in (registry_moves.export_, registry_moves.import_, registry_moves.check, registry_moves.copy):
    registry.add_command(_command)

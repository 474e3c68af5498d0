"""`fairlead registry export|import|check|copy`: registries as a whole."""

import asyncio
import gzip
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import click

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_daemon.errors import BadSettings, FairleadError, Refused

PAUSE_S = 0.1
WIDTH = 30


class Progress:
    """A bar on a terminal's stderr, redrawn at most ten times a second; nothing where no person looks."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._then_s = 0.0
        self._drawn = False

    def tell(self, what: str, done: int, of: int) -> None:
        now_s = time.monotonic()
        if self._shown and (now_s - self._then_s > PAUSE_S or done == of):
            self._then_s = now_s
            self._drawn = True
            bar = f"[{'#' * (WIDTH * done // of):{WIDTH}}] {done} of {of}" if of else str(done)
            print(f"\r\033[K{bar} {what}", end="", file=sys.stderr, flush=True)  # noqa: T201  # for the person

    def end(self) -> None:
        if self._drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)  # noqa: T201  # see above


def _run(urls: Iterable[str], body: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    """What `body(tell, *registries)` returns. It takes as long as it takes; out of sight is found out in seconds."""

    async def opened() -> Any:
        from fairlead_discovery.backends import open_registry  # noqa: PLC0415  # `--help` is fast without it

        registries = [await open_registry(url, follow=False) for url in urls]
        progress = Progress()
        try:
            return await body(progress.tell, *registries)
        finally:
            progress.end()
            await asyncio.gather(*(registry.close() for registry in registries))

    return asyncio.run(opened())


async def _image(tell: Any, registry: Any) -> Any:
    from fairlead_discovery import moving  # noqa: PLC0415  # see above

    registry.store.admin = True
    return await moving.image_of(registry, tell)


@click.command(name="export", epilog="Example: fairlead registry export registry.jsonl.gz")
@click.argument("file", default="-")
@registry_verb
def export_(use: Use, file: str) -> None:
    """Everything but what ends with a session, as JSON lines to FILE (`-` is stdout; `.gz` is packed)."""
    from fairlead_daemon.files import replace_file  # noqa: PLC0415  # see above
    from fairlead_discovery.decisions.archive import to_lines  # noqa: PLC0415  # see above

    image = _run([use.registry], _image)
    for path in sorted(image.unreadable):
        click.echo(f"left out: {image.unreadable[path]}", err=True)
    data = b"".join(to_lines(image, taken_s=time.time()))
    if file == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        replace_file(Path(file), gzip.compress(data, 6) if file.endswith(".gz") else data, mode=0o600)
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from error
    if use.as_json:
        show_json({"file": file, "nodes": len(image.nodes), "revision": image.revision, "cluster": image.cluster.uuid})
    else:
        say(f"{len(image.nodes)} nodes of cluster {image.cluster.uuid} at revision {image.revision} -> {file}")


@click.command(name="import", epilog="Example: fairlead registry import registry.jsonl --dry-run")
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--force", is_flag=True, help="Also when it removes most endpoints, or makes another cluster of it.")
@registry_verb
def import_(use: Use, file: str, *, dry_run: bool, force: bool) -> None:
    """Make the registry what FILE (from `export`) says: cluster, revision, every node; what is not in it goes.

    Leaders read everything anew afterwards. Killed in between, the registry stays closed: run it again.
    """
    from fairlead_discovery import moving  # noqa: PLC0415  # see above
    from fairlead_discovery.decisions.archive import from_lines, plan  # noqa: PLC0415  # see above

    try:
        data = Path(file).read_bytes()
        wanted = from_lines((gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).splitlines())
    except (OSError, EOFError) as error:
        raise Refused(f"{file}: {error}") from error
    except Refused as error:
        raise Refused(f"{file}: {error}") from error

    async def work(tell: Any, registry: Any) -> Any:
        if dry_run:
            return plan(await _image(tell, registry), wanted)
        return await moving.restore(registry, wanted, force=force, tell=tell)

    _show_plan(use, _run([use.registry], work), done=not dry_run)


@click.command(epilog="Example: fairlead registry copy zk://10.0.0.1:2181,10.0.0.2:2181,10.0.0.3:2181/prod")
@click.argument("to")
@click.option("--from", "source", default="", help="Registry to copy; the running one when not given.")
@click.option("--force", is_flag=True, help="Also over another cluster, or when most endpoints there would go.")
@registry_verb
def copy(use: Use, to: str, source: str, *, force: bool) -> None:
    """Move a running set-up to the registry TO, revision and leaderships included.

    The old registry then takes no more writes and says where it went: running daemons go along by themselves, and no
    endpoint is withdrawn. Set `registry` to TO in their settings before you take the old one away. To go back, copy
    back.
    """
    from fairlead_discovery import moving  # noqa: PLC0415  # see above

    origin = source or use.registry
    if origin == to:
        raise BadSettings(f"{to} is the registry to copy from")

    async def work(tell: Any, old: Any, new: Any) -> Any:
        return await moving.move(old, new, to, force=force, tell=tell)

    done = _run([origin, to], work)
    _show_plan(use, done, done=True)
    if not use.as_json:
        say(f"{origin} takes no more writes; daemons go along. Set registry = {to!r} before you take the old one away")


def _show_plan(use: Use, todo: Any, *, done: bool) -> None:
    if use.as_json:
        facts = {"cluster": todo.cluster.uuid, "revision": todo.revision, "dangers": todo.dangers, "done": done}
        show_json({**facts, **todo.fields()})
        return
    marks = (("+", todo.created), ("~", todo.changed), ("-", todo.removed))
    if not done:
        for mark, some in marks:
            for path in sorted(some):
                say(f"{mark} {path}")
        for danger in todo.dangers:
            say(f"! {danger}")
    say(f"{'done' if done else 'plan'}: {todo.summary()}; cluster {todo.cluster.uuid}, revision {todo.revision}")


@click.command(epilog="Example: fairlead registry check --repair")
@click.option("--repair", is_flag=True, help="Mend what can be mended without a person's knowledge.")
@registry_verb
def check(use: Use, *, repair: bool) -> int:
    """Name what is inconsistent: orphans, wrong names, unreadable data, forgotten records. Exit code 1 if anything is."""
    from fairlead_discovery.decisions.checking import problems  # noqa: PLC0415  # see above

    async def work(tell: Any, registry: Any) -> list[tuple[Any, str]]:
        found = problems(await _image(tell, registry), now_s=time.time())
        return [(p, await _mend(registry, p) if repair else _remedy(p)) for p in found]

    found = _run([use.registry], work)
    if use.as_json:
        show_json([{"path": p.path, "problem": p.what, "state": state} for p, state in found])
    else:
        rows = [(p.path, p.what, state) for p, state in found]
        show_table(("path", "problem", "state"), rows, empty="nothing is wrong")
    return 1 if any(state != "repaired" for _, state in found) else 0


def _remedy(problem: Any) -> str:
    return "--repair mends it" if problem.repair else "for you to decide"


async def _mend(registry: Any, problem: Any) -> str:
    """Each in a transaction of its own: what changed meanwhile is left alone."""
    from fairlead_discovery import paths  # noqa: PLC0415  # see above

    if not problem.repair:
        return "for you to decide"
    try:
        if paths.clocked_folder(problem.path):
            await registry.commit(problem.repair)
        else:
            await registry.remove(problem.path)
    except FairleadError as error:
        return f"not repaired: {error}"
    return "repaired"
